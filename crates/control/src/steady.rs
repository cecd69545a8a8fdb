//! The time for what deletes because it is old. Somebody who sets the machine's clock ahead must
//! not thereby end what could still be recovered.

use std::time::Instant;

use model::Timestamp;

/// A clock of the day that goes no faster than time does: set ahead, it stays behind; set back, it
/// goes back. Either way, what is old is deleted late rather than early.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    clock: fn() -> Timestamp,
    began: (Timestamp, Instant),
}

impl Steady {
    /// Trusts what `clock` says now.
    #[must_use]
    pub fn new(clock: fn() -> Timestamp) -> Self {
        Self::since(clock(), clock)
    }

    /// Trusts that it is `now`, and `clock` as far as time has passed since.
    #[must_use]
    pub fn since(now: Timestamp, clock: fn() -> Timestamp) -> Self {
        Self { clock, began: (now, Instant::now()) }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at((self.clock)(), Instant::now())
    }

    /// How many seconds the clock has been set ahead since the beginning.
    #[must_use]
    pub fn ahead_seconds(&self) -> i64 {
        let wall = (self.clock)();
        (wall.0 - self.at(wall, Instant::now()).0) / 1000
    }

    fn at(&self, wall: Timestamp, instant: Instant) -> Timestamp {
        let passed = instant.saturating_duration_since(self.began.1).as_millis();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        wall.min(Timestamp(self.began.0.0.saturating_add(passed)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_makes_nothing_older_than_it_is() {
        let steady = Steady::since(Timestamp(1_000_000), || Timestamp(0));
        let after = |seconds| steady.began.1 + Duration::from_secs(seconds);
        let at = |wall, seconds| steady.at(Timestamp(wall), after(seconds)).0;
        assert_eq!(at(1_005_000, 5), 1_005_000, "as it should");
        assert_eq!(at(9_000_000_000, 5), 1_005_000, "set ahead");
        assert_eq!(at(400_000, 5), 400_000, "set back");
        assert_eq!(at(1_004_900, 5), 1_004_900, "a slow clock is right");
    }
}
