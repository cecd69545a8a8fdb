//! Connections of another table, put where ours has room for them.
//!
//! No program works on our table yet. It is built in memory and written bucket by bucket, so a
//! second try ends as the first would have.

use super::convert::Connections;
use crate::counters::monotonic_ns;
use crate::error::Error;
use crate::pinned::Maps;
use packet::{Bucket, Config, CtSlot, CtWord, Direction, Homes, WAYS, WAYS_EACH, homes};
use std::collections::BTreeMap;

/// Writes them into the table; how many were, and how many have no port any more or found no room.
pub(super) fn carry(maps: &mut Maps, from: &Connections) -> Result<(u64, u64), Error> {
    let ports = maps.ports.read()?;
    let places: BTreeMap<u32, u32> = ports.values().map(|port| (port.zone, port.place())).collect();
    let mut table = Table { config: maps.config()?, buckets: BTreeMap::new() };
    let (mut carried, mut lost) = (0, 0);
    from.each(monotonic_ns(), |slot, word| {
        let place = places.get(&slot.zone).copied().unwrap_or(0);
        match table.insert(slot, word, place) {
            true => carried += 1,
            false => lost += 1,
        }
    })?;
    for (number, bucket) in &table.buckets {
        maps.conntrack.set(*number, bucket)?;
    }
    Ok((carried, lost))
}

/// The table that will be.
struct Table {
    config: Config,
    buckets: BTreeMap<u32, Bucket>,
}

impl Table {
    /// Takes a free way for a connection of the port at this place; whether there was one.
    fn insert(&mut self, slot: CtSlot, word: CtWord, place: u32) -> bool {
        let Some(Homes { own, by_peer, common, by_port }) = homes(&self.config, &slot.key(), place)
        else {
            return false;
        };
        // As the programs do it: each side from its own end.
        let each = usize::try_from(WAYS_EACH).unwrap_or(WAYS);
        let ways: Vec<usize> = match word.initiator() {
            Direction::FromPort => (WAYS - each..WAYS).rev().collect(),
            Direction::ToPort => (0..each).collect(),
        };
        if own.into_iter().any(|bucket| self.take(bucket, &ways, slot, by_peer.0 | word.0)) {
            return true;
        }
        let all: Vec<usize> = (0..WAYS).collect();
        let mut common = common.into_iter().flatten();
        if !common.any(|bucket| self.take(bucket, &all, slot, by_port.0 | word.0)) {
            return false;
        }
        let home = self.buckets.entry(own[0]).or_default();
        home.spilled_until = home.spilled_until.max(word.deadline());
        true
    }

    /// Puts it into a free one of these ways; whether there was one.
    fn take(&mut self, bucket: u32, ways: &[usize], slot: CtSlot, word: u64) -> bool {
        let bucket = self.buckets.entry(bucket).or_default();
        let Some(way) = ways.iter().find(|way| bucket.words[**way] == 0) else { return false };
        bucket.words[*way] = word;
        bucket.slots[*way] = slot;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{Addr, CtState};

    fn slot(local_port: u16) -> CtSlot {
        let local = Addr::v4([10, 0, 0, 1]);
        CtSlot { zone: 7, local, remote: local, local_port, protocol: 6, ..CtSlot::default() }
    }

    #[test]
    fn what_its_own_area_has_no_room_for_is_in_the_common_one_and_can_be_found() {
        let config = Config { common_buckets: 4, port_buckets: 2, seed: 3, ..Config::default() };
        let mut table = Table { config, buckets: BTreeMap::new() };
        let word = CtWord(0).with_state(CtState::Established).until(900);
        let put: Vec<u16> = (1..100).filter(|port| table.insert(slot(*port), word, 1)).collect();
        let own = table.buckets.iter().filter(|(number, _)| config.area(1).contains(*number));
        let held = |bucket: &Bucket| bucket.words.iter().filter(|word| **word != 0).count();
        let all: usize = table.buckets.values().map(held).sum();
        assert_eq!(all, put.len(), "each once, and nothing else");
        assert_eq!(own.map(|(_, bucket)| held(bucket)).sum::<usize>(), 8, "what the port opens");
        assert!(put.len() > 20 && put.len() <= 8 + 4 * WAYS, "{}", put.len());
        for port in put {
            let homes = homes(&config, &slot(port).key(), 1).unwrap();
            let has = |bucket: &u32| {
                table.buckets.get(bucket).is_some_and(|bucket| bucket.slots.contains(&slot(port)))
            };
            let is_told = table.buckets[&homes.own[0]].spilled_until == 900;
            let common = homes.common.unwrap();
            assert!(homes.own.iter().any(has) || (is_told && common.iter().any(has)), "{port}");
        }
        assert!(!table.insert(slot(1), word, 0), "of a port that is gone");
    }
}
