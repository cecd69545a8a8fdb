//! Which rule is the first that matches, for each of the 65,536 numbers that a port (or what stands
//! in its place) may be. Many such answers, which are alike in most places and share what is alike.
//!
//! An answer is a block of 16 blocks of 16 blocks of 16 blocks of 16 numbers. A block that is the
//! same throughout is one cell, and no two blocks have the same content: whatever was computed about
//! a block is computed once. Rules are laid one over the other, in any order: the lower rank wins.
//!
//! Considered: a list of ranges for each answer. What thousands of prefixes have in common would then
//! be copied for each of them, which a tenant could make as long as it likes.

use std::collections::HashMap;

use packet::Cell;

/// Blocks of a block.
const CHILDREN: usize = 16;
/// Numbers of an answer.
const NUMBERS: u32 = 1 << 16;
/// Blocks that are looked into for one rule set, at most. Ten thousand rules for a port and an address
/// each take 40,000. A rule set that takes more than this is made to take long: it ends after half
/// a second and 50 MiB.
const STEPS_MAX: u32 = 250_000;

/// An answer, or a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(u32);

/// It takes more work than any rules that make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Block {
    Same(Cell),
    Mixed([Id; CHILDREN]),
}

/// What is known of the cells of a block.
#[derive(Clone, Copy)]
struct Summary {
    lowest: Cell,
    highest: Cell,
    first: Cell,
    last: Cell,
    /// How many ranges of the same cell it is.
    runs: usize,
}

impl Summary {
    /// Of this and what follows it.
    fn and(self, next: Self) -> Self {
        Self {
            lowest: self.lowest.min(next.lowest),
            highest: self.highest.max(next.highest),
            first: self.first,
            last: next.last,
            runs: self.runs + next.runs - usize::from(self.last == next.first),
        }
    }
}

/// Answers, and what was computed about them.
#[derive(Clone, Default)]
pub(crate) struct Forest {
    blocks: Vec<(Block, Summary)>,
    ids: HashMap<Block, Id>,
    merged: HashMap<(Id, Id), Id>,
    steps: u32,
}

/// A block and where it begins.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) id: Id,
    pub(crate) begin: u32,
    /// How many numbers it has.
    size: u32,
}

impl Place {
    /// A whole answer.
    pub(crate) const fn whole(id: Id) -> Self {
        Self { id, begin: 0, size: NUMBERS }
    }
}

impl Forest {
    /// The answer that is this cell for all numbers.
    pub(crate) fn same(&mut self, cell: Cell) -> Id {
        let summary = Summary { lowest: cell, highest: cell, first: cell, last: cell, runs: 1 };
        self.intern(Block::Same(cell), summary)
    }

    /// The answer with this cell laid over it in each of these spans, from the first number to the last.
    pub(crate) fn lay(
        &mut self,
        id: Id,
        spans: impl Iterator<Item = (u16, u16)>,
        cell: Cell,
    ) -> Result<Id, TooMuch> {
        let same = self.same(cell);
        self.lay_in(Place::whole(id), &disjoint(spans), same)
    }

    /// The lower cell of both for each number.
    pub(crate) fn merge(&mut self, a: Id, b: Id) -> Result<Id, TooMuch> {
        let [one, other] = [a, b].map(|id| self.summary(id));
        if a == b || one.highest <= other.lowest {
            return Ok(a);
        }
        if other.highest <= one.lowest {
            return Ok(b);
        }
        let both = (a.min(b), a.max(b));
        if let Some(id) = self.merged.get(&both) {
            return Ok(*id);
        }
        self.step()?;
        let [mut children, others] = [a, b].map(|id| self.children(id));
        for (child, other) in children.iter_mut().zip(others) {
            *child = self.merge(*child, other)?;
        }
        let id = self.mixed(children);
        self.merged.insert(both, id);
        Ok(id)
    }

    /// Whether it is this cell for all numbers.
    pub(crate) fn is_same(&self, id: Id, cell: Cell) -> bool {
        let summary = self.summary(id);
        summary.lowest == cell && summary.highest == cell
    }

    /// How many ranges of the same cell the places are that follow each other.
    pub(crate) fn runs(&self, places: &[Place]) -> usize {
        let summaries = places.iter().map(|place| self.summary(place.id));
        summaries.reduce(Summary::and).map_or(0, |summary| summary.runs)
    }

    /// The blocks of a block.
    pub(crate) fn inside(&self, place: Place) -> [Place; CHILDREN] {
        let size = place.size / 16;
        let mut begin = place.begin;
        self.children(place.id).map(|id| {
            let child = Place { id, begin, size };
            begin += size;
            child
        })
    }

    /// Hands over each range of the same cell in a place: where it begins, and the cell.
    pub(crate) fn ranges(&self, place: Place, each: &mut impl FnMut(u32, Cell)) {
        match &self.block(place.id).0 {
            Block::Same(cell) => each(place.begin, *cell),
            Block::Mixed(_) => {
                self.inside(place).into_iter().for_each(|child| self.ranges(child, each));
            }
        }
    }

    /// From now on as much work may be done as at first.
    pub(crate) const fn rest(&mut self) {
        self.steps = 0;
    }

    fn lay_in(&mut self, place: Place, spans: &[(u32, u32)], same: Id) -> Result<Id, TooMuch> {
        let last = place.begin + place.size - 1;
        let from = spans.partition_point(|span| span.1 < place.begin);
        let to = spans.partition_point(|span| span.0 <= last);
        let spans = spans.get(from..to).unwrap_or_default();
        let Some((first, end)) = spans.first() else { return Ok(place.id) };
        if *first <= place.begin && last <= *end {
            return self.merge(place.id, same);
        }
        if self.summary(place.id).highest <= self.summary(same).lowest {
            return Ok(place.id);
        }
        self.step()?;
        let mut children = self.children(place.id);
        for (child, at) in children.iter_mut().zip(self.inside(place)) {
            *child = self.lay_in(at, spans, same)?;
        }
        Ok(self.mixed(children))
    }

    fn step(&mut self) -> Result<(), TooMuch> {
        self.steps += 1;
        if self.steps > STEPS_MAX { Err(TooMuch) } else { Ok(()) }
    }

    fn mixed(&mut self, children: [Id; CHILDREN]) -> Id {
        let summary = children.map(|id| self.summary(id)).into_iter().reduce(Summary::and);
        match summary {
            Some(summary) if summary.runs > 1 => self.intern(Block::Mixed(children), summary),
            // All are the same cell.
            _ => children[0],
        }
    }

    fn intern(&mut self, block: Block, summary: Summary) -> Id {
        if let Some(id) = self.ids.get(&block) {
            return *id;
        }
        // Each step makes one at most.
        let id = Id(u32::try_from(self.blocks.len()).expect("there are fewer steps than that"));
        self.blocks.push((block.clone(), summary));
        self.ids.insert(block, id);
        id
    }

    fn children(&self, id: Id) -> [Id; CHILDREN] {
        match self.block(id).0 {
            Block::Same(_) => [id; CHILDREN],
            Block::Mixed(children) => children,
        }
    }

    fn summary(&self, id: Id) -> Summary {
        self.block(id).1
    }

    fn block(&self, id: Id) -> &(Block, Summary) {
        &self.blocks[id.0 as usize]
    }
}

/// Spans in order, of which no two touch.
fn disjoint(spans: impl Iterator<Item = (u16, u16)>) -> Vec<(u32, u32)> {
    let mut spans: Vec<(u32, u32)> =
        spans.map(|(first, last)| (first.into(), last.into())).collect();
    spans.sort_unstable();
    let mut disjoint: Vec<(u32, u32)> = Vec::new();
    for (first, last) in spans.into_iter().filter(|(first, last)| first <= last) {
        match disjoint.last_mut() {
            Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
            _ => disjoint.push((first, last)),
        }
    }
    disjoint
}
