//! The rows that queries look at: those of the store, and [`AccountResourceRef`]s, which are made
//! from the rows of all resources. What the store indexes of these, owner and uuid and table, is what
//! the others are found by, so that no query of them looks at every resource of every kind.

use std::{cmp::Reverse, collections::BinaryHeap, iter, sync::Arc};

use model::{Kind, Record, record::OWNER, resource::account_resource_ref::AccountResourceRef};
use store::{Key, Read, Snapshot};
use uuid::Uuid;

/// Whether rows of this kind are not stored, but made.
pub(super) fn is_made(kind: Kind) -> bool {
    kind == Kind::AccountResourceRef
}

/// Rows at one revision.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    snapshot: &'a Snapshot<Record>,
}

/// Ids, ascending.
type Ids<'i> = Box<dyn Iterator<Item = Uuid> + 'i>;

impl<'a> Rows<'a> {
    /// Those of a snapshot.
    pub(crate) const fn of(snapshot: &'a Snapshot<Record>) -> Self {
        Self { snapshot }
    }

    /// The row, if there is one.
    pub(crate) fn get(self, kind: Kind, id: Uuid) -> Option<Arc<Record>> {
        if !is_made(kind) {
            return self.snapshot.get(kind, id);
        }
        let mut kinds = AccountResourceRef::kinds();
        let resource = kinds.find_map(|kind| self.snapshot.get(kind, id))?;
        AccountResourceRef::to(&resource).map(Arc::new)
    }

    /// How many rows there are; of those that are made, at most.
    pub(crate) fn total(self, kind: Kind) -> u64 {
        match is_made(kind) {
            false => self.snapshot.total(kind),
            true => AccountResourceRef::kinds().map(|kind| self.snapshot.total(kind)).sum(),
        }
    }

    /// Every row, by id.
    pub(super) fn list(self, kind: Kind) -> Box<dyn Iterator<Item = Arc<Record>> + 'a> {
        match is_made(kind) {
            false => Box::new(self.snapshot.list(kind)),
            true => Box::new(self.ids_after(None).filter_map(move |id| self.get(kind, id))),
        }
    }

    /// How many ids [`find`](Self::find) gives.
    pub(super) fn count(self, kind: Kind, field: &str, key: &Key) -> u64 {
        let of = |kind| self.snapshot.count(kind, OWNER, key);
        match Place::of(kind, field, key) {
            Place::Index => self.snapshot.count(kind, field, key),
            Place::Owner => AccountResourceRef::kinds().map(of).sum(),
            Place::Tables(kinds) => kinds.iter().map(|kind| self.snapshot.total(*kind)).sum(),
            Place::Row(id) => u64::from(self.get(kind, id).is_some()),
        }
    }

    /// The ids, ascending, of the rows whose `field` has this value; of those that are made, also of
    /// resources without an owner, of which there is no row.
    pub(super) fn find<'k>(self, kind: Kind, field: &'k str, key: &'k Key) -> Ids<'k>
    where
        'a: 'k,
    {
        let snapshot = self.snapshot;
        match Place::of(kind, field, key) {
            Place::Index => Box::new(snapshot.find(kind, field, key)),
            Place::Owner => {
                let found = |kind| Box::new(snapshot.find(kind, OWNER, key)) as Ids<'k>;
                merged(AccountResourceRef::kinds().map(found).collect())
            }
            Place::Tables(kinds) => merged(
                kinds.into_iter().map(|kind| Box::new(snapshot.ids(kind)) as Ids<'k>).collect(),
            ),
            Place::Row(id) => Box::new(self.get(kind, id).map(|_| id).into_iter()),
        }
    }

    /// The ids of the resources from which rows are made, ascending.
    pub(super) fn ids_after(self, after: Option<Uuid>) -> Ids<'a> {
        let snapshot = self.snapshot;
        let ids = |kind| {
            Box::new(snapshot.list_after(kind, after).map(|record| record.uuid())) as Ids<'a>
        };
        merged(AccountResourceRef::kinds().map(ids).collect())
    }
}

/// Where the ids of rows are.
enum Place {
    /// In the store's index of the field.
    Index,
    /// In the index of owners of every kind of resource.
    Owner,
    /// In these tables.
    Tables(Vec<Kind>),
    /// It is this one.
    Row(Uuid),
}

impl Place {
    fn of(kind: Kind, field: &str, key: &Key) -> Self {
        match (field, key) {
            _ if !is_made(kind) => Place::Index,
            ("resourceUuid", Key::Uuid(id)) => Place::Row(*id),
            ("resourceType", Key::Text(name)) => {
                let is_it = |kind: &Kind| kind.def().vo() == **name;
                Place::Tables(AccountResourceRef::kinds().filter(is_it).collect())
            }
            // What else is indexed names the owner.
            _ => Place::Owner,
        }
    }
}

/// Several ascending sequences as one.
fn merged(mut sources: Vec<Ids<'_>>) -> Ids<'_> {
    let first = |(at, ids): (usize, &mut Ids<'_>)| ids.next().map(|id| Reverse((id, at)));
    let mut next: BinaryHeap<_> = sources.iter_mut().enumerate().filter_map(first).collect();
    Box::new(iter::from_fn(move || {
        let Reverse((id, at)) = next.pop()?;
        next.extend(sources[at].next().map(|id| Reverse((id, at))));
        Some(id)
    }))
}
