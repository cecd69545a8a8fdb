//! The flow cache: what the stages decided about a packet holds for the next one like it.
//!
//! A packet that is allowed and ends nothing (TCP without FIN and RST, or UDP; whole, without IP
//! options) leaves a [`Flow`] behind, in memory of its CPU: also one that opens a connection, since
//! what comes after it goes the same way. Its key is all of the frame that the stages look at, but
//! for TCP's flags, and is compared in full: what shares the place of another flow takes the
//! stages. So does the packet that opens a TCP connection. What one CPU has learned, and what answers
//! an opening on one host, the others find in a table of all (`shared`).
//!
//! A hit does what the stages would do. They decide by three things beside the key:
//! - The tables. The agent raises [`crate::Config::epoch`] after it has changed them. The epoch is
//!   read before any table, so what was decided by old tables has an old epoch.
//! - The connections. Each must still be in the way where the stages left it: the word there says
//!   whose it is and how often it has changed hands. The word that the last packet left needs
//!   nothing more, if this packet neither answers an opening nor ends anything: within a tick it would
//!   leave the same. Else the packet moves the state on as in the stages ([`follow`]).
//! - The time. A flow holds within the tick of its decision: about a second. Should an agent die
//!   between a change and the new epoch, no flow outlives the change by more.
//!
//! Drops are not kept, nor are our own answers. Open vSwitch has such an exact match cache, and
//! ONCache (NSDI 2025) has one for overlays. This one is directly mapped by a seeded hash: whoever
//! floods it costs others the way through the stages and nothing else.

use crate::addr::Addr;
use crate::conntrack::follow;
use crate::ct_word::{CtWord, tick};
use crate::fill_in::is_harmless_in;
use crate::kernel::{Direction, Kernel, Meta, Verdict, Via};
use crate::maps::{Flow, Port, PortKey};
use crate::parse::{
    ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT_BITS, IPV4_BYTES, IPV6_BYTES, Packet,
    TCP, UDP,
};
use crate::port::PortHead;
use crate::sizes::{FLOW_BITS, GRE, GRE_OUTER_BYTES, OUTER_BYTES};
use crate::slots::{Found, mix};
use crate::transport::{ACK, FIN, RST, SHORT_BYTES, SYN, TCP_BYTES};

pub(crate) mod shared;
pub(crate) use shared::keep_answers;

/// [`Flow::verdict`]. 0 is none.
const INTERFACE: u16 = 1;
const PEER: u16 = 2;
const TUNNEL: u16 = 3;
const UPLINK: u16 = 4;
const HOST: u16 = 5;

/// Of the interface's word in the key: set for IPv6. An interface index is a positive `int`.
const IS_IPV6: u32 = 1 << 31;
/// The same, set for what came in GRE. A kernel would count a day of devices to get there.
const IS_GRE: u32 = 1 << 30;

/// What the stages may leave behind about a packet, gathered on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    flow: Flow,
    place: u32,
    /// Bytes of the packet, or of each segment that it will be cut into.
    size: u32,
    /// Its TCP flags, or 0.
    flags: u8,
    is_eligible: bool,
    /// Packets of the flow come as segments, see [`is_recent`].
    is_segmented: bool,
}

impl Candidate {
    /// Whether the packet would overtake others of its flow past the tunnel device.
    #[inline(always)]
    pub(crate) fn is_segmented(&self) -> bool {
        self.is_segmented
    }

    /// The outer packet in which a frame that is no segments goes straight to its next hop, if it
    /// may: what [`keep_remote`] has found.
    #[inline(always)]
    pub(crate) fn direct(&self, meta: &Meta) -> Option<Verdict> {
        let Flow { longest, target: vni, vtep, local, gateway, hop_ifindex, .. } = self.flow;
        let size = if self.is_eligible { self.size } else { u32::MAX };
        if !may_be_direct(meta, vni, (size, longest)) {
            return None;
        }
        Some(Verdict::Underlay { vni, vtep, local, gateway, ifindex: hop_ifindex })
    }

    /// The packet is one of a kind: its verdict says nothing about the next one.
    #[inline(always)]
    pub(crate) fn give_up(&mut self) {
        self.is_eligible = false;
    }
}

/// Whether the flow of the packet is known: it has its verdict then, and is counted. Else the
/// stages have to decide. The packet's frame begins `START` bytes behind the start of what the
/// program sees: it may still be in an outer packet.
#[inline(never)]
pub(crate) fn hit<K: Kernel, const START: u32>(
    kernel: &mut K,
    meta: &Meta,
    packet: &mut Packet,
) -> bool {
    find::<K, START>(kernel, meta, packet).is_some()
}

#[inline(always)]
fn find<K: Kernel, const START: u32>(
    kernel: &mut K,
    meta: &Meta,
    packet: &mut Packet,
) -> Option<()> {
    let candidate = &mut packet.flow;
    candidate.is_eligible = false;
    candidate.is_segmented = false;
    candidate.flow.segments = 0;
    let config = kernel.config()?;
    candidate.flow.epoch = config.epoch;
    candidate.flow.tick = (tick(meta.now_ns) & 0xffff_ffff) as u32;
    if !read_key::<K, START>(kernel, meta, candidate) {
        return None;
    }
    let flags = candidate.flags;
    candidate.is_eligible = flags & (FIN | RST) == 0;
    candidate.place = place(&candidate.flow.key, config.seed);
    if flags & (SYN | ACK) == SYN {
        return None;
    }
    let mut flow = kernel.flow(candidate.place)?;
    let is_same = same(&flow.key, &candidate.flow.key);
    if meta.tunnelled == 0 && !(is_same && is_of(flow, &candidate.flow)) {
        shared::borrow(kernel, candidate, config.seed)?;
        flow = kernel.flow(candidate.place)?;
    } else if !is_same {
        return None;
    }
    if meta.tunnelled != 0 {
        if meta.gso_size != 0 {
            flow.segments = now(candidate.flow.tick);
        }
        candidate.flow.segments = flow.segments;
        if START != 0 && is_recent(flow.segments, candidate.flow.tick) {
            candidate.is_segmented = true;
            return None;
        }
    }
    if !is_of(flow, &candidate.flow) || candidate.size > u32::from(flow.mtu) {
        return None;
    }
    let Flow { words, ways, sender, receiver, verdict, target, vtep, local, .. } = *flow;
    let Flow { longest, hop_ifindex, gateway, .. } = *flow;
    let candidate_size = candidate.size;
    let is_as_left = kernel.ct_word(ways[0]) == words[0] && kernel.ct_word(ways[1]) == words[1];
    let moves = flags & (SYN | FIN | RST) != 0;
    if !(is_as_left && !moves || follow_both(kernel, meta, packet)) {
        return None;
    }
    if sender != 0 {
        kernel.count(u32::from(sender), Direction::FromPort, meta.length);
    }
    if receiver != 0 {
        kernel.count(u32::from(receiver), Direction::ToPort, meta.length);
    }
    let ifindex = target;
    // Each written for itself: see `Packet::verdict`.
    match verdict {
        INTERFACE => packet.verdict = Verdict::DeliverLocal { ifindex, via: Via::Interface },
        PEER => packet.verdict = Verdict::DeliverLocal { ifindex, via: Via::Peer },
        TUNNEL => {
            let vni = target;
            if !may_be_direct(meta, vni, (candidate_size, longest)) {
                let (vtep, local) = (Addr::v4_word(vtep), Addr::v4_word(local));
                packet.verdict = Verdict::Tunnel { vni, vtep, local };
            } else {
                packet.verdict =
                    Verdict::Underlay { vni, vtep, local, gateway, ifindex: hop_ifindex };
            }
        }
        UPLINK => packet.verdict = Verdict::Uplink { ifindex, vlan: (vtep & 0xfff) as u16 },
        HOST => packet.verdict = Verdict::Host { ifindex, vlan: (vtep & 0xfff) as u16 },
        _ => return None,
    }
    Some(())
}

/// Whether a frame may leave past the tunnel device, whose packet has this size, or its segments have,
/// where the longest frame may have so many bytes. Of VXLAN only the device can hand segments on.
#[inline(always)]
fn may_be_direct(meta: &Meta, vni: u32, (size, longest): (u32, u16)) -> bool {
    let longest = u32::from(longest);
    match (meta.gso_size, vni & GRE) {
        (0, _) => meta.length <= longest,
        (_, 0) => false,
        _ => size.saturating_add(ETHERNET_BYTES) <= longest,
    }
}

/// Whether a flow was decided in the epoch and in the tick of this one.
#[inline(always)]
fn is_of(flow: &Flow, now: &Flow) -> bool {
    flow.epoch == now.epoch && flow.tick == now.tick
}

/// [`Flow::segments`], now.
#[inline(always)]
fn now(tick: u32) -> u16 {
    (tick & 0x7fff) as u16 | 0x8000
}

/// Whether packets of a flow have come as segments in this tick or the one before. The tunnel
/// device gives them to a queue: those of the flow that come otherwise would overtake them, so they
/// take the device, too.
#[inline(always)]
fn is_recent(segments: u16, tick: u32) -> bool {
    segments == now(tick) || segments == now(tick.wrapping_sub(1))
}

/// Moves the connections of the packet's flow on, as the stages would; whether both are still where
/// the flow says. If only the sender's is, the stages move it on again, which changes nothing.
#[inline(never)]
fn follow_both<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) -> bool {
    let Some(flow) = kernel.flow(packet.flow.place) else { return false };
    let Flow { words, ways, .. } = *flow;
    packet.protocol = (packet.flow.flow.key[6] >> 32 & 0xff) as u8;
    packet.flags = packet.flow.flags;
    packet.zone.now_ns = meta.now_ns;
    let mut left = words;
    if meta.tunnelled == 0 {
        packet.zone.direction = Direction::FromPort;
        left[0] = follow(kernel, packet, ways[0], words[0]);
        // The stages end here: the other side sees no such packet.
        if left[0] == 0 {
            return false;
        }
        left[1] = left[0];
    }
    // A flow into a tunnel or out of it has one connection, noted twice.
    if meta.tunnelled != 0 || ways[0] != ways[1] {
        packet.zone.direction = Direction::ToPort;
        left[1] = follow(kernel, packet, ways[1], words[1]);
        if left[1] == 0 {
            return false;
        }
    }
    if meta.tunnelled != 0 {
        left[0] = left[1];
    }
    leave(kernel, packet, left)
}

/// Notes the words that a packet of the flow has left.
#[inline(always)]
fn leave<K: Kernel>(kernel: &mut K, packet: &Packet, words: [u64; 2]) -> bool {
    let Some(flow) = kernel.flow(packet.flow.place) else { return false };
    let opens = opens(packet);
    flow.words = [CtWord(words[0]).without_state(opens).0, CtWord(words[1]).without_state(opens).0];
    true
}

/// Notes what the stages have left of the connection on one of two sides.
#[inline(always)]
pub(crate) fn note(packet: &mut Packet, side: usize) {
    let Found { number, word } = packet.room.found;
    packet.flow.flow.ways[side] = number;
    packet.flow.flow.words[side] = word.without_state(opens(packet)).0;
}

/// 1 if the packet has a SYN, else 0. An ACK after a SYN that was sent again may change what the SYN
/// left: the word that is kept must differ from any that is in the table, and has no state. Without
/// a branch, see `route::way_out`.
#[inline(always)]
fn opens(packet: &Packet) -> u64 {
    u64::from(packet.flow.flags & SYN) / u64::from(SYN)
}

/// Keeps what was decided, if it holds for other packets like this one: the frame reaches a port,
/// here, without a tag. The sender is a place, or 0.
#[inline(always)]
pub(crate) fn keep_local<K: Kernel>(
    kernel: &mut K,
    packet: &mut Packet,
    (sender, key): (u32, PortKey),
    receiver: &PortHead,
) {
    if key.vlan != 0 {
        packet.flow.give_up();
        return;
    }
    let mtu = limit(packet.mtu);
    let flow = &mut packet.flow.flow;
    flow.verdict = if receiver.flags & Port::PEER != 0 { PEER } else { INTERFACE };
    flow.target = key.ifindex;
    flow.mtu = mtu;
    flow.sender = short(sender);
    flow.receiver = short(receiver.place());
    keep(kernel, &packet.flow);
}

/// The same: the frame leaves through an uplink, goes to the host itself, or leaves through the tunnel between IPv4 VTEPs.
#[inline(always)]
pub(crate) fn keep_remote<K: Kernel>(kernel: &mut K, packet: &mut Packet, sender: u32) {
    let mtu = limit(packet.mtu);
    let station = &packet.station;
    let flow = &mut packet.flow.flow;
    flow.longest = 0;
    if let Some(way) = station.as_uplink().or(station.as_host()) {
        flow.verdict = if station.as_host().is_some() { HOST } else { UPLINK };
        flow.target = way.ifindex;
        flow.vtep = u32::from(way.vlan);
        flow.local = 0;
    } else {
        let (vni, vtep, local) = station.behind();
        if !vtep.is_v4() || !local.is_v4() {
            return;
        }
        flow.verdict = TUNNEL;
        flow.target = vni;
        flow.vtep = vtep.words()[3];
        flow.local = local.words()[3];
        if let Some(hop) = kernel.next_hop(vtep, local) {
            flow.hop_ifindex = hop.ifindex;
            flow.gateway = hop.gateway;
            let around = if vni & GRE == 0 { OUTER_BYTES } else { GRE_OUTER_BYTES };
            flow.longest = short(hop.mtu.saturating_sub(around));
        }
    }
    flow.mtu = mtu;
    flow.sender = short(sender);
    flow.receiver = 0;
    keep(kernel, &packet.flow);
}

#[inline(never)]
fn keep<K: Kernel>(kernel: &mut K, candidate: &Candidate) {
    let kept = &candidate.flow;
    // One that others have changed meanwhile has no word.
    if !candidate.is_eligible || kept.words[0] == 0 || kept.words[1] == 0 {
        return;
    }
    if let Some(flow) = kernel.flow(candidate.place) {
        *flow = *kept;
    }
    if let Some(config) = kernel.config() {
        shared::share(kernel, kept, candidate.place, config.seed);
    }
}

/// What the key says of the packet above its addresses.
struct Transport {
    protocol: u8,
    /// Both ports, as they are in the packet.
    ports: u32,
    /// See [`Candidate::size`] and [`Candidate::flags`].
    size: u32,
    flags: u8,
}

/// Reads all that the stages would look at into the key, the packet's size, or that of its segments,
/// and its TCP flags; whether there may be more packets like it.
#[inline(never)]
pub(crate) fn read_key<K: Kernel, const START: u32>(
    kernel: &K,
    meta: &Meta,
    candidate: &mut Candidate,
) -> bool {
    match key::<K, START>(kernel, meta, &mut candidate.flow.key) {
        Some((size, flags)) => {
            candidate.size = size;
            candidate.flags = flags;
            true
        }
        None => false,
    }
}

#[inline(always)]
fn key<K: Kernel, const START: u32>(
    kernel: &K,
    meta: &Meta,
    key: &mut [u64; 8],
) -> Option<(u32, u8)> {
    let [m0, m1, m2, start] = kernel.peek_words(START)?;
    let [type0, type1, version_ihl, _] = start.to_ne_bytes();
    let ethertype = u16::from_be_bytes([type0, type1]);
    if meta.vlan != 0 {
        return None;
    }
    let (Transport { protocol, ports, size, flags }, family) = match (ethertype, version_ihl) {
        (ETHERTYPE_IPV4, 0x45) => (ipv4::<K, START>(kernel, meta, key)?, 0),
        (ETHERTYPE_IPV6, 0x60..=0x6f) => (ipv6::<K, START>(kernel, meta, key)?, IS_IPV6),
        _ => return None,
    };
    key[0] = pair(m0, m1);
    let encapsulation = if meta.vni & GRE == 0 { 0 } else { IS_GRE };
    key[1] = pair(m2, meta.ifindex | family | encapsulation);
    key[6] = pair(ports, meta.vni << 8 | u32::from(protocol));
    key[7] = 0;
    if meta.tunnelled != 0 {
        if !meta.vtep.is_v4() || !meta.local.is_v4() {
            return None;
        }
        key[7] = pair(meta.vtep.words()[3], meta.local.words()[3]);
    }
    Some((size, flags))
}

/// Reads the addresses of an IPv4 packet.
#[inline(always)]
fn ipv4<K: Kernel, const START: u32>(
    kernel: &K,
    meta: &Meta,
    key: &mut [u64; 8],
) -> Option<Transport> {
    let [start, identity, life, source, destination, ports] =
        kernel.peek_words(START + ETHERNET_BYTES)?;
    let [_, _, len0, len1] = start.to_ne_bytes();
    let [_, _, frag0, frag1] = identity.to_ne_bytes();
    let [_, protocol, _, _] = life.to_ne_bytes();
    if u16::from_be_bytes([frag0, frag1]) & FRAGMENT_BITS != 0 {
        return None;
    }
    let total = u32::from(u16::from_be_bytes([len0, len1]));
    let l4 = ETHERNET_BYTES + IPV4_BYTES;
    let (size, flags) =
        transport::<K, START>(kernel, meta, protocol, (l4, ETHERNET_BYTES + total))?;
    let [s0, s1, s2, s3] = Addr::v4_word(source).words();
    let [d0, d1, d2, d3] = Addr::v4_word(destination).words();
    (key[2], key[3], key[4], key[5]) = (pair(s0, s1), pair(s2, s3), pair(d0, d1), pair(d2, d3));
    Some(Transport { protocol, ports, size, flags })
}

/// Reads the addresses of an IPv6 packet.
#[inline(always)]
fn ipv6<K: Kernel, const START: u32>(
    kernel: &K,
    meta: &Meta,
    key: &mut [u64; 8],
) -> Option<Transport> {
    let [_, rest, s0, s1, s2, s3, d0, d1, d2, d3, ports] =
        kernel.peek_words(START + ETHERNET_BYTES)?;
    let [len0, len1, protocol, _] = rest.to_ne_bytes();
    let l4 = ETHERNET_BYTES + IPV6_BYTES;
    let payload = u32::from(u16::from_be_bytes([len0, len1]));
    let (size, flags) = transport::<K, START>(kernel, meta, protocol, (l4, l4 + payload))?;
    (key[2], key[3], key[4], key[5]) = (pair(s0, s1), pair(s2, s3), pair(d0, d1), pair(d2, d3));
    Some(Transport { protocol, ports, size, flags })
}

/// Size and TCP flags of a packet with this transport header, which ends there, if it is one of
/// many.
#[inline(always)]
fn transport<K: Kernel, const START: u32>(
    kernel: &K,
    meta: &Meta,
    protocol: u8,
    (l4, end): (u32, u32),
) -> Option<(u32, u8)> {
    let (least, header, flags) = match protocol {
        TCP => {
            let [word] = kernel.peek_words(START + l4 + TCP_BYTES - 8)?;
            let [offset, flags, _, _] = word.to_ne_bytes();
            if flags & (SYN | ACK) == 0 {
                return None;
            }
            (TCP_BYTES, u32::from(offset >> 4) * 4, flags)
        }
        UDP => (SHORT_BYTES, SHORT_BYTES, 0),
        _ => return None,
    };
    let is_whole = l4 + least <= end && end <= meta.length;
    if !is_whole || !is_harmless_in(u32::from(meta.checksum_end), protocol, l4) {
        return None;
    }
    match meta.gso_size {
        0 => Some((end - ETHERNET_BYTES, flags)),
        segment => Some((l4 - ETHERNET_BYTES + header + u32::from(segment), flags)),
    }
}

/// Where a key belongs: the two directions of a connection on one host next to each other, as what
/// goes comes back, and a page or a line that has been fetched for the one is there for the other.
#[inline(always)]
fn place(key: &[u64; 8], seed: u64) -> u32 {
    const MAC: u64 = (1 << 48) - 1;
    let (ports, transport) = (key[6] & 0xffff_ffff, key[6] >> 32);
    let source =
        (key[2] ^ ports & 0xffff).rotate_left(17) ^ key[3] ^ (key[0] >> 48 | key[1] << 32 >> 16);
    let destination = (key[4] ^ ports >> 16).rotate_left(17) ^ key[5] ^ key[0] & MAC;
    let (source, destination) = (mix(source ^ seed), mix(destination ^ seed));
    let pair = mix(source.wrapping_add(destination) ^ transport ^ key[7]) >> (65 - FLOW_BITS);
    (pair << 1 & 0xffff_ffff) as u32 | u32::from(source < destination)
}

/// Whether both are the same, without a call to `memcmp`, which BPF lacks.
#[inline(always)]
fn same(a: &[u64; 8], b: &[u64; 8]) -> bool {
    let mut differs = 0;
    let mut at = 0;
    while at < 8 {
        differs |= a[at] ^ b[at];
        at += 1;
    }
    differs == 0
}

/// An MTU; 0 is none.
#[inline(always)]
fn limit(mtu: u32) -> u16 {
    short(mtu.wrapping_sub(1)).saturating_add(1)
}

/// A place, of which all are below 2^15, or the length of a frame, of which no more counts.
#[inline(always)]
fn short(number: u32) -> u16 {
    if number < 0xffff { (number & 0xffff) as u16 } else { u16::MAX }
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
