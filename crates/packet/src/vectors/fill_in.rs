//! Checksums that are filled in after the decision.

use super::Vector;
use super::frame::{Ip, icmp, tcp, udp};
use super::world::{A, A_NUMBER, B, R, a_to, from_a, from_r};
use crate::DropReason;

/// Offset of the IPv4 header and of what follows it.
const IP: u32 = 14;
const L4: u32 = IP + 20;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = good_vectors();
    vectors.extend(bad_vectors());
    vectors
}

/// Filled in at this offset.
fn at(vector: Vector, offset: u32) -> Vector {
    vector.meta(|meta| meta.checksum_end = u16::try_from(offset + 2).unwrap_or(u16::MAX))
}

/// A to B.
fn local(name: &'static str, offset: u32, (protocol, payload): (u8, Vec<u8>)) -> Vector {
    at(from_a(name, a_to(B, &Ip::new(A.v4, B.v4, protocol, payload))), offset)
}

fn good_vectors() -> Vec<Vector> {
    let mut in_tunnel = udp(7, 4789);
    in_tunnel.extend([0; 64]);
    let v6 = Ip { next: 60, ..Ip::new(A.v6, R.v6, 6, tcp(1000, 80, 2)) };
    let v6 = Ip { extra: vec![6, 0, 1, 4, 0, 0, 0, 0], ..v6 };
    vec![
        local("the checksum of tcp is filled in later", L4 + 16, (6, tcp(1000, 80, 2)))
            .a_reaches_b(),
        local("that of udp", L4 + 6, (17, udp(1, 2))).a_reaches_b(),
        local("that of what a vm's own tunnel carries", L4 + 58, (17, in_tunnel)).a_reaches_b(),
        local("that of sctp, which is no business of ours", L4 + 8, (132, vec![0; 12]))
            .a_reaches_b(),
        at(from_a("that of tcp behind an extension header", a_to(R, &v6)), IP + 40 + 8 + 16)
            .a_reaches_r(),
    ]
}

fn bad_vectors() -> Vec<Vector> {
    let bad = |name, offset, payload| {
        local(name, offset, payload).dropped(A_NUMBER, DropReason::ChecksumMisplaced)
    };
    let fragment = Ip { fragment: 0x2000, ..Ip::new(A.v4, B.v4, 17, udp(1, 2)) };
    let from_tunnel = Ip::new(R.v4, A.v4, 17, udp(53, 1000)).frame(A.mac, R.mac);
    vec![
        bad("a checksum over the mac", 0, (17, udp(1, 2))),
        bad("a checksum over the source address", IP + 14, (17, udp(1, 2))),
        bad("a checksum over the destination address", IP + 18, (6, tcp(1000, 80, 2))),
        bad("a checksum over the source port", L4, (17, udp(1, 2))),
        bad("a checksum over the destination port", L4 + 2, (17, udp(1, 2))),
        bad("a checksum over half of the destination port", L4 + 3, (17, udp(1, 2))),
        bad("a checksum over the flags of tcp", L4 + 13, (6, tcp(1000, 80, 2))),
        bad("a checksum over the identifier of an echo", L4 + 4, {
            (1, icmp(8, 0, [0, 7, 0, 1], &[0; 8]))
        }),
        bad("a checksum over what an error quotes", L4 + 8 + 12, {
            (1, icmp(3, 3, [0; 4], &Ip::new(B.v4, A.v4, 17, udp(5, 6)).bytes()))
        }),
        bad("a checksum at the end of the frame, all of it outside", 1 << 20, {
            (1, icmp(3, 3, [0; 4], &Ip::new(B.v4, A.v4, 17, udp(5, 6)).bytes()))
        }),
        at(from_a("a checksum in a fragment", a_to(B, &fragment)), L4 + 6)
            .dropped(A_NUMBER, DropReason::ChecksumMisplaced),
        // The port of a drop is not known before the destination is looked up.
        at(from_r("a checksum over a port, out of the tunnel", from_tunnel), L4 + 2)
            .dropped(0, DropReason::ChecksumMisplaced),
    ]
}
