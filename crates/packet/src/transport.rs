//! The transport header: ports, TCP flags, ICMP types, and what they may do to a connection.
//!
//! A later fragment has no transport header: it follows its first one (`fragments`), which must
//! hold the whole header (RFC 1858).

use crate::kernel::Kernel;
use crate::parse::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, ICMP, ICMPV6, Packet, Role, TCP, UDP,
};
use crate::reason::DropReason;

/// TCP flag: the sender is done.
pub(crate) const FIN: u8 = 0x01;
/// TCP flag: opens.
pub(crate) const SYN: u8 = 0x02;
/// TCP flag: aborts.
pub(crate) const RST: u8 = 0x04;
/// TCP flag: acknowledges.
pub(crate) const ACK: u8 = 0x10;

/// Bytes of the fixed TCP header.
pub(crate) const TCP_BYTES: u32 = 20;
/// Bytes of the UDP header, and of what every ICMP message starts with.
pub(crate) const SHORT_BYTES: u32 = 8;

/// Reads the transport header behind the L3 headers.
#[inline(never)]
pub(crate) fn header<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.fragment == Fragment::Later {
        return Ok(());
    }
    match packet.protocol {
        TCP => tcp(kernel, packet),
        UDP => udp(kernel, packet),
        ICMP | ICMPV6 => icmp(kernel, packet),
        _ => Ok(()),
    }
}

#[inline(always)]
fn tcp<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.l4 + TCP_BYTES > packet.end {
        return Err(DropReason::Malformed);
    }
    let Some(header) = kernel.load::<14>(packet.l4) else { return Err(DropReason::Malformed) };
    let [s0, s1, d0, d1, .., flags] = header;
    packet.source_port = u16::from_be_bytes([s0, s1]);
    packet.destination_port = u16::from_be_bytes([d0, d1]);
    packet.flags = flags;
    // An ACK alone may open: a connection outlives a lost table that way (as Linux does with
    // nf_conntrack_tcp_loose). SYN+ACK, FIN and RST always answer something.
    packet.role = match flags & (SYN | ACK | FIN | RST) {
        SYN | ACK => Role::Opens,
        _ => Role::Continues,
    };
    Ok(())
}

#[inline(always)]
fn udp<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.l4 + SHORT_BYTES > packet.end {
        return Err(DropReason::Malformed);
    }
    let Some([s0, s1, d0, d1]) = kernel.load::<4>(packet.l4) else {
        return Err(DropReason::Malformed);
    };
    packet.source_port = u16::from_be_bytes([s0, s1]);
    packet.destination_port = u16::from_be_bytes([d0, d1]);
    Ok(())
}

#[inline(always)]
fn icmp<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.l4 + SHORT_BYTES > packet.end {
        return Err(DropReason::Malformed);
    }
    let Some([kind, code, _, _, id0, id1]) = kernel.load::<6>(packet.l4) else {
        return Err(DropReason::Malformed);
    };
    packet.flags = kind;
    packet.code = code;
    packet.role = match (packet.ethertype, packet.protocol) {
        (ETHERTYPE_IPV4, ICMP) => icmpv4_role(kind),
        (ETHERTYPE_IPV6, ICMPV6) => icmpv6_role(kind),
        _ => Role::Unsupported,
    };
    if packet.role == Role::Opens || packet.role == Role::Continues {
        let identifier = u16::from_be_bytes([id0, id1]);
        (packet.source_port, packet.destination_port) = echo_ports(kind, identifier);
    }
    Ok(())
}

/// Echo has one identifier; it is the port of the end that asks. So both directions of an echo
/// have one key, and two ends that ask each other with one identifier have two.
#[inline(always)]
pub(crate) fn echo_ports(kind: u8, identifier: u16) -> (u16, u16) {
    match kind {
        0 | 129 => (0, identifier),
        _ => (identifier, 0),
    }
}

/// RFC 792: echo 8/0, unreachable 3, time exceeded 11, parameter problem 12.
#[inline(always)]
fn icmpv4_role(kind: u8) -> Role {
    match kind {
        8 => Role::Opens,
        0 => Role::Continues,
        3 | 11 | 12 => Role::Error,
        _ => Role::Unsupported,
    }
}

/// RFC 4443: echo 128/129, unreachable 1, packet too big 2, time exceeded 3, parameter problem 4.
#[inline(always)]
fn icmpv6_role(kind: u8) -> Role {
    match kind {
        128 => Role::Opens,
        129 => Role::Continues,
        1..=4 => Role::Error,
        _ => Role::Unsupported,
    }
}
