//! A physical network: network 1, behind interface 7 in VLAN 5, where the host has a MAC, too.

use super::frame::{Ip, arp, ethernet, icmp, tcp, udp};
use super::world::{
    A, A_IFINDEX, A_NUMBER, B, B_IFINDEX, B_NUMBER, NOW, R, VTEP, addr, from_a, from_r,
};
use super::{Memory, Vector};
use crate::{
    Addr, AddrKey, Budget, COUNTER_PLACES, DropReason, Entry, FLOODS_PER_NET, FLOODS_PER_PORT,
    FdbKey, Mac, Neigh, NeighKey, Net, PortKey, Source, Verdict, Via, Wire,
};

/// The uplink, and the host's MAC there.
const UPLINK: PortKey = PortKey::tagged(7, 5);
const HOST: Mac = Mac([2, 0, 0, 0, 1, 1]);
/// A machine on the wire, and its address.
const M: Mac = Mac([2, 0, 0, 0, 2, 2]);
const M_V4: &str = "10.0.0.200";
const M_V6: &str = "fd00::200";
const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const NOBODY: Mac = Mac([0; 6]);

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = unicast_vectors();
    vectors.extend(flood_vectors());
    vectors.extend(arp_vectors());
    vectors.extend(nd_vectors());
    vectors.extend(dhcp_vectors());
    vectors.extend(wire_vectors());
    vectors.extend(wire_group_vectors());
    vectors
}

fn rewire(memory: &mut Memory) {
    memory.nets.insert(1, Net::open().behind(UPLINK, HOST));
    memory.wires.insert(UPLINK, Wire { net: 1 });
    memory.fdb.remove(&FdbKey::new(1, R.mac));
    for text in [R.v4, R.v6] {
        memory.neigh.remove(&NeighKey { net: 1, addr: addr(text) });
    }
    for (station, number) in [(A, A_NUMBER), (B, B_NUMBER)] {
        let addr = Addr::link_local(station.mac);
        memory.addrs.insert(AddrKey { port: number, addr }, Source::default());
        memory.neigh.insert(NeighKey { net: 1, addr }, Neigh::local(station.mac));
    }
}

/// A frame of port A.
fn sends(name: &'static str, frame: Vec<u8>) -> Vector {
    from_a(name, frame).with(rewire)
}

/// A frame that comes in by the uplink.
fn comes(name: &'static str, frame: Vec<u8>) -> Vector {
    let mut vector = sends(name, frame);
    vector.entry = Entry::FromUplink;
    vector.meta(|meta| (meta.ifindex, meta.vlan) = (UPLINK.ifindex, UPLINK.vlan))
}

/// The same, sent by the host itself.
fn leaves(name: &'static str, frame: Vec<u8>) -> Vector {
    let mut vector = comes(name, frame);
    vector.entry = Entry::ToUplink;
    vector
}

impl Vector {
    fn uplink(self) -> Vector {
        let (ifindex, vlan) = (UPLINK.ifindex, UPLINK.vlan);
        self.sent(A_NUMBER).verdict(Verdict::Uplink { ifindex, vlan })
    }

    fn flooded(self) -> Vector {
        self.sent(A_NUMBER).verdict(Verdict::Flood { net: 1, sender: A_NUMBER })
    }

    /// It is for nobody here, for this reason, and goes on.
    fn passed(mut self, reason: DropReason) -> Vector {
        self.answered = Some(reason);
        self.verdict(Verdict::Pass)
    }
}

fn unicast_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let to = |mac, destination| Ip::new(A.v4, destination, 6, tcp(1000, 80, 2)).frame(mac, A.mac);
    let (ifindex, vlan) = (UPLINK.ifindex, UPLINK.vlan);
    vec![
        sends("a machine in a physical network", to(M, M_V4)).uplink(),
        sends("a router in a physical network", to(M, "198.51.100.1")).uplink(),
        sends("a mac that nobody has told us of, with a station's address", to(M, B.v4)).uplink(),
        sends("a physical network needs no tunnel", to(M, M_V4))
            .with(|memory| memory.config.tunnel_ifindex = 0)
            .uplink(),
        sends("the host in a physical network", to(HOST, M_V4))
            .sent(A_NUMBER)
            .verdict(Verdict::Host { ifindex, vlan }),
        sends("a station of a physical network", to(B.mac, B.v4)).a_reaches_b(),
        sends("another's address into a physical network", {
            Ip::new(B.v4, M_V4, 6, tcp(1000, 80, 2)).frame(M, A.mac)
        })
        .dropped(A_NUMBER, Why::SpoofedAddress),
        sends("another's mac into a physical network", {
            Ip::new(A.v4, M_V4, 6, tcp(1000, 80, 2)).frame(M, B.mac)
        })
        .dropped(A_NUMBER, Why::SpoofedMac),
        sends("what is no ip into a physical network", ethernet(M, A.mac, 0x88cc, &[0; 50]))
            .dropped(A_NUMBER, Why::UnknownEthertype),
        sends("a link-local address in a physical network", {
            let own = std::net::Ipv6Addr::from(Addr::link_local(A.mac).octets()).to_string();
            Ip::new(&own, "fe80::1", 17, udp(546, 547)).frame(M, A.mac)
        })
        .uplink(),
    ]
}

fn flood_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let group = Mac([1, 0, 0x5e, 0, 0, 5]);
    let broadcast = || Ip::new(A.v4, "10.0.0.255", 17, udp(2, 1)).frame(Mac::BROADCAST, A.mac);
    let window = u32::try_from(NOW >> 30 & 0xffff_ffff).expect("32 bits");
    let used = |vector: Vector, used| {
        vector.with(|memory| {
            memory.floods.insert(1, Budget { window, used });
        })
    };
    vec![
        sends("a broadcast into a physical network", broadcast()).flooded(),
        sends("a multicast into a physical network", {
            Ip::new(A.v4, "224.0.0.5", 17, udp(2, 1)).frame(group, A.mac)
        })
        .flooded(),
        sends("a broadcast with another's address", {
            Ip::new(B.v4, "10.0.0.255", 17, udp(2, 1)).frame(Mac::BROADCAST, A.mac)
        })
        .dropped(A_NUMBER, Why::SpoofedAddress),
        used(sends("the last broadcast of a second", broadcast()), FLOODS_PER_PORT - 1).flooded(),
        used(sends("a broadcast too many", broadcast()), FLOODS_PER_PORT)
            .dropped(A_NUMBER, Why::FloodRate),
    ]
}

fn arp_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let ask = |operation, sender: (Mac, &str), target: (Mac, &str), to| {
        ethernet(to, A.mac, 0x0806, &arp(operation, sender, target))
    };
    let own = (A.mac, A.v4);
    let all = Mac::BROADCAST;
    let reply = ethernet(A.mac, B.mac, 0x0806, &arp(2, (B.mac, B.v4), own));
    vec![
        sends("arp for a station of a physical network", ask(1, own, (NOBODY, B.v4), all))
            .reflected(reply),
        sends("arp for a machine", ask(1, own, (NOBODY, M_V4), all)).flooded(),
        sends("arp for a machine, again", ask(1, own, (NOBODY, M_V4), M)).uplink(),
        sends("an arp answer to a machine", ask(2, own, (M, M_V4), M)).uplink(),
        sends("an address is announced", ask(1, own, (NOBODY, A.v4), all)).flooded(),
        sends("the own address is probed", ask(1, (A.mac, "0.0.0.0"), (NOBODY, A.v4), all))
            .flooded(),
        sends("another's address is probed", ask(1, (A.mac, "0.0.0.0"), (NOBODY, M_V4), all))
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        sends("an arp answer with another's address", ask(2, (A.mac, M_V4), (M, M_V4), M))
            .dropped(A_NUMBER, Why::SpoofedArpAddress),
        sends("an arp answer with another's mac", ask(2, (M, A.v4), (M, M_V4), M))
            .dropped(A_NUMBER, Why::SpoofedArpMac),
    ]
}

fn solicitation(source: &str, target: &str) -> Ip {
    let mut ip =
        Ip::new(source, "ff02::1:ff00:1", 58, icmp(135, 0, [0; 4], &addr(target).octets()));
    ip.hop_limit = 255;
    ip
}

fn advertisement(source: &str, target: &str, destination: &str) -> Ip {
    let mut ip =
        Ip::new(source, destination, 58, icmp(136, 0, [0x20, 0, 0, 0], &addr(target).octets()));
    ip.hop_limit = 255;
    ip
}

fn nd_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let solicited = Mac([0x33, 0x33, 0xff, 0, 0, 1]);
    let routers = Mac([0x33, 0x33, 0, 0, 0, 2]);
    let to_all = "ff02::1";
    let mut router = Ip::new(A.v6, "ff02::2", 58, icmp(133, 0, [0; 4], &[]));
    router.hop_limit = 255;
    let rogue = Ip::new(A.v6, to_all, 58, icmp(134, 0, [0; 4], &[0; 8]));
    let listener = Ip::new(A.v6, "ff02::16", 58, icmp(143, 0, [0; 4], &[0; 20]));
    let foreign = Ip::new(B.v6, "ff02::16", 58, icmp(143, 0, [0; 4], &[0; 20]));
    vec![
        sends("nd for a machine", solicitation(A.v6, M_V6).frame(solicited, A.mac)).flooded(),
        sends("the own address is probed by nd", solicitation("::", A.v6).frame(solicited, A.mac))
            .flooded(),
        sends("another's address is probed by nd", {
            solicitation("::", M_V6).frame(solicited, A.mac)
        })
        .dropped(A_NUMBER, Why::NdProbe),
        sends("nd with another's address", solicitation(B.v6, M_V6).frame(solicited, A.mac))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        sends("an nd answer to a machine", advertisement(A.v6, A.v6, M_V6).frame(M, A.mac))
            .uplink(),
        sends("an nd announcement", advertisement(A.v6, A.v6, to_all).frame(ALL_NODES, A.mac))
            .flooded(),
        sends("an nd answer for another's address", {
            advertisement(A.v6, M_V6, to_all).frame(ALL_NODES, A.mac)
        })
        .dropped(A_NUMBER, Why::SpoofedAddress),
        sends("routers are asked for", router.frame(routers, A.mac)).flooded(),
        sends("a port that plays router", rogue.frame(ALL_NODES, A.mac))
            .dropped(A_NUMBER, Why::RogueRouter),
        sends("a listener's report", listener.frame(routers, A.mac)).flooded(),
        sends("a listener's report with another's address", foreign.frame(routers, A.mac))
            .dropped(A_NUMBER, Why::SpoofedAddress),
    ]
}

fn dhcp_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let request = Ip::new("0.0.0.0", "255.255.255.255", 17, udp(68, 67));
    let served = |v6: bool| match v6 {
        false => Ip::new(A.v4, B.v4, 17, udp(67, 68)),
        true => Ip::new(A.v6, B.v6, 17, udp(547, 546)),
    };
    vec![
        sends("dhcp is asked of a physical network", request.frame(Mac::BROADCAST, A.mac))
            .flooded(),
        sends("a port that plays dhcp server", served(false).frame(B.mac, A.mac))
            .dropped(A_NUMBER, Why::RogueDhcp),
        sends("a port that plays dhcpv6 server", served(true).frame(B.mac, A.mac))
            .dropped(A_NUMBER, Why::RogueDhcp),
    ]
}

fn wire_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let to = |mac, source: &str| Ip::new(source, A.v4, 6, tcp(1000, 80, 2)).frame(mac, M);
    let to_a = |source: &str| to(A.mac, source);
    let delivered = |vector: Vector, via| {
        vector.received(A_NUMBER).verdict(Verdict::DeliverLocal { ifindex: A_IFINDEX, via })
    };
    let from = |mac| Ip::new(M_V4, A.v4, 6, tcp(1000, 80, 2)).frame(A.mac, mac);
    let reply = ethernet(A.mac, M, 0x0806, &arp(2, (M, M_V4), (A.mac, A.v4)));
    let stolen = ethernet(A.mac, M, 0x0806, &arp(2, (M, B.v4), (A.mac, A.v4)));
    vec![
        comes("a machine reaches a port", to_a(M_V4)).reaches_a(),
        comes("a router reaches a port", to_a("198.51.100.1")).reaches_a(),
        comes("a machine reaches a port through its interface", {
            Ip::new(M_V4, B.v4, 6, tcp(1000, 80, 2)).frame(B.mac, M)
        })
        .received(B_NUMBER)
        .verdict(Verdict::DeliverLocal { ifindex: B_IFINDEX, via: Via::Interface }),
        delivered(leaves("the host reaches a port", to_a(M_V4)), Via::Interface),
        comes("a frame of a network that is not ours", to_a(M_V4))
            .meta(|meta| meta.vlan = 6)
            .verdict(Verdict::Pass),
        comes("a frame for the host", to(HOST, M_V4)).verdict(Verdict::Pass),
        leaves("a frame of the host for a machine", to(M, M_V4)).verdict(Verdict::Pass),
        comes("a machine with a station's mac", from(B.mac)).dropped(0, Why::ForeignSource),
        comes("a machine with a station's address", to_a(B.v4)).dropped(0, Why::ForeignSource),
        comes("an address that the port does not have", {
            Ip::new(M_V4, "10.0.0.77", 6, tcp(1000, 80, 2)).frame(A.mac, M)
        })
        .dropped(A_NUMBER, Why::ForeignDestination),
        delivered(comes("a machine answers arp", reply), Via::Peer),
        comes("a machine answers arp for a station", stolen).dropped(0, Why::ForeignSource),
        delivered(
            comes("a machine answers nd", advertisement(M_V6, M_V6, A.v6).frame(A.mac, M)),
            Via::Peer,
        ),
        comes("a frame for a port that is gone", to_a(M_V4))
            .with(|memory| {
                memory.ports.remove(&PortKey::untagged(A_IFINDEX));
                memory.traffic.remove(&A_NUMBER);
            })
            .dropped(0, Why::MissingLocalPort),
        comes("a wire of a network that is not there", to_a(M_V4))
            .with(|memory| {
                memory.nets.remove(&1);
            })
            .dropped(0, Why::UnknownNetwork),
        from_r("a tunnel does not lead into a physical network", {
            Ip::new(R.v4, M_V4, 17, udp(2, 1)).frame(M, R.mac)
        })
        .with(rewire)
        .meta(|meta| meta.vtep = addr(VTEP))
        .dropped(0, Why::ForeignSource),
    ]
}

fn wire_group_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let all = Mac::BROADCAST;
    let flood = Verdict::Flood { net: 1, sender: 0 };
    let copied = |vector: Vector| {
        vector.received(A_NUMBER).verdict(Verdict::Copy { ifindex: A_IFINDEX, vlan: 0 })
    };
    let broadcast = |source: &str| Ip::new(source, "10.0.0.255", 17, udp(2, 1)).frame(all, M);
    let ask = |sender: &str, target: &str| {
        ethernet(all, M, 0x0806, &arp(1, (M, sender), (NOBODY, target)))
    };
    let solicited = Mac([0x33, 0x33, 0xff, 0, 0, 1]);
    let mut router = Ip::new("fe80::1", "ff02::1", 58, icmp(134, 0, [0; 4], &[0; 8]));
    router.hop_limit = 255;
    let window = u32::try_from(NOW >> 30 & 0xffff_ffff).expect("32 bits");
    let used = |vector: Vector, used| {
        vector.with(|memory| {
            memory.floods.insert(COUNTER_PLACES + 1, Budget { window, used });
        })
    };
    vec![
        comes("a broadcast of a machine", broadcast(M_V4)).verdict(flood),
        leaves("a broadcast of the host", broadcast(M_V4)).verdict(flood),
        comes("a broadcast with a station's address", broadcast(B.v4)).passed(Why::ForeignSource),
        comes("a broadcast with a station's mac", {
            Ip::new(M_V4, "10.0.0.255", 17, udp(2, 1)).frame(all, B.mac)
        })
        .passed(Why::ForeignSource),
        comes("a broadcast of no ip", ethernet(all, M, 0x88cc, &[0; 50])).verdict(Verdict::Pass),
        comes("a machine asks who has a station's address", ask(M_V4, A.v4))
            .received(A_NUMBER)
            .verdict(Verdict::Copy { ifindex: A_IFINDEX, vlan: 0 }),
        copied(leaves("the host asks who has a station's address", ask(M_V4, A.v4))),
        copied(comes("a machine probes a station's address", ask("0.0.0.0", A.v4))),
        comes("a machine asks for another one", ask(M_V4, "10.0.0.201")).verdict(flood),
        comes("a machine announces its address", ask(M_V4, M_V4)).verdict(flood),
        comes("a machine announces a station's address", ask(A.v4, A.v4))
            .passed(Why::ForeignSource),
        copied(comes("a machine asks for a station by nd", {
            solicitation(M_V6, A.v6).frame(solicited, M)
        })),
        comes("a router advertises itself", router.frame(ALL_NODES, M)).verdict(flood),
        comes("a broadcast that is cut short", broadcast(M_V4)[..30].to_vec())
            .passed(Why::Malformed),
        used(comes("the last broadcast of a wire", broadcast(M_V4)), FLOODS_PER_NET - 1)
            .verdict(flood),
        used(comes("a broadcast too many of a wire", broadcast(M_V4)), FLOODS_PER_NET)
            .passed(Why::FloodRate),
    ]
}
