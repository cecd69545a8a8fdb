//! What an operator may want to know of a store: counted where it happens, read without waiting.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A store's figures at one moment. Counts begin with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// Transactions that wait for the writer thread.
    pub queued: u64,
    /// Batches that were committed, or failed.
    pub batches: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// How long their commits took together.
    pub committing: Duration,
    /// Bytes of the log that the engine's tables have not followed yet.
    pub backlog_bytes: u64,
}

/// Tells an engine's backlog, in bytes.
pub type Backlog = Box<dyn Fn() -> u64 + Send + Sync>;

/// Where a store counts.
pub(crate) struct Gauges {
    queued: AtomicU64,
    batches: AtomicU64,
    transactions: AtomicU64,
    committing_us: AtomicU64,
    backlog: Backlog,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

impl Gauges {
    pub(crate) fn new(backlog: Backlog) -> Self {
        let zero = || AtomicU64::new(0);
        let (queued, batches, transactions) = (zero(), zero(), zero());
        Self { queued, batches, transactions, committing_us: zero(), backlog }
    }

    pub(crate) fn read(&self) -> Measures {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Measures {
            queued: of(&self.queued),
            batches: of(&self.batches),
            transactions: of(&self.transactions),
            committing: Duration::from_micros(of(&self.committing_us)),
            backlog_bytes: (self.backlog)(),
        }
    }

    /// One more waits. Called before it can be taken, so that the count never falls below zero.
    pub(crate) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// So many wait no more.
    pub(crate) fn taken(&self, count: usize) {
        self.queued.fetch_sub(count as u64, Ordering::Relaxed);
    }

    /// A batch of so many was committed, or failed.
    pub(crate) fn committed(&self, transactions: usize, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.transactions.fetch_add(transactions as u64, Ordering::Relaxed);
        self.committing_us.fetch_add(took_us, Ordering::Relaxed);
    }
}
