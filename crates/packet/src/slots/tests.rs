//! What the table promises, over many connections.

use super::*;
use crate::addr::{Addr, Mac};
use crate::ct_word::tick;
use crate::maps::{Port, PortKey};
use crate::parse::{Packet, TCP, UDP};
use crate::sizes::ConntrackSize;
use crate::vectors::Memory;

const NOW: u64 = 1 << 50;
const SIZE: ConntrackSize = ConntrackSize { ports: 4, port_buckets: 512, common_buckets: 64 };

/// A table of four ports: zone and place are the port's number.
fn table(size: ConntrackSize) -> Memory {
    let mut memory = Memory::new(size, 0x1234_5678_9abc_def0);
    for number in 1..=4 {
        let port =
            Port { number, ..Port::default() }.placed(u16::try_from(number).unwrap(), number);
        memory.ports.insert(PortKey::untagged(number), port);
    }
    memory
}

/// A new connection of a port: who opens it, the peer, what tells it from others, and when.
#[derive(Clone, Copy)]
struct Opening {
    port: u32,
    direction: Direction,
    peer: u8,
    number: u16,
    at_ns: u64,
}

impl Opening {
    fn inwards(port: u32, peer: u8, number: u16) -> Opening {
        Opening { port, direction: Direction::ToPort, peer, number, at_ns: NOW }
    }

    fn outwards(port: u32, number: u16) -> Opening {
        let direction = Direction::FromPort;
        Opening { direction, ..Opening::inwards(port, (number % 251) as u8, number) }
    }

    fn mac(self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.peer])
    }

    fn packet(self) -> Packet {
        let zone = CtZone {
            now_ns: self.at_ns,
            port: self.port,
            zone: self.port,
            place: self.port,
            direction: self.direction,
            ..CtZone::default()
        };
        let mut packet = Packet { zone, ..Packet::default() };
        let (local_port, remote_port) = match self.direction {
            Direction::FromPort => (self.number, 443),
            Direction::ToPort => (80, self.number),
        };
        packet.room.key = CtKey {
            zone: self.port,
            local: Addr::v4([10, 0, 0, 100]),
            remote: Addr::v4([10, 0, 1, self.peer]),
            local_port,
            remote_port,
            protocol: TCP,
        };
        packet
    }

    /// Finds it; its way.
    fn find(self, memory: &mut Memory) -> Option<Packet> {
        let mut packet = self.packet();
        packet.room.spot = memory.spot(&packet.room.key, self.mac());
        find(memory, &mut packet.room, tick(self.at_ns)).then_some(packet)
    }

    /// Opens it, unless it is there.
    fn open(self, memory: &mut Memory) -> Result<(), DropReason> {
        let mut packet = self.packet();
        packet.room.spot = memory.spot(&packet.room.key, self.mac());
        let Packet { room, zone, .. } = &mut packet;
        assert!(!find(memory, room, tick(self.at_ns)));
        open(memory, room, zone, false)
    }

    /// Opens it and takes it as far as established.
    fn establish(self, memory: &mut Memory) -> Result<(), DropReason> {
        self.open(memory)?;
        let Found { number, word } = self.find(memory).expect("just opened").room.found;
        let until = deadline(memory, tick(self.at_ns), TCP, CtState::Established as u8);
        let established = word.with_state(CtState::Established).until(until);
        assert!(memory.ct_swap(number, word.0, established.0));
        Ok(())
    }
}

#[test]
fn of_two_cpus_that_saw_the_same_way_one_gets_it() {
    let mut memory = table(SIZE);
    let opening = Opening::inwards(1, 1, 1);
    let mut packet = opening.packet();
    packet.room.spot = memory.spot(&packet.room.key, opening.mac());
    let Packet { room, zone, .. } = &mut packet;
    find(&mut memory, room, tick(NOW));
    open(&mut memory, room, zone, false).unwrap();
    let Found { number, .. } = room.found;
    let live = CtWord(memory.ct_word(number));
    let taken = live.handed_to(CtWord(0).with_state(CtState::Taken).until(tick(NOW)));
    assert!(memory.ct_swap(number, live.0, taken.0));
    assert!(!memory.ct_swap(number, live.0, taken.0), "seen before it was taken");
    assert!(memory.ct_swap(number, taken.0, taken.kept_by(live).0));
    assert!(!memory.ct_swap(number, live.0, taken.0), "the same connection, other hands");
}

#[test]
fn a_port_has_what_it_is_promised_whatever_its_neighbours_have() {
    let mut memory = table(SIZE);
    // The neighbours open as many as they can.
    for port in 2..=4 {
        for number in 0..8_000 {
            let _ = Opening::outwards(port, number).establish(&mut memory);
            let _ = Opening::inwards(port, (number & 0xff) as u8, number).establish(&mut memory);
        }
    }
    let promised = u16::try_from(SIZE.per_port()).unwrap();
    assert_eq!(promised, 512);
    for number in 0..promised {
        Opening::outwards(1, number).establish(&mut memory).unwrap();
        Opening::inwards(1, (number & 0xff) as u8, number).establish(&mut memory).unwrap();
    }
    for number in 0..promised {
        assert!(Opening::outwards(1, number).find(&mut memory).is_some());
        assert!(Opening::inwards(1, (number & 0xff) as u8, number).find(&mut memory).is_some());
    }
}

#[test]
fn connections_that_have_expired_keep_nobody_out() {
    let mut memory = table(SIZE);
    // 17,000 flows from the port that nobody answers, and 15,000 datagrams from a peer.
    for number in 0..17_000 {
        let _ = Opening::outwards(1, number).establish(&mut memory);
    }
    for number in 0..15_000 {
        let _ = Opening::inwards(1, 7, number).establish(&mut memory);
    }
    let at_ns = NOW + (1 << 44);
    for number in 0..512 {
        let late = Opening { at_ns, ..Opening::inwards(1, (number % 200) as u8, number) };
        late.establish(&mut memory).unwrap();
        let late = Opening { at_ns, ..Opening::outwards(1, number) };
        late.establish(&mut memory).unwrap();
    }
}

#[test]
fn a_peer_that_opens_without_end_keeps_no_other_peer_out() {
    let mut memory = table(ConntrackSize { common_buckets: 0, ..SIZE });
    for half_open in [true, false] {
        let first = if half_open { 0 } else { 30_000 };
        for number in first..first + 20_000 {
            let flood = Opening::inwards(1, 7, number);
            let _ = match half_open {
                true => flood.open(&mut memory),
                false => flood.establish(&mut memory),
            };
        }
        // Other peers' connections come up, and live on while the flood does.
        let peer = if half_open { 9 } else { 10 };
        for number in 0..50 {
            Opening::inwards(1, peer, number).establish(&mut memory).unwrap();
        }
        for number in first + 20_000..first + 30_000 {
            let _ = Opening::inwards(1, 7, number).open(&mut memory);
        }
        for number in 0..50 {
            assert!(Opening::inwards(1, peer, number).find(&mut memory).is_some(), "{number}");
        }
    }
    // What the port opens has room, too.
    for number in 0..512 {
        Opening::outwards(1, number).establish(&mut memory).unwrap();
    }
}

#[test]
fn a_peer_that_knows_the_buckets_leaves_others_half_of_any_two() {
    let mut memory = table(ConntrackSize { common_buckets: 0, ..SIZE });
    let start = memory.config.area(1).start;
    let targets = [start + 7, start + 300];
    let own = |memory: &Memory, opening: Opening| {
        let pair = memory.spot(&opening.packet().room.key, opening.mac()).own;
        [pair.first, pair.second]
    };
    let aims = |buckets: [u32; 2]| buckets.iter().any(|bucket| targets.contains(bucket));
    // Others fill all buckets but two. So of the two of a connection one has no room.
    for number in 0..40_000 {
        let opening = Opening::inwards(1, 20 + (number % 200) as u8, number);
        if !aims(own(&memory, opening)) {
            let _ = opening.establish(&mut memory);
        }
    }
    for number in 0..40_000 {
        let opening = Opening::inwards(1, 7, number);
        if aims(own(&memory, opening)) {
            let _ = opening.establish(&mut memory);
        }
    }
    let live = |word: &u64| CtWord(*word).is_live(tick(NOW));
    let held: Vec<usize> = targets
        .iter()
        .map(|target| memory.ct_bucket(*target).unwrap().words.iter().filter(|at| live(at)).count())
        .collect();
    let each = usize::try_from(PEER_WAYS).unwrap() / 2;
    assert_eq!(held, [each, each]);
    // Others find room there.
    let mut others = (0..40_000).map(|number| Opening::inwards(1, 9, number));
    let other = others.find(|opening| own(&memory, *opening)[0] == targets[0]).unwrap();
    other.establish(&mut memory).unwrap();
}

#[test]
fn established_connections_give_way_to_nobody() {
    let mut memory = table(SIZE);
    let one = |number: u16| Opening::inwards(1, (number % 200) as u8, number);
    let kept: Vec<u16> =
        (0..20_000).filter(|number| one(*number).establish(&mut memory).is_ok()).collect();
    assert!(kept.len() > 2_048, "{} are more than the own area has", kept.len());
    for number in 20_000..40_000 {
        let _ = one(number).open(&mut memory);
        let _ = Opening::outwards(1, number).open(&mut memory);
    }
    for number in kept {
        assert!(one(number).find(&mut memory).is_some(), "{number}");
    }
}

#[test]
fn keys_spread_over_buckets_and_tags() {
    let memory = table(SIZE);
    let mut first = vec![0_u32; usize::try_from(SIZE.buckets()).unwrap()];
    let mut tags = std::collections::BTreeSet::new();
    for number in 0..51_200 {
        let mut key = Opening::inwards(1, (number % 7) as u8, number).packet().room.key;
        key.protocol = UDP;
        let spot = memory.spot(&key, Mac::BROADCAST);
        assert!(memory.config.area(1).contains(&spot.own.first));
        assert!(memory.config.area(1).contains(&spot.own.second));
        assert_ne!(spot.own.first, spot.own.second);
        first[usize::try_from(spot.own.first).unwrap()] += 1;
        tags.insert(spot.by_peer.0 & 0xffff);
    }
    let own = &first[64..64 + 512];
    assert!(own.iter().all(|hits| (50..=160).contains(hits)), "{own:?}");
    assert!(tags.len() > 20_000, "{} tags", tags.len());
}
