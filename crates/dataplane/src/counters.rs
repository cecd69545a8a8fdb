//! Reading side: counters and connections, as plain values.

use crate::error::Error;
use crate::pinned::Maps;
use nix::time::{ClockId, clock_gettime};
use packet::{CtKey, CtSlot, CtState, CtWord, Direction, DropReason, Traffic, tick};
use std::collections::BTreeMap;
use std::time::Duration;

/// Counters since the maps were made, summed over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Drops by reason name; reasons that never occurred are absent.
    pub drops: BTreeMap<&'static str, u64>,
    /// Traffic by port number.
    pub traffic: BTreeMap<u32, Traffic>,
    /// Connections that a port had no room for, by its number; ports that had room for all are absent.
    pub crowded: BTreeMap<u32, u64>,
    /// Drop events that found the ring buffer full.
    pub events_lost: u64,
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number of the port that sees it so.
    pub port: u32,
    /// Which, as its port sees it.
    pub key: CtKey,
    /// Who opened it; `None` if that was before the table had it.
    pub initiator: Option<Direction>,
    /// State, in words.
    pub state: &'static str,
    /// Whether the policy allowed it.
    pub allowed: bool,
    /// Number of the rule that decided; 0 if none did.
    pub rule: u32,
    /// Seconds that it lives without another packet.
    pub seconds_left: u64,
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
        let crowded: u64 = maps.crowded.get(port.place())?.iter().sum();
        if crowded > 0 {
            counters.crowded.insert(port.number, crowded);
        }
    }
    counters.events_lost = maps.events_lost.get(0)?.iter().sum();
    Ok(counters)
}

/// Drops for all reasons.
pub(crate) fn dropped(maps: &Maps) -> Result<u64, Error> {
    DropReason::ALL.iter().try_fold(0_u64, |all, info| {
        let of_cpus = maps.drops.get(info.reason.number())?;
        Ok(all.saturating_add(of_cpus.iter().sum()))
    })
}

/// Every connection of a port that has not expired.
pub(crate) fn conntrack(maps: &Maps) -> Result<Vec<Connection>, Error> {
    let ports = maps.ports.read()?;
    let numbers: BTreeMap<u32, u32> = ports.values().map(|port| (port.zone, port.number)).collect();
    let config = maps.config()?;
    let areas = ports.values().flat_map(|port| config.area(port.place()));
    let now = tick(monotonic_ns());
    let mut connections = Vec::new();
    for number in (0..config.common_buckets).chain(areas) {
        let bucket = maps.conntrack.get(number)?;
        for (word, slot) in bucket.words.iter().map(|word| CtWord(*word)).zip(&bucket.slots) {
            // What has no port is left over in the common area.
            let Some(port) = numbers.get(&slot.zone).filter(|_| word.is_live(now)) else {
                continue;
            };
            connections.push(Connection {
                port: *port,
                key: slot.key(),
                initiator: (!word.picked_up()).then(|| word.initiator()),
                state: CtState::from_number(word.state()).map_or("unknown", CtState::name),
                allowed: slot.allowed == CtSlot::ALLOWED,
                rule: slot.rule,
                seconds_left: word.seconds_left(now),
            });
        }
    }
    Ok(connections)
}

/// How many connections each port has, by its number. Reads the ports' own areas, and the common
/// one only if a connection of one of them may be there.
pub(crate) fn connection_counts(maps: &Maps) -> Result<BTreeMap<u32, u32>, Error> {
    let ports = maps.ports.read()?;
    let numbers: BTreeMap<u32, u32> = ports.values().map(|port| (port.zone, port.number)).collect();
    let mut counts: BTreeMap<u32, u32> = numbers.values().map(|number| (*number, 0)).collect();
    let config = maps.config()?;
    let now = tick(monotonic_ns());
    let mut count = |number: u32| {
        let bucket = maps.conntrack.get(number)?;
        for (word, slot) in bucket.words.iter().map(|word| CtWord(*word)).zip(&bucket.slots) {
            let port = numbers.get(&slot.zone).filter(|_| word.is_live(now));
            if let Some(count) = port.and_then(|port| counts.get_mut(port)) {
                *count += 1;
            }
        }
        Ok::<_, Error>(bucket.spilled_until >= now)
    };
    let mut has_spilled = false;
    for bucket in ports.values().flat_map(|port| config.area(port.place())) {
        has_spilled |= count(bucket)?;
    }
    if has_spilled {
        for bucket in 0..config.common_buckets {
            count(bucket)?;
        }
    }
    Ok(counts)
}

/// The clock of the programs, but for a tick of the kernel.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
