//! Waiting for a condition, with a limit. The one place where the benchmark lets time pass.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives something, at least once; `None` when `limit` is over.
///
/// # Errors
/// The first of `probe`.
pub(crate) fn until<T, E>(
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let start = Instant::now();
    loop {
        let found = probe()?;
        if found.is_some() || start.elapsed() >= limit {
            return Ok(found);
        }
        thread::park_timeout(PAUSE);
    }
}
