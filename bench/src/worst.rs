//! The slowest packets that are known: every shared vector of the packet path through the programs. They
//! are what fuzzing begins with, and what it has found so far is among them.

use std::path::Path;

use dataplane::{Options, Tables, TestHarness};
use packet::{
    Bucket, COUNTER_PLACES, Config, Net,
    vectors::{CONNTRACK, Memory, Vector, all},
};

use crate::{Failure, stats};

/// Repetitions of a vector; what it changes at the first run, later ones meet.
const REPEAT: u32 = 1_000;
/// Runs of a vector in the maps that it is meant for, the fastest of which counts: the clock and the
/// machine's interrupts are in each.
const SINGLES: usize = 5;

/// How many of the slowest are named.
const NAMED: usize = 3;

/// The programs, and the time of each vector in the round that is being measured.
pub(crate) struct Worst {
    harness: TestHarness,
    vectors: Vec<Vector>,
    /// By vector: ns when repeated, and of a single run.
    round: Vec<[f64; 2]>,
    /// Which contenders have had their share of the round.
    taken: Vec<String>,
}

impl Worst {
    /// Loads the programs.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, Failure> {
        let options = Options { conntrack: CONNTRACK, ..Options::new(bpffs) };
        let vectors = all().into_iter().filter(Vector::fits_test_run).collect();
        let harness = TestHarness::open(&options)?;
        Ok(Self { harness, vectors, round: Vec::new(), taken: Vec::new() })
    }

    /// The median or the greatest of one round, in which both come from the same runs.
    pub(crate) fn measure(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        if self.round.is_empty() || self.taken.iter().any(|taken| taken == contender) {
            self.round.clear();
            self.taken.clear();
            for at in 0..self.vectors.len() {
                self.round.push(run(&mut self.harness, &self.vectors[at])?);
            }
        }
        self.taken.push(contender.to_owned());
        let mut figures = Vec::new();
        for kind in 0..2 {
            let times: Vec<f64> = self.round.iter().map(|times| times[kind]).collect();
            let median = stats::median(&times);
            if contender == "median" {
                figures.push(vec![median]);
                continue;
            }
            let mut named: Vec<_> = times.iter().zip(&self.vectors).collect();
            named.sort_by(|one, other| other.0.total_cmp(one.0));
            for (time, vector) in named.iter().take(NAMED) {
                let how = ["repeated", "single"][kind];
                eprintln!("{how}: {time:.0} ns, {:.1} medians: {}", *time / median, vector.name);
            }
            figures.push(vec![*named.first().ok_or("there are no vectors")?.0]);
        }
        Ok(figures)
    }
}

fn run(harness: &mut TestHarness, vector: &Vector) -> Result<[f64; 2], Failure> {
    fill(harness, &vector.before)?;
    let frame = &vector.before.frame;
    let ns = |harness: &mut TestHarness, repeat| -> Result<f64, Failure> {
        let outcome = harness.run(vector.entry, &vector.meta, frame, repeat)?;
        Ok(outcome.duration.as_secs_f64() * 1e9)
    };
    let mut single = f64::INFINITY;
    for _ in 0..SINGLES {
        forget(harness, &vector.before)?;
        single = single.min(ns(harness, 1)?);
    }
    forget(harness, &vector.before)?;
    // A program that the kernel finds too fast for its clock has taken something.
    Ok([ns(harness, REPEAT)?.max(1.0), single.max(1.0)])
}

/// Fills the kernel's maps with the vector's.
fn fill(harness: &mut TestHarness, memory: &Memory) -> Result<(), Failure> {
    let tables = Tables {
        nets: memory.nets.clone(),
        ports: memory.ports.clone(),
        addrs: memory.addrs.clone(),
        serving: memory.serving.clone(),
        fdb: memory.fdb.clone(),
        neigh: memory.neigh.clone(),
        behind: memory.behind.clone(),
        sharers: memory.sharers.clone(),
        vteps: memory.vteps.clone(),
        wires: memory.wires.clone(),
        moves: memory.moves.clone(),
        ranges: memory.ranges.clone(),
        chapters: memory.chapters.clone(),
        classes: memory.classes.clone(),
        idents: memory.idents.clone(),
        ..Tables::default()
    };
    harness.plane.reconcile(&tables)?;
    for (key, port) in &memory.ports {
        harness.set_port(key, port)?;
    }
    for (number, net) in memory.nets.iter().filter(|(_, net)| net.flags & Net::FOREIGN != 0) {
        harness.set_learning(*number, net, &memory.learned)?;
    }
    harness.set_answer_mark(memory.answer_mark)?;
    Ok(())
}

/// Gives back what runs change: connections, fragments, budgets and cached verdicts.
fn forget(harness: &mut TestHarness, memory: &Memory) -> Result<(), Failure> {
    for port in memory.ports.values() {
        let budget = memory.budgets.get(&port.place()).copied().unwrap_or_default();
        harness.set_budget(port.place(), &budget)?;
        let requests = memory.requests.get(&port.place()).copied().unwrap_or_default();
        harness.set_requests(port.place(), &requests)?;
    }
    // Those of port A and of network 1.
    for slot in [1, COUNTER_PLACES + 1] {
        let budget = memory.floods.get(&slot).copied().unwrap_or_default();
        harness.set_flood_budget(slot, &budget)?;
    }
    for moving in memory.moves.values() {
        let word = memory.arrived.get(&moving.place()).copied().unwrap_or_default();
        harness.set_arrived(moving.place(), word)?;
    }
    let buckets = (0..).zip(memory.buckets.iter().copied());
    let buckets: Vec<_> = buckets.filter(|(_, bucket)| *bucket != Bucket::default()).collect();
    harness.set_conntrack(&buckets)?;
    harness.set_fragments(&memory.fragments)?;
    let epoch = harness.config()?.epoch.wrapping_add(1);
    harness.set_config(Config { epoch, ..memory.config })?;
    Ok(())
}
