//! A network with a foreign VTEP: network 1, which learns what is behind it.

use super::frame::{Ip, arp, ethernet, icmp, tcp, udp};
use super::world::{
    A, A_IFINDEX, A_NUMBER, B, LOCAL_VTEP, NOW, R, VNI, VTEP, addr, from_a, from_r,
};
use super::{Memory, Vector};
use crate::{
    Addr, AddrKey, Afar, Budget, COUNTER_PLACES, DropReason, FLOODS_PER_NET, FLOODS_PER_PORT,
    FloodKey, Mac, Meta, Neigh, NeighKey, Net, Packet, Path, Source, Verdict, Vtep, VtepKey,
    learned,
};

/// The foreign VTEP.
const FOREIGN: &str = "192.0.2.66";
/// A machine behind it that was heard of, and one that was not; their addresses.
const HEARD: Mac = Mac([2, 0, 0, 0, 2, 2]);
const HEARD_V4: &str = "10.0.0.200";
const SILENT: Mac = Mac([2, 0, 0, 0, 3, 3]);
const SILENT_V4: &str = "10.0.0.201";
const NOBODY: Mac = Mac([0; 6]);

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = to_strangers();
    vectors.extend(from_strangers());
    vectors.extend(groups());
    vectors
}

fn open(memory: &mut Memory) {
    let net = Net::open().with_foreign_vteps().learning_in(1);
    let local = addr(LOCAL_VTEP);
    memory.nets.insert(1, net);
    memory.vteps.insert(VtepKey { vni: VNI, addr: addr(FOREIGN) }, Vtep::foreign(1, local));
    for (index, (vtep, is_foreign)) in (0..).zip([(VTEP, 0), (FOREIGN, 1)]) {
        let afar = Afar { vtep: addr(vtep), local, vni: VNI, is_foreign };
        memory.afar.insert(FloodKey { net: 1, index }, afar);
    }
    let link_local = Addr::link_local(A.mac);
    memory.addrs.insert(AddrKey { port: A_NUMBER, addr: link_local }, Source::default());
    memory.neigh.insert(NeighKey { net: 1, addr: link_local }, Neigh::local(A.mac));
    let path = Path { net_in: 1, net, net_out: 1, identity: 0 };
    let packet = Packet { path, source_mac: HEARD, ..Packet::default() };
    let meta = Meta { now_ns: NOW, vtep: addr(FOREIGN), ..Meta::default() };
    learned::note(memory, &meta, &packet);
}

/// A frame of port A.
fn sends(name: &'static str, frame: Vec<u8>) -> Vector {
    from_a(name, frame).with(open)
}

/// A frame from behind the foreign VTEP.
fn comes(name: &'static str, frame: Vec<u8>) -> Vector {
    from_r(name, frame).with(open).meta(|meta| meta.vtep = addr(FOREIGN))
}

impl Vector {
    fn for_strangers(self) -> Vector {
        self.sent(A_NUMBER).verdict(Verdict::Strangers { net: 1 })
    }

    fn a_reaches_foreign(self) -> Vector {
        let (vtep, local) = (addr(FOREIGN), addr(LOCAL_VTEP));
        self.sent(A_NUMBER).verdict(Verdict::Tunnel { vni: VNI, vtep, local })
    }
}

fn to_strangers() -> Vec<Vector> {
    use DropReason as Why;
    let to = |mac, destination| Ip::new(A.v4, destination, 6, tcp(1000, 80, 2)).frame(mac, A.mac);
    let window = u32::try_from(NOW >> 30 & 0xffff_ffff).expect("32 bits");
    let used = |vector: Vector, used| {
        vector.with(|memory| {
            memory.floods.insert(1, Budget { window, used });
        })
    };
    let ask =
        |target| ethernet(Mac::BROADCAST, A.mac, 0x0806, &arp(1, (A.mac, A.v4), (NOBODY, target)));
    let reply = ethernet(A.mac, B.mac, 0x0806, &arp(2, (B.mac, B.v4), (A.mac, A.v4)));
    vec![
        sends("a machine that was heard of", to(HEARD, HEARD_V4)).a_reaches_foreign(),
        sends("a router that was heard of", to(HEARD, "198.51.100.1")).a_reaches_foreign(),
        sends("a machine that was not heard of", to(SILENT, SILENT_V4)).for_strangers(),
        sends("a machine of which a station's address is wanted", to(HEARD, B.v4))
            .a_reaches_foreign(),
        sends("a station beside strangers", to(B.mac, B.v4)).a_reaches_b(),
        sends("a station elsewhere beside strangers", to(R.mac, R.v4)).a_reaches_r(),
        used(sends("the last unknown mac of a second", to(SILENT, SILENT_V4)), FLOODS_PER_PORT - 1)
            .for_strangers(),
        used(sends("an unknown mac too many", to(SILENT, SILENT_V4)), FLOODS_PER_PORT)
            .dropped(A_NUMBER, Why::FloodRate),
        sends("a network that has no area floods", to(HEARD, HEARD_V4))
            .with(|memory| {
                memory.nets.insert(1, Net::open().with_foreign_vteps());
            })
            .for_strangers(),
        sends("arp for a stranger", ask(HEARD_V4)).for_strangers(),
        sends("arp for a station beside strangers", ask(B.v4)).reflected(reply),
        sends("arp to a stranger that was heard of", {
            ethernet(HEARD, A.mac, 0x0806, &arp(2, (A.mac, A.v4), (HEARD, HEARD_V4)))
        })
        .a_reaches_foreign(),
        sends("another's address to a stranger", {
            Ip::new(B.v4, HEARD_V4, 6, tcp(1000, 80, 2)).frame(HEARD, A.mac)
        })
        .dropped(A_NUMBER, Why::SpoofedAddress),
        sends("a stranger while there is no tunnel device", to(HEARD, HEARD_V4))
            .with(|memory| memory.config.tunnel_ifindex = 0)
            .dropped(A_NUMBER, Why::NoTunnelDevice),
    ]
}

fn from_strangers() -> Vec<Vector> {
    use DropReason as Why;
    let to = |mac, source: &str| Ip::new(source, A.v4, 6, tcp(1000, 80, 2)).frame(mac, SILENT);
    let from = |mac| Ip::new(SILENT_V4, A.v4, 6, tcp(1000, 80, 2)).frame(A.mac, mac);
    let reply = |sender| ethernet(A.mac, SILENT, 0x0806, &arp(2, (SILENT, sender), (A.mac, A.v4)));
    vec![
        comes("a stranger reaches a port", to(A.mac, SILENT_V4)).reaches_a(),
        comes("a stranger routes to a port", to(A.mac, "198.51.100.1")).reaches_a(),
        comes("a stranger with a port's mac", from(B.mac)).dropped(0, Why::ForeignSource),
        comes("a stranger with the mac of another host's station", from(R.mac))
            .dropped(0, Why::ForeignSource),
        comes("a stranger with a port's address", to(A.mac, B.v4)).dropped(0, Why::ForeignSource),
        comes("a stranger with the address of a station elsewhere", to(A.mac, R.v4))
            .dropped(0, Why::ForeignSource),
        comes("a stranger for somebody who is not here", to(HEARD, SILENT_V4))
            .dropped(0, Why::UnknownDestination),
        comes("a stranger for a station elsewhere", to(R.mac, SILENT_V4))
            .dropped(0, Why::UnknownDestination),
        comes("a stranger for an address that the port does not have", {
            Ip::new(SILENT_V4, "10.0.0.77", 6, tcp(1000, 80, 2)).frame(A.mac, SILENT)
        })
        .dropped(A_NUMBER, Why::ForeignDestination),
        comes("a stranger answers arp", reply(SILENT_V4)).reaches_a(),
        comes("a stranger answers arp for a station", reply(B.v4)).dropped(0, Why::ForeignSource),
        comes("a stranger from a vtep that nobody has told us of", to(A.mac, SILENT_V4))
            .meta(|meta| meta.vtep = addr("192.0.2.67"))
            .dropped(0, Why::UnknownVtep),
        comes("a stranger from a host", to(A.mac, SILENT_V4))
            .meta(|meta| meta.vtep = addr(VTEP))
            .dropped(0, Why::ForeignSource),
    ]
}

fn groups() -> Vec<Vector> {
    use DropReason as Why;
    let all = Mac::BROADCAST;
    let flood = Verdict::Flood { net: 1, sender: 0 };
    let broadcast =
        |source: &str, mac| Ip::new(source, "10.0.0.255", 17, udp(2, 1)).frame(all, mac);
    let ask =
        |target| ethernet(all, SILENT, 0x0806, &arp(1, (SILENT, SILENT_V4), (NOBODY, target)));
    let target = addr(A.v6).octets();
    let mut solicitation =
        Ip::new("fd00::201", "ff02::1:ff00:1", 58, icmp(135, 0, [0; 4], &target));
    solicitation.hop_limit = 255;
    let window = u32::try_from(NOW >> 30 & 0xffff_ffff).expect("32 bits");
    let copied = |vector: Vector| {
        vector.received(A_NUMBER).verdict(Verdict::Copy { ifindex: A_IFINDEX, vlan: 0 })
    };
    vec![
        sends("a broadcast beside strangers", broadcast(A.v4, A.mac))
            .sent(A_NUMBER)
            .verdict(Verdict::Flood { net: 1, sender: A_NUMBER }),
        comes("a stranger's broadcast", broadcast(SILENT_V4, SILENT)).verdict(flood),
        comes("a stranger's broadcast with a station's address", broadcast(B.v4, SILENT))
            .dropped(0, Why::ForeignSource),
        comes("a stranger's broadcast too many", broadcast(SILENT_V4, SILENT))
            .with(|memory| {
                let used = Budget { window, used: FLOODS_PER_NET };
                memory.floods.insert(COUNTER_PLACES + 1, used);
            })
            .dropped(0, Why::FloodRate),
        copied(comes("a stranger asks who has a port's address", ask(A.v4))),
        copied(comes("a stranger asks by nd who has a port's address", {
            solicitation.frame(Mac([0x33, 0x33, 0xff, 0, 0, 1]), SILENT)
        })),
        comes("a stranger asks for a station elsewhere", ask(R.v4))
            .dropped(0, Why::UnknownDestination),
        comes("a stranger asks for another one", ask(HEARD_V4)).verdict(flood),
        from_r("a host's broadcast beside strangers", broadcast(R.v4, R.mac))
            .with(open)
            .verdict(flood),
    ]
}

/// What is learned of a frame, and what is not.
#[test]
fn what_reaches_nobody_is_learned_too_unless_it_is_no_strangers() {
    let learns = |frame: Vec<u8>| {
        let mut vector = comes("", frame);
        let mut packet = Packet::default();
        crate::from_tunnel(&mut vector.before, &vector.meta, &mut packet);
        let path = packet.path;
        let mut packet = Packet { path, destination_mac: SILENT, ..Packet::default() };
        learned::find(&mut vector.before, &vector.meta, &mut packet).then_some(packet.station)
    };
    let behind = crate::Fdb::remote(VNI, addr(FOREIGN)).sent_from(addr(LOCAL_VTEP));
    let datagram =
        |source: &str, mac| Ip::new(source, "10.0.0.9", 17, udp(2, 1)).frame(mac, SILENT);
    assert_eq!(learns(datagram(SILENT_V4, A.mac)), Some(behind));
    assert_eq!(learns(datagram(SILENT_V4, Mac::BROADCAST)), Some(behind));
    assert_eq!(learns(datagram(B.v4, A.mac)), None, "it plays another one");
    let from_b = Ip::new(SILENT_V4, A.v4, 17, udp(2, 1)).frame(A.mac, B.mac);
    assert_eq!(learns(from_b), None);
}
