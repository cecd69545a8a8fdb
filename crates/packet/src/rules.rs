//! What a rule set is in the maps: who is at the other end, and what is decided about it by protocol
//! and port, at a number of reads that grows with neither rules nor members.
//!
//! A *rule set* is what all groups of a port say about one way (in or out) for both families, in
//! order, resolved when it was compiled. Its number is a hash of its content, so a changed one is
//! another one: the new one is filled beside the old one, and a port changes over by one write.
//!
//! The other end is looked up in two ways. The *identity* of an address is the set of the groups that
//! a NIC with it is in (`idents`, exact). Its *class* is the set of the prefixes in rules of this rule
//! set that it is in (`classes`, the longest prefix). Each selects a [`Chapter`] of rules: those that
//! name groups, and those that name addresses or nobody. Each gives the first of its rules that
//! matches; the earlier of the two decides.
//!
//! In a chapter each protocol has a tree of ranges of its ports, of [`FAN_OUT`] ranges to a node.
//! Chapters with the same rules share their trees: a node's key is a hash of what is below it.
//!
//! Considered: tuple space search (an attacker makes it slow: Csikor et al., CoNEXT 2019), a list of
//! rules (a cost that grows), one chapter for each pair of identity and class (their product).

use crate::addr::Addr;
use crate::layout::{Zero, plain};

/// Ranges of a [`Node`].
pub const FAN_OUT: usize = 16;
/// Nodes on the way from a chapter to a cell, at most: 16^4 ranges are all ports.
pub const DEPTH_MAX: u32 = 4;

plain! {
    /// Key of `idents`: an address that a NIC has, in its routing domain.
    pub struct IdentKey[20] {
        /// Number of the routing domain.
        pub domain: u32,
        /// The address.
        pub addr: Addr,
    }

    /// Key of `classes`: a prefix that a rule of a rule set names, in the form that the kernel's trie wants.
    /// Made by [`ClassKey::new`] and [`ClassKey::of`].
    pub struct ClassKey[32] {
        /// Bits that count, from `ruleset` on.
        bits: u32,
        /// Number of the rule set: lower half, upper half.
        pub ruleset: [u32; 2],
        /// 4 or 6: `::/0` has no IPv4 address in it, mapped as these are.
        family: u32,
        /// The lowest address.
        pub addr: Addr,
    }

    /// Key of `chapters`.
    pub struct ChapterKey[16] {
        /// Number of the rule set.
        pub ruleset: u64,
        /// Whom it is about: [`selector_of_identity`] or [`selector_of_class`].
        pub selector: u64,
    }

    /// Value of `chapters`: for each protocol the key of its tree, see [`depth`]; 0 if no rule of the
    /// chapter is about it.
    pub struct Chapter[32] {
        /// TCP, by destination port.
        pub tcp: u64,
        /// UDP, by destination port.
        pub udp: u64,
        /// ICMP of the family, by type * 256 + code.
        pub icmp: u64,
        /// All others, by protocol number.
        pub other: u64,
    }

    /// Value of `ranges`: a node of a tree. Range `i` begins at `bounds[i]`, and ends where the next
    /// one begins.
    pub struct Node[168] {
        /// Where each begins, in order. The first one is 0 in a root.
        pub bounds: [u16; FAN_OUT],
        /// How many there are, at least one.
        pub count: u32,
        /// Zero.
        pub pad: [u8; 4],
        /// In a leaf, what is decided about each. Above, the key of the node that has more: rank is
        /// its lower half, rule its upper half.
        pub cells: [Cell; FAN_OUT],
    }

    /// What is decided.
    pub struct Cell[8] {
        /// Position of the rule in the rule set, times four, and [`Cell::ACCEPT`], [`Cell::STATELESS`]. The lower
        /// decides. [`Cell::NONE`]: no rule matches.
        pub rank: u32,
        /// Number of the rule; 0 for the policy of the port itself, which is the last.
        pub rule: u32,
    }
}

impl Zero for Cell {
    const ZERO: Cell = Cell { rank: 0, rule: 0 };
}

impl Cell {
    /// Bit of a rank: it may be.
    pub const ACCEPT: u32 = 1;
    /// Bit of a rank: it is about single packets.
    pub const STATELESS: u32 = 2;
    /// The rank where no rule matches.
    pub const NONE: u32 = u32::MAX;
}

impl Cell {
    /// Above a leaf, the key of the node that has more.
    #[inline(always)]
    #[must_use]
    pub const fn node(&self) -> u64 {
        (self.rule as u64) << 32 | self.rank as u64
    }
}

impl Node {
    /// Which of its ranges a number is in: the last one that does not begin above it. Four steps
    /// without a branch, each of which doubles what the verifier walks.
    #[inline(always)]
    #[must_use]
    pub const fn range_of(&self, number: u32) -> usize {
        const LAST: u64 = FAN_OUT as u64 - 1;
        let mut range = 0;
        let mut half = FAN_OUT as u64 / 2;
        while half > 0 {
            let next = range + half;
            let bound = self.bounds[(next & LAST) as usize] as u64;
            // The highest bit is set where the difference is negative.
            let begins = bound.wrapping_sub(number as u64 + 1) >> 63;
            let is_there = next.wrapping_sub(self.count as u64) >> 63;
            range += half & (begins & is_there).wrapping_neg();
            half /= 2;
        }
        (range & LAST) as usize
    }
}

impl ClassKey {
    /// Bits of rule set and family.
    const FIXED_BITS: u32 = 96;
    /// Bits of a mapped address before those of the IPv4 address.
    const MAPPED_BITS: u32 = 96;

    /// The prefix of this many bits, of its family, with this lowest address, in this rule set.
    #[must_use]
    pub const fn new(ruleset: u64, addr: Addr, bits: u8) -> ClassKey {
        let before = if addr.is_v4() { ClassKey::MAPPED_BITS } else { 0 };
        let bits = ClassKey::FIXED_BITS + before + bits as u32;
        ClassKey { bits, ..ClassKey::of(ruleset, addr) }
    }

    /// What finds the longest prefix that an address is in.
    #[inline(always)]
    #[must_use]
    pub const fn of(ruleset: u64, addr: Addr) -> ClassKey {
        let family = if addr.is_v4() { 4 } else { 6 };
        let halves = [(ruleset & 0xffff_ffff) as u32, (ruleset >> 32) as u32];
        ClassKey { bits: ClassKey::FIXED_BITS + 128, ruleset: halves, family, addr }
    }
}

#[cfg(any(test, feature = "vectors"))]
impl ClassKey {
    /// Whether another key starts with all the bits of this one that count.
    #[must_use]
    pub fn covers(&self, other: &ClassKey) -> bool {
        let number = |addr: &Addr| u128::from_be_bytes(addr.octets());
        let same = (number(&self.addr) ^ number(&other.addr)).leading_zeros();
        (self.ruleset, self.family) == (other.ruleset, other.family)
            && self.bits <= other.bits
            && self.bits <= ClassKey::FIXED_BITS + same
    }

    /// Bits that count.
    #[must_use]
    pub const fn prefix_bits(&self) -> u32 {
        self.bits
    }
}

/// The selector of the chapter about NICs that are in exactly these groups, as far as any rule of the
/// rule set names them. Identities have zeros in their two lowest bits.
#[inline(always)]
#[must_use]
pub const fn selector_of_identity(identity: u64, is_v6: bool) -> u64 {
    identity & !3 | 2 | is_v6 as u64
}

/// The selector of the chapter about addresses of this class; class 0 are those in no prefix that is
/// named.
#[inline(always)]
#[must_use]
pub const fn selector_of_class(class: u32, is_v6: bool) -> u64 {
    (class as u64) << 2 | is_v6 as u64
}

/// How many levels of nodes are below this one, which its key says in its two highest bits: 0 for a
/// leaf.
#[inline(always)]
#[must_use]
pub const fn depth(key: u64) -> u32 {
    (key >> 62) as u32
}
