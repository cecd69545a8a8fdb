//! Waiting for a condition, with a limit. The one place where lab, tests and benchmark let time pass.

use std::{
    convert::Infallible,
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives something, at least once; `None` when `limit` is over.
///
/// # Errors
/// The first of `probe`.
pub fn until<T, E>(
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

/// Waits until `condition` holds, and tells whether it did before `limit` was over.
pub fn holds(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let holds = until(limit, || Ok::<_, Infallible>(condition().then_some(())));
    matches!(holds, Ok(Some(())))
}
