//! Who is connected: a seat each, and who loses it when all are taken.
//!
//! A seat waits (for a first byte, a head, a body, the next request) or is at work for a request
//! that has arrived. Only waiting ones can lose their seat, the one that has waited longest first.
//! So whoever opens thousands of connections ends their own, and a newcomer has time for its
//! request as long as fewer newcomers than seats arrive meanwhile. Strangers cannot keep many
//! seats at work: without a session all that they get to run are logins, which have a short queue.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    seats_max: usize,
    per_source_max: usize,
    table: Mutex<SeatTable>,
}

#[derive(Debug, Default)]
struct SeatTable {
    taken: BTreeMap<u64, Taken>,
    /// Those that wait, by the moment since when.
    waiting: BTreeSet<(u64, u64)>,
    by_source: HashMap<IpAddr, usize>,
    /// Counts seats and moments.
    last: u64,
    /// That all are taken was told, and is not over yet.
    told_full: bool,
}

#[derive(Debug)]
struct Taken {
    source: IpAddr,
    since: Option<u64>,
    lost: CancellationToken,
}

/// A seat; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    id: u64,
    lost: CancellationToken,
    seats: Arc<Seats>,
}

/// No seat is free, and none can be freed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// It is the source that has too many.
    pub(super) of_source: bool,
}

impl Seats {
    pub(super) fn new(seats_max: usize, per_source_max: usize) -> Self {
        Self { seats_max, per_source_max, table: Mutex::default() }
    }

    /// Gives a seat to a connection from `source`.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Result<Seat, Full> {
        let mut table = self.lock();
        let own = table.by_source.get(&source).copied().unwrap_or_default();
        if !source.is_loopback() && own >= self.per_source_max {
            table.tell_full(source, "one address has all the connections that it may have");
            return Err(Full { of_source: true });
        }
        if table.taken.len() >= self.seats_max {
            table.tell_full(source, "all connections are taken; the longest idle ones are closed");
            if !table.free_one() {
                return Err(Full { of_source: false });
            }
        } else if table.taken.len() < self.seats_max / 2 {
            table.told_full = false;
        }
        let (id, lost) = (table.next(), CancellationToken::new());
        let since = Some(id);
        table.taken.insert(id, Taken { source, since, lost: lost.clone() });
        table.waiting.insert((id, id));
        *table.by_source.entry(source).or_default() += 1;
        drop(table);
        Ok(Seat { id, lost, seats: Arc::clone(self) })
    }

    /// Takes the seat of the connection that has waited longest; whether there was one.
    pub(super) fn free_one(&self) -> bool {
        self.lock().free_one()
    }

    fn lock(&self) -> MutexGuard<'_, SeatTable> {
        // Nothing in here panics between two changes that belong together.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeatTable {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn free_one(&mut self) -> bool {
        let Some((_, id)) = self.waiting.first().copied() else { return false };
        if let Some(taken) = self.remove(id) {
            taken.lost.cancel();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        if let Some(since) = taken.since {
            self.waiting.remove(&(since, id));
        }
        if let Some(count) = self.by_source.get_mut(&taken.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&taken.source);
            }
        }
        Some(taken)
    }

    /// Once until fewer than half of the seats are taken.
    fn tell_full(&mut self, source: IpAddr, what: &str) {
        if !std::mem::replace(&mut self.told_full, true) {
            tracing::warn!(connections = self.taken.len(), %source, "{what}");
        }
    }
}

impl Seat {
    /// A whole request is there: from now on the seat is safe.
    pub(super) fn works(&self) {
        let mut table = self.seats.lock();
        let Some(taken) = table.taken.get_mut(&self.id) else { return };
        if let Some(since) = taken.since.take() {
            table.waiting.remove(&(since, self.id));
        }
    }

    /// The request is answered; the seat waits for the next one.
    pub(super) fn waits(&self) {
        let mut table = self.seats.lock();
        let now = table.next();
        let Some(taken) = table.taken.get_mut(&self.id) else { return };
        let before = taken.since.replace(now);
        if let Some(before) = before {
            table.waiting.remove(&(before, self.id));
        }
        table.waiting.insert((now, self.id));
    }

    /// Returns when the seat was given to somebody else.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn the_one_that_has_waited_longest_makes_room_and_work_is_never_cut() {
        let seats = Arc::new(Seats::new(3, 9));
        let [first, second, third] = [(); 3].map(|()| seats.take(HERE).unwrap());
        first.works();
        second.works();
        second.waits();
        let fourth = seats.take(HERE).unwrap();
        let lost = |seat: &Seat| seat.lost.is_cancelled();
        assert_eq!([&first, &second, &third].map(lost), [false, false, true]);
        drop(third);
        fourth.works();
        second.works();
        assert_eq!(seats.take(HERE).unwrap_err(), Full { of_source: false });
        drop(first);
        assert!(seats.take(HERE).is_ok(), "its seat is free");
        second.waits();
        assert!(seats.free_one() && lost(&second));
    }

    #[test]
    fn one_address_gets_its_share_and_loopback_all() {
        let seats = Arc::new(Seats::new(9, 2));
        let held = [(); 2].map(|()| seats.take(AWAY).unwrap());
        assert_eq!(seats.take(AWAY).unwrap_err(), Full { of_source: true });
        let near: Vec<_> = (0..5).map(|_| seats.take(HERE).unwrap()).collect();
        drop(held);
        assert!(seats.take(AWAY).is_ok());
        drop(near);
        assert!(seats.lock().by_source.is_empty() && seats.lock().waiting.is_empty());
    }
}
