//! Reading side: counters and connections, as plain values.

use crate::error::Error;
use crate::pinned::Maps;
use packet::{CtKey, CtState, Direction, DropReason, Traffic};
use std::collections::BTreeMap;

/// Counters since the maps were made, summed over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Drops by reason name; reasons that never occurred are absent.
    pub drops: BTreeMap<&'static str, u64>,
    /// Traffic by port number.
    pub traffic: BTreeMap<u32, Traffic>,
    /// Slots of the connection table in use, by port number.
    pub connections: BTreeMap<u32, i64>,
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

/// Sums all counters.
pub(crate) fn counters(maps: &Maps) -> Result<Counters, Error> {
    let mut counters = Counters::default();
    for info in DropReason::ALL {
        let sum: u64 = maps.drops.get(info.reason.number())?.iter().sum();
        if sum > 0 {
            counters.drops.insert(info.name, sum);
        }
    }
    for port in maps.ports.read()?.values() {
        let mut sum = Traffic::default();
        for one in maps.traffic.get(port.place())? {
            sum.from_port_packets += one.from_port_packets;
            sum.from_port_bytes += one.from_port_bytes;
            sum.to_port_packets += one.to_port_packets;
            sum.to_port_bytes += one.to_port_bytes;
            sum.dropped_packets += one.dropped_packets;
        }
        counters.traffic.insert(port.number, sum);
    }
    counters.connections = maps.ct_used.read()?;
    counters.events_lost = maps.events_lost.get(0)?.iter().sum();
    Ok(counters)
}

/// Every connection that still has its slot.
pub(crate) fn conntrack(maps: &Maps) -> Result<Vec<Connection>, Error> {
    let mut connections = Vec::new();
    for (key, number) in maps.ct.read()? {
        // The slot may be of another connection by now, or the size of the table another one.
        let slot = maps.ct_slots.get(number)?;
        if slot.key != key {
            continue;
        }
        let initiator = match slot.initiator {
            initiator if initiator == Direction::ToPort as u8 => Direction::ToPort,
            _ => Direction::FromPort,
        };
        connections.push(Connection {
            key,
            initiator,
            state: CtState::from_number(slot.state).map_or("unknown", CtState::name),
            allowed: slot.allowed != 0,
            last_seen_ns: slot.last_seen_ns,
        });
    }
    Ok(connections)
}
