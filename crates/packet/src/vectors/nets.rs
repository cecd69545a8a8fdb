//! What a network is: closed, open, or not known.

use super::Vector;
use super::frame::{Ip, tcp, udp};
use super::world::{A, A_NUMBER, B, C, R, a_to, addr, from_a, from_r};
use crate::{DropReason, Mac, Neigh, NeighKey, Net};

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = unknown_vectors();
    vectors.extend(open_vectors());
    vectors.extend(routed_vectors());
    vectors
}

fn unknown_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let to_b = || a_to(B, &Ip::new(A.v4, B.v4, 6, tcp(1000, 80, 2)));
    let to_a = || Ip::new(R.v4, A.v4, 17, udp(2, 1)).frame(A.mac, R.mac);
    let without = |vector: Vector| {
        vector.with(|memory| {
            memory.nets.remove(&1);
        })
    };
    let of_unknown_kind = |vector: Vector| {
        vector.with(|memory| {
            memory.nets.insert(1, Net::default());
        })
    };
    vec![
        without(from_a("a port of an unknown network", to_b()))
            .dropped(A_NUMBER, Why::UnknownNetwork),
        without(from_r("an unknown network out of the tunnel", to_a()))
            .dropped(0, Why::UnknownNetwork),
        of_unknown_kind(from_a("a port of a network of an unknown kind", to_b()))
            .dropped(A_NUMBER, Why::UnknownNetwork),
        of_unknown_kind(from_r("a network of an unknown kind out of the tunnel", to_a()))
            .dropped(0, Why::UnknownNetwork),
    ]
}

/// In an open network there are others, but nobody is taken for a station who is not.
fn open_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let stranger = Mac([2, 0, 0, 0, 0, 0x99]);
    let open = |vector: Vector| {
        vector.with(|memory| {
            memory.nets.insert(1, Net::open());
        })
    };
    let to_a = |source: &str, mac| Ip::new(source, A.v4, 17, udp(2, 1)).frame(A.mac, mac);
    vec![
        open(from_r("a stranger in an open network is on no host", to_a("10.0.0.99", stranger)))
            .dropped(0, Why::ForeignSource),
        open(from_r("a station in an open network", to_a(R.v4, R.mac))).reaches_a(),
        open(from_r("a station of an open network with another address", {
            to_a("10.0.0.99", R.mac)
        }))
        .reaches_a(),
        open(from_r("a stranger with a station's address", to_a(R.v4, stranger)))
            .dropped(0, Why::ForeignSource),
        open(from_r("a stranger with the mac of a station that is here", {
            to_a("10.0.0.99", B.mac)
        }))
        .dropped(0, Why::ForeignSource),
        open(from_r("a stranger with the mac of a station elsewhere", to_a("10.0.0.99", R.mac)))
            .with(|memory| {
                let elsewhere = crate::Fdb::remote(super::world::VNI, addr("192.0.2.3"));
                memory.fdb.insert(crate::FdbKey::new(1, R.mac), elsewhere);
            })
            .dropped(0, Why::ForeignSource),
        open(from_r("a station behind another vtep in an open network", to_a(R.v4, R.mac)))
            .with(|memory| {
                let key = NeighKey { net: 1, addr: addr(R.v4) };
                memory.neigh.insert(key, Neigh::behind(addr("192.0.2.3"), R.mac));
            })
            .dropped(0, Why::ForeignSource),
        open(from_a("another's address in an open network", {
            Ip::new(C.v4, "10.0.0.9", 17, udp(2, 1)).frame(R.mac, A.mac)
        }))
        .dropped(A_NUMBER, Why::SpoofedAddress),
    ]
}

/// A router behind a VTEP brings packets from other networks, if the network says so.
fn routed_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let with = |vector: Vector, net: Net| {
        vector.with(|memory| {
            memory.nets.insert(1, net);
        })
    };
    let routed = |vector| with(vector, Net::closed().routed(7, R.mac));
    let to_a = |source: &str, mac| Ip::new(source, A.v4, 17, udp(2, 1)).frame(A.mac, mac);
    let elsewhere = "10.7.0.1";
    vec![
        routed(from_r("a router brings a packet from elsewhere", to_a(elsewhere, R.mac)))
            .reaches_a(),
        routed(from_r("a router speaks for itself", to_a(R.v4, R.mac))).reaches_a(),
        routed(from_r("a router speaks as a station of its network", to_a(B.v4, R.mac)))
            .dropped(0, Why::ForeignSource),
        routed(from_r("another than the router brings a packet", {
            to_a(elsewhere, Mac([2, 0, 0, 0, 0, 0x99]))
        }))
        .dropped(0, Why::ForeignSource),
        routed(from_r("a router behind another vtep", to_a(elsewhere, R.mac)))
            .with(|memory| {
                let other = crate::Fdb::remote(super::world::VNI, addr("192.0.2.3"));
                memory.fdb.insert(crate::FdbKey::new(1, R.mac), other);
            })
            .dropped(0, Why::ForeignSource),
        routed(from_r("a router whose place nobody knows", to_a(elsewhere, R.mac)))
            .with(|memory| {
                memory.fdb.remove(&crate::FdbKey::new(1, R.mac));
            })
            .dropped(0, Why::ForeignSource),
        with(
            from_r("a router without a domain", to_a(elsewhere, R.mac)),
            Net::closed().routed(0, R.mac),
        )
        .dropped(0, Why::ForeignSource),
        with(from_r("a router that brings nothing from elsewhere", to_a(elsewhere, R.mac)), {
            let mut net = Net::closed().routed(7, R.mac);
            net.flags = 0;
            net
        })
        .dropped(0, Why::ForeignSource),
    ]
}
