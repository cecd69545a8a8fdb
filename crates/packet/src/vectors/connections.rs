//! Connection tracking: established packets, who answers whom, expiry, ICMP errors, policy.

use super::frame::{Ip, icmp, tcp, udp};
use super::world::{
    A, A_NUMBER, B, GENERATION, NOW, R, a_to, by_other, connection, earlier, from_a, from_r, now,
};
use super::{Memory, Tracked, Vector};
use crate::{CtSlot, CtState, DropReason, PortKey, tick};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const FIN_ACK: u8 = 0x11;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = lifecycle_vectors();
    vectors.extend(direction_vectors());
    vectors.extend(reopening_vectors());
    vectors.extend(expiry_vectors());
    vectors.extend(policy_vectors());
    vectors.extend(error_vectors());
    vectors.extend(forged_error_vectors());
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

/// UDP from A's port 1000 to R's port 53.
fn udp_from_a(name: &'static str) -> Vector {
    from_a(name, a_to(R, &Ip::new(A.v4, R.v4, 17, udp(1000, 53))))
}

/// An echo request (8) or reply (0) with identifier 7 from R to A.
fn echo_to_a(name: &'static str, kind: u8) -> Vector {
    let message = icmp(kind, 0, [0, 7, 0, 1], &[0; 8]);
    from_r(name, Ip::new(R.v4, A.v4, 1, message).frame(A.mac, R.mac))
}

fn tcp_slot() -> Tracked {
    connection((A.v4, 1000), (R.v4, 80), 6)
}

fn udp_slot() -> Tracked {
    connection((A.v4, 1000), (R.v4, 53), 17)
}

/// A asked R with identifier 7.
fn echo_slot() -> Tracked {
    connection((A.v4, 7), (R.v4, 0), 1)
}

/// Lets port A be in a network that the packets out of the tunnel do not come from: then only
/// answers get through, and what is let through shows what conntrack knew.
fn closed(memory: &mut Memory) {
    if let Some(port) = memory.ports.get_mut(&PortKey::untagged(1)) {
        port.net = 2;
    }
}

/// The same with other facts.
fn with(tracked: Tracked, change: impl FnOnce(&mut CtSlot)) -> Tracked {
    let mut slot = tracked.slot;
    change(&mut slot);
    Tracked { slot, ..tracked }
}

fn denied(tracked: Tracked) -> Tracked {
    with(tracked, |slot| slot.allowed = 0)
}

fn of_generation(tracked: Tracked, generation: u32) -> Tracked {
    with(tracked, |slot| slot.generation = generation)
}

fn picked_up(tracked: Tracked) -> Tracked {
    Tracked { word: tracked.word.with_picked_up(), ..tracked }
}

fn lifecycle_vectors() -> Vec<Vector> {
    use CtState::{Answered, Closed, Closing, Ending, Established, Opening, Taken};
    use DropReason as Why;
    let inwards = |name, flags, before: CtState, after: CtState| {
        tcp_to_a(name, flags)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), before)))
            .with(closed)
            .leaves(&[now(tcp_slot(), after)])
            .reaches_a()
    };
    let outwards = |name, flags, before: CtState, after: CtState| {
        tcp_from_a(name, flags)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), before)))
            .leaves(&[now(tcp_slot(), after)])
            .a_reaches_r()
    };
    vec![
        inwards("syn ack answers an opening connection", SYN_ACK, Opening, Answered),
        inwards("packet of an established connection", ACK, Established, Established),
        outwards("packet of an established connection, outwards", ACK, Established, Established),
        outwards("a packet of the initiator answers nothing", ACK, Opening, Opening),
        outwards("the opener's ack establishes", ACK, Answered, Established),
        outwards("a syn that is sent again does not", SYN, Answered, Answered),
        inwards("the initiator's fin was answered", ACK, Closing, Closing),
        outwards("the initiator is done", FIN_ACK, Established, Closing),
        inwards("the other end is done", FIN_ACK, Established, Ending),
        inwards("both ends are done", FIN_ACK, Closing, Closed),
        inwards("rst ends an established connection", RST, Established, Closed),
        outwards("syn reopens a closing connection", SYN, Closing, Opening),
        tcp_to_a("a syn ack that is sent again prolongs nothing", SYN_ACK)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), Answered)))
            .with(closed)
            .leaves(&[earlier(tcp_slot(), Answered)])
            .reaches_a(),
        tcp_to_a("a way that another cpu has taken is nobody's connection", ACK)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), Taken)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("rst belongs to no connection", RST).dropped(A_NUMBER, Why::NoConnection),
        tcp_to_a("syn ack belongs to no connection", SYN_ACK).dropped(A_NUMBER, Why::NoConnection),
        echo_to_a("echo reply answers a request", 0)
            .with(|memory| memory.put_connection(earlier(echo_slot(), Opening)))
            .with(closed)
            .leaves(&[now(echo_slot(), Answered)])
            .reaches_a(),
        echo_to_a("echo reply nobody asked for", 0).dropped(A_NUMBER, Why::NoConnection),
        udp_to_a("udp reply answers a query")
            .with(|memory| memory.put_connection(earlier(udp_slot(), Opening)))
            .with(closed)
            .leaves(&[now(udp_slot(), Answered)])
            .reaches_a(),
        udp_from_a("udp that goes on after an answer is established")
            .with(|memory| memory.put_connection(earlier(udp_slot(), Answered)))
            .leaves(&[now(udp_slot(), Established)])
            .a_reaches_r(),
        udp_to_a("udp that is answered once and goes on from the other end stays so")
            .with(|memory| memory.put_connection(earlier(udp_slot(), Answered)))
            .with(closed)
            .leaves(&[now(udp_slot(), Answered)])
            .reaches_a(),
    ]
}

/// Which end opens and which end answers.
fn direction_vectors() -> Vec<Vector> {
    use CtState::{Established, Opening};
    use DropReason as Why;
    let asked_by_r = by_other(connection((A.v4, 0), (R.v4, 7), 1));
    vec![
        echo_to_a("an echo request is no answer to one with the same identifier", 8)
            .with(|memory| memory.put_connection(echo_slot()))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        echo_to_a("two ends may ask each other with the same identifier", 8)
            .with(|memory| memory.put_connection(echo_slot()))
            .leaves(&[echo_slot(), now(asked_by_r, Opening)])
            .reaches_a(),
        tcp_to_a("a syn is no answer to a syn", SYN)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), Opening)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("nor does one belong to what the port has opened", SYN)
            .with(|memory| memory.put_connection(tcp_slot()))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("both ends may open at once", SYN)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), Opening)))
            .leaves(&[earlier(tcp_slot(), Opening)])
            .reaches_a(),
        tcp_from_a("ack picks up a connection that the table lost", ACK)
            .leaves(&[picked_up(now(tcp_slot(), Opening))])
            .a_reaches_r(),
        tcp_to_a("whoever opened it", ACK)
            .leaves(&[picked_up(by_other(now(tcp_slot(), Opening)))])
            .reaches_a(),
        tcp_to_a("a policy that has changed asks about both ends of such a one", ACK)
            .with(|memory| {
                let before = of_generation(tcp_slot(), GENERATION - 1);
                memory.put_connection(picked_up(before));
            })
            .with(closed)
            .leaves(&[denied(picked_up(tcp_slot()))])
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("a connection that was picked up is established by both ends", ACK)
            .with(|memory| {
                memory.put_connection(picked_up(earlier(tcp_slot(), CtState::Answered)));
            })
            .leaves(&[picked_up(now(tcp_slot(), Established))])
            .a_reaches_r(),
    ]
}

/// A new SYN on the ports of a connection that is over.
fn reopening_vectors() -> Vec<Vector> {
    use CtState::{Closed, Closing, Ending, Opening};
    let mut vectors = vec![
        tcp_to_a("syn from the other end reopens a closing connection", SYN)
            .with(|memory| memory.put_connection(earlier(tcp_slot(), Closing)))
            .leaves(&[by_other(now(tcp_slot(), Opening))])
            .reaches_a(),
        tcp_from_a("a connection that was denied reopens if it may", SYN)
            .with(|memory| memory.put_connection(denied(earlier(tcp_slot(), Closed))))
            .leaves(&[now(tcp_slot(), Opening)])
            .a_reaches_r(),
        tcp_from_a("what was picked up reopens as what it is", SYN)
            .with(|memory| memory.put_connection(picked_up(earlier(tcp_slot(), Closed))))
            .leaves(&[now(tcp_slot(), Opening)])
            .a_reaches_r(),
    ];
    for (name, state, generation) in [
        ("a denied syn leaves a closing connection as it was", Closing, GENERATION),
        ("a denied syn leaves an ending connection as it was", Ending, GENERATION),
        ("a denied syn leaves a closed connection of an old generation", Closed, GENERATION - 1),
    ] {
        let over = of_generation(earlier(tcp_slot(), state), generation);
        let denied = tcp_to_a(name, SYN)
            .with(|memory| memory.put_connection(over))
            .with(closed)
            .dropped(A_NUMBER, DropReason::PolicyDenied);
        vectors.push(denied);
    }
    vectors
}

fn expiry_vectors() -> Vec<Vector> {
    use CtState::{Closed, Established, Opening};
    use DropReason as Why;
    let until = |tracked: Tracked, tick: u64| Tracked { word: tracked.word.until(tick), ..tracked };
    let last = move |tracked| until(tracked, tick(NOW));
    let over = move |tracked| until(tracked, tick(NOW) - 1);
    let single = earlier(udp_slot(), Opening);
    let done = earlier(tcp_slot(), Closed);
    vec![
        udp_to_a("udp reply at the last moment")
            .with(|memory| memory.put_connection(last(udp_slot())))
            .with(closed)
            .leaves(&[now(udp_slot(), Established)])
            .reaches_a(),
        udp_to_a("udp reply too late")
            .with(|memory| memory.put_connection(over(udp_slot())))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        udp_to_a("first udp reply too late")
            .with(|memory| memory.put_connection(over(single)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("tcp connection idle for two hours", ACK)
            .with(|memory| memory.put_connection(last(tcp_slot())))
            .with(closed)
            .reaches_a(),
        tcp_to_a("tcp connection idle for longer", ACK)
            .with(|memory| memory.put_connection(over(tcp_slot())))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("the last ack of a closed connection", ACK)
            .with(|memory| memory.put_connection(last(done)))
            .with(closed)
            .reaches_a(),
        tcp_to_a("a closed connection is soon forgotten", ACK)
            .with(|memory| memory.put_connection(over(done)))
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("an expired connection opens again", SYN)
            .with(|memory| memory.put_connection(over(tcp_slot())))
            .leaves(&[over(tcp_slot()), now(tcp_slot(), Opening)])
            .a_reaches_r(),
        tcp_to_a("a packet from the clock of another cpu", ACK)
            .with(|memory| {
                let ahead = now(tcp_slot(), Established);
                memory.put_connection(until(ahead, tick(NOW) + crate::ticks(7_440) + 1));
            })
            .with(closed)
            .reaches_a(),
        udp_to_a("what another port had is nobody's")
            .with(|memory| {
                memory.put_connection(udp_slot());
                let port = memory.ports.get_mut(&PortKey::untagged(1));
                port.expect("port A").zone += 1;
            })
            .with(closed)
            .dropped(A_NUMBER, Why::PolicyDenied),
    ]
}

fn policy_vectors() -> Vec<Vector> {
    use CtState::Established;
    use DropReason as Why;
    let old = |tracked| of_generation(tracked, GENERATION - 1);
    let by_remote = by_other(tcp_slot());
    let foreign = with(by_remote, |slot| slot.source_net = 7);
    vec![
        tcp_to_a("a new generation asks again, and allows what the port opened", ACK)
            .with(|memory| memory.put_connection(old(tcp_slot())))
            .with(closed)
            .leaves(&[now(tcp_slot(), Established)])
            .reaches_a(),
        tcp_to_a("a new generation asks again, and denies what the other end opened", ACK)
            .with(|memory| memory.put_connection(old(by_remote)))
            .with(closed)
            .leaves(&[denied(by_remote)])
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_from_a("which holds for both directions", ACK)
            .with(|memory| memory.put_connection(old(foreign)))
            .leaves(&[denied(foreign)])
            .dropped(A_NUMBER, Why::PolicyDenied),
        tcp_to_a("a denied connection stays denied", ACK)
            .with(|memory| memory.put_connection(denied(tcp_slot())))
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
            .with(|memory| memory.put_connection(udp_slot()))
            .with(closed)
            .reaches_a(),
        error_v4("time exceeded about an echo reaches the sender", (11, 0), &quoted_echo)
            .with(|memory| memory.put_connection(echo_slot()))
            .with(closed)
            .reaches_a(),
        from_r("packet too big reaches the sender", {
            Ip::new(R.v6, A.v6, 58, too_big).frame(A.mac, R.mac)
        })
        .with(|memory| memory.put_connection(slot_v6))
        .with(closed)
        .reaches_a(),
        from_a("port unreachable leaves a port", a_to(R, &Ip::new(A.v4, R.v4, 1, unreachable)))
            .with(|memory| {
                memory.put_connection(earlier(by_other(udp_slot()), CtState::Opening));
            })
            .a_reaches_r(),
        error_v4("an error about no connection", (3, 4), &quoted)
            .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        error_v4("an error about an expired connection", (3, 4), &quoted)
            .with(|memory| {
                let word = udp_slot().word.until(tick(NOW) - 1);
                memory.put_connection(Tracked { word, ..udp_slot() });
            })
            .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        short.dropped(A_NUMBER, Why::Malformed),
    ]
}

/// Errors that somebody makes up.
fn forged_error_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let quoted = Ip::new(A.v4, R.v4, 17, udp(1000, 53));
    let step = u16::try_from(NOW >> 27 & 0x7fff | 0x8000).expect("fifteen bits");
    let elsewhere = |destination: &'static str| {
        let message = icmp(3, 4, [0, 0, 5, 0x14], &quoted.bytes());
        Ip::new(R.v4, destination, 1, message)
    };
    let received = Ip::new(R.v4, A.v4, 17, udp(53, 1000));
    let unreachable = icmp(3, 3, [0; 4], &received.bytes());
    vec![
        from_r("an error to an address that the port does not have", {
            elsewhere("10.0.0.77").frame(A.mac, R.mac)
        })
        .with(|memory| memory.put_connection(udp_slot()))
        .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        from_a("an error to somebody who did not send what it quotes", {
            a_to(B, &Ip::new(A.v4, B.v4, 1, unreachable))
        })
        .with(|memory| memory.put_connection(by_other(udp_slot())))
        .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        error_v4("an error is noted", (3, 4), &quoted)
            .with(|memory| memory.put_connection(udp_slot()))
            .leaves(&[with(udp_slot(), |slot| slot.error_step = step)])
            .reaches_a(),
        error_v4("another one at once is one too many", (3, 4), &quoted)
            .with(|memory| memory.put_connection(with(udp_slot(), |slot| slot.error_step = step)))
            .dropped(A_NUMBER, Why::IcmpErrorRate),
        error_v4("a while later it is not", (3, 4), &quoted)
            .with(|memory| {
                memory.put_connection(with(udp_slot(), |slot| slot.error_step = step - 1));
            })
            .reaches_a(),
    ]
}
