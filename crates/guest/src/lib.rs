//! What guests ask their host by TCP and UDP: metadata, which is what an instance may read about
//! itself, and names of its network.
//!
//! What a port sends to 169.254.169.254, or to a resolver of its networks, is handed over with the port's
//! number. [`translate`] and [`address`] make it a packet of a network namespace of the agent's own in which
//! every guest has an address that no other has, though tenants' addresses are the same; so one HTTP server
//! (`http`) and one DNS server ([`dns`]) serve all, who asks is beyond doubt, and TCP is the kernel's.
//! What they say is decided by pure functions, [`metadata`] and [`names`], of what [`Directory`] holds.
//!
//! It knows neither how frames come nor how they leave, and nothing of the data plane.

mod address;
mod budget;
mod directory;
mod dns;
mod forward;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod http;
mod metadata;
mod names;
mod relay;
#[cfg(any(test, feature = "fuzz"))]
mod sample;
mod serve;
mod translate;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

pub use directory::Directory;
pub use serve::serve;

use crate::{
    address::Ways,
    budget::{Rate, Turns},
    forward::Forwarders,
    metadata::Tokens,
};

/// Questions about names that a port may ask in a second.
const QUESTIONS_PER_SECOND: u32 = 1000;
/// Questions about names that others are asked at a time, and those of one port.
const TURNS: usize = 2048;
const TURNS_PER_PORT: usize = 64;

/// A frame that a port has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The port's number.
    pub port: u32,
    /// The interface that it came by, which the answer leaves by.
    pub ifindex: u32,
    /// From its Ethernet header on.
    pub frame: Vec<u8>,
}

/// Why what a guest has sent, or what was for it, is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no packet of TCP or UDP, or a part of one.
    Malformed,
    /// Nothing is served to that port, at that address.
    NotServed,
    /// The port has asked more than it may.
    TooMuch,
    /// There is no room for it now.
    Full,
    /// It belongs to what is gone or forgotten.
    Forgotten,
}

impl Refusal {
    /// All of them, with what they are called where they are counted.
    pub const ALL: [(Self, &str); 5] = [
        (Self::Malformed, "requests of guests for metadata or names that make no sense"),
        (Self::NotServed, "requests of guests for metadata or names that they have not"),
        (Self::TooMuch, "questions about names beyond what a guest may ask at a time"),
        (Self::Full, "requests of guests for which there was no room"),
        (Self::Forgotten, "answers to guests that are gone"),
    ];
}

/// What all that serves guests shares.
pub struct Shared {
    directory: RwLock<Directory>,
    ways: Mutex<Ways>,
    rate: Mutex<Rate>,
    turns: Arc<Turns>,
    tokens: Tokens,
    forwarders: Forwarders,
    started: Instant,
    refusals: [AtomicU64; Refusal::ALL.len()],
}

impl Shared {
    /// Knows nobody yet. `key` is a secret, by which tokens are told from forged ones.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            directory: RwLock::default(),
            ways: Mutex::default(),
            rate: Mutex::new(Rate::new(QUESTIONS_PER_SECOND)),
            turns: Arc::new(Turns::new(TURNS, TURNS_PER_PORT)),
            tokens: Tokens::new(key),
            forwarders: Forwarders::default(),
            started: Instant::now(),
            refusals: Default::default(),
        }
    }

    /// Changes what guests are told from. Who asks meanwhile waits.
    pub fn change(&self, change: impl FnOnce(&mut Directory)) {
        change(&mut self.directory.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// How often each reason was met.
    #[must_use]
    pub fn refusals(&self) -> [(Refusal, u64); Refusal::ALL.len()] {
        Refusal::ALL
            .map(|(refusal, _)| (refusal, self.refusals[refusal as usize].load(Ordering::Relaxed)))
    }

    /// Counts what is not taken.
    pub fn count(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        // Nothing in there panics between two changes that belong together.
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
