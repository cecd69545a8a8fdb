//! Change set in, wire objects per host out: pure and incremental.
//!
//! Rules, for a host H. A NIC counts when it is enabled, bound to a host and plugged into an
//! instance or a device of the host, its L2 network exists, and its host has a VTEP in the network's pool, if the network
//! has one. H holds:
//!
//! | object | for each |
//! |---|---|
//! | `Network` | network of which a NIC that counts lives on H |
//! | `Port` | NIC that counts, on H |
//! | `Peer` | NIC that counts, on another host and not moving to H, of a tunnelled network that H holds |
//! | `Port`, waiting | NIC that counts and moves to H, whose VTEP is there too; H holds its network |
//! | `Subnet` | L3 network of whose guests hosts take care, of which a `Port` on H has an address |
//! | `About` | VM instance of which a `Port` on H has the service Userdata |
//! | `Instance` | VM instance that is meant to run on H |
//! | `SecurityGroup` | group that is enabled and has a `Port` on H in it |
//! | `Member` | NIC that counts, anywhere, by those of its groups that rules of these groups name, in a routing domain of their `Port`s |
//! | `Timeouts` | H, if it holds a `Port` and an administrator has set some |
//!
//! Groups count for NICs of L3 networks that have the service SecurityGroup. What a `Port` has for a policy stands
//! in `guard`, how networks become one routing domain in `domains`.
//!
//! A host without a VTEP in a pool gets no objects of that pool's networks, and other hosts get no
//! peers for its NICs: such a port could reach no other host. [`MissingVtep`] lists these hosts. A
//! host that has several VTEPs in a pool uses the one with the lowest uuid.
//!
//! [`Compiler`] does this for a change set with a few operators ([`operators`]), at a cost that
//! grows with the change; [`compile_all`] does it plainly for everything, and is the reference in
//! tests. Nothing here does I/O, reads a clock or knows an engine.

mod about;
mod changes;
mod compiler;
mod domains;
mod full;
mod groups;
mod guard;
mod lan;
mod members;
mod objects;
mod one;
mod operators;
mod output;
mod plain;
mod security;
mod settings;
mod timeouts;
mod work;

use model::{
    Id,
    resource::{host::Host, l2_network::L2Network},
};
use wire::{object::ObjectKey, shared::Shared};

pub use compiler::Compiler;
pub use full::{compile_all, missing_vteps};
pub use one::{Guest, guest};
pub use work::Work;

/// What one host must hold, sorted by key: in the order in which to apply it.
pub type HostObjects = Vec<Shared>;

/// How what one host must hold has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDelta {
    /// New objects and objects with another content, in the order in which to apply them.
    pub upserts: Vec<Shared>,
    /// Objects that are gone, in the order in which to apply them: after the upserts.
    pub removes: Vec<ObjectKey>,
}

/// A host that ought to carry networks of a pool, but has no VTEP in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingVtep {
    /// The host.
    pub host: Id<Host>,
    /// The pool.
    pub pool: Id<L2Network>,
}
