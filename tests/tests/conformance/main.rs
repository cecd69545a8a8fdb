//! Conformance of security groups, in the manner of cyclonus: each named case says groups, rules and
//! members, the server is told what differs from the case before, and real packets between all
//! instances fare as the reference evaluator says. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::collections::BTreeSet;

use netloom_tests::{TestLab, root_or_skip};

use crate::{
    cases::Case,
    change::Live,
    describe::{Outcome, Probe},
    probes::{Field, Seen},
};

mod cases;
mod change;
mod changes;
mod describe;
mod matches;
mod orders;
mod probes;

/// Of so many packets that arrive one is answered.
const ANSWERED: usize = 16;
/// From the number of a case to that of the connections with answers.
const ANEW: u16 = 10_000;
/// How many failures are told.
const TOLD: usize = 20;

/// What is wrong with a case: with what is opened, or else with answers to what arrives.
fn failures(field: &Field, number: u16, case: &Case) -> Vec<String> {
    let probes = case.probes();
    let mut wrong = differences(field, number, case, &probes);
    // Stateless rules remember nothing that could be answered.
    if !wrong.is_empty() || case.is_stateless() {
        return wrong;
    }
    let outcomes = case.world.judge(&probes);
    let arriving = probes.iter().zip(outcomes).filter(|(_, outcome)| *outcome == Outcome::Arrives);
    // One at a time: what nobody has answered yet may give way to what is opened next.
    for (opened, _) in arriving.skip(usize::from(number) % ANSWERED).step_by(ANSWERED) {
        wrong.extend(differences(field, number + ANEW, case, &[*opened]));
        wrong.extend(differences(field, number + ANEW, case, &[opened.answer()]));
    }
    wrong
}

/// What does not become of probes as the reference says.
fn differences(field: &Field, number: u16, case: &Case, probes: &[Probe]) -> Vec<String> {
    let outcomes = case.world.judge(probes);
    let wanted = Seen::of(probes, &outcomes);
    let seen = match field.see(number, probes) {
        Ok(seen) => seen,
        Err(why) => return vec![format!("{}: undecided: {why}", case.name)],
    };
    let mut wrong = Vec::new();
    for (at, probe) in probes.iter().enumerate() {
        if seen.arrived[at] != wanted.arrived[at] {
            let is_there = if seen.arrived[at] { "arrives" } else { "does not arrive" };
            let outcome = outcomes[at];
            wrong.push(format!("{}: {probe:?} {is_there}, wanted {outcome:?}", case.name));
        }
    }
    if wrong.is_empty() && seen.drops != wanted.drops {
        let (seen, wanted) = (seen.drops, wanted.drops);
        wrong.push(format!("{}: dropped {seen:?}, wanted {wanted:?}", case.name));
    }
    wrong.truncate(TOLD);
    wrong
}

/// All of them, in an order in which each begins with what the one before has left.
fn all() -> Vec<Case> {
    let cases = [matches::all(), orders::all(), changes::all()].concat();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "each has a name of its own");
    cases
}

#[test]
fn packets_between_instances_fare_as_the_reference_says() {
    if !root_or_skip() {
        return;
    }
    let cases = all();
    let lab = TestLab::up();
    let mut live = Live::make(&lab);
    let field = Field::of(&lab);
    let mut wrong = Vec::new();
    for (number, case) in (0..).zip(&cases) {
        live.become_as(&case.world);
        wrong.extend(failures(&field, number, case));
        if wrong.len() >= TOLD {
            // Enough is told.
            break;
        }
    }
    assert!(wrong.is_empty(), "{} failures in {} cases: {wrong:#?}", wrong.len(), cases.len());
}
