//! Rule sets for tests, from lists of rules: nothing shared, nothing left out. The compiler of the
//! product is another one.

use super::Memory;
use super::frame::address;
use crate::{
    Addr, Cell, Chapter, ChapterKey, ClassKey, Direction, FAN_OUT, IdentKey, Node, Port, PortKey,
    selector_of_class, selector_of_identity,
};
use std::collections::BTreeSet;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Anybody.
    Anyone,
    /// Who is in a group, from 0 to 31.
    Group(u32),
    /// Who has an address in a prefix.
    Prefix(Addr, u8),
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub number: u32,
    /// Of which family it is.
    pub is_v6: bool,
    /// Whom it is about.
    pub who: Who,
    /// The protocol; any if it is `None`.
    pub protocol: Option<u8>,
    /// First and last port, or type and code.
    pub ports: (u16, u16),
    /// It allows.
    pub accepts: bool,
    /// It is for single packets.
    pub is_stateless: bool,
}

impl Rule {
    /// A rule for IPv4 that allows everything to anybody.
    #[must_use]
    pub const fn accept(number: u32) -> Rule {
        Rule {
            number,
            is_v6: false,
            who: Who::Anyone,
            protocol: None,
            ports: (0, u16::MAX),
            accepts: true,
            is_stateless: false,
        }
    }

    /// One that denies it.
    #[must_use]
    pub const fn deny(number: u32) -> Rule {
        Rule { accepts: false, ..Rule::accept(number) }
    }

    /// The same for IPv6.
    #[must_use]
    pub const fn v6(self) -> Rule {
        Rule { is_v6: true, ..self }
    }

    /// The same for single packets.
    #[must_use]
    pub const fn stateless(self) -> Rule {
        Rule { is_stateless: true, ..self }
    }

    /// The same for this protocol.
    #[must_use]
    pub const fn of(self, protocol: u8) -> Rule {
        Rule { protocol: Some(protocol), ..self }
    }

    /// The same for these ports of TCP or UDP, or types and codes of ICMP.
    #[must_use]
    pub const fn ports(self, protocol: u8, first: u16, last: u16) -> Rule {
        Rule { protocol: Some(protocol), ports: (first, last), ..self }
    }

    /// The same for a group.
    #[must_use]
    pub const fn group(self, group: u32) -> Rule {
        Rule { who: Who::Group(group), ..self }
    }

    /// The same for a prefix.
    #[must_use]
    pub fn prefix(self, text: &str, bits: u8) -> Rule {
        Rule { who: Who::Prefix(address(text).into(), bits), ..self }
    }

    /// What a cell has about it, at this position.
    fn cell(&self, position: usize) -> Cell {
        let position = u32::try_from(position).expect("a short list");
        let accept = if self.accepts { Cell::ACCEPT } else { 0 };
        let stateless = if self.is_stateless { Cell::STATELESS } else { 0 };
        Cell { rank: position << 2 | accept | stateless, rule: self.number }
    }
}

/// The identity of who is in these groups.
#[must_use]
pub fn identity(groups: &[u32]) -> u64 {
    groups.iter().map(|group| 1 << (group + 2)).sum()
}

/// Which tree of a chapter.
#[derive(Clone, Copy)]
enum Tree {
    Ports(u8),
    Other,
}

impl Memory {
    /// Somebody with this address, in this routing domain, is in these groups.
    pub fn member(&mut self, domain: u32, text: &str, groups: &[u32]) {
        let key = IdentKey { domain, addr: address(text).into() };
        self.idents.insert(key, identity(groups));
    }

    /// Gives the port a policy for one way: these rules in order, and what becomes of the rest. It
    /// knows the identities that there are.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn police(&mut self, key: PortKey, way: Direction, rules: &[Rule], accepts: bool) {
        let number = u64::from(key.ifindex) << 8 | way as u64;
        let rest = [false, true].map(|is_v6| Rule { number: 0, is_v6, accepts, ..Rule::accept(0) });
        let all: Vec<Rule> = rules.iter().chain(&rest).copied().collect();
        self.chapters.retain(|key, _| key.ruleset != number);
        self.classes.retain(|key, _| !is_of(key, number));
        let identities: BTreeSet<u64> = self.idents.values().copied().collect();
        let in_group = |rule: &Rule, identity: u64| match rule.who {
            Who::Group(group) => identity & 1 << (group + 2) != 0,
            _ => false,
        };
        let prefixes: BTreeSet<(Addr, u8)> = rules.iter().filter_map(prefix_of).collect();
        for is_v6 in [false, true] {
            for identity in &identities {
                let selector = selector_of_identity(*identity, is_v6);
                self.chapter(number, selector, &all, |rule| {
                    rule.is_v6 == is_v6 && in_group(rule, *identity)
                });
            }
            let selector = selector_of_class(0, is_v6);
            self.chapter(number, selector, &all, |rule| {
                rule.is_v6 == is_v6 && rule.who == Who::Anyone
            });
        }
        for (class, (addr, bits)) in (1..).zip(&prefixes) {
            let inside = ClassKey::new(number, *addr, *bits);
            self.classes.insert(inside, class);
            let selector = selector_of_class(class, !addr.is_v4());
            self.chapter(number, selector, &all, |rule| match rule.who {
                Who::Anyone => rule.is_v6 != addr.is_v4(),
                Who::Prefix(outer, bits) => ClassKey::new(number, outer, bits).covers(&inside),
                Who::Group(_) => false,
            });
        }
        let port = self.ports.get_mut(&key).expect("a port");
        let has = |flag, is: fn(&Rule) -> bool| if rules.iter().any(is) { flag } else { 0 };
        let flags = has(Port::HAS_MEMBERS, |rule| matches!(rule.who, Who::Group(_)))
            | has(Port::HAS_CLASSES, |rule| matches!(rule.who, Who::Prefix(..)))
            | has(Port::HAS_STATELESS, |rule| rule.is_stateless);
        let (ruleset, shift) = match way {
            Direction::ToPort => (&mut port.ingress, 0),
            Direction::FromPort => (&mut port.egress, Port::EGRESS_SHIFT),
        };
        *ruleset = number;
        port.rules = port.rules & !(0xff << shift) | flags << shift;
    }

    fn chapter(
        &mut self,
        ruleset: u64,
        selector: u64,
        rules: &[Rule],
        is_in: impl Fn(&Rule) -> bool,
    ) {
        let icmp = if selector & 1 == 0 { ICMP } else { ICMPV6 };
        let mut tree = |tree| self.tree(tree, rules, &is_in, icmp);
        let chapter = Chapter {
            tcp: tree(Tree::Ports(TCP)),
            udp: tree(Tree::Ports(UDP)),
            icmp: tree(Tree::Ports(icmp)),
            other: tree(Tree::Other),
        };
        if chapter != Chapter::default() {
            self.chapters.insert(ChapterKey { ruleset, selector }, chapter);
        }
    }

    fn tree(
        &mut self,
        tree: Tree,
        rules: &[Rule],
        is_in: &impl Fn(&Rule) -> bool,
        icmp: u8,
    ) -> u64 {
        let span = |rule: &Rule| match (tree, rule.protocol) {
            (_, None) => Some((0, u16::MAX)),
            (Tree::Ports(of), Some(protocol)) => (of == protocol).then_some(rule.ports),
            (Tree::Other, Some(protocol)) => (![TCP, UDP, icmp].contains(&protocol))
                .then_some((u16::from(protocol), u16::from(protocol))),
        };
        let found: Vec<(Cell, (u16, u16))> = (0..)
            .zip(rules)
            .filter(|(_, rule)| is_in(rule))
            .filter_map(|(position, rule)| Some((rule.cell(position), span(rule)?)))
            .collect();
        let starts =
            found.iter().flat_map(|(_, (first, last))| [Some(*first), last.checked_add(1)]);
        let starts: BTreeSet<u16> = starts.flatten().chain([0]).collect();
        let none = Cell { rank: Cell::NONE, rule: 0 };
        let at = |start: u16| {
            let first = found.iter().find(|(_, (first, last))| (*first..=*last).contains(&start));
            first.map_or(none, |(cell, _)| *cell)
        };
        let mut ranges: Vec<(u16, Cell)> =
            starts.iter().map(|start| (*start, at(*start))).collect();
        ranges.dedup_by_key(|(_, cell)| *cell);
        if ranges == [(0, none)] { 0 } else { self.nodes(ranges) }
    }

    /// The key of a tree of these ranges.
    ///
    /// # Panics
    /// If there are more than there are ports.
    pub fn nodes(&mut self, mut ranges: Vec<(u16, Cell)>) -> u64 {
        for depth in 0..4_u64 {
            let mut above = Vec::new();
            for part in ranges.chunks(FAN_OUT) {
                let mut node =
                    Node { count: u32::try_from(part.len()).expect("few"), ..Node::default() };
                for (at, (start, cell)) in part.iter().enumerate() {
                    node.bounds[at] = *start;
                    node.cells[at] = *cell;
                }
                let key = depth << 62 | (self.ranges.len() as u64 + 1);
                self.ranges.insert(key, node);
                let halves = [key & 0xffff_ffff, key >> 32];
                let [rank, rule] = halves.map(|half| u32::try_from(half).expect("a half"));
                above.push((part[0].0, Cell { rank, rule }));
            }
            if let [(_, root)] = above[..] {
                return root.node();
            }
            ranges = above;
        }
        panic!("more ranges than ports");
    }
}

fn is_of(key: &ClassKey, number: u64) -> bool {
    key.ruleset == ClassKey::of(number, Addr::UNSPECIFIED_V6).ruleset
}

fn prefix_of(rule: &Rule) -> Option<(Addr, u8)> {
    match rule.who {
        Who::Prefix(addr, bits) => Some((addr, bits)),
        _ => None,
    }
}
