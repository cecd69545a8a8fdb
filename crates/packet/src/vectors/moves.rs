//! Stations that move from one host to another: seen where they were, where they go, and elsewhere.

use super::frame::{Ip, arp, ethernet, tcp, udp};
use super::world::{
    A, A_IFINDEX, A_NUMBER, B, LOCAL_VTEP, R, VNI, VTEP, a_to, addr, from_a, from_r,
};
use super::{Memory, Vector};
use crate::{
    DropReason, Fdb, FdbKey, Mac, Move, Neigh, NeighKey, Port, PortKey, Verdict, Vtep, VtepKey,
};

/// The VTEP of the host where a station goes.
const GOAL: &str = "192.0.2.3";
/// The number of the move.
const NUMBER: u32 = 7;
/// Its word when the station has moved, and when the old host has been told, too.
const MOVED: u64 = 7;
const TOLD: u64 = 1 << 32 | 7;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = away();
    vectors.extend(here());
    vectors.extend(elsewhere());
    vectors
}

/// A moves from this host to another one.
fn goes(word: u64) -> impl FnOnce(&mut Memory) {
    let then = Fdb::forwarded(VNI, addr(GOAL)).sent_from(addr(LOCAL_VTEP));
    move |memory| moves(memory, (A.mac, [A.v4, A.v6]), then, word)
}

/// A comes to this host from that of R.
fn comes(word: u64) -> impl FnOnce(&mut Memory) {
    move |memory| {
        let key = FdbKey::new(1, A.mac);
        memory.fdb.insert(key, Fdb::remote(VNI, addr(VTEP)).sent_from(addr(LOCAL_VTEP)));
        for text in [A.v4, A.v6] {
            let neigh = Neigh::behind(addr(VTEP), A.mac);
            memory.neigh.insert(NeighKey { net: 1, addr: addr(text) }, neigh);
        }
        let then = Fdb::local(PortKey::untagged(A_IFINDEX));
        moves(memory, (A.mac, [A.v4, A.v6]), then, word);
    }
}

/// R moves from one host to another.
fn passes(word: u64) -> impl FnOnce(&mut Memory) {
    let then = Fdb::remote(VNI, addr(GOAL)).sent_from(addr(LOCAL_VTEP));
    move |memory| moves(memory, (R.mac, [R.v4, R.v6]), then, word)
}

fn moves(memory: &mut Memory, (mac, texts): (Mac, [&str; 2]), then: Fdb, word: u64) {
    let key = FdbKey::new(1, mac);
    memory.moves.insert(key, Move::new(NUMBER, then));
    memory.fdb.entry(key).and_modify(|fdb| *fdb = fdb.moving());
    for text in texts {
        let key = NeighKey { net: 1, addr: addr(text) };
        memory.neigh.entry(key).and_modify(|neigh| *neigh = neigh.moving());
    }
    if mac == A.mac {
        let port = memory.ports.get_mut(&PortKey::untagged(A_IFINDEX)).expect("port A");
        port.flags |= Port::MOVES;
    }
    memory.arrived.insert(NUMBER, word);
    let vtep = Vtep::of_host(1, addr(LOCAL_VTEP));
    memory.vteps.insert(VtepKey { vni: VNI, addr: addr(GOAL) }, vtep);
}

fn to(vtep: &str) -> Verdict {
    Verdict::Tunnel { vni: VNI, vtep: addr(vtep), local: addr(LOCAL_VTEP) }
}

/// The same frame, out of the tunnel from the host where the station goes.
fn from_goal(vector: Vector) -> Vector {
    vector.meta(|meta| meta.vtep = addr(GOAL))
}

fn udp_of(source: &super::world::Station, target: &super::world::Station) -> Vec<u8> {
    Ip::new(source.v4, target.v4, 17, udp(2, 1)).frame(target.mac, source.mac)
}

fn rarp() -> Vec<u8> {
    ethernet(Mac::BROADCAST, A.mac, 0x8035, &arp(3, (A.mac, "0.0.0.0"), (A.mac, "0.0.0.0")))
}

/// Seen where the station was.
fn away() -> Vec<Vector> {
    use DropReason as Why;
    let a_to_r = || a_to(R, &Ip::new(A.v4, R.v4, 17, udp(1, 2)));
    let gratuitous =
        || ethernet(Mac::BROADCAST, A.mac, 0x0806, &arp(1, (A.mac, A.v4), (A.mac, A.v4)));
    vec![
        from_a("a station that is to move sends as before", a_to_r()).with(goes(0)).a_reaches_r(),
        from_r("a station that is to move receives as before", udp_of(&R, &A))
            .with(goes(0))
            .reaches_a(),
        from_a("a station that has moved sends no longer from where it was", a_to_r())
            .with(goes(MOVED))
            .dropped(A_NUMBER, Why::Moved),
        from_r("what others send to where it was follows it", udp_of(&R, &A))
            .with(goes(MOVED))
            .verdict(to(GOAL))
            .leaves(&[]),
        from_goal(from_r("its host hands on what nobody else expects there", udp_of(&A, &R)))
            .with(goes(MOVED))
            .verdict(to(VTEP))
            .leaves(&[]),
        from_goal(from_r("its announcement is taken in", gratuitous()))
            .with(goes(0))
            .dropped(0, Why::MoveTold),
        from_r("nobody else announces it", gratuitous())
            .with(goes(0))
            .dropped(0, Why::NeighbourFromTunnel),
        from_goal(from_r("its host speaks for it alone", udp_of(&R, &A)))
            .with(goes(MOVED))
            .dropped(0, Why::ForeignSource),
        from_r("what is handed on is handed on once", {
            Ip::new(R.v4, R.v4, 17, udp(2, 1)).frame(R.mac, R.mac)
        })
        .with(goes(MOVED))
        .dropped(0, Why::TunnelToTunnel),
    ]
}

/// Seen where the station goes.
fn here() -> Vec<Vector> {
    use DropReason as Why;
    let packet = || Ip::new(A.v4, R.v4, 6, tcp(1, 2, 0x10));
    let question =
        || ethernet(Mac::BROADCAST, A.mac, 0x0806, &arp(1, (A.mac, A.v4), (Mac([0; 6]), B.v4)));
    let answer = ethernet(A.mac, B.mac, 0x0806, &arp(2, (B.mac, B.v4), (A.mac, A.v4)));
    vec![
        from_a("the first frame of a station goes to where it was", rarp())
            .with(comes(0))
            .sent(A_NUMBER)
            .verdict(to(VTEP))
            .leaves(&[]),
        from_a("whatever it is", a_to(B, &packet()))
            .with(comes(0))
            .sent(A_NUMBER)
            .verdict(to(VTEP))
            .leaves(&[]),
        from_a("but a question is answered here", question()).with(comes(0)).reflected(answer),
        from_a("the next one goes its way", a_to(R, &packet())).with(comes(TOLD)).a_reaches_r(),
        from_a("another announcement is told, too", rarp())
            .with(comes(TOLD))
            .sent(A_NUMBER)
            .verdict(to(VTEP))
            .leaves(&[]),
        from_a("what is not the station does not move it", {
            packet().frame(R.mac, Mac([2, 9, 9, 9, 9, 9]))
        })
        .with(comes(0))
        .dropped(A_NUMBER, Why::SpoofedMac),
        from_r("nothing reaches a port that waits", udp_of(&R, &A))
            .with(comes(0))
            .dropped(0, Why::TunnelToTunnel),
        from_r("what is for a station that has come is delivered", udp_of(&R, &A))
            .with(comes(MOVED))
            .reaches_a(),
        from_r("so is what its old host hands on", udp_of(&R, &A))
            .with(comes(MOVED))
            .with(|memory| {
                let neigh = Neigh::behind(addr("192.0.2.9"), R.mac);
                memory.neigh.insert(NeighKey { net: 1, addr: addr(R.v4) }, neigh);
            })
            .reaches_a(),
        from_r("what its old host hands on is for it alone", udp_of(&R, &B))
            .with(comes(MOVED))
            .with(|memory| {
                let neigh = Neigh::behind(addr("192.0.2.9"), R.mac);
                memory.neigh.insert(NeighKey { net: 1, addr: addr(R.v4) }, neigh);
            })
            .dropped(0, Why::ForeignSource),
        from_r("its old host does not speak for it any more", udp_of(&A, &B))
            .with(comes(MOVED))
            .dropped(0, Why::ForeignSource),
    ]
}

/// Seen from a host that it neither leaves nor comes to.
fn elsewhere() -> Vec<Vector> {
    use DropReason as Why;
    let a_to_r = || a_to(R, &Ip::new(A.v4, R.v4, 17, udp(1, 2)));
    vec![
        from_a("who is to move elsewhere is where it was", a_to_r()).with(passes(0)).a_reaches_r(),
        from_a("and is found where it has moved", a_to_r())
            .with(passes(MOVED))
            .sent(A_NUMBER)
            .verdict(to(GOAL)),
        from_r("who is to move elsewhere is heard from where it was", udp_of(&R, &A))
            .with(passes(0))
            .reaches_a(),
        from_goal(from_r("and from where it goes, which moves it", udp_of(&R, &A)))
            .with(passes(0))
            .reaches_a(),
        from_r("and from where it was no longer then", udp_of(&R, &A))
            .with(passes(MOVED))
            .dropped(0, Why::ForeignSource),
        from_r("and from nowhere else", udp_of(&R, &A))
            .with(passes(0))
            .with(|memory| {
                let vtep = Vtep::of_host(1, addr(LOCAL_VTEP));
                memory.vteps.insert(VtepKey { vni: VNI, addr: addr("192.0.2.9") }, vtep);
            })
            .meta(|meta| meta.vtep = addr("192.0.2.9"))
            .dropped(0, Why::ForeignSource),
        from_r("a move of another number says nothing", udp_of(&R, &A))
            .with(passes(MOVED + 1))
            .reaches_a(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, from_port, from_tunnel};

    fn word(vector: &Vector) -> u64 {
        vector.run().1.arrived.get(&NUMBER).copied().unwrap_or_default()
    }

    #[test]
    fn a_frame_from_the_new_place_moves_the_station_and_no_other_does() {
        let named = |name: &str| vectors().into_iter().find(|vector| vector.name == name).unwrap();
        for (name, expected) in [
            ("a station that is to move sends as before", 0),
            ("a station that is to move receives as before", 0),
            ("its announcement is taken in", MOVED),
            ("nobody else announces it", 0),
            ("the first frame of a station goes to where it was", TOLD),
            ("whatever it is", TOLD),
            ("but a question is answered here", MOVED),
            ("what is not the station does not move it", 0),
            ("nothing reaches a port that waits", 0),
            ("who is to move elsewhere is where it was", 0),
            ("who is to move elsewhere is heard from where it was", 0),
            ("and from where it goes, which moves it", MOVED),
            ("and from nowhere else", 0),
        ] {
            assert_eq!(word(&named(name)), expected, "{name}");
        }
    }

    /// Three hosts by themselves: nobody's agent and no server takes part.
    #[test]
    fn hosts_follow_a_station_among_themselves() {
        let packet = || Ip::new(A.v4, R.v4, 17, udp(1, 2));
        let run = |memory: &mut Memory, vector: &Vector| {
            let mut packet = Packet::default();
            memory.frame.clone_from(&vector.before.frame);
            match vector.entry {
                crate::Entry::FromPort => from_port(memory, &vector.meta, &mut packet),
                _ => from_tunnel(memory, &vector.meta, &mut packet),
            }
            packet.verdict
        };
        let world = |change: Box<dyn FnOnce(&mut Memory)>| {
            let mut memory = super::super::world::world();
            memory = memory.with_flows(crate::FLOWS as usize);
            change(&mut memory);
            memory
        };
        let (mut old, mut new) = (world(Box::new(goes(0))), world(Box::new(comes(0))));
        let sends = from_a("", a_to(R, &packet()));
        let hears = from_r("", udp_of(&R, &A));
        assert_eq!(run(&mut old, &sends), to(VTEP));
        assert!(matches!(run(&mut old, &hears), Verdict::DeliverLocal { .. }));
        assert_eq!(run(&mut new, &hears), Verdict::Drop(DropReason::TunnelToTunnel));
        // It sends its first frame from its new place, which tells its old host.
        assert_eq!(run(&mut new, &sends), to(VTEP));
        assert_eq!(run(&mut old, &from_goal(from_r("", udp_of(&A, &R)))), to(VTEP), "handed on");
        assert_eq!(run(&mut old, &sends), Verdict::Drop(DropReason::Moved));
        assert_eq!(run(&mut old, &hears), to(GOAL), "and what comes there follows it");
        assert!(matches!(run(&mut new, &hears), Verdict::DeliverLocal { .. }));
        assert_eq!(run(&mut new, &sends), to(VTEP), "to R, which is behind the same VTEP here");
    }
}
