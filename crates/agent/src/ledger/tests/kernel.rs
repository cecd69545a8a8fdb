//! Random policies in the maps of this kernel: what its programs decide about packets between ports of one
//! host, to other hosts and from them, is what the reference evaluator says; so is the rule that they
//! note. Policies are changed under connections, too.
//!
//! `NETLOOM_SOAK_POLICIES=FILE` (`make soak`) draws 10,000 policies, and writes to FILE what came of it.
//! `NETLOOM_SEED` draws others.

#[path = "kernel/lot.rs"]
mod lot;
#[path = "kernel/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use judge::Verdict;
use wire::policy::{Action, Way};

use packet::ConntrackSize;

use super::*;
use lot::{Lot, Nic, Probe};
use world::World;

/// Probes of a round.
const PROBES: u16 = 5_000;
/// Differences that are told: one mistake makes many.
const MOST_TOLD: usize = 5;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Arrives,
    Denied {
        way: Way,
        rule: u32,
    },
    /// It is dropped, because of a rule or as part of no connection.
    Refused,
}

/// What the reference says of a packet on each side that is on this host.
#[derive(Clone, Copy, Debug)]
struct Judged {
    egress: Option<Verdict>,
    ingress: Option<Verdict>,
    /// It passes as one that belongs to no connection.
    is_alone: bool,
}

impl Judged {
    /// What becomes of a packet.
    fn seen(&self, opens: bool) -> Seen {
        if !opens {
            return if self.is_alone { Seen::Arrives } else { Seen::Refused };
        }
        for (way, verdict) in [(Way::Egress, self.egress), (Way::Ingress, self.ingress)] {
            if let Some(Verdict { action: Action::Drop, rule, .. }) = verdict {
                return Seen::Denied { way, rule };
            }
        }
        Seen::Arrives
    }
}

/// Whether what was decided so about an opening is remembered.
fn is_tracked(verdict: &Verdict) -> bool {
    verdict.action == Action::Accept && !verdict.is_stateless
}

/// How often what was done.
#[derive(Default)]
struct Tally {
    policies: u32,
    probes: u32,
    denied: u32,
    answers: u32,
    connections: u32,
    differences: Vec<String>,
}

impl Tally {
    fn compare(&mut self, what: &str, probe: &Probe, (seen, expected): (Seen, Seen)) {
        self.denied += u32::from(expected != Seen::Arrives);
        if seen != expected {
            self.differences.push(format!("{what}: {seen:?}, not {expected:?}: {probe:?}"));
        }
    }
}

/// Fills the maps, sends packets and answers; then the same again under other members, and under other
/// policies.
fn round(world: &mut World, lot: &mut Lot, tally: &mut Tally) {
    world.forget_connections();
    let mut ends = BTreeSet::new();
    let is_of_its_own = |probe: &Probe| probe.only_ends().is_none_or(|key| ends.insert(key));
    let probes: Vec<Probe> = (1..=PROBES).map(|number| Probe::by_lot(lot, number)).collect();
    let mut probes: Vec<Probe> = probes.into_iter().filter(is_of_its_own).collect();
    tally.policies += world.fill(lot);
    send(world, &probes, tally);
    probes.retain(|probe| !probe.may_be_answered() || answer(world, probe, tally));
    probes.retain(Probe::is_remembered_whole);
    world.regroup(lot);
    send(world, &probes, tally);
    tally.policies += world.fill(lot);
    send(world, &probes, tally);
}

/// Sends each, and looks at what is remembered then.
fn send(world: &mut World, probes: &[Probe], tally: &mut Tally) {
    let mut expected = BTreeMap::new();
    for probe in probes {
        let judged = world.judged(probe);
        tally.probes += 1;
        tally.compare("a packet", probe, (world.send(probe), judged.seen(probe.opens)));
        for (nic, way, verdict) in [
            (probe.sender, Way::Egress, judged.egress),
            (probe.receiver, Way::Ingress, judged.ingress),
        ] {
            // Where it was not asked about, what was remembered earlier stays.
            if let Some(verdict) = verdict {
                let is_tracked = probe.opens && is_tracked(&verdict);
                let rule = is_tracked.then_some(verdict.rule);
                expected.insert(probe.connection(nic, way), rule);
            }
        }
    }
    let held = world.connections();
    for (connection, rule) in expected {
        let found = held.get(&connection).copied();
        tally.connections += u32::from(rule.is_some());
        if found != rule {
            let what = format!("a connection: rule {found:?}, not {rule:?}: {connection:?}");
            tally.differences.push(what);
        }
    }
}

/// Answers a packet where it arrives; whether nothing is remembered of that but what it opened.
fn answer(world: &mut World, probe: &Probe, tally: &mut Tally) -> bool {
    let (judged, answer) = (world.judged(probe), probe.answer());
    if judged.seen(true) != Seen::Arrives {
        return true;
    }
    let alone = world.judged(&answer);
    // What is remembered is not asked about again.
    let unless = |tracked: Option<Verdict>, judged| match tracked {
        Some(verdict) if is_tracked(&verdict) => None,
        _ => judged,
    };
    let egress = unless(judged.ingress, alone.egress);
    let leaves = egress.is_none_or(|verdict| verdict.action == Action::Accept);
    let ingress = if leaves { unless(judged.egress, world.ingress(&answer)) } else { None };
    let expected = Judged { egress, ingress, is_alone: false };
    tally.answers += 1;
    tally.compare("an answer", probe, (world.send(&answer), expected.seen(true)));
    egress.is_none() && ingress.is_none()
}

#[test]
fn kernels_decide_as_the_reference_says() {
    if !world::may_run("kernels_decide_as_the_reference_says") {
        return;
    }
    let soak = std::env::var_os("NETLOOM_SOAK_POLICIES");
    let wanted = if soak.is_some() { 10_000 } else { 300 };
    let seed = std::env::var("NETLOOM_SEED").map_or(12, |seed| seed.parse().unwrap());
    let (began, mut lot, mut world) = (Instant::now(), Lot(seed), World::open());
    let mut tally = Tally::default();
    while tally.policies < wanted && tally.differences.is_empty() {
        round(&mut world, &mut lot, &mut tally);
    }
    let Tally { policies, probes, denied, answers, connections, differences } = &tally;
    println!(
        "seed {seed}: {policies} policies, {probes} packets and {answers} answers, {denied} of them \
         denied, {connections} connections: {:?}",
        began.elapsed()
    );
    let told = &differences[..differences.len().min(MOST_TOLD)];
    assert!(told.is_empty(), "{} differences:\n{}", differences.len(), told.join("\n"));
    // Neither says the same of everything.
    assert!(denied * 5 > *probes && denied * 5 < probes * 4 && *connections > 1_000);
    if let Some(file) = soak {
        let told = serde_json::json!({
            "answers": answers, "connections": connections, "denied": denied, "differences": 0,
            "packets": probes, "policies": policies, "seconds": began.elapsed().as_secs(), "seed": seed,
        });
        std::fs::write(file, serde_json::to_string_pretty(&told).unwrap() + "\n").unwrap();
    }
}
