//! How long to wait before trying again: twice as long each time, up to a limit, and never the
//! same for two agents.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait, before the random part: how long jobs may wait for a host after the server is
/// back. A thousand agents are then some 130 handshakes a second.
const LONGEST: Duration = Duration::from_secs(5);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed; how long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        // If the system gives no randomness, all agents come back at the same time; the server can
        // cope with that.
        self.after(getrandom::u32().unwrap_or_default())
    }

    /// Between the whole and twice the wait.
    fn after(&mut self, random: u32) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait + wait.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..20).map(|_| backoff.after(0)).collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[1], waits[19]), (FIRST, FIRST * 2, LONGEST));
        assert_eq!(backoff.after(u32::MAX), LONGEST * 2);
        backoff.reset();
        assert_eq!(backoff.after(0), FIRST);
    }
}
