//! The data plane of one host: opening it, attaching it, filling it.

use crate::bpffs::{self, Paths, remove_pin};
use crate::error::Error;
use crate::events::{self, DroppedFrame, Events, HandedFrame};
use crate::links::{self, Hook};
use crate::pinned::Maps;
use crate::reconcile::Ports;
use crate::tables::{Changes, Edits, Tables};
use crate::view::View;
use crate::{object, reconcile};
use aya::Ebpf;
use aya::programs::SchedClassifier;
use packet::{Config, ConntrackSize};
use std::collections::BTreeSet;
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
}

impl Options {
    /// The defaults of this host, with this mount point.
    #[must_use]
    pub fn new(bpffs: impl Into<PathBuf>) -> Options {
        let per_port = ConntrackSize::DEFAULT_PER_PORT;
        let conntrack = ConntrackSize::of_host(Options::memory_bytes(), per_port);
        Options { bpffs: bpffs.into(), conntrack }
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
    pub(crate) view: View,
    events: Events,
    /// What the map of ports holds; `None` when that is not sure.
    ports: Option<Ports>,
}

impl DataPlane {
    /// Opens or makes it: mounts the bpf file system, reuses maps, programs and links that are
    /// pinned there, and replaces programs of another version in place.
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
        let mut object = object::open(&paths, options.conntrack)?;
        let programs = Programs::open(&mut object, &paths)?;
        let mut maps = Maps::take(&mut object)?;
        let events = Events::open(&mut maps)?;
        lay_out(&mut maps, options.conntrack)?;
        // An agent that died over a change may not have come to it.
        maps.raise_epoch()?;
        let mut plane = DataPlane { paths, programs, view: View { maps }, events, ports: None };
        plane.refresh_links()?;
        plane.paths.remove_others()?;
        Ok((plane, object))
    }

    /// Makes every link run our programs, and removes those whose interface is gone.
    fn refresh_links(&mut self) -> Result<(), Error> {
        for pin in links::pins(&self.paths.links())? {
            match links::inspect(&pin)? {
                Some(found) if found.is_first => {
                    links::replace(self.programs.of(pin.hook), found, &pin)?;
                }
                // It is attached anew, if anybody wants the interface.
                Some(_) if links::interface_name(pin.ifindex).is_ok() => {}
                _ => remove_pin(&pin.path)?,
            }
        }
        Ok(())
    }

    /// Makes this VXLAN device (`external`, learning off) the tunnel. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Attach`] or [`Error::Map`].
    pub fn set_tunnel_device(&mut self, ifindex: u32) -> Result<(), Error> {
        let directory = self.paths.links();
        links::attach(self.programs.of(Hook::FromTunnel), Hook::FromTunnel, &directory, ifindex)?;
        let config = self.view.maps.config()?;
        if config.tunnel_ifindex != ifindex {
            self.view.maps.set_config(Config { tunnel_ifindex: ifindex, ..config })?;
            self.view.maps.raise_epoch()?;
        }
        for pin in links::pins(&directory)? {
            if pin.hook == Hook::FromTunnel && pin.ifindex != ifindex {
                remove_pin(&pin.path)?;
            }
        }
        Ok(())
    }

    /// Attaches both hooks of a port's host side. Idempotent. Until `ports` has the interface,
    /// every frame from and to it is dropped.
    ///
    /// # Errors
    /// [`Error::NoInterface`] or [`Error::Attach`].
    pub fn attach_port(&mut self, ifindex: u32) -> Result<(), Error> {
        let directory = self.paths.links();
        // Egress first: from then on the host's stack is shut out, and nothing comes in unseen
        // because the device is not up yet.
        links::attach(self.programs.of(Hook::ToPort), Hook::ToPort, &directory, ifindex)?;
        links::attach(self.programs.of(Hook::FromPort), Hook::FromPort, &directory, ifindex)
    }

    /// Interfaces on which both hooks of a port are attached, before any other program. Pins of
    /// interfaces that are gone are removed.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Attach`].
    pub fn attached_ports(&self) -> Result<BTreeSet<u32>, Error> {
        let mut found = [BTreeSet::new(), BTreeSet::new()];
        for pin in links::pins(&self.paths.links())? {
            match links::inspect(&pin)? {
                Some(link) if link.is_first => {}
                // Somebody else's program is before ours: no better than none.
                Some(_) if links::interface_name(pin.ifindex).is_ok() => continue,
                _ => {
                    remove_pin(&pin.path)?;
                    continue;
                }
            }
            match pin.hook {
                Hook::FromPort => found[0].insert(pin.ifindex),
                Hook::ToPort => found[1].insert(pin.ifindex),
                Hook::FromTunnel => false,
            };
        }
        Ok(found[0].intersection(&found[1]).copied().collect())
    }

    /// Makes the maps equal to `desired`: reads them back and writes only what differs. The order
    /// is such that nothing is allowed in between that neither state allows.
    ///
    /// # Errors
    /// [`Error::MapFull`] or [`Error::BadTable`] before anything is written, [`Error::Map`] in
    /// the midst: call again.
    pub fn reconcile(&mut self, desired: &Tables) -> Result<Changes, Error> {
        self.ports = None;
        reconcile::reconcile(&mut self.view.maps, desired)
    }

    /// Makes edits, in the same order, without reading anything back: its work is that of the
    /// edits. The caller knows what the maps hold.
    ///
    /// # Errors
    /// [`Error::BadTable`] before anything is written, [`Error::Map`] in the midst: the maps are
    /// in between, and [`DataPlane::reconcile`] mends them.
    pub fn apply(&mut self, edits: Edits) -> Result<Changes, Error> {
        let mut ports = match self.ports.take() {
            Some(ports) => ports,
            None => self.view.maps.ports.read()?,
        };
        let changes = reconcile::apply(&mut self.view.maps, &mut ports, edits)?;
        self.ports = Some(ports);
        Ok(changes)
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

    /// Takes the frames that wait for the agent, oldest first: no more than the buffer holds. There
    /// is one reader at a time.
    #[must_use]
    pub fn handed_off(&mut self) -> Vec<HandedFrame> {
        events::handed_off(&mut self.view.maps)
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

/// The programs, in the kernel and pinned.
struct Programs {
    from_port: SchedClassifier,
    from_tunnel: SchedClassifier,
    to_port: SchedClassifier,
}

impl Programs {
    fn open(object: &mut Ebpf, paths: &Paths) -> Result<Programs, Error> {
        let (directory, maps) = (paths.programs(), paths.maps());
        let mut open =
            |hook: Hook| object::program(object, hook.name(), &directory.join(hook.name()), &maps);
        Ok(Programs {
            from_port: open(Hook::FromPort)?,
            from_tunnel: open(Hook::FromTunnel)?,
            to_port: open(Hook::ToPort)?,
        })
    }

    fn get(&self, hook: Hook) -> &SchedClassifier {
        match hook {
            Hook::FromPort => &self.from_port,
            Hook::FromTunnel => &self.from_tunnel,
            Hook::ToPort => &self.to_port,
        }
    }

    fn of(&mut self, hook: Hook) -> &mut SchedClassifier {
        match hook {
            Hook::FromPort => &mut self.from_port,
            Hook::FromTunnel => &mut self.from_tunnel,
            Hook::ToPort => &mut self.to_port,
        }
    }
}
