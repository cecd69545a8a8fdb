//! The real kernel of the host in whose network namespace the process is: rtnetlink, namespaces
//! and eBPF, through `hostnet`, `compute` and `dataplane`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use compute::{Driver, Drivers, InstanceSpec, Netns, Prepared, Qemu, QemuOptions};
use dataplane::{DataPlane, Desk, DropTurns, Edits, Hold, Lookup, Options, Tables, View};
use hostnet::{LinkNews, Losses, Namespace, Netlink, Promiscuity, VxlanSpec};
use model::{
    mtu::{self, Around, Family},
    resource::vtep::VXLAN_PORT,
};
use packet::Timeouts;
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use wire::message::Device;

use crate::{
    Error, count, devices, external,
    kernel::{
        Candidate, Counted, Directly, Guards, HostKernel, Movers, Observed, ObservedNic, Refusal,
        Room, Stock,
    },
    uplink::{self, Uplinks},
};

/// UDP port of frames that leave past the VXLAN device, its own, until a network names another one.
pub(crate) const DIRECT_PORT: u16 = VXLAN_PORT;
/// The host's one VXLAN device.
const TUNNEL_DEVICE: &str = "nlvx";

/// How long the host's status tells that an upgrade has cost connections.
const NOTICED_FOR: Duration = Duration::from_secs(300);

/// Between two looks at the devices where the kernel brings no news of them.
const UNHEARD_PAUSE: Duration = Duration::from_secs(30);

/// The real kernel.
#[derive(Clone)]
pub(crate) struct Host {
    driver: Drivers,
    plane: Arc<Mutex<DataPlane>>,
    news: Arc<tokio::sync::Mutex<News>>,
    device_news: Arc<tokio::sync::Mutex<News>>,
    /// What is to be said of an upgrade, and until when.
    notice: Option<(String, Instant)>,
    bpffs: Arc<Path>,
    hold: Arc<Mutex<Hold>>,
    /// How many spares are kept, and whether those of an earlier process have been looked for.
    spares: usize,
    has_adopted: bool,
    /// Devices that hear all frames because we want it.
    promiscuous: BTreeSet<u32>,
    /// Names of the devices that ports without an instance are plugged into.
    plugged: Arc<Mutex<BTreeSet<String>>>,
    /// Frames may pass the tunnel device by, for as long as nothing forbids it.
    is_direct: bool,
}

/// What is listened to.
enum News {
    /// Nothing yet.
    Unheard,
    Links(LinkNews),
    /// The kernel tells nothing any more: the audits are left.
    Over,
}

impl News {
    async fn listen() -> Self {
        match LinkNews::current().await {
            Ok(links) => Self::Links(links),
            Err(error) => {
                tracing::warn!(%error, "devices that somebody changes are found later");
                Self::Over
            }
        }
    }
}

impl Host {
    /// Opens the data plane, or makes it, unless another agent has it. Blocks.
    pub(crate) fn open(
        options: &Options,
        (prefix, data, qemu): (String, &Path, QemuOptions),
        spares: usize,
        has_policies: bool,
    ) -> Result<Self, Error> {
        let hold = Arc::new(Mutex::new(Hold::take(&options.bpffs)?));
        let is_direct = options.direct_port != 0;
        let is_through = has_policies && is_direct;
        if is_through {
            tell_policies();
        }
        let direct_port = if is_through { 0 } else { options.direct_port };
        let plane = DataPlane::open(&Options { direct_port, ..options.clone() })?;
        let notice = plane.lost_connections().map(|reason| {
            let text = format!(
                "no connection was taken along when the data plane was upgraded: {reason}; \
                 TCP goes on, anything else begins anew, and nothing is to be done"
            );
            (text, Instant::now() + NOTICED_FOR)
        });
        let plane = Arc::new(Mutex::new(plane));
        let driver = Drivers { netns: Netns::new(prefix, data), qemu: Qemu::new(qemu) };
        if let Err(error) = driver.netns.sweep() {
            tracing::warn!(%error, "files of namespaces that were never made stay behind");
        }
        let [news, device_news] =
            [News::Unheard, News::Unheard].map(|news| Arc::new(tokio::sync::Mutex::new(news)));
        let bpffs = options.bpffs.as_path().into();
        let (has_adopted, promiscuous, plugged) = (false, BTreeSet::new(), Arc::default());
        Ok(Self {
            driver,
            plane,
            news,
            device_news,
            notice,
            bpffs,
            hold,
            spares,
            has_adopted,
            promiscuous,
            plugged,
            is_direct,
        })
    }

    /// Gives the tunnel device its name back if somebody has renamed it: another one cannot be made
    /// beside it, and making it anew would cut what passes.
    async fn name_tunnel(&self, netlink: &Netlink) -> Result<(), Refusal> {
        if netlink.link_by_name(TUNNEL_DEVICE).await.map_err(Refusal::new)?.is_some() {
            return Ok(());
        }
        // By its program: its index may be another device's by now.
        let ours =
            |plane: &mut DataPlane| Ok(plane.has_tunnel()?.then_some(plane.tunnel_device()?));
        match self.plane(ours).await? {
            Some(index) => netlink.set_name(index, TUNNEL_DEVICE).await.map_err(Refusal::new),
            None => Ok(()),
        }
    }

    /// Has these devices hear all frames: a card would keep those for the MACs of ports from us.
    /// Others that we have switched so hear their own again, unless that is another agent's doing,
    /// or an operator's.
    async fn listen_to_all(
        &mut self,
        netlink: &Netlink,
        devices: &BTreeSet<u32>,
    ) -> Result<(), Refusal> {
        for index in self.promiscuous.difference(devices) {
            match netlink.set_promiscuity(*index, Promiscuity::Off).await {
                Err(error) if !error.is_not_found() => return Err(Refusal::new(error)),
                _ => {}
            }
        }
        self.promiscuous.retain(|index| devices.contains(index));
        for index in devices {
            let link = netlink.link_by_index(*index).await.map_err(Refusal::new)?;
            if link.is_some_and(|link| !link.is_promiscuous) {
                netlink.set_promiscuity(*index, Promiscuity::On).await.map_err(Refusal::new)?;
                self.promiscuous.insert(*index);
            }
        }
        Ok(())
    }

    /// Takes over the spares of an earlier process. One that is not guarded never was complete.
    async fn adopt_spares(&mut self) -> Result<(), Refusal> {
        let attached = self.guards().await?.ports;
        for spare in self.driver.netns.find_spares().await.map_err(Refusal::new)? {
            match attached.contains(&spare.host_ifindex) {
                true => self.driver.netns.offer(spare),
                false => self.driver.netns.remove_spare(&spare).await.map_err(Refusal::new)?,
            }
        }
        self.has_adopted = true;
        Ok(())
    }

    /// Works on the data plane in a thread that may block.
    async fn plane<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut DataPlane) -> Result<T, dataplane::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let plane = Arc::clone(&self.plane);
        let done = tokio::task::spawn_blocking(move || {
            // Whatever panicked in between: a call that failed makes the agent read all again.
            work(&mut plane.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(Refusal::new)?.map_err(Refusal::new)
    }
}

/// Lets the programs ask for the host's routes. `bpf_fib_lookup` answers only for a device that may
/// forward. The loopback device is as whom the host itself asks, and has nothing to forward.
fn allow_route_lookups(own: &Namespace) -> Option<String> {
    let setting = "net/ipv4/conf/lo/forwarding";
    let error = own.sysctl(setting, "1").err()?;
    tracing::warn!(%error, "frames to other hosts all go through the tunnel device");
    Some(format!(
        "its programs cannot ask for the host's routes, which {setting}=1 allows: {error}"
    ))
}

fn tell_policies() {
    tracing::warn!(
        "the host has IPsec policies: frames to and from other hosts all pass the tunnel device, \
         where they hold; `ip xfrm policy` lists them"
    );
}

/// Whether a device has the name of the tunnel's, of a port's, or of a spare's.
pub(crate) fn is_ours(device: &str) -> bool {
    let is_port =
        |digits: &str| digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let name = device.strip_prefix("nls").or_else(|| device.strip_prefix("nl"));
    device == TUNNEL_DEVICE || name.is_some_and(is_port)
}

impl HostKernel for Host {
    const HAS_UNDERLAY: bool = true;

    fn unable(&self) -> BTreeMap<String, String> {
        let why = Qemu::check().err().map(|error| ("qemu".to_owned(), error.to_string()));
        why.into_iter().collect()
    }

    async fn tunnel(&mut self, port: u16) -> Result<u32, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        let spec = VxlanSpec {
            name: TUNNEL_DEVICE,
            port,
            mtu_bytes: Around::vxlan(Family::Ipv4).inside(mtu::UNDERLAY),
            // Not in use yet, but a device cannot be given it later.
            has_policy_tag: true,
        };
        self.name_tunnel(&netlink).await?;
        netlink.remove_vxlan_of_other_port(&spec).await.map_err(Refusal::new)?;
        let link = netlink.create_vxlan_collect_md(&spec).await.map_err(Refusal::new)?;
        if !link.is_addr_gen_none {
            netlink.set_addr_gen_mode_none(link.index).await.map_err(Refusal::new)?;
        }
        let ifindex = link.index;
        // Each time: it writes nothing where all is right, and a device without its program would
        // hand what it receives to the host's own stack.
        self.plane(move |plane| plane.set_tunnel_device(ifindex)).await?;
        // Guarded first.
        if !link.is_up {
            netlink.set_up(ifindex).await.map_err(Refusal::new)?;
        }
        Ok(ifindex)
    }

    async fn lacking(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        let local = netlink.local_addresses().await.map_err(Refusal::new)?;
        Ok(addresses - &local)
    }

    async fn observe(&mut self) -> Result<Observed, Refusal> {
        if !self.has_adopted {
            self.adopt_spares().await?;
        }
        let found = self.driver.list().await.map_err(Refusal::new)?;
        let instances = found.into_iter().map(|found| {
            let nics = found.nics.into_iter();
            let nics = nics.map(|n| (n.nic, ObservedNic::of(&n)));
            (found.instance, nics.collect())
        });
        let instances = instances.collect();
        let Guards { ports: attached, borrowed, .. } = self.guards().await?;
        let spares = self.driver.netns.offered().into_iter().collect();
        Ok(Observed { instances, attached, spares, borrowed })
    }

    async fn guards(&mut self) -> Result<Guards, Refusal> {
        let (hold, bpffs) = (Arc::clone(&self.hold), Arc::clone(&self.bpffs));
        self.plane(move |plane| {
            hold.lock().unwrap_or_else(PoisonError::into_inner).renew(&bpffs)?;
            let pins = plane.mend()?;
            if pins > 0 {
                tracing::warn!(pins, ?bpffs, "somebody removed pins of the data plane; mended");
            }
            let (ports, borrowed) = (plane.attached_ports()?, plane.borrowed_ports()?);
            let (tunnel, gre, uplinks) =
                (plane.has_tunnel()?, plane.gre_devices()?, plane.uplinks()?);
            Ok(Guards { ports, borrowed, tunnel, gre, uplinks })
        })
        .await
    }

    async fn news(&mut self) -> Option<u32> {
        let mut news = self.news.lock().await;
        loop {
            match &mut *news {
                News::Unheard => *news = News::listen().await,
                News::Links(links) => match links.next().await {
                    Some(ifindex) => return ifindex,
                    None => *news = News::Over,
                },
                News::Over => std::future::pending().await,
            }
        }
    }

    async fn see(&mut self, instance: Uuid, nic: Uuid) -> Result<Option<ObservedNic>, Refusal> {
        let found = self.driver.find(instance, nic).await.map_err(Refusal::new)?;
        Ok(found.map(|nic| ObservedNic::of(&nic)))
    }

    async fn stock(&mut self) -> Result<Stock, Refusal> {
        let offered = self.driver.netns.offered().len();
        if offered > self.spares
            && let Some(spare) = self.driver.netns.take_spare()
        {
            self.driver.netns.remove_spare(&spare).await.map_err(Refusal::new)?;
            return Ok(Stock::Removed(spare.host_ifindex));
        }
        if offered >= self.spares {
            return Ok(Stock::Full);
        }
        let spare = self.driver.netns.make_spare().await.map_err(Refusal::new)?;
        let ifindex = spare.host_ifindex;
        if let Err(refusal) = self.attach(ifindex).await {
            self.driver.netns.remove_spare(&spare).await.map_err(Refusal::new)?;
            return Err(refusal);
        }
        self.driver.netns.offer(spare);
        Ok(Stock::Made(ifindex))
    }

    async fn prepare(&mut self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Refusal> {
        self.driver.prepare(spec).await.map_err(Refusal::new)
    }

    async fn activate(&mut self, nic: Uuid) -> Result<(), Refusal> {
        self.driver.activate(nic).await.map_err(Refusal::new)
    }

    async fn deactivate(&mut self, nic: Uuid) -> Result<(), Refusal> {
        self.driver.deactivate(nic).await.map_err(Refusal::new)
    }

    async fn remove(&mut self, instance: Uuid) -> Result<(), Refusal> {
        self.driver.remove(instance).await.map_err(Refusal::new)
    }

    async fn attach(&mut self, ifindex: u32) -> Result<(), Refusal> {
        self.plane(move |plane| plane.attach_port(ifindex)).await
    }

    async fn find(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Candidate>, Refusal> {
        self.plugged.lock().unwrap_or_else(PoisonError::into_inner).clone_from(names);
        external::find(names).await.map_err(Refusal::new)
    }

    async fn borrow(&mut self, ifindex: u32) -> Result<(), Refusal> {
        self.plane(move |plane| plane.borrow_port(ifindex)).await
    }

    async fn give_back(&mut self, ifindex: u32) -> Result<(), Refusal> {
        self.plane(move |plane| plane.give_back_port(ifindex)).await.map(|_| ())
    }

    async fn discard(&mut self, ifindex: u32) -> Result<(), Refusal> {
        self.driver.discard(ifindex).await.map_err(Refusal::new)
    }

    async fn notice(&mut self) -> Option<String> {
        let (text, until) = self.notice.as_ref()?;
        (Instant::now() < *until).then(|| text.clone())
    }

    async fn room(&mut self) -> Result<Room, Refusal> {
        self.plane(|plane| {
            let present = plane.view().tables()?.ports.into_values().map(|port| port.number);
            let (ports_max, salt) = (plane.view().room()?.ports, plane.view().salt()?);
            Ok(Room { ports_max, present: present.collect(), salt })
        })
        .await
    }

    async fn remember(&mut self, timeouts: &Timeouts) -> Result<(), Refusal> {
        let timeouts = *timeouts;
        self.plane(move |plane| plane.set_timeouts(&timeouts)).await
    }

    async fn apply(&mut self, edits: Edits) -> Result<(), Refusal> {
        let changes = self.plane(move |plane| plane.apply(edits)).await?;
        tracing::debug!(?changes, "maps changed");
        Ok(())
    }

    async fn losses(&mut self) -> Result<Vec<Losses>, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        let mut losses = netlink.losses().await.map_err(Refusal::new)?;
        let plugged = self.plugged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_port = |device: &str| is_ours(device) || plugged.contains(device);
        losses.retain(|of| is_port(&of.device) && !of.is_none());
        Ok(losses)
    }

    async fn desk(&mut self) -> Result<Option<Desk>, Refusal> {
        self.plane(|plane| plane.desk().map(Some)).await
    }

    async fn lookup(&mut self) -> Result<Box<dyn Lookup + Send>, Refusal> {
        let bpffs = Arc::clone(&self.bpffs);
        let opened = tokio::task::spawn_blocking(move || View::open(&bpffs)).await;
        Ok(Box::new(opened.map_err(Refusal::new)?.map_err(Refusal::new)?))
    }

    async fn drop_turns(&mut self) -> Result<Option<DropTurns>, Refusal> {
        let bpffs = Arc::clone(&self.bpffs);
        let opened = tokio::task::spawn_blocking(move || DropTurns::open(&bpffs)).await;
        opened.map_err(Refusal::new)?.map(Some).map_err(Refusal::new)
    }

    fn movers(&self) -> Option<Movers> {
        Some(Movers { qemu: self.driver.qemu.clone(), bpffs: Arc::clone(&self.bpffs) })
    }

    async fn arrived(&mut self, moves: &BTreeSet<u32>) -> Result<BTreeSet<u32>, Refusal> {
        let moves = moves.clone();
        self.plane(move |plane| {
            let view = plane.view();
            let is_over = |number: &u32| view.has_arrived(*number).map(|is| is.then_some(*number));
            moves.iter().filter_map(|number| is_over(number).transpose()).collect()
        })
        .await
    }

    async fn connections(&mut self) -> Result<Counted, Refusal> {
        let bpffs = Arc::clone(&self.bpffs);
        // By the pins: nobody who writes the maps waits for this.
        let count = move || {
            let view = View::open(&bpffs)?;
            let ports = view.connection_counts()?;
            let counters = count::counters(&view.counters()?, &view.room()?, &ports);
            Ok::<_, dataplane::Error>(Counted { sure: view.room()?.per_port(), ports, counters })
        };
        let done = tokio::task::spawn_blocking(count).await;
        done.map_err(Refusal::new)?.map_err(Refusal::new)
    }

    async fn audit(&mut self, tables: &Tables) -> Result<Tables, Refusal> {
        let tables = tables.clone();
        self.plane(move |plane| {
            let changes = plane.reconcile(&tables)?;
            if changes.is_empty() {
                return Ok(tables);
            }
            tracing::info!(?changes, "maps mended");
            plane.view().tables()
        })
        .await
    }

    async fn ways(
        &mut self,
        tunnels: &crate::underlay::Tunnels,
    ) -> Result<crate::underlay::Ways, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        crate::underlay::ways(&netlink, tunnels).await.map_err(Refusal::new)
    }

    async fn devices(&mut self) -> Result<Vec<Device>, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        let links = netlink.links().await.map_err(Refusal::new)?;
        let addresses = netlink.addresses_by_link().await.map_err(Refusal::new)?;
        Ok(devices::of(&links, &addresses, is_ours))
    }

    async fn device_news(&mut self) {
        let mut news = self.device_news.lock().await;
        if let News::Unheard = *news {
            *news = News::listen().await;
            return;
        }
        let News::Links(links) = &mut *news else { return sleep(UNHEARD_PAUSE).await };
        let mut last = links.next().await;
        // All that has come meanwhile is seen at once.
        while last.is_some() {
            match timeout(Duration::ZERO, links.next()).await {
                Ok(next) => last = next,
                Err(_) => return,
            }
        }
        *news = News::Over;
    }

    async fn uplinks(&mut self, interfaces: &BTreeSet<String>) -> Result<Uplinks, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        let mut uplinks = Uplinks::new();
        for name in interfaces {
            let link = netlink.link_by_name(name).await.map_err(Refusal::new)?;
            let judged = match is_ours(name) {
                true => Err(Refusal(format!("interface {name} is one of netloom's own"))),
                false => uplink::judge(name, link.as_ref()),
            };
            uplinks.insert(name.clone(), judged);
        }
        let devices: BTreeSet<u32> = uplinks.values().flatten().map(|u| u.ifindex).collect();
        self.listen_to_all(&netlink, &devices).await?;
        self.plane(move |plane| plane.set_uplinks(&devices)).await?;
        Ok(uplinks)
    }

    /// IPsec policies of the host hold for what passes the tunnel device only. So where there are
    /// some, everything does.
    async fn receive_directly(&mut self, wanted: Directly) -> Result<Option<String>, Refusal> {
        let own = Namespace::current().map_err(Refusal::new)?;
        let policies = match (self.is_direct, own.ipsec_policies().await) {
            (false, _) => 0,
            (true, Ok(policies)) => policies,
            // What held so far goes on to hold.
            (true, Err(error)) => return Err(Refusal::new(error)),
        };
        let why_not = match (self.is_direct, policies) {
            (false, _) => Some(
                "its agent runs with --through-tunnel-device; start it without, if no firewall \
                 of the host has to see what is in tunnels"
                    .to_owned(),
            ),
            (true, 0) => allow_route_lookups(&own),
            (true, _) => Some(
                "the host has IPsec policies, which `ip xfrm policy` lists; take them away where \
                 no tunnel needs them"
                    .to_owned(),
            ),
        };
        let is_through = !self.is_direct || policies > 0;
        let change = move |plane: &mut DataPlane| {
            let has_changed = plane.set_direct_port(if is_through { 0 } else { wanted.port })?;
            plane.set_underlay_devices(&wanted.devices)?;
            plane.set_gre_devices(&wanted.gre).map(|()| has_changed)
        };
        match self.plane(change).await? {
            true if policies > 0 => tell_policies(),
            true => tracing::info!("frames to and from other hosts pass the tunnel device by"),
            false => {}
        }
        Ok(why_not)
    }
}
