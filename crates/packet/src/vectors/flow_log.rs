//! What ports tell of their connections: see `flow_log` of the core.

use super::policy::{RST, SYN, TCP, ingress, out_of_a, port, to_a};
use super::rules::Rule;
use super::world::{A, A_IFINDEX, A_NUMBER, R};
use super::{Memory, Vector};
use crate::{Addr, Direction, DropReason, FlowEvent, Port, TOLD_PER_WINDOW};

fn addr(text: &str) -> Addr {
    let addr: std::net::IpAddr = text.parse().unwrap();
    addr.into()
}

/// What ports tell of the vector's frame, which comes so many times, with A telling so much.
fn told(vector: Vector, tells: u32, times: usize) -> Memory {
    let mut vector = vector.with(|memory| port(memory, A_IFINDEX).rules |= tells);
    for _ in 0..times {
        vector.before = vector.run().1;
    }
    vector.before
}

fn ssh(number: u16) -> Vector {
    ingress(to_a("", number, SYN), &[Rule::accept(5).ports(TCP, 22, 22)], false)
}

#[test]
fn a_port_tells_of_what_is_denied_and_of_what_is_opened_as_it_is_asked() {
    let place = |memory: &mut Memory| port(memory, A_IFINDEX).place();
    let mut denied = told(ssh(23), Port::TELLS_DENIED, 2);
    let of_a = FlowEvent {
        time_ns: denied.told[0].time_ns,
        port: A_NUMBER,
        reason: DropReason::PolicyIngress.number(),
        rule: 0,
        missed: 0,
        local: addr(A.v4),
        remote: addr(R.v4),
        local_port: 23,
        remote_port: 80,
        protocol: TCP,
        direction: Direction::ToPort as u8,
        pad: [0; 2],
    };
    assert_eq!(denied.told, [of_a, of_a], "each packet");
    let at = place(&mut denied);
    assert_eq!(denied.telling[&at].missed, 0);
    let opened = FlowEvent { reason: 0, rule: 5, local_port: 22, ..of_a };
    assert_eq!(told(ssh(22), Port::TELLS_OPENED, 3).told, [opened], "once");
    assert_eq!(told(ssh(22), Port::TELLS_DENIED, 1).told, []);
    assert_eq!(told(ssh(23), Port::TELLS_OPENED, 1).told, []);
    assert_eq!(told(ssh(22), 0, 1).told, []);
    let stray = ingress(to_a("", 22, RST), &[], true);
    assert_eq!(told(stray, Port::TELLS_DENIED, 1).told, [], "it would open nothing");
    let out = told(out_of_a("", SYN), Port::TELLS_OPENED, 1).told;
    let expected =
        FlowEvent { reason: 0, local_port: 22, direction: Direction::FromPort as u8, ..of_a };
    assert_eq!(out, [expected]);
}

#[test]
fn what_a_port_tells_is_bounded_and_the_rest_is_counted() {
    let most = usize::try_from(TOLD_PER_WINDOW).unwrap();
    let flooded = told(ssh(23), Port::TELLS_DENIED, most + 7);
    assert_eq!(flooded.told.len(), most);
    assert!(flooded.told.iter().all(|event| event.missed == 0));
    let mut later = ssh(23);
    later.meta.now_ns += 2 << 30;
    later.before = flooded;
    later.before = later.run().1;
    assert_eq!(later.before.told.last().map(|event| event.missed), Some(7));
    let later = later.run().1;
    assert_eq!(later.told.last().map(|event| event.missed), Some(0), "told once");
}
