//! Who is connected: a seat each, and who loses it when all are taken.
//!
//! A seat waits for its client, or is at work for what the client has asked. Only waiting ones can
//! lose their seat, the one that has waited longest first; when one source has all that it may
//! have, one of its own. So whoever opens thousands of connections ends their own, and a newcomer
//! has time for its request as long as fewer newcomers than seats arrive meanwhile.
//!
//! Who counts as one source says [`source`](crate::source()). Loopback has no limit of its own:
//! behind a proxy on this machine stand many.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::source;

/// How often it is logged, at most, that somebody had to make room.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// All seats.
#[derive(Debug)]
pub struct Seats {
    seats_max: usize,
    per_source_max: usize,
    table: Mutex<SeatTable>,
}

#[derive(Debug, Default)]
struct SeatTable {
    taken: BTreeMap<u64, Taken>,
    /// Those that wait, by the moment since when.
    waiting: BTreeSet<(u64, u64)>,
    by_source: HashMap<IpAddr, OfSource>,
    /// Counts seats and moments.
    last: u64,
    /// When it was logged that somebody had to make room.
    told: Option<Instant>,
}

#[derive(Debug, Default)]
struct OfSource {
    taken: usize,
    waiting: BTreeSet<(u64, u64)>,
}

#[derive(Debug)]
struct Taken {
    source: IpAddr,
    since: Option<u64>,
    lost: CancellationToken,
}

/// A seat; free again when dropped.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    lost: CancellationToken,
    seats: Arc<Seats>,
}

/// How many seats there are, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// All seats.
    pub seats_max: usize,
    /// Those that somebody has.
    pub taken: usize,
    /// Those of them that wait for their client.
    pub waiting: usize,
}

/// No seat is free, and none can be freed: all are at work.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Seats {
    /// So many seats, and so many of them for one source.
    #[must_use]
    pub fn new(seats_max: usize, per_source_max: usize) -> Self {
        Self { seats_max, per_source_max, table: Mutex::default() }
    }

    /// Gives a seat to a connection from this address.
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let mut table = self.lock();
        let source = source(address);
        let own = table.by_source.get(&source).map_or(0, |of| of.taken);
        if !source.is_loopback() && own >= self.per_source_max {
            table.tell(
                address,
                "one source has all the connections that it may have; its longest \
                idle ones are closed",
            );
            table.free_one_of(source)?;
        } else if table.taken.len() >= self.seats_max {
            table.tell(address, "all connections are taken; the longest idle ones are closed");
            table.free_one()?;
        }
        let (id, lost) = (table.next(), CancellationToken::new());
        table.taken.insert(id, Taken { source, since: None, lost: lost.clone() });
        table.by_source.entry(source).or_default().taken += 1;
        table.wait(id, id);
        drop(table);
        Ok(Seat { id, lost, seats: Arc::clone(self) })
    }

    /// How many are taken now.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let table = self.lock();
        let (taken, waiting) = (table.taken.len(), table.waiting.len());
        Occupancy { seats_max: self.seats_max, taken, waiting }
    }

    /// Takes the seat of the connection that has waited longest, if there is one.
    pub fn free_one(&self) {
        // With none, all are at work and free their files soon.
        let _ = self.lock().free_one();
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

    fn free_one(&mut self) -> Result<(), Full> {
        let (_, id) = self.waiting.first().copied().ok_or(Full)?;
        self.lose(id);
        Ok(())
    }

    fn free_one_of(&mut self, source: IpAddr) -> Result<(), Full> {
        let own = self.by_source.get(&source);
        let (_, id) = own.and_then(|of| of.waiting.first()).copied().ok_or(Full)?;
        self.lose(id);
        Ok(())
    }

    fn lose(&mut self, id: u64) {
        if let Some(taken) = self.remove(id) {
            taken.lost.cancel();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Taken> {
        self.work(id);
        let taken = self.taken.remove(&id)?;
        if let Some(of) = self.by_source.get_mut(&taken.source) {
            of.taken -= 1;
            if of.taken == 0 {
                self.by_source.remove(&taken.source);
            }
        }
        Some(taken)
    }

    /// The connection waits, from this moment on.
    fn wait(&mut self, id: u64, now: u64) {
        self.work(id);
        let Some(taken) = self.taken.get_mut(&id) else { return };
        taken.since = Some(now);
        self.waiting.insert((now, id));
        self.by_source.entry(taken.source).or_default().waiting.insert((now, id));
    }

    /// The connection waits no more.
    fn work(&mut self, id: u64) {
        let Some(taken) = self.taken.get_mut(&id) else { return };
        let Some(since) = taken.since.take() else { return };
        self.waiting.remove(&(since, id));
        self.by_source.entry(taken.source).or_default().waiting.remove(&(since, id));
    }

    fn tell(&mut self, source: IpAddr, what: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(connections = self.taken.len(), %source, "{what}");
        }
    }
}

impl Seat {
    /// A whole request is there: from now on the seat is safe.
    pub fn works(&self) {
        self.seats.lock().work(self.id);
    }

    /// The request is answered; the seat waits for the next one.
    pub fn waits(&self) {
        let mut table = self.seats.lock();
        let now = table.next();
        table.wait(self.id, now);
    }

    /// Returns when the seat was given to somebody else.
    pub async fn lost(&self) {
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
        assert_eq!(seats.take(HERE).unwrap_err(), Full);
        drop(first);
        assert!(seats.take(HERE).is_ok(), "its seat is free");
        second.waits();
        seats.free_one();
        assert!(lost(&second));
    }

    #[test]
    fn a_source_with_its_share_makes_room_for_itself_and_loopback_gets_all() {
        let seats = Arc::new(Seats::new(9, 2));
        let near: Vec<_> = (0..5).map(|_| seats.take(HERE).unwrap()).collect();
        let [first, second, third] = [(); 3].map(|()| seats.take(AWAY).unwrap());
        let lost = |seat: &Seat| seat.lost.is_cancelled();
        assert_eq!([&first, &second, &third].map(lost), [true, false, false]);
        assert!(!near.iter().any(lost), "others keep their seats, though they have waited longer");
        second.works();
        third.works();
        assert_eq!(seats.take(AWAY).unwrap_err(), Full);
        drop(third);
        assert!(seats.take(AWAY).is_ok());
        drop((near, first, second));
        assert!(seats.lock().by_source.is_empty() && seats.lock().waiting.is_empty());
    }

    #[test]
    fn a_customers_ipv6_network_is_one_source() {
        let seats = Arc::new(Seats::new(9, 1));
        let first = seats.take("2001:db8::1".parse().unwrap()).unwrap();
        let other = seats.take("2001:db8:0:1::1".parse().unwrap()).unwrap();
        let _second = seats.take("2001:db8::ffff:2".parse().unwrap()).unwrap();
        assert!(first.lost.is_cancelled() && !other.lost.is_cancelled());
    }
}
