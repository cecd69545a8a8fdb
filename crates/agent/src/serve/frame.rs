//! Frames of guests and answers to them, around what they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    Icmpv6Type, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};
use packet::SERVICE_MAC;

/// What a guest has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// Its MAC, which the programs have guarded.
    pub(super) mac: [u8; 6],
    /// Its address.
    pub(super) source: IpAddr,
    /// What is in the packet.
    pub(super) content: Content<'a>,
}

/// What is in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// A datagram: its UDP ports, and what it carries.
    Udp { from: u16, to: u16, payload: &'a [u8] },
    /// An ICMPv6 message: its type, and all of it from there on.
    Icmpv6 { kind: u8, message: &'a [u8] },
}

/// Reads a frame; `None` if it is none of those that are asked. Checksums are not looked at: a guest may
/// leave them to its device.
pub(super) fn read(frame: &[u8]) -> Option<Asked<'_>> {
    let mac = *frame.get(6..)?.first_chunk()?;
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let source = match sliced.net? {
        NetSlice::Ipv4(v4) => v4.header().source_addr().into(),
        NetSlice::Ipv6(v6) => v6.header().source_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    let content = match sliced.transport? {
        TransportSlice::Udp(udp) => Content::Udp {
            from: udp.source_port(),
            to: udp.destination_port(),
            payload: udp.payload(),
        },
        TransportSlice::Icmpv6(icmp) => {
            Content::Icmpv6 { kind: icmp.type_u8(), message: icmp.slice() }
        }
        _ => return None,
    };
    Some(Asked { mac, source, content })
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct To<A> {
    pub(super) mac: [u8; 6],
    pub(super) ip: A,
    pub(super) port: u16,
}

/// A datagram of IPv4 in a frame; `None` if it is longer than a packet may be.
pub(super) fn udp4(from: (Ipv4Addr, u16), to: To<Ipv4Addr>, payload: &[u8]) -> Option<Vec<u8>> {
    let header = Ipv4Header::new(0, 64, IpNumber::UDP, from.0.octets(), to.ip.octets()).ok()?;
    let headers = IpHeaders::Ipv4(header, Default::default());
    udp(headers, (from.1, to.mac, to.port), payload)
}

/// The same of IPv6.
pub(super) fn udp6(from: (Ipv6Addr, u16), to: To<Ipv6Addr>, payload: &[u8]) -> Option<Vec<u8>> {
    let headers = IpHeaders::Ipv6(ipv6(from.0, to.ip, 64), Default::default());
    udp(headers, (from.1, to.mac, to.port), payload)
}

fn udp(
    headers: IpHeaders,
    (from, mac, to): (u16, [u8; 6], u16),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(SERVICE_MAC.0, mac).ip(headers).udp(from, to);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).ok()?;
    Some(frame)
}

/// An ICMPv6 message of link scope in a frame (RFC 4861, 3.1: hop limit 255): its type, the four bytes
/// after its checksum, and the rest.
pub(super) fn icmpv6(
    (source, source_mac): (Ipv6Addr, [u8; 6]),
    (destination, mac): (Ipv6Addr, [u8; 6]),
    (kind, field): (u8, [u8; 4]),
    rest: &[u8],
) -> Option<Vec<u8>> {
    let headers = IpHeaders::Ipv6(ipv6(source, destination, 255), Default::default());
    let message = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: field };
    let builder = PacketBuilder::ethernet2(source_mac, mac).ip(headers).icmpv6(message);
    let mut frame = Vec::with_capacity(builder.size(rest.len()));
    builder.write(&mut frame, rest).ok()?;
    Some(frame)
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8) -> Ipv6Header {
    Ipv6Header {
        hop_limit,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nic_can_have_the_mac_of_the_hosts() {
        assert_eq!(SERVICE_MAC.0, model::Mac::SERVICES.0);
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let to = To { mac: [2, 0, 0, 0, 0, 5], ip: Ipv4Addr::new(10, 0, 0, 5), port: 68 };
        let frame = udp4((Ipv4Addr::new(10, 0, 0, 2), 67), to, b"four").unwrap();
        let asked = read(&frame).unwrap();
        assert_eq!((asked.mac, asked.source), (SERVICE_MAC.0, [10, 0, 0, 2].into()));
        assert_eq!(asked.content, Content::Udp { from: 67, to: 68, payload: b"four" });
        assert_eq!(frame[..6], to.mac);
    }

    #[test]
    fn a_message_of_link_scope_has_its_checksum_and_hop_limit() {
        let (from, to) = ("fe80::1".parse().unwrap(), "ff02::1".parse().unwrap());
        let frame = icmpv6(
            (from, SERVICE_MAC.0),
            (to, [0x33, 0x33, 0, 0, 0, 1]),
            (134, [64, 0, 0, 0]),
            &[0; 8],
        )
        .unwrap();
        assert_eq!(frame[21], 255);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("ICMPv6") };
        assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
        assert_eq!((icmp.type_u8(), icmp.slice()[4]), (134, 64));
    }
}
