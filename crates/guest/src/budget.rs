//! How much a port may ask: whoever asks too much is not heard, and nobody else notices.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Questions of each port: so many a second, and as many as one second's at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u32,
    /// Until when each port has used its share up.
    used: HashMap<u32, Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, used: HashMap::new() }
    }

    /// Whether a port may ask one more question now.
    pub(crate) fn take(&mut self, port: u32, now: Instant) -> bool {
        let cost = Duration::from_secs(1) / self.per_second;
        let used = self.used.entry(port).or_insert(now);
        let until = (*used).max(now) + cost;
        let is_within = until <= now + Duration::from_secs(1);
        if is_within {
            *used = until;
        }
        is_within
    }

    /// Forgets the ports that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.used.retain(|port, _| is_there(*port));
    }
}

/// Questions that are under way, bounded for all and for each port.
#[derive(Debug)]
pub(crate) struct Turns {
    all_max: usize,
    per_port_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_port: HashMap<u32, usize>,
}

/// A question under way; over when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    port: u32,
}

impl Turns {
    pub(crate) fn new(all_max: usize, per_port_max: usize) -> Self {
        Self { all_max, per_port_max, taken: Mutex::default() }
    }

    /// A turn, if one is free.
    pub(crate) fn take(self: &Arc<Self>, port: u32) -> Option<Turn> {
        let mut taken = self.lock();
        let own = taken.by_port.get(&port).copied().unwrap_or_default();
        if taken.all >= self.all_max || own >= self.per_port_max {
            return None;
        }
        taken.all += 1;
        taken.by_port.insert(port, own + 1);
        drop(taken);
        Some(Turn { turns: Arc::clone(self), port })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics between two changes that belong together.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_port.get_mut(&self.port) {
            *own -= 1;
            if *own == 0 {
                taken.by_port.remove(&self.port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_its_rate_whatever_others_ask() {
        let (mut rate, start) = (Rate::new(10), Instant::now());
        let mut taken = |port, after_ms, tries| {
            let now = start + Duration::from_millis(after_ms);
            (0..tries).filter(|_| rate.take(port, now)).count()
        };
        assert_eq!(taken(1, 0, 100), 10, "a second's at once");
        assert_eq!(taken(2, 0, 3), 3);
        assert_eq!(taken(1, 250, 100), 2);
        assert_eq!(taken(1, 60_000, 100), 10, "what was not used is not kept for ever");
        assert_eq!(taken(2, 60_000, 100), 10);
        rate.retain(|port| port == 1);
        assert_eq!(rate.used.len(), 1);
    }

    #[test]
    fn a_port_cannot_take_all_turns() {
        let turns = Arc::new(Turns::new(5, 2));
        let [first, second, third] = [(); 3].map(|()| turns.take(1));
        assert!(first.is_some() && second.is_some() && third.is_none());
        let others: Vec<_> = (2..9).filter_map(|port| turns.take(port)).collect();
        assert_eq!(others.len(), 3);
        drop(first);
        assert!(turns.take(1).is_some());
        drop((second, others));
        assert!(turns.lock().by_port.is_empty() && turns.lock().all == 0);
    }
}
