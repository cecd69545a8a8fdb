//! A transaction: reads its own writes, and remembers what it touched.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use uuid::Uuid;

use crate::{
    Read, Row,
    log::{Key, Writes},
    state::State,
};

/// A claim key has an owner already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Who.
    pub owner: Uuid,
}

/// A transaction in the making, on a private copy of the state.
pub struct Tx<R: Row> {
    state: State<R>,
    writes: Writes<R>,
    touched: RefCell<BTreeSet<Key<R::Kind>>>,
}

impl<R: Row> Tx<R> {
    pub(crate) fn new(base: &State<R>) -> Self {
        Self { state: base.clone(), writes: Writes::new(), touched: RefCell::new(BTreeSet::new()) }
    }

    /// Inserts or replaces a row.
    pub fn put(&mut self, row: R) {
        let row = Arc::new(row);
        self.touch(Key::Row(row.kind(), row.id()));
        self.writes.rows.insert((row.kind(), row.id()), Some(Arc::clone(&row)));
        self.state.put(row);
    }

    /// Removes a row; nothing happens when there is none.
    pub fn delete(&mut self, kind: R::Kind, id: Uuid) {
        self.touch(Key::Row(kind, id));
        self.writes.rows.insert((kind, id), None);
        self.state.remove(kind, id);
    }

    /// Takes a claim key. A key has at most one owner; claiming what one owns already is fine.
    ///
    /// # Errors
    /// [`Taken`], when somebody else owns it; nothing changes then.
    pub fn claim(&mut self, key: &str, owner: Uuid) -> Result<(), Taken> {
        match self.claim_owner(key) {
            Some(other) if other != owner => Err(Taken { owner: other }),
            _ => {
                self.set_claim(key, Some(owner));
                Ok(())
            }
        }
    }

    /// Gives up a claim key, whoever owns it; nothing happens when nobody does.
    pub fn release_claim(&mut self, key: &str) {
        self.touch(Key::Claim(key.into()));
        self.set_claim(key, None);
    }

    /// Makes this transaction conflict with every other one that touches the same fence. Use the
    /// id of the parent whose members a decision rests on: see the crate's documentation.
    pub fn fence(&mut self, name: &str) {
        self.touch(Key::Fence(name.into()));
        self.writes.fences.insert(name.into());
    }

    /// The next number of a sequence that starts at 1. A committed number is never given out
    /// again: not after a deletion, a restart or by another server.
    pub fn counter(&mut self, name: &str) -> u64 {
        let name: Arc<str> = name.into();
        self.touch(Key::Counter(Arc::clone(&name)));
        let next = self.state.counters.get(&name).copied().unwrap_or(0) + 1;
        self.state.counters.insert(Arc::clone(&name), next);
        self.writes.counters.insert(name, next);
        next
    }

    /// What it touched, and what it really changes compared with `base`.
    pub(crate) fn finish(self, base: &State<R>) -> (BTreeSet<Key<R::Kind>>, Writes<R>) {
        let mut writes = self.writes;
        writes.rows.retain(|key, after| base.rows.get(key) != after.as_ref());
        writes.claims.retain(|key, owner| base.claims.get(key) != owner.as_ref());
        (self.touched.into_inner(), writes)
    }

    fn set_claim(&mut self, key: &str, owner: Option<Uuid>) {
        let key: Arc<str> = key.into();
        self.state.set_claim(&key, owner);
        self.writes.claims.insert(key, owner);
    }

    fn touch(&self, key: Key<R::Kind>) {
        self.touched.borrow_mut().insert(key);
    }
}

impl<R: Row> Read<R> for Tx<R> {
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        self.touch(Key::Row(kind, id));
        self.state.get(kind, id)
    }
    fn list(&self, kind: R::Kind) -> impl Iterator<Item = Arc<R>> {
        self.state.list(kind)
    }
    fn referrers(&self, kind: R::Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid> {
        self.state.referrers(kind, field, parent)
    }
    fn claim_owner(&self, key: &str) -> Option<Uuid> {
        self.touch(Key::Claim(key.into()));
        self.state.claim_owner(key)
    }
    fn claims_with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, Uuid)> {
        self.state.claims_with_prefix(prefix)
    }
}
