//! Where the stations of a network are: keys and values of the map `fdb`.

use crate::addr::{Addr, Mac};
use crate::kernel::Verdict;
use crate::layout::plain;
use crate::maps::PortKey;

plain! {
    /// Key of `fdb`: a station of a network.
    pub struct FdbKey[12] {
        /// Number of the network.
        pub net: u32,
        /// MAC of the station.
        pub mac: Mac,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Value of `fdb`: where a station is. Made by [`Fdb::local`], [`Fdb::remote`],
    /// [`Fdb::uplink`], [`Fdb::host`] and [`Fdb::forwarded`].
    pub struct Fdb[48] {
        /// 1 local, 2 remote, 3 behind an uplink, 4 the host itself, 6 gone from here to a remote
        /// one; and a bit if it moves. In packets only: 5 behind one of the foreign VTEPs.
        kind: u32,
        /// The port, if local; the uplink and the VLAN on it.
        port: PortKey,
        /// VXLAN network identifier, if remote.
        vni: u32,
        /// The VTEP, if remote.
        vtep: Addr,
        /// This host's own VTEP, if remote; `::` leaves the choice to the host's routes.
        local: Addr,
    }
}

/// Of the kind: the station moves, see `moves`.
const MOVES: u32 = 1 << 8;

impl crate::layout::Zero for Fdb {
    const ZERO: Fdb = Fdb { kind: 0, ..Fdb::local(PortKey::untagged(0)) };
}

impl FdbKey {
    /// The station with this MAC in this network.
    #[inline(always)]
    #[must_use]
    pub const fn new(net: u32, mac: Mac) -> FdbKey {
        FdbKey { net, mac, pad: [0; 2] }
    }
}

/// What an [`Fdb`] value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbTarget {
    /// A port of this host.
    Local(PortKey),
    /// A port of another host.
    Remote {
        /// VXLAN network identifier to send with.
        vni: u32,
        /// Where to send it.
        vtep: Addr,
        /// Where it comes from; `::` leaves the choice to the host's routes.
        local: Addr,
    },
    /// In a physical network behind this interface, in this VLAN, 0 for untagged.
    Uplink(PortKey),
    /// The host itself, as it is in that network.
    Host(PortKey),
}

impl Fdb {
    /// A station on this host.
    #[must_use]
    pub const fn local(port: PortKey) -> Fdb {
        let none = Addr::UNSPECIFIED_V6;
        Fdb { kind: 1, port, vni: 0, vtep: none, local: none }
    }

    /// A station on another host.
    #[must_use]
    pub const fn remote(vni: u32, vtep: Addr) -> Fdb {
        Fdb { kind: 2, port: PortKey::untagged(0), vni, vtep, local: Addr::UNSPECIFIED_V6 }
    }

    /// A station in a physical network.
    #[must_use]
    pub const fn uplink(way: PortKey) -> Fdb {
        Fdb { kind: 3, ..Fdb::local(way) }
    }

    /// The host itself, in a physical network.
    #[must_use]
    pub const fn host(way: PortKey) -> Fdb {
        Fdb { kind: 4, ..Fdb::local(way) }
    }

    /// Somebody behind a foreign VTEP, nobody knows which.
    #[inline(always)]
    pub(crate) const fn stranger() -> Fdb {
        Fdb { kind: 5, ..Fdb::local(PortKey::untagged(0)) }
    }

    /// A station that has moved from this host to another one. Frames that others still send here
    /// follow it.
    #[must_use]
    pub const fn forwarded(vni: u32, vtep: Addr) -> Fdb {
        Fdb { kind: 6, ..Fdb::remote(vni, vtep) }
    }

    /// The same, as long as a move of it is prepared: `moves` says where it is afterwards.
    #[must_use]
    pub const fn moving(self) -> Fdb {
        Fdb { kind: self.kind | MOVES, ..self }
    }

    /// The same without a move.
    #[inline(always)]
    #[must_use]
    pub const fn still(self) -> Fdb {
        Fdb { kind: self.kind & !MOVES, ..self }
    }

    /// Whether a move of it is prepared.
    #[inline(always)]
    #[must_use]
    pub const fn is_moving(&self) -> bool {
        self.kind & MOVES != 0
    }

    /// Whether frames for it that come out of a tunnel go back into one.
    #[inline(always)]
    pub(crate) fn is_forwarded(&self) -> bool {
        self.kind == 6
    }

    /// The same, with this host's own VTEP as the outer source. The other host knows us by it
    /// alone; a host with several addresses would otherwise send from the one that routes prefer.
    #[must_use]
    pub const fn sent_from(self, local: Addr) -> Fdb {
        Fdb { local, ..self }
    }

    /// What it says; `None` for a kind that this version does not know.
    #[must_use]
    pub fn target(&self) -> Option<FdbTarget> {
        match self.kind & !MOVES {
            1 => Some(FdbTarget::Local(self.port)),
            2 | 6 => Some(FdbTarget::Remote { vni: self.vni, vtep: self.vtep, local: self.local }),
            3 => Some(FdbTarget::Uplink(self.port)),
            4 => Some(FdbTarget::Host(self.port)),
            _ => None,
        }
    }

    /// The port, if the station is on this host.
    #[inline(always)]
    pub(crate) fn as_local(&self) -> Option<PortKey> {
        if self.kind == 1 { Some(self.port) } else { None }
    }

    /// Interface and VLAN, if the station is behind an uplink.
    #[inline(always)]
    pub(crate) fn as_uplink(&self) -> Option<PortKey> {
        if self.kind == 3 { Some(self.port) } else { None }
    }

    /// Interface and VLAN, if it is the host itself.
    #[inline(always)]
    pub(crate) fn as_host(&self) -> Option<PortKey> {
        if self.kind == 4 { Some(self.port) } else { None }
    }

    /// Whether it is behind a foreign VTEP, nobody knows which.
    #[inline(always)]
    pub(crate) fn is_stranger(&self) -> bool {
        self.kind == 5
    }

    /// The uplink that a station elsewhere is behind, 0 if it is behind a tunnel.
    #[inline(always)]
    pub(crate) fn uplink_ifindex(&self) -> u32 {
        self.port.ifindex
    }

    /// VNI, VTEP and this host's own VTEP, if it is on another one.
    #[inline(always)]
    pub(crate) fn behind(&self) -> (u32, &Addr, &Addr) {
        (self.vni, &self.vtep, &self.local)
    }

    /// What to do with a frame for it otherwise.
    #[inline(always)]
    pub(crate) fn tunnel(&self) -> Verdict {
        Verdict::Tunnel { vni: self.vni, vtep: self.vtep, local: self.local }
    }

    /// Whether this version knows the kind.
    #[inline(always)]
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.kind, 1..=4)
    }
}
