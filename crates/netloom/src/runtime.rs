//! What server and agent share: logs, signals, the clock.

use std::{
    io::IsTerminal,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use model::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets, filter_fn},
    layer::SubscriberExt,
    registry::LookupSpan,
};

use crate::{Failure, traces::Traces};

/// The target of spans that are for a collector alone.
const TRACES: &str = model::TRACES;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object in each line, for programs.
    Json,
}

/// Logs to standard error. `NETLOOM_LOG` chooses what: a level (`debug`), or levels of targets
/// (`info,netloom_link=debug`).
///
/// With `traces`, requests, jobs and passes are spans, too, whatever the lines say.
pub(crate) fn log(format: LogFormat, traces: Option<&Traces>) -> Result<(), Failure> {
    let filter: Targets = match std::env::var("NETLOOM_LOG") {
        Ok(text) => text.parse().map_err(|error| {
            format!("NETLOOM_LOG={text:?}: {error}; a level (debug) or levels of targets (info,netloom_link=debug) do")
        })?,
        Err(_) => Targets::new().with_default(LevelFilter::INFO),
    };
    tracing::dispatcher::set_global_default(dispatch(format, filter, traces))?;
    Ok(())
}

/// Where lines and spans go.
fn dispatch(format: LogFormat, filter: Targets, traces: Option<&Traces>) -> Dispatch {
    let filter = filter.with_target(TRACES, LevelFilter::OFF);
    let registry = tracing_subscriber::registry();
    match traces {
        // One filter for all: what it turns off is off for good.
        None => Dispatch::new(registry.with(filter).with(lines(format))),
        Some(traces) => {
            let traced = filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO);
            let registry = registry.with(lines(format).with_filter(filter));
            Dispatch::new(registry.with(traces.layer().with_filter(traced)))
        }
    }
}

/// What writes lines.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        // The fields of a line beside its own time and level, where programs look for them.
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(true).boxed()
        }
    }
}

/// What becomes a span for a collector: what is for it alone, and a request, which log lines have
/// around them, too. Lines themselves do not.
fn is_traced(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.is_span() && (metadata.target() == TRACES || metadata.name() == "request")
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Returns when the process is asked to end (SIGTERM, SIGINT), or `stop` is cancelled.
pub(crate) async fn ended(stop: &CancellationToken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Each branch only waits: dropping the others loses nothing.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its place is asked once in each process, so that this is what it costs from then on.
    fn span() -> tracing::Span {
        tracing::info_span!(target: model::TRACES, "job")
    }

    #[test]
    fn without_a_collector_no_span_is_made_for_one_whatever_is_logged() {
        let filter: Targets = "trace,netloom_traces=trace".parse().unwrap();
        let dispatch = dispatch(LogFormat::Text, filter, None);
        tracing::dispatcher::with_default(&dispatch, || assert!(span().is_disabled()));
        let hears = tracing_subscriber::registry();
        tracing::subscriber::with_default(hears, || assert!(!span().is_disabled()));
    }
}
