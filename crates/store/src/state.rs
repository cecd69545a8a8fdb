//! The whole state as structurally shared tables: a copy is free, a change copies a path.
//!
//! Every change of every origin (own transaction, another server's record, a restart) comes in
//! through [`State::put`] and [`State::remove`], so that what is derived from the rows (index,
//! claims, totals) cannot drift from them.

use std::sync::Arc;

use imbl::OrdMap;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Change, Row, Taken, claims::Claims, index::Index, log::Writes};

/// The state at one revision.
#[derive(Clone, Debug)]
pub(crate) struct State<R: Row> {
    pub(crate) revision: u64,
    pub(crate) rows: OrdMap<(R::Kind, Uuid), Arc<R>>,
    /// How many rows each table has.
    pub(crate) totals: OrdMap<R::Kind, u64>,
    pub(crate) index: Index<R::Kind>,
    pub(crate) claims: Claims<R::Claim, R::Kind>,
    /// The last number that was given out. Fences have no state: they live in log records.
    pub(crate) counters: OrdMap<Arc<str>, u64>,
}

/// Why a loaded state is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsound {
    #[error("a row of table {kind} cannot be read: {error}")]
    Undecodable { kind: String, error: serde_json::Error },
    #[error("{kind} {id} is stored under another table or id, or twice")]
    Misplaced { kind: String, id: Uuid },
    #[error("{kind} {id} and {other_kind} {other} hold the same claim {claim}")]
    ClaimedTwice { claim: String, kind: String, id: Uuid, other_kind: String, other: Uuid },
}

impl<R: Row> State<R> {
    pub(crate) fn new() -> Self {
        Self {
            revision: 0,
            rows: OrdMap::new(),
            totals: OrdMap::new(),
            index: Index::new(),
            claims: Claims::new(),
            counters: OrdMap::new(),
        }
    }

    /// Takes in a stored row.
    pub(crate) fn load(&mut self, kind: &str, id: Uuid, json: &RawValue) -> Result<(), Unsound> {
        let undecodable = |error| Unsound::Undecodable { kind: kind.to_owned(), error };
        let table = crate::log::kind_of::<R::Kind>(kind).map_err(undecodable)?;
        let row = R::decode(table, json).map_err(undecodable)?;
        let misplaced = || Unsound::Misplaced { kind: kind.to_owned(), id };
        if row.kind() != table || row.id() != id {
            return Err(misplaced());
        }
        match self.put(Arc::new(row)) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(misplaced()),
            Err(taken) => Err(Unsound::twice(&taken, table, id)),
        }
    }

    /// Inserts or replaces a row; gives what was there before. Refuses, and changes nothing, when
    /// another row holds one of its claims.
    pub(crate) fn put(&mut self, row: Arc<R>) -> Result<Option<Arc<R>>, Taken<R>> {
        let (kind, id) = (row.kind(), row.id());
        let mut claims = row.claims();
        for claim in &claims {
            match self.claims.holder(claim) {
                Some(holder) if holder != (kind, id) => {
                    return Err(Taken { claim: claim.clone(), kind: holder.0, id: holder.1 });
                }
                _ => {}
            }
        }
        claims.sort_unstable();
        let new = row.index();
        let before = self.rows.insert((kind, id), row);
        self.give_up(before.as_deref(), &claims);
        claims.into_iter().for_each(|claim| self.claims.take(claim, (kind, id)));
        let old = before.as_ref().map(|before| before.index()).unwrap_or_default();
        self.index.replace((kind, id), old, new);
        if before.is_none() {
            *self.totals.entry(kind).or_insert(0) += 1;
        }
        Ok(before)
    }

    /// Removes a row; gives what was there.
    pub(crate) fn remove(&mut self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        let before = self.rows.remove(&(kind, id))?;
        self.give_up(Some(&before), &[]);
        self.index.replace((kind, id), before.index(), Vec::new());
        if let Some(total) = self.totals.get_mut(&kind) {
            *total -= 1;
        }
        Some(before)
    }

    /// Becomes the next revision by one transaction's writes; gives the rows that really changed.
    /// When it is refused, because two rows would hold one claim, this state is good for nothing.
    pub(crate) fn apply(&mut self, writes: &Writes<R>) -> Result<Arc<[Change<R>]>, Taken<R>> {
        self.revision += 1;
        for (name, last) in &writes.counters {
            self.counters.insert(Arc::clone(name), *last);
        }
        // A claim may pass from any of these rows to any other: first all are given up.
        for (key, after) in &writes.rows {
            let before = self.rows.get(key).cloned();
            let mut kept = after.as_ref().map(|row| row.claims()).unwrap_or_default();
            kept.sort_unstable();
            self.give_up(before.as_deref(), &kept);
        }
        let mut changes = Vec::with_capacity(writes.rows.len());
        for (&(kind, id), after) in &writes.rows {
            let before = match after {
                Some(row) => self.put(Arc::clone(row))?,
                None => self.remove(kind, id),
            };
            if before != *after {
                changes.push(Change { kind, id, before, after: after.clone() });
            }
        }
        Ok(changes.into())
    }

    /// A row gives up what it claims, apart from these, which are in order.
    fn give_up(&mut self, row: Option<&R>, kept: &[R::Claim]) {
        let Some(row) = row else { return };
        for claim in row.claims().iter().filter(|claim| kept.binary_search(claim).is_err()) {
            self.claims.give_up(claim, (row.kind(), row.id()));
        }
    }
}

impl Unsound {
    pub(crate) fn twice<R: Row>(taken: &Taken<R>, kind: R::Kind, id: Uuid) -> Self {
        Unsound::ClaimedTwice {
            claim: format!("{:?}", taken.claim),
            kind: format!("{kind:?}"),
            id,
            other_kind: format!("{:?}", taken.kind),
            other: taken.id,
        }
    }
}
