//! Frames out of the tunnel.

use super::Vector;
use super::frame::{Ip, arp, ethernet, icmp, tcp, udp};
use super::world::{A, A_NUMBER, B, LOCAL_VTEP, R, VNI, VTEP, addr, connection, from_r};
use crate::{Addr, DropReason, Mac, Neigh, NeighKey, PortKey, Verdict, Vtep, VtepKey};

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = delivery_vectors();
    vectors.extend(address_vectors());
    vectors.extend(link_local_vectors());
    vectors.extend(underlay_vectors());
    vectors
}

fn delivery_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let datagram = || Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(A.mac, R.mac);
    let request = arp(1, (R.mac, R.v4), (Mac([0; 6]), A.v4));
    let solicitation = Ip {
        hop_limit: 255,
        ..Ip::new(R.v6, A.v6, 58, icmp(135, 0, [0; 4], &addr(A.v6).octets()))
    };
    let broadcast = Ip::new(R.v4, "10.0.0.255", 17, udp(2, 1));
    vec![
        from_r("udp from the same network reaches the port", datagram()).reaches_a(),
        from_r("tcp over ipv6 from the same network reaches the port", {
            Ip::new(R.v6, A.v6, 6, tcp(5, 22, 2)).frame(A.mac, R.mac)
        })
        .reaches_a(),
        from_r("an ipv6 vtep is known by its address", datagram())
            .with(|memory| {
                let key = VtepKey { vni: VNI, addr: addr("2001:db8::2") };
                memory.vteps.insert(key, Vtep::of_host(1, addr("2001:db8::1")));
                let neigh = Neigh::behind(addr("2001:db8::2"), R.mac);
                memory.neigh.insert(NeighKey { net: 1, addr: addr(R.v4) }, neigh);
            })
            .meta(|meta| (meta.vtep, meta.local) = (addr("2001:db8::2"), addr("2001:db8::1")))
            .reaches_a(),
        from_r("an unknown vtep", datagram())
            .meta(|meta| meta.vtep = addr("192.0.2.66"))
            .dropped(0, Why::UnknownVtep),
        from_r("a known vtep with a vni that it may not use", datagram())
            .meta(|meta| meta.vni = 101)
            .dropped(0, Why::UnknownVtep),
        from_r("a frame without tunnel metadata", datagram())
            .meta(|meta| meta.tunnelled = 0)
            .dropped(0, Why::NotTunnelled),
        from_r("a frame for a remote station never goes back", {
            Ip::new(R.v4, R.v4, 17, udp(2, 1)).frame(R.mac, R.mac)
        })
        .dropped(0, Why::TunnelToTunnel),
        from_r("a frame for an unknown station", {
            Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(Mac([2, 9, 9, 9, 9, 9]), R.mac)
        })
        .dropped(0, Why::UnknownDestination),
        from_r("a frame for a port without configuration", datagram())
            .with(|memory| {
                memory.ports.remove(&PortKey::untagged(1));
            })
            .dropped(0, Why::MissingLocalPort),
        from_r("arp out of the tunnel", ethernet(A.mac, R.mac, 0x0806, &request))
            .dropped(0, Why::NeighbourFromTunnel),
        from_r("neighbour solicitation out of the tunnel", solicitation.frame(A.mac, R.mac))
            .dropped(0, Why::NeighbourFromTunnel),
        from_r("broadcast out of the tunnel", broadcast.frame(Mac::BROADCAST, R.mac))
            .verdict(Verdict::Flood { net: 1, sender: 0 }),
        from_r("a broadcast with another's address out of the tunnel", {
            Ip::new(B.v4, "10.0.0.255", 17, udp(2, 1)).frame(Mac::BROADCAST, R.mac)
        })
        .dropped(0, Why::ForeignSource),
        from_r("vlan tag out of the tunnel", ethernet(A.mac, R.mac, 0x8100, &[0; 50]))
            .dropped(0, Why::VlanTagged),
        from_r("another ethertype out of the tunnel", ethernet(A.mac, R.mac, 0x88cc, &[0; 50]))
            .dropped(0, Why::UnknownEthertype),
        from_r("an opening packet from another network is denied", datagram())
            .with(|memory| {
                // Tables that contradict each other: the policy is the last line.
                if let Some(port) = memory.ports.get_mut(&PortKey::untagged(1)) {
                    port.net = 2;
                }
            })
            .dropped(A_NUMBER, Why::PolicyDenied),
    ]
}

/// The source is a station's own, whatever the sending host let pass; and the destination the
/// port's.
fn address_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let datagram = || Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(A.mac, R.mac);
    let datagram_v6 = || Ip::new(R.v6, A.v6, 17, udp(2, 1)).frame(A.mac, R.mac);
    // A VM of the other host asks for a checksum at an offset of its choice, within the source;
    // it is filled in behind that host's guard.
    let mut checksum = datagram();
    checksum[28..30].copy_from_slice(&[0, 2]); // B's 10.0.0.2
    let mut checksum_v6 = datagram_v6();
    checksum_v6[36..38].copy_from_slice(&[0, 2]); // B's fd00::2
    let mut checksum_mac = datagram();
    checksum_mac[10..12].copy_from_slice(&[0, 0xb]); // B's MAC
    vec![
        from_r("a checksum written over the inner source", checksum).dropped(0, Why::ForeignSource),
        from_r("a checksum written over the inner source, ipv6", checksum_v6)
            .dropped(0, Why::ForeignSource),
        from_r("a checksum written over the inner source mac", checksum_mac)
            .dropped(0, Why::ForeignSource),
        from_r("an answer with a checksum written over its source", {
            Ip::new(B.v4, A.v4, 6, tcp(80, 1000, 0x10)).frame(A.mac, R.mac)
        })
        .with(|memory| memory.put_connection(connection((A.v4, 1000), (B.v4, 80), 6)))
        .dropped(0, Why::ForeignSource),
        from_r("a source that is no station of the network", {
            Ip::new("10.0.0.99", A.v4, 17, udp(2, 1)).frame(A.mac, R.mac)
        })
        .dropped(0, Why::ForeignSource),
        from_r("a station of another network", datagram())
            .with(|memory| {
                let neigh = memory.neigh.remove(&NeighKey { net: 1, addr: addr(R.v4) });
                memory.neigh.insert(NeighKey { net: 2, addr: addr(R.v4) }, neigh.expect("R"));
            })
            .dropped(0, Why::ForeignSource),
        from_r("a destination that the port does not have", {
            Ip::new(R.v4, "10.0.0.77", 17, udp(2, 1)).frame(A.mac, R.mac)
        })
        .dropped(A_NUMBER, Why::ForeignDestination),
        from_r("a destination that the port does not have, ipv6", {
            Ip::new(R.v6, "fd00::77", 6, tcp(5, 22, 2)).frame(A.mac, R.mac)
        })
        .dropped(A_NUMBER, Why::ForeignDestination),
    ]
}

/// What a station sends from the link-local address of a MAC.
fn link_local_vectors() -> Vec<Vector> {
    vec![
        from_r("udp from the link local address of the station's mac reaches the port", {
            Ip::new("fe80::ff:fe00:f", A.v6, 17, udp(2, 1)).frame(A.mac, R.mac)
        })
        .reaches_a(),
        from_r("udp from the link local address of another mac does not", {
            Ip::new("fe80::ff:fe00:b", A.v6, 17, udp(2, 1)).frame(A.mac, R.mac)
        })
        .dropped(0, DropReason::ForeignSource),
    ]
}

/// Who sent the outer packet, and to which address.
fn underlay_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let datagram = || Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(A.mac, R.mac);
    // Another host of the same network.
    let other = "192.0.2.3";
    let known = |vector: Vector| {
        vector.with(|memory| {
            let key = VtepKey { vni: VNI, addr: addr(other) };
            memory.vteps.insert(key, Vtep::of_host(1, addr(LOCAL_VTEP)));
        })
    };
    let as_b = Ip::new(B.v4, A.v4, 17, udp(2, 1)).frame(A.mac, B.mac);
    let as_a = Ip::new(A.v4, A.v4, 17, udp(2, 1)).frame(A.mac, A.mac);
    vec![
        known(from_r("a known vtep speaks as a station of another host", datagram()))
            .meta(|meta| meta.vtep = addr(other))
            .dropped(0, Why::ForeignSource),
        from_r("a known vtep speaks as a station of this host", as_b)
            .dropped(0, Why::ForeignSource),
        from_r("a known vtep speaks as the receiver", as_a).dropped(0, Why::ForeignSource),
        from_r("an ipv6 source that holds a known ipv4 vtep", datagram())
            // What the programs make of it, since the two forms are one address to the maps.
            .meta(|meta| meta.vtep = Addr::UNSPECIFIED_V6)
            .dropped(0, Why::UnknownVtep),
        from_r("an outer broadcast", datagram())
            .meta(|meta| meta.local = addr("192.0.2.255"))
            .dropped(0, Why::NotForThisVtep),
        from_r("an outer multicast", datagram())
            .meta(|meta| meta.local = addr("239.1.1.1"))
            .dropped(0, Why::NotForThisVtep),
        from_r("another address of this host", datagram())
            .meta(|meta| meta.local = addr(VTEP))
            .dropped(0, Why::NotForThisVtep),
    ]
}
