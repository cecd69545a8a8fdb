//! A transaction: reads its own writes, and remembers what it touched.

use std::{cell::RefCell, sync::Arc};

use thiserror::Error;
use uuid::Uuid;

use crate::{
    Change, Key, Read, Row,
    log::{Mark, Marks, Writes},
    read::untracked_reads,
    state::State,
};

/// Another row holds a claim already.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{kind:?} {id} holds {claim:?} already")]
pub struct Taken<R: Row> {
    /// What.
    pub claim: R::Claim,
    /// The table of the row that holds it.
    pub kind: R::Kind,
    /// The id of that row.
    pub id: Uuid,
}

/// A transaction in the making, on a private copy of the state.
pub struct Tx<R: Row> {
    state: State<R>,
    writes: Writes<R>,
    touched: RefCell<Marks<R>>,
}

/// What has become of a transaction.
pub(crate) struct Finished<R: Row> {
    pub(crate) touched: Marks<R>,
    pub(crate) writes: Writes<R>,
    pub(crate) changes: Arc<[Change<R>]>,
    /// The state that it leaves, one revision later.
    pub(crate) after: State<R>,
}

impl<R: Row> Tx<R> {
    pub(crate) fn new(base: &State<R>) -> Self {
        Self {
            state: base.clone(),
            writes: Writes::new(),
            touched: RefCell::new(Marks::<R>::new()),
        }
    }

    /// The revision that it builds on.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Inserts or replaces a row. It takes its claims, and gives up those that it no longer has.
    ///
    /// # Errors
    /// [`Taken`], when another row holds one of its claims; nothing changes then.
    pub fn put(&mut self, row: R) -> Result<(), Taken<R>> {
        let (kind, id) = (row.kind(), row.id());
        self.touch(Mark::Row(kind, id));
        self.touched.borrow_mut().extend(row.claims().into_iter().map(Mark::Claim));
        let row = Arc::new(row);
        self.state.put(Arc::clone(&row))?;
        self.writes.rows.insert((kind, id), Some(row));
        Ok(())
    }

    /// Removes a row, which gives up its claims; nothing happens when there is none.
    pub fn delete(&mut self, kind: R::Kind, id: Uuid) {
        self.touch(Mark::Row(kind, id));
        self.writes.rows.insert((kind, id), None);
        self.state.remove(kind, id);
    }

    /// Makes this transaction conflict with every other one that touches the same fence. Use the
    /// id of the parent whose members a decision rests on: see the crate's documentation.
    pub fn fence(&mut self, name: &str) {
        self.touch(Mark::Fence(name.into()));
        self.writes.fences.insert(name.into());
    }

    /// The next number of a sequence that starts at 1. A committed number is never given out
    /// again: not after a deletion, a restart or by another server.
    pub fn counter(&mut self, name: &str) -> u64 {
        let name: Arc<str> = name.into();
        self.touch(Mark::Counter(Arc::clone(&name)));
        let next = self.state.counters.get(&name).copied().unwrap_or(0) + 1;
        self.state.counters.insert(Arc::clone(&name), next);
        self.writes.counters.insert(name, next);
        next
    }

    /// What it touched, and what it really changes compared with `base`.
    pub(crate) fn finish(self, base: &State<R>) -> Finished<R> {
        let mut writes = self.writes;
        writes.rows.retain(|key, after| base.rows.get(key) != after.as_ref());
        let changes = writes.rows.iter().map(|(&(kind, id), after)| {
            let before = base.rows.get(&(kind, id)).cloned();
            Change { kind, id, before, after: after.clone() }
        });
        let changes = changes.collect();
        let after = State { revision: base.revision + 1, ..self.state };
        Finished { touched: self.touched.into_inner(), writes, changes, after }
    }

    fn touch(&self, mark: Mark<R::Kind, R::Claim>) {
        self.touched.borrow_mut().insert(mark);
    }
}

impl<R: Row> Read<R> for Tx<R> {
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        self.touch(Mark::Row(kind, id));
        self.state.get(kind, id)
    }
    fn holder(&self, claim: &R::Claim) -> Option<(R::Kind, Uuid)> {
        self.touch(Mark::Claim(claim.clone()));
        self.state.holder(claim)
    }
    fn first_free(&self, from: &R::Claim) -> Option<R::Claim> {
        let free = self.state.first_free(from)?;
        self.touch(Mark::Claim(free.clone()));
        Some(free)
    }
    untracked_reads!(R, state);
}
