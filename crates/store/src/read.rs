//! Reading: the same words on a snapshot and inside a transaction.

use std::{
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use uuid::Uuid;

use crate::{Row, state::State};

/// What can be read, at one revision.
pub trait Read<R: Row> {
    /// The row, if there is one. Tracked in a transaction.
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>>;

    /// Every row of a table, by id. **Not** tracked: see the crate's documentation.
    fn list(&self, kind: R::Kind) -> impl Iterator<Item = Arc<R>>;

    /// The ids, ascending, of all rows of table `kind` whose `field` points at `parent`. Costs the
    /// number of rows of `kind` that point at `parent` with any field. **Not** tracked.
    fn referrers(&self, kind: R::Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid>;

    /// Who owns this claim key. Tracked in a transaction.
    fn claim_owner(&self, key: &str) -> Option<Uuid>;

    /// Every claim whose key has this start, by key. **Not** tracked.
    fn claims_with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, Uuid)>;
}

/// The whole state at one revision. Never changes; a clone is free.
#[derive(Clone, Debug)]
pub struct Snapshot<R: Row>(pub(crate) Arc<State<R>>);

impl<R: Row> Snapshot<R> {
    /// How many transactions led to it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.revision
    }
}

impl<R: Row> Read<R> for Snapshot<R> {
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        self.0.get(kind, id)
    }
    fn list(&self, kind: R::Kind) -> impl Iterator<Item = Arc<R>> {
        self.0.list(kind)
    }
    fn referrers(&self, kind: R::Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid> {
        self.0.referrers(kind, field, parent)
    }
    fn claim_owner(&self, key: &str) -> Option<Uuid> {
        self.0.claim_owner(key)
    }
    fn claims_with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, Uuid)> {
        self.0.claims_with_prefix(prefix)
    }
}

impl<R: Row> Read<R> for State<R> {
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        self.rows.get(&(kind, id)).cloned()
    }

    fn list(&self, kind: R::Kind) -> impl Iterator<Item = Arc<R>> {
        let rows = self.rows.range((kind, Uuid::nil())..=(kind, Uuid::max()));
        rows.map(|(_, row)| Arc::clone(row))
    }

    fn referrers(&self, kind: R::Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid> {
        let all = self.references.range((parent, kind, "", Uuid::nil())..);
        all.take_while(move |(p, k, ..)| *p == parent && *k == kind)
            .filter(move |(_, _, f, _)| *f == field)
            .map(|(.., child)| *child)
    }

    fn claim_owner(&self, key: &str) -> Option<Uuid> {
        self.claims.get(key).copied()
    }

    fn claims_with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, Uuid)> {
        let from = self.claims.range::<_, str>((Included(prefix), Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, owner)| (key.to_string(), *owner))
    }
}
