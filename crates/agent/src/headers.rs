//! What the first bytes of a frame say, as far as they are there: who speaks to whom.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket};

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Headers {
    /// Its ethertype.
    pub(crate) ethertype: u16,
    /// The source; of ARP who says or asks something.
    pub(crate) source: Option<IpAddr>,
    /// The destination; of ARP what about.
    pub(crate) destination: Option<IpAddr>,
    /// IP protocol number, if it is IP.
    pub(crate) protocol: Option<u8>,
    /// Port of the source, if it has one.
    pub(crate) source_port: u16,
    /// Port of the destination, or ICMP type * 256 + code.
    pub(crate) port_or_type: u16,
}

/// Reads as much as is there.
pub(crate) fn read(frame: &[u8]) -> Headers {
    let ethertype = frame.get(12..14).and_then(|two| two.first_chunk());
    let ethertype = ethertype.map_or(0, |two| u16::from_be_bytes(*two));
    let nothing = Headers { ethertype, ..Headers::default() };
    let Ok(sliced) = LaxSlicedPacket::from_ethernet(frame) else { return nothing };
    match sliced.net {
        Some(LaxNetSlice::Ipv4(v4)) => {
            let header = v4.header();
            let ends = [header.source_addr().into(), header.destination_addr().into()];
            let is_first = header.fragments_offset().value() == 0;
            packet(nothing, ends, is_first, v4.payload())
        }
        Some(LaxNetSlice::Ipv6(v6)) => {
            let header = v6.header();
            let ends = [header.source_addr().into(), header.destination_addr().into()];
            packet(nothing, ends, !v6.is_payload_fragmented(), v6.payload())
        }
        Some(LaxNetSlice::Arp(arp)) => {
            let address = |bytes: &[u8]| bytes.first_chunk::<4>().map(|four| IpAddr::from(*four));
            let arp = arp.to_packet();
            let (source, destination) =
                (address(arp.sender_protocol_addr()), address(arp.target_protocol_addr()));
            Headers { source, destination, ..nothing }
        }
        None => nothing,
    }
}

fn packet(
    frame: Headers,
    [source, destination]: [IpAddr; 2],
    has_ports: bool,
    payload: &LaxIpPayloadSlice<'_>,
) -> Headers {
    let (source, destination) = (Some(source), Some(destination));
    let protocol = Some(payload.ip_number.0);
    let known = Headers { source, destination, protocol, ..frame };
    let word = |at: usize| {
        let two = payload.payload.get(at..).and_then(|rest| rest.first_chunk());
        two.filter(|_| has_ports).map_or(0, |two| u16::from_be_bytes(*two))
    };
    match payload.ip_number {
        IpNumber::TCP | IpNumber::UDP => {
            Headers { source_port: word(0), port_or_type: word(2), ..known }
        }
        IpNumber::ICMP | IpNumber::IPV6_ICMP => Headers { port_or_type: word(0), ..known },
        _ => known,
    }
}

impl Headers {
    /// In words: protocol, addresses, ports.
    pub(crate) fn words(&self) -> String {
        let (Some(source), Some(destination)) = (self.source, self.destination) else {
            return format!("a frame of ethertype {:#06x}", self.ethertype);
        };
        let ends = |source: &dyn std::fmt::Display, destination: &dyn std::fmt::Display| {
            format!("{source} to {destination}")
        };
        let with_ports = || {
            let source = SocketAddr::new(source, self.source_port);
            ends(&source, &SocketAddr::new(destination, self.port_or_type))
        };
        let [kind, code] = self.port_or_type.to_be_bytes();
        match self.protocol.map(IpNumber) {
            None => format!("ARP of {source} about {destination}"),
            Some(IpNumber::TCP) => format!("TCP {}", with_ports()),
            Some(IpNumber::UDP) => format!("UDP {}", with_ports()),
            Some(IpNumber::ICMP) => {
                format!("ICMP type {kind} code {code} {}", ends(&source, &destination))
            }
            Some(IpNumber::IPV6_ICMP) => {
                format!("ICMPv6 type {kind} code {code} {}", ends(&source, &destination))
            }
            Some(IpNumber(other)) => format!("protocol {other} {}", ends(&source, &destination)),
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn what_is_cut_off_says_what_it_can() {
        let mut frame = Vec::new();
        let v6 = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(v6(1), v6(2), 64);
        ip.tcp(4_000, 80, 0, 0).write(&mut frame, &[1; 100]).unwrap();
        // As much as an event has.
        let headers = read(&frame[..64]);
        assert_eq!(headers.words(), "TCP [fd00::1]:4000 to [fd00::2]:80");
        assert_eq!(read(&frame[..54]).words(), "TCP [fd00::1]:0 to [fd00::2]:0");
        assert_eq!(read(&frame[..20]).words(), "a frame of ethertype 0x86dd");
        assert_eq!(read(&[]).words(), "a frame of ethertype 0x0000");
    }

    #[test]
    fn a_message_has_its_type_and_code() {
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        ip.icmpv4_raw(3, 1, [0; 4]).write(&mut frame, &[]).unwrap();
        let headers = read(&frame);
        assert_eq!((headers.protocol, headers.port_or_type), (Some(1), 3 << 8 | 1));
        assert_eq!(headers.words(), "ICMP type 3 code 1 10.0.0.1 to 10.0.0.2");
    }
}
