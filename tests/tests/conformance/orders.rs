//! Cases about who decides: remote groups, the order of rules and groups, policies, both ends.

use crate::{
    cases::{Case, Said, case, inward, outward},
    describe::{A, A1, A2, B, B1, B2, C, C1, C2, D, Otherwise, S, T},
};

const ALL: [usize; 6] = [A1, B1, C1, A2, B2, C2];
const OTHERWISE: [(&str, Otherwise); 3] = [
    ("ALLOW", Otherwise::Allow),
    ("DENY", Otherwise::Deny),
    ("ALLOW_UNTIL_RULE", Otherwise::AllowUntilRule),
];

pub(crate) fn all() -> Vec<Case> {
    [remotes(), rules(), groups(), policies(), both_ends(), stateless()].concat()
}

/// Three groups, each with one instance on either host.
fn three(name: &str) -> Case {
    case(name).member(&[A1, A2], &[A]).member(&[B1, B2], &[B]).member(&[C1, C2], &[C])
}

fn remotes() -> Vec<Case> {
    vec![
        three("three groups without rules"),
        three("from another group").rules(B, &[&inward().of(A)]),
        three("TCP from another group").rules(B, &[&inward().tcp("80").of(A)]),
        three("UDP from another group").rules(B, &[&inward().udp("80-81").of(A)]),
        three("ICMP from another group").rules(B, &[&inward().icmp().of(A)]),
        three("from another group in IPv4").rules(B, &[&inward().of(A).v4()]),
        three("from another group in IPv6").rules(B, &[&inward().of(A).v6()]),
        three("from two other groups")
            .rules(B, &[&inward().tcp("80").of(A), &inward().tcp("81").of(C)]),
        three("each from another group")
            .rules(A, &[&inward().of(C)])
            .rules(B, &[&inward().of(A)])
            .rules(C, &[&inward().of(B)]),
        three("two groups from each other")
            .rules(A, &[&inward().of(B)])
            .rules(B, &[&inward().of(A)]),
        three("two groups from each other at two ports")
            .rules(A, &[&inward().tcp("80").of(B)])
            .rules(B, &[&inward().tcp("81").of(A)]),
        three("from the own group alone, by a rule")
            .bare(&[A, B, C])
            .rules(B, &[&inward().tcp("80").of(B)]),
        three("no default rules").bare(&[A, B, C]),
        three("no default rules in one group").bare(&[B]),
        three("default rules are before others").rules(B, &[&inward().of(B).drop()]),
        three("not from the own group, without default rules")
            .bare(&[B])
            .rules(B, &[&inward().of(B).drop(), &inward()]),
        three("not from another group").rules(B, &[&inward().of(A).drop(), &inward()]),
        three("not to another group").rules(B, &[&outward().of(A).drop()]),
        three("to another group alone")
            .rules(B, &[&outward().of(A)])
            .rules(A, &[&inward()])
            .rules(C, &[&inward()])
            .egress(B1, Otherwise::Deny)
            .egress(B2, Otherwise::Deny),
        three("from a group without members").rules(B, &[&inward().of(D)]),
        three("not from a group without members").rules(B, &[&inward().of(D).drop(), &inward()]),
        three("from a disabled group").rules(B, &[&inward().of(A)]).off(&[A]),
        three("from a group beside addresses").rules(
            B,
            &[&inward().tcp("80").of(A), &inward().tcp("81").at(["10.6.0.23", "fd06::26"])],
        ),
        case("from a group of two on one host")
            .member(&[A1, B1], &[A])
            .member(&[C1, C2], &[B])
            .rules(B, &[&inward().of(A)]),
        case("from a group of two on the other host")
            .member(&[A2, B2], &[A])
            .member(&[C1], &[B])
            .rules(B, &[&inward().of(A)]),
        case("from a NIC in many groups")
            .member(&[A1], &[A, B, C])
            .member(&[A2], &[C])
            .member(&[B1, B2], &[D])
            .rules(D, &[&inward().tcp("80").of(A), &inward().tcp("81").of(C)]),
        case("a NIC in two groups, of which the second one is named")
            .member(&[A1, A2], &[B, A])
            .member(&[C1], &[C])
            .rules(C, &[&inward().tcp("80").of(A)]),
        case("of one group, all from another one")
            .member(&ALL, &[A])
            .bare(&[A])
            .rules(A, &[&inward().udp("80").of(A)]),
    ]
}

/// The order of rules in a group.
fn rules() -> Vec<Case> {
    let base = |name: &str| case(name).member(&[B1, B2], &[A]);
    let (near, far) = (["10.6.0.21", "fd06::21"], ["10.6.0.16/28", "fd06::/64"]);
    vec![
        base("ACCEPT before DROP").rules(A, &[&inward().tcp("80"), &inward().drop()]),
        base("DROP before ACCEPT").rules(A, &[&inward().drop(), &inward().tcp("80")]),
        base("one address before its network")
            .rules(A, &[&inward().at(near).drop(), &inward().at(far)]),
        base("a network before one address")
            .rules(A, &[&inward().at(far), &inward().at(near).drop()]),
        base("one address accepted before its network")
            .rules(A, &[&inward().at(near), &inward().at(far).drop(), &inward()]),
        base("the last one of three accepts")
            .rules(A, &[&inward().tcp("81").drop(), &inward().udp("81").drop(), &inward()]),
        base("a port before its range")
            .rules(A, &[&inward().tcp("80").drop(), &inward().tcp("1-100")]),
        base("a range before its port")
            .rules(A, &[&inward().tcp("1-100"), &inward().tcp("80").drop()]),
        base("overlapping ranges").rules(
            A,
            &[&inward().tcp("1-80"), &inward().tcp("80-90").drop(), &inward().tcp("81-100")],
        ),
        base("overlapping ranges, dropped first")
            .rules(A, &[&inward().tcp("81-90").drop(), &inward().tcp("1-100")]),
        base("IPv4 dropped before all").rules(A, &[&inward().v4().drop(), &inward()]),
        base("a disabled DROP before ACCEPT")
            .rules(A, &[&inward().tcp("80").drop().disabled(), &inward().tcp("80-81")]),
        base("a disabled ACCEPT before DROP")
            .rules(A, &[&inward().tcp("80").disabled(), &inward().tcp("80-81").drop(), &inward()]),
        base("all rules disabled").rules(A, &[&inward().disabled(), &outward().drop().disabled()]),
        base("five rules, in turn").rules(
            A,
            &[
                &inward().tcp("80").at(near).drop(),
                &inward().tcp("80").at(far),
                &inward().udp("80").drop(),
                &inward().udp("80-81"),
                &inward().icmp(),
            ],
        ),
        base("nothing but a DROP").rules(A, &[&inward().drop()]),
        base("egress DROP of one port").rules(A, &[&outward().tcp("80").drop()]),
        base("egress ACCEPT before DROP").rules(A, &[&outward().tcp("80"), &outward().drop()]),
        base("egress DROP before ACCEPT").rules(A, &[&outward().drop(), &outward().tcp("80")]),
        base("egress to one address").rules(A, &[&outward().at(near), &outward().drop()]),
        base("rules of both ways").rules(A, &[&inward().tcp("80"), &outward().udp("80").drop()]),
    ]
}

/// The truth table: a NIC in A before B, by what the first rule of each that matches says.
fn groups() -> Vec<Case> {
    let mut cases = Vec::new();
    for (first, a) in [("ACCEPT", Some(false)), ("DROP", Some(true)), ("none", None)] {
        for (second, b) in [("ACCEPT", Some(false)), ("DROP", Some(true)), ("none", None)] {
            let rule = |is_drop: bool| {
                if is_drop { inward().tcp("80").drop() } else { inward().tcp("80") }
            };
            let [a, b] = [a, b].map(|it| it.map(rule).unwrap_or_default());
            let base = |name: &str| {
                let name = format!("{name}: {first} and {second}");
                case(name).rules(A, &[&a]).rules(B, &[&b])
            };
            cases.push(base("A before B").member(&[B1, B2], &[A, B]));
            cases.push(base("B before A").member(&[B1, B2], &[B, A]));
            cases.push(base("A is disabled").member(&[B1, B2], &[A, B]).off(&[A]));
            cases.push(
                base("policy ALLOW")
                    .member(&[B1, B2], &[A, B])
                    .ingress(B1, Otherwise::Allow)
                    .ingress(B2, Otherwise::Allow),
            );
        }
    }
    let four = |name: &str| {
        case(name)
            .rules(A, &[&inward().tcp("80").drop()])
            .rules(B, &[&inward().tcp("80-81")])
            .rules(C, &[&inward().tcp("81").drop(), &inward().udp("80")])
            .rules(D, &[&inward().icmp(), &inward().udp("80").drop()])
    };
    cases.extend([
        four("four groups in order").member(&[B1, B2], &[A, B, C, D]),
        four("four groups in reverse order").member(&[B1, B2], &[D, C, B, A]),
        four("four groups, each NIC in another order")
            .member(&[A1], &[A, B, C, D])
            .member(&[B1], &[B, C, D, A])
            .member(&[C1], &[C, D, A, B])
            .member(&[A2], &[D, A, B, C]),
        four("four groups of which two are disabled").member(&[B1, B2], &[A, B, C, D]).off(&[A, C]),
        four("four groups, all disabled").member(&[B1, B2], &[A, B, C, D]).off(&[A, B, C, D]),
        four("a NIC for each of four groups")
            .member(&[A1], &[A])
            .member(&[B1], &[B])
            .member(&[C1], &[C])
            .member(&[A2], &[D]),
        case("a disabled group without others")
            .member(&[B1, B2], &[A])
            .rules(A, &[&inward()])
            .off(&[A]),
        case("default rules of the second group").member(&[A1, A2], &[B]).member(&[B1], &[A, B]),
        case("DROP in the first group before default rules of the second one")
            .member(&[A1, A2], &[B])
            .member(&[B1], &[A, B])
            .rules(A, &[&inward().tcp("80").drop()]),
    ]);
    cases
}

fn policies() -> Vec<Case> {
    let mut cases = Vec::new();
    for (inwards, ingress) in OTHERWISE {
        for (outwards, egress) in OTHERWISE {
            let base = |name: &str| {
                let name = format!("ingress {inwards}, egress {outwards}: {name}");
                case(name)
                    .member(&[B1, B2], &[A])
                    .ingress(B1, ingress)
                    .egress(B1, egress)
                    .ingress(B2, ingress)
                    .egress(B2, egress)
            };
            cases.push(base("no rule"));
            cases.push(base("a rule of ingress").rules(A, &[&inward().tcp("80")]));
            cases.push(base("a rule of egress").rules(A, &[&outward().tcp("80")]));
            cases.push(
                base("DROP both ways")
                    .rules(A, &[&inward().tcp("80").drop(), &outward().udp("80").drop()]),
            );
        }
    }
    let until = Otherwise::AllowUntilRule;
    let base = |name: &str| case(name).member(&[B1], &[A, B]).ingress(B1, until).egress(B1, until);
    cases.extend([
        base("until a rule: disabled ones do not count")
            .rules(A, &[&inward().tcp("80").disabled(), &outward().tcp("80").disabled()]),
        base("until a rule: those of disabled groups do not count")
            .rules(A, &[&inward().tcp("80"), &outward().tcp("80")])
            .off(&[A]),
        base("until a rule: those of IPv4 count for IPv6")
            .rules(B, &[&inward().tcp("80").v4(), &outward().tcp("80").v4()]),
        base("until a rule: the second group's counts").rules(B, &[&inward().tcp("80")]),
    ]);
    cases
}

/// The sender's egress and the receiver's ingress.
fn both_ends() -> Vec<Case> {
    let mut cases = Vec::new();
    let ends = |name: String| case(name).member(&[A1], &[A]).member(&[B1, B2], &[B]);
    for (from, egress) in [
        ("nothing", outward().drop()),
        ("TCP 80", outward().tcp("80")),
        ("TCP 81", outward().tcp("81")),
        ("all", outward()),
    ] {
        for (to, ingress) in
            [("nothing", inward().drop()), ("TCP 80", inward().tcp("80")), ("all", inward())]
        {
            let name = format!("one sends {from}, others take {to}");
            cases.push(
                ends(name).rules(A, &[&egress]).rules(B, &[&ingress]).egress(A1, Otherwise::Deny),
            );
        }
    }
    cases.push(
        case("closed NICs beside one that takes all")
            .closed()
            .member(&[B1], &[A])
            .rules(A, &[&inward()]),
    );
    cases.push(
        case("closed NICs beside two that reach each other").closed().member(&[A1, A2], &[A]),
    );
    cases
}

/// Groups whose rules are about single packets.
fn stateless() -> Vec<Case> {
    let base = |name: &str| case(name).member(&[B1, B2], &[S]);
    vec![
        base("a stateless group without rules"),
        base("a stateless group takes TCP").rules(S, &[&inward().tcp("80")]),
        base("a stateless group takes UDP").rules(S, &[&inward().udp("80-81")]),
        base("a stateless group takes ICMP").rules(S, &[&inward().icmp()]),
        base("a stateless group takes all").rules(S, &[&inward()]),
        base("a stateless group drops one port of all")
            .rules(S, &[&inward().tcp("80").drop(), &inward()]),
        base("a stateless group sends TCP alone")
            .rules(S, &[&outward().tcp("80"), &outward().drop()]),
        base("a stateless group with DENY for egress")
            .egress(B1, Otherwise::Deny)
            .egress(B2, Otherwise::Deny),
        base("a stateless group from itself alone")
            .rules(S, &[&inward().tcp("80").of(S)])
            .bare(&[S]),
        case("a stateless group before another one")
            .member(&[B1, B2], &[S, A])
            .rules(S, &[&inward().tcp("80").drop()])
            .rules(A, &[&inward().tcp("80-81")]),
        case("a stateless group behind another one")
            .member(&[B1, B2], &[A, S])
            .rules(S, &[&inward().tcp("80").drop()])
            .rules(A, &[&inward().tcp("80-81")]),
        case("two stateless groups")
            .member(&[B1, B2], &[S, T])
            .rules(S, &[&inward().tcp("80")])
            .rules(T, &[&inward().tcp("80-81").drop(), &inward().udp("80")]),
        case("two stateless groups, one from the other")
            .member(&[A1, A2], &[S])
            .member(&[B1, B2], &[T])
            .rules(T, &[&inward().tcp("80").of(S)]),
        case("a stateless group that is disabled")
            .member(&[B1, B2], &[S])
            .rules(S, &[&inward()])
            .off(&[S]),
    ]
}
