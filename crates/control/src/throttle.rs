//! Slows down whoever guesses passwords, and nobody else.
//!
//! Failed logins are counted for each pair of account name and source, and for each source alone.
//! The first few are free; then a source has to wait, twice as long after each failure. The source
//! is part of every key, so an attacker cannot lock an account for others, and a right password
//! from a source that has not failed is always let in.
//!
//! Who counts as one source says [`seats::source`]. Behind a proxy on this machine all clients are
//! loopback, one source that attacker and operator share: its waits stay short
//! ([`SHARED_WAIT_MAX`]), enough to make guessing hopeless. A proxy that names its clients
//! (`--forwarded-for`) makes each of them a source of its own.
//!
//! Time is passed in, from a clock that only goes forward.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::{Code, Error, Result};

/// Failures of a source with one name that cost nothing.
const FREE_OF_NAME: u32 = 5;
/// Failures of a source with whatever names that cost nothing.
const FREE_OF_SOURCE: u32 = 20;
/// The wait after the first failure that is not free; it doubles with each further one.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// The longest wait of loopback, where one guesser would keep out all who come through a proxy.
const SHARED_WAIT_MAX: Duration = Duration::from_secs(8);
/// Failures are forgotten when none was added for so long.
const MEMORY: Duration = Duration::from_secs(900);
/// Keys that are remembered, each some hundred bytes; the one that is quiet for longest leaves.
const KEYS_MAX: usize = 10_000;
/// Failures are logged once in this time at most; a line says how many had none.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A source, and the name that it tried; `None` stands for all names together.
type Key = (IpAddr, Option<String>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
    /// Until then no further login is checked.
    until: Instant,
}

/// Who failed, how often, and when.
#[derive(Debug, Default)]
pub struct Throttle {
    state: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    failures: HashMap<Key, Failures>,
    logged: Option<Instant>,
    unlogged: u32,
}

impl Throttle {
    /// Whether a login may be checked now. Where a source has failed too often, being admitted
    /// counts as a failure until [`succeeded`](Self::succeeded): many guesses at once do not help.
    ///
    /// # Errors
    /// [`Code::Overloaded`], saying how long to wait.
    pub fn admit(&self, name: &str, source: IpAddr, at: Instant) -> Result<()> {
        let mut state = self.lock();
        let keys = keys(name, source);
        let until = keys.iter().filter_map(|key| state.failures.get(key)).map(|f| f.until).max();
        if let Some(left) = until.and_then(|until| until.checked_duration_since(at))
            && !left.is_zero()
        {
            let seconds = left.as_millis().div_ceil(1000);
            let error = Error::new(
                Code::Overloaded,
                format!("too many failed logins from {source}: none is checked for {seconds} s"),
            );
            return Err(error.hint(format!(
                "try again in {seconds} s; whoever has lost admin's password can set a new one \
                 with `netloom reset-password`"
            )));
        }
        for key in &keys {
            if let Some(failures) = state.failures.get_mut(key)
                && failures.count >= free(key)
            {
                failures.until = at + wait(key, failures.count);
            }
        }
        Ok(())
    }

    /// A login was checked, and refused.
    pub fn failed(&self, name: &str, source: IpAddr, at: Instant) {
        let mut state = self.lock();
        let mut count = 0;
        for key in keys(name, source) {
            state.make_room(&key, at);
            let failures = state.failures.entry(key.clone());
            let failures = failures.or_insert(Failures { count: 0, last: at, until: at });
            if at.saturating_duration_since(failures.last) >= MEMORY {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = at;
            failures.until = at + wait(&key, failures.count);
            count = count.max(failures.count);
        }
        if state.logged.is_some_and(|logged| at.saturating_duration_since(logged) < LOG_EVERY) {
            state.unlogged += 1;
            return;
        }
        state.logged = Some(at);
        let unlogged = std::mem::take(&mut state.unlogged);
        tracing::warn!(%source, name, failures = count, unlogged, "a login failed");
    }

    /// A login was checked, and right: what this source did with this name is forgotten. What it
    /// did with others is not, or a guesser with an account of its own could start afresh.
    pub fn succeeded(&self, name: &str, source: IpAddr, at: Instant) {
        let mut state = self.lock();
        let [pair, alone] = keys(name, source);
        state.failures.remove(&pair);
        if let Some(failures) = state.failures.get_mut(&alone) {
            failures.until = at;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn make_room(&mut self, key: &Key, at: Instant) {
        if self.failures.len() < KEYS_MAX || self.failures.contains_key(key) {
            return;
        }
        self.failures.retain(|_, f| at.saturating_duration_since(f.last) < MEMORY);
        if self.failures.len() >= KEYS_MAX {
            let quiet = self.failures.iter().min_by_key(|(_, f)| f.last);
            if let Some(key) = quiet.map(|(key, _)| key.clone()) {
                self.failures.remove(&key);
            }
        }
    }
}

fn keys(name: &str, source: IpAddr) -> [Key; 2] {
    let source = seats::source(source);
    [(source, Some(name.to_owned())), (source, None)]
}

fn free(key: &Key) -> u32 {
    if key.1.is_some() { FREE_OF_NAME } else { FREE_OF_SOURCE }
}

/// How long to wait after so many failures.
fn wait(key: &Key, count: u32) -> Duration {
    let longest = if key.0.is_loopback() { SHARED_WAIT_MAX } else { WAIT_MAX };
    match count.checked_sub(free(key) + 1) {
        None => Duration::ZERO,
        // 2^16 s are over any of them.
        Some(doublings) => (WAIT_MIN * (1 << doublings.min(16))).min(longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Guesses as fast as it may for `seconds`; how many guesses were checked.
    fn guesses(throttle: &Throttle, source: IpAddr, start: Instant, seconds: u64) -> u64 {
        let mut checked = 0;
        for tenth in 0..seconds * 10 {
            let at = start + Duration::from_millis(tenth * 100);
            if throttle.admit("admin", source, at).is_ok() {
                throttle.failed("admin", source, at);
                checked += 1;
            }
        }
        checked
    }

    #[test]
    fn guesses_become_slow_and_others_are_not_kept_out() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let hour = 3600;
        let checked = guesses(&throttle, AWAY, start, hour);
        assert!((10..30).contains(&checked), "{checked} in an hour");
        let now = start + Duration::from_secs(hour);
        let refused = throttle.admit("admin", AWAY, now).unwrap_err();
        assert!(refused.code == Code::Overloaded && refused.hint.is_some(), "{refused}");
        assert!(throttle.admit("admin", OTHER, now).is_ok());
        assert!(throttle.admit("bob", AWAY, now).is_ok(), "too few failures of the source alone");
        assert!(throttle.admit("admin", AWAY, now + WAIT_MAX).is_ok());
    }

    #[test]
    fn a_shared_source_waits_for_seconds_only() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let checked = guesses(&throttle, HERE, start, 3600);
        assert!((400..500).contains(&checked), "{checked} in an hour");
        let now = start + Duration::from_secs(3600) + SHARED_WAIT_MAX;
        assert!(throttle.admit("admin", HERE, now).is_ok());
    }

    #[test]
    fn changing_names_does_not_help_and_nor_do_many_guesses_at_once() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for name in 0..=FREE_OF_SOURCE {
            let name = name.to_string();
            throttle.admit(&name, AWAY, start).unwrap();
            throttle.failed(&name, AWAY, start);
        }
        assert!(throttle.admit("one more", AWAY, start).is_err());
        let later = start + WAIT_MIN;
        let at_once = (0..9).filter(|_| throttle.admit("one more", AWAY, later).is_ok()).count();
        assert_eq!(at_once, 1);
    }

    #[test]
    fn a_right_password_and_time_make_it_forget() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let fail = |times: u32, at| (0..times).for_each(|_| throttle.failed("admin", AWAY, at));
        fail(FREE_OF_NAME, start);
        assert!(throttle.admit("admin", AWAY, start).is_ok());
        throttle.succeeded("admin", AWAY, start);
        fail(FREE_OF_NAME, start);
        assert!(throttle.admit("admin", AWAY, start).is_ok());
        fail(1, start);
        assert!(throttle.admit("admin", AWAY, start).is_err());
        for _ in 0..FREE_OF_SOURCE {
            throttle.failed("bob", AWAY, start);
            throttle.succeeded("bob", AWAY, start);
        }
        throttle.failed("carol", AWAY, start);
        assert!(throttle.admit("dave", AWAY, start).is_err(), "an account of one's own is no help");
        let later = start + MEMORY;
        fail(FREE_OF_NAME, later);
        assert!(throttle.admit("admin", AWAY, later).is_ok());
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one_and_memory_is_bounded() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for host in 0..=u128::from(FREE_OF_NAME) {
            let source = IpAddr::V6(std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) + host));
            throttle.failed("admin", source, start);
        }
        let neighbour = "2001:db8::ffff".parse().unwrap();
        assert!(throttle.admit("admin", neighbour, start).is_err());
        for name in 0..KEYS_MAX + 9 {
            throttle.failed(&name.to_string(), AWAY, start + Duration::from_secs(1));
        }
        let state = throttle.lock();
        assert!(state.failures.len() <= KEYS_MAX);
        assert!(state.failures.contains_key(&(AWAY, None)), "the one that is busy stays");
    }
}
