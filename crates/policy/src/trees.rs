//! Answers of a [`Forest`] as the nodes that are in the maps.

use std::collections::{BTreeMap, HashMap};

use packet::{Cell, FAN_OUT, Node, depth};

use crate::{
    forest::{Forest, Id, Place},
    number::Salt,
};

/// The nodes of trees, by their keys.
pub(crate) struct Trees {
    salt: Salt,
    pub(crate) nodes: BTreeMap<u64, Node>,
    /// The keys of blocks that have their nodes, by where they begin.
    done: HashMap<(Id, u32), u64>,
}

impl Trees {
    pub(crate) fn new(salt: Salt) -> Self {
        Self { salt, nodes: BTreeMap::new(), done: HashMap::new() }
    }

    /// The key of the tree of an answer, whose nodes are there from now on.
    pub(crate) fn root(&mut self, forest: &Forest, id: Id) -> u64 {
        self.node(forest, Place::whole(id))
    }

    fn node(&mut self, forest: &Forest, place: Place) -> u64 {
        if let Some(key) = self.done.get(&(place.id, place.begin)) {
            return *key;
        }
        let key = match forest.runs(&[place]) <= FAN_OUT {
            true => self.leaf(forest, &[place]),
            false => self.inner(forest, place),
        };
        self.done.insert((place.id, place.begin), key);
        key
    }

    /// Neighbours that together fit into a leaf are one.
    fn inner(&mut self, forest: &Forest, place: Place) -> u64 {
        let mut entries: Vec<(u16, Cell)> = Vec::new();
        let mut above = 0;
        let mut rest: &[Place] = &forest.inside(place);
        while let [first, ..] = rest {
            let fits = |count: &usize| forest.runs(&rest[..*count]) <= FAN_OUT;
            let count = (1..=rest.len()).take_while(fits).last();
            let key = match count {
                Some(count) => self.leaf(forest, &rest[..count]),
                None => self.node(forest, *first),
            };
            let bound = if entries.is_empty() { 0 } else { number(first.begin) };
            entries.push((bound, child(key)));
            above = above.max(u64::from(depth(key)) + 1);
            rest = &rest[count.unwrap_or(1)..];
        }
        self.insert(&entries, above)
    }

    fn leaf(&mut self, forest: &Forest, places: &[Place]) -> u64 {
        let mut entries: Vec<(u16, Cell)> = Vec::new();
        for place in places {
            forest.ranges(*place, &mut |begin, cell| match entries.last() {
                None => entries.push((0, cell)),
                Some((_, before)) if *before == cell => {}
                Some(_) => entries.push((number(begin), cell)),
            });
        }
        self.insert(&entries, 0)
    }

    fn insert(&mut self, entries: &[(u16, Cell)], above: u64) -> u64 {
        let last = entries.last().copied().unwrap_or((0, Cell { rank: Cell::NONE, rule: 0 }));
        // What is not counted repeats the last one: reading too far finds nothing else.
        let at = |index: usize| entries.get(index).copied().unwrap_or(last);
        let node = Node {
            bounds: std::array::from_fn(|index| at(index).0),
            count: u32::try_from(entries.len()).unwrap_or_default(),
            pad: [0; 4],
            cells: std::array::from_fn(|index| at(index).1),
        };
        let key = self.salt.node(&node, above);
        self.nodes.insert(key, node);
        key
    }
}

/// A number within an answer.
fn number(begin: u32) -> u16 {
    u16::try_from(begin).unwrap_or(u16::MAX)
}

/// The cell that leads to a node below.
fn child(key: u64) -> Cell {
    Cell { rank: (key & 0xffff_ffff) as u32, rule: (key >> 32) as u32 }
}

/// The nodes right below a node with this key.
pub(crate) fn below(key: u64, node: &Node) -> impl Iterator<Item = u64> {
    let count = if depth(key) == 0 { 0 } else { node.count as usize };
    let cells = node.cells.into_iter().take(count);
    cells.map(|cell| u64::from(cell.rank) | u64::from(cell.rule) << 32)
}
