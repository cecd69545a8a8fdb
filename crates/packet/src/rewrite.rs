//! Rewriting: one end of a packet gets another address and port, and every checksum that covers them
//! follows. The stage that translates (NAT) does it between the two sides of the policy.
//!
//! The checksums are changed by the difference (RFC 1624), never computed anew, so what was wrong
//! stays wrong and the payload is not read. The kernel does the sums: it knows which packets have
//! no checksum yet (CHECKSUM_PARTIAL) and keeps the sum that a card has given (CHECKSUM_COMPLETE).
//! A UDP checksum of zero means none in IPv4 (RFC 768) and stays.

use crate::addr::Addr;
use crate::kernel::{Kernel, Meta};
use crate::parse::{
    self, ETHERNET_BYTES, ETHERTYPE_IPV4, Fragment, ICMP, ICMPV6, Packet, TCP, UDP,
};

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who sends it.
    Source,
    /// Who it is for.
    Destination,
}

/// What an end becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Which end.
    pub side: Side,
    /// Its address, of the packet's family.
    pub addr: Addr,
    /// Its L4 port, or the identifier of an ICMP echo; 0 leaves it as it is. A protocol without
    /// ports has none, nor has a later fragment.
    pub port: u16,
}

/// A checksum of the transport, and what a change of a word means to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Where the checksum is in the frame.
    pub checksum: u32,
    /// The word is in the pseudo header: an address.
    pub is_pseudo: bool,
    /// The packet is IPv6, whose header has no checksum of its own.
    pub is_v6: bool,
    /// Zero means that there is none.
    pub may_be_absent: bool,
}

/// Reads a frame's headers, then [`apply`]s a rewrite to it; whether both worked. For tests: the
/// stages have read the headers by then.
#[inline(always)]
pub fn rewrite_frame<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    packet: &mut Packet,
    rewrite: &Rewrite,
) -> bool {
    parse::ethernet(kernel, packet).is_ok()
        && parse::network(kernel, meta, packet).is_ok()
        && apply(kernel, packet, rewrite)
}

/// Gives an end of the packet another address and port, in the frame and in what is known of it;
/// whether it worked. If not, the frame may be half done, and must be dropped.
#[inline(never)]
pub(crate) fn apply<K: Kernel>(kernel: &mut K, packet: &mut Packet, rewrite: &Rewrite) -> bool {
    packet.flow.give_up();
    if !address(kernel, packet, rewrite) {
        return false;
    }
    match rewrite.side {
        Side::Source => packet.source = rewrite.addr,
        Side::Destination => packet.destination = rewrite.addr,
    }
    rewrite.port == 0 || port(kernel, packet, rewrite)
}

#[inline(always)]
fn address<K: Kernel>(kernel: &mut K, packet: &Packet, rewrite: &Rewrite) -> bool {
    let is_v4 = packet.ethertype == ETHERTYPE_IPV4;
    if is_v4 != rewrite.addr.is_v4() {
        return false;
    }
    let (old, place_v4, place_v6) = match rewrite.side {
        Side::Source => (packet.source.words(), 12, 8),
        Side::Destination => (packet.destination.words(), 16, 24),
    };
    let new = rewrite.addr.words();
    let transport = covered(packet, true);
    if is_v4 {
        let is_summed = kernel.replace_l3(ETHERNET_BYTES + 10, old[3], new[3])
            && transport.is_none_or(|covered| kernel.replace_l4(covered, old[3], new[3]));
        return is_summed && kernel.store_words(ETHERNET_BYTES + place_v4, &[new[3]]);
    }
    let mut at = 0;
    while at < 4 {
        if let Some(covered) = transport
            && !kernel.replace_l4(covered, old[at], new[at])
        {
            return false;
        }
        at += 1;
    }
    kernel.store_words(ETHERNET_BYTES + place_v6, &new)
}

#[inline(always)]
fn port<K: Kernel>(kernel: &mut K, packet: &mut Packet, rewrite: &Rewrite) -> bool {
    if packet.fragment == Fragment::Later {
        return true;
    }
    let at = match packet.protocol {
        TCP | UDP => packet.l4,
        // An echo has one identifier, which is the port of the end that asked: see `echo_ports`.
        ICMP | ICMPV6 => packet.l4 + 4,
        _ => return true,
    };
    let (Some([word]), Some(covered)) = (kernel.load_words(at), covered(packet, false)) else {
        return false;
    };
    let [a0, a1, b0, b1] = word.to_ne_bytes();
    let [p0, p1] = rewrite.port.to_be_bytes();
    let is_first = matches!(rewrite.side, Side::Source) || !matches!(packet.protocol, TCP | UDP);
    let new = u32::from_ne_bytes(if is_first { [p0, p1, b0, b1] } else { [a0, a1, p0, p1] });
    match rewrite.side {
        Side::Source => packet.source_port = rewrite.port,
        Side::Destination => packet.destination_port = rewrite.port,
    }
    kernel.replace_l4(covered, word, new) && kernel.store_words(at, &[new])
}

/// The transport's checksum, if it covers a word of the pseudo header or of the transport's own.
#[inline(always)]
fn covered(packet: &Packet, is_pseudo: bool) -> Option<Covered> {
    let offset = match packet.protocol {
        TCP => 16,
        UDP => 6,
        ICMPV6 => 2,
        ICMP if !is_pseudo => 2,
        _ => return None,
    };
    if packet.fragment == Fragment::Later {
        return None;
    }
    Some(Covered {
        checksum: packet.l4 + offset,
        is_pseudo,
        is_v6: packet.ethertype != ETHERTYPE_IPV4,
        may_be_absent: packet.protocol == UDP,
    })
}
