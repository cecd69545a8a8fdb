//! Sends calls and waits for their jobs: tells what they wait for, and how to look at them.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use client::{Client, Job, MOMENT, PATIENCE, Started};
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;

use crate::{Error, arguments::Call, output::Manner};

/// The exit code of what was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;

/// What a call has come to.
pub(crate) enum Outcome {
    Done(Value),
    /// Its job goes on, and nobody waits for it.
    Accepted(Job),
}

/// Sends a call, and waits for its job as it is wished.
pub(crate) fn send(client: &Client, call: Call, manner: &Manner) -> Result<Outcome, Error> {
    let moment = if manner.no_wait { Duration::ZERO } else { MOMENT };
    match client.start(call.message, call.params, &call.tags, moment)? {
        Started::Done(answer) => Ok(Outcome::Done(answer)),
        Started::Job(job) if manner.no_wait => Ok(Outcome::Accepted(job)),
        Started::Job(job) => wait(client, &job, manner).map(Outcome::Done),
    }
}

/// Waits for a job. Whoever interrupts it is told where the job is.
pub(crate) fn wait(client: &Client, job: &Job, manner: &Manner) -> Result<Value, Error> {
    let patience = manner.timeout.map_or(PATIENCE, Duration::from_secs);
    let _interrupt = Interrupt::watch(&job.uuid)?;
    // Scripts hear only what holds a job up.
    if io::stderr().is_terminal() {
        say(&format!("accepted, job {}", job.uuid));
    }
    let hear = |reasons: &[&str]| reasons.iter().for_each(|one| say(&format!("waiting: {one}")));
    Ok(client.wait(job, patience, hear)?)
}

/// How to look at a job.
pub(crate) fn look(job: &str) -> String {
    format!("its job goes on; to wait for it: netloom wait {job}")
}

fn say(line: &str) {
    // Nobody may read it any more; the call goes on.
    let _ = writeln!(io::stderr(), "{line}");
}

/// As long as this lives, Ctrl-C tells of a job before it ends the command.
struct Interrupt(Arc<Mutex<Option<String>>>);

impl Interrupt {
    /// The signal is taken by a thread of its own: nothing may be done in a handler.
    fn watch(job: &str) -> Result<Self, Error> {
        let failed = |error: nix::Error| Error::Usage(format!("SIGINT cannot be watched: {error}"));
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.thread_block().map_err(failed)?;
        let shared = Arc::new(Mutex::new(Some(job.to_owned())));
        let watched = Arc::clone(&shared);
        thread::spawn(move || {
            if signals.wait().is_ok() {
                let job = watched.lock().unwrap_or_else(PoisonError::into_inner).take();
                job.iter().for_each(|job| say(&format!("\ninterrupted; {}", look(job))));
                std::process::exit(INTERRUPTED);
            }
        });
        Ok(Self(shared))
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
