//! What is decided, found in the entries of maps, as the programs find it.

use packet::{
    Addr, Cell, Chapter, ChapterKey, ClassKey, DEPTH_MAX, Node, depth, selector_of_class,
    selector_of_identity,
};

use crate::{
    prefixes::Family,
    rule_set::{has_ports, root, tree},
};

/// Where entries are read.
pub trait Maps {
    /// The class of the longest prefix that an address is in.
    fn class(&self, key: &ClassKey) -> Option<u32>;
    /// A chapter.
    fn chapter(&self, key: &ChapterKey) -> Option<Chapter>;
    /// A node.
    fn node(&self, key: u64) -> Option<Node>;
}

/// What a rule set decides about a connection to or from this address, which has this identity, if
/// it has one; with this protocol and port. `None` if the entries are not whole: the programs drop
/// then.
pub fn walk(
    maps: &impl Maps,
    rule_set: u64,
    (remote, identity): (Addr, Option<u64>),
    (protocol, port): (u8, u16),
) -> Option<Cell> {
    let family = Family::of(!remote.is_v4());
    let tree = tree(family, protocol);
    let number = if has_ports(tree) { port } else { protocol.into() };
    let find = |selector| maps.chapter(&ChapterKey { ruleset: rule_set, selector });
    let class = maps.class(&ClassKey::of(rule_set, remote)).unwrap_or(0);
    let by_class = find(selector_of_class(class, family.is_v6()))?;
    let by_identity = identity.and_then(|it| find(selector_of_identity(it, family.is_v6())));
    let by_class = descend(maps, root(&by_class, tree), number)?;
    let by_identity = match by_identity {
        Some(chapter) => descend(maps, root(&chapter, tree), number)?,
        None => NONE,
    };
    Some(by_class.min(by_identity)).filter(|cell| cell.rank != Cell::NONE)
}

const NONE: Cell = Cell { rank: Cell::NONE, rule: 0 };

fn descend(maps: &impl Maps, mut key: u64, number: u16) -> Option<Cell> {
    if key == 0 {
        return Some(NONE);
    }
    for _ in 0..DEPTH_MAX {
        let node = maps.node(key)?;
        let count = node.count as usize;
        let after = node.bounds.iter().take(count).filter(|bound| **bound <= number).count();
        let cell = *node.cells.get(after.checked_sub(1)?)?;
        if depth(key) == 0 {
            return Some(cell);
        }
        key = u64::from(cell.rank) | u64::from(cell.rule) << 32;
    }
    None
}
