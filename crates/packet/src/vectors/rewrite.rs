//! Rewriting one end of a packet: the frame that comes out is the one that its new ends would have
//! sent, with checksums computed the plain way.

use super::frame::{Ip, checksum, icmp, tcp, udp};
use super::world::{A, B};
use crate::{Addr, Rewrite, Side};
use std::net::IpAddr;

/// A frame, what is done to it, and what it is then.
#[derive(Clone, Debug)]
pub struct RewriteVector {
    /// What it shows.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// What an end becomes.
    pub rewrite: Rewrite,
    /// The frame that must come out.
    pub expected: Vec<u8>,
}

/// All of them.
///
/// # Panics
/// If one of them is wrong in itself.
#[must_use]
pub fn rewrites() -> Vec<RewriteVector> {
    let families = [
        ("10.0.0.1", "192.0.2.7", "203.0.113.9"),
        ("2001:db8::1", "2001:db8:ffff::7", "fe80::ffff:ffff:ffff:1"),
    ];
    let mut all = Vec::new();
    for (source, destination, new) in families {
        let v6 = source.contains(':');
        let echo = if v6 {
            (58, icmp(128, 0, [0, 7, 0, 1], b"ping"))
        } else {
            (1, icmp(8, 0, [0, 7, 0, 1], b"ping"))
        };
        let protocols = [
            ("tcp", 6, tcp(1_000, 80, 2)),
            ("udp", 17, udp(1_000, 53)),
            ("echo", echo.0, echo.1),
            ("sctp", 132, vec![1, 2, 3, 4, 5, 6, 7, 8]),
        ];
        for (name, protocol, payload) in protocols {
            for side in [Side::Source, Side::Destination] {
                for port in [0, 40_001] {
                    let packet = Ip::new(source, destination, protocol, payload.clone());
                    all.push(RewriteVector {
                        name: format!("{name} of {source}, {side:?}, port {port}"),
                        ..vector(&packet, Rewrite { side, addr: super::world::addr(new), port })
                    });
                }
            }
        }
    }
    let mut absent = Ip::new("10.0.0.1", "192.0.2.7", 17, udp(1_000, 53));
    absent.payload[6..8].fill(0);
    let rewrite = Rewrite { side: Side::Source, addr: super::world::addr("203.0.113.9"), port: 9 };
    let mut expected = ended(&absent, &rewrite);
    expected.payload[6..8].fill(0);
    all.push(RewriteVector {
        name: "no checksum stays none".into(),
        frame: absent.frame(B.mac, A.mac),
        rewrite,
        expected: expected.frame(B.mac, A.mac),
    });
    all
}

fn vector(packet: &Ip, rewrite: Rewrite) -> RewriteVector {
    let (mut before, mut after) = (packet.clone(), ended(packet, &rewrite));
    sum(&mut before);
    sum(&mut after);
    let (frame, expected) = (before.frame(B.mac, A.mac), after.frame(B.mac, A.mac));
    RewriteVector { name: String::new(), frame, rewrite, expected }
}

/// The packet as its new ends would send it, without its checksum.
fn ended(packet: &Ip, rewrite: &Rewrite) -> Ip {
    let mut packet = packet.clone();
    let addr = IpAddr::from(rewrite.addr);
    match rewrite.side {
        Side::Source => packet.source = addr,
        Side::Destination => packet.destination = addr,
    }
    let at = match (packet.protocol, rewrite.side) {
        (6 | 17, Side::Source) => 0,
        (6 | 17, Side::Destination) => 2,
        (1 | 58, _) => 4,
        _ => return packet,
    };
    if rewrite.port != 0 {
        packet.payload[at..at + 2].copy_from_slice(&rewrite.port.to_be_bytes());
    }
    packet
}

/// Fills in the transport's checksum, if it has one.
fn sum(packet: &mut Ip) {
    let (at, is_pseudo) = match packet.protocol {
        6 => (16, true),
        17 => (6, true),
        58 => (2, true),
        1 => (2, false),
        _ => return,
    };
    packet.payload[at..at + 2].fill(0);
    let mut summed = Vec::new();
    if is_pseudo {
        // RFC 8200, 8.1; the zeros of an IPv4 address in an IPv6 one change no sum, but for the
        // mark `ffff`, which is zero in one's complement.
        summed.extend(Addr::from(packet.source).octets());
        summed.extend(Addr::from(packet.destination).octets());
        summed.extend(u32::try_from(packet.payload.len()).expect("a short packet").to_be_bytes());
        summed.extend([0, 0, 0, packet.protocol]);
    }
    summed.extend(&packet.payload);
    let sum = checksum(&summed);
    packet.payload[at..at + 2].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::super::world::world;
    use super::*;
    use crate::{Meta, Packet, rewrite_frame};
    use proptest::prelude::*;

    fn rewritten(frame: &[u8], rewrite: &Rewrite) -> Option<Vec<u8>> {
        let mut memory = world();
        memory.frame = frame.to_vec();
        let length = u32::try_from(frame.len()).unwrap();
        let meta = Meta { length, ..Meta::default() };
        let worked = rewrite_frame(&mut memory, &meta, &mut Packet::default(), rewrite);
        worked.then_some(memory.frame)
    }

    #[test]
    fn a_rewritten_frame_is_what_its_new_ends_would_have_sent() {
        for vector in rewrites() {
            let frame = rewritten(&vector.frame, &vector.rewrite);
            assert_eq!(frame.as_ref(), Some(&vector.expected), "{}", vector.name);
        }
    }

    #[test]
    fn an_address_of_the_other_family_is_refused() {
        let packet = Ip::new("10.0.0.1", "192.0.2.7", 17, udp(1_000, 53));
        let addr = super::super::world::addr("2001:db8::1");
        let rewrite = Rewrite { side: Side::Source, addr, port: 0 };
        assert_eq!(rewritten(&packet.frame(B.mac, A.mac), &rewrite), None);
    }

    #[test]
    fn a_later_fragment_gets_the_address_alone() {
        let mut packet = Ip::new("10.0.0.1", "192.0.2.7", 17, vec![0; 16]);
        packet.fragment = 3;
        let addr = super::super::world::addr("203.0.113.9");
        let rewrite = Rewrite { side: Side::Destination, addr, port: 9 };
        let after = Ip { destination: "203.0.113.9".parse().unwrap(), ..packet.clone() };
        let frame = rewritten(&packet.frame(B.mac, A.mac), &rewrite);
        assert_eq!(frame, Some(after.frame(B.mac, A.mac)));
    }

    proptest! {
        #[test]
        fn checksums_follow_whatever_the_ends_are(
            ends in any::<([u8; 4], [u8; 4], [u8; 4])>(),
            ports in any::<(u16, u16, u16)>(),
            protocol in prop_oneof![Just(6_u8), Just(17)],
            is_source in any::<bool>(),
        ) {
            let text = |octets: [u8; 4]| IpAddr::from(octets).to_string();
            let payload = match protocol {
                6 => tcp(ports.0, ports.1, 16),
                _ => udp(ports.0, ports.1),
            };
            let packet = Ip::new(&text(ends.0), &text(ends.1), protocol, payload);
            let side = if is_source { Side::Source } else { Side::Destination };
            let rewrite = Rewrite { side, addr: Addr::v4(ends.2), port: ports.2 };
            let vector = vector(&packet, rewrite);
            let frame = rewritten(&vector.frame, &rewrite).unwrap();
            // Zero and its complement are the same sum; which one comes out depends on the way.
            prop_assert!(same_but_for_zero(&frame, &vector.expected), "{:x?}", frame);
        }
    }

    /// Whether both are the same, or differ in a transport checksum that is 0 in one and ffff in
    /// the other.
    fn same_but_for_zero(a: &[u8], b: &[u8]) -> bool {
        let at = 34 + if a[23] == 6 { 16 } else { 6 };
        let blank = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            if frame[at..at + 2] == [0xff, 0xff] {
                frame[at..at + 2].fill(0);
            }
            frame
        };
        blank(a) == blank(b)
    }
}
