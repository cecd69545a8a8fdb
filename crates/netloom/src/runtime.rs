//! What server and agent share: logs, signals, the clock.

use std::{
    io::IsTerminal,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use model::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Failure;

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
pub(crate) fn log(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var("NETLOOM_LOG") {
        Ok(text) => text.parse().map_err(|error| {
            format!("NETLOOM_LOG={text:?}: {error}; a level (debug) or levels of targets (info,netloom_link=debug) do")
        })?,
        Err(_) => Targets::new().with_default(LevelFilter::INFO),
    };
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(colours)).init(),
        // The fields of a line beside its own time and level, where programs look for them.
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_current_span(false).with_span_list(true))
            .init(),
    }
    Ok(())
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
