//! The IPv4 header (RFC 791), options skipped by length.
//!
//! The header checksum is left to the receiver. A total length of 0 is what Linux writes for a
//! GSO frame over 64 KiB (BIG TCP); the frame's own length is taken then.

use crate::addr::Addr;
use crate::kernel::Kernel;
use crate::parse::{ETHERNET_BYTES, Fragment, Packet, TCP};
use crate::reason::DropReason;

/// Bit of the fragment field: more fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;
/// Bits of the fragment field: offset in units of 8 bytes.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the header behind Ethernet.
#[inline(always)]
pub(crate) fn header<K: Kernel>(
    kernel: &K,
    length: u32,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let Some([start, identity, life, source, destination]) = kernel.load_words(ETHERNET_BYTES)
    else {
        return Err(DropReason::Malformed);
    };
    let [version_ihl, _, len0, len1] = start.to_ne_bytes();
    let [id0, id1, frag0, frag1] = identity.to_ne_bytes();
    let [ttl, protocol, _, _] = life.to_ne_bytes();
    let header_bytes = u32::from(version_ihl & 0x0f) * 4;
    let total = u32::from(u16::from_be_bytes([len0, len1]));
    packet.end = if total == 0 { length } else { ETHERNET_BYTES + total };
    packet.l4 = ETHERNET_BYTES + header_bytes;
    let wrong = version_ihl >> 4 != 4 || header_bytes < 20;
    if wrong || packet.l4 > packet.end || packet.end > length {
        return Err(DropReason::Malformed);
    }
    packet.source = Addr::v4_word(source);
    packet.destination = Addr::v4_word(destination);
    packet.protocol = protocol;
    packet.hop_limit = ttl;
    packet.identification = u32::from(u16::from_be_bytes([id0, id1]));
    let field = u16::from_be_bytes([frag0, frag1]);
    set_fragment(packet, field & FRAGMENT_OFFSET, field & MORE_FRAGMENTS != 0)
}

/// Notes which fragment it is, and refuses the one that would rewrite a TCP header.
///
/// RFC 1858, 4.2 (and RFC 3128): a fragment at offset 1 overlaps the flags of a TCP header whose
/// first fragment has been let through.
#[inline(always)]
pub(crate) fn set_fragment(packet: &mut Packet, offset: u16, more: bool) -> Result<(), DropReason> {
    packet.fragment = match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    if packet.protocol == TCP && offset == 1 {
        return Err(DropReason::FragmentOverlap);
    }
    Ok(())
}
