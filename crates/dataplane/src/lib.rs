//! eBPF loader, map writers and their read-back.
//!
//! Everything lives in pins below one bpf file system per host: a data plane forwards without
//! this process, and a process that starts finds what the one before left. Nothing here knows
//! the control plane; calls block and are short.

mod counters;
mod error;
mod tables;

pub use counters::{Connection, Counters, DroppedFrame};
pub use error::{Error, PreflightError};
pub use packet;
pub use tables::{Change, Changes, Tables};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How to open a data plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Mount point of the host's own bpf file system; mounted if it is not.
    pub bpffs: PathBuf,
    /// Connections of all ports. Takes effect when the maps are made, not later.
    pub conntrack_entries: u32,
}

impl Options {
    /// The defaults, with this mount point.
    #[must_use]
    pub fn new(bpffs: impl Into<PathBuf>) -> Options {
        Options { bpffs: bpffs.into(), conntrack_entries: packet::DEFAULT_CONNTRACK_ENTRIES }
    }
}

/// Says whether this host can run the data plane, and if not, what to do.
///
/// # Errors
/// The first thing that is missing.
pub fn preflight() -> Result<(), PreflightError> {
    Err(PreflightError::Feature { what: "everything", hint: "not built yet" })
}

/// Removes every pin, which stops the data plane, and unmounts the bpf file system.
///
/// # Errors
/// [`Error::Bpffs`] for the first pin that stays; the others are gone then.
pub fn unload(bpffs: &Path) -> Result<(), Error> {
    let _ = bpffs;
    Err(Error::Incomplete("everything"))
}

/// The data plane of one host. Dropping it leaves everything pinned and forwarding.
#[derive(Debug)]
pub struct DataPlane {}

impl DataPlane {
    /// Opens or makes it: mounts the bpf file system, reuses maps, programs and links that are
    /// pinned there, and replaces programs of another version in place.
    ///
    /// # Errors
    /// [`Error::Bpffs`] or [`Error::Load`].
    pub fn open(options: &Options) -> Result<DataPlane, Error> {
        let _ = options;
        Err(Error::Incomplete("everything"))
    }

    /// Makes this VXLAN device (`external`, learning off) the tunnel. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Attach`] or [`Error::Map`].
    pub fn set_tunnel_device(&mut self, ifindex: u32) -> Result<(), Error> {
        Err(Error::NoInterface { ifindex })
    }

    /// Attaches both hooks of a port's host side. Idempotent. Until `ports` has the interface,
    /// every frame from and to it is dropped.
    ///
    /// # Errors
    /// [`Error::NoInterface`] or [`Error::Attach`].
    pub fn attach_port(&mut self, ifindex: u32) -> Result<(), Error> {
        Err(Error::NoInterface { ifindex })
    }

    /// Detaches both hooks. An interface that is gone or was never attached is no error.
    ///
    /// # Errors
    /// [`Error::Bpffs`] if a pin cannot be removed.
    pub fn detach_port(&mut self, ifindex: u32) -> Result<(), Error> {
        Err(Error::NoInterface { ifindex })
    }

    /// Interfaces whose port hooks are attached. Pins of interfaces that are gone are removed.
    ///
    /// # Errors
    /// [`Error::Bpffs`].
    pub fn attached_ports(&mut self) -> Result<BTreeSet<u32>, Error> {
        Err(Error::Incomplete("everything"))
    }

    /// Makes the maps equal to `desired`, writing only what differs. Adds go from the far end
    /// to the near (VTEPs, stations, addresses, ports), removes the other way around.
    ///
    /// # Errors
    /// [`Error::MapFull`] before anything is written, [`Error::Map`] in the midst: call again.
    pub fn reconcile(&mut self, desired: &Tables) -> Result<Changes, Error> {
        let _ = desired;
        Err(Error::Incomplete("everything"))
    }

    /// What the maps hold now.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn read_back(&self) -> Result<Tables, Error> {
        Err(Error::Incomplete("everything"))
    }

    /// Drops by reason and traffic by port.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counters, Error> {
        Err(Error::Incomplete("everything"))
    }

    /// Live and not yet reclaimed connections of all ports.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn conntrack(&self) -> Result<Vec<Connection>, Error> {
        Err(Error::Incomplete("everything"))
    }

    /// Takes the drop events that wait, oldest first. There is one reader at a time.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn events(&mut self) -> Result<Vec<DroppedFrame>, Error> {
        Err(Error::Incomplete("everything"))
    }
}
