//! Policies: whose rule decides, and what is cut when a rule or a member goes. What is for single
//! packets: `singles`.

use super::frame::{Ip, icmp, tcp, udp};
use super::rules::Rule;
use super::world::{
    A, A_IFINDEX, A_NUMBER, B, B_IFINDEX, B_NUMBER, DOMAIN, GENERATION, MTU, R, a_to, addr,
    by_other, connection, earlier, from_a, from_r, now,
};
use super::{Memory, Tracked, Vector};
use crate::{
    Addr, Behind, CtSlot, CtState, Direction, DropReason, LINK_LOCAL_DOMAIN, Port, PortKey,
    PrefixKey,
};

pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const WEB: u32 = 3;
const ELSEWHERE: u32 = 71;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = order_vectors();
    vectors.extend(identity_vectors());
    vectors.extend(domain_vectors());
    vectors.extend(egress_vectors());
    vectors.extend(range_vectors());
    vectors.extend(protocol_vectors());
    vectors.extend(picked_up_vectors());
    vectors.extend(cut_vectors());
    vectors.extend(membership_vectors());
    vectors
}

/// What A is opened to: these rules, and what becomes of the rest.
pub(super) fn ingress(vector: Vector, rules: &[Rule], accepts: bool) -> Vector {
    vector.with(|memory| {
        memory.police(PortKey::untagged(A_IFINDEX), Direction::ToPort, rules, accepts);
    })
}

/// What A opens.
pub(super) fn egress(vector: Vector, rules: &[Rule], accepts: bool) -> Vector {
    vector.with(|memory| {
        memory.police(PortKey::untagged(A_IFINDEX), Direction::FromPort, rules, accepts);
    })
}

/// R is in this group.
fn with_member(vector: Vector) -> Vector {
    vector.with(|memory| memory.member(DOMAIN, R.v4, &[WEB]))
}

/// A TCP packet from R's port 80 to this port of A.
pub(super) fn to_a(name: &'static str, port: u16, flags: u8) -> Vector {
    from_r(name, Ip::new(R.v4, A.v4, TCP, tcp(80, port, flags)).frame(A.mac, R.mac))
}

/// A TCP packet from A's port 22 to R's port 80.
pub(super) fn out_of_a(name: &'static str, flags: u8) -> Vector {
    from_a(name, a_to(R, &Ip::new(A.v4, R.v4, TCP, tcp(22, 80, flags))))
}

impl Vector {
    /// Dropped by this rule of the port, on the way to it or from it.
    pub(super) fn denied(self, port: u32, reason: DropReason, rule: u32) -> Vector {
        Vector { rule, ..self.dropped(port, reason) }
    }
}

/// R has opened a TCP connection to A's port 22, as this rule allows.
pub(super) fn opened_by_r(rule: u32) -> Tracked {
    by_other(with(connection((A.v4, 22), (R.v4, 80), TCP), |slot| slot.rule = rule))
}

pub(super) fn with(tracked: Tracked, change: impl FnOnce(&mut CtSlot)) -> Tracked {
    let mut slot = tracked.slot;
    change(&mut slot);
    Tracked { slot, ..tracked }
}

fn order_vectors() -> Vec<Vector> {
    use DropReason::PolicyIngress;
    let ssh = |rule: Rule| rule.ports(TCP, 22, 22);
    let wide = Rule::accept(7).prefix("10.0.0.0", 8);
    vec![
        to_a("a port without a policy lets in its network", 22, SYN).reaches_a(),
        ingress(
            to_a("a rule lets in what the rest does not", 22, SYN),
            &[ssh(Rule::accept(5))],
            false,
        )
        .leaves(&[now(opened_by_r(5), CtState::Opening)])
        .reaches_a(),
        ingress(to_a("what no rule lets in", 23, SYN), &[ssh(Rule::accept(5))], false)
            .leaves(&[])
            .denied(A_NUMBER, PolicyIngress, 0),
        ingress(to_a("a rule that denies is named", 22, SYN), &[ssh(Rule::deny(5))], true).denied(
            A_NUMBER,
            PolicyIngress,
            5,
        ),
        ingress(to_a("a policy without rules", 22, SYN), &[], true).reaches_a(),
        ingress(
            to_a("the earlier of two rules denies", 22, SYN),
            &[ssh(Rule::deny(5)), Rule::accept(6)],
            true,
        )
        .denied(A_NUMBER, PolicyIngress, 5),
        ingress(
            to_a("the earlier of two rules allows", 22, SYN),
            &[Rule::accept(6), ssh(Rule::deny(5))],
            false,
        )
        .reaches_a(),
        ingress(
            to_a("an earlier rule about more addresses", 22, SYN),
            &[wide, Rule::deny(8).prefix(R.v4, 32)],
            false,
        )
        .reaches_a(),
        ingress(
            to_a("an earlier rule about fewer addresses", 22, SYN),
            &[Rule::deny(8).prefix(R.v4, 32), wide],
            false,
        )
        .denied(A_NUMBER, PolicyIngress, 8),
        ingress(
            to_a("an address next to those of a rule", 22, SYN),
            &[Rule::accept(8).prefix("10.0.0.8", 32), Rule::accept(9).prefix("10.0.0.10", 31)],
            false,
        )
        .denied(A_NUMBER, PolicyIngress, 0),
        ingress(to_a("a rule of the other family", 22, SYN), &[Rule::accept(5).v6()], false)
            .denied(A_NUMBER, PolicyIngress, 0),
        ingress(to_a("a connection from another network, whatever rules say", 22, SYN), &[], true)
            .with(|memory| port(memory, A_IFINDEX).net = 2)
            .dropped(A_NUMBER, DropReason::PolicyDenied),
    ]
}

pub(super) fn port(memory: &mut Memory, ifindex: u32) -> &mut Port {
    memory.ports.get_mut(&PortKey::untagged(ifindex)).expect("a port")
}

fn identity_vectors() -> Vec<Vector> {
    use DropReason::PolicyIngress;
    let group = Rule::accept(5).group(WEB);
    let prefix = Rule::deny(6).prefix("10.0.0.0", 8);
    let known = |name| with_member(to_a(name, 22, SYN));
    vec![
        ingress(known("a member of a group"), &[group, prefix], false)
            .leaves(&[now(
                with(opened_by_r(5), |slot| slot.identity = 1 << (WEB + 2) ^ GENERATION),
                CtState::Opening,
            )])
            .reaches_a(),
        ingress(known("a member whose address is denied before"), &[prefix, group], true).denied(
            A_NUMBER,
            PolicyIngress,
            6,
        ),
        ingress(known("a member of another group"), &[Rule::accept(5).group(4)], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
        ingress(to_a("a member of none", 22, SYN), &[group], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
        ingress(
            to_a("a member in another routing domain", 22, SYN)
                .with(|memory| memory.member(ELSEWHERE, R.v4, &[WEB])),
            &[group],
            false,
        )
        .denied(A_NUMBER, PolicyIngress, 0),
        ingress(
            known("a member of two groups, of which one is denied"),
            &[Rule::deny(4).group(WEB + 1), group],
            false,
        )
        .with(|memory| memory.member(DOMAIN, R.v4, &[WEB, WEB + 1]))
        .with(|memory| {
            let key = PortKey::untagged(A_IFINDEX);
            let rules = [Rule::deny(4).group(WEB + 1), group];
            memory.police(key, Direction::ToPort, &rules, false);
        })
        .denied(A_NUMBER, PolicyIngress, 4),
    ]
}

/// In which domain somebody is looked for whose address says nothing of it, or the port's own does not.
fn domain_vectors() -> Vec<Vector> {
    use DropReason::PolicyIngress;
    let group = Rule::accept(5).group(WEB);
    let own = Addr::link_local(R.mac);
    let link_local = std::net::Ipv6Addr::from(own.octets()).to_string();
    let from_link = |name| {
        let packet = Ip::new(&link_local, A.v6, TCP, tcp(80, 22, SYN));
        from_r(name, packet.frame(A.mac, R.mac))
    };
    let to_prefix = |name| {
        let packet = Ip::new(R.v4, "192.168.7.7", TCP, tcp(80, 22, SYN));
        from_r(name, packet.frame(A.mac, R.mac)).with(|memory| {
            let key = PrefixKey::new(1, addr("192.168.7.0"), 24);
            memory.behind.insert(key, Behind::local(A.mac, MTU));
            port(memory, A_IFINDEX).domain = ELSEWHERE;
        })
    };
    vec![
        ingress(
            from_link("a member by its link-local address")
                .with(|memory| memory.member(LINK_LOCAL_DOMAIN | 1, &link_local, &[WEB])),
            &[group.v6()],
            false,
        )
        .reaches_a(),
        ingress(
            from_link("a link-local address of another network")
                .with(|memory| memory.member(LINK_LOCAL_DOMAIN | 2, &link_local, &[WEB])),
            &[group.v6()],
            false,
        )
        .denied(A_NUMBER, PolicyIngress, 0),
        ingress(
            to_prefix("a member that speaks to what is behind a port")
                .with(|memory| memory.member(ELSEWHERE, R.v4, &[WEB])),
            &[group],
            false,
        )
        .reaches_a(),
        ingress(with_member(to_prefix("a member elsewhere that does")), &[group], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
    ]
}

fn egress_vectors() -> Vec<Vector> {
    use DropReason::{PolicyEgress, PolicyIngress};
    let guard_b = |rule: Rule| {
        move |memory: &mut Memory| {
            memory.member(DOMAIN, A.v4, &[WEB]);
            memory.police(PortKey::untagged(B_IFINDEX), Direction::ToPort, &[rule], false);
        }
    };
    let a_to_b = |name| from_a(name, a_to(B, &Ip::new(A.v4, B.v4, TCP, tcp(22, 80, SYN))));
    let answer = with(connection((A.v4, 22), (R.v4, 80), TCP), |slot| slot.rule = 9);
    vec![
        egress(out_of_a("what a port may not open", SYN), &[], false).leaves(&[]).denied(
            A_NUMBER,
            PolicyEgress,
            0,
        ),
        egress(
            out_of_a("what a rule forbids a port", SYN),
            &[Rule::deny(9).ports(TCP, 80, 80)],
            true,
        )
        .denied(A_NUMBER, PolicyEgress, 9),
        egress(
            out_of_a("the port of the other end is asked for", SYN),
            &[Rule::accept(9).ports(TCP, 80, 80)],
            false,
        )
        .leaves(&[now(answer, CtState::Opening)])
        .a_reaches_r(),
        egress(out_of_a("and not the own one", SYN), &[Rule::accept(9).ports(TCP, 22, 22)], false)
            .denied(A_NUMBER, PolicyEgress, 0),
        ingress(to_a("an answer needs no rule", 22, SYN_ACK), &[], false)
            .with(|memory| memory.put_connection(earlier(answer, CtState::Opening)))
            .reaches_a(),
        egress(out_of_a("an answer of the port neither", SYN_ACK), &[], false)
            .with(|memory| memory.put_connection(earlier(opened_by_r(5), CtState::Opening)))
            .a_reaches_r(),
        a_to_b("a neighbour on the host that lets a group in")
            .with(guard_b(Rule::accept(5).group(WEB)))
            .a_reaches_b(),
        a_to_b("a neighbour on the host that lets another group in")
            .with(guard_b(Rule::accept(5).group(WEB + 1)))
            .leaves(&[now(connection((A.v4, 22), (B.v4, 80), TCP), CtState::Opening)])
            .sent(A_NUMBER)
            .denied(B_NUMBER, PolicyIngress, 0),
        egress(
            a_to_b("a neighbour that would, and a port that may not")
                .with(guard_b(Rule::accept(5))),
            &[Rule::deny(6)],
            true,
        )
        .denied(A_NUMBER, PolicyEgress, 6),
    ]
}

fn range_vectors() -> Vec<Vector> {
    use DropReason::PolicyIngress;
    let v4 = |name, protocol, payload| {
        from_r(name, Ip::new(R.v4, A.v4, protocol, payload).frame(A.mac, R.mac))
    };
    let zero = Rule::accept(5).ports(UDP, 0, 0);
    let last = Rule::accept(5).ports(UDP, u16::MAX, u16::MAX);
    vec![
        ingress(v4("udp to the lowest port", UDP, udp(1, 0)), &[zero], false).reaches_a(),
        ingress(v4("udp above the lowest port", UDP, udp(1, 1)), &[zero], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
        ingress(v4("udp to the highest port", UDP, udp(1, u16::MAX)), &[last], false).reaches_a(),
        ingress(v4("udp below the highest port", UDP, udp(1, u16::MAX - 1)), &[last], false)
            .denied(A_NUMBER, PolicyIngress, 0),
        ingress(v4("tcp by a rule for udp", TCP, tcp(1, 0, SYN)), &[zero], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
    ]
}

fn protocol_vectors() -> Vec<Vector> {
    use DropReason::PolicyIngress;
    let v4 = |name, protocol, payload| {
        from_r(name, Ip::new(R.v4, A.v4, protocol, payload).frame(A.mac, R.mac))
    };
    let v6 = |name, protocol, payload| {
        from_r(name, Ip::new(R.v6, A.v6, protocol, payload).frame(A.mac, R.mac))
    };
    let echo = |code| icmp(8, code, [0, 7, 0, 1], &[0; 8]);
    let ping = Rule::accept(5).ports(1, 8 << 8, 8 << 8 | 0xff);
    let mut vectors = vec![
        ingress(v4("an echo request of any code", 1, echo(3)), &[ping], false).reaches_a(),
        ingress(
            v4("an echo request of another code", 1, echo(3)),
            &[Rule::accept(5).ports(1, 8 << 8, 8 << 8 | 2)],
            false,
        )
        .denied(A_NUMBER, PolicyIngress, 0),
        ingress(v4("udp by a rule for icmp", UDP, udp(1, 8 << 8)), &[ping], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
        ingress(
            v6("an echo request over ipv6", 58, icmp(128, 0, [0, 7, 0, 1], &[0; 8])),
            &[Rule::accept(5).v6().ports(58, 128 << 8, 128 << 8)],
            false,
        )
        .reaches_a(),
        ingress(
            v6("tcp over ipv6", TCP, tcp(1, 22, SYN)),
            &[Rule::accept(5).v6().prefix("fd00::", 64).ports(TCP, 22, 22)],
            false,
        )
        .reaches_a(),
        ingress(
            v6("tcp over ipv6 by a rule for ipv4", TCP, tcp(1, 22, SYN)),
            &[Rule::accept(5).prefix("0.0.0.0", 0)],
            false,
        )
        .denied(A_NUMBER, PolicyIngress, 0),
        ingress(v4("a rule for every protocol", 200, vec![0; 8]), &[Rule::accept(5)], false)
            .reaches_a(),
    ];
    for (name, other, protocol) in [
        ("ipip by its number", "ipip by another number", 4),
        ("gre by its number", "gre by another number", 47),
        ("esp by its number", "esp by another number", 50),
        ("sctp by its number", "sctp by another number", 132),
    ] {
        let rule = Rule::accept(5).of(protocol);
        vectors.push(ingress(v4(name, protocol, vec![0; 16]), &[rule], false).reaches_a());
        let other = v4(other, protocol + 1, vec![0; 16]);
        vectors.push(ingress(other, &[rule], false).denied(A_NUMBER, PolicyIngress, 0));
    }
    vectors
}

fn picked_up_vectors() -> Vec<Vector> {
    use DropReason::{PolicyEgress, PolicyIngress};
    let ssh = &[Rule::accept(5).ports(TCP, 22, 22)];
    let to_web = &[Rule::accept(6).ports(TCP, 80, 80)];
    let lost = |name| to_a(name, 22, ACK);
    vec![
        egress(
            ingress(lost("a lost connection that either end may open"), ssh, false),
            to_web,
            false,
        )
        .leaves(&[picked_up(now(opened_by_r(5), CtState::Opening))])
        .reaches_a(),
        egress(ingress(lost("one that the port may not have opened"), ssh, false), &[], false)
            .leaves(&[])
            .denied(A_NUMBER, PolicyEgress, 0),
        ingress(lost("one that the other end may not have opened"), &[], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
        ingress(out_of_a("one of which the port speaks first, neither", ACK), &[], false).denied(
            A_NUMBER,
            PolicyIngress,
            0,
        ),
    ]
}

fn picked_up(tracked: Tracked) -> Tracked {
    Tracked { word: tracked.word.with_picked_up(), ..tracked }
}

/// A rule is gone, or another one decides.
fn cut_vectors() -> Vec<Vector> {
    use CtState::Established;
    use DropReason::{PolicyEgress, PolicyIngress};
    let old = |tracked| with(tracked, |slot: &mut CtSlot| slot.generation = GENERATION - 1);
    let denied = |tracked, by, rule| {
        with(tracked, |slot: &mut CtSlot| (slot.allowed, slot.rule) = (by, rule))
    };
    let by_a = with(connection((A.v4, 22), (R.v4, 80), TCP), |slot| slot.rule = 9);
    let ssh = &[Rule::accept(6).ports(TCP, 22, 22)];
    let gone = denied(opened_by_r(5), CtSlot::DENIED_INGRESS, 0);
    let error = {
        let quoted = Ip::new(A.v4, R.v4, TCP, tcp(22, 80, ACK));
        Ip::new(R.v4, A.v4, 1, icmp(3, 4, [0, 0, 5, 0], &quoted.bytes()))
    };
    vec![
        ingress(to_a("a connection whose rule is gone", 22, ACK), &[], false)
            .with(|memory| memory.put_connection(old(opened_by_r(5))))
            .leaves(&[gone])
            .denied(A_NUMBER, PolicyIngress, 0),
        ingress(out_of_a("its answers, too", ACK), &[], false)
            .with(|memory| memory.put_connection(old(opened_by_r(5))))
            .leaves(&[gone])
            .denied(A_NUMBER, PolicyIngress, 0),
        ingress(to_a("it stays denied", 22, ACK), &[], false)
            .with(|memory| memory.put_connection(denied(opened_by_r(5), CtSlot::DENIED_INGRESS, 8)))
            .denied(A_NUMBER, PolicyIngress, 8),
        ingress(to_a("a connection that another rule allows now", 22, ACK), ssh, false)
            .with(|memory| memory.put_connection(old(opened_by_r(5))))
            .leaves(&[now(opened_by_r(6), Established)])
            .reaches_a(),
        egress(to_a("what the port opened, and may no longer", 22, ACK), &[Rule::deny(4)], true)
            .with(|memory| memory.put_connection(old(by_a)))
            .leaves(&[denied(by_a, CtSlot::DENIED_EGRESS, 4)])
            .denied(A_NUMBER, PolicyEgress, 4),
        ingress(
            to_a("what the port opened does not ask for what it is opened to", 22, ACK),
            &[],
            false,
        )
        .with(|memory| memory.put_connection(old(with(by_a, |slot| slot.rule = 0))))
        .reaches_a(),
        ingress(from_r("an error about one that is cut", error.frame(A.mac, R.mac)), &[], false)
            .with(|memory| memory.put_connection(old(opened_by_r(5))))
            .leaves(&[gone])
            .dropped(A_NUMBER, DropReason::UnrelatedIcmpError),
        egress(
            from_r("an error about one that is still allowed", error.frame(A.mac, R.mac)),
            &[],
            true,
        )
        .with(|memory| memory.put_connection(old(with(by_a, |slot| slot.rule = 0))))
        .reaches_a(),
    ]
}

/// A member is gone, or has come.
fn membership_vectors() -> Vec<Vector> {
    use CtState::Established;
    use DropReason::PolicyIngress;
    let basis = 1 << (WEB + 2) ^ GENERATION;
    let opened = with(opened_by_r(5), |slot| slot.identity = basis);
    let noted = |tracked, members: u32| {
        with(tracked, |slot: &mut CtSlot| slot.generation = GENERATION + members)
    };
    let group = &[Rule::accept(5).group(WEB)];
    let later = |vector: Vector| vector.with(|memory| memory.config.members = 4);
    let flow = |name| later(to_a(name, 22, ACK));
    let gone = with(noted(opened, 4), |slot| {
        (slot.allowed, slot.rule, slot.identity) = (CtSlot::DENIED_INGRESS, 0, GENERATION);
    });
    vec![
        ingress(flow("a connection of somebody who has left the group"), group, false)
            .with(|memory| memory.put_connection(noted(opened, 3)))
            .leaves(&[gone])
            .denied(A_NUMBER, PolicyIngress, 0),
        ingress(with_member(flow("one of somebody else who stays")), group, false)
            .with(|memory| memory.put_connection(noted(opened, 3)))
            .leaves(&[now(noted(opened, 4), Established)])
            .reaches_a(),
        // No rule is asked: it is not there any more.
        ingress(with_member(flow("who stays is not asked about again")), group, false)
            .with(|memory| {
                memory.put_connection(noted(opened, 3));
                memory.chapters.clear();
            })
            .leaves(&[now(noted(opened, 4), Established)])
            .reaches_a(),
        ingress(with_member(flow("who was denied and stays is still denied")), group, false)
            .with(|memory| {
                let denied = |slot: &mut CtSlot| slot.allowed = CtSlot::DENIED_INGRESS;
                memory.put_connection(noted(with(opened, denied), 3));
            })
            .leaves(&[noted(with(opened, |slot| slot.allowed = CtSlot::DENIED_INGRESS), 4)])
            .denied(A_NUMBER, PolicyIngress, 5),
        ingress(with_member(flow("who has come into the group")), group, false)
            .with(|memory| memory.put_connection(noted(gone, 3)))
            .leaves(&[now(noted(opened, 4), Established)])
            .reaches_a(),
        ingress(with_member(flow("nobody is looked for as long as nothing changes")), group, false)
            .with(|memory| {
                memory.put_connection(noted(opened, 4));
                memory.idents.clear();
            })
            .reaches_a(),
        ingress(flow("members mean nothing to a policy without groups"), &[Rule::accept(5)], false)
            .with(|memory| memory.put_connection(opened_by_r(5)))
            .leaves(&[now(opened_by_r(5), Established)])
            .reaches_a(),
    ]
}
