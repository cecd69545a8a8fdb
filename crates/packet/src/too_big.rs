//! A packet that is larger than its network's MTU, and what its sender is told.
//!
//! Only the sender's own device held it to an MTU so far, and a VM sets that as it likes. Without an
//! answer path MTU discovery waits for ever: the packet fits no path, or leaves in pieces of the
//! outer header that cost twice. So a packet that must not be fragmented (IPv4 with DF, all of
//! IPv6) is answered as a router would: ICMP type 3 code 4 with the MTU (RFC 792, RFC 1191 4) or
//! ICMPv6 "packet too big" (RFC 4443, 3.2), from the gateway of the sender's network, or from the
//! destination where there is none, as Linux takes it from anybody who quotes the packet. IPv4
//! without DF passes: the outer packet is fragmented, and arrives.
//!
//! Of a GSO frame each segment counts, not the frame. A VM's own tunnel has more headers in each
//! segment than are looked at here; one that is too big by less than these passes.
//!
//! The answer takes the place of the packet, so no VM gets more than it sends. One answer per step
//! and connection, as for ICMP errors that come in (`icmp_error`); the others are dropped only.
//! ICMP errors are never answered (RFC 1122, 3.2.2).

use crate::addr::Addr;
use crate::checksum::Checksum;
use crate::flood;
use crate::icmp_error;
use crate::kernel::{Concerned, Drop, Entry, Kernel, Meta};
use crate::maps::AddrKey;
use crate::parse::{
    ETHERNET_BYTES, ETHERTYPE_IPV4, Fragment, ICMP, ICMPV6, IPV4_BYTES, IPV6_BYTES, Packet, Role,
    TCP, UDP,
};
use crate::port::PortHead;
use crate::reason::DropReason;

/// Bit of the third byte of IPv4's fragment word: don't fragment.
const DONT_FRAGMENT: u8 = 0x40;
/// Bytes of the packet that are quoted: any IPv4 header and 8 bytes more (RFC 792), a short chain
/// of extension headers, and a checksum of what a VM's own tunnel carries, which the kernel wants
/// to be there (`bpf_skb_change_tail`).
const QUOTED: u32 = 128;
/// Bytes that are summed at a time; the stack is small.
const CHUNK: u32 = 32;
/// Words of a chunk.
const CHUNK_WORDS: usize = 8;
/// Bytes of an ICMP error before what it quotes.
const ICMP_BYTES: u32 = 8;
/// TTL of the answer.
const TTL: u8 = 64;

/// Whether the packet fits. If not, the frame has become the answer to it; that is counted.
///
/// Deciding and writing are called from here one after the other, for the sake of the stack.
#[inline(always)]
pub(crate) fn fits<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<bool, DropReason> {
    if packet.mtu == 0 || meta.length <= ETHERNET_BYTES + packet.mtu {
        return Ok(true);
    }
    let reason = DropReason::PacketTooBig;
    let is_written = match outcome(kernel, meta, port, packet) {
        Outcome::Fits => return Ok(true),
        Outcome::Refused => return Err(reason),
        Outcome::Answered if packet.ethertype == ETHERTYPE_IPV4 => ipv4(kernel, packet),
        Outcome::Answered => ipv6(kernel, packet),
    };
    if !is_written {
        return Err(reason);
    }
    let port = Concerned::of(port);
    kernel.count_drop(meta, &Drop { reason, entry: Entry::FromPort, port, rule: 0 });
    Ok(false)
}

/// One byte, because a BPF function returns no more than a register.
enum Outcome {
    Fits,
    Answered,
    Refused,
}

/// What becomes of a packet; if it is answered, it knows by whom.
#[inline(never)]
fn outcome<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
) -> Outcome {
    if size(kernel, meta, packet) <= packet.mtu || may_be_fragmented(kernel, packet) {
        return Outcome::Fits;
    }
    let is_answerable = packet.fragment != Fragment::Later && packet.role != Role::Error;
    if !is_answerable || meta.length < ETHERNET_BYTES + QUOTED {
        return Outcome::Refused;
    }
    // What is no part of a connection uses up the port's own budget for what goes to several.
    let may = match packet.room.found.is_none() {
        true => flood::of_port(kernel, meta, port.place()).is_ok(),
        false => kernel
            .ct_slot(packet.room.found.number)
            .is_some_and(|slot| icmp_error::take_step(slot, meta.now_ns)),
    };
    if !may {
        return Outcome::Refused;
    }
    packet.answerer = source(kernel, port, packet);
    Outcome::Answered
}

/// Bytes of the packet, or of each segment that it will be cut into.
#[inline(always)]
fn size<K: Kernel>(kernel: &K, meta: &Meta, packet: &Packet) -> u32 {
    if meta.gso_size == 0 {
        return packet.end - ETHERNET_BYTES;
    }
    let header = match packet.protocol {
        TCP => match kernel.load::<2>(packet.l4 + 12) {
            Some([offset, _]) => u32::from(offset >> 4) * 4,
            None => 0,
        },
        UDP => 8,
        _ => 0,
    };
    packet.l4 - ETHERNET_BYTES + header + u32::from(meta.gso_size)
}

/// Whether it is IPv4 without DF.
#[inline(always)]
fn may_be_fragmented<K: Kernel>(kernel: &K, packet: &Packet) -> bool {
    packet.ethertype == ETHERTYPE_IPV4
        && matches!(kernel.load::<2>(ETHERNET_BYTES + 6), Some([flags, _]) if flags & DONT_FRAGMENT == 0)
}

/// Who answers.
#[inline(always)]
fn source<K: Kernel>(kernel: &K, port: &PortHead, packet: &Packet) -> Addr {
    let key = AddrKey { port: port.number, addr: packet.source };
    match kernel.source(&key) {
        Some(source) if !source.gateway.same(&Addr::UNSPECIFIED_V6) => source.gateway,
        _ => packet.destination,
    }
}

#[inline(never)]
fn ipv4<K: Kernel>(kernel: &mut K, packet: &Packet) -> bool {
    if !kernel.quote(ETHERNET_BYTES + QUOTED, IPV4_BYTES + ICMP_BYTES) {
        return false;
    }
    let ([_, _, _, source], [_, _, _, target]) = (packet.answerer.words(), packet.source.words());
    let [_, _, l0, l1] = (IPV4_BYTES + ICMP_BYTES + QUOTED).to_be_bytes();
    // Precedence internetwork control (RFC 1812, 4.3.2.5), don't fragment.
    let start = [
        u32::from_ne_bytes([0x45, 0xc0, l0, l1]),
        u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]),
        u32::from_ne_bytes([TTL, ICMP, 0, 0]),
        source,
        target,
    ];
    let mut sum = Checksum::new();
    sum.add(&start);
    let [c0, c1] = sum.finish();
    let life = u32::from_ne_bytes([TTL, ICMP, c0, c1]);
    let [_, _, m0, m1] = packet.mtu.to_be_bytes();
    let error = [u32::from_ne_bytes([3, 4, 0, 0]), u32::from_ne_bytes([0, 0, m0, m1])];
    let mut sum = Checksum::new();
    sum.add(&error);
    let [c0, c1] = with_quote(kernel, sum, ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES);
    let [start, identity, ..] = start;
    let error = [u32::from_ne_bytes([3, 4, c0, c1]), error[1]];
    turn_around(kernel, packet)
        && kernel.store_words(ETHERNET_BYTES, &[start, identity, life, source, target])
        && kernel.store_words(ETHERNET_BYTES + IPV4_BYTES, &error)
}

#[inline(never)]
fn ipv6<K: Kernel>(kernel: &mut K, packet: &Packet) -> bool {
    if !kernel.quote(ETHERNET_BYTES + QUOTED, IPV6_BYTES + ICMP_BYTES) {
        return false;
    }
    let [_, _, l0, l1] = (ICMP_BYTES + QUOTED).to_be_bytes();
    let mtu = packet.mtu.to_be();
    let mut sum = Checksum::new();
    // The pseudo header (RFC 8200, 8.1).
    sum.add(&packet.answerer.words());
    sum.add(&packet.source.words());
    sum.add(&[u32::from_ne_bytes([l0, l1, 0, ICMPV6]), u32::from_ne_bytes([2, 0, 0, 0]), mtu]);
    let [c0, c1] = with_quote(kernel, sum, ETHERNET_BYTES + IPV6_BYTES + ICMP_BYTES);
    let start = [u32::from_ne_bytes([0x60, 0, 0, 0]), u32::from_ne_bytes([l0, l1, ICMPV6, TTL])];
    turn_around(kernel, packet)
        && kernel.store_words(ETHERNET_BYTES, &start)
        && kernel.store_words(ETHERNET_BYTES + 8, &packet.answerer.words())
        && kernel.store_words(ETHERNET_BYTES + 24, &packet.source.words())
        && kernel
            .store_words(ETHERNET_BYTES + IPV6_BYTES, &[u32::from_ne_bytes([2, 0, c0, c1]), mtu])
}

/// The checksum of what is summed already, and of the quote.
#[inline(always)]
fn with_quote<K: Kernel>(kernel: &K, mut sum: Checksum, at: u32) -> [u8; 2] {
    let mut done = 0;
    while done < QUOTED {
        sum.add_sum(chunk(kernel, at + done));
        done += CHUNK;
    }
    sum.finish()
}

/// The sum of a chunk, as words. A function of its own, for its place on the stack.
#[inline(never)]
pub(crate) fn chunk<K: Kernel>(kernel: &K, at: u32) -> u64 {
    let mut sum = Checksum::new();
    // All of the quote is there.
    sum.add(&kernel.load_words::<CHUNK_WORDS>(at).unwrap_or([0; CHUNK_WORDS]));
    sum.sum()
}

/// Sends the frame back where it came from.
#[inline(always)]
fn turn_around<K: Kernel>(kernel: &mut K, packet: &Packet) -> bool {
    kernel.store(0, &packet.source_mac.0) && kernel.store(6, &packet.destination_mac.0)
}
