//! What a hostile instance, and a stranger on the underlay, may try: case by case, what becomes of each
//! frame, which drop reasons say so, and that neighbours do not notice. Needs root and scapy.
//!
//! The table of cases is in Python, beside this file: `attacker.py` sends them, from a raw socket inside
//! the attacker. What they do is seen here: by the counters of both hosts, at the neighbours' devices, on the
//! underlay, and in the hosts' own IP stacks.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod attacker;
mod cost;
mod ears;
mod neighbours;
mod site;
mod verdict;

use netloom_tests::root_or_skip;

use attacker::{Attacker, Case};
use cost::Cost;
use ears::Ears;
use neighbours::Neighbours;
use site::Site;
use verdict::{Baseline, Seen};

/// Named attacks at least.
const CASES_MIN: usize = 60;
/// The second half of the same attack may cost so many times as much for each frame as the first one: it
/// is a matter of what the machine does besides, not of what has come before.
const GROWTH_MAX: u32 = 3;

#[test]
fn nothing_forbidden_arrives_each_drop_is_counted_and_neighbours_go_on() {
    if !root_or_skip() {
        return;
    }
    let site = Site::new();
    let (mut attacker, cases) = Attacker::start(&site);
    assert!(cases.len() >= CASES_MIN, "{} cases", cases.len());
    let mut ears = Ears::open(&site);
    ears.prove(&site);
    let mut neighbours = Neighbours::start(&site);
    let cost = Cost::of(&site);
    an_idle_attacker_fails_each(&site, &mut ears, (&mut attacker, &cases));
    let mut wrong = Vec::new();
    let mut halves = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let before = cost.so_far();
        let complaints = run(&site, &mut ears, &mut attacker, (number, case));
        wrong.extend(complaints.iter().map(|complaint| format!("{}: {complaint}", case.name)));
        if case.name.contains(" half") {
            halves.push(cost.each_since(before));
        }
        neighbours.go_on(&case.name);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let [first, second] = halves[..] else { panic!("{halves:?}") };
    println!("{} cases; frames of an explosion cost {first:?}, then {second:?}", cases.len());
    assert!(second < first * GROWTH_MAX, "{first:?} for each frame, then {second:?}");
    neighbours.finish();
    for host in site::HOSTS {
        site.lab.digests(host);
    }
}

/// Whoever sends nothing passes no case: all of them look at something that happens.
fn an_idle_attacker_fails_each(
    site: &Site,
    ears: &mut Ears,
    (attacker, cases): (&mut Attacker, &[Case]),
) {
    for (number, case) in cases.iter().enumerate() {
        let baseline = Baseline::take(site);
        let mut seen = Seen::nothing(attacker.order(number, false));
        seen.look(site, &baseline, ears);
        assert!(!seen.complaints(case).is_empty(), "{}: nothing is as good", case.name);
    }
}

/// Sends a case; what is not as it must be.
fn run(
    site: &Site,
    ears: &mut Ears,
    attacker: &mut Attacker,
    (number, case): (usize, &Case),
) -> Vec<String> {
    let baseline = Baseline::take(site);
    let mut seen = Seen::nothing(attacker.order(number, true));
    // All has been dealt with, but for what the kernel has put off on the way through the tunnel device.
    lab::wait::holds(site::PATIENCE, || {
        seen.look(site, &baseline, ears);
        seen.complaints(case).is_empty()
    });
    seen.complaints(case)
}
