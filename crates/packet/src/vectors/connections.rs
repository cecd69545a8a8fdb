//! Connection tracking: established packets, expiry, budgets, the table, ICMP errors, policy.

use super::frame::{Ip, icmp, tcp, udp};
use super::world::{
    A, A_NUMBER, B_NUMBER, GENERATION, NOW, R, SECOND, a_to, connection, from_a, from_r, now,
};
use super::{CONNTRACK_SLOTS, Memory, Vector};
use crate::slots::Walk;
use crate::{
    CtSlot, CtState, DropReason, PortKey, SWEEP, TCP_CLOSED_NS, TCP_ESTABLISHED_NS, TRIES,
    UDP_ESTABLISHED_NS, UDP_OPENING_NS,
};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const FIN_ACK: u8 = 0x11;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = lifecycle_vectors();
    vectors.extend(reopening_vectors());
    vectors.extend(expiry_vectors());
    vectors.extend(table_vectors());
    vectors.extend(budget_vectors());
    vectors.extend(policy_vectors());
    vectors.extend(error_vectors());
    vectors
}

/// TCP from R's port 80 to A's port 1000.
fn tcp_to_a(name: &'static str, flags: u8) -> Vector {
    from_r(name, Ip::new(R.v4, A.v4, 6, tcp(80, 1000, flags)).frame(A.mac, R.mac))
}

/// TCP from A's port 1000 to R's port 80.
fn tcp_from_a(name: &'static str, flags: u8) -> Vector {
    from_a(name, a_to(R, &Ip::new(A.v4, R.v4, 6, tcp(1000, 80, flags))))
}

/// UDP from R's port 53 to A's port 1000.
fn udp_to_a(name: &'static str) -> Vector {
    from_r(name, Ip::new(R.v4, A.v4, 17, udp(53, 1000)).frame(A.mac, R.mac))
}

fn tcp_slot() -> CtSlot {
    connection((A.v4, 1000), (R.v4, 80), 6)
}

fn udp_slot() -> CtSlot {
    connection((A.v4, 1000), (R.v4, 53), 17)
}

/// Lets port A be in a network that the packets out of the tunnel do not come from: then only
/// answers get through, and what is let through shows what conntrack knew.
fn closed(memory: &mut Memory) {
    if let Some(port) = memory.ports.get_mut(&PortKey::untagged(1)) {
        port.net = 2;
    }
}

fn lifecycle_vectors() -> Vec<Vector> {
    use CtState::{Answering, Closed, Closing, Established, Opening};
    use DropReason as Why;
    let tcp = |state: CtState| CtSlot { state: state as u8, ..tcp_slot() };
    let echo = connection((A.v4, 7), (R.v4, 7), 1);
    let reply = Ip::new(R.v4, A.v4, 1, icmp(0, 0, [0, 7, 0, 1], &[0; 8]));
    let inwards = |name, flags, before: CtState, after: CtState| {
        tcp_to_a(name, flags)
            .with(|memory| memory.put_connection(3, tcp(before)))
            .with(closed)
            .leaves(&[now(tcp_slot(), after)])
            .reaches_a()
    };
    let outwards = |name, flags, before: CtState, after: CtState| {
        tcp_from_a(name, flags)
            .with(|memory| memory.put_connection(3, tcp(before)))
            .leaves(&[now(tcp_slot(), after)])
            .a_reaches_r()
    };
    vec![
        inwards("syn ack answers an opening connection", SYN_ACK, Opening, Established),
        inwards("packet of an established connection", ACK, Established, Established),
        outwards("packet of an established connection, outwards", ACK, Established, Established),
        outwards("a packet of the initiator answers nothing", ACK, Opening, Opening),
        outwards("the initiator is done", FIN_ACK, Established, Closing),
        inwards("the other end is done", FIN_ACK, Established, Answering),
        inwards("both ends are done", FIN_ACK, Closing, Closed),
        inwards("rst ends an established connection", RST, Established, Closed),
        outwards("syn reopens a closing connection", SYN, Closing, Opening),
        tcp_to_a("a link to a slot that another cpu has taken leads nowhere", ACK)
            .with(|memory| memory.put_connection(3, tcp(CtState::Taken)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("ack opens a connection that the table lost", ACK)
            .leaves(&[now(tcp_slot(), Opening)])
            .a_reaches_r(),
        tcp_from_a("rst belongs to no connection", RST).dropped(A_NUMBER, Why::NoConnection),
        tcp_to_a("syn ack belongs to no connection", SYN_ACK).dropped(A_NUMBER, Why::NoConnection),
        from_r("echo reply answers a request", reply.frame(A.mac, R.mac))
            .with(|memory| memory.put_connection(0, echo))
            .with(closed)
            .leaves(&[now(echo, Established)])
            .reaches_a(),
        from_r("echo reply nobody asked for", reply.frame(A.mac, R.mac))
            .dropped(A_NUMBER, Why::NoConnection),
        udp_to_a("udp reply answers a query")
            .with(|memory| memory.put_connection(0, CtSlot { state: 1, ..udp_slot() }))
            .with(closed)
            .leaves(&[now(udp_slot(), Established)])
            .reaches_a(),
    ]
}

/// A new SYN on the ports of a connection that is over.
fn reopening_vectors() -> Vec<Vector> {
    let from_r = CtSlot { initiator: 2, ..now(tcp_slot(), CtState::Opening) };
    let mut vectors = vec![
        tcp_to_a("syn from the other end reopens a closing connection", SYN)
            .with(|memory| {
                memory.put_connection(3, CtSlot { state: CtState::Closing as u8, ..tcp_slot() });
            })
            .leaves(&[from_r])
            .reaches_a(),
        tcp_from_a("a connection that was denied reopens if it may", SYN)
            .with(|memory| {
                let over = CtSlot { state: CtState::Closed as u8, allowed: 0, ..tcp_slot() };
                memory.put_connection(3, over);
            })
            .leaves(&[now(tcp_slot(), CtState::Opening)])
            .a_reaches_r(),
    ];
    for (name, state, generation) in [
        ("a denied syn leaves a closing connection as it was", 3, GENERATION),
        ("a denied syn leaves an answering connection as it was", 4, GENERATION),
        ("a denied syn leaves a closed connection of an old generation", 5, GENERATION - 1),
    ] {
        let over = CtSlot { state, generation, ..tcp_slot() };
        let denied = tcp_to_a(name, SYN)
            .with(|memory| memory.put_connection(3, over))
            .with(closed)
            .leaves(&[over])
            .dropped(A_NUMBER, DropReason::PolicyDenied);
        vectors.push(denied);
    }
    vectors
}

fn expiry_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let idle = |slot: CtSlot, ns: u64| CtSlot { last_seen_ns: NOW - ns, ..slot };
    let single = CtSlot { state: 1, ..udp_slot() };
    let over = CtSlot { state: CtState::Closed as u8, ..tcp_slot() };
    vec![
        udp_to_a("udp reply at the last moment")
            .with(|memory| memory.put_connection(0, idle(udp_slot(), UDP_ESTABLISHED_NS)))
            .with(closed)
            .reaches_a(),
        udp_to_a("udp reply too late")
            .with(|memory| memory.put_connection(0, idle(udp_slot(), UDP_ESTABLISHED_NS + 1)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        udp_to_a("first udp reply has less time")
            .with(|memory| memory.put_connection(0, idle(single, UDP_OPENING_NS + 1)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("tcp connection idle for two hours", ACK)
            .with(|memory| memory.put_connection(0, idle(tcp_slot(), TCP_ESTABLISHED_NS)))
            .with(closed)
            .reaches_a(),
        tcp_to_a("tcp connection idle for longer", ACK)
            .with(|memory| memory.put_connection(0, idle(tcp_slot(), TCP_ESTABLISHED_NS + 1)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("the last ack of a closed connection", ACK)
            .with(move |memory| memory.put_connection(0, idle(over, TCP_CLOSED_NS)))
            .with(closed)
            .reaches_a(),
        tcp_to_a("a closed connection is soon forgotten", ACK)
            .with(move |memory| memory.put_connection(0, idle(over, TCP_CLOSED_NS + 1)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("an expired connection opens again", SYN)
            .with(|memory| memory.put_connection(0, idle(tcp_slot(), TCP_ESTABLISHED_NS + 1)))
            .a_reaches_r(),
        tcp_to_a("a packet from the clock of another cpu", ACK)
            .with(|memory| {
                let slot = CtSlot { last_seen_ns: NOW + 4_000_000, ..tcp_slot() };
                memory.put_connection(0, slot);
            })
            .with(closed)
            .reaches_a(),
    ]
}

/// Live UDP connections of a port in the slots from `first` on.
fn fill(memory: &mut Memory, port: u32, first: u32, count: u32) {
    for number in first..first + count {
        let mut slot = udp_slot();
        slot.key.port = port;
        slot.key.local_port = 20_000 + u16::try_from(number).expect("a small table");
        memory.put_connection(number, slot);
    }
}

fn expire(memory: &mut Memory, number: usize) {
    memory.ct_slots[number].last_seen_ns = NOW - 1_000 * SECOND;
}

/// The slot that a new connection looks at after so many steps.
fn claimed(hand: u32, steps: u32) -> usize {
    let mut walk = Walk::of_claim(CONNTRACK_SLOTS, hand, NOW);
    (0..steps).for_each(|_| walk.step());
    usize::try_from(walk.number()).expect("a small table")
}

/// The last slot below the number that A looks at when it is at its budget.
fn swept_below(limit: u32) -> usize {
    let mut walk = Walk::of_sweep(CONNTRACK_SLOTS, &tcp_slot().key, NOW);
    let mut last = None;
    for _ in 0..SWEEP {
        last = if walk.number() < limit { Some(walk.number()) } else { last };
        walk.step();
    }
    usize::try_from(last.expect("half of the slots")).expect("a small table")
}

fn table_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let open = |name| tcp_from_a(name, SYN);
    vec![
        open("a full table refuses, and evicts nobody")
            .with(|memory| fill(memory, B_NUMBER, 0, CONNTRACK_SLOTS))
            .dropped(A_NUMBER, Why::ConntrackFull),
        open("an expired slot in reach is reclaimed")
            .with(|memory| {
                fill(memory, B_NUMBER, 0, CONNTRACK_SLOTS);
                expire(memory, claimed(0, TRIES - 1));
            })
            .a_reaches_r(),
        open("an expired slot out of reach is not")
            .with(|memory| {
                fill(memory, B_NUMBER, 0, CONNTRACK_SLOTS);
                expire(memory, claimed(0, TRIES));
            })
            .dropped(A_NUMBER, Why::ConntrackFull),
        open("the hand says where to look")
            .with(|memory| {
                fill(memory, B_NUMBER, 0, CONNTRACK_SLOTS);
                expire(memory, claimed(u32::MAX, TRIES - 1));
                memory.ct_hand = u32::MAX;
            })
            .a_reaches_r(),
        open("a long run of live slots keeps nobody out")
            .with(|memory| fill(memory, B_NUMBER, 0, CONNTRACK_SLOTS - 48))
            .a_reaches_r(),
        open("a slot that another cpu fills is nobody's")
            .with(|memory| {
                fill(memory, B_NUMBER, 0, CONNTRACK_SLOTS);
                let number = claimed(0, 0);
                expire(memory, number);
                memory.ct_slots[number].state = CtState::Taken as u8;
            })
            .dropped(A_NUMBER, Why::ConntrackFull),
        open("a slot of a port that is gone is reclaimed")
            .with(|memory| {
                fill(memory, 99, 0, CONNTRACK_SLOTS);
                memory.ct_used.remove(&99);
            })
            .a_reaches_r(),
    ]
}

fn budget_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let open = |name| tcp_from_a(name, SYN);
    vec![
        open("a port at its budget is refused")
            .with(|memory| fill(memory, A_NUMBER, 0, 64))
            .dropped(A_NUMBER, Why::ConntrackPortBudget),
        open("a port at its budget reclaims its own expired connection")
            .with(|memory| {
                fill(memory, A_NUMBER, 0, 64);
                expire(memory, swept_below(64));
            })
            .a_reaches_r(),
        open("a port at its budget reclaims its own closed connection")
            .with(|memory| {
                fill(memory, A_NUMBER, 0, 64);
                memory.ct_slots[swept_below(64)].state = CtState::Closed as u8;
            })
            .a_reaches_r(),
        open("a port at its budget finds its expired connections far from the hand")
            .with(|memory| {
                fill(memory, A_NUMBER, 150, 64);
                (150..214).for_each(|slot| expire(memory, slot));
            })
            .a_reaches_r(),
        open("a port at its budget does not profit from another's expired connection")
            .with(|memory| {
                fill(memory, A_NUMBER, 0, 64);
                fill(memory, B_NUMBER, 64, 8);
                expire(memory, 66);
            })
            .dropped(A_NUMBER, Why::ConntrackPortBudget),
        udp_to_a("others leave a port an eighth of its budget")
            .with(|memory| fill(memory, A_NUMBER, 0, 56))
            .dropped(A_NUMBER, Why::ConntrackPortBudget),
        udp_to_a("and have the rest").with(|memory| fill(memory, A_NUMBER, 0, 55)).reaches_a(),
        open("the eighth is for connections of its own")
            .with(|memory| fill(memory, A_NUMBER, 0, 63))
            .a_reaches_r(),
        open("a port without a count is closed")
            .with(|memory| {
                memory.ct_used.remove(&A_NUMBER);
            })
            .dropped(A_NUMBER, Why::ConntrackPortBudget),
    ]
}

fn policy_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let old = GENERATION - 1;
    let by_remote = CtSlot { initiator: 2, generation: old, ..tcp_slot() };
    let denied = CtSlot { allowed: 0, ..tcp_slot() };
    vec![
        tcp_to_a("a new generation asks again, and allows what the port opened", ACK)
            .with(|memory| {
                memory.put_connection(0, CtSlot { generation: old, ..tcp_slot() });
            })
            .with(closed)
            .leaves(&[now(tcp_slot(), CtState::Established)])
            .reaches_a(),
        tcp_to_a("a new generation asks again, and denies what the other end opened", ACK)
            .with(|memory| memory.put_connection(0, by_remote))
            .with(closed)
            .leaves(&[CtSlot { initiator: 2, ..denied }])
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("which holds for both directions", ACK)
            .with(|memory| {
                memory.put_connection(0, by_remote);
                memory.ct_slots[0].source_net = 7;
            })
            .leaves(&[CtSlot { initiator: 2, source_net: 7, ..denied }])
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("a denied connection stays denied", ACK)
            .with(|memory| memory.put_connection(0, denied))
            .dropped(A_NUMBER, Why::PolicyDenied),
    ]
}

/// An ICMP error from R to A that quotes a packet.
fn error_v4(name: &'static str, kind: (u8, u8), quoted: &Ip) -> Vector {
    let message = icmp(kind.0, kind.1, [0, 0, 5, 0x14], &quoted.bytes());
    from_r(name, Ip::new(R.v4, A.v4, 1, message).frame(A.mac, R.mac))
}

fn error_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let quoted = Ip::new(A.v4, R.v4, 17, udp(1000, 53));
    let quoted_v6 = Ip::new(A.v6, R.v6, 6, tcp(1000, 80, ACK));
    let slot_v6 = connection((A.v6, 1000), (R.v6, 80), 6);
    let too_big = icmp(2, 0, [0, 0, 5, 0], &quoted_v6.bytes());
    let received = Ip::new(R.v4, A.v4, 17, udp(53, 1000));
    let unreachable = icmp(3, 3, [0; 4], &received.bytes());
    let quoted_echo = Ip::new(A.v4, R.v4, 1, icmp(8, 0, [0, 7, 0, 1], &[]));
    let mut short = error_v4("an error that quotes too little", (3, 4), &quoted);
    short.before.frame.truncate(14 + 20 + 8 + 20 + 2);
    short.meta.length = 14 + 20 + 8 + 20 + 2;
    short.before.frame[17] = 20 + 8 + 20 + 2;
    vec![
        error_v4("fragmentation needed reaches the sender", (3, 4), &quoted)
            .with(|memory| memory.put_connection(0, udp_slot()))
            .with(closed)
            .reaches_a(),
        error_v4("time exceeded about an echo reaches the sender", (11, 0), &quoted_echo)
            .with(|memory| memory.put_connection(0, connection((A.v4, 7), (R.v4, 7), 1)))
            .with(closed)
            .reaches_a(),
        from_r("packet too big reaches the sender", {
            Ip::new(R.v6, A.v6, 58, too_big).frame(A.mac, R.mac)
        })
        .with(|memory| memory.put_connection(0, slot_v6))
        .with(closed)
        .reaches_a(),
        from_a("port unreachable leaves a port", a_to(R, &Ip::new(A.v4, R.v4, 1, unreachable)))
            .with(|memory| {
                memory.put_connection(0, CtSlot { initiator: 2, state: 1, ..udp_slot() });
            })
            .a_reaches_r(),
        error_v4("an error about no connection", (3, 4), &quoted)
            .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        error_v4("an error about an expired connection", (3, 4), &quoted)
            .with(|memory| {
                memory.put_connection(0, udp_slot());
                expire(memory, 0);
            })
            .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        short.dropped(A_NUMBER, Why::Malformed),
    ]
}
