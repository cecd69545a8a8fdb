//! Room in the connection table: who may take whose way, and who is refused.

use super::frame::{Ip, tcp, udp};
use super::world::{
    A, A_NUMBER, NOW, R, VTEP, a_to, addr, by_other, connection, earlier, from_a, from_r, now,
};
use super::{Memory, Tracked, Vector};
use crate::slots::{Pair, way_number};
use crate::{
    CtState, CtWord, DropReason, Mac, Neigh, NeighKey, PEER_WAYS, PORT_WAYS, PortKey, tick,
};

const SYN: u8 = 0x02;
/// Another station of the network, on another host.
const NEWCOMER: Mac = Mac([2, 0, 0, 0, 0, 0x10]);

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = own_vectors();
    vectors.extend(side_vectors());
    vectors.extend(peer_vectors());
    vectors.extend(common_vectors());
    vectors
}

/// A opens a TCP connection to R.
fn from_port(name: &'static str) -> Vector {
    from_a(name, a_to(R, &Ip::new(A.v4, R.v4, 6, tcp(1000, 80, SYN))))
}

/// R sends a first datagram to A.
fn to_port(name: &'static str) -> Vector {
    from_r(name, Ip::new(R.v4, A.v4, 17, udp(53, 1000)).frame(A.mac, R.mac))
}

fn opened_by_a() -> Tracked {
    now(connection((A.v4, 1000), (R.v4, 80), 6), CtState::Opening)
}

fn opened_by_r() -> Tracked {
    by_other(now(connection((A.v4, 1000), (R.v4, 53), 17), CtState::Opening))
}

/// Another connection of A, to another station.
fn another() -> Tracked {
    connection((A.v4, 7), ("10.0.0.66", 7), 6)
}

/// That connection in all ways of the two buckets that `of` may be in, in its own area; `party`
/// gives the party of the nth.
fn crowd(memory: &mut Memory, of: &Tracked, with: Tracked, party: impl Fn(u32) -> CtWord) {
    let pair = memory.spot(&of.slot.key(), R.mac).own;
    fill(memory, pair, with, party);
}

fn fill(memory: &mut Memory, pair: Pair, with: Tracked, party: impl Fn(u32) -> CtWord) {
    assert_ne!(pair.first, pair.second, "two buckets");
    for bucket in [pair.first, pair.second] {
        for way in 0..7 {
            let nth = if bucket == pair.first { way } else { way + 7 };
            memory.put(way_number(bucket, way), party(nth), with);
        }
    }
}

/// A party of its own for each.
fn several(nth: u32) -> CtWord {
    CtWord::new(0, u64::from(nth) + 1)
}

/// Fills both areas with established connections of this side, of several peers and ports.
fn crowd_all(memory: &mut Memory, of: &Tracked, with: Tracked) {
    crowd(memory, of, with, several);
    let pair = memory.spot(&of.slot.key(), R.mac).common;
    fill(memory, pair, with, several);
}

/// The word of the nth way of two buckets changed.
fn change(memory: &mut Memory, pair: Pair, nth: u32, to: impl Fn(CtWord) -> CtWord) {
    let bucket = if nth < 7 { pair.first } else { pair.second };
    let bucket = &mut memory.buckets[usize::try_from(bucket).expect("small")];
    let word = &mut bucket.words[usize::try_from(nth % 7).expect("small")];
    *word = to(CtWord(*word)).0;
}

fn expired(word: CtWord) -> CtWord {
    word.until(tick(NOW) - 1)
}

fn newcomer() -> NeighKey {
    NeighKey { net: 1, addr: addr("10.0.0.10") }
}

/// `count` times `one`, and `last`.
fn together(one: Tracked, count: usize, last: Tracked) -> Vec<Tracked> {
    let mut all = vec![one; count];
    all.push(last);
    all
}

/// What gives way in a port's own area.
fn own_vectors() -> Vec<Vector> {
    use CtState::{Answered, Closed, Opening};
    use DropReason as Why;
    let (a, r) = (opened_by_a(), opened_by_r());
    let half = earlier(another(), Opening);
    let older = Tracked { word: half.word.until(tick(NOW) + 1), ..half };
    vec![
        from_port("a port whose room is in use is refused, and loses nothing")
            .with(|memory| crowd_all(memory, &a, another()))
            .dropped(A_NUMBER, Why::ConntrackFull),
        from_port("an expired connection counts no more")
            .with(|memory| {
                crowd_all(memory, &a, another());
                let pair = memory.spot(&a.slot.key(), R.mac).own;
                change(memory, pair, 13, expired);
            })
            .leaves(&together(another(), 27, a))
            .a_reaches_r(),
        from_port("a closed connection gives way")
            .with(|memory| {
                crowd_all(memory, &a, another());
                let pair = memory.spot(&a.slot.key(), R.mac).own;
                change(memory, pair, 3, |word| word.with_state(Closed));
            })
            .leaves(&together(another(), 27, a))
            .a_reaches_r(),
        from_port("half-open ones give way, the oldest first")
            .with(|memory| {
                crowd(memory, &a, half, several);
                let pair = memory.spot(&a.slot.key(), R.mac).own;
                memory.put(way_number(pair.second, 4), several(11), older);
            })
            .leaves(&together(half, 13, a))
            .a_reaches_r(),
        to_port("one that waits for its opener gives way")
            .with(|memory| {
                crowd_all(memory, &r, by_other(another()));
                let pair = memory.spot(&r.slot.key(), R.mac).own;
                change(memory, pair, 3, |word| word.with_state(Answered));
            })
            .leaves(&together(by_other(another()), 27, r))
            .reaches_a(),
        from_port("a way that another cpu fills is nobody's")
            .with(|memory| {
                crowd_all(memory, &a, another());
                let pair = memory.spot(&a.slot.key(), R.mac).own;
                change(memory, pair, 6, |word| word.with_state(CtState::Taken));
            })
            .dropped(A_NUMBER, Why::ConntrackFull),
        from_port("a port without a zone is closed")
            .with(|memory| {
                memory.ports.get_mut(&PortKey::untagged(1)).expect("port A").zone = 0;
            })
            .dropped(A_NUMBER, Why::ConntrackFull),
    ]
}

/// What each side has to itself.
fn side_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let (a, r) = (opened_by_a(), opened_by_r());
    let half = earlier(another(), CtState::Opening);
    vec![
        to_port("what the port opens does not give way to what others open")
            .with(|memory| crowd_all(memory, &r, half))
            .dropped(A_NUMBER, Why::ConntrackFull),
        from_port("three ways of each bucket are for what the port opens")
            .with(|memory| {
                crowd_all(memory, &a, by_other(another()));
                let pair = memory.spot(&a.slot.key(), R.mac).own;
                change(memory, pair, 5, |_| CtWord::default());
            })
            .leaves(&together(by_other(another()), 27, a))
            .a_reaches_r(),
        to_port("which others cannot have")
            .with(|memory| {
                crowd_all(memory, &r, by_other(another()));
                let pair = memory.spot(&r.slot.key(), R.mac).own;
                change(memory, pair, 5, |_| CtWord::default());
            })
            .dropped(A_NUMBER, Why::ConntrackFull),
    ]
}

/// What one peer may have.
fn peer_vectors() -> Vec<Vector> {
    use CtState::Opening;
    use DropReason as Why;
    let r = opened_by_r();
    let established = by_other(another());
    let half = by_other(earlier(another(), Opening));
    // As many of R's as it may have, and free ways.
    let at_limit = move |memory: &mut Memory, with: Tracked| {
        let spot = memory.spot(&r.slot.key(), R.mac);
        for nth in 0..PEER_WAYS {
            let bucket = if nth % 2 == 0 { spot.own.first } else { spot.own.second };
            memory.put(way_number(bucket, nth / 2), spot.by_peer, with);
        }
        fill(memory, spot.common, established, several);
    };
    vec![
        to_port("a peer at its limit is refused, though there is room")
            .with(|memory| at_limit(memory, established))
            .dropped(A_NUMBER, Why::ConntrackPeerBudget),
        to_port("a peer at its limit replaces its own half-open connections")
            .with(|memory| at_limit(memory, half))
            .leaves(&{
                let mut left = together(half, 3, r);
                left.extend(vec![established; 14]);
                left
            })
            .reaches_a(),
        to_port("another address makes it no other peer")
            .with(|memory| {
                memory.neigh.insert(newcomer(), Neigh::behind(addr(VTEP), R.mac));
                memory.frame = Ip::new("10.0.0.10", A.v4, 17, udp(53, 1000)).frame(A.mac, R.mac);
                let key = crate::CtKey { remote: addr("10.0.0.10"), ..r.slot.key() };
                let spot = memory.spot(&key, R.mac);
                for nth in 0..PEER_WAYS {
                    memory.put(way_number(spot.own.first, nth), spot.by_peer, established);
                }
                fill(memory, spot.common, established, several);
            })
            .dropped(A_NUMBER, Why::ConntrackPeerBudget),
        to_port("another peer has its way beside it")
            .with(|memory| {
                at_limit(memory, established);
                memory.neigh.insert(newcomer(), Neigh::behind(addr(VTEP), NEWCOMER));
                let packet = Ip::new("10.0.0.10", A.v4, 17, udp(53, 1000));
                memory.frame = packet.frame(A.mac, NEWCOMER);
            })
            .reaches_a(),
    ]
}

/// The common area.
fn common_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let a = opened_by_a();
    let later = now(connection((A.v4, 1000), (R.v4, 80), 6), CtState::Established);
    let spilled = move |memory: &mut Memory, until: u64| {
        let spot = memory.spot(&a.slot.key(), R.mac);
        let first = usize::try_from(spot.own.first).expect("small");
        memory.buckets[first].spilled_until = until;
        memory.put(
            way_number(spot.common.second, 6),
            spot.by_port,
            earlier(later, CtState::Established),
        );
    };
    vec![
        from_port("what does not fit into the own area goes to the common one")
            .with(|memory| crowd(memory, &a, another(), several))
            .leaves(&together(another(), 14, a))
            .a_reaches_r(),
        from_a("where it is found again", {
            a_to(R, &Ip::new(A.v4, R.v4, 6, tcp(1000, 80, 0x10)))
        })
        .with(|memory| spilled(memory, tick(NOW)))
        .leaves(&[later])
        .a_reaches_r(),
        from_a("as long as the own area knows of it", {
            a_to(R, &Ip::new(A.v4, R.v4, 6, tcp(1000, 80, 0x04)))
        })
        .with(|memory| spilled(memory, tick(NOW) - 1))
        .dropped(A_NUMBER, Why::NoConnection),
        from_port("a port has its part of the common area, and no more")
            .with(|memory| {
                crowd(memory, &a, another(), several);
                let spot = memory.spot(&a.slot.key(), R.mac);
                for way in 0..PORT_WAYS {
                    memory.put(way_number(spot.common.first, way), spot.by_port, another());
                }
            })
            .dropped(A_NUMBER, Why::ConntrackPortBudget),
        from_port("without a common area there is the own one")
            .with(|memory| {
                memory.config.common_buckets = 0;
                crowd(memory, &a, another(), several);
            })
            .dropped(A_NUMBER, Why::ConntrackPortBudget),
    ]
}
