//! Ports and the addresses that they have: keys and values of `ports` and `addrs`.

use crate::addr::{Addr, Mac};
use crate::kernel::Kernel;
use crate::layout::{Zero, plain};
use crate::parse::Packet;
use crate::sizes::COUNTER_PLACES;

plain! {
    /// Key of `ports`: where a port's frames enter the host.
    pub struct PortKey[8] {
        /// Interface index of the host side.
        pub ifindex: u32,
        /// VLAN id of a trunk's sub-port, 0 for untagged.
        pub vlan: u16,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Value of `ports`.
    pub struct Port[48] {
        /// Number of the port on this host, its conntrack zone. Never 0.
        pub number: u32,
        /// Number of its network on this host. Never 0.
        pub net: u32,
        /// Generation of its policy: another number re-evaluates every cached verdict. A hash of both rule
        /// sets, or 0.
        pub generation: u32,
        /// Its zone of the connection table. Never given to another port, so that no connection
        /// of one port is ever taken for another's. In the map only, from 1 on: see `place`.
        pub zone: u32,
        /// Its MAC, the only source MAC that it may use.
        pub mac: Mac,
        /// [`Port::PEER`], [`Port::MOVES`] and [`Port::WAITS`], or 0; in the map, between them, [`Port::place`].
        pub flags: u16,
        /// Number of the rule set for what is opened towards it; 0 if there is no policy: whoever is in its
        /// network may.
        pub ingress: u64,
        /// The same for what it opens.
        pub egress: u64,
        /// What there is in the two rule sets, [`Port::HAS_MEMBERS`] and so on: of `ingress` as they
        /// are, of `egress` shifted by [`Port::EGRESS_SHIFT`]. So what a policy does not use costs nothing.
        /// Above them [`Port::TELLS_DENIED`] and [`Port::TELLS_OPENED`].
        pub rules: u32,
        /// Number of the routing domain in which the other end is looked for, where the port's own address
        /// is in a prefix that it routes for, or in no packet: that of its first L3 network.
        pub domain: u32,
    }

    /// Key of `addrs`: an address that a port may use as its source.
    pub struct AddrKey[20] {
        /// Number of the port.
        pub port: u32,
        /// The address.
        pub addr: Addr,
    }

    /// Value of `addrs`: the L3 network of the address.
    pub struct Source[24] {
        /// Its gateway; `::` if it has none.
        pub gateway: Addr,
        /// Its MTU, in bytes; 0 for no limit.
        pub mtu: u32,
        /// Number of its routing domain.
        pub domain: u32,
    }
}

impl Zero for PortKey {
    const ZERO: PortKey = PortKey { ifindex: 0, vlan: 0, pad: [0; 2] };
}

impl PortKey {
    /// The untagged port of an interface.
    #[inline(always)]
    #[must_use]
    pub const fn untagged(ifindex: u32) -> PortKey {
        PortKey::tagged(ifindex, 0)
    }

    /// The sub-port of this VLAN on a trunk.
    #[inline(always)]
    #[must_use]
    pub const fn tagged(ifindex: u32, vlan: u16) -> PortKey {
        PortKey { ifindex, vlan, pad: [0; 2] }
    }
}

/// The first half of a [`Port`], as the stages hand it along. Its policy waits in the packet's room, for
/// the sake of the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortHead {
    pub(crate) number: u32,
    pub(crate) net: u32,
    pub(crate) generation: u32,
    pub(crate) zone: u32,
    pub(crate) mac: Mac,
    pub(crate) flags: u16,
}

/// The second half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortPolicy {
    pub(crate) ingress: u64,
    pub(crate) egress: u64,
    pub(crate) rules: u32,
    pub(crate) domain: u32,
}

/// The port that sends, if there is one: what it is, and its policy in the packet's room.
#[inline(always)]
pub(crate) fn sender<K: Kernel>(
    kernel: &K,
    key: &PortKey,
    packet: &mut Packet,
) -> Option<PortHead> {
    kernel.port(key).map(|port| port.split(&mut packet.policies[SENDER]))
}

/// The same of the port that receives.
#[inline(always)]
pub(crate) fn receiver<K: Kernel>(
    kernel: &K,
    key: &PortKey,
    packet: &mut Packet,
) -> Option<PortHead> {
    kernel.port(key).map(|port| port.split(&mut packet.policies[RECEIVER]))
}

/// Places in `Packet::policies`.
pub(crate) const SENDER: usize = 0;
pub(crate) const RECEIVER: usize = 1;

impl PortHead {
    /// [`Port::place`].
    #[inline(always)]
    pub(crate) const fn place(&self) -> u32 {
        place(self.flags)
    }
}

/// What of the flags is the place.
#[inline(always)]
const fn place(flags: u16) -> u32 {
    ((flags & !Port::FLAGS) >> 1) as u32
}

impl Port {
    /// Both halves of it.
    #[inline(always)]
    fn split(self, policy: &mut PortPolicy) -> PortHead {
        let Port { number, net, generation, zone, mac, flags, .. } = self;
        policy.ingress = self.ingress;
        policy.egress = self.egress;
        policy.rules = self.rules;
        policy.domain = self.domain;
        PortHead { number, net, generation, zone, mac, flags }
    }

    /// Flag: the port is a veth whose other end is in another network namespace, so frames go
    /// there directly (`bpf_redirect_peer`). Without it (tap, veth within one namespace) they
    /// leave through the interface.
    pub const PEER: u16 = 1;
    /// Flag: its NIC moves here or away, see `moves`.
    pub const MOVES: u16 = 1 << 15;
    /// Flag: it moves here, and gets nothing that is flooded until that is over.
    pub const WAITS: u16 = 1 << 14;
    /// Bit of [`Port::rules`]: some rule names a group.
    pub const HAS_MEMBERS: u32 = 1;
    /// Some rule names addresses.
    pub const HAS_CLASSES: u32 = 2;
    /// Some rule is for single packets.
    pub const HAS_STATELESS: u32 = 4;
    /// What is denied at the port is told, see `flow_log`.
    pub const TELLS_DENIED: u32 = 1 << 16;
    /// New connections of the port are told.
    pub const TELLS_OPENED: u32 = 1 << 17;
    /// By how much the bits of `egress` are shifted.
    pub const EGRESS_SHIFT: u32 = 8;
    const FLAGS: u16 = Port::PEER | Port::MOVES | Port::WAITS;

    /// Where its counters are in `traffic`, and its own area in the connection table: an array
    /// costs a packet a tenth of a hash. The data plane gives places and zones to the ports in the
    /// map; 0 has none.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self) -> u32 {
        place(self.flags)
    }

    /// The same port at this place, less than [`COUNTER_PLACES`], and in this zone.
    #[must_use]
    pub fn placed(self, place: u16, zone: u32) -> Port {
        Port { flags: self.flags & Port::FLAGS | place << 1, zone, ..self }
    }
}

// Every place fits between the flags.
const _: () = assert!(COUNTER_PLACES <= 1 << 13);
