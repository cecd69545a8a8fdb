//! Room for connections: buckets of seven, in the kernel.
//!
//! Each port has an area of the table to itself, which nobody else can touch, and all share a
//! common area. A connection has two buckets in each; they follow from a seeded hash of its key.
//! It takes the better way of the two in its port's own area, and goes to the common area when
//! there is none. Of free ways it takes one in the first bucket, where it is found sooner, until
//! that has [`BALANCED_FROM`] of its side; then in the one that has fewer (Azar and others,
//! "Balanced allocations", 1994): of as many connections as there are buckets, 4 of 100,000 find
//! no way in the own area even if the other side has taken all that it may. So:
//!
//! - What a port may have does not depend on its neighbours: no count, no share, nothing to add up
//!   but areas, and a port without an area is not made.
//! - An expired connection never counts: whoever comes next takes its way.
//! - Peers and port count apart: in the own area, what peers open may take the first
//!   [`WAYS_EACH`] ways of a bucket, what the port opens the last.
//! - One that is not established gives way (the idea of Linux's `early_drop`): closed ones first,
//!   then half-open ones of the same party, then the oldest half-open one that was opened from the
//!   same side. One that is established never does.
//! - One peer has at most [`PEER_WAYS`] of the ways of two buckets that are open to all peers, and
//!   half of that in each; then it replaces only its own. The latter is what holds for any two
//!   buckets: a connection sees no other than its own two. Ways, and with them peers, are scattered
//!   by lot, which makes this a stochastic fairness (McKenney, "Stochastic fairness queueing", 1990) without any count: a
//!   peer that opens as many as it can collides with itself. A peer is a MAC, to which the guard
//!   holds it: more addresses are no more peers. Two NICs can fill two buckets for everybody, but
//!   only with connections that they go on with after the VM's answer.
//! - In the common area, each side of a port has at most [`PORT_WAYS`] of the ways of the two buckets
//!   of a connection, and the greater half of that in each.
//! - To refuse reads four lines and changes nothing: less than any new connection.
//!
//! A table shared by all with a count for each port was here before. The counts had to be kept
//! right against expiry and against each other, and a sweep had to find what a port could lose.
//! Counting each peer, in a sketch as well, would have the same faults, one level below.
//!
//! A miss need not look at the common area: the first bucket of the own area notes until when
//! anything that belongs to it can be there.
//!
//! Why two CPUs do no harm: a way changes hands by compare and swap of its word. A word that was
//! free or expired cannot come back, as a new one has its deadline ahead; of two CPUs that saw the
//! same half-open word, `turn` lets one through. Until the slot is filled the word is
//! [`CtState::Taken`], which nobody follows; should the CPU stop right there for seconds, the way
//! is taken from it and its own swap fails. Whoever found a connection by its key compares the
//! word once more, so it has not read a slot that was being filled. (On a CPU that reorders loads
//! the second look may be early; then one packet may pass as part of a connection that is about to
//! be another one.) The same key may be inserted twice at once: packets follow the first, the
//! second expires. `spilled_until` is written by plain stores, each for longer than any deadline
//! by more than the clocks of two CPUs differ.

use crate::addr::Mac;
use crate::conntrack::CtZone;
use crate::ct_word::{CtState, CtWord, FURTHEST, ticks};
use crate::kernel::{Direction, Kernel};
use crate::maps::{Config, CtKey, CtSlot};
use crate::reason::DropReason;
use crate::sizes::WAYS;
use crate::timeouts::{Timeouts, deadline};
use core::hint::black_box;

/// Ways of a bucket of a port's own area that each side may use: some are for both.
pub const WAYS_EACH: u32 = 4;
/// Ways of two such buckets that the connections of one peer may take.
pub const PEER_WAYS: u32 = 4;
/// Ways of two buckets of the common area that the connections of one side of a port may take.
pub const PORT_WAYS: u32 = 3;

/// Connections of one side in a bucket from which on the emptier of two is better.
const BALANCED_FROM: u32 = 2;
/// Ways of a bucket.
const ALL: u32 = 7;
const _: () = assert!(ALL as usize == WAYS);
/// No way.
const NONE: u32 = u32::MAX;
/// How long a bucket remembers that something was put elsewhere, and how early it is told again.
const SPILL_TICKS: u64 = LONGEST + 64;
/// No connection lives longer without another packet.
const LONGEST: u64 = ticks(Timeouts::MAX_SECONDS as u64);
/// How long a CPU may take to fill a slot.
const FILL_TICKS: u64 = ticks(4);

/// A way by its number: eight to a bucket, of which the last is none.
#[inline(always)]
pub(crate) const fn way_number(bucket: u32, way: u32) -> u32 {
    bucket << 3 | way
}

/// Two buckets that a connection may be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) first: u32,
    pub(crate) second: u32,
}

impl Pair {
    /// Those of a hash among `buckets` that start at `start`; two, if there are two.
    #[inline(always)]
    fn of(hash: u64, start: u32, buckets: u32) -> Pair {
        let scaled = |half: u64, to: u32| ((half * u64::from(to)) >> 32) as u32;
        let first = scaled(hash >> 32, buckets);
        let further = scaled(hash & 0xffff_ffff, buckets.wrapping_sub(1));
        let mut second = first.wrapping_add(1).wrapping_add(further);
        if second >= buckets {
            second = second.wrapping_sub(buckets);
        }
        Pair { first: start.wrapping_add(first), second: start.wrapping_add(second) }
    }
}

/// Where a connection belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) own: Pair,
    pub(crate) common: Pair,
    /// Its tag, and the other end as its party.
    pub(crate) by_peer: CtWord,
    /// Its tag, and the port as its party.
    pub(crate) by_port: CtWord,
    has_common: bool,
}

impl Spot {
    /// The spot of a key in the area of the port at `place`; `None` if the port has none.
    #[inline(always)]
    pub(crate) fn of(config: &Config, key: &CtKey, place: u32, peer: Mac) -> Option<Spot> {
        if place == 0 || key.zone == 0 || config.port_buckets == 0 {
            return None;
        }
        let hash = hash(key, config.seed);
        let start = (place - 1).wrapping_mul(config.port_buckets);
        let start = start.wrapping_add(config.common_buckets);
        let tag = mix(hash) >> 48;
        let [p0, p1, p2, p3, p4, p5] = peer.0;
        let peer = u64::from_ne_bytes([p0, p1, p2, p3, p4, p5, 0, 0]);
        let peer = mix(config.seed ^ peer) >> 52;
        let port = mix(config.seed ^ u64::from(key.zone)) >> 52;
        Some(Spot {
            own: Pair::of(hash, start, config.port_buckets),
            common: Pair::of(hash, 0, config.common_buckets),
            by_peer: CtWord::new(tag, peer),
            by_port: CtWord::new(tag, port),
            has_common: config.common_buckets != 0,
        })
    }
}

/// Where a connection may be, and what its word has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Homes {
    /// Buckets of its port's own area, the first one first.
    pub own: [u32; 2],
    /// Its tag, and a peer that is not known as its party.
    pub by_peer: CtWord,
    /// Buckets of the common area, if there is one.
    pub common: Option<[u32; 2]>,
    /// Its tag, and the port as its party.
    pub by_port: CtWord,
}

/// The homes of a connection of the port at `place`, for whoever makes a table from another one;
/// `None` if the port has none.
#[must_use]
pub fn homes(config: &Config, key: &CtKey, place: u32) -> Option<Homes> {
    let Spot { own, common, by_peer, by_port, has_common } =
        Spot::of(config, key, place, Mac::default())?;
    Some(Homes {
        own: [own.first, own.second],
        by_peer,
        common: has_common.then_some([common.first, common.second]),
        by_port,
    })
}

/// A connection in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its way.
    pub(crate) number: u32,
    /// Its word.
    pub(crate) word: CtWord,
}

impl Found {
    /// None.
    pub(crate) const NONE: Found = Found { number: u32::MAX, word: CtWord(0) };

    /// Whether it is none.
    #[inline(always)]
    pub(crate) const fn is_none(&self) -> bool {
        self.number == u32::MAX
    }
}

/// Room for what is looked for and found. In a map, as the packet is, for the sake of BPF: it
/// spares the stack, and of memory there the verifier knows nothing, so it walks what follows once,
/// and not once for every way of every bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// The connection.
    pub(crate) key: CtKey,
    /// Where it belongs.
    pub(crate) spot: Spot,
    /// Where it is.
    pub(crate) found: Found,
    place: Place,
    claim: Claim,
    survey: Survey,
}

/// Where and when to look for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    bucket: u32,
    /// With its tag.
    word: CtWord,
    now: u64,
}

/// Finds the room's connection, if it is there and has not expired.
#[inline(always)]
pub(crate) fn find<K: Kernel>(kernel: &mut K, room: &mut Room, now: u64) -> bool {
    room.place = Place { bucket: room.spot.own.first, word: room.spot.by_peer, now };
    if look(kernel, room) {
        return true;
    }
    room.place.bucket = room.spot.own.second;
    if look(kernel, room) {
        return true;
    }
    spilled_until(kernel, &room.spot) >= now && find_in_common(kernel, room)
}

/// Finds it in the common area.
#[inline(never)]
pub(crate) fn find_in_common<K: Kernel>(kernel: &mut K, room: &mut Room) -> bool {
    room.place.word = room.spot.by_port;
    room.place.bucket = room.spot.common.first;
    let mut is_there = look(kernel, room);
    if !is_there {
        room.place.bucket = room.spot.common.second;
        is_there = look(kernel, room);
    }
    if is_there {
        remember_spill(kernel, room);
    }
    is_there
}

/// Whether a bucket has the connection; which way and which word is in the room then.
#[inline(never)]
pub(crate) fn look<K: Kernel>(kernel: &mut K, room: &mut Room) -> bool {
    kernel.is_given();
    let place = &room.place;
    let Some(found) = kernel.ct_bucket(place.bucket) else { return false };
    let mut way = 0;
    while way < ALL {
        let at = way as usize;
        let word = CtWord(found.words[at]);
        if word.same_tag(place.word) && word.is_live(place.now) && found.slots[at].has(&room.key) {
            let number = way_number(place.bucket, way);
            let again = CtWord(kernel.ct_word(number));
            room.found = Found { number, word: again };
            return again.is_live(place.now) && again.same_hands(word);
        }
        way += 1;
    }
    false
}

/// Until when something that belongs here may be in the common area.
#[inline(always)]
fn spilled_until<K: Kernel>(kernel: &mut K, spot: &Spot) -> u64 {
    kernel.ct_bucket(spot.own.first).map_or(0, |bucket| bucket.spilled_until)
}

/// Notes that something that belongs here is in the common area.
#[inline(always)]
fn remember_spill<K: Kernel>(kernel: &mut K, room: &Room) {
    let now = room.place.now;
    if let Some(bucket) = kernel.ct_bucket(room.spot.own.first)
        && bucket.spilled_until < now + LONGEST + 2
    {
        bucket.spilled_until = now + SPILL_TICKS;
    }
}

/// What a new connection may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Claim {
    pair: Pair,
    /// Its tag, party and side.
    word: CtWord,
    now: u64,
    /// Ways of a bucket, and which: the last ones rather than the first.
    ways: u32,
    from_the_end: bool,
    /// Ways that the party may have.
    most: u32,
}

/// The best ways that a look at two buckets has found. A way is a score: the lower, the better;
/// its lowest bits are the second of two buckets or not, and the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Survey {
    any: u32,
    /// Of those that have a connection of the same party.
    own: u32,
    any_word: CtWord,
    own_word: CtWord,
    /// Live connections of the same party.
    held: u32,
    /// Of the bucket that is looked at: connections of the same party, of the same side, a way that
    /// is free, and the best one that is not.
    here: u32,
    level: u32,
    free: u32,
    free_word: CtWord,
    used: u32,
    used_word: CtWord,
}

/// Takes a way for the room's connection, which the policy has allowed; its word is in the room
/// then.
#[inline(never)]
pub(crate) fn open<K: Kernel>(
    kernel: &mut K,
    room: &mut Room,
    zone: &CtZone,
    is_picked_up: bool,
) -> Result<(), DropReason> {
    let from_port = matches!(zone.direction, Direction::FromPort);
    room.claim = Claim {
        pair: room.spot.own,
        word: room.spot.by_peer.opened(zone.direction),
        now: room.place.now,
        ways: WAYS_EACH,
        from_the_end: from_port,
        // What a port opens to one peer is its own affair.
        most: if from_port { u32::MAX } else { PEER_WAYS },
    };
    let mut is_taken = claim(kernel, room);
    if !is_taken {
        let by_peer = is_at_limit(room);
        let mut by_port = true;
        if room.spot.has_common {
            room.claim.pair = room.spot.common;
            room.claim.word = room.spot.by_port.opened(zone.direction);
            room.claim.ways = ALL;
            room.claim.from_the_end = false;
            room.claim.most = PORT_WAYS;
            is_taken = claim(kernel, room);
            by_port = is_at_limit(room);
        }
        if !is_taken {
            return Err(match (by_peer, by_port) {
                (true, _) => DropReason::ConntrackPeerBudget,
                (false, true) => DropReason::ConntrackPortBudget,
                (false, false) => DropReason::ConntrackFull,
            });
        }
        remember_spill(kernel, room);
    }
    match fill(kernel, room, zone, is_picked_up) {
        Some(word) => {
            room.found.word = word;
            Ok(())
        }
        None => Err(DropReason::ConntrackFull),
    }
}

/// Whether the party has as many ways as it may.
#[inline(always)]
fn is_at_limit(room: &Room) -> bool {
    room.survey.held >= room.claim.most
}

/// Takes the best way of two buckets; it is in the room then. Another CPU may take it at the same
/// moment: then there is the other area. To look once more would double what the verifier walks.
#[inline(never)]
pub(crate) fn claim<K: Kernel>(kernel: &mut K, room: &mut Room) -> bool {
    room.survey = Survey { any: NONE, own: NONE, ..Survey::default() };
    let pair = room.claim.pair;
    look_around(kernel, room, pair.first, 0);
    if pair.second != pair.first {
        look_around(kernel, room, pair.second, 1 << 3);
    }
    // What the party has in a bucket that it has its part of, is not among `any`.
    let (score, seen) = match is_at_limit(room) || room.survey.own < room.survey.any {
        true => (room.survey.own, room.survey.own_word),
        false => (room.survey.any, room.survey.any_word),
    };
    if score == NONE {
        return false;
    }
    let bucket = if score & 1 << 3 == 0 { pair.first } else { pair.second };
    let number = way_number(bucket, score & 7);
    let taken = CtWord(0).with_state(CtState::Taken).until(room.claim.now + FILL_TICKS);
    let taken = seen.handed_to(taken);
    room.found = Found { number, word: taken };
    kernel.ct_swap(number, seen.0, taken.0)
}

/// Adds the ways of a bucket to the survey; whether there is such a bucket.
#[inline(never)]
pub(crate) fn look_around<K: Kernel>(
    kernel: &mut K,
    room: &mut Room,
    bucket: u32,
    second: u32,
) -> bool {
    kernel.is_given();
    let Some(found) = kernel.ct_bucket(bucket) else { return false };
    room.survey.here = 0;
    room.survey.level = 0;
    room.survey.free = NONE;
    room.survey.used = NONE;
    let mut step = 0;
    while step < ALL {
        // Nothing of the survey is kept in a register, where the verifier would follow it.
        let Room { claim, survey, .. } = black_box(&mut *room);
        if step >= claim.ways {
            break;
        }
        let way = if claim.from_the_end { ALL - 1 - step } else { step };
        let word = CtWord(found.words[way as usize]);
        let same = word.same_party(claim.word) && word.is_live(claim.now);
        let score = score(word, claim, same);
        let place = second | way;
        if score == 0 {
            // The first of those that are free.
            if survey.free == NONE {
                survey.free = place;
                survey.free_word = word;
            }
        } else {
            survey.level += u32::from(word.same_side(claim.word));
            survey.here += u32::from(same);
            if same && score < survey.own {
                survey.own = score | place;
                survey.own_word = word;
            }
            if score < survey.used {
                survey.used = score | place;
                survey.used_word = word;
            }
        }
        step += 1;
    }
    let Room { claim, survey, .. } = black_box(room);
    survey.held += survey.here;
    if survey.here >= claim.most.div_ceil(2) {
        return true;
    }
    if survey.used < survey.any {
        survey.any = survey.used;
        survey.any_word = survey.used_word;
    }
    let level = if survey.level < BALANCED_FROM { 0 } else { survey.level };
    let score = level << LEVEL | survey.free;
    if survey.free != NONE && score < survey.any {
        survey.any = score;
        survey.any_word = survey.free_word;
    }
    true
}

/// Where the rank of a way is in its score; and where, of a free one, how full its bucket is.
const RANK: u32 = 24;
const LEVEL: u32 = 8;

/// How much a way is worth, without its place: the less, the sooner it is taken.
#[inline(always)]
fn score(word: CtWord, claim: &Claim, same_party: bool) -> u32 {
    if word.is_over(claim.now) {
        return 0;
    }
    let age = ((word.left(claim.now) & FURTHEST) as u32) << 4;
    if word.state() == CtState::Closed as u8 {
        return 1 << RANK | age;
    }
    if !word.is_half_open() || !word.same_side(claim.word) {
        return NONE;
    }
    if same_party { 2 << RANK | age } else { 3 << RANK | age }
}

/// Makes the way that is taken the connection: its word then, if no other CPU has taken it as well.
#[inline(always)]
fn fill<K: Kernel>(
    kernel: &mut K,
    room: &Room,
    zone: &CtZone,
    is_picked_up: bool,
) -> Option<CtWord> {
    let Room { key, found: taken, claim, .. } = room;
    let slot = kernel.ct_slot(taken.number)?;
    slot.local = key.local;
    slot.remote = key.remote;
    slot.zone = key.zone;
    slot.local_port = key.local_port;
    slot.remote_port = key.remote_port;
    slot.protocol = key.protocol;
    slot.allowed = CtSlot::ALLOWED;
    slot.error_step = 0;
    slot.generation = zone.note;
    slot.source_net = zone.source_net;
    slot.rule = zone.rule;
    slot.identity = zone.basis;
    slot.rewrite = 0;
    let until = deadline(kernel, claim.now, key.protocol, CtState::Opening as u8);
    let mut opened = claim.word.with_state(CtState::Opening).until(until);
    if is_picked_up {
        opened = opened.with_picked_up();
    }
    // The swap is a barrier: whoever sees the connection sees all of it.
    let word = taken.word.kept_by(opened);
    kernel.ct_swap(taken.number, taken.word.0, word.0).then_some(word)
}

/// The hash of a connection.
#[inline(always)]
fn hash(key: &CtKey, seed: u64) -> u64 {
    let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let ([l0, l1, l2, l3], [r0, r1, r2, r3]) = (key.local.words(), key.remote.words());
    let ports = pair(key.zone, u32::from(key.local_port) << 16 | u32::from(key.remote_port));
    let local = mix(mix(seed ^ pair(l0, l1)) ^ pair(l2, l3));
    let remote = mix(mix(!seed ^ pair(r0, r1)) ^ pair(r2, r3));
    let ends = local.wrapping_add(remote.rotate_left(7));
    mix(mix(ends ^ ports) ^ u64::from(key.protocol))
}

/// A round of a multiplicative hash. The multiplier is of Steele and Vigna, "Computationally easy,
/// spectrally good multipliers" (2021).
#[inline(always)]
pub(crate) const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0xd134_2543_de82_ef95);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests;
