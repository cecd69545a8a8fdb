//! What is kept of dropped frames, and what a flood of them costs.

use dataplane::TurnFrame;
use etherparse::PacketBuilder;
use packet::Entry;

use super::*;
use crate::sample;

fn frame(port: u32, to: [u8; 4], source_port: u16, rule: u32) -> TurnFrame {
    let mut header = Vec::new();
    let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 9], to, 64);
    ip.udp(source_port, 53).write(&mut header, &[]).unwrap();
    let frame = DroppedFrame {
        time_ns: 5_000_000_000,
        entry: Some(Entry::FromPort),
        ifindex: 7,
        port,
        reason: Some(DropReason::PolicyIngress),
        rule,
        length: 42,
        header,
    };
    TurnFrame { frame, is_from_port: false }
}

fn turn(frames: Vec<TurnFrame>, counted: u64) -> Turn {
    Turn { frames, counted, now_ns: 6_000_000_000, pause: Duration::ZERO }
}

fn port(number: u8) -> Port {
    let object = sample::port(u128::from(number), sample::INSTANCE, sample::NETWORK_A, number);
    match sample::filtered(object, &[101]) {
        Object::Port(port) => port,
        _ => unreachable!("a port"),
    }
}

#[test]
fn what_frames_have_in_common_is_told_once_the_newest_last() {
    let mut history = History::default();
    history.take(turn(Vec::new(), 10), 1_000);
    let frames = [(1, 4_000, 7), (2, 4_001, 0), (1, 4_002, 7)];
    let frames = frames.map(|(last, from, rule)| frame(5, [10, 0, 0, last], from, rule));
    // Two that nobody heard of.
    history.take(turn(frames.into(), 15), 3_000);
    let rule = sample::rule(7, wire::policy::Action::Drop, Some(53));
    let holding: Holding = [sample::group(101, vec![rule])].into_iter().collect();
    let told = history.tell(&holding, &port(5), 9, 42);
    assert_eq!((told.counted, told.lost, told.since_ms), (42, 2, 1_000));
    let [old, new] = &told.frames[..] else { panic!("{told:?}") };
    assert_eq!((old.count, old.rule, &*old.what), (1, None, "UDP 10.0.0.9:4001 to 10.0.0.2:53"));
    assert_eq!((new.count, new.at_ms, new.source_port), (2, 2_000, 4_002));
    assert_eq!((new.rule, new.group), (Some(sample::uuid(7)), Some(sample::uuid(101))));
    assert_eq!((&*new.reason, new.is_from_port), ("policy_ingress", false));
    assert_eq!(history.tell(&holding, &port(5), 1, 0).frames, std::slice::from_ref(new));
    assert!(history.tell(&holding, &port(6), 9, 0).frames.is_empty());
    history.retain(&[6].into());
    assert_eq!((history.total, history.ports.len(), history.sizes.len()), (0, 0, 0));
}

#[test]
fn one_port_that_floods_costs_no_other_its_history() {
    let mut history = History::default();
    let holding = Holding::default();
    let many = |port: u32, count: u16| {
        let at = |number: u16| {
            let [high, low] = number.to_be_bytes();
            frame(port, [10, 1, high, low], 4_000, 0)
        };
        turn((0..count).map(at).collect(), 0)
    };
    history.take(many(5, 3), 1_000);
    history.take(many(6, 10_000), 1_000);
    assert_eq!(history.total, 3 + KINDS_OF_PORT);
    let newest = history.tell(&holding, &port(6), 500, 0).frames;
    assert_eq!(newest.last().unwrap().destination, Some([10, 1, 39, 15].into()));
    // Many that flood together: those who have little keep it.
    for port in 7..200 {
        history.take(many(port, 100), 1_000);
        assert!(history.total <= KINDS_MAX);
    }
    assert_eq!(history.tell(&holding, &port(5), 500, 0).frames.len(), 3);
    let sum: usize = history.ports.values().map(BTreeMap::len).sum();
    assert_eq!((sum, history.total), (KINDS_MAX, KINDS_MAX));
}
