//! Keys and values of the eBPF maps, and the maps themselves, each declared once.
//!
//! Whoever needs something for every map hands the table to a macro of its own: `ebpf/` makes the
//! maps, `dataplane` opens, fills, compares and reads them, the agent counts who wants an entry.
//!
//! Who writes: the agent writes all of them except the conntrack table, the traffic counters and
//! the events, which only the programs write. Addresses are network byte order; numbers are in
//! the host's order. Nothing is keyed by an IP address alone: tenants overlap.

use crate::addr::{Addr, Mac};
use crate::kernel::Verdict;
use crate::layout::{Zero, plain};
use crate::sizes::{COUNTER_PLACES, EVENT_HEADER_BYTES};

plain! {
    /// Key of `ports`: where a port's frames enter the host.
    pub struct PortKey[8] {
        /// Interface index of the host side.
        pub ifindex: u32,
        /// VLAN id of a trunk's sub-port, 0 for untagged. Only 0 is in use.
        pub vlan: u16,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Value of `ports`.
    pub struct Port[24] {
        /// Number of the port on this host, its conntrack zone. Never 0.
        pub number: u32,
        /// Number of its network on this host. Never 0.
        pub net: u32,
        /// Generation of its policy: another number re-evaluates every cached verdict.
        pub generation: u32,
        /// Most connections that it may hold at once.
        pub conntrack_budget: u32,
        /// Its MAC, the only source MAC that it may use.
        pub mac: Mac,
        /// [`Port::PEER`] or 0; in the map, above it, [`Port::place`].
        pub flags: u16,
    }

    /// Key of `addrs`: an address that a port may use as its source. The value is 1.
    pub struct AddrKey[20] {
        /// Number of the port.
        pub port: u32,
        /// The address.
        pub addr: Addr,
    }

    /// Key of `fdb`: a station of a network.
    pub struct FdbKey[12] {
        /// Number of the network.
        pub net: u32,
        /// MAC of the station.
        pub mac: Mac,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Value of `fdb`: where a station is. Made by [`Fdb::local`] and [`Fdb::remote`].
    pub struct Fdb[48] {
        /// 1 local, 2 remote.
        kind: u32,
        /// The port, if local.
        port: PortKey,
        /// VXLAN network identifier, if remote.
        vni: u32,
        /// The VTEP, if remote.
        vtep: Addr,
        /// This host's own VTEP, if remote; `::` leaves the choice to the host's routes.
        local: Addr,
    }

    /// Key of `neigh`: an address of a network that ARP and ND are answered for.
    pub struct NeighKey[20] {
        /// Number of the network.
        pub net: u32,
        /// The address.
        pub addr: Addr,
    }

    /// Value of `neigh`.
    pub struct Neigh[8] {
        /// MAC that has the address.
        pub mac: Mac,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Key of `vteps`: a VTEP that may send frames of a VNI to this host.
    pub struct VtepKey[20] {
        /// VXLAN network identifier.
        pub vni: u32,
        /// Address of the sending VTEP.
        pub addr: Addr,
    }

    /// Value of `vteps`.
    pub struct Vtep[4] {
        /// Number of the network that the VNI is on this host.
        pub net: u32,
    }

    /// The one value of `config`.
    pub struct Config[8] {
        /// Interface index of the VXLAN device, 0 while there is none.
        pub tunnel_ifindex: u32,
        /// Slots of the conntrack table, set when it is made.
        pub conntrack_slots: u32,
    }

    /// Key of `ct`: a connection as one port sees it; both of its directions have this key.
    pub struct CtKey[44] {
        /// Number of the port.
        pub port: u32,
        /// The port's own address.
        pub local: Addr,
        /// The other end's address.
        pub remote: Addr,
        /// L4 port, or ICMP identifier, of the own end; 0 where the protocol has none.
        pub local_port: u16,
        /// L4 port, or ICMP identifier, of the other end.
        pub remote_port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub pad: [u8; 3],
    }

    /// Value of `ct_slots`: one connection, 64 bytes, a cache line.
    pub struct CtSlot[64] {
        /// Time of its last packet, nanoseconds of the coarse monotonic clock.
        pub last_seen_ns: u64,
        /// The connection. A reader that followed `ct` here compares it: the slot may be reused.
        pub key: CtKey,
        /// A `conntrack::CtState` number; 0 is a free slot.
        pub state: u8,
        /// A [`crate::Direction`] number: which end opened it.
        pub initiator: u8,
        /// 1 if the policy allowed it.
        pub allowed: u8,
        /// How often the slot has changed hands, modulo 256: with it, what a CPU saw of a slot
        /// and what another one made of it since never look alike, see `slots`.
        pub turn: u8,
        /// Policy generation under which it was decided.
        pub generation: u32,
        /// Number of the network that the opening packet came from.
        pub source_net: u32,
    }

    /// Value of `traffic`, per CPU, by [`Port::place`]. A GSO frame counts as one packet.
    pub struct Traffic[40] {
        /// Packets accepted from the port.
        pub from_port_packets: u64,
        /// Bytes of those, Ethernet header included.
        pub from_port_bytes: u64,
        /// Packets delivered to the port.
        pub to_port_packets: u64,
        /// Bytes of those.
        pub to_port_bytes: u64,
        /// Packets dropped that came from the port or were for it.
        pub dropped_packets: u64,
    }

    /// A record of the ring buffer `events`: one dropped frame.
    pub struct DropEvent[96] {
        /// Time, nanoseconds of the coarse monotonic clock.
        pub time_ns: u64,
        /// Interface index of the hook.
        pub ifindex: u32,
        /// Number of the port, 0 if none was found.
        pub port: u32,
        /// A [`crate::DropReason`] number.
        pub reason: u32,
        /// A [`crate::Entry`] number.
        pub entry: u32,
        /// Bytes of the frame.
        pub length: u32,
        /// Bytes of `header` that are from the frame.
        pub header_length: u32,
        /// Start of the frame.
        pub header: [u8; EVENT_HEADER_BYTES],
    }
}

/// Hands the table of maps to the macro with this name.
///
/// Each has its name in user space and, in capitals, in the programs. *Filled* maps hold what the
/// agent wants, and are hash maps: `Key => Value, entries`. They stand in the order in which
/// entries are added, from the far end of a packet's way to the near one. `removed Last` says that
/// what goes stays until everything that comes is there, so that traffic which goes on has an entry
/// at any time; `removed First` says that two owners of one thing must never be there together.
///
/// *Kept* maps hold what the programs count and remember, or what the loader tells them.
#[macro_export]
macro_rules! maps {
    ($then:ident) => {
        $then! {
            filled {
                /// VTEPs that may send, and the network they then send into.
                vteps VTEPS: $crate::VtepKey => $crate::Vtep, $crate::MAX_VTEPS, removed Last;
                /// Stations of the networks present.
                fdb FDB: $crate::FdbKey => $crate::Fdb, $crate::MAX_FDB, removed Last;
                /// Addresses that ARP and ND are answered for.
                neigh NEIGH: $crate::NeighKey => $crate::Neigh, $crate::MAX_NEIGH, removed Last;
                /// Addresses that ports may use as source. The value is 1.
                addrs ADDRS: $crate::AddrKey => u32, $crate::MAX_ADDRS, removed First;
                /// Ports by interface. A port that is attached and not listed drops everything.
                ports PORTS: $crate::PortKey => $crate::Port, $crate::MAX_PORTS, removed First;
            }
            kept {
                /// Written by the loader, once per tunnel device.
                config CONFIG: array $crate::Config, 1;
                /// Index of the connections. Written by the programs on all CPUs; races:
                /// `packet::slots`. As many entries as `ct_slots`, both set by the loader.
                ct CT: hash $crate::CtKey => u32, $crate::DEFAULT_CONNTRACK_ENTRIES;
                /// The connections. Written by the programs on all CPUs; races:
                /// `packet::conntrack`.
                ct_slots CT_SLOTS: array $crate::CtSlot, $crate::DEFAULT_CONNTRACK_ENTRIES;
                /// Counts the walks over `ct_slots`, so that no two start alike. Moved by atomic
                /// adds only.
                ct_hand CT_HAND: array u32, 1;
                /// Connections by port number. Entries made and removed by the agent, together
                /// with the port; changed by the programs, by atomic adds only.
                ct_used CT_USED: hash u32 => i64, $crate::MAX_PORTS;
                /// Traffic by `Port::place`. Set to zero by the agent when a port gets the place;
                /// per CPU, so there is no race.
                traffic TRAFFIC: per_cpu $crate::Traffic, $crate::COUNTER_PLACES;
                /// Drops by reason number, per CPU.
                drops DROPS: per_cpu u64, $crate::MAX_REASONS;
                /// Drop events, while `events_wanted`. A full buffer loses the event.
                events EVENTS: ring $crate::DropEvent, $crate::EVENTS_BYTES;
                /// 1 while somebody reads `events`, else 0. Written by the loader.
                events_wanted EVENTS_WANTED: array u32, 1;
                /// Events that found the buffer full, per CPU.
                events_lost EVENTS_LOST: per_cpu u64, 1;
            }
        }
    };
}

impl Zero for PortKey {
    const ZERO: PortKey = PortKey { ifindex: 0, vlan: 0, pad: [0; 2] };
}
impl Zero for CtKey {
    const ZERO: CtKey = CtKey {
        port: 0,
        local: Addr::UNSPECIFIED_V6,
        remote: Addr::UNSPECIFIED_V6,
        local_port: 0,
        remote_port: 0,
        protocol: 0,
        pad: [0; 3],
    };
}

impl PortKey {
    /// The untagged port of an interface.
    #[inline(always)]
    #[must_use]
    pub const fn untagged(ifindex: u32) -> PortKey {
        PortKey { ifindex, vlan: 0, pad: [0; 2] }
    }
}

impl Port {
    /// Flag: the port is a veth whose other end is in another network namespace, so frames go
    /// there directly (`bpf_redirect_peer`). Without it (tap, veth within one namespace) they
    /// leave through the interface.
    pub const PEER: u16 = 1;

    /// Where its counters are in `traffic`: an array costs a packet a tenth of a hash. The data
    /// plane gives places to the ports in the map; 0 has none.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self) -> u32 {
        (self.flags >> 1) as u32
    }

    /// The same port with its counters at this place, less than [`COUNTER_PLACES`].
    #[must_use]
    pub fn placed(self, place: u16) -> Port {
        Port { flags: self.flags & Port::PEER | place << 1, ..self }
    }
}

// Every place fits above the flag.
const _: () = assert!(COUNTER_PLACES <= 1 << 15);

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

    /// The same, with this host's own VTEP as the outer source. The other host knows us by it
    /// alone; a host with several addresses would otherwise send from the one that routes prefer.
    #[must_use]
    pub const fn sent_from(self, local: Addr) -> Fdb {
        Fdb { local, ..self }
    }

    /// What it says; `None` for a kind that this version does not know.
    #[must_use]
    pub fn target(&self) -> Option<FdbTarget> {
        match self.kind {
            1 => Some(FdbTarget::Local(self.port)),
            2 => Some(FdbTarget::Remote { vni: self.vni, vtep: self.vtep, local: self.local }),
            _ => None,
        }
    }

    /// The port, if the station is on this host.
    #[inline(always)]
    pub(crate) fn as_local(&self) -> Option<PortKey> {
        if self.kind == 1 { Some(self.port) } else { None }
    }

    /// What to do with a frame for it otherwise.
    #[inline(always)]
    pub(crate) fn tunnel(&self) -> Verdict {
        Verdict::Tunnel { vni: self.vni, vtep: self.vtep, local: self.local }
    }

    /// Whether this version knows the kind.
    #[inline(always)]
    pub(crate) fn is_known(&self) -> bool {
        self.kind == 1 || self.kind == 2
    }
}

impl Neigh {
    /// The station with this MAC.
    #[must_use]
    pub const fn new(mac: Mac) -> Neigh {
        Neigh { mac, pad: [0; 2] }
    }
}

impl CtKey {
    /// Whether both are the same connection.
    #[inline(always)]
    #[must_use]
    pub fn same(&self, other: &CtKey) -> bool {
        self.port == other.port
            && self.local_port == other.local_port
            && self.remote_port == other.remote_port
            && self.protocol == other.protocol
            && self.local.same(&other.local)
            && self.remote.same(&other.remote)
    }
}

impl CtSlot {
    /// `state`, `initiator`, `allowed` and `turn` as the word in memory that they share.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self) -> u32 {
        u32::from_ne_bytes([self.state, self.initiator, self.allowed, self.turn])
    }

    /// Sets these four.
    #[inline(always)]
    pub fn set_word(&mut self, word: u32) {
        [self.state, self.initiator, self.allowed, self.turn] = word.to_ne_bytes();
    }
}

// A CPU takes a slot by this word alone.
const _: () = assert!(core::mem::offset_of!(CtSlot, state) % 4 == 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plain;

    #[test]
    fn bytes_turn_back_into_the_struct() {
        let key = CtKey {
            port: 7,
            local: Addr::v4([10, 0, 0, 1]),
            remote: Addr::v4([10, 0, 0, 2]),
            local_port: 1,
            remote_port: 2,
            protocol: 6,
            pad: [0; 3],
        };
        let slot = CtSlot { last_seen_ns: 9, key, state: 2, generation: 4, ..CtSlot::default() };
        assert_eq!(CtSlot::from_bytes(&slot.to_bytes()), slot);
        let fdb = Fdb::remote(5, Addr::v4([192, 0, 2, 1]));
        assert_eq!(Fdb::from_bytes(&fdb.to_bytes()), fdb);
    }

    #[test]
    fn offsets_are_those_of_the_struct() {
        let bytes = CtSlot { generation: 0x0102_0304, ..CtSlot::default() }.to_bytes();
        let at = core::mem::offset_of!(CtSlot, generation);
        assert_eq!(bytes[at..at + 4], 0x0102_0304_u32.to_ne_bytes());
    }
}
