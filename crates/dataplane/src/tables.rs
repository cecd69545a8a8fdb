//! The desired content of the maps that the agent fills, and what a reconcile changed.
//!
//! Pure data: comparing and ordering happens in `reconcile`, kernel access in `pinned`.

use packet::{AddrKey, Fdb, FdbKey, LAYOUT_VERSION, Neigh, NeighKey, Port, PortKey, Vtep, VtepKey};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a host's data plane should know, keyed as in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Ports by interface. A port that is attached and not listed drops everything.
    pub ports: BTreeMap<PortKey, Port>,
    /// Addresses that ports may use as source.
    pub addrs: BTreeSet<AddrKey>,
    /// Stations of the networks present.
    pub fdb: BTreeMap<FdbKey, Fdb>,
    /// Addresses that ARP and ND are answered for.
    pub neigh: BTreeMap<NeighKey, Neigh>,
    /// VTEPs that may send, and the network they then send into.
    pub vteps: BTreeMap<VtepKey, Vtep>,
}

impl Tables {
    /// The layout version that the types in here belong to.
    pub const LAYOUT_VERSION: u32 = LAYOUT_VERSION;
}

/// How many entries a reconcile wrote and removed in one map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries added or overwritten.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
}

/// What a reconcile changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In `ports`.
    pub ports: Change,
    /// In `addrs`.
    pub addrs: Change,
    /// In `fdb`.
    pub fdb: Change,
    /// In `neigh`.
    pub neigh: Change,
    /// In `vteps`.
    pub vteps: Change,
}

impl Changes {
    /// Whether the maps were already as desired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}
