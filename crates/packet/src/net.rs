//! What a host knows of a network: the value of `nets`, by the network's number.

use crate::addr::Mac;
use crate::layout::{Zero, plain};
use crate::maps::PortKey;

plain! {
    /// Value of `nets`: a network that is present on the host. Made by [`Net::closed`] and
    /// [`Net::open`]. A packet of a network that is not listed is dropped.
    pub struct Net[32] {
        /// 1 closed, 2 open.
        kind: u32,
        /// Number of the domain whose networks are routed to each other; 0: none.
        pub domain: u32,
        /// MAC of its router, zero if it has none.
        pub router_mac: Mac,
        /// [`Net::ROUTED`], [`Net::FOREIGN`], both of them or 0.
        pub flags: u16,
        /// Interface and VLAN by which the host is in a physical network; interface 0: it is in
        /// none.
        pub uplink: PortKey,
        /// MAC of that interface: the host's own in that network.
        pub uplink_mac: Mac,
        /// Which area of `learned` it has, from 1 on; 0 for none. In the map only: the data plane
        /// gives areas to networks with foreign VTEPs.
        pub area: u16,
    }
}

impl Zero for Net {
    const ZERO: Net = Net {
        kind: 0,
        domain: 0,
        router_mac: Mac([0; 6]),
        flags: 0,
        uplink: PortKey::untagged(0),
        uplink_mac: Mac([0; 6]),
        area: 0,
    };
}

/// What may be in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetKind {
    /// Only known stations. Nobody else is listened to.
    Closed,
    /// Others beside them, that nobody has told us of. A known station is still nobody else.
    Open,
}

impl Net {
    /// Flag: some of its VTEPs are no hosts'.
    pub const FOREIGN: u16 = 4;
    /// Flag: what the router sends out of a tunnel may come from other networks of its domain.
    pub const ROUTED: u16 = 2;

    /// A network of known stations, without a router.
    #[must_use]
    pub const fn closed() -> Net {
        Net { kind: 1, ..Net::ZERO }
    }

    /// A network that others are in too, without a router.
    #[must_use]
    pub const fn open() -> Net {
        Net { kind: 2, ..Net::ZERO }
    }

    /// The same, with a router that brings packets from other networks of the domain.
    #[must_use]
    pub const fn routed(self, domain: u32, router_mac: Mac) -> Net {
        Net { domain, router_mac, flags: self.flags | Net::ROUTED, ..self }
    }

    /// The same, a physical network behind this interface, which has this MAC.
    #[must_use]
    pub const fn behind(self, uplink: PortKey, uplink_mac: Mac) -> Net {
        Net { uplink, uplink_mac, ..self }
    }

    /// The same, with machines behind foreign VTEPs.
    #[must_use]
    pub const fn with_foreign_vteps(self) -> Net {
        Net { kind: 2, flags: self.flags | Net::FOREIGN, ..self }
    }

    /// The same with this area of `learned`, at most [`crate::LEARNING_NETS`].
    #[must_use]
    pub const fn learning_in(self, area: u16) -> Net {
        Net { area, ..self }
    }

    /// Its kind; `None` for one that this version does not know.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Option<NetKind> {
        match self.kind {
            1 => Some(NetKind::Closed),
            2 => Some(NetKind::Open),
            _ => None,
        }
    }

    /// Whether this is the MAC of a router that brings packets from other networks.
    #[inline(always)]
    pub(crate) fn is_router(&self, mac: Mac) -> bool {
        self.flags & Net::ROUTED != 0 && self.domain != 0 && self.router_mac.same(mac)
    }

    /// Whether it is a physical network.
    #[inline(always)]
    pub(crate) const fn is_physical(&self) -> bool {
        self.uplink.ifindex != 0
    }

    /// Whether machines that nobody has told us of are in it, behind foreign VTEPs.
    #[inline(always)]
    pub(crate) const fn has_foreign_vteps(&self) -> bool {
        self.flags & Net::FOREIGN != 0
    }

    /// Whether machines that nobody has told us of are in it.
    #[inline(always)]
    pub(crate) const fn is_open(&self) -> bool {
        !self.is_closed()
    }

    /// Whether only known stations are in it.
    #[inline(always)]
    pub(crate) const fn is_closed(&self) -> bool {
        self.kind != 2
    }
}
