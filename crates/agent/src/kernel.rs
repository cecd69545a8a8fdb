//! What the converge loop needs of the host: devices, instances, attached programs, maps. Two
//! implementors: [`crate::host`] with the real kernel, [`crate::memory`] for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use compute::{FarEnd, FoundNic, InstanceSpec, Prepared, Qemu};
use dataplane::{Desk, DropTurns, Edits, Lookup, Tables};
use hostnet::Losses;
use packet::{MAX_PORTS, Timeouts};
use uuid::Uuid;
use wire::{counters::Counters, message::Device};

use crate::{
    underlay::{Tunnels, Ways},
    uplink::{Uplink, Uplinks},
};

/// Why the host refused something, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    pub(crate) fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An interface that a port is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plug {
    /// Its index.
    pub ifindex: u32,
    /// Where its other end is.
    pub far_end: FarEnd,
}

impl Plug {
    /// That of a NIC which the driver has made.
    pub(crate) const fn of(nic: &Prepared) -> Self {
        Self { ifindex: nic.host_ifindex, far_end: nic.far_end }
    }
}

/// What on this host the objects are tied to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// What ports are plugged into that is there and guarded.
    pub ports: BTreeMap<Uuid, Plug>,
    /// Interfaces that lead into physical networks, by name.
    pub uplinks: BTreeMap<String, Uplink>,
}

/// A device of the host that a port without an instance is to be plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What the port would be plugged into.
    pub plug: Plug,
    /// The largest packet that fits, in bytes without the Ethernet header.
    pub mtu_bytes: u32,
    /// Whether frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Whether netloom made it: it has a name that the agent gives.
    pub is_ours: bool,
    /// The bridge or other device that it belongs to.
    pub controller: Option<String>,
    /// The host's addresses on it, but for those that the kernel makes by itself.
    pub addresses: Vec<IpAddr>,
}

/// The instances and devices that are there on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Instances, and their NICs.
    pub instances: BTreeMap<Uuid, BTreeMap<Uuid, ObservedNic>>,
    /// Interfaces that have a port's programs.
    pub attached: BTreeSet<u32>,
    /// Interfaces that are kept ready for instances to come.
    pub spares: BTreeSet<u32>,
    /// Interfaces that something else made and that have programs, or may.
    pub borrowed: BTreeSet<u32>,
}

/// What became of the interfaces that are kept ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// There are as many as there should be.
    Full,
    /// There is one more, guarded.
    Made(u32),
    /// There were too many; this one is gone.
    Removed(u32),
}

/// What guards the host now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Interfaces that have a port's programs.
    pub ports: BTreeSet<u32>,
    /// Interfaces that something else made and that have programs, or may.
    pub borrowed: BTreeSet<u32>,
    /// The tunnel device has its programs.
    pub tunnel: bool,
    /// Interfaces through which packets in GRE come in.
    pub gre: BTreeSet<u32>,
    /// Interfaces that have an uplink's programs.
    pub uplinks: BTreeSet<u32>,
}

/// Connections, as they were counted, and what else the data plane counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many each port is sure to get: so many that it opens, and as many that others open.
    pub sure: u32,
    /// Those that each port has, by its number.
    pub ports: BTreeMap<u32, u32>,
    /// Dropped packets by reason, what all ports sent and received, and how full the table of
    /// connections is.
    pub counters: Counters,
}

/// The host's side of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedNic {
    /// The index of its interface.
    pub ifindex: u32,
    /// Whether it is up.
    pub up: bool,
    /// Where its other end is.
    pub far_end: FarEnd,
}

impl ObservedNic {
    /// That of a NIC which the driver has found.
    pub(crate) const fn of(nic: &FoundNic) -> Self {
        Self { ifindex: nic.host_ifindex, up: nic.up, far_end: nic.far_end }
    }

    /// What the port is plugged into.
    pub(crate) const fn plug(&self) -> Plug {
        Plug { ifindex: self.ifindex, far_end: self.far_end }
    }
}

/// What the maps of a host have room for, where that depends on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Ports, each with its connections.
    pub ports_max: u32,
    /// Numbers of the ports that the maps hold. They keep their room before any new one.
    pub present: BTreeSet<u32>,
    /// Drawn by lot when the maps were made: [`policy::Salt`].
    pub salt: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { ports_max: MAX_PORTS, present: BTreeSet::new(), salt: 0 }
    }
}

/// What can go from this host to another one, or come here.
#[derive(Clone)]
pub struct Movers {
    /// Machines.
    pub qemu: Qemu,
    /// Connections: where the data plane is pinned.
    pub bpffs: Arc<Path>,
}

/// The host. Every call may be repeated, also after a crash, and then ends in the same state; a
/// call that finds all right writes nothing. A clone is the same host: calls about different
/// instances may overlap, and none of them delays those about the maps.
pub trait HostKernel: Clone + Send + 'static {
    /// Whether there are ways to peers that can be asked.
    const HAS_UNDERLAY: bool;

    /// The drivers that cannot run instances here, each with what it lacks and what to do.
    fn unable(&self) -> BTreeMap<String, String>;

    /// Makes the tunnel device, with its programs and this UDP port; the index of its interface. One with another
    /// port is made anew.
    fn tunnel(&mut self, port: u16) -> impl Future<Output = Result<u32, Refusal>> + Send;

    /// Says which of these addresses no device of the host has.
    fn lacking(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> impl Future<Output = Result<BTreeSet<IpAddr>, Refusal>> + Send;

    /// Says which instances and devices are there.
    fn observe(&mut self) -> impl Future<Output = Result<Observed, Refusal>> + Send;

    /// Says which interfaces have their programs; much cheaper than all of it. What the data plane
    /// needs to outlive the agent and was taken away is put back first.
    fn guards(&mut self) -> impl Future<Output = Result<Guards, Refusal>> + Send;

    /// Waits until somebody may have changed a device or an address, be it this process: the index
    /// of the interface, or `None` for any, and for addresses. Dropping it loses nothing.
    fn news(&mut self) -> impl Future<Output = Option<u32>> + Send;

    /// Looks at one NIC of an instance: `None` when it is not there.
    fn see(
        &mut self,
        instance: Uuid,
        nic: Uuid,
    ) -> impl Future<Output = Result<Option<ObservedNic>, Refusal>> + Send;

    /// Makes one more interface ready for an instance to come, or one less. It may take long, and
    /// is called when nothing else is to be done.
    fn stock(&mut self) -> impl Future<Output = Result<Stock, Refusal>> + Send;

    /// Makes an instance with its NICs as the spec says, out of what is ready, if anything is; new
    /// ones have their host's side down.
    fn prepare(
        &mut self,
        spec: &InstanceSpec,
    ) -> impl Future<Output = Result<Vec<Prepared>, Refusal>> + Send;

    /// Puts the host's side of a NIC up.
    fn activate(&mut self, nic: Uuid) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Puts the host's side of a NIC down.
    fn deactivate(&mut self, nic: Uuid) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Removes an instance with its NICs.
    fn remove(&mut self, instance: Uuid) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Attaches a port's programs. They drop everything until the maps know the port.
    fn attach(&mut self, ifindex: u32) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Looks for devices of these names.
    fn find(
        &mut self,
        names: &BTreeSet<String>,
    ) -> impl Future<Output = Result<BTreeMap<String, Candidate>, Refusal>> + Send;

    /// Attaches a port's programs to a device that something else made.
    fn borrow(&mut self, ifindex: u32) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Takes the programs off a device that something else made; the maps do not know it any more.
    fn give_back(&mut self, ifindex: u32) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Deletes the host's side of a NIC that no instance has any more, and with it its programs.
    /// Programs are never taken off a device that netloom made.
    fn discard(&mut self, ifindex: u32) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// What an operator should know of the data plane that is no failure, for a while.
    fn notice(&mut self) -> impl Future<Output = Option<String>> + Send;

    /// Says what the maps have room for, which stays so, and which ports have some.
    fn room(&mut self) -> impl Future<Output = Result<Room, Refusal>> + Send;

    /// Has connections that are idle remembered for so long.
    fn remember(&mut self, timeouts: &Timeouts)
    -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Makes edits in the maps, without reading them.
    fn apply(&mut self, edits: Edits) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Says what the host's devices have lost, the tunnel's and those of ports; only those that have.
    fn losses(&mut self) -> impl Future<Output = Result<Vec<Losses>, Refusal>> + Send;

    /// Which of these moves have come to their end: the NIC has sent a frame from its new place.
    fn arrived(
        &mut self,
        moves: &BTreeSet<u32>,
    ) -> impl Future<Output = Result<BTreeSet<u32>, Refusal>> + Send;

    /// Where ports ask the agent, and it answers; `None`: they never do.
    fn desk(&mut self) -> impl Future<Output = Result<Option<Desk>, Refusal>> + Send;

    /// The maps, to look up single entries of; beside all else.
    fn lookup(&mut self) -> impl Future<Output = Result<Box<dyn Lookup + Send>, Refusal>> + Send;

    /// What tells of dropped frames, beside all else; `None`: nothing does.
    fn drop_turns(&mut self) -> impl Future<Output = Result<Option<DropTurns>, Refusal>> + Send;

    /// What can go to another host and come here; `None`: nothing.
    fn movers(&self) -> Option<Movers>;

    /// Counts the connections of all ports, beside all else, and reads what else is counted. Takes
    /// long where many ports are.
    fn connections(&mut self) -> impl Future<Output = Result<Counted, Refusal>> + Send;

    /// Reads the maps back, and makes them hold exactly this; what they hold in the end.
    fn audit(&mut self, tables: &Tables) -> impl Future<Output = Result<Tables, Refusal>> + Send;

    /// Looks up how packets leave by each of these tunnels.
    fn ways(&mut self, tunnels: &Tunnels) -> impl Future<Output = Result<Ways, Refusal>> + Send;

    /// Says what devices there are that networks and tunnels may use.
    fn devices(&mut self) -> impl Future<Output = Result<Vec<Device>, Refusal>> + Send;

    /// Waits until a device may have changed since the last time; the first time there is nothing to
    /// wait for. Dropping it may lose that.
    fn device_news(&mut self) -> impl Future<Output = ()> + Send;

    /// Looks at the frames that come in and leave by these interfaces, as far as they are fit for
    /// that, and by no others; what each is.
    fn uplinks(
        &mut self,
        interfaces: &BTreeSet<String>,
    ) -> impl Future<Output = Result<Uplinks, Refusal>> + Send;

    /// Lets packets pass the tunnel device by, if the host is to do that at all; else why it is not, and what would
    /// change that.
    fn receive_directly(
        &mut self,
        wanted: Directly,
    ) -> impl Future<Output = Result<Option<String>, Refusal>> + Send;
}

/// What is to pass the tunnel device by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directly {
    /// The devices of the underlay through which packets of known flows may come in, and no others.
    pub devices: BTreeSet<u32>,
    /// Those through which packets in GRE may.
    pub gre: BTreeSet<u32>,
    /// The UDP port of VXLAN.
    pub port: u16,
}
