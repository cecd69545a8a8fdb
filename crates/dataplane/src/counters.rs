//! Reading side: counters, connections and drop events, as plain values.

use packet::{CtKey, Direction, DropReason, Entry, Traffic};
use std::collections::BTreeMap;

/// Counters since the maps were made, summed over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Drops by reason name; reasons that never occurred are absent.
    pub drops: BTreeMap<&'static str, u64>,
    /// Traffic by port number.
    pub traffic: BTreeMap<u32, Traffic>,
    /// Drop events that found the ring buffer full.
    pub events_lost: u64,
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which, as its port sees it.
    pub key: CtKey,
    /// Who opened it.
    pub initiator: Direction,
    /// State, in words.
    pub state: &'static str,
    /// Whether the policy allowed it.
    pub allowed: bool,
    /// Time of its last packet, nanoseconds of the monotonic clock.
    pub last_seen_ns: u64,
}

/// A dropped frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedFrame {
    /// Time, nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// At which hook.
    pub entry: Option<Entry>,
    /// Interface of the hook.
    pub ifindex: u32,
    /// Number of the port concerned, 0 if none was found.
    pub port: u32,
    /// Why; `None` for a number that this version does not know.
    pub reason: Option<DropReason>,
    /// Bytes of the frame.
    pub length: u32,
    /// Its first bytes.
    pub header: Vec<u8>,
}
