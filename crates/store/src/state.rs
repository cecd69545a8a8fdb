//! The whole state as structurally shared tables: a copy is free, a change copies a path.
//!
//! Every change of every origin (own transaction, another server's record, a restart) comes in
//! through [`State::put`], [`State::remove`] and [`State::apply`], so that the index of references
//! cannot drift from the rows.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use crate::{Change, Loaded, Row, log::Writes};

/// One reference, seen from its target: (parent, table of the child, field, child).
pub(crate) type Reference<K> = (Uuid, K, &'static str, Uuid);

/// The state at one revision.
#[derive(Clone, Debug)]
pub(crate) struct State<R: Row> {
    pub(crate) revision: u64,
    pub(crate) rows: OrdMap<(R::Kind, Uuid), Arc<R>>,
    pub(crate) references: OrdSet<Reference<R::Kind>>,
    pub(crate) claims: OrdMap<Arc<str>, Uuid>,
    /// The last number that was given out. Fences have no state: they live in log records.
    pub(crate) counters: OrdMap<Arc<str>, u64>,
}

impl<R: Row> State<R> {
    /// Decodes what an engine has loaded.
    pub(crate) fn decode(loaded: Loaded) -> serde_json::Result<Self> {
        let mut state = Self {
            revision: loaded.head,
            rows: OrdMap::new(),
            references: OrdSet::new(),
            claims: loaded.claims.into_iter().map(|(key, owner)| (Arc::from(key), owner)).collect(),
            counters: loaded.counters.into_iter().map(|(name, n)| (Arc::from(name), n)).collect(),
        };
        for row in loaded.rows {
            state.put(Arc::new(serde_json::from_str(row.get())?));
        }
        Ok(state)
    }

    /// Inserts or replaces a row; gives what was there before.
    pub(crate) fn put(&mut self, row: Arc<R>) -> Option<Arc<R>> {
        let (kind, id) = (row.kind(), row.id());
        let before = self.remove(kind, id);
        for (field, parent) in row.references() {
            self.references.insert((parent, kind, field, id));
        }
        self.rows.insert((kind, id), row);
        before
    }

    /// Removes a row; gives what was there.
    pub(crate) fn remove(&mut self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        let before = self.rows.remove(&(kind, id))?;
        for (field, parent) in before.references() {
            self.references.remove(&(parent, kind, field, id));
        }
        Some(before)
    }

    /// Takes or gives up a claim.
    pub(crate) fn set_claim(&mut self, key: &Arc<str>, owner: Option<Uuid>) {
        match owner {
            Some(owner) => self.claims.insert(Arc::clone(key), owner),
            None => self.claims.remove(key),
        };
    }

    /// Becomes the next revision by one transaction's writes; gives the rows that really changed.
    pub(crate) fn apply(&mut self, writes: &Writes<R>) -> Arc<[Change<R>]> {
        self.revision += 1;
        for (key, owner) in &writes.claims {
            self.set_claim(key, *owner);
        }
        for (name, last) in &writes.counters {
            self.counters.insert(Arc::clone(name), *last);
        }
        let rows = writes.rows.iter().map(|(&(kind, id), after)| {
            let before = match after {
                Some(row) => self.put(Arc::clone(row)),
                None => self.remove(kind, id),
            };
            Change { kind, id, before, after: after.clone() }
        });
        rows.filter(|change| change.before != change.after).collect()
    }
}
