//! Waiting for a condition, with a limit. The one place where the lab lets time pass.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::Error;

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives something, at least once; `None` when `limit` is over.
///
/// # Errors
/// The first of `probe`.
pub(crate) fn until<T>(
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
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
    matches!(until(limit, || Ok(condition().then_some(()))), Ok(Some(())))
}
