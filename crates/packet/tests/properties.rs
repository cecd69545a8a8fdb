//! Properties of the core on arbitrary input: it never panics, it never allows what it cannot
//! have understood, and a connection has one key in both directions.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use netloom_packet::vectors::{Memory, Vector, all};
use netloom_packet::{Entry, Packet, PortKey, Verdict, from_port, from_tunnel, from_wire, to_port};
use proptest::prelude::*;

fn run(memory: &mut Memory, vector: &Vector) -> Verdict {
    let mut packet = Packet::default();
    let mut meta = vector.meta;
    meta.length = u32::try_from(memory.frame.len()).unwrap();
    match vector.entry {
        Entry::FromPort => from_port(memory, &meta, &mut packet),
        Entry::FromTunnel => from_tunnel(memory, &meta, &mut packet),
        Entry::ToPort => packet.verdict = to_port(memory, &meta),
        // Nothing is decided there.
        Entry::ToTunnel => packet.verdict = Verdict::Pass,
        entry @ (Entry::FromUplink | Entry::ToUplink) => {
            if !from_wire(memory, &meta, entry, &mut packet) {
                packet.verdict = Verdict::Pass;
            }
        }
    }
    packet.verdict
}

/// Every drop is counted exactly once, whatever the frame. What is for all on a wire goes on, also
/// where ports do not get it.
fn counted_once(memory: &Memory, entry: Entry, verdict: Verdict) {
    let drops: u64 = memory.drops.values().sum();
    match (entry, verdict) {
        (Entry::FromUplink | Entry::ToUplink, Verdict::Pass) => assert!(drops <= 1),
        _ => assert_eq!(drops, u64::from(matches!(verdict, Verdict::Drop(_)))),
    }
}

/// All of them: one in a thousand is enough to make a guess at random fail once a week.
#[test]
fn a_spoofed_source_mac_never_leaves() {
    for vector in all().into_iter().filter(|vector| vector.entry == Entry::FromPort) {
        let vlan = vector.meta.vlan;
        let port = vector.before.ports.get(&PortKey::tagged(vector.meta.ifindex, vlan));
        let own = port.map_or([0; 6], |port| port.mac.0);
        for byte in 0..=u8::MAX {
            let mut memory = vector.before.clone();
            memory.frame[11] = byte;
            if memory.frame[6..12] == own {
                continue;
            }
            let verdict = run(&mut memory, &vector);
            assert!(matches!(verdict, Verdict::Drop(_)), "{} {byte}: {verdict:?}", vector.name);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        which in 0..all().len(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let vector = &all()[which];
        let mut memory = vector.before.clone();
        memory.frame = bytes;
        let verdict = run(&mut memory, vector);
        counted_once(&memory, vector.entry, verdict);
    }

    #[test]
    fn random_damage_never_panics(
        which in 0..all().len(),
        damage in proptest::collection::vec((0..100_usize, any::<u8>()), 0..6),
        length in 0..160_usize,
    ) {
        let vector = &all()[which];
        let mut memory = vector.before.clone();
        for (at, byte) in damage {
            if let Some(place) = memory.frame.get_mut(at) {
                *place = byte;
            }
        }
        memory.frame.truncate(length);
        let verdict = run(&mut memory, vector);
        counted_once(&memory, vector.entry, verdict);
    }

    #[test]
    fn both_directions_of_a_flow_share_one_connection(
        source in any::<u16>(),
        destination in any::<u16>(),
        v6 in any::<bool>(),
    ) {
        let (out, back) = if v6 {
            ("new tcp connection to a local port over ipv6", 54)
        } else {
            ("new tcp connection to a local port", 34)
        };
        let vector = all().into_iter().find(|vector| vector.name == out).unwrap();
        let mut memory = vector.before.clone();
        memory.frame[back..back + 2].copy_from_slice(&source.to_be_bytes());
        memory.frame[back + 2..back + 4].copy_from_slice(&destination.to_be_bytes());
        let first = run(&mut memory, &vector);
        prop_assert!(matches!(first, Verdict::DeliverLocal { .. }), "{first:?}");
        prop_assert_eq!(memory.tracked().len(), 2, "one for each port");

        // The answer: every pair of addresses the other way around, SYN and ACK.
        let mut answer = vector.clone();
        answer.meta.ifindex = 2;
        let frame = &mut memory.frame;
        for at in 0..6 {
            frame.swap(at, at + 6);
        }
        let (addresses, size) = if v6 { (22, 16) } else { (26, 4) };
        for at in addresses..addresses + size {
            frame.swap(at, at + size);
        }
        frame.swap(back, back + 2);
        frame.swap(back + 1, back + 3);
        frame[back + 13] = 0x12;
        let second = run(&mut memory, &answer);
        prop_assert!(matches!(second, Verdict::DeliverLocal { .. }), "{second:?}");
        prop_assert_eq!(memory.tracked().len(), 2, "and none for the answer");
    }
}
