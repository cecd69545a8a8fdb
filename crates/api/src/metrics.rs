//! What is counted of requests, and all figures in Prometheus' text format.
//!
//! The format is a line for each figure (<https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! "Text format details"). Every label is a name of our own that needs no escaping, and the figures are
//! kept elsewhere already, so this is less than what a crate with registries and families would take.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use axum::response::Response;
use control::Measures;
use seats::Occupancy;

/// Upper ends of the buckets for how long answers take, in seconds: a look-up, a commit, a host's
/// acknowledgement, a call that waits for its job.
const BUCKETS_SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// What a request asks for, told by the route that finds out.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<OnceLock<(&'static str, &'static str)>>);

/// The code of the error that an answer tells.
#[derive(Clone, Copy)]
pub(crate) struct Refused(pub(crate) &'static str);

impl Asked {
    /// A message, or something else with a name.
    pub(crate) fn is(&self, name: &'static str) {
        self.set("", name);
    }

    /// A query for a resource of this name.
    pub(crate) fn of(&self, resource: &'static str) {
        self.set("Query", resource);
    }

    fn set(&self, prefix: &'static str, name: &'static str) {
        tracing::Span::current().record("call", format_args!("{prefix}{name}"));
        // It is asked for one thing.
        let _ = self.0.set((prefix, name));
    }
}

/// All requests since the start, by what they asked for.
#[derive(Default)]
pub(crate) struct Requests(Mutex<Table>);

/// By a prefix and a name.
type Table = BTreeMap<(&'static str, &'static str), OfMessage>;

#[derive(Default)]
struct OfMessage {
    /// By HTTP status and code.
    answers: BTreeMap<(u16, &'static str), u64>,
    /// How many took so long; the last takes the rest.
    buckets: [u64; BUCKETS_SECONDS.len() + 1],
    took: Duration,
}

impl Requests {
    /// An answer is ready after so long.
    pub(crate) fn count(&self, asked: &Asked, answer: &Response, took: Duration) {
        let name = asked.0.get().copied().unwrap_or(("", "none"));
        let code = answer.extensions().get::<Refused>().map_or("", |refused| refused.0);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS_SECONDS.partition_point(|end| *end < seconds);
        let mut requests = self.lock();
        let of = requests.entry(name).or_default();
        *of.answers.entry((answer.status().as_u16(), code)).or_default() += 1;
        of.buckets[bucket] += 1;
        of.took += took;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change is complete, whatever panics elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, page: &mut Page) {
        let requests = self.lock();
        let name = "netloom_requests_total";
        page.head(name, "counter", "Answers, by message, HTTP status and error code.");
        for ((prefix, message), of) in requests.iter() {
            for ((status, code), count) in &of.answers {
                let labels =
                    format!("message=\"{prefix}{message}\",status=\"{status}\",code=\"{code}\"");
                page.line(name, &labels, count);
            }
        }
        let name = "netloom_request_seconds";
        page.head(name, "histogram", "How long answers took, waiting for jobs included.");
        for ((prefix, message), of) in requests.iter() {
            let mut count = 0;
            let ends = BUCKETS_SECONDS.iter().map(ToString::to_string);
            for (end, in_bucket) in ends.chain(["+Inf".to_owned()]).zip(of.buckets) {
                count += in_bucket;
                let labels = format!("message=\"{prefix}{message}\",le=\"{end}\"");
                page.line(&format!("{name}_bucket"), &labels, count);
            }
            let labels = format!("message=\"{prefix}{message}\"");
            page.line(&format!("{name}_sum"), &labels, of.took.as_secs_f64());
            page.line(&format!("{name}_count"), &labels, count);
        }
    }
}

/// Every figure of the server.
pub(crate) fn page(requests: &Requests, seats: Occupancy, measures: &Measures) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    requests.write(&mut page);
    page.gauge("netloom_seats", "REST connections that may be open.", seats.seats_max);
    page.gauge("netloom_seats_taken", "REST connections that are open.", seats.taken);
    page.gauge("netloom_seats_waiting", "Those that wait for their client.", seats.waiting);
    page.gauge("netloom_sessions", "Open sessions.", measures.sessions);
    page.gauge("netloom_queries_running", "Queries that run.", measures.queries_running);
    page.gauge("netloom_queries_waiting", "Queries that wait to run.", measures.queries_waiting);
    write_jobs(&mut page, measures);
    write_store(&mut page, measures);
    let hosts = measures.hosts;
    page.gauge("netloom_hosts", "Hosts that were added.", hosts.added);
    page.gauge("netloom_hosts_connected", "Hosts whose agent is connected.", hosts.connected);
    let text = "Connected hosts on which all that they were told is in effect.";
    page.gauge("netloom_hosts_in_force", text, hosts.in_force);
    let text = "Objects that hosts have not confirmed, over all hosts.";
    page.gauge("netloom_host_objects_pending", text, hosts.pending);
    let text = "Objects that are not as they must be, over all hosts.";
    page.gauge("netloom_host_objects_failed", text, hosts.failed);
    let text = "Deleted resources whose claims hosts have not let go yet.";
    page.gauge("netloom_releases_open", text, measures.releases_open);
    page.0
}

fn write_jobs(page: &mut Page, measures: &Measures) {
    let jobs = &measures.jobs;
    page.gauge("netloom_jobs_kept", "Jobs that can still be asked for.", jobs.kept);
    page.gauge("netloom_jobs_running", "Jobs whose transaction runs or waits.", jobs.running);
    let text = "Jobs that are durable and not known to be in effect on their hosts.";
    page.gauge("netloom_jobs_waiting", text, jobs.waiting);
    let age = jobs.oldest.map_or(0, |made| measures.now.0.saturating_sub(made.0) / 1000);
    let text = "Age of the oldest of these, as it was seen at most a minute ago.";
    page.gauge("netloom_jobs_waiting_oldest_seconds", text, age.max(0));
    let name = "netloom_jobs_refused_total";
    page.head(name, "counter", "Calls that were refused, by error code.");
    for (code, count) in &jobs.refusals {
        page.line(name, &format!("code=\"{code}\""), count);
    }
}

fn write_store(page: &mut Page, measures: &Measures) {
    let store = measures.store;
    page.gauge("netloom_store_revision", "The newest durable revision.", measures.revision);
    let text = "The revision up to which changes have been compiled for hosts.";
    page.gauge("netloom_compiled_revision", text, measures.compiled);
    page.gauge("netloom_store_queue", "Transactions that wait for the writer.", store.queued);
    let text = "Bytes of the log that the tables have not followed yet.";
    page.gauge("netloom_store_backlog_bytes", text, store.backlog_bytes);
    page.counter("netloom_store_batches_total", "Batches, a disk sync each.", store.batches);
    let text = "Transactions in these batches.";
    page.counter("netloom_store_transactions_total", text, store.transactions);
    let text = "How long the commits of these batches took together.";
    page.counter("netloom_store_commit_seconds_total", text, store.committing.as_secs_f64());
    let name = "netloom_rows";
    page.head(name, "gauge", "Rows in the store, by kind.");
    for (kind, count) in &measures.rows {
        page.line(name, &format!("kind=\"{kind:?}\""), count);
    }
}

/// A page of figures.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, form: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {form}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.line(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn buckets_hold_all_that_took_no_longer() {
        let requests = Requests::default();
        for milliseconds in [1, 3, 100, 90_000] {
            let asked = Asked::default();
            asked.is("CreateZone");
            requests.count(&asked, &().into_response(), Duration::from_millis(milliseconds));
        }
        let mut page = Page(String::new());
        requests.write(&mut page);
        let expected = [
            "netloom_requests_total{message=\"CreateZone\",status=\"200\",code=\"\"} 4",
            "netloom_request_seconds_bucket{message=\"CreateZone\",le=\"0.001\"} 1",
            "netloom_request_seconds_bucket{message=\"CreateZone\",le=\"0.005\"} 2",
            "netloom_request_seconds_bucket{message=\"CreateZone\",le=\"0.1\"} 3",
            "netloom_request_seconds_bucket{message=\"CreateZone\",le=\"60\"} 3",
            "netloom_request_seconds_bucket{message=\"CreateZone\",le=\"+Inf\"} 4",
            "netloom_request_seconds_sum{message=\"CreateZone\"} 90.104",
            "netloom_request_seconds_count{message=\"CreateZone\"} 4",
        ];
        for line in expected {
            assert!(page.0.lines().any(|written| written == line), "{line}\n{}", page.0);
        }
    }
}
