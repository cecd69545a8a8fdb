//! Keys and values of the eBPF maps, and the maps themselves, each declared once.
//!
//! Whoever needs something for every map hands the table to a macro of its own: `ebpf/` makes the
//! maps, `dataplane` opens, fills, compares and reads them, the agent counts who wants an entry.
//!
//! Who writes: the agent writes all of them except the conntrack table, the traffic counters and
//! the events, which only the programs write. Addresses are network byte order; numbers are in
//! the host's order. Nothing is keyed by an IP address alone: tenants overlap.

use crate::addr::{Addr, Mac};
use crate::layout::{Zero, plain};
pub use crate::port::{AddrKey, Port, PortKey, Source};
use crate::sizes::{EVENT_HEADER_BYTES, WAYS};

plain! {
    /// Value of `wires`: the physical network that an interface and a VLAN on it lead to.
    pub struct Wire[4] {
        /// Number of the network. Never 0.
        pub net: u32,
    }

    /// Key of `flood`: the ports of a network on this host are numbered from 0 on.
    pub struct FloodKey[8] {
        /// Number of the network.
        pub net: u32,
        /// Which of its ports.
        pub index: u32,
    }

    /// Value of `flood`: a port that gets what is flooded.
    pub struct Flooded[16] {
        /// Where it is.
        pub key: PortKey,
        /// [`Port::number`].
        pub number: u32,
        /// [`Port::place`].
        pub place: u32,
    }

    /// Value of `afar`: a VTEP that gets what is flooded. Its key is a [`FloodKey`]: the VTEPs of a
    /// network are numbered from 0 on, too.
    pub struct Afar[40] {
        /// Its address.
        pub vtep: Addr,
        /// This host's own VTEP, the same for all of a network.
        pub local: Addr,
        /// VXLAN network identifier, the same for all of a network.
        pub vni: u32,
        /// [`Vtep::is_foreign`].
        pub is_foreign: u32,
    }

    /// Value of `learned`: where somebody is whom nobody has told us of, see `learned`.
    pub struct Learned[32] {
        /// Number of the network; 0 if the slot is free.
        pub net: u32,
        /// MAC of the machine.
        pub mac: Mac,
        /// Zero.
        pub pad: [u8; 2],
        /// When it was last heard of, [`crate::tick`]; its lower half goes round in a century.
        pub tick: u32,
        /// The foreign VTEP behind which it is.
        pub vtep: Addr,
    }

    /// Key of `neigh`: an address of a network that ARP and ND are answered for.
    pub struct NeighKey[20] {
        /// Number of the network.
        pub net: u32,
        /// The address.
        pub addr: Addr,
    }

    /// Value of `neigh`. Made by [`Neigh::local`], [`Neigh::behind`] and [`Neigh::moving`].
    pub struct Neigh[24] {
        /// MAC that has the address.
        pub mac: Mac,
        /// 1 if the station moves, see `moves`.
        moves: u8,
        /// Zero.
        pad: u8,
        /// The VTEP of the host where it is; `::` on this host.
        pub vtep: Addr,
    }

    /// Key of `sharers`: one of the stations that share an address.
    pub struct SharerKey[28] {
        /// Number of the network.
        pub net: u32,
        /// MAC of the station.
        pub mac: Mac,
        /// Zero.
        pub pad: [u8; 2],
        /// The address.
        pub addr: Addr,
    }

    /// Value of `sharers`.
    pub struct Sharer[20] {
        /// The VTEP of the host where the station is; `::` on this host.
        pub vtep: Addr,
        /// MTU of its network in bytes, if it is on this host; 0 for no limit.
        pub mtu: u32,
    }

    /// Key of `vteps`: a VTEP that may send frames of a VNI to this host.
    pub struct VtepKey[20] {
        /// VXLAN network identifier.
        pub vni: u32,
        /// Address of the sending VTEP.
        pub addr: Addr,
    }

    /// Value of `vteps`.
    pub struct Vtep[24] {
        /// Number of the network that the VNI is on this host.
        pub net: u32,
        /// 1 if it is no host's: machines that nobody has told us of are behind it. Else 0.
        pub is_foreign: u32,
        /// This host's own VTEP in the network: frames to any other address are not for it.
        pub local: Addr,
    }

    /// The one value of `config`.
    pub struct Config[40] {
        /// Interface index of the VXLAN device, 0 while there is none.
        pub tunnel_ifindex: u32,
        /// The zone that was given away last.
        pub last_zone: u32,
        /// Buckets of the common area of the connection table, which is its start. Set when the
        /// table is made, as all that follows.
        pub common_buckets: u32,
        /// Buckets of the own area of each port. That of place 1 follows the common area, and so
        /// on, see [`Port::place`].
        pub port_buckets: u32,
        /// Drawn by lot: nobody can tell which connections share a bucket.
        pub seed: u64,
        /// Raised by the agent after each change of a filled map, or of this value: what was
        /// decided before has to be decided again.
        pub epoch: u32,
        /// UDP port for frames that are sent past the tunnel device; 0 if all go through it.
        pub direct_port: u32,
        /// Raised by the loader after who is a member of groups has changed: an entry of `idents`, or of
        /// `addrs`, which says in which routing domain it is looked for. The epoch is not enough. It is
        /// raised for each change of any map, and asks the stages anew; what is remembered of a
        /// connection holds on then, as long as neither this nor its port's policy is another one.
        pub members: u32,
        /// Zero.
        pub pad: u32,
    }

    /// One connection in a [`Bucket`], as one port sees it: a cache line. What changes with its
    /// packets is in the [`crate::CtWord`] of the same way.
    pub struct CtSlot[64] {
        /// The port's own address.
        pub local: Addr,
        /// The other end's address.
        pub remote: Addr,
        /// [`Port::zone`].
        pub zone: u32,
        /// L4 port of the own end, or the ICMP identifier if it is the own end that asks.
        pub local_port: u16,
        /// The same of the other end.
        pub remote_port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// What the policy said: [`CtSlot::ALLOWED`] and so on.
        pub allowed: u8,
        /// When an ICMP error about it was last let through, in steps of 2^27 ns.
        pub error_step: u16,
        /// What it was decided under: [`Port::generation`], and [`Config::members`] if the policy names
        /// groups, in sum.
        pub generation: u32,
        /// Number of the network that the opening packet came from.
        pub source_net: u32,
        /// Number of the rule that decided, [`crate::Cell::rule`].
        pub rule: u32,
        /// Lower half of the other end's identity, as it was then, xor [`Port::generation`]: the
        /// verdict holds for this identity under that policy.
        pub identity: u32,
        /// Number of what is to be rewritten on its way and of the network that it leads to, for
        /// translation and routing to come. 0: nothing.
        pub rewrite: u32,
    }

    /// Value of `conntrack`: [`WAYS`] connections, eight cache lines. The first is all that an
    /// insert or a miss reads.
    pub struct Bucket[512] {
        /// A [`crate::CtWord`] for each way.
        pub words: [u64; WAYS],
        /// In the own area of a port: until when connections that belong here may be in the common
        /// area, a tick of `ct_word`.
        pub spilled_until: u64,
        /// The connections.
        pub slots: [CtSlot; WAYS],
    }

    /// What the stages decided about a packet, see `flow`. Two cache lines, of which the first is
    /// the key.
    pub struct Flow[128] {
        /// MACs, interface and family, addresses, ports, VNI and protocol, VTEPs.
        pub key: [u64; 8],
        /// The words of both sides' connections, as the packet left them.
        pub words: [u64; 2],
        /// The ways of the two.
        pub ways: [u32; 2],
        /// [`Config::epoch`] of the decision.
        pub epoch: u32,
        /// Tick of the decision; its lower half goes round in a century.
        pub tick: u32,
        /// [`Port::place`] of the sender, 0 if it is not here.
        pub sender: u16,
        /// The same of the receiver.
        pub receiver: u16,
        /// What to do; 0 if nothing is kept.
        pub verdict: u16,
        /// Bytes that the packet may have, or each segment of it.
        pub mtu: u16,
        /// Bytes of the longest frame that may be sent to the next hop directly, 0 if none may.
        pub longest: u16,
        /// When packets of the flow last came out of the tunnel device as segments, see `flow`; 0
        /// for never.
        pub segments: u16,
        /// Interface index, or VNI.
        pub target: u32,
        /// The VTEP, if it is sent to one: an IPv4 address in network order. Or the VLAN id.
        pub vtep: u32,
        /// This host's own VTEP.
        pub local: u32,
        /// Interface of the next hop.
        pub hop_ifindex: u32,
        /// The next hop: an IPv4 address in network order.
        pub gateway: u32,
    }

    /// Value of `fragments`: a packet whose first fragment has been let through.
    pub struct Noted[16] {
        /// Hash of what its fragments have in common; 0 for none.
        pub key: u64,
        /// Until when the others may follow, nanoseconds of the coarse monotonic clock.
        pub until_ns: u64,
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
    pub struct DropEvent[104] {
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
        /// Number of the rule that decided, [`crate::Cell::rule`], if the reason is a policy's.
        pub rule: u32,
        /// Zero.
        pub pad: [u8; 4],
        /// Start of the frame.
        pub header: [u8; EVENT_HEADER_BYTES],
    }
}

/// Hands the table of maps to the macro with this name.
///
/// Each has its name in user space and, in capitals, in the programs; then the version of its
/// layout. A change of its key, its value, what they mean or the map's kind raises the version:
/// the host then gets another map beside the old one, and what it has to keep is converted
/// (`upgrade` in `dataplane`). A map whose version stays is kept over an upgrade, with its content.
/// In the object, in the kernel and in its pin a map is called by name and version, `ports_4`.
///
/// *Filled* maps hold what the agent wants: `shape Key => Value, entries`. The shape is `hash`,
/// `sparse` for a hash that takes memory for the entries that it has and not for those that it may
/// have, or `lpm` for the longest prefix that matches. They stand in the order in which entries are added, from the far end of a packet's way to the near one. `removed Last` says that
/// what goes stays until everything that comes is there, so that traffic which goes on has an entry
/// at any time; `removed First` says that two owners of one thing must never be there together.
///
/// *Kept* maps hold what the programs count and remember, or what the loader tells them.
#[macro_export]
macro_rules! maps {
    ($then:ident) => {
        $then! {
            filled {
                /// Networks that are present, by number. Packets of others are dropped.
                nets NETS 7: hash u32 => $crate::Net, $crate::MAX_NETS, removed Last;
                /// VTEPs that may send, and the network they then send into.
                vteps VTEPS 7: hash $crate::VtepKey => $crate::Vtep, $crate::MAX_VTEPS, removed Last;
                /// Stations that are being moved.
                moves MOVES 7: hash $crate::FdbKey => $crate::Move, $crate::MAX_MOVES, removed Last;
                /// Stations of the networks present.
                fdb FDB 7: hash $crate::FdbKey => $crate::Fdb, $crate::MAX_FDB, removed Last;
                /// Addresses that ARP and ND are answered for.
                neigh NEIGH 7: hash $crate::NeighKey => $crate::Neigh, $crate::MAX_NEIGH, removed Last;
                /// Who routes for a prefix: `packet::prefix`.
                behind BEHIND 7: lpm $crate::PrefixKey => $crate::Behind, $crate::MAX_PREFIXES, removed Last;
                /// Who shares an address: `packet::prefix`.
                sharers SHARERS 7: hash $crate::SharerKey => $crate::Sharer, $crate::MAX_PREFIXES, removed Last;
                /// Nodes of the trees of ranges that chapters have: `packet::rules`.
                ranges RANGES 8: sparse u64 => $crate::Node, $crate::MAX_RANGES, removed Last;
                /// What rule sets say to whom: `packet::rules`.
                chapters CHAPTERS 8: sparse $crate::ChapterKey => $crate::Chapter, $crate::MAX_CHAPTERS, removed Last;
                /// Prefixes that rules name: `packet::rules`.
                classes CLASSES 8: lpm $crate::ClassKey => u32, $crate::MAX_CLASSES, removed Last;
                /// Identities of those whom rules name by their groups: `packet::rules`.
                idents IDENTS 8: sparse $crate::IdentKey => u64, $crate::MAX_IDENTS, removed Last;
                /// Addresses that ports may use as source.
                addrs ADDRS 8: hash $crate::AddrKey => $crate::Source, $crate::MAX_ADDRS, removed First;
                /// What netloom does for ports, and at which addresses: `packet::service`.
                serving SERVING 8: hash $crate::AddrKey => $crate::Serving, $crate::MAX_SERVING, removed First;
                /// Ports by interface. A port that is attached and not listed drops everything.
                ports PORTS 8: hash $crate::PortKey => $crate::Port, $crate::MAX_PORTS, removed First;
                /// Ports by network, for what is flooded. The loader derives it from `ports`.
                flood FLOOD 6: hash $crate::FloodKey => $crate::Flooded, $crate::MAX_PORTS, removed First;
                /// VTEPs by network, for what is flooded. The loader derives it from `vteps`.
                afar AFAR 7: hash $crate::FloodKey => $crate::Afar, $crate::MAX_VTEPS, removed First;
                /// Networks by the interface and VLAN that their frames come in by.
                wires WIRES 6: hash $crate::PortKey => $crate::Wire, $crate::MAX_NETS, removed First;
            }
            kept {
                /// Written by the loader, once per tunnel device.
                config CONFIG 8: array $crate::Config, 1;
                /// The connections, in buckets. Written by the programs on all CPUs; races:
                /// `packet::slots`. The loader sets the size. `paged` lets the values start at a
                /// page, and so each bucket and each slot at a cache line.
                conntrack CONNTRACK 4: paged $crate::Bucket, 1;
                /// Packets whose later fragments may follow: `packet::fragments`. Each side of each
                /// port has its own; the loader sets the size.
                fragments FRAGMENTS 5: array $crate::Noted, $crate::FRAGMENTS_PER_PORT;
                /// Traffic by `Port::place`. Set to zero by the agent when a port gets the place;
                /// per CPU, so there is no race.
                traffic TRAFFIC 3: per_cpu $crate::Traffic, $crate::COUNTER_PLACES;
                /// How long connections live that are idle, by number of a `Timeout`, in ticks of
                /// `ct_word`. Written by the loader.
                timeouts TIMEOUTS 8: array u32, $crate::TIMEOUTS_COUNT;
                /// New connections refused for lack of room, by `Port::place` of the port that had none.
                /// Set to zero with `traffic`; per CPU.
                crowded CROWDED 8: per_cpu u64, $crate::COUNTER_PLACES;
                /// Drops by reason number, per CPU.
                drops DROPS 3: per_cpu u64, $crate::MAX_REASONS;
                /// Drop events, while `events_wanted`. A full buffer loses the event.
                events EVENTS 8: ring $crate::DropEvent, $crate::EVENTS_BYTES;
                /// Frames for the agent, of ports that want to know their addresses. Full: lost.
                handed HANDED 5: ring $crate::HandedOff, $crate::HANDED_BYTES;
                /// What ports have handed off lately, by `Port::place`.
                budgets BUDGETS 5: array $crate::Budget, $crate::COUNTER_PLACES;
                /// Those of ports that ask it anything else. Full: lost.
                asked ASKED 8: ring $crate::HandedOff, $crate::ASKED_BYTES;
                /// What ports have asked lately, by `Port::place`.
                requests REQUESTS 8: array $crate::Budget, $crate::COUNTER_PLACES;
                /// Connections that were opened and denied, of ports that tell of them. Full: counted by the
                /// port.
                told TOLD 9: ring $crate::FlowEvent, $crate::TOLD_BYTES;
                /// What ports have told lately, by `Port::place`.
                telling TELLING 9: array $crate::Told, $crate::COUNTER_PLACES;
                /// The mark of the agent's own frames to ports, drawn by lot; 0: none. Written by the loader.
                answers ANSWERS 8: array u32, 1;
                /// What ports have had flooded lately, by `Port::place`; then what physical networks
                /// have, by number.
                floods FLOODS 6: array $crate::Budget, $crate::FLOOD_BUDGETS;
                /// Where strangers are, in the areas of [`crate::Net::area`]. Written by the programs on
                /// all CPUs; races: `packet::learned`.
                learned LEARNED 7: array $crate::Learned, $crate::LEARNED_SLOTS;
                /// Moves that have come to their end, by `Move::place`: the number of the move, and
                /// whether the old host was told. Written by the programs.
                arrived ARRIVED 7: array u64, $crate::MAX_MOVES;
                /// 1 while somebody reads `events`, else 0. Written by the loader.
                events_wanted EVENTS_WANTED 3: array u32, 1;
                /// Events that found the buffer full, per CPU.
                events_lost EVENTS_LOST 3: per_cpu u64, 1;
            }
        }
    };
}

impl Zero for CtSlot {
    const ZERO: CtSlot = CtSlot {
        local: Addr::UNSPECIFIED_V6,
        remote: Addr::UNSPECIFIED_V6,
        zone: 0,
        local_port: 0,
        remote_port: 0,
        protocol: 0,
        allowed: 0,
        error_step: 0,
        generation: 0,
        source_net: 0,
        rule: 0,
        identity: 0,
        rewrite: 0,
    };
}

impl Config {
    /// Buckets of the area of the port at this place; none for place 0.
    #[must_use]
    pub fn area(&self, place: u32) -> core::ops::Range<u32> {
        let start = |place: u32| self.common_buckets + place * self.port_buckets;
        place.checked_sub(1).map_or(0..0, |before| start(before)..start(place))
    }
}

impl Vtep {
    /// That of another host.
    #[must_use]
    pub const fn of_host(net: u32, local: Addr) -> Vtep {
        Vtep { net, is_foreign: 0, local }
    }

    /// One of a machine that is no host.
    #[must_use]
    pub const fn foreign(net: u32, local: Addr) -> Vtep {
        Vtep { net, is_foreign: 1, local }
    }
}

impl Neigh {
    /// The station with this MAC, on this host.
    #[must_use]
    pub const fn local(mac: Mac) -> Neigh {
        Neigh::behind(Addr::UNSPECIFIED_V6, mac)
    }

    /// The station with this MAC, on the host with this VTEP.
    #[must_use]
    pub const fn behind(vtep: Addr, mac: Mac) -> Neigh {
        Neigh { mac, moves: 0, pad: 0, vtep }
    }

    /// The same, as long as a move of the station is prepared.
    #[must_use]
    pub const fn moving(self) -> Neigh {
        Neigh { moves: 1, ..self }
    }

    /// Whether a move of the station is prepared.
    #[inline(always)]
    pub(crate) const fn is_moving(&self) -> bool {
        self.moves != 0
    }
}

/// A connection as one port sees it; both of its directions have this key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CtKey {
    /// [`CtSlot::zone`].
    pub zone: u32,
    /// [`CtSlot::local`].
    pub local: Addr,
    /// [`CtSlot::remote`].
    pub remote: Addr,
    /// [`CtSlot::local_port`].
    pub local_port: u16,
    /// [`CtSlot::remote_port`].
    pub remote_port: u16,
    /// [`CtSlot::protocol`].
    pub protocol: u8,
}

impl CtSlot {
    /// [`CtSlot::allowed`]: only the port's own network may open towards it.
    pub const DENIED: u8 = 0;
    /// It may be.
    pub const ALLOWED: u8 = 1;
    /// What may be is for single packets now: it counts no longer as a connection.
    pub const STATELESS: u8 = 2;
    /// The policy for what is opened towards the port denied it.
    pub const DENIED_INGRESS: u8 = 4;
    /// The policy for what the port opens denied it.
    pub const DENIED_EGRESS: u8 = 8;

    /// Its connection.
    #[must_use]
    pub const fn key(&self) -> CtKey {
        CtKey {
            zone: self.zone,
            local: self.local,
            remote: self.remote,
            local_port: self.local_port,
            remote_port: self.remote_port,
            protocol: self.protocol,
        }
    }

    /// Whether this is its connection.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, key: &CtKey) -> bool {
        self.zone == key.zone
            && self.local_port == key.local_port
            && self.remote_port == key.remote_port
            && self.protocol == key.protocol
            && self.local.same(&key.local)
            && self.remote.same(&key.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fdb, Plain};

    #[test]
    fn bytes_turn_back_into_the_struct() {
        let slot = CtSlot {
            zone: 7,
            local: Addr::v4([10, 0, 0, 1]),
            remote: Addr::v4([10, 0, 0, 2]),
            local_port: 1,
            remote_port: 2,
            protocol: 6,
            generation: 4,
            ..CtSlot::default()
        };
        let mut bucket = Bucket { words: [1, 2, 3, 4, 5, 6, 7], ..Bucket::default() };
        bucket.slots[6] = slot;
        assert_eq!(Bucket::from_bytes(&bucket.to_bytes()), bucket);
        let fdb = Fdb::remote(5, Addr::v4([192, 0, 2, 1]));
        assert_eq!(Fdb::from_bytes(&fdb.to_bytes()), fdb);
    }

    #[test]
    fn offsets_are_those_of_the_struct() {
        let bytes = CtSlot { generation: 0x0102_0304, ..CtSlot::default() }.to_bytes();
        let at = core::mem::offset_of!(CtSlot, generation);
        assert_eq!(bytes[at..at + 4], 0x0102_0304_u32.to_ne_bytes());
        let mut bucket = Bucket::default();
        bucket.slots[2].zone = 9;
        let at =
            core::mem::offset_of!(Bucket, slots) + 2 * 64 + core::mem::offset_of!(CtSlot, zone);
        assert_eq!(bucket.to_bytes()[at..at + 4], 9_u32.to_ne_bytes());
    }
}
