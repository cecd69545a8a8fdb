//! Prefixes that stations route for: A has some, and R.

use super::Vector;
use super::frame::{Ip, arp, ethernet, icmp, udp, with_icmpv6_checksum};
use super::world::{
    A, A_NUMBER, B, B_NUMBER, MTU, R, Station, VNI, VTEP, a_to, addr, connection, from_a, from_r,
    mirrored, now,
};
use crate::{Behind, CtState, DropReason, Mac, NeighKey, Net, PortKey, PrefixKey, Vtep, VtepKey};

/// In the prefix of A, and in that of R.
const BEHIND_A: &str = "192.168.77.5";
const BEHIND_R: &str = "192.168.88.5";
const BEHIND_A_V6: &str = "fd77::5";
const BEHIND_R_V6: &str = "fd88::5";

/// A routes for two prefixes, R for two others.
fn routing(vector: Vector) -> Vector {
    let mut vector = vector;
    for (prefix, bits) in [("192.168.77.0", 24), ("fd77::", 64)] {
        vector = owned(vector, prefix, bits, Behind::local(A.mac, MTU));
    }
    for (prefix, bits) in [("192.168.88.0", 24), ("fd88::", 64)] {
        vector = owned(vector, prefix, bits, Behind::remote(R.mac, addr(VTEP)));
    }
    vector
}

fn owned(vector: Vector, prefix: &str, bits: u8, behind: Behind) -> Vector {
    vector.with(|memory| {
        memory.behind.insert(PrefixKey::new(1, addr(prefix), bits), behind);
    })
}

fn a_from(source: &str, to: &str) -> Vec<u8> {
    a_to(B, &Ip::new(source, to, 17, udp(1000, 53)))
}

fn r_from(source: &str, to: &str, mac: Mac) -> Vec<u8> {
    Ip::new(source, to, 17, udp(1000, 53)).frame(A.mac, mac)
}

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = sent_vectors();
    vectors.extend(refused_vectors());
    vectors.extend(longest_vectors());
    vectors.extend(received_vectors());
    vectors.extend(tunnel_vectors());
    vectors.extend(asking_vectors());
    vectors.extend(stale_vectors());
    vectors
}

/// A port asks for the MACs of its neighbours as what it may send from.
fn asking_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let asks = |name, sender: &str| {
        let packet = arp(1, (A.mac, sender), (Mac([0; 6]), B.v4));
        from_a(name, ethernet(Mac::BROADCAST, A.mac, 0x0806, &packet))
    };
    let reply = |to: &str| ethernet(A.mac, B.mac, 0x0806, &arp(2, (B.mac, B.v4), (A.mac, to)));
    let solicits = |name, source: &str| {
        let mut rest = addr(B.v6).octets().to_vec();
        rest.extend([1, 1]);
        rest.extend(A.mac.0);
        let message = with_icmpv6_checksum(source, B.v6, icmp(135, 0, [0; 4], &rest));
        from_a(
            name,
            Ip { hop_limit: 255, ..Ip::new(source, B.v6, 58, message) }.frame(B.mac, A.mac),
        )
    };
    let advertisement = |to: &str| {
        let mut rest = addr(B.v6).octets().to_vec();
        rest.extend([2, 1]);
        rest.extend(B.mac.0);
        let message = with_icmpv6_checksum(B.v6, to, icmp(136, 0, [0x60, 0, 0, 0], &rest));
        Ip { hop_limit: 255, ..Ip::new(B.v6, to, 58, message) }.frame(A.mac, B.mac)
    };
    let everywhere = |vector, prefix| owned(vector, prefix, 0, Behind::local(A.mac, MTU));
    let physical = |vector: Vector| {
        vector.with(|memory| {
            memory
                .nets
                .insert(1, Net::open().behind(PortKey::tagged(7, 5), Mac([2, 0, 0, 0, 0, 0xee])));
        })
    };
    vec![
        routing(asks("asks by arp as an address in its prefix", BEHIND_A))
            .reflected(reply(BEHIND_A)),
        everywhere(asks("asks by arp as an address from anywhere", "8.8.8.8"), "0.0.0.0")
            .reflected(reply("8.8.8.8")),
        routing(asks("asks by arp as an address in another's prefix", BEHIND_R))
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        everywhere(asks("asks by arp as a station, from anywhere", R.v4), "0.0.0.0")
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        everywhere(
            asks("asks by arp as an address of its link, from anywhere", "169.254.0.1"),
            "0.0.0.0",
        )
        .dropped(A_NUMBER, Why::SpoofedArpAddress),
        owned(
            asks("asks by arp as an address in a prefix of another port", BEHIND_A),
            "192.168.77.0",
            24,
            Behind::local(B.mac, MTU),
        )
        .dropped(A_NUMBER, Why::SpoofedArpAddress),
        owned(
            asks("asks by arp as an address in a prefix of its mac elsewhere", BEHIND_A),
            "192.168.77.0",
            24,
            Behind::remote(A.mac, addr(VTEP)),
        )
        .dropped(A_NUMBER, Why::SpoofedArpAddress),
        physical(routing(asks("asks a physical network as an address in its prefix", BEHIND_A)))
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        routing(solicits("solicits as an address in its prefix", BEHIND_A_V6))
            .reflected(advertisement(BEHIND_A_V6)),
        routing(solicits("solicits as an address in another's prefix", BEHIND_R_V6))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        everywhere(solicits("solicits as a station, from anywhere", R.v6), "::")
            .dropped(A_NUMBER, Why::SpoofedAddress),
        physical(routing(solicits("solicits in a physical network from its prefix", BEHIND_A_V6)))
            .dropped(A_NUMBER, Why::SpoofedAddress),
    ]
}

/// Frames to a MAC that the network does not have any more, to an address in a prefix.
fn stale_vectors() -> Vec<Vector> {
    use DropReason as Why;
    const FORMER: Mac = Mac([2, 0, 0, 0, 0, 0xd]);
    let passed_on = |name, owner: Station, to: &str| {
        let source = if addr(to).is_v4() { A.v4 } else { A.v6 };
        let packet = Ip::new(source, to, 17, udp(1000, 53));
        let mut vector = routing(from_a(name, packet.frame(FORMER, A.mac)));
        vector.frame_after = Some(a_to(owner, &packet));
        vector
    };
    let behind_b = |vector| owned(vector, "192.168.99.0", 24, Behind::local(B.mac, MTU));
    let beside = Ip::new(A.v4, "192.168.99.9", 17, udp(1, 2));
    vec![
        behind_b(passed_on("a prefix has passed to a local port", B, "192.168.99.9")).a_reaches_b(),
        passed_on("a prefix has passed to a remote station", R, BEHIND_R).a_reaches_r(),
        passed_on("and an ipv6 one", R, BEHIND_R_V6).a_reaches_r(),
        passed_on("a prefix has passed to the sender itself", A, BEHIND_A)
            .dropped(A_NUMBER, Why::Hairpin),
        routing(from_a("to a mac of nobody and an address in no prefix", {
            beside.frame(FORMER, A.mac)
        }))
        .dropped(A_NUMBER, Why::UnknownDestination),
    ]
}

fn sent_vectors() -> Vec<Vector> {
    let established = now(connection((BEHIND_A, 1000), (B.v4, 53), 17), CtState::Opening);
    let gone = "2001:db8::9";
    vec![
        routing(from_a("from a prefix of the port", a_from(BEHIND_A, B.v4)))
            .a_reaches_b()
            .leaves(&[established, mirrored(established)]),
        routing(from_a("from an ipv6 prefix of the port", a_from(BEHIND_A_V6, B.v6))).a_reaches_b(),
        routing(from_a("from the port itself, which has prefixes", a_from(A.v4, B.v4)))
            .a_reaches_b(),
        routing(from_a("from a prefix of the port into the tunnel", {
            a_to(R, &Ip::new(BEHIND_A, R.v4, 17, udp(1000, 53)))
        }))
        .a_reaches_r(),
        routing(from_a("from one prefix to another", {
            a_to(R, &Ip::new(BEHIND_A, BEHIND_R, 17, udp(1000, 53)))
        }))
        .a_reaches_r(),
        owned(
            from_a("from anywhere", a_to(B, &Ip::new(gone, B.v6, 17, udp(1000, 53)))),
            "::",
            0,
            Behind::local(A.mac, MTU),
        )
        .a_reaches_b(),
    ]
}

fn refused_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let anywhere = |name, source: &str, to: &str| {
        let vector = from_a(name, a_from(source, to));
        let prefix = if addr(source).is_v4() { "0.0.0.0" } else { "::" };
        owned(vector, prefix, 0, Behind::local(A.mac, MTU)).dropped(A_NUMBER, Why::SpoofedAddress)
    };
    let asked = arp(1, (A.mac, A.v4), (Mac([0; 6]), BEHIND_R));
    vec![
        routing(from_a("from beside a prefix", a_from("192.168.76.255", B.v4)))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        routing(from_a("from beside an ipv6 prefix", a_from("fd77:0:0:1::5", B.v6)))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        routing(from_a("from the prefix of another station", a_from(BEHIND_R, B.v4)))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        from_a("from a prefix that the port had in another network", a_from(BEHIND_A, B.v4))
            .with(|memory| {
                let key = PrefixKey::new(2, addr("192.168.77.0"), 24);
                memory.behind.insert(key, Behind::local(A.mac, MTU));
            })
            .dropped(A_NUMBER, Why::SpoofedAddress),
        routing(from_a("from a prefix with the mac of nobody", {
            Ip::new(BEHIND_A, B.v4, 17, udp(1, 2)).frame(B.mac, Mac([2, 0, 0, 0, 0, 0x99]))
        }))
        .dropped(A_NUMBER, Why::SpoofedMac),
        anywhere("from anywhere as a station here", B.v4, A.v4),
        anywhere("from anywhere as a station elsewhere", R.v4, B.v4),
        anywhere("from anywhere as an ipv6 station", R.v6, B.v6),
        anywhere("from anywhere as many", "224.0.0.5", B.v4),
        anywhere("from anywhere as all", "255.255.255.255", B.v4),
        anywhere("from anywhere as a loopback", "127.0.0.1", B.v4),
        anywhere("from anywhere as nobody", "0.0.0.0", B.v4),
        anywhere("from anywhere as an ipv6 loopback", "::1", B.v6),
        anywhere("from anywhere as another link local address", "fe80::ff:fe00:b", B.v6),
        owned(
            from_a("from an ipv4 address within the prefix of all ipv6", a_from(BEHIND_A, B.v4)),
            "::",
            0,
            Behind::local(A.mac, MTU),
        )
        .dropped(A_NUMBER, Why::SpoofedAddress),
        routing(from_a("asks by arp for an address in a prefix", {
            ethernet(Mac::BROADCAST, A.mac, 0x0806, &asked)
        }))
        .dropped(A_NUMBER, Why::UnknownNeighbour),
    ]
}

/// Of two prefixes the longer one counts.
fn longest_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let within = |vector| owned(routing(vector), "192.168.77.0", 28, Behind::local(B.mac, MTU));
    let around = |vector| owned(routing(vector), "192.168.0.0", 16, Behind::local(B.mac, MTU));
    vec![
        within(from_a("from what is another station's within a prefix", a_from(BEHIND_A, B.v4)))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        within(from_a("from the rest of a prefix", a_from("192.168.77.16", B.v4))).a_reaches_b(),
        around(from_a("from a prefix within one of another station", a_from(BEHIND_A, B.v4)))
            .a_reaches_b(),
    ]
}

/// What goes to a prefix reaches the station that routes for it, and no other.
fn received_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let to = |to: &str| a_to(B, &Ip::new(A.v4, to, 17, udp(1000, 53)));
    let to_prefix = Ip::new(A.v4, "192.168.99.9", 1, icmp(8, 0, [0, 1, 0, 1], &[0; 8]));
    let has_b = |vector| owned(routing(vector), "192.168.99.0", 24, Behind::local(B.mac, MTU));
    vec![
        has_b(from_a("into a prefix of the receiver", a_to(B, &to_prefix))).a_reaches_b(),
        has_b(from_a("into the prefix of another than the receiver", to(BEHIND_R)))
            .sent(A_NUMBER)
            .dropped(B_NUMBER, Why::ForeignDestination)
            .leaves(&[now(connection((A.v4, 1000), (BEHIND_R, 53), 17), CtState::Opening)]),
        has_b(from_a("into a prefix of the receiver, as another station's address", {
            to("192.168.99.9")
        }))
        .with(|memory| {
            let neigh = memory.neigh[&NeighKey { net: 1, addr: addr(R.v4) }];
            memory.neigh.insert(NeighKey { net: 1, addr: addr("192.168.99.9") }, neigh);
        })
        .sent(A_NUMBER)
        .dropped(B_NUMBER, Why::ForeignDestination)
        .leaves(&[now(connection((A.v4, 1000), ("192.168.99.9", 53), 17), CtState::Opening)]),
    ]
}

fn tunnel_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let other = "192.0.2.3";
    let router = Mac([2, 0, 0, 0, 0, 0xf]);
    vec![
        routing(from_r("out of the tunnel from a prefix", r_from(BEHIND_R, A.v4, R.mac)))
            .reaches_a(),
        routing(from_r("out of the tunnel from an ipv6 prefix", r_from(BEHIND_R_V6, A.v6, R.mac)))
            .reaches_a(),
        routing(from_r("out of the tunnel from one prefix to another", {
            r_from(BEHIND_R, BEHIND_A, R.mac)
        }))
        .reaches_a(),
        routing(from_r("out of the tunnel from beside a prefix", {
            r_from("192.168.89.1", A.v4, R.mac)
        }))
        .dropped(0, Why::ForeignSource),
        routing(from_r("out of the tunnel from a prefix of ours", {
            r_from(BEHIND_A, A.v4, R.mac)
        }))
        .dropped(0, Why::ForeignSource),
        routing(from_r("out of the tunnel from a prefix with our mac", {
            r_from(BEHIND_A, A.v4, A.mac)
        }))
        .dropped(0, Why::ForeignSource),
        routing(from_r("from a prefix out of the tunnel of another vtep", {
            r_from(BEHIND_R, A.v4, R.mac)
        }))
        .with(|memory| {
            let vtep = Vtep::of_host(1, addr(super::world::LOCAL_VTEP));
            memory.vteps.insert(VtepKey { vni: VNI, addr: addr(other) }, vtep);
        })
        .meta(|meta| meta.vtep = addr(other))
        .dropped(0, Why::ForeignSource),
        routing(from_r("a stranger of an open network in a prefix", {
            r_from(BEHIND_A, A.v4, Mac([2, 0, 0, 0, 0, 0x99]))
        }))
        .with(|memory| {
            memory.nets.insert(1, Net::open());
        })
        .dropped(0, Why::ForeignSource),
        routing(from_r("a router in the prefix of a station", r_from(BEHIND_A, A.v4, router)))
            .with(|memory| {
                memory.nets.insert(1, Net::closed().routed(7, router));
            })
            .dropped(0, Why::ForeignSource),
    ]
}
