//! Looking things up for a query: whether a resource meets a condition, and which resources meet
//! one, found from the far end of its path with the store's indexes.

use std::sync::Arc;

use model::{
    Code, Error, Id, Kind, Plain, Record, Result,
    resource::account::Account,
    shown::{Child, View},
};
use store::{Key, Read};
use uuid::Uuid;

use super::{
    Scope,
    condition::Test,
    path::{Path, Step},
};
use crate::{
    inventory::{self, Entry, Observed},
    sight,
};

/// The work of one query.
pub(crate) struct Search<'a> {
    pub(crate) kind: Kind,
    pub(crate) scope: Scope,
    pub(crate) view: &'a Observed<'a>,
    /// Most records that it looks at.
    pub(crate) looks_max: u64,
}

impl Search<'_> {
    /// Whether a resource, or any that its `steps` lead to, meets the test.
    pub(crate) fn meets(
        &self,
        record: &Record,
        steps: &[Step],
        (end, test): (Entry, &Test),
    ) -> Result<bool> {
        self.within()?;
        let Some((step, rest)) = steps.split_first() else {
            return Ok(test.holds(&end.read(record, self.view)));
        };
        match step {
            Step::Up(entry, kind) => {
                for item in entry.read(record, self.view).items() {
                    let Plain::Uuid(id) = item else { continue };
                    if let Some(parent) = self.seen(*kind, *id)
                        && self.meets(&parent, rest, (end, test))?
                    {
                        return Ok(true);
                    }
                }
            }
            Step::Down(child) => {
                let ids = self.view.snapshot().referrers(child.kind, child.by, record.uuid());
                for id in ids {
                    if let Some(below) = self.seen(child.kind, id)
                        && self.meets(&below, rest, (end, test))?
                    {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// The ids, ascending, of exactly those resources of `kind` of which [`meets`](Self::meets)
    /// holds. `None`: finding them takes looking at more than `most`.
    pub(crate) fn locate(
        &self,
        kind: Kind,
        steps: &[Step],
        (end, test): (Entry, &Test),
        most: u64,
    ) -> Result<Option<Vec<Uuid>>> {
        let Some((step, rest)) = steps.split_first() else {
            return self.holders(kind, (end, test), most);
        };
        let Some(far) = self.locate(step.to(), rest, (end, test), most)? else { return Ok(None) };
        match step {
            Step::Up(entry, to) => {
                let far = self.seen_of(*to, far);
                self.holders(kind, (*entry, &Test::is_one_of(&far)), most)
            }
            Step::Down(child) => self.parents(kind, child, &far).map(Some),
        }
    }

    /// The resources of `kind` whose own field meets the test.
    fn holders(
        &self,
        kind: Kind,
        (entry, test): (Entry, &Test),
        most: u64,
    ) -> Result<Option<Vec<Uuid>>> {
        if let Some(index) = self.index(kind, (entry, test)) {
            let few = index.count <= most;
            return few.then(|| self.ids(kind, &index.keys)).transpose();
        }
        if let Some(paths) = found_by(kind, entry)
            && test.values().is_some()
        {
            return self.found_by(kind, (entry, test), &paths, most);
        }
        if self.view.rows().total(kind) > most {
            return Ok(None);
        }
        let mut found = Vec::new();
        for record in self.view.rows().list(kind) {
            self.view.look(1);
            if self.meets(&record, &[], (entry, test))? {
                found.push(record.uuid());
            }
        }
        Ok(Some(found))
    }

    /// The holders of a computed value: candidates from each of its paths, each verified.
    fn found_by(
        &self,
        kind: Kind,
        (entry, test): (Entry, &Test),
        paths: &[Path],
        most: u64,
    ) -> Result<Option<Vec<Uuid>>> {
        let mut candidates = Vec::new();
        for path in paths {
            match self.everybodys().locate(kind, &path.steps, (path.end, test), most)? {
                Some(more) => candidates.extend(more),
                None => return Ok(None),
            }
        }
        sort(&mut candidates);
        let mut found = Vec::new();
        for id in candidates {
            if let Some(record) = self.view.get(kind, id)
                && self.meets(&record, &[], (entry, test))?
            {
                found.push(id);
            }
        }
        Ok(Some(found))
    }

    /// A computed value does not depend on who asks.
    fn everybodys(&self) -> Self {
        Self { scope: Scope::Everything, ..*self }
    }

    /// The resources of `kind` on which one of these children hangs.
    fn parents(&self, kind: Kind, child: &Child, children: &[Uuid]) -> Result<Vec<Uuid>> {
        let Some(by) = child.kind.def().column(child.by) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for id in children {
            self.within()?;
            let Some(below) = self.seen(child.kind, *id) else { continue };
            let parents = below.read(by);
            found.extend(parents.items().iter().filter_map(|item| match item {
                Plain::Uuid(parent) => Some(*parent),
                _ => None,
            }));
        }
        sort(&mut found);
        // A field may point at resources of several kinds.
        found.retain(|id| self.view.rows().get(kind, *id).is_some());
        Ok(found)
    }

    /// A related resource: another account's is not there for the caller.
    fn seen(&self, kind: Kind, id: Uuid) -> Option<Arc<Record>> {
        let record = self.view.get(kind, id)?;
        self.scope.includes(self.view.snapshot(), &record).then_some(record)
    }

    /// Those of some resources that the caller sees.
    pub(crate) fn seen_of(&self, kind: Kind, mut ids: Vec<Uuid>) -> Vec<Uuid> {
        if self.scope != Scope::Everything {
            ids.retain(|id| self.seen(kind, *id).is_some());
        }
        ids
    }

    /// Where the store's index has what meets a test; `None` when it does not.
    pub(crate) fn index(&self, kind: Kind, (entry, test): (Entry, &Test)) -> Option<Index> {
        let Entry::Column(column) = entry else { return None };
        let values = test.values()?;
        if column.field.name == "uuid" {
            let ids: Vec<Uuid> = values.iter().filter_map(uuid).collect();
            let ids: Vec<Uuid> =
                ids.into_iter().filter(|id| self.view.get(kind, *id).is_some()).collect();
            return Some(Index { count: ids.len() as u64, keys: Keys::Ids(ids) });
        }
        if !column.is_indexed() {
            return None;
        }
        let keys: Vec<Key> = values.iter().filter_map(Key::of).collect();
        let rows = self.view.rows();
        let count = keys.iter().map(|key| rows.count(kind, column.field.name, key)).sum();
        Some(Index { count, keys: Keys::Of(column.field.name, keys) })
    }

    /// The ids that an index has under some keys, ascending.
    pub(crate) fn ids(&self, kind: Kind, keys: &Keys) -> Result<Vec<Uuid>> {
        let (field, keys) = match keys {
            Keys::Ids(ids) => return Ok(ids.clone()),
            Keys::SeenBy(account) => {
                let ids = sight::ids(self.view.snapshot(), *account, kind);
                self.view.look(ids.len() as u64);
                return Ok(ids);
            }
            Keys::Any(places) => {
                let mut ids = Vec::new();
                for keys in places {
                    ids.extend(self.ids(kind, keys)?);
                }
                sort(&mut ids);
                return Ok(ids);
            }
            Keys::Of(field, keys) => (field, keys),
        };
        let mut ids = Vec::new();
        for key in keys {
            self.within()?;
            let before = ids.len();
            ids.extend(self.view.rows().find(kind, field, key));
            self.view.look((ids.len() - before) as u64);
        }
        if keys.len() > 1 {
            sort(&mut ids);
        }
        Ok(ids)
    }

    /// Whether it may look further.
    ///
    /// # Errors
    /// [`Code::OperationFailed`] with what would make it cheaper.
    pub(crate) fn within(&self) -> Result<()> {
        if self.view.looks() <= self.looks_max {
            return Ok(());
        }
        let (name, max) = (self.kind.def().name, self.looks_max);
        let message = format!("the query of {name} looks at more than {max} records");
        let hint = format!(
            "name a value of an indexed field: {}; ask for fewer with limit, or for less of each \
             with fields",
            indexed(self.kind)
        );
        Err(Error::new(Code::OperationFailed, message).hint(hint))
    }
}

/// What an index has for a test, exactly.
pub(crate) struct Index {
    /// How many ids, those that are there twice counted twice.
    pub(crate) count: u64,
    pub(crate) keys: Keys,
}

/// Where ids are.
#[derive(Debug)]
pub(crate) enum Keys {
    /// Here, ascending.
    Ids(Vec<Uuid>),
    /// Under some values of a field.
    Of(&'static str, Vec<Key>),
    /// What an account sees.
    SeenBy(Id<Account>),
    /// In any of these places.
    Any(Vec<Keys>),
}

/// The paths by which the holders of a computed value are found; `None` when there are none.
pub(crate) fn found_by(kind: Kind, entry: Entry) -> Option<Vec<Path>> {
    let Entry::Derived(derived) = entry else { return None };
    let paths = derived.found_by.iter().map(|path| Path::declared(kind, path));
    paths.collect::<Option<Vec<_>>>().filter(|paths| !paths.is_empty())
}

/// The fields by which resources of `kind` are found without looking at all of them.
fn indexed(kind: Kind) -> String {
    let found = inventory::entries(kind).filter(|entry| match entry {
        Entry::Column(column) => column.is_indexed() || column.field.name == "uuid",
        Entry::Derived(derived) => !derived.found_by.is_empty(),
        Entry::List(_) => false,
    });
    inventory::names(found.map(Entry::name))
}

fn uuid(value: &Plain<'_>) -> Option<Uuid> {
    match value {
        Plain::Uuid(uuid) => Some(*uuid),
        _ => None,
    }
}

fn sort(ids: &mut Vec<Uuid>) {
    ids.sort_unstable();
    ids.dedup();
}
