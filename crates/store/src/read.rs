//! Reading: the same words on a snapshot and inside a transaction.

use std::{
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use uuid::Uuid;

use crate::{Key, Row, state::State};

/// A claim, and the row that holds it.
pub type Held<R> = (<R as Row>::Claim, (<R as Row>::Kind, Uuid));

/// What can be read, at one revision.
pub trait Read<R: Row> {
    /// The row, if there is one. Tracked in a transaction.
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>>;

    /// Who holds this claim. Tracked in a transaction.
    fn holder(&self, claim: &R::Claim) -> Option<(R::Kind, Uuid)>;

    /// The first claim from `from` on, in its sequence, that no row holds; `None`: the sequence
    /// ends before. Costs the logarithm of what is held. That the claim is free is tracked in a
    /// transaction; that the ones before it are held is **not**, nor is `None`: another server may
    /// give one up at the same time.
    fn first_free(&self, from: &R::Claim) -> Option<R::Claim>;

    /// Every row of a table, by id. **Not** tracked: see the crate's documentation.
    fn list(&self, kind: R::Kind) -> impl Iterator<Item = Arc<R>> {
        self.list_after(kind, None)
    }

    /// The rows of a table whose ids are greater than `after`, by id; `None`: all. **Not** tracked.
    fn list_after(&self, kind: R::Kind, after: Option<Uuid>) -> impl Iterator<Item = Arc<R>>;

    /// The ids, ascending, of the rows of table `kind` whose `field` has this value. Costs what it
    /// gives. **Not** tracked.
    fn find(&self, kind: R::Kind, field: &str, key: &Key) -> impl Iterator<Item = Uuid>;

    /// The ids, ascending, of the rows of table `kind` whose `field` points at `parent`. Costs what
    /// it gives. **Not** tracked.
    fn referrers(&self, kind: R::Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid>;

    /// Every row of whatever table that points at `to` with whatever field, by table, field and id.
    /// A row that points there with two fields comes twice. Costs what it gives. **Not** tracked.
    fn pointing(&self, to: Uuid) -> impl Iterator<Item = (R::Kind, &'static str, Uuid)>;

    /// The first claim from `low` to `high` that a row holds, and which row. Costs a look-up.
    /// **Not** tracked.
    fn first_held(&self, low: &R::Claim, high: &R::Claim) -> Option<Held<R>>;

    /// How many rows of table `kind` have this value in `field`. Costs a look-up, not a walk, for
    /// keys of every sort. **Not** tracked.
    fn count(&self, kind: R::Kind, field: &str, key: &Key) -> u64;

    /// How many rows a table has. Costs a look-up. **Not** tracked.
    fn total(&self, kind: R::Kind) -> u64;
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

    /// The ids of a table, ascending. Costs much less than [`Read::list`] where only a few of the
    /// rows themselves are needed: passing by a row costs no look at it.
    pub fn ids(&self, kind: R::Kind) -> impl Iterator<Item = Uuid> {
        self.0.rows.range((kind, Uuid::nil())..=(kind, Uuid::max())).map(|((_, id), _)| *id)
    }

    /// Every claim that is held, in order. It is what the store goes by; that it is also what the
    /// rows claim can be checked with it.
    pub fn held(&self) -> impl Iterator<Item = Held<R>> {
        self.0.claims.all()
    }
}

/// The reads that a transaction does not track, from the state in this field.
macro_rules! untracked_reads {
    ($row:ident, $state:tt) => {
        fn list_after(
            &self,
            kind: $row::Kind,
            after: Option<Uuid>,
        ) -> impl Iterator<Item = Arc<$row>> {
            self.$state.list_after(kind, after)
        }
        fn find(&self, kind: $row::Kind, field: &str, key: &Key) -> impl Iterator<Item = Uuid> {
            self.$state.find(kind, field, key)
        }
        fn referrers(
            &self,
            kind: $row::Kind,
            field: &str,
            parent: Uuid,
        ) -> impl Iterator<Item = Uuid> {
            self.$state.referrers(kind, field, parent)
        }
        fn pointing(&self, to: Uuid) -> impl Iterator<Item = ($row::Kind, &'static str, Uuid)> {
            self.$state.pointing(to)
        }
        fn first_held(&self, low: &$row::Claim, high: &$row::Claim) -> Option<$crate::Held<$row>> {
            self.$state.first_held(low, high)
        }
        fn count(&self, kind: $row::Kind, field: &str, key: &Key) -> u64 {
            self.$state.count(kind, field, key)
        }
        fn total(&self, kind: $row::Kind) -> u64 {
            self.$state.total(kind)
        }
    };
}
pub(crate) use untracked_reads;

impl<R: Row> Read<R> for Snapshot<R> {
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        self.0.get(kind, id)
    }
    fn holder(&self, claim: &R::Claim) -> Option<(R::Kind, Uuid)> {
        self.0.holder(claim)
    }
    fn first_free(&self, from: &R::Claim) -> Option<R::Claim> {
        self.0.first_free(from)
    }
    untracked_reads!(R, 0);
}

impl<R: Row> Read<R> for State<R> {
    fn get(&self, kind: R::Kind, id: Uuid) -> Option<Arc<R>> {
        self.rows.get(&(kind, id)).cloned()
    }

    fn holder(&self, claim: &R::Claim) -> Option<(R::Kind, Uuid)> {
        self.claims.holder(claim)
    }

    fn first_free(&self, from: &R::Claim) -> Option<R::Claim> {
        self.claims.first_free(from)
    }

    fn first_held(&self, low: &R::Claim, high: &R::Claim) -> Option<Held<R>> {
        self.claims.first_held(low, high)
    }

    fn list_after(&self, kind: R::Kind, after: Option<Uuid>) -> impl Iterator<Item = Arc<R>> {
        let start = after.map_or(Included((kind, Uuid::nil())), |after| Excluded((kind, after)));
        let rows = self.rows.range((start, Included((kind, Uuid::max()))));
        rows.map(|(_, row)| Arc::clone(row))
    }

    fn find(&self, kind: R::Kind, field: &str, key: &Key) -> impl Iterator<Item = Uuid> {
        self.index.find(kind, field, key)
    }

    fn referrers(&self, kind: R::Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid> {
        self.index.find(kind, field, &Key::Uuid(parent))
    }

    fn pointing(&self, to: Uuid) -> impl Iterator<Item = (R::Kind, &'static str, Uuid)> {
        self.index.pointing(to)
    }

    fn count(&self, kind: R::Kind, field: &str, key: &Key) -> u64 {
        self.index.count(kind, field, key) as u64
    }

    fn total(&self, kind: R::Kind) -> u64 {
        self.totals.get(&kind).copied().unwrap_or(0)
    }
}
