//! Cases about changes: each follows the one before by as little as it says, so that what hosts held for
//! that one has to go. Members that a query finds are here, too.

use crate::{
    cases::{Case, Said, case, inward, outward},
    describe::{A, A1, A2, B, B1, B2, C, C1, C2, Otherwise, Q, S},
};

pub(crate) fn all() -> Vec<Case> {
    [rules(), members(), queries(), states()].concat()
}

fn rules() -> Vec<Case> {
    let http = || inward().tcp("80");
    let base = case("change: a group with one rule").member(&[B1, B2], &[A]).rules(A, &[&http()]);
    let two = [&http()[..], &inward().tcp("81")];
    let three = [&http()[..], &inward().tcp("80-81").drop(), &inward()];
    let turned = [&inward().tcp("80-81").drop()[..], &http(), &inward()];
    let last = [&inward()[..], &http(), &inward().tcp("80-81").drop()];
    vec![
        base.clone(),
        base.then("change: a second rule is added").rules(A, &two),
        base.then("change: the first one is deleted").rules(A, &[&inward().tcp("81")]),
        base.then("change: the last one is deleted").rules(A, &[]),
        base.then("change: another one is there").rules(A, &[&inward().udp("80")]),
        base.then("change: it drops").rules(A, &[&inward().udp("80").drop()]),
        base.then("change: it accepts again").rules(A, &[&inward().udp("80")]),
        base.then("change: it is disabled").rules(A, &[&inward().udp("80").disabled()]),
        base.then("change: it is enabled").rules(A, &[&inward().udp("80")]),
        base.then("change: three rules in order").rules(A, &three),
        base.then("change: the second one comes first").rules(A, &turned),
        base.then("change: the last one comes first").rules(A, &last),
        base.then("change: as they were").rules(A, &three),
        base.then("change: the one between is disabled")
            .rules(A, &[&http(), &inward().tcp("80-81").drop().disabled(), &inward()]),
        base.then("change: the one between is deleted").rules(A, &[&http(), &inward()]),
        base.then("change: the one that accepts all drops all")
            .rules(A, &[&http(), &inward().drop()]),
        base.then("change: egress beside it")
            .rules(A, &[&http(), &inward().drop(), &outward().udp("80").drop()]),
        base.then("change: egress accepts")
            .rules(A, &[&http(), &inward().drop(), &outward().udp("80")]),
        base.then("change: egress is gone").rules(A, &[&http(), &inward().drop()]),
        base.then("change: a rule of a remote group")
            .rules(A, &[&http().of(B)])
            .member(&[A1], &[B]),
        base.then("change: of another remote group").rules(A, &[&http().of(C)]).member(&[A1], &[B]),
        base.then("change: of the first one again").rules(A, &[&http().of(B)]).member(&[A1], &[B]),
        base.then("change: of addresses")
            .rules(A, &[&http().at(["10.6.0.24/30", "fd06::24/126"])])
            .member(&[A1], &[B]),
    ]
}

fn members() -> Vec<Case> {
    let base = case("join: nobody")
        .rules(A, &[&inward().tcp("80").of(B)])
        .rules(B, &[&inward().udp("80").of(A)]);
    let (allow, deny) = (Otherwise::Allow, Otherwise::Deny);
    vec![
        base.clone(),
        base.then("join: one server").member(&[B1], &[A]),
        base.then("join: a client beside it").member(&[B1], &[A]).member(&[A1], &[B]),
        base.then("join: a client on the other host").member(&[B1], &[A]).member(&[A1, A2], &[B]),
        base.then("join: a server on the other host")
            .member(&[B1, B2], &[A])
            .member(&[A1, A2], &[B]),
        base.then("join: a client that is a server")
            .member(&[B1, B2], &[A])
            .member(&[A1], &[B])
            .member(&[A2], &[B, A]),
        base.then("leave: it is a server alone").member(&[B1, B2, A2], &[A]).member(&[A1], &[B]),
        base.then("leave: the client beside").member(&[B1, B2, A2], &[A]),
        base.then("join: client and servers change places")
            .member(&[B1, B2, A2], &[B])
            .member(&[A1], &[A]),
        base.then("leave: all but one").member(&[A1], &[A]),
        base.then("leave: all"),
        base.then("order: A before B").member(&[B1], &[A, B]).member(&[A1], &[B]),
        base.then("order: B before A").member(&[B1], &[B, A]).member(&[A1], &[B]),
        base.then("order: another group between").member(&[B1], &[B, C, A]).member(&[A1], &[B]),
        base.then("policy: of ingress allows")
            .member(&[B1, B2], &[A])
            .ingress(B1, allow)
            .ingress(B2, allow),
        base.then("policy: of ingress denies").member(&[B1, B2], &[A]),
        base.then("policy: of egress denies")
            .member(&[B1, B2], &[A])
            .egress(B1, deny)
            .egress(B2, deny),
        base.then("policy: of egress allows").member(&[B1, B2], &[A]),
        base.then("policy: of one alone")
            .member(&[B1, B2], &[A])
            .ingress(B1, allow)
            .egress(B2, deny),
        base.then("policy: gone with the last group"),
        base.then("policy: that of the settings again").member(&[B1, B2], &[A]),
    ]
}

fn queries() -> Vec<Case> {
    let base = case("query: it finds nobody")
        .rules(Q, &[&inward().tcp("80")])
        .rules(A, &[&inward().udp("80").of(Q)]);
    vec![
        base.clone(),
        base.then("query: it finds one").tagged(&[B1]),
        base.then("query: it finds two on one host").tagged(&[A1, B1]),
        base.then("query: it finds two on two hosts").tagged(&[B1, B2]),
        base.then("query: it finds all").tagged(&[A1, B1, C1, A2, B2, C2]),
        base.then("query: it finds half").tagged(&[A1, B2, C2]),
        base.then("query: it finds them without default rules").tagged(&[A1, B2, C2]).bare(&[Q]),
        base.then("query: a rule names whom it finds").tagged(&[A1, A2]).member(&[B1, B2], &[A]),
        base.then("query: a rule names whom it finds, of whom one is gone")
            .tagged(&[A2])
            .member(&[B1, B2], &[A]),
        base.then("query: one that is found is in another group, too")
            .tagged(&[A2, B1])
            .member(&[B1, B2], &[A]),
        base.then("query: its group is disabled").tagged(&[A2]).member(&[B1, B2], &[A]).off(&[Q]),
        base.then("query: it finds nobody again").member(&[B1, B2], &[A]),
    ]
}

fn states() -> Vec<Case> {
    let base = case("state: two groups")
        .member(&[A1, A2], &[A])
        .member(&[B1, B2], &[B])
        .rules(B, &[&inward().tcp("80").of(A)]);
    vec![
        base.clone(),
        base.then("state: the remote group is disabled").off(&[A]),
        base.then("state: both are disabled").off(&[A, B]),
        base.then("state: the group of the rule is disabled").off(&[B]),
        base.then("state: both are enabled"),
        base.then("state: default rules are disabled").bare(&[A, B]),
        base.then("state: default rules of one are enabled").bare(&[A]),
        base.then("state: default rules are enabled"),
        base.then("state: others are closed").closed(),
        base.then("state: others are closed, and one more is in a group")
            .closed()
            .member(&[C1], &[A]),
        base.then("state: others are open").member(&[C1], &[A]),
        base.then("state: a stateless group comes first")
            .member(&[B1], &[S, B])
            .rules(S, &[&inward().tcp("81")]),
        base.then("state: a stateless group comes last")
            .member(&[B1], &[B, S])
            .rules(S, &[&inward().tcp("81")]),
        base.then("state: a stateless group is gone"),
    ]
}
