//! Points in time, and how ZStack writes them.

use std::{fmt, str::FromStr};

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

    /// As RFC 3339 has it, in UTC, with milliseconds: `2017-11-14T22:20:57.000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => format!("{at:.3}"),
            Err(_) => self.0.to_string(),
        }
    }

    /// Reads a date as HTTP has it (RFC 9110 §5.6.7): `Tue, 14 Nov 2017 22:20:57 GMT`.
    #[must_use]
    pub fn of_http(text: &str) -> Option<Self> {
        let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
        Some(Self(at.timestamp().as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    /// Gson's default form, which ZStack's clients parse: `Nov 14, 2017 10:20:57 PM`, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = jiff::Timestamp::from_millisecond(self.0) else {
            return write!(f, "{}", self.0);
        };
        let at = jiff::tz::Offset::UTC.to_datetime(at);
        // Not by `strftime`: a page of inventories has thousands of these, and that takes three times
        // as long.
        let month = usize::try_from(at.month()).ok().and_then(|month| MONTHS.get(month - 1));
        let (hour, half) = (at.hour().rem_euclid(12), if at.hour() < 12 { "AM" } else { "PM" });
        let hour = if hour == 0 { 12 } else { hour };
        let (month, day, year) = (month.unwrap_or(&""), at.day(), at.year());
        write!(f, "{month} {day}, {year} {hour}:{:02}:{:02} {half}", at.minute(), at.second())
    }
}

/// As Gson writes them.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl FromStr for Timestamp {
    type Err = &'static str;

    /// Reads what `Display` writes, and `2017-11-14 22:20:57`; both in UTC.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = |form| {
            let at = jiff::fmt::strtime::parse(form, text).ok()?.to_datetime().ok()?;
            Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
        };
        let found = ["%b %d, %Y %I:%M:%S %p", "%Y-%m-%d %H:%M:%S"].into_iter().find_map(read);
        found.map(Self).ok_or("not of the form 2017-11-14 22:20:57")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_jiff_writes_that_form() {
        // From the year 1000 to 9000, every hour of the day and every day of the year among them.
        let times = (-30_600_000_000_000_i64..221_000_000_000_000).step_by(12_345_678_901);
        for at in times {
            let by_form = jiff::Timestamp::from_millisecond(at).unwrap();
            let by_form = by_form.strftime("%b %-d, %Y %-I:%M:%S %p").to_string();
            assert_eq!(Timestamp(at).to_string(), by_form);
        }
    }

    #[test]
    fn is_read_as_it_is_written_and_as_databases_write_it() {
        for text in ["Nov 14, 2017 10:20:57 PM", "2017-11-14 22:20:57"] {
            assert_eq!(text.parse(), Ok(Timestamp(1_510_698_057_000)));
        }
        assert_eq!(
            "Jan 3, 2017 1:02:03 AM".parse::<Timestamp>().unwrap().to_string(),
            "Jan 3, 2017 1:02:03 AM"
        );
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn is_read_as_http_has_it() {
        for text in ["Tue, 14 Nov 2017 22:20:57 GMT", "Tue, 14 Nov 2017 23:20:57 +0100"] {
            assert_eq!(Timestamp::of_http(text), Some(Timestamp(1_510_698_057_000)), "{text}");
        }
        assert_eq!(Timestamp::of_http("2017-11-14 22:20:57"), None);
    }

    #[test]
    fn is_written_as_gson_does() {
        assert_eq!(Timestamp(1_510_698_057_000).to_string(), "Nov 14, 2017 10:20:57 PM");
    }
}
