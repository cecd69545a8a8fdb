//! Lines say what events and objects say, and no NIC takes those of another one.

use packet::TOLD_PER_WINDOW;
use serde_json::{Value, json};
use wire::{object::FlowLog, policy::Action};

use super::*;
use crate::sample;

const GROUP: u32 = 9;
const RULE: u32 = 77;

/// A host with two ports, 5 and 6: the first one has a log and a group, the second one a log if told so.
fn holding(second: Option<FlowLog>) -> Arc<Holding> {
    let mut holding = sample::two_networks();
    let logs = |object: Object, flow_log| {
        let Object::Port(port) = sample::filtered(object, &[GROUP]) else { unreachable!("a port") };
        Object::Port(wire::object::Port { flow_log, ..port })
    };
    let of = |at, network, last| sample::port(at, sample::INSTANCE, network, last);
    holding.upsert(logs(of(sample::PORT_A, sample::NETWORK_A, 5), Some(FlowLog::All)));
    holding.upsert(logs(of(sample::PORT_B, sample::NETWORK_B, 6), second));
    holding.upsert(sample::group(GROUP, vec![sample::rule(RULE, Action::Accept, Some(22))]));
    Arc::new(holding)
}

fn book(second: Option<FlowLog>) -> Book {
    let mut book = Book::default();
    book.follow(holding(second));
    book
}

/// An event of a port: TCP from 10.0.0.9 to 10.0.0.5.
fn event(port: u32, (from, to): (u16, u16), time_ns: u64) -> FlowEvent {
    FlowEvent {
        time_ns,
        port,
        reason: 0,
        rule: RULE,
        missed: 0,
        local: Addr::v4([10, 0, 0, 5]),
        remote: Addr::v4([10, 0, 0, 9]),
        local_port: to,
        remote_port: from,
        protocol: 6,
        direction: Direction::ToPort as u8,
        pad: [0; 2],
    }
}

/// 2017-11-14 22:20:57 UTC, at 50 s on the clock of events.
fn clock(seconds: u64) -> Clock {
    let since_ms = i64::try_from(seconds * 1_000).unwrap() - 50_000;
    Clock { now: Timestamp(1_510_698_057_000 + since_ms), now_ns: seconds * SECOND_NS }
}

fn read(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn simple(uuid: u128) -> String {
    Uuid::from_u128(uuid).simple().to_string()
}

#[test]
fn a_line_names_the_nic_and_the_rule_that_decided() {
    let mut book = book(None);
    let denied = DropReason::PolicyEgress.number();
    book.note(&event(5, (4_000, 22), 49_500_000_000));
    let out = FlowEvent {
        reason: denied,
        rule: 0,
        protocol: 1,
        direction: Direction::FromPort as u8,
        ..event(5, (0, 7), 49_750_000_000)
    };
    book.note(&out);
    book.note(&out);
    let opened = json!({
        "time": "2017-11-14T22:20:56.500Z",
        "nic": simple(sample::PORT_A),
        "instance": simple(sample::INSTANCE),
        "direction": "ingress",
        "protocol": 6,
        "source": "10.0.0.9",
        "sourcePort": 4000,
        "destination": "10.0.0.5",
        "destinationPort": 22,
        "verdict": "new",
        "rule": simple(RULE.into()),
        "group": simple(GROUP.into()),
        "count": 1,
    });
    let refused = json!({
        "time": "2017-11-14T22:20:56.750Z",
        "nic": simple(sample::PORT_A),
        "instance": simple(sample::INSTANCE),
        "direction": "egress",
        "protocol": 1,
        "source": "10.0.0.5",
        "destination": "10.0.0.9",
        "verdict": "denied",
        "reason": "policy_egress",
        "count": 2,
    });
    assert_eq!(read(&book.lines(&clock(50))), [opened, refused]);
    assert!(!book.has_any() && book.lines(&clock(51)).is_empty(), "once");
}

#[test]
fn a_nic_that_floods_takes_no_line_of_another_one() {
    let mut book = book(Some(FlowLog::Denied));
    let most = u16::try_from(TOLD_PER_WINDOW).unwrap();
    for number in 0..most {
        book.note(&event(5, (number, 22), u64::from(number)));
    }
    book.note(&FlowEvent { missed: 1_000, ..event(5, (9_999, 22), 300) });
    for number in 0..50 {
        book.note(&event(6, (number, 22), 400 + u64::from(number)));
    }
    let lines = read(&book.lines(&clock(50)));
    let of = |nic, has: &str| {
        lines.iter().filter(|line| line["nic"] == simple(nic) && !line[has].is_null()).count()
    };
    assert_eq!((of(sample::PORT_A, "count"), of(sample::PORT_B, "count")), (100, 50));
    assert_eq!((of(sample::PORT_A, "suppressed"), of(sample::PORT_B, "suppressed")), (1, 0));
    let told = lines.last().and_then(|line| line["suppressed"].as_u64());
    assert_eq!(told, Some(u64::from(TOLD_PER_WINDOW) + 1 - 100 + 1_000));
    // In half a second there is room for half as many.
    for number in 0..most {
        book.note(&event(5, (number, 22), u64::from(number)));
    }
    let half = Clock { now_ns: clock(50).now_ns + SECOND_NS / 2, ..clock(50) };
    assert_eq!(book.lines(&half).len(), 50 + 1);
}

#[test]
fn who_has_no_log_any_more_is_in_no_line() {
    let mut book = book(Some(FlowLog::All));
    book.note(&event(6, (1, 22), 1));
    book.follow(holding(None));
    assert!(book.lines(&clock(50)).is_empty());
    book.note(&event(6, (1, 22), 2));
    assert!(!book.has_any());
    book.note(&event(99, (1, 22), 3));
    assert!(!book.has_any(), "a port that nobody knows");
    // The numbers of others stay theirs.
    book.note(&event(5, (1, 22), 4));
    assert_eq!(book.lines(&clock(50)).len(), 1);
}

#[test]
fn what_waits_is_bounded() {
    let mut book = book(None);
    let mut number = 0;
    while !book.is_full() {
        let low = u16::try_from(number & 0xff).unwrap();
        let remote = Addr::v4([10, 1, u8::try_from(number >> 8 & 0xff).unwrap(), 0]);
        book.note(&FlowEvent { remote, ..event(5, (low, 22), 1) });
        number += 1;
    }
    assert_eq!(number, WAITING_MAX);
}
