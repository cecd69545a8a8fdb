//! A server that is killed at random instants while clients write, also while it starts: every
//! acknowledged write is there afterwards, nothing happened twice or by halves, jobs are finished,
//! and the state is the one that a replay of its log gives.
//!
//! Each writer knows what it has written. A write whose answer did not come is sent again with the
//! same `X-Job-UUID` until its outcome is known, so in the end the server must have exactly what
//! the writers know. `NETLOOM_SOAK=FILE` (`make soak`) kills ten times as often, and writes to FILE
//! what came of it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod server;
mod state;
mod writer;

use std::{
    collections::BTreeSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    server::{Access, Scheduled, Server},
    state::History,
    writer::{Known, Shared, write},
};

const WRITERS: u64 = 4;
/// Any wait of this test; far more than what is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of it, besides what is asserted.
#[derive(Default)]
struct Tally {
    kills: u32,
    during_start: u32,
    examined: u32,
    replayed: u64,
}

#[test]
fn what_was_acknowledged_is_there_after_the_server_was_killed_again_and_again() {
    let soak = std::env::var_os("NETLOOM_SOAK");
    let kills = if soak.is_some() { 300 } else { 30 };
    let (began, scratch) = (Instant::now(), tempfile::tempdir().unwrap());
    let data = scratch.path().join("d");
    let (shared, mut history, mut tally) =
        (Arc::new(Shared::default()), History::default(), Tally::default());
    let mut server = Server::start(&data);
    let network = writer::make_network(&server.access());
    shared.open(server.access());
    let writers = (0..WRITERS).map(|number| {
        let (shared, network) = (Arc::clone(&shared), network.clone());
        thread::spawn(move || write(number, &network, &shared))
    });
    let writers: Vec<_> = writers.collect();
    for round in 0..kills {
        // Scattered, and the same in every run; what the kill hits is left to the machine.
        shared.wait_for(shared.acknowledged() + u64::from(round * 7919 % 97 + 3));
        shared.close();
        server.kill();
        tally.kills += 1;
        if round % 2 == 0 {
            tally.replayed = history.compare(&data);
            tally.examined += 1;
        }
        if round % 3 == 0 && tally.kills < kills {
            Scheduled::start(&data).kill_at(3 + round * 31 % 17);
            tally.kills += 1;
            tally.during_start += 1;
        }
        server = Server::start(&data);
        shared.open(server.access());
        if tally.kills >= kills {
            break;
        }
    }
    shared.stop();
    let known: Vec<Known> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let jobs: u64 = known.iter().map(|known| finished(&server.access(), known)).sum();
    server.kill();
    tally.replayed = history.compare(&data);
    state::judge(&data, &known);
    let sum = |of: fn(&Known) -> u64| known.iter().map(of).sum::<u64>();
    let figures = json!({
        "kills": tally.kills, "killsDuringStart": tally.during_start,
        "acknowledged": sum(|it| it.acknowledged), "outcomeUnknownAtFirst": sum(|it| it.unknown),
        "ofThoseDone": sum(|it| it.done_unheard), "jobsFinished": jobs,
        "statesComparedWithReplay": tally.examined + 1, "revisionsReplayed": tally.replayed,
        "seconds": began.elapsed().as_secs(),
    });
    println!("{figures:#}");
    assert!(sum(|it| it.acknowledged) > u64::from(kills) && sum(|it| it.unknown) > 0, "{figures}");
    if let Some(file) = soak {
        std::fs::write(file, format!("{figures:#}\n")).unwrap();
    }
}

/// Asks for all jobs that were accepted; gives how many there are.
fn finished(access: &Access, known: &Known) -> u64 {
    let jobs: BTreeSet<_> = known.jobs.iter().collect();
    for job in &jobs {
        let (status, body) = access.send("GET", &format!("/api-jobs/{job}"), None, "").unwrap();
        assert_eq!(status, 200, "job {job}: {body}");
    }
    jobs.len() as u64
}
