//! The word of a connection: all of it that its packets change, in 64 bits.
//!
//! | bits | what |
//! | --- | --- |
//! | 0 to 15 | tag: what of the key's hash tells the connections of a bucket apart |
//! | 16 to 27 | party: hash of whoever else competes for the room, see `slots` |
//! | 28 to 30 | [`CtState`] |
//! | 31 | 1 if the other end opened it, not the port |
//! | 32 | 1 if it was picked up: its opening was not seen |
//! | 33 to 35 | turn: how often the way has changed hands, modulo 8 |
//! | 36 to 63 | deadline: the last tick at which it lives without another packet |
//!
//! It changes by compare and swap alone, so it is always a state that somebody meant. A tick is
//! 2^30 ns, as a shift costs less than a division; the deadline's 28 bits go round in nine years.

use crate::kernel::Direction;

/// State of a connection. `Opening` -> `Answered` at the first answer -> `Established` at the next
/// packet of whoever opened it. TCP: `Closing` or `Ending` at the first FIN, `Closed` at the other
/// end's FIN or at an RST; from these three -> `Opening` at a new SYN. Any -> free when it expires;
/// one that is not established, or closed, also when its place is needed.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtState {
    /// The way is not in use.
    Free = 0,
    /// Seen from one end only.
    Opening = 1,
    /// Seen from both ends. The opener has not shown yet that it wanted the answer.
    Answered = 2,
    /// Seen from the opener after an answer.
    Established = 3,
    /// TCP only: the initiator is done.
    Closing = 4,
    /// TCP only: the other end is done.
    Ending = 5,
    /// TCP only: both ends are done, or one has aborted.
    Closed = 6,
    /// A CPU has taken the way and is about to fill it: it is nobody's connection.
    Taken = 7,
}

impl CtState {
    /// Every state, by number.
    pub const ALL: [CtState; 8] = [
        CtState::Free,
        CtState::Opening,
        CtState::Answered,
        CtState::Established,
        CtState::Closing,
        CtState::Ending,
        CtState::Closed,
        CtState::Taken,
    ];

    /// The state with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<CtState> {
        CtState::ALL.get(usize::from(number)).copied()
    }

    /// The word for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CtState::Free => "free",
            CtState::Opening => "opening",
            CtState::Answered => "answered",
            CtState::Established => "established",
            CtState::Closing => "closing",
            CtState::Ending => "ending",
            CtState::Closed => "closed",
            CtState::Taken => "taken",
        }
    }
}

// Each at its number, and none missing: the last one is the last in the declaration, too.
const _: () = {
    let mut number = 0;
    while number < CtState::ALL.len() {
        assert!(CtState::ALL[number] as usize == number);
        number += 1;
    }
    assert!(CtState::ALL.len() == CtState::Taken as usize + 1);
};

/// What a packet's time says to a deadline.
#[inline(always)]
#[must_use]
pub const fn tick(now_ns: u64) -> u64 {
    now_ns >> 30
}

/// At least so many seconds.
#[must_use]
pub const fn ticks(seconds: u64) -> u64 {
    tick(seconds * 1_000_000_000) + 1
}

/// No deadline is further away. With room for the clocks of two CPUs that differ.
pub(crate) const FURTHEST: u64 = (1 << 14) - 1;

const TAG_MASK: u64 = 0xffff;
const PARTY: u32 = 16;
const PARTY_MASK: u64 = 0xfff << PARTY;
const STATE: u32 = 28;
const STATE_MASK: u64 = 7 << STATE;
const BY_OTHER: u64 = 1 << 31;
const PICKED_UP: u64 = 1 << 32;
const TURN: u32 = 33;
const TURN_MASK: u64 = 7 << TURN;
const DEADLINE: u32 = 36;
const DEADLINE_BITS: u64 = (1 << 28) - 1;

/// The word. Zero is a way that is free.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtWord(pub u64);

impl CtWord {
    /// A word with this tag and party and nothing else; their higher bits are ignored.
    #[inline(always)]
    pub(crate) const fn new(tag: u64, party: u64) -> CtWord {
        CtWord(tag & TAG_MASK | party << PARTY & PARTY_MASK)
    }

    /// The number of a [`CtState`].
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u8 {
        (self.0 >> STATE & 7) as u8
    }

    /// Who opened it; of one that was picked up, who was seen first.
    #[inline(always)]
    #[must_use]
    pub const fn initiator(self) -> Direction {
        if self.0 & BY_OTHER == 0 { Direction::FromPort } else { Direction::ToPort }
    }

    /// Whether its opening was not seen, so that nobody knows who opened it.
    #[inline(always)]
    #[must_use]
    pub const fn picked_up(self) -> bool {
        self.0 & PICKED_UP != 0
    }

    /// In this state from now on.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: CtState) -> CtWord {
        CtWord(self.0 & !STATE_MASK | (state as u64) << STATE)
    }

    /// As [`CtWord::with_state`], by number.
    #[inline(always)]
    pub(crate) const fn with_state_number(self, state: u8) -> CtWord {
        CtWord(self.0 & !STATE_MASK | (state as u64) << STATE & STATE_MASK)
    }

    /// Without its state, as no connection's word is, if `is_without` is 1; as it is, if that is 0.
    #[inline(always)]
    pub(crate) const fn without_state(self, is_without: u64) -> CtWord {
        CtWord(
            self.0 & !(is_without << STATE | is_without << (STATE + 1) | is_without << (STATE + 2)),
        )
    }

    /// Opened by this side, and seen to be.
    #[inline(always)]
    #[must_use]
    pub const fn opened(self, initiator: Direction) -> CtWord {
        let by_other = if matches!(initiator, Direction::ToPort) { BY_OTHER } else { 0 };
        CtWord(self.0 & !(BY_OTHER | PICKED_UP) | by_other)
    }

    /// Its opening was not seen.
    #[inline(always)]
    #[must_use]
    pub const fn with_picked_up(self) -> CtWord {
        CtWord(self.0 | PICKED_UP)
    }

    /// Lives until this tick.
    #[inline(always)]
    #[must_use]
    pub const fn until(self, tick: u64) -> CtWord {
        CtWord(self.0 & !(DEADLINE_BITS << DEADLINE) | tick << DEADLINE)
    }

    /// The last tick at which it lives without another packet.
    #[must_use]
    pub const fn deadline(self) -> u64 {
        self.0 >> DEADLINE
    }

    /// Ticks that it has left; more than any deadline gives for one that has expired.
    #[inline(always)]
    pub(crate) const fn left(self, now: u64) -> u64 {
        (self.0 >> DEADLINE).wrapping_sub(now) & DEADLINE_BITS
    }

    /// Seconds until it expires without another packet, if it is live.
    #[must_use]
    pub const fn seconds_left(self, now: u64) -> u64 {
        (self.left(now) << 30) / 1_000_000_000
    }

    /// Whether the way is free, or its connection has been idle for too long.
    ///
    /// The clocks of two CPUs may differ by a tick: a packet "from the future" is not idle.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(self, now: u64) -> bool {
        self.0 & STATE_MASK == 0 || self.left(now) > FURTHEST
    }

    /// Whether it is a connection, not a way that is free or being filled, and has not expired.
    #[inline(always)]
    #[must_use]
    pub const fn is_live(self, now: u64) -> bool {
        !self.is_over(now) && self.0 & STATE_MASK != STATE_MASK
    }

    /// Whether it is not known yet that both ends want it.
    #[inline(always)]
    pub(crate) const fn is_half_open(self) -> bool {
        let state = self.state();
        state == CtState::Opening as u8 || state == CtState::Answered as u8
    }

    /// Whether both have the same tag.
    #[inline(always)]
    pub(crate) const fn same_tag(self, other: CtWord) -> bool {
        (self.0 ^ other.0) & TAG_MASK == 0
    }

    /// Whether both belong to the same party and were opened from the same side.
    #[inline(always)]
    pub(crate) const fn same_party(self, other: CtWord) -> bool {
        (self.0 ^ other.0) & (PARTY_MASK | BY_OTHER) == 0
    }

    /// Whether both were opened from the same side.
    #[inline(always)]
    pub(crate) const fn same_side(self, other: CtWord) -> bool {
        (self.0 ^ other.0) & BY_OTHER == 0
    }

    /// Whether the way has not changed hands between these two words.
    #[inline(always)]
    pub(crate) const fn same_hands(self, other: CtWord) -> bool {
        (self.0 ^ other.0) & (TAG_MASK | TURN_MASK) == 0
    }

    /// The next hands: the turn of `self` plus one, everything else of `fresh`.
    #[inline(always)]
    pub(crate) const fn handed_to(self, fresh: CtWord) -> CtWord {
        let turn = self.0.wrapping_add(1 << TURN) & TURN_MASK;
        CtWord(fresh.0 & !TURN_MASK | turn)
    }

    /// Everything of `fresh`, in the turn of `self`.
    #[inline(always)]
    pub(crate) const fn kept_by(self, fresh: CtWord) -> CtWord {
        CtWord(fresh.0 & !TURN_MASK | self.0 & TURN_MASK)
    }

    /// Without what says where it is and how it came there: tag, party and turn.
    #[must_use]
    pub const fn plain(self) -> CtWord {
        CtWord(self.0 & !(TAG_MASK | PARTY_MASK | TURN_MASK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own() {
        let names = (0..=u8::MAX).map_while(CtState::from_number).map(CtState::name);
        let names: std::collections::BTreeSet<&str> = names.collect();
        assert_eq!(names.len(), CtState::ALL.len(), "{names:?}");
        assert!(names.contains("ending") && names.contains("closed"));
    }

    #[test]
    fn each_part_of_a_word_leaves_the_others_alone() {
        let now = tick(1 << 62);
        let word = CtWord::new(0x1_1234, 0x1_0abc)
            .with_state(CtState::Ending)
            .opened(Direction::ToPort)
            .with_picked_up()
            .until(now + 9);
        assert_eq!(word.state(), CtState::Ending as u8);
        assert_eq!((word.initiator(), word.picked_up()), (Direction::ToPort, true));
        assert_eq!((word.left(now), word.left(now + 9)), (9, 0));
        assert!(word.same_tag(CtWord::new(0x1234, 0)) && word.same_hands(CtWord::new(0x1234, 7)));
        assert!(word.same_party(CtWord::new(0, 0xabc).opened(Direction::ToPort)));
        assert!(!word.same_party(CtWord::new(0, 0xabc)));
        let mut handed = word;
        for _ in 0..8 {
            assert!(handed.0 == word.0 || !handed.same_hands(word));
            handed = handed.handed_to(word);
        }
        assert_eq!(handed.opened(Direction::ToPort).with_picked_up(), word);
        assert!(!word.opened(Direction::FromPort).picked_up());
    }

    #[test]
    fn a_deadline_is_over_one_tick_after_it() {
        let now = tick(1 << 62);
        let word = CtWord::default().with_state(CtState::Opening).until(now);
        assert!(word.is_live(now) && word.is_live(now - 1));
        assert!(word.is_over(now + 1) && word.is_over(now + (1 << 27)));
        assert!(!word.with_state(CtState::Taken).is_live(now), "being filled");
        assert!(!word.with_state(CtState::Taken).is_over(now), "and nobody else's");
        assert!(word.with_state(CtState::Free).is_over(now));
    }
}
