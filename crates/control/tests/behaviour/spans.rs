//! Spans of jobs: how long they are, and what they say.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use netloom_control::{Enrolment, Gate, jobs::spans};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Subscriber, field::Field, span};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

use crate::{
    harness::Cloud,
    jobs::{acknowledge, command, drawn, jobs, waiting},
};

/// The outcomes of the spans of jobs that have ended.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<String>>>);

/// What a span says came of its job.
struct Outcome(String);

impl tracing::field::Visit for Outcome {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "outcome" {
            self.0 = value.to_owned();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ended {
    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let mut outcome = Outcome(String::new());
        values.record(&mut outcome);
        if !outcome.0.is_empty() {
            context.span(id).unwrap().extensions_mut().replace(outcome);
        }
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        if span.metadata().target() == model::TRACES {
            let outcome = span.extensions().get::<Outcome>().map(|outcome| outcome.0.clone());
            self.0.lock().unwrap().push(outcome.unwrap_or_default());
        }
    }
}

impl Ended {
    /// Waits until so many have ended.
    async fn wait(&self, count: usize) -> Vec<String> {
        let there = async {
            while self.0.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.expect("they end");
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn the_span_of_a_job_ends_when_the_job_is_settled_and_says_how() {
    let ended = Ended::default();
    let hears = tracing_subscriber::registry().with(ended.clone());
    let _heard = tracing::subscriber::set_default(hears);
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    let (gate, stop) = (Arc::new(Gate::new(jobs, enrolment)), CancellationToken::new());
    let mut parts = JoinSet::new();
    parts.spawn(spans::run(Arc::clone(&gate), stop.clone()));

    let host = waiting(&cloud, &fixture, &gate.jobs, 60).await;
    let create = |name: &str| command(&cloud, "CreateZone", json!({"name": name}));
    gate.jobs.submit(create("z"), drawn(2), 60).await.unwrap();
    assert_eq!(ended.wait(1).await, ["done"], "the other job waits for its host");
    // A uuid that was used before is no job.
    gate.jobs.submit(create("y"), drawn(2), 60).await.unwrap_err();
    assert_eq!(ended.wait(2).await[1], "NL.1001");
    let odd = command(&cloud, "CreateVmNic", json!({"l3NetworkUuid": fixture.pool}));
    gate.jobs.submit(odd, drawn(3), 60).await.unwrap();
    assert_eq!(ended.wait(3).await[2], "SYS.1003");
    acknowledge(&board, host);
    assert_eq!(ended.wait(4).await[3], "done");
    stop.cancel();
    parts.join_next().await.unwrap().unwrap();
}
