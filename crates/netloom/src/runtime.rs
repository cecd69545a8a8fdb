//! What server and agent share: logs, signals, the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::Failure;

/// Logs to standard error; `NETLOOM_LOG` chooses what, in tracing's filter language.
pub(crate) fn log() {
    let filter = EnvFilter::try_from_env("NETLOOM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
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
