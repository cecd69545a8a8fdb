//! A span for each job, from the call until the job is settled, where somebody collects them
//! ([`model::TRACES`]). Nothing waits for this: of too many jobs at a time, those that are too many
//! have a span that ends with the call.

use std::sync::{Arc, Mutex, PoisonError};

use model::{Id, Result, resource::job::Job};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::Empty};

use super::{JobState, Look};
use crate::Gate;

/// Jobs that are followed at a time.
const FOLLOWED_MAX: usize = 256;

/// A job whose span is open.
type Open = (Id<Job>, Span);

/// Jobs whose spans are open.
pub(super) struct Spans {
    new: mpsc::Sender<Open>,
    taken: Mutex<Option<mpsc::Receiver<Open>>>,
}

impl Default for Spans {
    fn default() -> Self {
        let (new, taken) = mpsc::channel(FOLLOWED_MAX);
        Self { new, taken: Mutex::new(Some(taken)) }
    }
}

/// The span of a job that is about to run, within that of its call.
pub(super) fn begin(job: Id<Job>, message: &'static str) -> Span {
    tracing::info_span!(
        target: model::TRACES, "job", %job, message, outcome = Empty, otel.status_code = Empty
    )
}

impl Spans {
    /// The call is answered.
    pub(super) fn answered(&self, job: Id<Job>, span: Span, result: &Result<()>) {
        match result {
            _ if span.is_disabled() => {}
            Ok(()) => drop(self.new.try_send((job, span))),
            Err(error) => failed(&span, error.code.as_str()),
        }
    }
}

fn failed(span: &Span, code: &str) {
    span.record("outcome", code).record("otel.status_code", "ERROR");
}

/// Ends the spans of jobs as they are settled, until told to stop.
pub async fn run(gate: Arc<Gate>, stop: CancellationToken) {
    let taken = gate.jobs.spans.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut new) = taken else { return };
    let mut followed = JoinSet::new();
    loop {
        // Each branch only waits: dropping the others loses nothing.
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = followed.join_next() => {}
            Some((job, span)) = new.recv(), if followed.len() < FOLLOWED_MAX => {
                followed.spawn(follow(Arc::clone(&gate), job, span));
            }
        }
    }
}

async fn follow(gate: Arc<Gate>, job: Id<Job>, span: Span) {
    match gate.jobs.settled(job).await {
        Some(Look::Over(JobState::Failed(error))) => failed(&span, error.code.as_str()),
        Some(Look::Over(JobState::Done(_)) | Look::Acknowledged(_)) => {
            span.record("outcome", "done");
        }
        // The server ends first.
        _ => {}
    }
}
