//! An address that stations share: A here and R elsewhere, but not B.

use super::frame::{Ip, arp, ethernet, icmp, tcp, udp};
use super::world::{A, A_NUMBER, B, B_IFINDEX, B_NUMBER, MTU, R, VTEP, a_to, addr, from_a, from_r};
use super::{Memory, Vector};
use crate::{
    Addr, Behind, DropReason, Mac, PrefixKey, Sharer, SharerKey, Verdict, Via, Vtep, VtepKey,
};

const SHARED: &str = "10.0.0.100";
const SHARED_V6: &str = "fd00::100";
const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const NOBODY: Mac = Mac([0; 6]);

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = packets();
    vectors.extend(said_by_arp());
    vectors.extend(said_by_nd());
    vectors
}

fn share(memory: &mut Memory) {
    for (text, bits) in [(SHARED, 32), (SHARED_V6, 128)] {
        memory.behind.insert(PrefixKey::new(1, addr(text), bits), Behind::shared());
        let sharers =
            [(A, Addr::UNSPECIFIED_V6, MTU), (R, addr(VTEP), 0)].map(|(station, vtep, mtu)| {
                let key = SharerKey { net: 1, mac: station.mac, pad: [0; 2], addr: addr(text) };
                (key, Sharer { vtep, mtu })
            });
        memory.sharers.extend(sharers);
    }
}

fn sends(name: &'static str, frame: Vec<u8>) -> Vector {
    from_a(name, frame).with(share)
}

/// A frame of port B.
fn other_sends(name: &'static str, frame: Vec<u8>) -> Vector {
    sends(name, frame).meta(|meta| meta.ifindex = B_IFINDEX)
}

fn comes(name: &'static str, frame: Vec<u8>) -> Vector {
    from_r(name, frame).with(share)
}

impl Vector {
    fn for_all(self) -> Vector {
        self.sent(A_NUMBER).verdict(Verdict::Flood { net: 1, sender: A_NUMBER })
    }

    fn for_all_here(self) -> Vector {
        self.verdict(Verdict::Flood { net: 1, sender: 0 })
    }

    /// Delivered, as no part of a connection.
    fn told_b(self) -> Vector {
        let via = Via::Interface;
        let told = self.sent(A_NUMBER).received(B_NUMBER);
        told.verdict(Verdict::DeliverLocal { ifindex: B_IFINDEX, via }).leaves(&[])
    }
}

fn packets() -> Vec<Vector> {
    use DropReason as Why;
    let from = |source| a_to(B, &Ip::new(source, B.v4, 17, udp(1, 2)));
    let from_b = Ip::new(SHARED, A.v4, 17, udp(1, 2)).frame(A.mac, B.mac);
    let to = |station: super::world::Station| {
        Ip::new(R.v4, SHARED, 6, tcp(1000, 80, 2)).frame(station.mac, R.mac)
    };
    vec![
        sends("a shared address is a source", from(SHARED)).a_reaches_b(),
        other_sends("a shared address is no source for others", from_b)
            .dropped(B_NUMBER, Why::SpoofedAddress),
        comes("a shared address elsewhere is a source", {
            Ip::new(SHARED, A.v4, 17, udp(1, 2)).frame(A.mac, R.mac)
        })
        .reaches_a(),
        comes("a shared address is reached", to(A)).reaches_a(),
        comes("a shared address is not reached at others", to(B))
            .dropped(B_NUMBER, Why::ForeignDestination),
        comes("a shared address from a host that none of them is on", {
            Ip::new(SHARED, A.v4, 17, udp(1, 2)).frame(A.mac, R.mac)
        })
        .with(|memory| {
            let local = addr(super::world::LOCAL_VTEP);
            let key = VtepKey { vni: super::world::VNI, addr: addr("192.0.2.3") };
            memory.vteps.insert(key, Vtep::of_host(1, local));
        })
        .meta(|meta| meta.vtep = addr("192.0.2.3"))
        .dropped(0, Why::ForeignSource),
    ]
}

fn said_by_arp() -> Vec<Vector> {
    use DropReason as Why;
    let all = Mac::BROADCAST;
    let says = |operation, sender: (Mac, &str), target: (Mac, &str), to| {
        ethernet(to, sender.0, 0x0806, &arp(operation, sender, target))
    };
    let (a, r) = ((A.mac, SHARED), (R.mac, SHARED));
    let (vtep, local) = (addr(VTEP), addr(super::world::LOCAL_VTEP));
    vec![
        sends("a shared address is announced", says(1, a, (NOBODY, SHARED), all)).for_all(),
        sends("a shared address is announced as a reply", says(2, a, (all, SHARED), all)).for_all(),
        sends("a shared address is asked for", says(1, (A.mac, A.v4), (NOBODY, SHARED), all))
            .for_all(),
        sends("a shared address is probed", says(1, (A.mac, "0.0.0.0"), (NOBODY, SHARED), all))
            .for_all(),
        sends("a shared address is told to who asked", says(2, a, (B.mac, B.v4), B.mac)).told_b(),
        sends("a shared address is told to who asked elsewhere", says(2, a, (R.mac, R.v4), R.mac))
            .sent(A_NUMBER)
            .verdict(Verdict::Tunnel { vni: super::world::VNI, vtep, local })
            .leaves(&[]),
        other_sends("another's shared address is announced", {
            says(1, (B.mac, SHARED), (NOBODY, SHARED), all)
        })
        .dropped(B_NUMBER, Why::SpoofedArpAddress),
        other_sends("another's shared address is probed", {
            says(1, (B.mac, "0.0.0.0"), (NOBODY, SHARED), all)
        })
        .dropped(B_NUMBER, Why::ArpProbe),
        comes("a shared address is announced elsewhere", says(1, r, (NOBODY, SHARED), all))
            .for_all_here(),
        comes("a shared address is asked for elsewhere", {
            says(1, (R.mac, R.v4), (NOBODY, SHARED), all)
        })
        .for_all_here(),
        comes("a shared address is probed elsewhere", {
            says(1, (R.mac, "0.0.0.0"), (NOBODY, SHARED), all)
        })
        .for_all_here(),
        comes("a shared address is told from elsewhere", says(2, r, (A.mac, A.v4), A.mac))
            .reaches_a()
            .leaves(&[]),
        comes("a shared address is announced by who plays a sharer", {
            let said = arp(1, (B.mac, SHARED), (NOBODY, SHARED));
            ethernet(all, R.mac, 0x0806, &said)
        })
        .dropped(0, Why::SpoofedArpMac),
        comes("an address of one station is announced elsewhere", {
            says(1, (R.mac, R.v4), (NOBODY, R.v4), all)
        })
        .dropped(0, Why::NeighbourFromTunnel),
        comes("a shared address is asked for with another's address", {
            says(1, (R.mac, B.v4), (NOBODY, SHARED), all)
        })
        .dropped(0, Why::ForeignSource),
    ]
}

fn said_by_nd() -> Vec<Vector> {
    use DropReason as Why;
    let signal = |kind, source: &str, target: &str| {
        let mut ip = Ip::new(source, "ff02::1", 58, icmp(kind, 0, [0; 4], &addr(target).octets()));
        ip.hop_limit = 255;
        ip
    };
    let from_a = |kind, source, target| signal(kind, source, target).frame(ALL_NODES, A.mac);
    let from_r = |kind, source, target| signal(kind, source, target).frame(ALL_NODES, R.mac);
    vec![
        sends("a shared address is announced by nd", from_a(136, SHARED_V6, SHARED_V6)).for_all(),
        sends("a shared address is asked for by nd", from_a(135, A.v6, SHARED_V6)).for_all(),
        sends("a shared address is probed by nd", from_a(135, "::", SHARED_V6)).for_all(),
        other_sends("another's shared address is announced by nd", {
            signal(136, SHARED_V6, SHARED_V6).frame(ALL_NODES, B.mac)
        })
        .dropped(B_NUMBER, Why::UnsolicitedNeighbourAdvertisement),
        sends("a shared address is announced with another's", from_a(136, B.v6, SHARED_V6))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        comes("a shared address is announced by nd elsewhere", from_r(136, SHARED_V6, SHARED_V6))
            .for_all_here(),
        comes("a shared address is asked for by nd elsewhere", from_r(135, R.v6, SHARED_V6))
            .for_all_here(),
        comes("a shared address is probed by nd elsewhere", from_r(135, "::", SHARED_V6))
            .for_all_here(),
        comes("an address of one station is announced by nd elsewhere", from_r(136, R.v6, R.v6))
            .dropped(0, Why::NeighbourFromTunnel),
        comes("a router is advertised elsewhere", from_r(134, R.v6, SHARED_V6))
            .dropped(0, Why::NeighbourFromTunnel),
    ]
}
