//! Frames for the vectors, byte by byte, independent of the code under test.

use crate::{Addr, Mac};
use std::net::IpAddr;

/// An Ethernet header with a payload.
#[must_use]
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IP packet: protocol, source, destination, payload.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// IPv4: options (a multiple of 4). IPv6: extension headers, whose first is `next`.
    pub extra: Vec<u8>,
    /// IPv6: next header, if `extra` is not empty.
    pub next: u8,
    /// IPv4: the fragment field.
    pub fragment: u16,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Ip {
    /// A plain packet.
    #[must_use]
    pub fn new(source: &str, destination: &str, protocol: u8, payload: Vec<u8>) -> Ip {
        Ip {
            source: address(source),
            destination: address(destination),
            protocol,
            extra: Vec::new(),
            next: protocol,
            fragment: 0,
            hop_limit: 64,
            payload,
        }
    }

    /// Its ethertype.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        if self.source.is_ipv4() { 0x0800 } else { 0x86dd }
    }

    /// Its bytes. The IPv4 header checksum is filled in; transport checksums stay as they are,
    /// as in a frame with CHECKSUM_PARTIAL.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.extra.len();
                let total = u16::try_from(header + self.payload.len()).expect("a short packet");
                let ihl = u8::try_from(header / 4).expect("a short header");
                let mut bytes = vec![0x40 | ihl, 0];
                bytes.extend(total.to_be_bytes());
                bytes.extend([0x12, 0x34]);
                bytes.extend(self.fragment.to_be_bytes());
                bytes.extend([self.hop_limit, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&self.extra);
                let sum = checksum(&bytes);
                bytes[10..12].copy_from_slice(&sum);
                bytes.extend(&self.payload);
                bytes
            }
            (source, destination) => {
                let length = self.extra.len() + self.payload.len();
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend(u16::try_from(length).expect("a short packet").to_be_bytes());
                bytes.extend([self.next, self.hop_limit]);
                bytes.extend(Addr::from(source).octets());
                bytes.extend(Addr::from(destination).octets());
                bytes.extend(&self.extra);
                bytes.extend(&self.payload);
                bytes
            }
        }
    }

    /// The packet in a frame.
    #[must_use]
    pub fn frame(&self, destination: Mac, source: Mac) -> Vec<u8> {
        ethernet(destination, source, self.ethertype(), &self.bytes())
    }
}

/// A TCP header without options.
#[must_use]
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0xab, 0xcd, 0, 0]);
    bytes
}

/// A UDP datagram of four bytes.
#[must_use]
pub fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0, 12, 0xab, 0xcd, b'd', b'a', b't', b'a']);
    bytes
}

/// An ICMP or ICMPv6 message: type, code, four bytes, the rest.
#[must_use]
pub fn icmp(kind: u8, code: u8, field: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0xab, 0xcd];
    bytes.extend(field);
    bytes.extend(rest);
    bytes
}

/// An ARP packet for IPv4 over Ethernet.
#[must_use]
pub fn arp(operation: u16, sender: (Mac, &str), target: (Mac, &str)) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        bytes.extend(mac.0);
        let octets = Addr::from(address(ip)).as_v4().expect("an IPv4 address");
        bytes.extend(octets);
    }
    bytes
}

/// Fills in the checksum of an ICMPv6 message, pseudo header included (RFC 8200, 8.1).
#[must_use]
pub fn with_icmpv6_checksum(source: &str, destination: &str, mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let mut summed = Vec::new();
    summed.extend(Addr::from(address(source)).octets());
    summed.extend(Addr::from(address(destination)).octets());
    summed.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    summed.extend([0, 0, 0, 58]);
    summed.extend(&message);
    let sum = checksum(&summed);
    message[2..4].copy_from_slice(&sum);
    message
}

/// The address that a text is.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address in a vector")
}

/// A frame in an outer packet (RFC 7348) from one VTEP to another, to this UDP port.
///
/// # Panics
/// If it is longer than a packet may be.
#[must_use]
pub fn vxlan(vni: u32, (from, to): (&str, &str), port: u16, frame: &[u8]) -> Vec<u8> {
    let length = u16::try_from(16 + frame.len()).expect("a packet");
    let mut payload = [40_000, port, length, 0].map(u16::to_be_bytes).concat();
    payload.extend([8, 0, 0, 0]);
    payload.extend((vni << 8).to_be_bytes());
    payload.extend(frame);
    Ip::new(from, to, 17, payload).frame(Mac([6; 6]), Mac([6; 6]))
}

/// A frame in GRE with this key, from one VTEP to another, and a header of these flags and this version.
///
/// # Panics
/// If it is longer than a packet may be.
#[must_use]
pub fn gre(key: u32, (from, to): (&str, &str), start: u16, frame: &[u8]) -> Vec<u8> {
    let mut payload = [start, 0x6558].map(u16::to_be_bytes).concat();
    payload.extend(key.to_be_bytes());
    payload.extend(frame);
    let dont_fragment = Ip { fragment: 0x4000, ..Ip::new(from, to, 47, payload) };
    let mut outer = dont_fragment.frame(Mac([6; 6]), Mac([6; 6]));
    outer[18..20].fill(0);
    with_class(outer, 0)
}

/// The same IPv4 packet with this traffic class.
#[must_use]
pub fn with_class(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    frame[15] = class;
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum);
    frame
}

/// Fills in the checksum of an ICMP message.
#[must_use]
pub fn with_checksum(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// RFC 1071, the plain way.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("folded")).to_be_bytes()
}
