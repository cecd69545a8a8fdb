//! Frames from a port: parsing, the spoof guard, destinations. And the port's egress hook.

use super::Vector;
use super::frame::{Ip, ethernet, icmp, tcp, udp};
use super::world::{
    A, A_NUMBER, B, B_NUMBER, C, R, Station, VNI, a_to, addr, connection, from_a, mirrored, now,
};
use crate::{Addr, CtState, DELIVERED_MARK, DropReason, Entry, Fdb, FdbKey, Mac, PortKey, Verdict};

const SYN: u8 = 2;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = frame_vectors();
    vectors.extend(guard_vectors());
    vectors.extend(destination_vectors());
    vectors.extend(unknown_mac_vectors());
    vectors.extend(foreign_vectors());
    vectors.extend(truncated_vectors());
    vectors.extend(egress_vectors());
    vectors
}

fn syn_v4() -> Ip {
    Ip::new(A.v4, B.v4, 6, tcp(1000, 80, SYN))
}

fn syn_v6() -> Ip {
    Ip::new(A.v6, B.v6, 6, tcp(1000, 80, SYN))
}

fn frame_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let mut tagged = vec![0x00, 0x05, 0x08, 0x00];
    tagged.extend(syn_v4().bytes());
    let mut options = syn_v4();
    options.extra = vec![7, 7, 4, 0, 0, 0, 0, 0];
    let mut padded = a_to(B, &syn_v4());
    padded.extend([0; 6]);
    let mut short_header = a_to(B, &syn_v4());
    short_header[14] = 0x44;
    let mut long_total = a_to(B, &syn_v4());
    long_total[17] = 200;
    let mut gso = a_to(B, &syn_v4());
    gso[16..18].copy_from_slice(&[0, 0]);
    let mut wrong_version = a_to(B, &syn_v4());
    wrong_version[14] = 0x65;
    let mut mapped = a_to(B, &syn_v6());
    mapped[22..38].copy_from_slice(&addr(A.v4).octets());
    let mut long_chain = syn_v6();
    long_chain.next = 60;
    long_chain.extra = [[60, 0, 1, 4, 0, 0, 0, 0]; 5].concat();
    long_chain.extra[32] = 6;
    let mut longest = syn_v6();
    longest.next = 60;
    longest.extra = [[60, 0, 1, 4, 0, 0, 0, 0]; 4].concat();
    longest.extra[24] = 6;
    let mut chain = syn_v6();
    chain.next = 0;
    chain.extra = vec![43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 4, 0, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    vec![
        from_a("frame on an interface without a port", a_to(B, &syn_v4()))
            .meta(|meta| meta.ifindex = 77)
            .dropped(0, Why::UnknownPort),
        from_a("vlan tag in the frame", ethernet(B.mac, A.mac, 0x8100, &tagged))
            .dropped(A_NUMBER, Why::VlanTagged),
        from_a("service vlan tag in the frame", ethernet(B.mac, A.mac, 0x88a8, &tagged))
            .dropped(A_NUMBER, Why::VlanTagged),
        from_a("vlan tag in the metadata", a_to(B, &syn_v4()))
            .meta(|meta| meta.vlan = 5)
            .dropped(A_NUMBER, Why::VlanTagged),
        from_a("neither arp nor ip", ethernet(B.mac, A.mac, 0x88cc, &[0; 46]))
            .dropped(A_NUMBER, Why::UnknownEthertype),
        from_a("ipv4 options are skipped", a_to(B, &options)).a_reaches_b(),
        from_a("ethernet padding is no payload", padded).a_reaches_b(),
        from_a("ipv4 total length of zero is a large gso frame", gso).a_reaches_b(),
        from_a("ipv6 extension headers are skipped", a_to(B, &chain)).a_reaches_b(),
        from_a("ipv6 with four extension headers", a_to(B, &longest)).a_reaches_b(),
        from_a("ipv6 with five extension headers", a_to(B, &long_chain))
            .dropped(A_NUMBER, Why::TooManyHeaders),
        from_a("ipv4 header shorter than itself", short_header).dropped(A_NUMBER, Why::Malformed),
        from_a("ipv4 longer than its frame", long_total).dropped(A_NUMBER, Why::Malformed),
        from_a("version six in an ipv4 frame", wrong_version).dropped(A_NUMBER, Why::Malformed),
        from_a("mapped address in an ipv6 header", mapped).dropped(A_NUMBER, Why::Malformed),
    ]
}

fn guard_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let mdns = Ip::new("fe80::ff:fe00:a", "ff02::fb", 17, udp(5353, 5353));
    let dhcp = Ip::new("0.0.0.0", "255.255.255.255", 17, udp(68, 67));
    let broadcast = Ip::new(A.v4, "10.0.0.255", 17, udp(137, 137));
    let multicast = Ip::new(A.v4, "224.0.0.251", 17, udp(5353, 5353));
    let group = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
    let flooded =
        |vector: Vector| vector.sent(A_NUMBER).verdict(Verdict::Flood { net: 1, sender: A_NUMBER });
    vec![
        from_a("another's source mac is spoofed", syn_v4().frame(R.mac, B.mac))
            .dropped(A_NUMBER, Why::SpoofedMac),
        from_a("another's ipv4 address is spoofed", {
            a_to(R, &Ip::new(B.v4, R.v4, 17, udp(1, 2)))
        })
        .dropped(A_NUMBER, Why::SpoofedAddress),
        from_a("another's ipv6 address is spoofed", {
            a_to(R, &Ip::new(B.v6, R.v6, 17, udp(1, 2)))
        })
        .dropped(A_NUMBER, Why::SpoofedAddress),
        from_a("own link local address is for neighbour discovery only", {
            mdns.frame(Mac([0x33, 0x33, 0, 0, 0, 0xfb]), A.mac)
        })
        .dropped(A_NUMBER, Why::LinkLocal),
        from_a("dhcp request has its own reason", dhcp.frame(Mac::BROADCAST, A.mac))
            .dropped(A_NUMBER, Why::Dhcp),
        flooded(from_a("broadcast is flooded", broadcast.frame(Mac::BROADCAST, A.mac))),
        flooded(from_a("multicast is flooded", multicast.frame(group, A.mac))),
        from_a("a port that plays dhcp server in a closed network", {
            a_to(B, &Ip::new(A.v4, B.v4, 17, udp(67, 68)))
        })
        .dropped(A_NUMBER, Why::RogueDhcp),
    ]
}

/// Frames to a MAC that the network does not have, and then to an address that it may have.
fn unknown_mac_vectors() -> Vec<Vector> {
    use DropReason as Why;
    const FORMER: Mac = Mac([2, 0, 0, 0, 0, 0xd]);
    let passed_on = |name, owner: Station, packet: Ip| {
        let mut vector = from_a(name, packet.frame(FORMER, A.mac));
        vector.frame_after = Some(a_to(owner, &packet));
        vector
    };
    let stranger = Ip::new(A.v4, "10.0.0.77", 17, udp(1, 2));
    vec![
        passed_on("an address has passed to a local port", B, syn_v4()).a_reaches_b(),
        passed_on("and to one over ipv6", B, syn_v6()).a_reaches_b(),
        passed_on("an address has passed to a remote station", R, {
            Ip::new(A.v4, R.v4, 17, udp(1, 2))
        })
        .a_reaches_r(),
        passed_on("and to one over ipv6, remote", R, Ip::new(A.v6, R.v6, 17, udp(1, 2)))
            .a_reaches_r(),
        passed_on(
            "an address has passed to the sender itself",
            A,
            Ip::new(A.v4, A.v4, 17, udp(1, 2)),
        )
        .dropped(A_NUMBER, Why::Hairpin),
        passed_on("an address is known, its station is not yet", R, {
            Ip::new(A.v4, R.v4, 17, udp(1, 2))
        })
        .with(|memory| {
            memory.fdb.remove(&FdbKey::new(1, R.mac));
        })
        .dropped(A_NUMBER, Why::UnknownDestination),
        from_a("neither mac nor address is known", stranger.frame(FORMER, A.mac))
            .dropped(A_NUMBER, Why::UnknownDestination),
        from_a("a station of another network is unknown", a_to(C, &stranger))
            .dropped(A_NUMBER, Why::UnknownDestination),
    ]
}

/// A port's budget is not for connections to addresses that it does not have.
fn foreign_vectors() -> Vec<Vector> {
    let opened = |remote| now(connection((A.v4, 1), (remote, 2), 17), CtState::Opening);
    let refused = |name, remote| {
        from_a(name, a_to(B, &Ip::new(A.v4, remote, 17, udp(1, 2))))
            .sent(A_NUMBER)
            .leaves(&[opened(remote)])
            .dropped(B_NUMBER, DropReason::ForeignDestination)
    };
    vec![
        refused("a local port does not get what is for a remote one", R.v4),
        refused("nor what is for nobody", "10.0.0.77"),
        refused("nor a group's", "224.0.0.251"),
        from_a("both ports of a new flow have an entry of it", {
            a_to(B, &Ip::new(A.v4, B.v4, 17, udp(1, 2)))
        })
        .leaves(&[opened(B.v4), mirrored(opened(B.v4))])
        .a_reaches_b(),
    ]
}

fn destination_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let v6_vtep = "2001:db8::2";
    vec![
        from_a("new tcp connection to a local port", a_to(B, &syn_v4())).a_reaches_b(),
        from_a("new tcp connection to a local port over ipv6", a_to(B, &syn_v6())).a_reaches_b(),
        from_a("new udp flow to a remote station", {
            a_to(R, &Ip::new(A.v4, R.v4, 17, udp(1, 2)))
        })
        .a_reaches_r(),
        from_a("echo request to a remote station over ipv6", {
            a_to(R, &Ip::new(A.v6, R.v6, 58, icmp(128, 0, [0, 7, 0, 1], &[0; 8])))
        })
        .a_reaches_r(),
        from_a("a remote station behind an ipv6 vtep, from any address of ours", {
            a_to(R, &Ip::new(A.v4, R.v4, 17, udp(1, 2)))
        })
        .with(|memory| {
            memory.fdb.insert(FdbKey::new(1, R.mac), Fdb::remote(VNI, addr(v6_vtep)));
        })
        .sent(A_NUMBER)
        .verdict(Verdict::Tunnel {
            vni: VNI,
            vtep: addr(v6_vtep),
            local: Addr::UNSPECIFIED_V6,
        }),
        from_a("other protocols are tracked by address", {
            a_to(B, &Ip::new(A.v4, B.v4, 132, vec![0; 12]))
        })
        .a_reaches_b(),
        from_a("a frame to oneself", a_to(A, &syn_v4())).dropped(A_NUMBER, Why::Hairpin),
        from_a("the local port has no configuration", a_to(B, &syn_v4()))
            .with(|memory| {
                memory.ports.remove(&PortKey::untagged(2));
            })
            .dropped(A_NUMBER, Why::MissingLocalPort),
        from_a("no tunnel device", a_to(R, &Ip::new(A.v4, R.v4, 17, udp(1, 2))))
            .with(|memory| memory.config.tunnel_ifindex = 0)
            .dropped(A_NUMBER, Why::NoTunnelDevice),
        from_a("icmp timestamp request is unsupported", {
            a_to(B, &Ip::new(A.v4, B.v4, 1, icmp(13, 0, [0; 4], &[0; 12])))
        })
        .dropped(A_NUMBER, Why::UnsupportedIcmp),
        from_a("icmpv6 inside ipv4 is unsupported", {
            a_to(B, &Ip::new(A.v4, B.v4, 58, icmp(135, 0, [0; 4], &[0; 24])))
        })
        .dropped(A_NUMBER, Why::UnsupportedIcmp),
    ]
}

/// The frame cut at the boundary of each header, and within.
fn truncated_vectors() -> Vec<Vector> {
    let v4 = a_to(B, &syn_v4());
    let v6 = a_to(B, &syn_v6());
    let datagram = a_to(B, &Ip::new(A.v4, B.v4, 17, udp(1, 2)));
    let echo = a_to(B, &Ip::new(A.v4, B.v4, 1, icmp(8, 0, [0, 1, 0, 1], &[])));
    let mut bad_udp = datagram.clone();
    bad_udp[17] = 27; // the total length ends within the UDP header
    let cut = |name, frame: &[u8], length: usize| {
        from_a(name, frame[..length].to_vec()).dropped(A_NUMBER, DropReason::Malformed)
    };
    vec![
        cut("cut after ethernet, ipv4", &v4, 14),
        cut("cut within the ipv4 header", &v4, 33),
        cut("cut after the ipv4 header", &v4, 34),
        cut("cut within the tcp header", &v4, 53),
        cut("cut after ethernet, ipv6", &v6, 14),
        cut("cut within the ipv6 header", &v6, 53),
        cut("cut after the ipv6 header", &v6, 54),
        cut("cut within the udp header", &datagram, 41),
        cut("cut within the icmp header", &echo, 41),
        from_a("packet ends within the udp header", bad_udp)
            .dropped(A_NUMBER, DropReason::Malformed),
    ]
}

fn egress_vectors() -> Vec<Vector> {
    let to_a = |name| {
        let mut vector = from_a(name, Ip::new(B.v4, A.v4, 17, udp(1, 2)).frame(A.mac, B.mac));
        vector.entry = Entry::ToPort;
        vector
    };
    vec![
        to_a("delivered frame passes to the port")
            .meta(|meta| meta.mark = DELIVERED_MARK)
            .verdict(Verdict::Pass),
        to_a("the host's own frame does not").dropped(A_NUMBER, DropReason::HostToPort),
        to_a("nor on a port without configuration")
            .meta(|meta| meta.ifindex = 77)
            .dropped(0, DropReason::HostToPort),
    ]
}
