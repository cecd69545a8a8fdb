//! ARP and neighbour discovery from a port.

use super::Vector;
use super::frame::{Ip, arp, ethernet, icmp, with_icmpv6_checksum};
use super::world::{A, A_NUMBER, B, R, Station, addr, from_a};
use crate::{DropReason, Mac};

const NONE: Mac = Mac([0; 6]);
/// `ff02::1:ff00:2`, the solicited-node group of `fd00::2`.
const SOLICITED: &str = "ff02::1:ff00:2";
const SOLICITED_MAC: Mac = Mac([0x33, 0x33, 0xff, 0, 0, 2]);
const A_LINK_LOCAL: &str = "fe80::ff:fe00:a";
const R_LINK_LOCAL: &str = "fe80::ff:fe00:f";

fn arp_from_a(name: &'static str, operation: u16, sender: (Mac, &str), target: &str) -> Vector {
    let packet = arp(operation, sender, (NONE, target));
    from_a(name, ethernet(Mac::BROADCAST, A.mac, 0x0806, &packet))
}

fn solicitation(source: &str, target: &str, to: (&str, Mac), option: &[u8]) -> Vec<u8> {
    let mut rest = addr(target).octets().to_vec();
    rest.extend(option);
    let message = with_icmpv6_checksum(source, to.0, icmp(135, 0, [0; 4], &rest));
    Ip { hop_limit: 255, ..Ip::new(source, to.0, 58, message) }.frame(to.1, A.mac)
}

fn advertisement(owner: Station, target: &str, to: &str, option: bool) -> Vec<u8> {
    let mut rest = addr(target).octets().to_vec();
    if option {
        rest.extend([2, 1]);
        rest.extend(owner.mac.0);
    }
    let message = with_icmpv6_checksum(target, to, icmp(136, 0, [0x60, 0, 0, 0], &rest));
    Ip { hop_limit: 255, ..Ip::new(target, to, 58, message) }.frame(A.mac, owner.mac)
}

fn icmpv6_from_a(name: &'static str, kind: u8, hop_limit: u8) -> Vector {
    let message = icmp(kind, 0, [0; 4], &[0; 24]);
    let packet = Ip { hop_limit, ..Ip::new(A_LINK_LOCAL, "ff02::2", 58, message) };
    from_a(name, packet.frame(Mac([0x33, 0x33, 0, 0, 0, 2]), A.mac))
}

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = arp_vectors();
    vectors.extend(solicitation_vectors());
    vectors.extend(signalling_vectors());
    vectors
}

fn arp_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let reply = |owner: Station| {
        let packet = arp(2, (owner.mac, owner.v4), (A.mac, A.v4));
        ethernet(A.mac, owner.mac, 0x0806, &packet)
    };
    let mut padded = ethernet(Mac::BROADCAST, A.mac, 0x0806, &arp(1, (A.mac, A.v4), (NONE, B.v4)));
    padded.extend([0; 18]);
    let mut padded_reply = reply(B);
    padded_reply.extend([0; 18]);
    let mut token_ring = arp(1, (A.mac, A.v4), (NONE, B.v4));
    token_ring[1] = 6;
    let own = (A.mac, A.v4);
    vec![
        arp_from_a("arp request for a local port is answered", 1, own, B.v4).reflected(reply(B)),
        arp_from_a("arp request for a remote station is answered", 1, own, R.v4)
            .reflected(reply(R)),
        from_a("arp request with padding keeps its length", padded).reflected(padded_reply),
        arp_from_a("arp request for an unknown address is not answered", 1, own, "10.0.0.77")
            .dropped(A_NUMBER, Why::UnknownNeighbour),
        arp_from_a("arp probe for another's address is not answered", 1, (A.mac, "0.0.0.0"), B.v4)
            .dropped(A_NUMBER, Why::ArpProbe),
        arp_from_a("arp announcement of the own address ends here", 1, own, A.v4)
            .dropped(A_NUMBER, Why::GratuitousArp),
        arp_from_a("arp with another's sender mac is spoofed", 1, (B.mac, A.v4), B.v4)
            .dropped(A_NUMBER, Why::SpoofedArpMac),
        arp_from_a("arp with another's sender address is spoofed", 1, (A.mac, B.v4), R.v4)
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        arp_from_a("arp announcement of another's address is spoofed", 1, (A.mac, B.v4), B.v4)
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        arp_from_a("arp reply from a port ends here", 2, own, B.v4)
            .dropped(A_NUMBER, Why::UnsolicitedArpReply),
        arp_from_a("arp with an unknown operation is malformed", 3, own, B.v4)
            .dropped(A_NUMBER, Why::Malformed),
        from_a("arp for other hardware is malformed", {
            ethernet(Mac::BROADCAST, A.mac, 0x0806, &token_ring)
        })
        .dropped(A_NUMBER, Why::Malformed),
        from_a("arp cut short is malformed", {
            let packet = arp(1, own, (NONE, B.v4));
            ethernet(Mac::BROADCAST, A.mac, 0x0806, &packet[..27])
        })
        .dropped(A_NUMBER, Why::Malformed),
    ]
}

fn solicitation_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let group = (SOLICITED, SOLICITED_MAC);
    let unicast = (B.v6, B.mac);
    let option = [1, 1, 2, 0, 0, 0, 0, 0xa];
    let mut fragmented = solicitation(A.v6, B.v6, group, &option);
    fragmented[21] = 64; // the hop limit of a packet that has been routed
    vec![
        from_a(
            "neighbour solicitation to the group is answered",
            solicitation(A.v6, B.v6, group, &option),
        )
        .reflected(advertisement(B, B.v6, A.v6, true)),
        from_a(
            "neighbour solicitation from the link local address is answered",
            solicitation(A_LINK_LOCAL, B.v6, group, &option),
        )
        .reflected(advertisement(B, B.v6, A_LINK_LOCAL, true)),
        from_a(
            "unicast solicitation without option is answered without",
            solicitation(A.v6, B.v6, unicast, &[]),
        )
        .reflected(advertisement(B, B.v6, A.v6, false)),
        from_a(
            "group solicitation without option is malformed",
            solicitation(A.v6, B.v6, group, &[]),
        )
        .dropped(A_NUMBER, Why::Malformed),
        from_a(
            "solicitation for an unknown address is not answered",
            solicitation(A.v6, "fd00::77", group, &option),
        )
        .dropped(A_NUMBER, Why::UnknownNeighbour),
        from_a("dad probe is not answered", solicitation("::", B.v6, group, &[]))
            .dropped(A_NUMBER, Why::NdProbe),
        from_a(
            "solicitation for the link local address of a station is answered",
            solicitation(A_LINK_LOCAL, R_LINK_LOCAL, ("ff02::1:ff00:f", SOLICITED_MAC), &option),
        )
        .reflected(advertisement(R, R_LINK_LOCAL, A_LINK_LOCAL, true)),
        from_a(
            "solicitation for the link local address of nobody is not answered",
            solicitation(
                A_LINK_LOCAL,
                "fe80::ff:fe00:77",
                ("ff02::1:ff00:77", SOLICITED_MAC),
                &option,
            ),
        )
        .dropped(A_NUMBER, Why::UnknownNeighbour),
        from_a(
            "solicitation from a link local address that the station has chosen is answered",
            solicitation("fe80::1234:5678:9abc:def0", B.v6, group, &option),
        )
        .reflected(advertisement(B, B.v6, "fe80::1234:5678:9abc:def0", true)),
        from_a(
            "solicitation with another's address is spoofed",
            solicitation(B.v6, R.v6, group, &option),
        )
        .dropped(A_NUMBER, Why::SpoofedAddress),
        from_a("solicitation from beyond the link is malformed", fragmented)
            .dropped(A_NUMBER, Why::Malformed),
    ]
}

fn signalling_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let mut report = icmp(143, 0, [0, 0, 0, 1], &[4, 0, 0, 0]);
    report.extend(addr(SOLICITED).octets());
    let mld = Ip {
        extra: vec![58, 0, 5, 2, 0, 0, 1, 0],
        next: 0,
        hop_limit: 1,
        ..Ip::new("::", "ff02::16", 58, report)
    };
    vec![
        icmpv6_from_a("neighbour advertisement from a port ends here", 136, 255)
            .dropped(A_NUMBER, Why::UnsolicitedNeighbourAdvertisement),
        icmpv6_from_a("router solicitation ends here", 133, 255)
            .dropped(A_NUMBER, Why::RouterSolicitation),
        icmpv6_from_a("router advertisement from a port is rogue", 134, 255)
            .dropped(A_NUMBER, Why::RogueRouter),
        icmpv6_from_a("redirect from a port is rogue", 137, 255)
            .dropped(A_NUMBER, Why::RogueRouter),
        from_a(
            "multicast listener report behind hop by hop options ends here",
            mld.frame(Mac([0x33, 0x33, 0, 0, 0, 0x16]), A.mac),
        )
        .dropped(A_NUMBER, Why::MulticastListener),
    ]
}
