//! The edge of the crate: what a stage may ask of its surroundings, what a program knows about a
//! frame before it looks inside, and what it may do with it in the end.

use crate::addr::Addr;
use crate::budget::Budget;
use crate::fdb::{Fdb, FdbKey};
use crate::flow_log::{FlowEvent, Told};
use crate::hand_off::{Question, Serving};
use crate::layout::plain;
use crate::maps::{
    AddrKey, Afar, Bucket, Config, CtSlot, FloodKey, Flow, Learned, Neigh, NeighKey, Noted, Port,
    PortKey, Sharer, SharerKey, Source, Vtep, VtepKey, Wire,
};
use crate::moves::Move;
use crate::net::Net;
use crate::port::PortHead;
use crate::prefix::{Behind, PrefixKey};
use crate::reason::DropReason;
use crate::rewrite::Covered;
use crate::rules::{Chapter, ChapterKey, ClassKey, IdentKey, Node};
use crate::timeouts::Timeout;

/// Access to the frame and the maps. Implemented by the eBPF shims and by the in-memory twin of
/// the tests.
///
/// Lookups copy: a value may change under the program at any time, and a copy is decided upon as
/// one. Only the connection table is changed in place, see `slots`.
pub trait Kernel {
    /// Has a function use its kernel. One that is checked by itself (`checked`) and makes no other use of
    /// it would be called without, and the verifier wants it to be given what its signature says.
    #[inline(always)]
    fn is_given(&self) {}

    /// `N` bytes of the frame at `offset`; `None` if the frame ends before.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// `N` words of the frame at `offset`, in memory order: what a BPF program handles best.
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
    /// As [`Kernel::load_words`], where that costs next to nothing; else `None` as well.
    fn peek_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
    /// Overwrites bytes of the frame; whether it worked.
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> bool;
    /// Overwrites words of the frame; whether it worked.
    fn store_words<const N: usize>(&mut self, offset: u32, words: &[u32; N]) -> bool;

    /// Changes the IPv4 header's checksum, at this offset, as if a word that it covers changed from
    /// one value to another, both in memory order; whether it worked.
    fn replace_l3(&mut self, checksum: u32, from: u32, to: u32) -> bool;
    /// The same for a checksum of the transport.
    fn replace_l4(&mut self, covered: Covered, from: u32, to: u32) -> bool;

    /// Cuts the frame after `kept` bytes, then makes room for `room` bytes behind its Ethernet
    /// header, which stays the first; whether it worked. The frame is no longer one to be cut into
    /// segments then.
    fn quote(&mut self, kept: u32, room: u32) -> bool;

    /// The configuration.
    fn config(&self) -> Option<Config>;
    /// A port.
    fn port(&self, key: &PortKey) -> Option<Port>;
    /// Whether the port may use the address.
    fn addr_allowed(&self, key: &AddrKey) -> bool;
    /// What the port's network is like for the address; `None` if the port may not use it.
    fn source(&self, key: &AddrKey) -> Option<Source>;
    /// What netloom itself does for a port at an address.
    fn serving(&self, key: &AddrKey) -> Option<Serving>;
    /// A station.
    fn fdb(&self, key: &FdbKey) -> Option<Fdb>;
    /// A move of a station that is prepared.
    fn moving(&self, key: &FdbKey) -> Option<Move>;
    /// A place of `arrived`.
    fn arrived(&mut self, place: u32) -> Option<&mut u64>;
    /// The MAC of an address.
    fn neigh(&self, key: &NeighKey) -> Option<Neigh>;
    /// Who has the longest prefix that an address is in.
    fn behind(&self, key: &PrefixKey) -> Option<Behind>;
    /// One of those who share an address.
    fn sharer(&self, key: &SharerKey) -> Option<Sharer>;
    /// A network.
    fn net(&self, number: u32) -> Option<Net>;
    /// The physical network that an interface and a VLAN on it lead to.
    fn wire(&self, key: &PortKey) -> Option<Wire>;
    /// A VTEP that may send to us.
    fn vtep(&self, key: &VtepKey) -> Option<Vtep>;

    /// A node of a tree of ranges.
    fn node(&self, key: u64) -> Option<&Node>;
    /// What a rule set says to somebody.
    fn chapter(&self, key: &ChapterKey) -> Option<Chapter>;
    /// The class of the longest prefix that an address is in.
    fn class(&self, key: &ClassKey) -> Option<u32>;
    /// The identity of an address.
    fn ident(&self, key: &IdentKey) -> Option<u64>;

    /// How long a connection lives that is idle, in ticks.
    fn timeout(&self, timeout: Timeout) -> u32;

    /// A place of the table of fragments.
    fn noted(&mut self, number: u32) -> Option<&mut Noted>;

    /// A bucket of the connection table.
    fn ct_bucket(&mut self, number: u32) -> Option<&mut Bucket>;
    /// A connection in the table, by the number of its way, see `slots`.
    fn ct_slot(&mut self, way: u32) -> Option<&mut CtSlot>;
    /// The word of a way as it is now; 0 if there is no such way.
    fn ct_word(&self, way: u32) -> u64;
    /// Changes the word of a way from `seen` to `new`, atomically and as a barrier; whether it
    /// still was `seen`.
    fn ct_swap(&mut self, way: u32, seen: u64, new: u64) -> bool;

    /// The next hop of an outer packet between two VTEPs, both IPv4; `None` if frames are not sent
    /// directly, or the host has no such route.
    fn next_hop(&self, vtep: &Addr, local: &Addr) -> Option<NextHop>;
    /// What this CPU keeps at a place of the flow cache, see `flow`.
    fn flow(&mut self, place: u32) -> Option<&mut Flow>;
    /// The same, and what all CPUs together keep at that place. Others may write the second at any
    /// time, word by word.
    fn flows(&mut self, place: u32) -> Option<(&mut Flow, &mut Flow)>;

    /// A VTEP of a network, by its number there.
    fn afar(&self, key: &FloodKey) -> Option<Afar>;
    /// A slot of the machines that were learned, see `learned`.
    fn learned(&mut self, slot: u32) -> Option<&mut Learned>;

    /// What the port at this place has handed off lately.
    fn budget(&mut self, place: u32) -> Option<&mut Budget>;
    /// What the port at this place has asked lately.
    fn requests(&mut self, place: u32) -> Option<&mut Budget>;
    /// The mark of the agent's own frames to ports; 0 if there are none.
    fn answer_mark(&self) -> u32;
    /// What has been flooded lately, by a slot of `floods`.
    fn flood_budget(&mut self, slot: u32) -> Option<&mut Budget>;

    /// What the port at this place has told lately.
    fn telling(&mut self, place: u32) -> Option<&mut Told>;
    /// Tells whoever reads the flow log; whether there was room.
    fn tell(&mut self, event: &FlowEvent) -> bool;

    /// Counts a packet of the port at this place.
    fn count(&mut self, place: u32, direction: Direction, bytes: u32);
    /// Counts a drop, and tells whoever listens, without ever waiting.
    fn count_drop(&mut self, meta: &Meta, drop: &Drop);
}

/// Which way a packet goes, seen from a port.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the port's VM.
    #[default]
    FromPort = 1,
    /// To the port's VM.
    ToPort = 2,
}

/// The hook at which a frame was seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// [`crate::from_port`].
    FromPort = 1,
    /// [`crate::from_tunnel`].
    FromTunnel = 2,
    /// [`crate::to_port`].
    ToPort = 3,
    /// [`crate::from_wire`], a frame that comes in by an uplink.
    FromUplink = 4,
    /// [`crate::from_wire`], one that the host itself sends out by it.
    ToUplink = 5,
    /// The tunnel device, a frame that leaves in GRE and so past it.
    ToTunnel = 6,
}

/// A drop, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Why.
    pub reason: DropReason,
    /// At which hook.
    pub entry: Entry,
    /// The port concerned; number and place are 0 if none was found.
    pub port: Concerned,
    /// Number of the rule that decided, if the reason is a policy's; else anything.
    pub rule: u32,
}

/// The port that something is counted under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Its number.
    pub number: u32,
    /// [`Port::place`].
    pub place: u32,
}

impl Concerned {
    /// This port.
    #[inline(always)]
    pub(crate) fn of(port: &PortHead) -> Concerned {
        Concerned { number: port.number, place: port.place() }
    }
}

plain! {
    /// What a program knows about a frame without looking inside. It lies on the stack, of which
    /// there is little.
    pub struct Meta[64] {
        /// Time of arrival, nanoseconds of the coarse monotonic clock.
        pub now_ns: u64,
        /// Interface index of the hook.
        pub ifindex: u32,
        /// Bytes of the frame. With GSO this is far above the MTU.
        pub length: u32,
        /// The mark of the frame.
        pub mark: u32,
        /// VXLAN network identifier, if tunnelled; of GRE its key, and [`crate::GRE`].
        pub vni: u32,
        /// Where the two bytes end into which a checksum will be filled in, see `fill_in`; 0 if
        /// none will. What is further away than a packet is long is at its end.
        pub checksum_end: u16,
        /// Bytes of payload of each segment that the frame will be cut into (GSO); 0 if it will
        /// not.
        pub gso_size: u16,
        /// The VLAN of the tag that the kernel took out of the header (IEEE 802.1Q), or
        /// [`Meta::OTHER_TAG`]; 0 if there is none.
        pub vlan: u16,
        /// 1 if the frame came out of a tunnel.
        pub tunnelled: u16,
        /// The sending VTEP, if tunnelled.
        pub vtep: Addr,
        /// The outer destination, if tunnelled.
        pub local: Addr,
    }

    /// Where the fields are in the kernel's `struct sk_buff` that `__sk_buff` does not show, in
    /// bytes.
    pub struct SkbLayout[24] {
        /// The byte that has `ip_summed`.
        pub ip_summed: u32,
        /// By how many bits it is shifted in there.
        pub ip_summed_shift: u32,
        /// `csum_start`, 16 bits, counted from `head`.
        pub csum_start: u32,
        /// `csum_offset`, 16 bits, counted from there.
        pub csum_offset: u32,
        /// `head`.
        pub head: u32,
        /// `data`.
        pub data: u32,
    }

    /// A [`Verdict`] as bytes, for tests of the programs.
    pub struct VerdictRecord[48] {
        /// 1 drop, 2 deliver, 3 tunnel, 4 reflect, 5 pass, 6 uplink, 7 hand-off, 8 underlay, 9 host,
        /// 10 flood, 11 copy, 12 strangers.
        pub kind: u32,
        /// Number of the drop reason, of the port or of the network, or interface index, or VNI.
        pub value: u32,
        /// 1 if delivered to the peer, or handed off as a request; number of the port that has it flooded.
        pub peer: u32,
        /// VLAN id that it is tagged with, 0 for none.
        pub vlan: u32,
        /// The VTEP.
        pub vtep: Addr,
        /// The own VTEP.
        pub local: Addr,
    }
}

/// Where an outer packet goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that it leaves by.
    pub ifindex: u32,
    /// The neighbour there: an IPv4 address in network order.
    pub gateway: u32,
    /// Bytes that the outer packet may have, its IP header included.
    pub mtu: u32,
}

impl Meta {
    /// [`Meta::vlan`] of a tag that names no VLAN, or is of another kind (IEEE 802.1ad). No port
    /// takes it.
    pub const OTHER_TAG: u16 = 0xffff;
}

/// How a frame reaches a local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Straight to the other end of a veth in another network namespace.
    Peer,
    /// Out of the interface.
    Interface,
    /// The same, with this VLAN id.
    Tagged(u16),
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drop it; it has been counted.
    Drop(DropReason),
    /// Give it to a local port.
    DeliverLocal {
        /// Interface of the port's host side.
        ifindex: u32,
        /// How.
        via: Via,
    },
    /// Send it through the tunnel device.
    Tunnel {
        /// VXLAN network identifier.
        vni: u32,
        /// Where to.
        vtep: Addr,
        /// The outer source; `::` leaves the choice to the host's routes.
        local: Addr,
    },
    /// Put an outer packet around it and send that to its next hop, past the tunnel device.
    Underlay {
        /// VXLAN network identifier.
        vni: u32,
        /// Where to: an IPv4 address in network order, as the two that follow.
        vtep: u32,
        /// The outer source.
        local: u32,
        /// The next hop.
        gateway: u32,
        /// Interface of the next hop.
        ifindex: u32,
    },
    /// Send it into a physical network.
    Uplink {
        /// Interface that leads there.
        ifindex: u32,
        /// VLAN id to tag it with, 0 for none.
        vlan: u16,
    },
    /// Give it to the host's own stack, as if it had come in by this uplink.
    Host {
        /// The uplink.
        ifindex: u32,
        /// VLAN id to tag it with, 0 for none.
        vlan: u16,
    },
    /// Give a copy to each port of the network on this host but for the sender. If that is a port,
    /// also send it to each VTEP of the network; or into the physical network, with a copy for the
    /// host. Else let it go on, if it is not out of a tunnel.
    Flood {
        /// Number of the network.
        net: u32,
        /// Number of the port that sends it, 0 for somebody elsewhere.
        sender: u32,
    },
    /// Send it to each VTEP of the network that is no host's.
    Strangers {
        /// Number of the network.
        net: u32,
    },
    /// Give a copy to the port on this interface, and let it go on, if it is not out of a tunnel.
    Copy {
        /// Where the port is.
        ifindex: u32,
        /// Its VLAN id, 0 for none.
        vlan: u16,
    },
    /// Send it, rewritten as a reply, out of the port it came from.
    Reflect,
    /// Give it to the agent.
    HandOff {
        /// Number of the port that it comes from.
        port: u32,
        /// What it is.
        question: Question,
    },
    /// Let it go on.
    Pass,
}

impl Default for Verdict {
    /// Nothing passes before something is decided.
    fn default() -> Verdict {
        Verdict::Drop(DropReason::Malformed)
    }
}

impl Verdict {
    /// The verdict as bytes.
    #[must_use]
    pub fn record(&self) -> VerdictRecord {
        let mut record = VerdictRecord::default();
        self.write(&mut record);
        record
    }

    /// Writes the verdict to a record of zeros: field by field, for the sake of BPF. To give all of
    /// them at once, a program would have to keep those too that the verdict does not have.
    #[inline(always)]
    pub fn write(&self, record: &mut VerdictRecord) {
        match *self {
            Verdict::Drop(reason) => (record.kind, record.value) = (1, reason.number()),
            Verdict::DeliverLocal { ifindex, via } => {
                (record.kind, record.value) = (2, ifindex);
                match via {
                    Via::Peer => record.peer = 1,
                    Via::Interface => {}
                    Via::Tagged(vlan) => record.vlan = u32::from(vlan),
                }
            }
            Verdict::Tunnel { vni, vtep, local } => {
                (record.kind, record.value) = (3, vni);
                (record.vtep, record.local) = (vtep, local);
            }
            Verdict::Underlay { vni, vtep, local, .. } => {
                (record.kind, record.value) = (8, vni);
                (record.vtep, record.local) = (Addr::v4_word(vtep), Addr::v4_word(local));
            }
            Verdict::Reflect => record.kind = 4,
            Verdict::Pass => record.kind = 5,
            Verdict::HandOff { port, question } => {
                (record.kind, record.value) = (7, port);
                if question == Question::Request {
                    record.peer = 1;
                }
            }
            Verdict::Uplink { ifindex, vlan } => {
                (record.kind, record.value) = (6, ifindex);
                record.vlan = u32::from(vlan);
            }
            Verdict::Host { ifindex, vlan } => {
                (record.kind, record.value) = (9, ifindex);
                record.vlan = u32::from(vlan);
            }
            Verdict::Flood { net, sender } => {
                (record.kind, record.value) = (10, net);
                record.peer = sender;
            }
            Verdict::Strangers { net } => (record.kind, record.value) = (12, net),
            Verdict::Copy { ifindex, vlan } => {
                (record.kind, record.value) = (11, ifindex);
                record.vlan = u32::from(vlan);
            }
        }
    }
}
