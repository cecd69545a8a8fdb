//! VLAN tags: sub-ports of a trunk, and uplinks.

use super::Vector;
use super::frame::{Ip, arp, ethernet, tcp, udp};
use super::world::{A, A_IFINDEX, A_NUMBER, B, B_IFINDEX, R, a_to, addr, from_a, from_r};
use crate::{
    AddrKey, DropReason, Fdb, FdbKey, Mac, Meta, Neigh, NeighKey, Port, PortKey, Source, Traffic,
    Verdict, Via,
};

/// A sub-port in VLAN 5 of the trunk on B's interface, in network 1.
const SUB: (u32, Mac, &str) = (14, Mac([2, 0, 0, 0, 0, 0x14]), "10.0.0.14");
const VLAN: u16 = 5;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = trunk_vectors();
    vectors.extend(uplink_vectors());
    vectors
}

/// With the sub-port.
fn trunk(vector: Vector) -> Vector {
    vector.with(|memory| {
        let (number, mac, v4) = SUB;
        let key = PortKey::tagged(B_IFINDEX, VLAN);
        let port =
            Port { number, net: 1, generation: 5, mac, flags: Port::PEER, ..Port::default() };
        memory.ports.insert(key, port.placed(4, 114));
        memory.fdb.insert(FdbKey::new(1, mac), Fdb::local(key));
        memory.neigh.insert(NeighKey { net: 1, addr: addr(v4) }, Neigh::local(mac));
        memory.addrs.insert(AddrKey { port: number, addr: addr(v4) }, Source::default());
        memory.traffic.insert(number, Traffic::default());
    })
}

fn trunk_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let (number, mac, v4) = SUB;
    let from_sub = |name, vlan: u16, frame| {
        trunk(from_a(name, frame)).meta(|meta| {
            meta.ifindex = B_IFINDEX;
            meta.vlan = vlan;
        })
    };
    let tag = VLAN;
    let to_a = || Ip::new(v4, A.v4, 6, tcp(1000, 80, 2)).frame(A.mac, mac);
    let reaches_a = Verdict::DeliverLocal { ifindex: A_IFINDEX, via: Via::Peer };
    let request = ethernet(Mac::BROADCAST, mac, 0x0806, &arp(1, (mac, v4), (Mac([0; 6]), A.v4)));
    let reply = ethernet(mac, A.mac, 0x0806, &arp(2, (A.mac, A.v4), (mac, v4)));
    let mut answered = from_sub("a sub-port is answered arp", tag, request);
    answered.frame_after = Some(reply);
    let refused = |name, vlan, port| from_sub(name, vlan, to_a()).dropped(port, Why::VlanTagged);
    vec![
        from_sub("a sub-port reaches another port", tag, to_a())
            .sent(number)
            .received(A_NUMBER)
            .verdict(reaches_a),
        answered.sent(number).verdict(Verdict::Reflect),
        trunk(from_a("a port reaches a sub-port, with its tag", {
            Ip::new(A.v4, v4, 6, tcp(1000, 80, 2)).frame(mac, A.mac)
        }))
        .sent(A_NUMBER)
        .received(number)
        .verdict(Verdict::DeliverLocal { ifindex: B_IFINDEX, via: Via::Tagged(VLAN) }),
        refused("a vlan that the trunk does not have", 6, 12),
        refused("a tag of another kind", Meta::OTHER_TAG, 12),
        from_sub("a trunk is not its sub-port", 0, to_a()).dropped(12, Why::SpoofedMac),
        from_sub("a sub-port is not its trunk", tag, {
            Ip::new(B.v4, A.v4, 6, tcp(1000, 80, 2)).frame(A.mac, B.mac)
        })
        .dropped(number, Why::SpoofedMac),
        from_sub("a second tag", tag, ethernet(A.mac, mac, 0x8100, &[0; 50]))
            .dropped(number, Why::VlanTagged),
        from_a("a tag on an interface without a port", to_a())
            .meta(|meta| (meta.ifindex, meta.vlan) = (77, tag))
            .dropped(0, Why::UnknownPort),
        from_r("a tag that the kernel took out of a tunnelled frame", {
            Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(A.mac, R.mac)
        })
        .meta(|meta| meta.vlan = tag)
        .dropped(0, Why::VlanTagged),
    ]
}

fn uplink_vectors() -> Vec<Vector> {
    const WIRE: u32 = 7;
    let behind = |vector: Vector, vlan| {
        vector.with(|memory| {
            let way = Fdb::uplink(PortKey::tagged(WIRE, vlan));
            memory.fdb.insert(FdbKey::new(1, R.mac), way);
            // An uplink needs no tunnel.
            memory.config.tunnel_ifindex = 0;
        })
    };
    let to_r = || a_to(R, &Ip::new(A.v4, R.v4, 6, tcp(1000, 80, 2)));
    let way = |vlan| Verdict::Uplink { ifindex: WIRE, vlan };
    vec![
        behind(from_a("a station behind an uplink, untagged", to_r()), 0)
            .sent(A_NUMBER)
            .verdict(way(0)),
        behind(from_a("a station behind an uplink, in a vlan", to_r()), 7)
            .sent(A_NUMBER)
            .verdict(way(7)),
        behind(
            from_r("nothing goes from the tunnel into an uplink", {
                Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(R.mac, R.mac)
            }),
            7,
        )
        .dropped(0, DropReason::TunnelToTunnel),
    ]
}
