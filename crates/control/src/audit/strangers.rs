//! How many rows of the audit strangers may cause. Each login that fails is worth one; whoever guesses
//! passwords must neither fill the disk nor push everybody else's rows out.
//!
//! A source has a few rows, and gets further ones slowly; so have all sources together. A row tells
//! how many logins failed before it that have none. Time is passed in.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Rows of all sources: so many at once, and one more in this time. In the 30 days that rows are
/// kept, these are less than half of those that the audit has at most.
const ALL: Rate = Rate { most: 60, every: Duration::from_secs(60) };
/// Rows of one source.
const EACH: Rate = Rate { most: 10, every: Duration::from_secs(600) };

struct Rate {
    most: u32,
    every: Duration,
}

/// What is left of a rate.
#[derive(Clone, Copy)]
struct Left {
    count: u32,
    /// When the last one was added.
    since: Instant,
}

impl Left {
    fn refilled(self, rate: &Rate, at: Instant) -> Self {
        let passed = at.saturating_duration_since(self.since);
        let more = u32::try_from(passed.as_millis() / rate.every.as_millis()).unwrap_or(u32::MAX);
        match self.count.saturating_add(more) {
            count if count >= rate.most => Self { count: rate.most, since: at },
            count => Self { count, since: self.since + rate.every * more },
        }
    }
}

/// What strangers have left.
#[derive(Default)]
pub(crate) struct Strangers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: Option<Left>,
    /// Only sources that had a row not long ago: no more than `ALL` lets in.
    sources: HashMap<IpAddr, Left>,
    unnoted: u64,
}

impl Strangers {
    /// Whether a login from this source that failed gets a row; then, how many had none before it.
    pub(crate) fn admit(&self, source: IpAddr, at: Instant) -> Option<u64> {
        let source = seats::source(source);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = |rate: &Rate| Left { count: rate.most, since: at };
        let all = state.all.map_or(whole(&ALL), |left| left.refilled(&ALL, at));
        let own = state.sources.get(&source);
        let own = own.map_or(whole(&EACH), |left| left.refilled(&EACH, at));
        if all.count == 0 || own.count == 0 {
            state.unnoted += 1;
            return None;
        }
        state.all = Some(Left { count: all.count - 1, ..all });
        state.sources.retain(|_, left| left.refilled(&EACH, at).count < EACH.most);
        state.sources.insert(source, Left { count: own.count - 1, ..own });
        Some(std::mem::take(&mut state.unnoted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0xc000_0000 + number))
    }

    #[test]
    fn a_source_has_a_few_rows_and_then_one_now_and_then() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let noted = (0..100).filter(|_| strangers.admit(source(1), start).is_some()).count();
        assert_eq!(noted, EACH.most as usize);
        assert_eq!(strangers.admit(source(2), start), Some(90), "the next one tells of the others");
        assert_eq!(strangers.admit(source(1), start + EACH.every / 2), None);
        assert_eq!(strangers.admit(source(1), start + EACH.every), Some(1));
        assert_eq!(strangers.admit(source(1), start + EACH.every), None);
    }

    #[test]
    fn however_many_sources_guess_their_rows_and_what_is_remembered_of_them_are_bounded() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let (mut noted, hours) = (0, 100);
        for second in 0..hours * 3600 {
            let at = start + Duration::from_secs(second.into());
            noted += usize::from(strangers.admit(source(second), at).is_some());
        }
        let most = ALL.most + hours * 60;
        assert!(noted <= most as usize, "{noted} of {most}");
        let remembered = strangers.state.lock().unwrap().sources.len();
        assert!(remembered < 100, "{remembered}");
    }
}
