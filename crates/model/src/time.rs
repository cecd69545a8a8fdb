//! Points in time, and how ZStack writes them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC. Passed in, never read from a clock in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time, some seconds later.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }
}

impl fmt::Display for Timestamp {
    /// Gson's default form, which ZStack's clients parse: `Nov 14, 2017 10:20:57 PM`, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = jiff::Timestamp::from_millisecond(self.0) else {
            return write!(f, "{}", self.0);
        };
        write!(f, "{}", at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%b %-d, %Y %-I:%M:%S %p"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_gson_does() {
        assert_eq!(Timestamp(1_510_698_057_000).to_string(), "Nov 14, 2017 10:20:57 PM");
    }
}
