//! Flows that a CPU learns from another one.
//!
//! What a VM sends comes in on several CPUs, and so does a single connection: its handshake on the
//! one where the client writes, data where the server does, acknowledgements where data arrived.
//! Without more, each of them would ask the stages once. So what the stages decide about a packet
//! out of a port is left in one table of all CPUs as well, and a CPU that misses copies it from
//! there. Nothing else changes: the copy has the epoch and the tick of its decision, and its
//! connections are compared as ever.
//!
//! What opens a TCP connection between two ports of a host leaves the flow of its answers there,
//! too: what the stages would look at is looked at in one go.
//!
//! Nobody locks. Whoever copies may get a mix of what two others write, so each flow is sealed: the
//! place of the VTEPs in the key, which what comes from a port has not got, holds a keyed hash of
//! all the rest.

use super::{Candidate, INTERFACE, IS_IPV6, PEER, limit, pair, place};
use crate::fdb::FdbKey;
use crate::kernel::Kernel;
use crate::maps::{AddrKey, Flow, Port, PortKey};
use crate::parse::Packet;
use crate::port::PortHead;
use crate::slots::mix;
use crate::transport::{ACK, SYN};
use core::hint::black_box;

/// Copies the flow of this key to the place of this CPU, if another one has left it.
#[inline(never)]
pub(super) fn borrow<K: Kernel>(kernel: &mut K, candidate: &Candidate, seed: u64) -> Option<()> {
    let key = &candidate.flow.key;
    let (own, shared) = kernel.flows(candidate.place)?;
    let mut differs = 0;
    let mut at = 0;
    while at < 7 {
        differs |= shared.key[at] ^ key[at];
        at += 1;
    }
    if differs != 0 {
        return None;
    }
    *own = *shared;
    // What is sealed is the copy, not what is in the table by now.
    let own = black_box(own);
    let is_whole = own.key[7] == seal(own, seed);
    own.key[7] = 0;
    own.segments = 0;
    if is_whole {
        return Some(());
    }
    own.verdict = 0;
    own.epoch = candidate.flow.epoch.wrapping_sub(1);
    None
}

/// Leaves the flow to all CPUs, if it is of a packet out of a port; whether it is.
#[inline(never)]
pub(crate) fn share<K: Kernel>(kernel: &mut K, flow: &Flow, place: u32, seed: u64) -> bool {
    kernel.is_given();
    if flow.key[7] != 0 {
        return false;
    }
    let seal = seal(flow, seed);
    if let Some((_, shared)) = kernel.flows(place) {
        *shared = *flow;
        shared.key[7] = seal;
    }
    true
}

/// A hash of all of a flow but its place in the key.
#[inline(always)]
fn seal(flow: &Flow, seed: u64) -> u64 {
    let short = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
    // Two at once: each step waits for the one before.
    let (mut key, mut hash) = (seed, !seed);
    let mut at = 0;
    while at < 7 {
        key = mix(key ^ flow.key[at]);
        at += 1;
    }
    hash = mix(hash ^ flow.words[0]);
    hash = mix(hash ^ flow.words[1]);
    hash = mix(hash ^ pair(flow.ways[0], flow.ways[1]));
    hash = mix(hash ^ pair(flow.epoch, flow.tick));
    hash = mix(hash ^ pair(short(flow.sender, flow.receiver), short(flow.verdict, flow.mtu)));
    hash = mix(hash ^ pair(u32::from(flow.longest), flow.target));
    hash = mix(hash ^ pair(flow.vtep, flow.local));
    hash = mix(hash ^ pair(flow.hop_ifindex, flow.gateway));
    mix(key ^ hash.rotate_left(32))
}

/// What has opened a TCP connection between two ports of this host leaves the flow of its answers,
/// if the stages would let them through: what they would look at beside what they have just seen
/// is the answerer's address and the opener's station. For UDP, what goes back might be DHCP.
#[inline(never)]
pub(crate) fn keep_answers<K: Kernel>(
    kernel: &mut K,
    packet: &mut Packet,
    opener: &PortHead,
    answerer: &PortHead,
) {
    let candidate = &packet.flow;
    let [one, other] = candidate.flow.words;
    let opens = candidate.is_eligible && candidate.flags & (SYN | ACK) == SYN;
    if !opens || one == 0 || other == 0 {
        return;
    }
    let is_own = answerer.mac.same(packet.destination_mac) && answerer.net == opener.net;
    if !is_own || packet.source_mac.is_group() {
        return;
    }
    let address = AddrKey { port: answerer.number, addr: packet.destination };
    let Some(source) = kernel.source(&address) else { return };
    let interface = PortKey::untagged(high(candidate.flow.key[1]) & !IS_IPV6);
    match kernel.fdb(&FdbKey::new(answerer.net, packet.source_mac)) {
        Some(station) if station.as_local() == Some(interface) => {}
        _ => return,
    }
    let flow = &mut packet.flow.flow;
    let [k0, k1, s0, s1, d0, d1, transport, _] = flow.key;
    // Both MACs lie over three words; ports are a word of two.
    let (m0, m1, m2) = (low(k0), high(k0), low(k1));
    let family = high(k1) & IS_IPV6;
    let macs = (m1 >> 16 | m2 << 16, m2 >> 16 | m0 << 16, m0 >> 16 | m1 << 16);
    flow.key[0] = pair(macs.0, macs.1);
    flow.key[1] = pair(macs.2, flow.target | family);
    (flow.key[2], flow.key[3], flow.key[4], flow.key[5]) = (d0, d1, s0, s1);
    flow.key[6] = transport & !0xffff_ffff | u64::from(low(transport).rotate_left(16));
    flow.words = [flow.words[1], flow.words[0]];
    flow.ways = [flow.ways[1], flow.ways[0]];
    (flow.sender, flow.receiver) = (flow.receiver, flow.sender);
    flow.verdict = if opener.flags & Port::PEER != 0 { PEER } else { INTERFACE };
    flow.target = interface.ifindex;
    flow.mtu = limit(source.mtu);
    let Some(config) = kernel.config() else { return };
    let flow = &packet.flow.flow;
    share(kernel, flow, place(&flow.key, config.seed), config.seed);
}

#[inline(always)]
fn low(pair: u64) -> u32 {
    (pair & 0xffff_ffff) as u32
}

#[inline(always)]
fn high(pair: u64) -> u32 {
    (pair >> 32) as u32
}
