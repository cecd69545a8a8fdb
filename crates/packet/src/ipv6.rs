//! The IPv6 header and its chain of extension headers (RFC 8200).
//!
//! Hop-by-hop, routing, destination options and fragment headers are skipped, at most
//! [`MAX_HEADERS`] of them; any other next header ends the chain and is the protocol (ESP and AH
//! too: they are tracked by addresses alone). A payload length of 0 is a jumbogram or a GSO frame
//! over 64 KiB; the frame's own length is taken then.

use crate::addr::Addr;
use crate::ipv4::set_fragment;
use crate::kernel::Kernel;
use crate::parse::{ETHERNET_BYTES, Fragment, Packet};
use crate::reason::DropReason;

/// Extension headers that are skipped; RFC 8200, 4.1 recommends an order of six, and real
/// packets have one or two.
const MAX_HEADERS: u32 = 4;
/// Bytes of the fixed header.
const FIXED_BYTES: u32 = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Reads the header behind Ethernet.
#[inline(always)]
pub(crate) fn header<K: Kernel>(
    kernel: &K,
    length: u32,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let Some([start, rest, s0, s1, s2, s3, d0, d1, d2, d3]) = kernel.load_words(ETHERNET_BYTES)
    else {
        return Err(DropReason::Malformed);
    };
    let [version, _, _, _] = start.to_ne_bytes();
    let [len0, len1, next, hop_limit] = rest.to_ne_bytes();
    let payload = u32::from(u16::from_be_bytes([len0, len1]));
    packet.l4 = ETHERNET_BYTES + FIXED_BYTES;
    packet.end = if payload == 0 { length } else { packet.l4 + payload };
    if version >> 4 != 6 || packet.end > length {
        return Err(DropReason::Malformed);
    }
    packet.source = Addr::from_words([s0, s1, s2, s3]);
    packet.destination = Addr::from_words([d0, d1, d2, d3]);
    packet.hop_limit = hop_limit;
    packet.protocol = next;
    // A mapped address on the wire would be taken for the IPv4 address; RFC 4291 never sends one.
    if packet.source.is_v4() || packet.destination.is_v4() {
        return Err(DropReason::Malformed);
    }
    extensions(kernel, packet)
}

/// Walks the extension headers, leaving [`Packet::l4`] behind the last.
#[inline(always)]
fn extensions<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    let mut seen = 0;
    while is_extension(packet.protocol) {
        if seen == MAX_HEADERS {
            return Err(DropReason::TooManyHeaders);
        }
        let next = packet.protocol;
        let Some([after, length, o0, o1]) = kernel.load::<4>(packet.l4) else {
            return Err(DropReason::Malformed);
        };
        packet.protocol = after;
        if next == FRAGMENT {
            let Some([identification]) = kernel.load_words(packet.l4 + 4) else {
                return Err(DropReason::Malformed);
            };
            packet.identification = identification;
            packet.l4 += 8;
            let field = u16::from_be_bytes([o0, o1]);
            set_fragment(packet, field >> 3, field & 1 != 0)?;
        } else {
            packet.l4 += (u32::from(length) + 1) * 8;
        }
        if packet.l4 > packet.end {
            return Err(DropReason::Malformed);
        }
        if packet.fragment == Fragment::Later {
            // What follows is payload, whatever it looks like.
            return Ok(());
        }
        seen += 1;
    }
    Ok(())
}

/// Whether it is a header that is skipped.
#[inline(always)]
fn is_extension(next: u8) -> bool {
    next == HOP_BY_HOP || next == ROUTING || next == FRAGMENT || next == DESTINATION_OPTIONS
}
