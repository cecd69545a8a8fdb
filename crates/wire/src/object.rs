//! The keyed objects that a host must hold. `compile` makes them, the agent applies them.
//!
//! An object never refers to what only one host can know (an interface index, a file): the same
//! objects on both ends give the same digest.

use std::net::IpAddr;
use uuid::Uuid;

/// The kind of an object, in the order in which a host applies additions; removals go in reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Broadcast domains present on the host.
    Network,
    /// NICs of those networks that live on *other* hosts.
    Peer,
    /// Instances that the host runs.
    Instance,
    /// NICs that live on this host.
    Port,
}

/// What identifies an object on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub table: Table,
    /// The uuid of the resource it was made from.
    pub uuid: Uuid,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// See [`Network`].
    Network(Network),
    /// See [`Peer`].
    Peer(Peer),
    /// See [`Instance`].
    Instance(Instance),
    /// See [`Port`].
    Port(Port),
}

/// A broadcast domain. Closed: only known MACs exist in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The L2 network's uuid.
    pub uuid: Uuid,
    /// Its number in the data plane: unique in the installation, never reused.
    pub number: u32,
    /// VXLAN network identifier, 24 bits (RFC 7348).
    pub vni: u32,
    /// This host's own VTEP for the network.
    pub local_vtep: IpAddr,
}

/// A NIC of a network on this host that lives on another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The NIC's uuid.
    pub uuid: Uuid,
    /// Its network's uuid.
    pub network: Uuid,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// The VTEP of the host it lives on.
    pub vtep: IpAddr,
}

/// An instance (a VM or a container) that the host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The VM instance's uuid.
    pub uuid: Uuid,
    /// Its name, for people.
    pub name: String,
    /// What runs it.
    pub driver: Driver,
}

/// What runs an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A network namespace without processes of its own.
    Netns,
}

/// A NIC that lives on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The NIC's uuid.
    pub uuid: Uuid,
    /// Its number in the data plane: unique in the installation, never reused.
    pub number: u32,
    /// Its network's uuid.
    pub network: Uuid,
    /// The instance that it is plugged into.
    pub instance: Uuid,
    /// Position in the instance: 0 is `eth0`.
    pub device_id: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its addresses, sorted by address.
    pub addresses: Vec<PortAddress>,
    /// MTU inside the instance, in bytes.
    pub mtu_bytes: u32,
}

/// An address of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of the subnet's prefix, in bits.
    pub prefix_bits: u8,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
}

impl Object {
    /// What identifies this object.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let (table, uuid) = match self {
            Object::Network(o) => (Table::Network, o.uuid),
            Object::Peer(o) => (Table::Peer, o.uuid),
            Object::Instance(o) => (Table::Instance, o.uuid),
            Object::Port(o) => (Table::Port, o.uuid),
        };
        ObjectKey { table, uuid }
    }
}
