//! IP packets of guests, and what they become in the agent's own namespace: TCP and UDP keep their
//! bytes, around them comes another IP header.
//!
//! Stateless: a packet in, a packet out. Checksums are computed anew and those that come are not
//! looked at: a guest may leave them to its device, and from there to here nothing but memory was
//! on the way. Fragments, options of IPv6 and everything that is not TCP or UDP are refused.
//!
//! Source: RFC 791, RFC 8200 (8.1: pseudo-header), RFC 9293, RFC 768, RFC 1071.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Bytes of a header of IPv4 without options.
const IPV4: usize = 20;
const IPV6: usize = 40;
/// What packets may go through yet. None is routed.
const HOPS: u8 = 64;

/// What is inside of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Bytes of its header at least, and where in it the checksum is.
    const fn header(self) -> (usize, usize) {
        match self {
            Self::Tcp => (20, 16),
            Self::Udp => (8, 6),
        }
    }
}

/// A TCP segment or UDP datagram, with who sends it to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: Protocol,
    /// From its own header on.
    pub(crate) bytes: &'a [u8],
}

/// The MACs of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Macs {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
}

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("neither IPv4 nor IPv6")]
    NotIp,
    #[error("shorter than it says, or too short")]
    Length,
    #[error("a fragment")]
    Fragment,
    #[error("neither TCP nor UDP")]
    Protocol,
    #[error("not from one address to another")]
    Address,
}

/// Reads a frame.
pub(crate) fn read_frame(frame: &[u8]) -> Result<(Macs, Segment<'_>), Refused> {
    let (header, packet) = frame.split_at_checked(ETHERNET).ok_or(Refused::Length)?;
    let mac = |at: usize| <[u8; 6]>::try_from(&header[at..at + 6]).unwrap_or_default();
    let segment = match [header[12], header[13]] {
        ETHERTYPE_IPV4 => read_ipv4(packet)?,
        ETHERTYPE_IPV6 => read_ipv6(packet)?,
        _ => return Err(Refused::NotIp),
    };
    Ok((Macs { to: mac(0), from: mac(6) }, segment))
}

/// Reads a packet that has no Ethernet header.
pub(crate) fn read(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => read_ipv4(packet),
        Some(6) => read_ipv6(packet),
        _ => Err(Refused::NotIp),
    }
}

fn read_ipv4(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    let header = packet.get(..IPV4).ok_or(Refused::Length)?;
    if header[0] >> 4 != 4 {
        return Err(Refused::NotIp);
    }
    let start = usize::from(header[0] & 0xf) * 4;
    let end = usize::from(half(header, 2));
    // Beyond the end is padding of Ethernet.
    let bytes = packet.get(start..end).filter(|_| start >= IPV4).ok_or(Refused::Length)?;
    // More fragments, or not the first one.
    if half(header, 6) & 0x3fff != 0 {
        return Err(Refused::Fragment);
    }
    let ip =
        |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap_or_default());
    let (from, to) = (ip(12), ip(16));
    let is_one = |ip: Ipv4Addr| !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast();
    if !is_one(from) || !is_one(to) {
        return Err(Refused::Address);
    }
    segment(from.into(), to.into(), header[9], bytes)
}

fn read_ipv6(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    let header = packet.get(..IPV6).ok_or(Refused::Length)?;
    if header[0] >> 4 != 6 {
        return Err(Refused::NotIp);
    }
    let end = IPV6 + usize::from(half(header, 4));
    let bytes = packet.get(IPV6..end).ok_or(Refused::Length)?;
    if header[6] == 44 {
        return Err(Refused::Fragment);
    }
    let ip =
        |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default());
    let (from, to) = (ip(8), ip(24));
    let is_one = |ip: Ipv6Addr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
    if !is_one(from) || !is_one(to) {
        return Err(Refused::Address);
    }
    segment(from.into(), to.into(), header[6], bytes)
}

fn segment(from: IpAddr, to: IpAddr, number: u8, bytes: &[u8]) -> Result<Segment<'_>, Refused> {
    let protocol = match number {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return Err(Refused::Protocol),
    };
    let bytes = match protocol {
        Protocol::Tcp => bytes,
        Protocol::Udp => {
            let length = bytes.get(4..6).map(|length| usize::from(half(length, 0)));
            bytes.get(..length.ok_or(Refused::Length)?).ok_or(Refused::Length)?
        }
    };
    match bytes.len() >= protocol.header().0 {
        true => Ok(Segment { from, to, protocol, bytes }),
        false => Err(Refused::Length),
    }
}

impl Segment<'_> {
    /// The port that it is sent to.
    pub(crate) fn destination_port(&self) -> u16 {
        half(self.bytes, 2)
    }

    /// The port that it is sent from.
    pub(crate) fn source_port(&self) -> u16 {
        half(self.bytes, 0)
    }

    /// What is behind its header; of UDP.
    pub(crate) fn datagram(&self) -> &[u8] {
        &self.bytes[8..]
    }

    /// As an IP packet; `None` if it does not fit into one, or its ends are of two families.
    pub(crate) fn packet(&self) -> Option<Vec<u8>> {
        let length = self.bytes.len();
        let number = self.protocol.number();
        let mut packet = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = u16::try_from(length + IPV4).ok()?.to_be_bytes();
                // Not to be fragmented, so it needs no number (RFC 6864).
                let mut header =
                    vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, HOPS, number, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                let checksum = folded(sum(&header));
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let payload = u16::try_from(length).ok()?.to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, payload[0], payload[1], number, HOPS];
                header.extend(from.octets());
                header.extend(to.octets());
                header
            }
            _ => return None,
        };
        let start = packet.len();
        packet.extend(self.bytes);
        let place = start + self.protocol.header().1;
        packet[place..place + 2].fill(0);
        let pseudo = address_sum(self.from)
            + address_sum(self.to)
            + u64::from(number)
            + u64::try_from(length).ok()?;
        let checksum = match (folded(pseudo + sum(&packet[start..])), self.protocol) {
            // To UDP that would be no checksum.
            (0, Protocol::Udp) => 0xffff,
            (checksum, _) => checksum,
        };
        packet[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
        Some(packet)
    }

    /// As an Ethernet frame, as [`packet`](Self::packet).
    pub(crate) fn frame(&self, macs: Macs) -> Option<Vec<u8>> {
        let packet = self.packet()?;
        let ethertype = if self.from.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        Some([&macs.to[..], &macs.from, &ethertype, &packet].concat())
    }
}

/// A UDP datagram, from its header on; `None` if it is too long for one.
pub(crate) fn datagram(from_port: u16, to_port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len() + 8).ok()?;
    let header = [from_port, to_port, length, 0].map(u16::to_be_bytes);
    Some([header.as_flattened(), payload].concat())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn address_sum(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2).map(|pair| {
        u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    pairs.sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Whether any bytes are a frame, for [`fuzz`](crate::fuzz).
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn is_understood(frame: &[u8]) -> bool {
    let Ok((macs, segment)) = read_frame(frame) else { return false };
    let written = segment.frame(macs).expect("what was read has room for what it holds");
    let again = read_frame(&written).expect("what is written can be read");
    let ends = |segment: &Segment<'_>| (segment.from, segment.to, segment.protocol);
    assert_eq!((macs, ends(&segment)), (again.0, ends(&again.1)), "a frame comes back");
    true
}

/// Frames of both families, for [`fuzz`](crate::fuzz).
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let macs = Macs { to: [0x0e; 6], from: [0xfa; 6] };
    let tcp = [&[0xc0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0][..]].concat();
    let udp = datagram(53000, 53, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01");
    let ends = [("10.0.0.5", "169.254.169.254"), ("fe80::1", "fe80::a9fe:a9fe")];
    let mut samples = Vec::new();
    for (from, to) in ends {
        let [from, to] = [from, to].map(|ip| ip.parse().expect("an address"));
        for (protocol, bytes) in
            [(Protocol::Tcp, &tcp), (Protocol::Udp, udp.as_ref().expect("short"))]
        {
            samples.extend(Segment { from, to, protocol, bytes }.frame(macs));
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A SYN that Linux sent from 10.0.0.2:40002 to 169.254.169.254:80, whole.
    const SYN: &str = "4500003c1c464000400618aa0a000002a9fea9fe9c4200500000000100000000a002faf0\
        0000000002040550";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let text = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| text(pair).unwrap()).collect()
    }

    #[test]
    fn lengths_and_fragments_are_looked_at() {
        let mut packet = bytes(SYN);
        let total = u8::try_from(packet.len()).unwrap();
        packet[3] = total;
        let segment = read(&packet).unwrap();
        assert_eq!((segment.from, segment.to), (ip("10.0.0.2"), ip("169.254.169.254")));
        assert_eq!((segment.source_port(), segment.destination_port()), (40002, 80));
        let cases: [(usize, u8, Refused); 8] = [
            (0, 0x65, Refused::Length),
            (0, 0x75, Refused::NotIp),
            (0, 0x44, Refused::Length),
            (3, total + 1, Refused::Length),
            (3, 39, Refused::Length),
            (6, 0x60, Refused::Fragment),
            (7, 1, Refused::Fragment),
            (9, 1, Refused::Protocol),
        ];
        for (at, value, expected) in cases {
            let mut packet = packet.clone();
            packet[at] = value;
            assert_eq!(read(&packet), Err(expected), "byte {at} is {value}");
        }
        // Padding of Ethernet is no part of it.
        assert_eq!(read(&[&packet[..], &[0; 6]].concat()), Ok(segment));
        packet[12..16].copy_from_slice(&[224, 0, 0, 1]);
        assert_eq!(read(&packet), Err(Refused::Address));
    }

    /// By a way of its own: the sum of everything that a checksum covers is all ones.
    fn is_sound(packet: &[u8]) -> bool {
        let segment = read(packet).unwrap();
        let mut all = Vec::new();
        for ip in [segment.from, segment.to] {
            match ip {
                IpAddr::V4(v4) => all.extend(v4.octets()),
                IpAddr::V6(v6) => all.extend(v6.octets()),
            }
        }
        all.extend(u32::try_from(segment.bytes.len()).unwrap().to_be_bytes());
        all.extend([0, segment.protocol.number()]);
        all.extend(segment.bytes);
        let header = match packet[0] >> 4 {
            4 => folded(sum(&packet[..20])) == 0,
            _ => true,
        };
        header && folded(sum(&all)) == 0
    }

    #[test]
    fn checksums_are_those_of_others() {
        // RFC 1071, 3.
        assert_eq!(!folded(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        // A query of dig.
        let packet = bytes(
            "45000039a5f840004011 7b29 7f00000a7f000001 d431 0035 0025 0000 \
             4d1a0120000100000000000103777777016101620000010001",
        );
        let mut packet = packet;
        let total = u8::try_from(packet.len()).unwrap();
        packet[3] = total;
        packet[25] = total - 20;
        let segment = read(&packet).unwrap();
        assert!(is_sound(&segment.packet().unwrap()));
    }

    proptest! {
        #[test]
        fn a_packet_goes_through_both_families_unharmed(
            payload in vec(any::<u8>(), 0..1400),
            ports in any::<[u16; 2]>(),
            is_tcp in any::<bool>(),
        ) {
            let udp = datagram(ports[0], ports[1], &payload).unwrap();
            let mut tcp = vec![0; 20];
            tcp[..2].copy_from_slice(&ports[0].to_be_bytes());
            tcp[2..4].copy_from_slice(&ports[1].to_be_bytes());
            tcp.extend(&payload);
            let (protocol, bytes) =
                if is_tcp { (Protocol::Tcp, &tcp) } else { (Protocol::Udp, &udp) };
            let first = Segment { from: ip("10.0.0.1"), to: ip("169.254.169.254"), protocol, bytes };
            let first = first.packet().unwrap();
            prop_assert!(is_sound(&first));
            let read_first = read(&first).unwrap();
            let second = Segment { from: ip("fd4e::1"), to: ip("fd4f::2"), ..read_first };
            let second = second.packet().unwrap();
            prop_assert!(is_sound(&second));
            let read_second = read(&second).unwrap();
            prop_assert_eq!((read_second.source_port(), read_second.destination_port()), (ports[0], ports[1]));
            let start = if is_tcp { 20 } else { 8 };
            prop_assert_eq!(&read_second.bytes[start..], &payload[..]);
            let back = Segment { from: ip("10.0.0.1"), to: ip("169.254.169.254"), ..read_second };
            prop_assert_eq!(back.packet().unwrap(), first);
        }
    }
}
