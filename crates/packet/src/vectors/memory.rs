//! The in-memory twin of the maps: a [`Kernel`] for tests, with the same semantics.

use crate::{
    AddrKey, Config, CtKey, CtSlot, Direction, Drop, DropReason, Fdb, FdbKey, Kernel, Meta, Neigh,
    NeighKey, Port, PortKey, Traffic, Vtep, VtepKey,
};
use std::collections::{BTreeMap, BTreeSet};

/// A frame and the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The frame.
    pub frame: Vec<u8>,
    /// `config`.
    pub config: Config,
    /// `ports`.
    pub ports: BTreeMap<PortKey, Port>,
    /// `addrs`.
    pub addrs: BTreeSet<AddrKey>,
    /// `fdb`.
    pub fdb: BTreeMap<FdbKey, Fdb>,
    /// `neigh`.
    pub neigh: BTreeMap<NeighKey, Neigh>,
    /// `vteps`.
    pub vteps: BTreeMap<VtepKey, Vtep>,
    /// `ct`.
    pub ct: BTreeMap<CtKey, u32>,
    /// `ct_slots`; as many as `config` says.
    pub ct_slots: Vec<CtSlot>,
    /// `ct_hand`.
    pub ct_hand: u32,
    /// `ct_used`.
    pub ct_used: BTreeMap<u32, i64>,
    /// `traffic`; ports without an entry are not counted.
    pub traffic: BTreeMap<u32, Traffic>,
    /// `drops`, those that occurred.
    pub drops: BTreeMap<DropReason, u64>,
}

impl Memory {
    /// Empty maps with a conntrack table of this size.
    #[must_use]
    pub fn new(conntrack_slots: u32) -> Memory {
        Memory {
            config: Config { conntrack_slots, ..Config::default() },
            ct_slots: (0..conntrack_slots).map(|_| CtSlot::default()).collect(),
            ..Memory::default()
        }
    }

    /// Puts a connection into a slot and links it.
    pub fn put_connection(&mut self, number: u32, slot: CtSlot) {
        if let Some(place) = self.ct_slot(number) {
            *place = slot;
        }
        self.ct.insert(slot.key, number);
        *self.ct_used.entry(slot.key.port).or_default() += 1;
    }

    fn range(&self, offset: u32, size: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(size)?;
        (end <= self.frame.len()).then_some(start..end)
    }
}

impl Kernel for Memory {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.frame.get(self.range(offset, N)?)?.try_into().ok()
    }

    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.frame.get(self.range(offset, N * 4)?)?;
        let words = bytes.chunks_exact(4).map(|word| {
            let mut raw = [0; 4];
            raw.copy_from_slice(word);
            u32::from_ne_bytes(raw)
        });
        words.collect::<Vec<u32>>().try_into().ok()
    }

    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> bool {
        let Some(range) = self.range(offset, N) else { return false };
        self.frame[range].copy_from_slice(bytes);
        true
    }

    fn store_words<const N: usize>(&mut self, offset: u32, words: &[u32; N]) -> bool {
        let Some(range) = self.range(offset, N * 4) else { return false };
        for (place, word) in self.frame[range].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        true
    }

    fn config(&self) -> Option<Config> {
        Some(self.config)
    }

    fn port(&self, key: &PortKey) -> Option<Port> {
        self.ports.get(key).copied()
    }

    fn addr_allowed(&self, key: &AddrKey) -> bool {
        self.addrs.contains(key)
    }

    fn fdb(&self, key: &FdbKey) -> Option<Fdb> {
        self.fdb.get(key).copied()
    }

    fn neigh(&self, key: &NeighKey) -> Option<Neigh> {
        self.neigh.get(key).copied()
    }

    fn vtep(&self, key: &VtepKey) -> Option<Vtep> {
        self.vteps.get(key).copied()
    }

    fn ct_find(&self, key: &CtKey) -> Option<u32> {
        self.ct.get(key).copied()
    }

    fn ct_slot(&mut self, slot: u32) -> Option<&mut CtSlot> {
        self.ct_slots.get_mut(usize::try_from(slot).ok()?)
    }

    fn ct_link(&mut self, key: &CtKey, slot: u32) -> bool {
        let full = self.ct.len() >= self.ct_slots.len() && !self.ct.contains_key(key);
        if !full {
            self.ct.insert(*key, slot);
        }
        !full
    }

    fn ct_unlink(&mut self, key: &CtKey) {
        self.ct.remove(key);
    }

    fn ct_swap(&mut self, slot: u32, seen: u32, new: u32) -> bool {
        match self.ct_slot(slot) {
            Some(slot) if slot.word() == seen => {
                slot.set_word(new);
                true
            }
            _ => false,
        }
    }

    fn ct_hand(&mut self) -> u32 {
        let before = self.ct_hand;
        self.ct_hand = before.wrapping_add(1);
        before
    }

    fn ct_used(&self, port: u32) -> Option<i64> {
        self.ct_used.get(&port).copied()
    }

    fn ct_use(&mut self, port: u32, change: i64) {
        if let Some(used) = self.ct_used.get_mut(&port) {
            *used += change;
        }
    }

    fn count(&mut self, port: &Port, direction: Direction, bytes: u32) {
        let Some(traffic) = self.traffic.get_mut(&port.number) else { return };
        let (packets, sum) = match direction {
            Direction::FromPort => (&mut traffic.from_port_packets, &mut traffic.from_port_bytes),
            Direction::ToPort => (&mut traffic.to_port_packets, &mut traffic.to_port_bytes),
        };
        *packets += 1;
        *sum += u64::from(bytes);
    }

    fn count_drop(&mut self, _meta: &Meta, drop: &Drop) {
        *self.drops.entry(drop.reason).or_default() += 1;
        if let Some(traffic) = self.traffic.get_mut(&drop.port.number) {
            traffic.dropped_packets += 1;
        }
    }
}
