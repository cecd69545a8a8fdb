//! The in-memory twin of the maps: a [`Kernel`] for tests, with the same semantics.

use super::Tracked;
use crate::slots::{Spot, way_number};
use crate::{
    Addr, AddrKey, Afar, Behind, Bucket, Budget, Chapter, ChapterKey, ClassKey, Config,
    ConntrackSize, Covered, CtKey, CtSlot, CtState, CtWord, Direction, Drop, DropReason,
    FRAGMENTS_PER_PORT, Fdb, FdbKey, FloodKey, Flow, FlowEvent, IdentKey, Kernel, Learned, Mac,
    Meta, Move, Neigh, NeighKey, Net, NextHop, Node, Noted, Port, PortKey, PrefixKey, Serving,
    Sharer, SharerKey, Source, Timeout, Timeouts, Told, Traffic, Vtep, VtepKey, Wire,
};
use std::collections::BTreeMap;

/// A frame and the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The frame.
    pub frame: Vec<u8>,
    /// `config`.
    pub config: Config,
    /// `nets`.
    pub nets: BTreeMap<u32, Net>,
    /// `ports`.
    pub ports: BTreeMap<PortKey, Port>,
    /// `addrs`.
    pub addrs: BTreeMap<AddrKey, Source>,
    /// `serving`.
    pub serving: BTreeMap<AddrKey, Serving>,
    /// `answers`.
    pub answer_mark: u32,
    /// `told`.
    pub told: Vec<FlowEvent>,
    /// `telling`.
    pub telling: BTreeMap<u32, Told>,
    /// `fdb`.
    pub fdb: BTreeMap<FdbKey, Fdb>,
    /// `neigh`.
    pub neigh: BTreeMap<NeighKey, Neigh>,
    /// `behind`.
    pub behind: BTreeMap<PrefixKey, Behind>,
    /// `ranges`.
    pub ranges: BTreeMap<u64, Node>,
    /// `chapters`.
    pub chapters: BTreeMap<ChapterKey, Chapter>,
    /// `classes`.
    pub classes: BTreeMap<ClassKey, u32>,
    /// `idents`.
    pub idents: BTreeMap<IdentKey, u64>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `vteps`.
    pub vteps: BTreeMap<VtepKey, Vtep>,
    /// `conntrack`; as many as `config` says.
    pub buckets: Vec<Bucket>,
    /// The flow cache of this CPU, of any size. Without a place nothing is kept.
    pub flows: Vec<Flow>,
    /// That of all CPUs together.
    pub shared_flows: Vec<Flow>,
    /// The host's routes to other VTEPs.
    pub hops: BTreeMap<Addr, NextHop>,
    /// `fragments`.
    pub fragments: Vec<Noted>,
    /// `moves`.
    pub moves: BTreeMap<FdbKey, Move>,
    /// `arrived`. Without an entry nothing has.
    pub arrived: BTreeMap<u32, u64>,
    /// `wires`.
    pub wires: BTreeMap<PortKey, Wire>,
    /// `sharers`.
    pub sharers: BTreeMap<SharerKey, Sharer>,
    /// `afar`.
    pub afar: BTreeMap<FloodKey, Afar>,
    /// `learned`. Without an entry a slot is free.
    pub learned: BTreeMap<u32, Learned>,
    /// `floods`. Without an entry nothing is used yet.
    pub floods: BTreeMap<u32, Budget>,
    /// `budgets`, by place. Without an entry nothing is used yet.
    pub budgets: BTreeMap<u32, Budget>,
    /// `requests`, by place. Without an entry nothing is used yet.
    pub requests: BTreeMap<u32, Budget>,
    /// `traffic`; ports without an entry are not counted.
    pub traffic: BTreeMap<u32, Traffic>,
    /// Number of the rule by which a policy has dropped last.
    pub denied_by: u32,
    /// `drops`, those that occurred.
    pub drops: BTreeMap<DropReason, u64>,
}

impl Memory {
    /// Empty maps with a connection table of this size.
    #[must_use]
    pub fn new(size: ConntrackSize, seed: u64) -> Memory {
        let ConntrackSize { common_buckets, port_buckets, .. } = size;
        Memory {
            config: Config { common_buckets, port_buckets, seed, ..Config::default() },
            buckets: (0..size.buckets()).map(|_| Bucket::default()).collect(),
            fragments: (0..size.ports * FRAGMENTS_PER_PORT).map(|_| Noted::default()).collect(),
            ..Memory::default()
        }
    }

    /// The same, with a flow cache of so many places.
    #[must_use]
    pub fn with_flows(self, places: usize) -> Memory {
        let flows = vec![Flow::default(); places];
        Memory { flows: flows.clone(), shared_flows: flows, ..self }
    }

    /// The spot of a connection of one of the ports.
    ///
    /// # Panics
    /// If no port has its zone.
    pub(crate) fn spot(&self, key: &CtKey, peer: Mac) -> Spot {
        let port = self.ports.values().find(|port| port.zone == key.zone);
        let place = port.map_or(0, Port::place);
        Spot::of(&self.config, key, place, peer).expect("a port with a place")
    }

    /// Puts a connection where it belongs, in the first way of its own area that is free.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn put_connection(&mut self, connection: Tracked) {
        let spot = self.spot(&connection.slot.key(), Mac([0; 6]));
        let ways = [spot.own.first, spot.own.second].into_iter().flat_map(|bucket| {
            let ways = (0..7_u32).map(move |way| way_number(bucket, way));
            ways.take(4)
        });
        let way = ways.clone().find(|way| self.ct_word(*way) == 0).expect("room");
        self.put(way, spot.by_peer, connection);
    }

    /// Puts a connection into a way, under this tag and party.
    pub(crate) fn put(&mut self, way: u32, tag: CtWord, connection: Tracked) {
        let bucket = &mut self.buckets[usize::try_from(way >> 3).expect("a small table")];
        let way = usize::try_from(way & 7).expect("a small number");
        bucket.words[way] = connection.word.0 | tag.0;
        bucket.slots[way] = connection.slot;
    }

    /// All ways that are in use, each with its connection.
    #[must_use]
    pub fn tracked(&self) -> Vec<Tracked> {
        let all = self.buckets.iter().flat_map(|bucket| bucket.words.iter().zip(&bucket.slots));
        let used = all.filter(|(word, _)| CtWord(**word).state() != CtState::Free as u8);
        used.map(|(word, slot)| Tracked { word: CtWord(*word).plain(), slot: *slot }).collect()
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

    fn peek_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load_words(offset)
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

    fn replace_l3(&mut self, checksum: u32, from: u32, to: u32) -> bool {
        let Some(sum) = self.load::<2>(checksum) else { return false };
        self.store(checksum, &changed(sum, from, to))
    }

    fn replace_l4(&mut self, covered: Covered, from: u32, to: u32) -> bool {
        let Some(sum) = self.load::<2>(covered.checksum) else { return false };
        if covered.may_be_absent && sum == [0, 0] {
            return true;
        }
        let mut sum = changed(sum, from, to);
        if covered.may_be_absent && sum == [0, 0] {
            sum = [0xff, 0xff];
        }
        self.store(covered.checksum, &sum)
    }

    fn quote(&mut self, kept: u32, room: u32) -> bool {
        let (Ok(kept), Ok(room)) = (usize::try_from(kept), usize::try_from(room)) else {
            return false;
        };
        self.frame.truncate(kept);
        self.frame.splice(14..14, std::iter::repeat_n(0, room));
        true
    }

    fn config(&self) -> Option<Config> {
        Some(self.config)
    }

    fn port(&self, key: &PortKey) -> Option<Port> {
        self.ports.get(key).copied()
    }

    fn addr_allowed(&self, key: &AddrKey) -> bool {
        self.addrs.contains_key(key)
    }

    fn source(&self, key: &AddrKey) -> Option<Source> {
        self.addrs.get(key).copied()
    }

    fn serving(&self, key: &AddrKey) -> Option<Serving> {
        self.serving.get(key).copied()
    }

    fn fdb(&self, key: &FdbKey) -> Option<Fdb> {
        self.fdb.get(key).copied()
    }

    fn moving(&self, key: &FdbKey) -> Option<Move> {
        self.moves.get(key).copied()
    }

    fn arrived(&mut self, place: u32) -> Option<&mut u64> {
        Some(self.arrived.entry(place).or_default())
    }

    fn neigh(&self, key: &NeighKey) -> Option<Neigh> {
        self.neigh.get(key).copied()
    }

    fn behind(&self, key: &PrefixKey) -> Option<Behind> {
        let found = self.behind.iter().filter(|(prefix, _)| prefix.covers(key));
        found.max_by_key(|(prefix, _)| prefix.prefix_bits()).map(|(_, behind)| *behind)
    }

    fn sharer(&self, key: &SharerKey) -> Option<Sharer> {
        self.sharers.get(key).copied()
    }

    fn net(&self, number: u32) -> Option<Net> {
        self.nets.get(&number).copied()
    }

    fn wire(&self, key: &PortKey) -> Option<Wire> {
        self.wires.get(key).copied()
    }

    fn vtep(&self, key: &VtepKey) -> Option<Vtep> {
        self.vteps.get(key).copied()
    }

    fn node(&self, key: u64) -> Option<&Node> {
        self.ranges.get(&key)
    }

    fn chapter(&self, key: &ChapterKey) -> Option<Chapter> {
        self.chapters.get(key).copied()
    }

    fn class(&self, key: &ClassKey) -> Option<u32> {
        let found = self.classes.iter().filter(|(prefix, _)| prefix.covers(key));
        found.max_by_key(|(prefix, _)| prefix.prefix_bits()).map(|(_, class)| *class)
    }

    fn ident(&self, key: &IdentKey) -> Option<u64> {
        self.idents.get(key).copied()
    }

    fn timeout(&self, timeout: Timeout) -> u32 {
        self.timeouts.ticks()[timeout as usize]
    }

    fn noted(&mut self, number: u32) -> Option<&mut Noted> {
        self.fragments.get_mut(usize::try_from(number).ok()?)
    }

    fn ct_bucket(&mut self, number: u32) -> Option<&mut Bucket> {
        self.buckets.get_mut(usize::try_from(number).ok()?)
    }

    fn ct_slot(&mut self, way: u32) -> Option<&mut CtSlot> {
        let at = usize::try_from(way & 7).ok()?;
        self.ct_bucket(way >> 3)?.slots.get_mut(at)
    }

    fn ct_word(&self, way: u32) -> u64 {
        let (Ok(bucket), Ok(at)) = (usize::try_from(way >> 3), usize::try_from(way & 7)) else {
            return 0;
        };
        self.buckets.get(bucket).and_then(|bucket| bucket.words.get(at)).copied().unwrap_or(0)
    }

    fn ct_swap(&mut self, way: u32, seen: u64, new: u64) -> bool {
        let Ok(at) = usize::try_from(way & 7) else { return false };
        match self.ct_bucket(way >> 3).and_then(|bucket| bucket.words.get_mut(at)) {
            Some(word) if *word == seen => {
                *word = new;
                true
            }
            _ => false,
        }
    }

    fn next_hop(&self, vtep: &Addr, _local: &Addr) -> Option<NextHop> {
        self.hops.get(vtep).copied()
    }

    fn flow(&mut self, place: u32) -> Option<&mut Flow> {
        let places = self.flows.len().max(1);
        self.flows.get_mut(usize::try_from(place).ok()? % places)
    }

    fn flows(&mut self, place: u32) -> Option<(&mut Flow, &mut Flow)> {
        let places = self.shared_flows.len().max(1);
        let at = usize::try_from(place).ok()? % places;
        Some((self.flows.get_mut(at)?, self.shared_flows.get_mut(at)?))
    }

    fn afar(&self, key: &FloodKey) -> Option<Afar> {
        self.afar.get(key).copied()
    }

    fn learned(&mut self, slot: u32) -> Option<&mut Learned> {
        Some(self.learned.entry(slot).or_default())
    }

    fn budget(&mut self, place: u32) -> Option<&mut Budget> {
        Some(self.budgets.entry(place).or_default())
    }

    fn requests(&mut self, place: u32) -> Option<&mut Budget> {
        Some(self.requests.entry(place).or_default())
    }

    fn answer_mark(&self) -> u32 {
        self.answer_mark
    }

    fn flood_budget(&mut self, slot: u32) -> Option<&mut Budget> {
        Some(self.floods.entry(slot).or_default())
    }

    fn count(&mut self, place: u32, direction: Direction, bytes: u32) {
        let Some(port) = self.ports.values().find(|port| port.place() == place) else { return };
        let Some(traffic) = self.traffic.get_mut(&port.number) else { return };
        let (packets, sum) = match direction {
            Direction::FromPort => (&mut traffic.from_port_packets, &mut traffic.from_port_bytes),
            Direction::ToPort => (&mut traffic.to_port_packets, &mut traffic.to_port_bytes),
        };
        *packets += 1;
        *sum += u64::from(bytes);
    }

    fn telling(&mut self, place: u32) -> Option<&mut Told> {
        Some(self.telling.entry(place).or_default())
    }

    fn tell(&mut self, event: &FlowEvent) -> bool {
        self.told.push(*event);
        true
    }

    fn count_drop(&mut self, _meta: &Meta, drop: &Drop) {
        *self.drops.entry(drop.reason).or_default() += 1;
        if drop.reason.is_of_policy() {
            self.denied_by = drop.rule;
        }
        if let Some(traffic) = self.traffic.get_mut(&drop.port.number) {
            traffic.dropped_packets += 1;
        }
    }
}

/// A checksum after a word that it covers has changed (RFC 1624, equation 3).
fn changed(sum: [u8; 2], from: u32, to: u32) -> [u8; 2] {
    let halves = |word: u32| {
        let [a, b, c, d] = word.to_ne_bytes();
        [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
    };
    let mut total = u32::from(!u16::from_be_bytes(sum));
    for half in halves(from) {
        total += u32::from(!half);
    }
    for half in halves(to) {
        total += u32::from(half);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    (!u16::try_from(total).expect("folded")).to_be_bytes()
}
