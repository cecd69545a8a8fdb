//! Policies about single packets: stateless rules, connections that are none any more, fragments, and what
//! goes to several.

use super::frame::{Ip, icmp, tcp, udp};
use super::policy::{
    ACK, RST, SYN, SYN_ACK, TCP, UDP, egress, ingress, opened_by_r, out_of_a, port, to_a, with,
};
use super::rules::Rule;
use super::world::{
    A, A_IFINDEX, A_NUMBER, GENERATION, R, a_to, connection, earlier, from_a, from_r, now,
};
use super::{Memory, Vector};
use crate::{CtSlot, CtState, DropReason, Mac, Net, Port};

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = stateless_vectors();
    vectors.extend(message_vectors());
    vectors.extend(answer_vectors());
    vectors.extend(no_longer_vectors());
    vectors.extend(fragment_vectors());
    vectors.extend(flood_vectors());
    vectors
}

fn stateless_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let ssh = Rule::accept(5).ports(TCP, 22, 22).stateless();
    vec![
        ingress(to_a("a stateless rule opens nothing", 22, SYN), &[ssh], false)
            .leaves(&[])
            .reaches_a(),
        ingress(to_a("what continues nothing passes by a stateless rule", 22, RST), &[ssh], false)
            .leaves(&[])
            .reaches_a(),
        ingress(to_a("a stateless rule for another port", 23, RST), &[ssh], false).denied(
            A_NUMBER,
            Why::PolicyIngress,
            0,
        ),
        ingress(
            to_a("a rule for connections does not let in what continues nothing", 23, RST),
            &[ssh, Rule::accept(6)],
            false,
        )
        .dropped(A_NUMBER, Why::NoConnection),
        egress(out_of_a("an answer by a rule of its own", SYN_ACK), &[web()], false)
            .leaves(&[])
            .a_reaches_r(),
        egress(
            ingress(out_of_a("an answer by a rule for connections", SYN_ACK), &[ssh], false),
            &[Rule::accept(6)],
            false,
        )
        .leaves(&[])
        .a_reaches_r(),
        egress(
            ingress(out_of_a("an answer that nothing allows", SYN_ACK), &[ssh], false),
            &[],
            false,
        )
        .denied(A_NUMBER, Why::PolicyEgress, 0),
        egress(
            ingress(
                out_of_a("an answer to what no stateless rule lets in", SYN_ACK),
                &[web()],
                true,
            ),
            &[],
            true,
        )
        .dropped(A_NUMBER, Why::NoConnection),
        ingress(to_a("a stateless rule that denies", 22, SYN), &[Rule::deny(5).stateless()], true)
            .denied(A_NUMBER, Why::PolicyIngress, 5),
    ]
}

/// ICMP that is no part of a connection, by stateless rules and by others.
fn message_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let ssh = Rule::accept(5).ports(TCP, 22, 22).stateless();
    let v4 = |name, message| from_r(name, Ip::new(R.v4, A.v4, 1, message).frame(A.mac, R.mac));
    let quoted = Ip::new(A.v4, R.v4, TCP, tcp(22, 80, ACK));
    let too_big = || icmp(3, 4, [0, 0, 5, 0], &quoted.bytes());
    let timestamp = || icmp(13, 0, [0, 7, 0, 1], &[0; 12]);
    let control = Rule::accept(7).of(1).stateless();
    vec![
        ingress(v4("an error by a stateless rule", too_big()), &[control], false)
            .leaves(&[])
            .reaches_a(),
        ingress(
            v4("an error about what a stateless rule let in", too_big()),
            &[ssh, Rule::accept(8)],
            false,
        )
        .leaves(&[])
        .reaches_a(),
        ingress(v4("an error about what no stateless rule let in", too_big()), &[web()], true)
            .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        ingress(v4("any message by a stateless rule", timestamp()), &[control], false).reaches_a(),
        ingress(
            v4("any message by a rule for connections", timestamp()),
            &[Rule::accept(8)],
            false,
        )
        .dropped(A_NUMBER, Why::UnsupportedIcmp),
    ]
}

/// What the policy alone allows, of what a stateless rule lets by the other way.
fn answer_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let ssh = &[Rule::accept(5).ports(TCP, 22, 22).stateless()];
    let ping = &[Rule::accept(5).of(1).ports(1, 0x800, 0x800).stateless()];
    let out = |name, rules, flags| egress(ingress(out_of_a(name, flags), rules, false), &[], true);
    let reply = |name, rules| {
        let message = icmp(0, 0, [0, 7, 0, 1], &[0; 12]);
        let reply = from_a(name, a_to(R, &Ip::new(A.v4, R.v4, 1, message)));
        egress(ingress(reply, rules, false), &[], true)
    };
    let error = |name, rules| {
        let quoted = Ip::new(R.v4, A.v4, TCP, tcp(80, 22, SYN));
        let error = icmp(3, 3, [0; 4], &quoted.bytes());
        let error = from_a(name, a_to(R, &Ip::new(A.v4, R.v4, 1, error)));
        egress(ingress(error, rules, false), &[], true)
    };
    vec![
        out("an answer that the policy allows", ssh, SYN_ACK).leaves(&[]).a_reaches_r(),
        out("a refusal that the policy allows", ssh, RST).leaves(&[]).a_reaches_r(),
        out("an answer that the policy allows, to nothing", ping, SYN_ACK)
            .dropped(A_NUMBER, Why::NoConnection),
        reply("an echo's answer that the policy allows", ping).leaves(&[]).a_reaches_r(),
        reply("an echo's answer that the policy allows, to nothing", ssh)
            .dropped(A_NUMBER, Why::NoConnection),
        error("an error that the policy allows", ssh).leaves(&[]).a_reaches_r(),
        error("an error that the policy allows, about nothing", ping)
            .dropped(A_NUMBER, Why::UnrelatedIcmpError),
        ingress(
            egress(
                to_a("an answer to what a stateless rule lets out", 22, SYN_ACK),
                &[web()],
                false,
            ),
            &[],
            true,
        )
        .leaves(&[])
        .reaches_a(),
    ]
}

/// Whoever serves port 80.
fn web() -> Rule {
    Rule::accept(6).ports(TCP, 80, 80).stateless()
}

/// The rule of a connection has become stateless.
fn no_longer_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let old = with(opened_by_r(5), |slot| slot.generation = GENERATION - 1);
    let over = with(opened_by_r(5), |slot| slot.allowed = CtSlot::STATELESS);
    let ssh = &[Rule::accept(5).ports(TCP, 22, 22).stateless()];
    let put = |vector: Vector, tracked| vector.with(|memory| memory.put_connection(tracked));
    let reopened = with(connection((A.v4, 22), (R.v4, 80), TCP), |slot| slot.rule = 8);
    vec![
        put(ingress(to_a("a connection whose rule is stateless now", 22, ACK), ssh, false), old)
            .leaves(&[over])
            .reaches_a(),
        put(ingress(to_a("it is none from then on", 22, ACK), ssh, false), over)
            .leaves(&[over])
            .reaches_a(),
        put(
            egress(
                ingress(out_of_a("so its answers are none", SYN_ACK), ssh, false),
                &[Rule::accept(8)],
                false,
            ),
            old,
        )
        .leaves(&[over])
        .a_reaches_r(),
        put(
            egress(
                ingress(out_of_a("an answer that may open is an opening", SYN), ssh, false),
                &[Rule::accept(8)],
                false,
            ),
            over,
        )
        .leaves(&[over])
        .dropped(A_NUMBER, Why::NoConnection),
        put(
            ingress(
                to_a("a stateless rule that is one for connections again", 22, ACK),
                &[Rule::accept(5).ports(TCP, 22, 22)],
                false,
            ),
            with(over, |slot| slot.generation = GENERATION - 1),
        )
        .leaves(&[now(opened_by_r(5), CtState::Established)])
        .reaches_a(),
        put(
            egress(out_of_a("what is over may be opened anew", SYN), &[Rule::accept(8)], false),
            earlier(over, CtState::Closed),
        )
        .leaves(&[now(reopened, CtState::Opening)])
        .a_reaches_r(),
    ]
}

fn fragment_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let fragment = |field: u16| {
        let payload = if field & 0x1fff == 0 { udp(1, 22) } else { vec![0xff; 16] };
        let packet = Ip { fragment: field, ..Ip::new(R.v4, A.v4, UDP, payload) };
        packet.frame(A.mac, R.mac)
    };
    let rule = |is_stateless| Rule { is_stateless, ..Rule::accept(5).ports(UDP, 22, 22) };
    let first = |is_stateless| {
        ingress(from_r("the first of fragments", fragment(0x2000)), &[rule(is_stateless)], false)
    };
    let after = |first: Vector| {
        let (_, left) = first.run();
        move |memory: &mut Memory| {
            memory.fragments = left.fragments;
            memory.buckets = left.buckets;
        }
    };
    let later =
        |name, is_stateless| ingress(from_r(name, fragment(2)), &[rule(is_stateless)], false);
    vec![
        later("a later fragment of what a rule lets in", false)
            .with(after(first(false)))
            .reaches_a(),
        later("a later fragment of what a stateless rule lets in", true)
            .with(after(first(true)))
            .reaches_a(),
        ingress(first(false), &[Rule::deny(6)], false).denied(A_NUMBER, Why::PolicyIngress, 6),
        later("a later fragment after another policy", false)
            .with(after(first(false)))
            .with(|memory| port(memory, A_IFINDEX).generation += 1)
            .dropped(A_NUMBER, Why::FragmentAlone),
        later("a later fragment after a change of members", false)
            .with(after(first(false)))
            .with(|memory| {
                port(memory, A_IFINDEX).rules |= Port::HAS_MEMBERS;
                memory.config.members += 1;
            })
            .dropped(A_NUMBER, Why::FragmentAlone),
    ]
}

/// What goes to several, from port A in an open network.
fn flood_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let group = Mac([1, 0, 0x5e, 0, 0, 5]);
    let open = |name, packet: Ip, to: Mac| {
        from_a(name, packet.frame(to, A.mac)).with(|memory| {
            memory.nets.insert(1, Net::open());
        })
    };
    let broadcast = |name| open(name, Ip::new(A.v4, "10.0.0.255", UDP, udp(2, 99)), Mac::BROADCAST);
    let flooded = |vector: Vector| {
        vector.sent(A_NUMBER).verdict(crate::Verdict::Flood { net: 1, sender: A_NUMBER })
    };
    let igmp = Ip::new(A.v4, "224.0.0.22", 2, vec![0x22, 0, 0, 0, 0, 0, 0, 0]);
    let part = |name, field| {
        let payload = if field & 0x1fff == 0 { udp(2, 99) } else { vec![0xff; 16] };
        let packet = Ip::new(A.v4, "224.0.0.5", UDP, payload);
        open(name, Ip { fragment: field, ..packet }, group)
    };
    let allowed = &[Rule::accept(5).ports(UDP, 99, 99)];
    let (_, left) = egress(part("the first", 0x2000), allowed, false).run();
    vec![
        flooded(egress(broadcast("a broadcast that a rule lets out"), allowed, false)),
        egress(broadcast("a broadcast that no rule lets out"), &[], false).leaves(&[]).denied(
            A_NUMBER,
            Why::PolicyEgress,
            0,
        ),
        egress(
            open(
                "a multicast that a rule denies",
                Ip::new(A.v4, "224.0.0.5", UDP, udp(2, 99)),
                group,
            ),
            &[Rule::deny(7).prefix("224.0.0.0", 4)],
            true,
        )
        .denied(A_NUMBER, Why::PolicyEgress, 7),
        flooded(egress(open("who listens to what needs no rule", igmp, group), &[], false)),
        flooded(ingress(broadcast("what a port is opened to says nothing of that"), &[], false)),
        egress(part("a later fragment of a multicast alone", 2), allowed, false)
            .dropped(A_NUMBER, Why::FragmentAlone),
        flooded(
            egress(part("a later fragment of a multicast", 2), allowed, false)
                .with(|memory| memory.fragments = left.fragments),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::policy::WEB;
    use super::super::rules::identity;
    use super::super::world::{B_IFINDEX, B_NUMBER, DOMAIN};
    use super::*;
    use crate::{Direction, Entry, Packet, PortKey, Verdict, from_port, receives};

    /// Whether B gets its copy of a broadcast of A, and by which rule not.
    fn reaches_b(rules: &[Rule], payload: Ip) -> (bool, u32) {
        let mut vector = from_a("", payload.frame(Mac::BROADCAST, A.mac));
        let memory = &mut vector.before;
        memory.nets.insert(1, Net::open());
        memory.member(DOMAIN, A.v4, &[WEB]);
        memory.police(PortKey::untagged(B_IFINDEX), Direction::ToPort, rules, false);
        port(memory, B_IFINDEX).domain = DOMAIN;
        let mut packet = Packet::default();
        from_port(memory, &vector.meta, &mut packet);
        assert_eq!(packet.verdict, Verdict::Flood { net: 1, sender: A_NUMBER });
        let key = PortKey::untagged(B_IFINDEX);
        let gets = receives(memory, &vector.meta, Entry::FromPort, &mut packet, &key);
        assert_eq!(packet.verdict, Verdict::Flood { net: 1, sender: A_NUMBER }, "for the others");
        let dropped = u64::from(!gets);
        assert_eq!(memory.drops.get(&DropReason::PolicyIngress).copied().unwrap_or(0), dropped);
        assert_eq!(memory.traffic[&B_NUMBER].dropped_packets, dropped, "counted under B");
        assert!(memory.tracked().is_empty());
        (gets, memory.denied_by)
    }

    #[test]
    fn each_receiver_of_a_broadcast_is_asked() {
        let broadcast = || Ip::new(A.v4, "10.0.0.255", UDP, udp(2, 99));
        assert_eq!(reaches_b(&[Rule::accept(5)], broadcast()), (true, 0));
        assert_eq!(reaches_b(&[Rule::accept(5).group(WEB)], broadcast()), (true, 0));
        assert_eq!(reaches_b(&[Rule::deny(6).group(WEB)], broadcast()), (false, 6));
        assert_eq!(reaches_b(&[Rule::accept(5).ports(UDP, 2, 2)], broadcast()), (false, 0));
        assert_eq!(reaches_b(&[], Ip::new(A.v4, "224.0.0.22", 2, vec![0; 8])), (true, 0));
    }

    #[test]
    fn identities_leave_room_for_the_kind_of_a_selector() {
        assert_eq!(identity(&[0, 31]) & 3, 0);
    }
}
