//! What would become of a frame: the programs' own decisions, over the entries of live maps.
//!
//! Every entry that they ask for is looked up by itself, and noted. What they would write stays here:
//! a trace changes nothing, counts nothing and is seen by nobody. It asks what becomes of a *new*
//! connection: the table of connections is empty, the budgets are unspent, and nothing is known of
//! the flow.

use crate::counters::monotonic_ns;
use crate::error::Error;
use crate::lookup::Lookup;
use packet::{
    Addr, AddrKey, Afar, Behind, Bucket, Budget, Chapter, ChapterKey, ClassKey, Config, Covered,
    CtSlot, Direction, Drop, Entry, Fdb, FdbKey, FloodKey, Flow, FlowEvent, IdentKey, Kernel,
    Learned, Meta, Move, Neigh, NeighKey, Net, NextHop, Node, Noted, Packet, Port, PortKey,
    PrefixKey, Serving, Sharer, SharerKey, Source, Timeout, Told, Verdict, Vtep, VtepKey, Wire,
};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

/// Findings that are noted at most; a packet makes a few dozen.
pub const FINDINGS_MAX: usize = 256;

/// Nodes that a packet may read: each side reads two trees of few levels, once for each way.
const NODES_MAX: usize = 64;

/// Buckets of each area of the table of connections that a trace has for itself.
const BUCKETS: u32 = 4;

/// What was asked on a packet's way, in order, and what the answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A port.
    Port(PortKey, Option<Port>),
    /// A network.
    Net(u32, Option<Net>),
    /// A VTEP that may send.
    Vtep(VtepKey, Option<Vtep>),
    /// Where an uplink leads.
    Wire(PortKey, Option<Wire>),
    /// An address that a port may use.
    Source(AddrKey, Option<Source>),
    /// What netloom does for a port at an address.
    Serving(AddrKey, Option<Serving>),
    /// A station.
    Station(FdbKey, Option<Fdb>),
    /// A move of a station.
    Move(FdbKey, Option<Move>),
    /// Who has an address.
    Neighbour(NeighKey, Option<Neigh>),
    /// Who routes for an address.
    Behind(PrefixKey, Option<Behind>),
    /// Whether a station shares an address.
    Sharer(SharerKey, Option<Sharer>),
    /// Who the other end is.
    Identity(IdentKey, Option<u64>),
    /// The class of the other end's address.
    Class(ClassKey, Option<u32>),
    /// What a rule set says to somebody.
    Chapter(ChapterKey, Option<Chapter>),
    /// A port's side is passed: its place, and which way.
    Passed(u32, Direction),
    /// It is dropped.
    Dropped(Drop),
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// What the programs would do with it; [`Verdict::Pass`] also if it is no matter of theirs.
    pub verdict: Verdict,
    /// Why and where it is dropped, if it is.
    pub dropped: Option<Drop>,
    /// The frame as they leave it.
    pub frame: Vec<u8>,
    /// What they asked.
    pub findings: Vec<Finding>,
}

/// Has the programs decide about a frame at a hook: [`Entry::FromPort`], [`Entry::FromTunnel`] (the frame
/// inside), [`Entry::FromUplink`] or [`Entry::ToUplink`]; [`Entry::ToPort`] for what the host's own
/// stack sends. `meta` is as the programs get it; its time and its length, if they are 0, are now and
/// the frame's.
///
/// # Errors
/// [`Error::Map`] when a map cannot be read.
pub fn trace(
    live: &dyn Lookup,
    (entry, meta): (Entry, &Meta),
    frame: &[u8],
) -> Result<Traced, Error> {
    let mut meta = *meta;
    if meta.now_ns == 0 {
        meta.now_ns = monotonic_ns();
    }
    if meta.length == 0 {
        meta.length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    }
    let mut kernel = Recorder::new(live, frame);
    let mut packet = Packet::default();
    match entry {
        Entry::FromPort => packet::from_port(&mut kernel, &meta, &mut packet),
        Entry::FromTunnel | Entry::ToTunnel => {
            packet::from_tunnel(&mut kernel, &meta, &mut packet);
        }
        Entry::ToPort => packet.verdict = packet::to_port(&mut kernel, &meta),
        Entry::FromUplink | Entry::ToUplink => {
            if !packet::from_wire(&mut kernel, &meta, entry, &mut packet) {
                packet.verdict = Verdict::Pass;
            }
        }
    }
    kernel.end(packet.verdict)
}

/// Answers the programs out of live maps, and keeps what they write.
struct Recorder<'a> {
    live: &'a dyn Lookup,
    frame: Vec<u8>,
    noted: RefCell<Notes>,
    /// Nodes that were read: they are lent.
    nodes: [OnceCell<(u64, Node)>; NODES_MAX],
    buckets: BTreeMap<u32, Bucket>,
    fragments: BTreeMap<u32, Noted>,
    learned: BTreeMap<u32, Learned>,
    arrived: BTreeMap<u32, u64>,
    budget: Budget,
    requests: Budget,
    floods: BTreeMap<u32, Budget>,
}

#[derive(Default)]
struct Notes {
    findings: Vec<Finding>,
    failed: Option<Error>,
}

impl<'a> Recorder<'a> {
    fn new(live: &'a dyn Lookup, frame: &[u8]) -> Recorder<'a> {
        Recorder {
            live,
            frame: frame.to_vec(),
            noted: RefCell::default(),
            nodes: [const { OnceCell::new() }; NODES_MAX],
            buckets: BTreeMap::new(),
            fragments: BTreeMap::new(),
            learned: BTreeMap::new(),
            arrived: BTreeMap::new(),
            budget: Budget::default(),
            requests: Budget::default(),
            floods: BTreeMap::new(),
        }
    }

    fn end(self, verdict: Verdict) -> Result<Traced, Error> {
        let Notes { findings, failed } = self.noted.into_inner();
        let dropped = findings.iter().rev().find_map(|finding| match finding {
            Finding::Dropped(drop) => Some(*drop),
            _ => None,
        });
        // Else it was the copy for somebody else.
        let dropped = dropped.filter(|_| matches!(verdict, Verdict::Drop(_)));
        match failed {
            Some(error) => Err(error),
            None => Ok(Traced { verdict, dropped, frame: self.frame, findings }),
        }
    }

    /// What is there, if anything is. After a failure nothing is, which denies.
    fn answer<T: Default>(&self, answer: Result<T, Error>) -> T {
        answer.unwrap_or_else(|error| {
            self.noted.borrow_mut().failed.get_or_insert(error);
            T::default()
        })
    }

    fn note(&self, finding: Finding) {
        let findings = &mut self.noted.borrow_mut().findings;
        if findings.len() < FINDINGS_MAX {
            findings.push(finding);
        }
    }

    fn range(&self, offset: u32, size: usize) -> Option<Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(size)?;
        (end <= self.frame.len()).then_some(start..end)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> bool {
        let Some(range) = self.range(offset, bytes.len()) else { return false };
        let Some(place) = self.frame.get_mut(range) else { return false };
        place.copy_from_slice(bytes);
        true
    }
}

/// A lookup that is noted.
macro_rules! noted {
    ($kernel:ident, $map:ident, $key:expr, $finding:ident) => {{
        let found = $kernel.answer($kernel.live.$map($key));
        $kernel.note(Finding::$finding(*$key, found));
        found
    }};
}

impl Kernel for Recorder<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.frame.get(self.range(offset, N)?)?.try_into().ok()
    }

    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.frame.get(self.range(offset, N.checked_mul(4)?)?)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().ok()?);
        }
        Some(words)
    }

    fn peek_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load_words(offset)
    }

    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> bool {
        self.write(offset, bytes)
    }

    fn store_words<const N: usize>(&mut self, offset: u32, words: &[u32; N]) -> bool {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.write(offset, &bytes)
    }

    fn replace_l3(&mut self, checksum: u32, from: u32, to: u32) -> bool {
        let Some(sum) = self.load::<2>(checksum) else { return false };
        self.write(checksum, &changed(sum, from, to))
    }

    fn replace_l4(&mut self, covered: Covered, from: u32, to: u32) -> bool {
        let Some(sum) = self.load::<2>(covered.checksum) else { return false };
        if covered.may_be_absent && sum == [0, 0] {
            return true;
        }
        let sum = match changed(sum, from, to) {
            [0, 0] if covered.may_be_absent => [0xff, 0xff],
            sum => sum,
        };
        self.write(covered.checksum, &sum)
    }

    fn quote(&mut self, kept: u32, room: u32) -> bool {
        const ETHERNET_BYTES: usize = 14;
        let (Ok(kept), Ok(room)) = (usize::try_from(kept), usize::try_from(room)) else {
            return false;
        };
        if kept.min(self.frame.len()) < ETHERNET_BYTES || room > self.frame.len() {
            return false;
        }
        self.frame.truncate(kept);
        self.frame.splice(ETHERNET_BYTES..ETHERNET_BYTES, std::iter::repeat_n(0, room));
        true
    }

    fn config(&self) -> Option<Config> {
        // With the table of connections that is here.
        let config = self.answer(self.live.config().map(Some))?;
        Some(Config { common_buckets: BUCKETS, port_buckets: BUCKETS, ..config })
    }

    fn port(&self, key: &PortKey) -> Option<Port> {
        noted!(self, ports, key, Port)
    }

    fn addr_allowed(&self, key: &AddrKey) -> bool {
        self.source(key).is_some()
    }

    fn source(&self, key: &AddrKey) -> Option<Source> {
        noted!(self, addrs, key, Source)
    }

    fn serving(&self, key: &AddrKey) -> Option<Serving> {
        noted!(self, serving, key, Serving)
    }

    fn fdb(&self, key: &FdbKey) -> Option<Fdb> {
        noted!(self, fdb, key, Station)
    }

    fn moving(&self, key: &FdbKey) -> Option<Move> {
        noted!(self, moves, key, Move)
    }

    fn arrived(&mut self, place: u32) -> Option<&mut u64> {
        let live = self.answer(self.live.arrived(place));
        Some(self.arrived.entry(place).or_insert(live))
    }

    fn neigh(&self, key: &NeighKey) -> Option<Neigh> {
        noted!(self, neigh, key, Neighbour)
    }

    fn behind(&self, key: &PrefixKey) -> Option<Behind> {
        noted!(self, behind, key, Behind)
    }

    fn sharer(&self, key: &SharerKey) -> Option<Sharer> {
        noted!(self, sharers, key, Sharer)
    }

    fn net(&self, number: u32) -> Option<Net> {
        noted!(self, nets, &number, Net)
    }

    fn wire(&self, key: &PortKey) -> Option<Wire> {
        noted!(self, wires, key, Wire)
    }

    fn vtep(&self, key: &VtepKey) -> Option<Vtep> {
        noted!(self, vteps, key, Vtep)
    }

    fn node(&self, key: u64) -> Option<&Node> {
        let known = self.nodes.iter().map_while(OnceCell::get).find(|(held, _)| *held == key);
        if let Some((_, node)) = known {
            return Some(node);
        }
        let node = self.answer(self.live.ranges(&key))?;
        let free = self.nodes.iter().find(|cell| cell.get().is_none())?;
        Some(&free.get_or_init(|| (key, node)).1)
    }

    fn chapter(&self, key: &ChapterKey) -> Option<Chapter> {
        noted!(self, chapters, key, Chapter)
    }

    fn class(&self, key: &ClassKey) -> Option<u32> {
        noted!(self, classes, key, Class)
    }

    fn ident(&self, key: &IdentKey) -> Option<u64> {
        noted!(self, idents, key, Identity)
    }

    fn timeout(&self, timeout: Timeout) -> u32 {
        self.answer(self.live.timeout(timeout))
    }

    fn noted(&mut self, number: u32) -> Option<&mut Noted> {
        Some(self.fragments.entry(number).or_default())
    }

    fn ct_bucket(&mut self, number: u32) -> Option<&mut Bucket> {
        Some(self.buckets.entry(number).or_default())
    }

    fn ct_slot(&mut self, way: u32) -> Option<&mut CtSlot> {
        let at = usize::try_from(way & 7).ok()?;
        self.ct_bucket(way >> 3)?.slots.get_mut(at)
    }

    fn ct_word(&self, way: u32) -> u64 {
        let bucket = self.buckets.get(&(way >> 3));
        let at = usize::try_from(way & 7).ok();
        bucket.zip(at).and_then(|(bucket, at)| bucket.words.get(at)).copied().unwrap_or(0)
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

    fn next_hop(&self, _vtep: &Addr, _local: &Addr) -> Option<NextHop> {
        // The way through the tunnel device leads to the same host.
        None
    }

    fn flow(&mut self, _place: u32) -> Option<&mut Flow> {
        None
    }

    fn flows(&mut self, _place: u32) -> Option<(&mut Flow, &mut Flow)> {
        None
    }

    fn afar(&self, key: &FloodKey) -> Option<Afar> {
        self.answer(self.live.afar(key))
    }

    fn learned(&mut self, slot: u32) -> Option<&mut Learned> {
        let live = self.answer(self.live.learned(slot));
        Some(self.learned.entry(slot).or_insert(live))
    }

    fn budget(&mut self, _place: u32) -> Option<&mut Budget> {
        Some(&mut self.budget)
    }

    fn requests(&mut self, _place: u32) -> Option<&mut Budget> {
        Some(&mut self.requests)
    }

    fn answer_mark(&self) -> u32 {
        // Nobody has it, and a trace least of all.
        0
    }

    fn telling(&mut self, _place: u32) -> Option<&mut Told> {
        None
    }

    fn tell(&mut self, _event: &FlowEvent) -> bool {
        false
    }

    fn flood_budget(&mut self, slot: u32) -> Option<&mut Budget> {
        Some(self.floods.entry(slot).or_default())
    }

    fn count(&mut self, place: u32, direction: Direction, _bytes: u32) {
        self.note(Finding::Passed(place, direction));
    }

    fn count_drop(&mut self, _meta: &Meta, drop: &Drop) {
        self.note(Finding::Dropped(*drop));
    }
}

/// A checksum after a word that it covers has changed (RFC 1624, equation 3).
fn changed(sum: [u8; 2], from: u32, to: u32) -> [u8; 2] {
    let halves = |word: u32| {
        let [a, b, c, d] = word.to_ne_bytes();
        [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
    };
    let gone = halves(from).map(|half| u32::from(!half));
    let come = halves(to).map(u32::from);
    let mut total = u32::from(!u16::from_be_bytes(sum));
    total += gone.into_iter().chain(come).sum::<u32>();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    (!u16::try_from(total).unwrap_or(u16::MAX)).to_be_bytes()
}
