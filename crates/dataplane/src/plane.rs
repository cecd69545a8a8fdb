//! The data plane of one host: opening it, attaching it, filling it.

use crate::bpffs::{self, Paths, remove_pin};
use crate::desk::Desk;
use crate::error::Error;
use crate::events::{DroppedFrame, Events};
use crate::keep::{self, Kept};
use crate::links::{self, Found, Hook, Other, Pin};
use crate::pinned::Maps;
use crate::programs::Programs;
use crate::reconcile::Held;
use crate::tables::{Changes, Edits, Tables};
use crate::upgrade::{Running, Upgrade};
use crate::view::View;
use crate::{object, reconcile};
use aya::Ebpf;
use packet::{Config, ConntrackSize, Timeouts};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// How to open a data plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Mount point of the host's own bpf file system; mounted if it is not.
    pub bpffs: PathBuf,
    /// Ports and connections that there is room for. Takes effect when the maps are made, not
    /// later.
    pub conntrack: ConntrackSize,
    /// UDP port for frames that leave past the tunnel device, straight to the next hop and not
    /// through the host's netfilter, unless there is one already; 0 if all go through the device.
    pub direct_port: u16,
}

impl Options {
    /// The defaults of this host, with this mount point.
    #[must_use]
    pub fn new(bpffs: impl Into<PathBuf>) -> Options {
        let per_port = ConntrackSize::DEFAULT_PER_PORT;
        let conntrack = ConntrackSize::of_host(Options::memory_bytes(), per_port);
        Options { bpffs: bpffs.into(), conntrack, direct_port: 0 }
    }

    /// Memory of this host; 0 if the kernel does not tell.
    #[must_use]
    pub fn memory_bytes() -> u64 {
        nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total())
    }
}

/// Removes every pin, which stops the data plane, and unmounts the bpf file system.
///
/// # Errors
/// [`Error::Bpffs`] for the first pin that stays; the others are gone then.
pub fn unload(bpffs: &Path) -> Result<(), Error> {
    bpffs::unload(bpffs)
}

/// The data plane of one host. Dropping it leaves everything pinned and forwarding.
///
/// It works in the network namespace of the calling thread, which must be the same at each call.
pub struct DataPlane {
    paths: Paths,
    programs: Programs,
    kept: Kept,
    pub(crate) view: View,
    events: Events,
    /// What the map of ports holds; `None` when that is not sure.
    held: Option<Held>,
    /// What the first reconcile has to end, if another version's data plane runs.
    upgrade: Option<Upgrade>,
    lost_connections: Option<String>,
}

impl DataPlane {
    /// Opens or makes it: mounts the bpf file system, reuses maps, programs and links that are
    /// pinned there, and replaces programs of another version in place. If those work on other
    /// maps, they run until [`DataPlane::reconcile`] has filled ours.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Load`].
    pub fn open(options: &Options) -> Result<DataPlane, Error> {
        Ok(Self::open_with_object(options)?.0)
    }

    /// As [`DataPlane::open`], with the object, for what is not the product's in it.
    pub(crate) fn open_with_object(options: &Options) -> Result<(DataPlane, Ebpf), Error> {
        let paths = Paths::new(&options.bpffs, &object::hash());
        paths.prepare()?;
        let links = links::look(&paths.links())?;
        let found = links.iter().filter_map(|(_, found)| found.as_ref());
        let running = Running::prepare(&paths, found.filter(|link| link.is_first))?;
        let upgrade = Upgrade::plan(&paths, &running)?;
        let size = upgrade.as_ref().and_then(Upgrade::size).unwrap_or(options.conntrack);
        let mut object = object::open(&paths, size)?;
        tracing::debug!("maps are made");
        let programs = Programs::open(&mut object, &paths)?;
        tracing::debug!("programs are loaded");
        let mut maps = Maps::take(&mut object)?;
        let events = Events::open(&mut maps)?;
        if let Some(upgrade) = &upgrade {
            upgrade.seed(&mut maps)?;
        }
        lay_out(&mut maps, size)?;
        if maps.timeouts.get(0)? == 0 {
            // Nobody has set any yet.
            maps.set_timeouts(&Timeouts::default())?;
        }
        let config = maps.config()?;
        // Another one that is in use is the right one, until somebody says otherwise.
        let direct_port = match options.direct_port {
            0 => 0,
            port if config.direct_port == 0 => u32::from(port),
            _ => config.direct_port,
        };
        maps.set_config(Config { direct_port, ..config })?;
        // An agent that died over a change may not have come to it.
        maps.raise_epoch()?;
        let (kept, view) = (Kept::maps_of(&paths)?, View { maps });
        let lost_connections = upgrade.as_ref().and_then(|upgrade| upgrade.lost.clone());
        let held = None;
        let mut plane =
            DataPlane { paths, programs, kept, view, events, held, upgrade, lost_connections };
        if plane.upgrade.is_none() {
            plane.switch(links)?;
        }
        Ok((plane, object))
    }

    /// Takes the connections along, then lets every link run our programs.
    fn finish(&mut self, upgrade: &Upgrade) -> Result<(), Error> {
        // After the mark programs may work on the table already.
        if !self.paths.is_complete() {
            upgrade.carry(&mut self.view.maps)?;
        }
        self.switch(links::look(&self.paths.links())?)
    }

    /// Makes every link run our programs, whose maps are full; removes those whose interface is
    /// gone, and what no link uses any more.
    fn switch(&mut self, links: Vec<(Pin, Option<Found>)>) -> Result<(), Error> {
        self.paths.mark_complete()?;
        tracing::debug!("maps are full");
        let mut result = Ok(());
        for (pin, found) in links {
            let done = match found {
                Some(found) if found.is_first => {
                    links::replace(self.programs.of(pin.hook), found, &pin, &mut self.kept)
                }
                // It is attached anew, if anybody wants the interface.
                Some(_) if links::interface_name(pin.ifindex).is_ok() => Ok(()),
                _ => remove_pin(&pin.path),
            };
            // The interface may go at any time. One that fails does not stop the others.
            if done.is_err() && links::interface_name(pin.ifindex).is_ok() {
                result = result.and(done);
            }
        }
        result?;
        self.paths.remove_others()
    }

    /// What becomes of links that run another version's programs.
    fn others(&self) -> Other {
        if self.is_upgrading() { Other::Stays } else { Other::Replaced }
    }

    /// Makes this VXLAN device (`external`, learning off) the tunnel. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Attach`] or [`Error::Map`].
    pub fn set_tunnel_device(&mut self, ifindex: u32) -> Result<(), Error> {
        // Egress first: the device would send what is for GRE as VXLAN.
        self.attach(Hook::ToTunnel, ifindex)?;
        self.attach(Hook::FromTunnel, ifindex)?;
        let config = self.view.maps.config()?;
        if config.tunnel_ifindex != ifindex {
            self.view.maps.set_config(Config { tunnel_ifindex: ifindex, ..config })?;
            self.view.maps.raise_epoch()?;
        }
        for pin in links::pins(&self.paths.links())? {
            let is_tunnels = matches!(pin.hook, Hook::FromTunnel | Hook::ToTunnel);
            if is_tunnels && pin.ifindex != ifindex {
                self.let_go(&pin)?;
            }
        }
        Ok(())
    }

    /// Lets frames leave past the tunnel device with this destination port, and come in; 0: through
    /// that device, all of them, once [`DataPlane::set_underlay_devices`] knows. Idempotent; says
    /// whether it was another one before.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_direct_port(&mut self, port: u16) -> Result<bool, Error> {
        let (config, direct_port) = (self.view.maps.config()?, u32::from(port));
        if config.direct_port == direct_port {
            return Ok(false);
        }
        // At once: a flow that is kept until then leads past the tunnel device.
        let epoch = config.epoch.wrapping_add(1);
        self.view.maps.set_config(Config { direct_port, epoch, ..config })?;
        Ok(true)
    }

    /// Takes packets of known flows out of their tunnels as they come in through these devices of
    /// the underlay, all Ethernet, and through no others; through none if all frames are to pass the
    /// tunnel device. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Bpffs`] or [`Error::Attach`]: what could not be attached
    /// comes out of the tunnel device, as everything does that is not of a known flow.
    pub fn set_underlay_devices(&mut self, devices: &BTreeSet<u32>) -> Result<(), Error> {
        self.look_at(Hook::FromUnderlay, devices)
    }

    /// Takes packets out of GRE as they come in through these devices of the underlay, all Ethernet, and
    /// through no others; through none if all frames are to pass the tunnel device, which GRE
    /// cannot. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Bpffs`] or [`Error::Attach`]: what could not be attached
    /// takes in no GRE.
    pub fn set_gre_devices(&mut self, devices: &BTreeSet<u32>) -> Result<(), Error> {
        self.look_at(Hook::FromGre, devices)
    }

    /// Has this hook on these devices of the underlay and on no others, unless all frames are to
    /// pass the tunnel device.
    fn look_at(&mut self, hook: Hook, devices: &BTreeSet<u32>) -> Result<(), Error> {
        let none = BTreeSet::new();
        let devices = if self.view.maps.config()?.direct_port == 0 { &none } else { devices };
        for pin in links::pins(&self.paths.links())? {
            if pin.hook == hook && !devices.contains(&pin.ifindex) {
                self.let_go(&pin)?;
            }
        }
        devices.iter().try_for_each(|ifindex| self.attach(hook, *ifindex))
    }

    /// Has connections that are idle remembered for so long; at their next packets, as for those that
    /// there are. Idempotent.
    ///
    /// # Errors
    /// [`Error::BadTable`] for a time that is none or too long, before anything is changed;
    /// [`Error::Map`].
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), Error> {
        for (name, seconds) in timeouts.named() {
            if !(1..=Timeouts::MAX_SECONDS).contains(&seconds) {
                let most = Timeouts::MAX_SECONDS;
                return Err(Error::BadTable(format!(
                    "timeout {name} is {seconds} s: it may be from 1 s to {most} s"
                )));
            }
        }
        if self.view.maps.set_timeouts(timeouts)? {
            self.view.maps.raise_epoch()?;
        }
        Ok(())
    }

    /// Looks at the frames that come in and leave by these devices, and by no others: those of the
    /// networks that the map `wires` has for them. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Bpffs`] or [`Error::Attach`].
    pub fn set_uplinks(&mut self, devices: &BTreeSet<u32>) -> Result<(), Error> {
        for pin in links::pins(&self.paths.links())? {
            let is_uplinks = matches!(pin.hook, Hook::FromUplink | Hook::ToUplink);
            if is_uplinks && !devices.contains(&pin.ifindex) {
                self.let_go(&pin)?;
            }
        }
        devices.iter().try_for_each(|ifindex| {
            self.attach(Hook::FromUplink, *ifindex)?;
            self.attach(Hook::ToUplink, *ifindex)
        })
    }

    /// The devices through which packets in GRE come in.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Attach`].
    pub fn gre_devices(&self) -> Result<BTreeSet<u32>, Error> {
        let ours = self.programs.id(Hook::FromGre)?;
        let mut found = BTreeSet::new();
        for pin in links::pins(&self.paths.links())? {
            let runs = |link: Found| link.is_first && (link.program == ours || self.is_upgrading());
            if pin.hook == Hook::FromGre && links::inspect(&pin)?.is_some_and(runs) {
                found.insert(pin.ifindex);
            }
        }
        Ok(found)
    }

    /// The devices whose frames are looked at both ways.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Attach`].
    pub fn uplinks(&self) -> Result<BTreeSet<u32>, Error> {
        let mut found = [BTreeSet::new(), BTreeSet::new()];
        for pin in links::pins(&self.paths.links())? {
            let side = match pin.hook {
                Hook::FromUplink => &mut found[0],
                Hook::ToUplink => &mut found[1],
                _ => continue,
            };
            let ours = self.programs.id(pin.hook)?;
            let runs = |link: Found| link.is_first && (link.program == ours || self.is_upgrading());
            if links::inspect(&pin)?.is_some_and(runs) {
                side.insert(pin.ifindex);
            }
        }
        Ok(found[0].intersection(&found[1]).copied().collect())
    }

    /// The index of the tunnel device that was set last; 0 if none was.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn tunnel_device(&self) -> Result<u32, Error> {
        Ok(self.view.maps.config()?.tunnel_ifindex)
    }

    /// Whether the tunnel device has our programs, before any other one.
    ///
    /// # Errors
    /// [`Error::Map`] or [`Error::Attach`].
    pub fn has_tunnel(&self) -> Result<bool, Error> {
        let ifindex = self.tunnel_device()?;
        for hook in [Hook::FromTunnel, Hook::ToTunnel] {
            let pin = Pin { ifindex, hook, path: hook.pin(&self.paths.links(), ifindex) };
            let ours = self.programs.id(hook)?;
            let is_guard =
                |link: Found| link.is_first && (link.program == ours || self.is_upgrading());
            if !links::inspect(&pin)?.is_some_and(is_guard) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Attaches both hooks of a port's host side. Idempotent. Until `ports` has the interface,
    /// every frame from and to it is dropped.
    ///
    /// # Errors
    /// [`Error::NoInterface`] or [`Error::Attach`].
    pub fn attach_port(&mut self, ifindex: u32) -> Result<(), Error> {
        // Egress first: from then on the host's stack is shut out, and nothing comes in unseen
        // because the device is not up yet.
        self.attach(Hook::ToPort, ifindex)?;
        self.attach(Hook::FromPort, ifindex)
    }

    /// As [`attach_port`](DataPlane::attach_port), on a device that is somebody else's. It can be
    /// given back, also by a later process.
    ///
    /// # Errors
    /// [`Error::Bpffs`], [`Error::NoInterface`] or [`Error::Attach`].
    pub fn borrow_port(&mut self, ifindex: u32) -> Result<(), Error> {
        links::interface_name(ifindex)?;
        self.kept.borrow(&self.paths, ifindex)?;
        self.attach_port(ifindex)
    }

    /// Takes the programs off a device that is somebody else's, and off no other; whether it was
    /// one. No port of the maps may have it any more.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Attach`]: call again.
    pub fn give_back_port(&mut self, ifindex: u32) -> Result<bool, Error> {
        if !self.kept.borrowed().contains(&ifindex) {
            return Ok(false);
        }
        // In the reverse order of attaching: the host's stack is let in last.
        for hook in [Hook::FromPort, Hook::ToPort] {
            let pin = Pin { ifindex, hook, path: hook.pin(&self.paths.links(), ifindex) };
            self.let_go(&pin)?;
            links::until_off(self.programs.id(hook)?, &pin)?;
        }
        self.kept.forget(&self.paths, ifindex)?;
        Ok(true)
    }

    /// The devices that are somebody else's and were not given back. Marks of devices that are
    /// gone are removed.
    ///
    /// # Errors
    /// [`Error::Bpffs`].
    pub fn borrowed_ports(&mut self) -> Result<BTreeSet<u32>, Error> {
        for ifindex in self.kept.borrowed().clone() {
            if links::interface_name(ifindex).is_err() {
                self.kept.forget(&self.paths, ifindex)?;
            }
        }
        Ok(self.kept.borrowed().clone())
    }

    fn attach(&mut self, hook: Hook, ifindex: u32) -> Result<(), Error> {
        let pin = Pin { ifindex, hook, path: hook.pin(&self.paths.links(), ifindex) };
        if self.kept.misses(&pin) {
            // Another one cannot be attached beside it, and to let go of it would cut what passes.
            self.paths.prepare()?;
            self.kept.mend_link(&pin)?;
        }
        let others = self.others();
        links::attach(self.programs.of(hook), &pin, others, &mut self.kept)
    }

    /// Removes a pin, and lets go of its link.
    fn let_go(&mut self, pin: &Pin) -> Result<(), Error> {
        remove_pin(&pin.path)?;
        self.kept.let_go(pin.ifindex, pin.hook);
        Ok(())
    }

    /// Mounts the bpf file system and pins maps, programs and links again, as far as somebody has
    /// taken that away; how many pins were missing. Nothing stops forwarding meanwhile.
    ///
    /// # Errors
    /// [`Error::Bpffs`], [`Error::Map`], [`Error::Load`] or [`Error::Attach`].
    pub fn mend(&mut self) -> Result<usize, Error> {
        self.paths.prepare()?;
        let mut mended = self.kept.mend(&self.paths)?;
        for hook in Hook::ALL {
            let pin = self.paths.programs().join(hook.name());
            let missed = keep::mend_program(self.programs.of(hook), hook.name(), &pin)?;
            mended += usize::from(missed);
        }
        if !self.is_upgrading() {
            self.paths.mark_complete()?;
        }
        Ok(mended)
    }

    /// Interfaces on which both hooks of a port are attached, before any other program. Pins of
    /// interfaces that are gone are removed.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Attach`].
    pub fn attached_ports(&mut self) -> Result<BTreeSet<u32>, Error> {
        let mut found = [BTreeSet::new(), BTreeSet::new()];
        let ours = Hook::ALL.map(|hook| self.programs.id(hook).map(|id| (hook, id)));
        let ours = ours.into_iter().collect::<Result<BTreeMap<_, _>, _>>()?;
        for pin in links::pins(&self.paths.links())? {
            // Another version's goes on until ours are filled.
            let runs_ours =
                |link: &Found| self.is_upgrading() || ours.get(&pin.hook) == Some(&link.program);
            match links::inspect(&pin)? {
                Some(link) if link.is_first && runs_ours(&link) => {}
                // Somebody else's program, or one before ours: no better than none.
                Some(_) if links::interface_name(pin.ifindex).is_ok() => continue,
                _ => {
                    self.let_go(&pin)?;
                    continue;
                }
            }
            match pin.hook {
                Hook::FromPort => found[0].insert(pin.ifindex),
                Hook::ToPort => found[1].insert(pin.ifindex),
                Hook::FromTunnel | Hook::ToTunnel | Hook::FromUnderlay | Hook::FromGre => false,
                Hook::FromUplink | Hook::ToUplink => false,
            };
        }
        Ok(found[0].intersection(&found[1]).copied().collect())
    }

    /// Makes the maps equal to `desired`: reads them back and writes only what differs. The order
    /// is such that nothing is allowed in between that neither state allows. If another version's
    /// data plane still runs, ours takes over then.
    ///
    /// # Errors
    /// [`Error::MapFull`] or [`Error::BadTable`] before anything is written, [`Error::Map`] in
    /// the midst: call again. [`Error::Upgrade`] if another version's data plane runs on.
    pub fn reconcile(&mut self, desired: &Tables) -> Result<Changes, Error> {
        self.held = None;
        let filled = reconcile::reconcile(&mut self.view.maps, desired);
        let Some(upgrade) = self.upgrade.take() else { return filled };
        let changes = filled.and_then(|changes| self.finish(&upgrade).map(|()| changes));
        match &changes {
            Ok(_) => tracing::info!("upgrade: all devices have the new programs"),
            Err(_) => self.upgrade = Some(upgrade),
        }
        changes.map_err(|cause| Error::Upgrade { cause: Box::new(cause) })
    }

    /// Makes edits, in the same order, without reading anything back: its work is that of the
    /// edits. The caller knows what the maps hold.
    ///
    /// # Errors
    /// [`Error::BadTable`] before anything is written, [`Error::Map`] in the midst: the maps are
    /// in between, and [`DataPlane::reconcile`] mends them.
    pub fn apply(&mut self, edits: Edits) -> Result<Changes, Error> {
        let mut held = match self.held.take() {
            Some(held) => held,
            None => Held::read(&self.view.maps)?,
        };
        let changes = reconcile::apply(&mut self.view.maps, &mut held, edits)?;
        self.held = Some(held);
        Ok(changes)
    }

    /// Whether another version's data plane runs, until the first reconcile has filled ours.
    #[must_use]
    pub fn is_upgrading(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Why connections began anew, if the data plane that ran before could not be understood.
    #[must_use]
    pub fn lost_connections(&self) -> Option<&str> {
        self.lost_connections.as_deref()
    }

    /// What it holds and has counted.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes the drop events that wait, oldest first. There is one reader at a time.
    ///
    /// The programs write events from the first call on until this value is dropped: whoever
    /// wants to know of a drop calls before it, and again and again, as a buffer that is full
    /// costs every drop a lock.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn events(&mut self) -> Result<Vec<DroppedFrame>, Error> {
        self.events.read(&mut self.view.maps)
    }

    /// Where ports ask the agent, and it answers. There is one at a time: what one takes, another does
    /// not get, and the answers of the one before no longer pass.
    ///
    /// # Errors
    /// [`Error::Map`] or [`Error::Socket`].
    pub fn desk(&mut self) -> Result<Desk, Error> {
        Desk::open(&self.paths.maps(), &mut self.view.maps)
    }

    /// Most instructions that the verifier walked, by program; for the test that guards them.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel does not tell about a program.
    pub fn verified_instructions(&self) -> Result<Vec<(&'static str, Option<u32>)>, Error> {
        let count = |hook: Hook| {
            let info = self.programs.get(hook).info().map_err(|cause| Error::Load {
                program: hook.name().to_owned(),
                cause: crate::error::chain(&cause),
            })?;
            Ok((hook.name(), info.verified_instruction_count()))
        };
        Hook::ALL.into_iter().map(count).collect()
    }
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.events.end(&mut self.view.maps);
    }
}

/// Says where the areas of the connection table are, and how it is hashed, unless that is known.
fn lay_out(maps: &mut Maps, wanted: ConntrackSize) -> Result<(), Error> {
    let config = maps.config()?;
    if config.port_buckets != 0 {
        return Ok(());
    }
    // Of a table that another agent made and died over, nothing is known but its size.
    let ports = u32::try_from(maps.ports.limit()).unwrap_or(u32::MAX);
    let port_buckets = wanted.port_buckets.min(maps.conntrack.limit() / ports.max(1));
    let common_buckets = maps.conntrack.limit() - ports * port_buckets;
    let seed = RandomState::new().build_hasher().finish();
    maps.set_config(Config { common_buckets, port_buckets, seed, ..config })
}
