//! The real kernel of the host in whose network namespace the process is: rtnetlink, namespaces
//! and eBPF, through `hostnet`, `compute` and `dataplane`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use compute::{Driver, InstanceSpec, Netns, Prepared};
use dataplane::{DataPlane, Edits, Hold, Options, Tables};
use hostnet::{LinkNews, Netlink, VxlanSpec};
use model::resource::{l2_network::VXLAN_MTU_BYTES, vtep::VXLAN_PORT};
use uuid::Uuid;

use crate::{
    Error,
    kernel::{HostKernel, Observed, ObservedNic, Refusal, Room, Stock},
};

/// The host's one VXLAN device.
const TUNNEL_DEVICE: &str = "nlvx";

/// The real kernel.
#[derive(Clone)]
pub(crate) struct Host {
    driver: Netns,
    plane: Arc<Mutex<DataPlane>>,
    news: Arc<tokio::sync::Mutex<News>>,
    /// How many spares are kept, and whether those of an earlier process have been looked for.
    spares: usize,
    has_adopted: bool,
    _hold: Arc<Hold>,
}

/// What is listened to.
enum News {
    /// Nothing yet.
    Unheard,
    Links(LinkNews),
    /// The kernel tells nothing any more: the audits are left.
    Over,
}

impl Host {
    /// Opens the data plane, or makes it, unless another agent has it. Blocks.
    pub(crate) fn open(options: &Options, prefix: String, spares: usize) -> Result<Self, Error> {
        let hold = Arc::new(Hold::take(&options.bpffs)?);
        let plane = DataPlane::open(options)?;
        let plane = Arc::new(Mutex::new(plane));
        let driver = Netns::new(prefix);
        if let Err(error) = driver.sweep() {
            tracing::warn!(%error, "files of namespaces that were never made stay behind");
        }
        let news = Arc::new(tokio::sync::Mutex::new(News::Unheard));
        Ok(Self { driver, plane, news, spares, has_adopted: false, _hold: hold })
    }

    /// Takes over the spares of an earlier process. One that is not guarded never was complete.
    async fn adopt_spares(&mut self) -> Result<(), Refusal> {
        let attached = self.attached().await?;
        for spare in self.driver.find_spares().await.map_err(Refusal::new)? {
            match attached.contains(&spare.host_ifindex) {
                true => self.driver.offer(spare),
                false => self.driver.remove_spare(&spare).await.map_err(Refusal::new)?,
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

impl HostKernel for Host {
    async fn tunnel(&mut self) -> Result<u32, Refusal> {
        let netlink = Netlink::current().await.map_err(Refusal::new)?;
        let spec = VxlanSpec {
            name: TUNNEL_DEVICE,
            port: VXLAN_PORT,
            mtu_bytes: VXLAN_MTU_BYTES,
            // Not in use yet, but a device cannot be given it later.
            has_policy_tag: true,
        };
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

    async fn observe(&mut self) -> Result<Observed, Refusal> {
        if !self.has_adopted {
            self.adopt_spares().await?;
        }
        let found = self.driver.list().await.map_err(Refusal::new)?;
        let instances = found.into_iter().map(|found| {
            let nics = found.nics.into_iter();
            let nics = nics.map(|n| (n.nic, ObservedNic { ifindex: n.host_ifindex, up: n.up }));
            (found.instance, nics.collect())
        });
        let instances = instances.collect();
        let attached = self.attached().await?;
        let spares = self.driver.offered().into_iter().collect();
        Ok(Observed { instances, attached, spares })
    }

    async fn attached(&mut self) -> Result<BTreeSet<u32>, Refusal> {
        self.plane(|plane| plane.attached_ports()).await
    }

    async fn news(&mut self) -> Option<u32> {
        let mut news = self.news.lock().await;
        loop {
            match &mut *news {
                News::Unheard => match LinkNews::current().await {
                    Ok(links) => *news = News::Links(links),
                    Err(error) => {
                        tracing::warn!(%error, "devices that somebody changes are found later");
                        *news = News::Over;
                    }
                },
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
        Ok(found.map(|nic| ObservedNic { ifindex: nic.host_ifindex, up: nic.up }))
    }

    async fn stock(&mut self) -> Result<Stock, Refusal> {
        let offered = self.driver.offered().len();
        if offered > self.spares
            && let Some(spare) = self.driver.take_spare()
        {
            self.driver.remove_spare(&spare).await.map_err(Refusal::new)?;
            return Ok(Stock::Removed(spare.host_ifindex));
        }
        if offered >= self.spares {
            return Ok(Stock::Full);
        }
        let spare = self.driver.make_spare().await.map_err(Refusal::new)?;
        let ifindex = spare.host_ifindex;
        if let Err(refusal) = self.attach(ifindex).await {
            self.driver.remove_spare(&spare).await.map_err(Refusal::new)?;
            return Err(refusal);
        }
        self.driver.offer(spare);
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

    async fn discard(&mut self, ifindex: u32) -> Result<(), Refusal> {
        self.driver.discard(ifindex).await.map_err(Refusal::new)
    }

    async fn room(&mut self) -> Result<Room, Refusal> {
        self.plane(|plane| {
            let present = plane.view().tables()?.ports.into_values().map(|port| port.number);
            Ok(Room { ports_max: plane.view().room()?.ports, present: present.collect() })
        })
        .await
    }

    async fn apply(&mut self, edits: Edits) -> Result<(), Refusal> {
        let changes = self.plane(move |plane| plane.apply(edits)).await?;
        tracing::debug!(?changes, "maps changed");
        Ok(())
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
}
