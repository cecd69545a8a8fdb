//! Resources as the API shows them: the fields of their records, what is computed, and what hangs
//! on them. All of it is declared in `model`; nothing here knows a kind.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    sync::Arc,
};

use model::{
    Claim, Error, FieldDef, FieldType, Kind, Plain, Record, Result, Timestamp,
    declare::Column,
    record::COMMON,
    shown::{Child, Derived, LIST_MAX, Shown, View},
    status::Board,
};
use serde_json::{Map, Value};
use store::{Read, Snapshot};
use uuid::Uuid;

use crate::query::{Rows, Scope};

/// The key under which an inventory names its lists that were cut at [`LIST_MAX`].
pub const TRUNCATED: &str = "truncated";

/// Something that the inventories of a kind show, by its name.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A field of the record.
    Column(&'static Column),
    /// A computed field.
    Derived(&'static Derived),
    /// The resources that hang on it.
    List(&'static Child),
}

impl Entry {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Entry::Column(column) => column.field.name,
            Entry::Derived(derived) => derived.field.name,
            Entry::List(child) => child.name,
        }
    }

    /// The field that it is; `None` for lists of other resources.
    #[must_use]
    pub const fn field(self) -> Option<&'static FieldDef> {
        match self {
            Entry::Column(column) => Some(&column.field),
            Entry::Derived(derived) => Some(&derived.field),
            Entry::List(_) => None,
        }
    }

    /// Its type, if values can be compared with it.
    #[must_use]
    pub fn comparable(self) -> Option<FieldType> {
        self.field().map(|field| field.kind).filter(|kind| *kind != FieldType::Object)
    }

    /// Its value; nothing for lists of other resources.
    #[must_use]
    pub fn read<'a>(self, record: &'a Record, view: &dyn View) -> Plain<'a> {
        match self {
            Entry::Column(column) => record.read(column),
            Entry::Derived(derived) if is_of_type(record, derived.only) => {
                (derived.read)(record, view)
            }
            Entry::Derived(_) | Entry::List(_) => Plain::Null,
        }
    }
}

/// Everything that an inventory of `kind` may show.
pub fn entries(kind: Kind) -> impl Iterator<Item = Entry> {
    let def = kind.def();
    let lists = def.children.iter().filter(|child| child.shown != Shown::No).map(Entry::List);
    in_record(kind).chain(def.derived.iter().map(Entry::Derived)).chain(lists)
}

/// The part of [`entries`] that is in the record itself.
fn in_record(kind: Kind) -> impl Iterator<Item = Entry> {
    let def = kind.def();
    let common = if def.is_shown() { COMMON } else { &[] };
    let columns = def.own.iter().chain(def.also).chain(common);
    columns.filter(|column| !column.hidden).map(Entry::Column)
}

/// The entry of this name.
///
/// # Errors
/// [`model::Code::InvalidArgument`] with the names that there are, blaming `key`.
pub fn entry(kind: Kind, key: &str, name: &str) -> Result<Entry> {
    entries(kind).find(|entry| entry.name() == name).ok_or_else(|| {
        let error = Error::field(key, format!("{} has no field {name}", kind.def().name));
        error.hint(format!("its fields: {}", names(entries(kind).map(Entry::name))))
    })
}

/// The entry of this name, for conditions and the order of answers.
///
/// # Errors
/// As [`entry`]; also for what cannot be compared.
pub fn comparable(kind: Kind, key: &str, name: &str) -> Result<Entry> {
    let entry = entry(kind, key, name)?;
    match entry {
        Entry::List(child) => {
            let many = child.kind.def().name;
            let error = Error::field(key, format!("{name} is a list of {many}, not a value"));
            Err(error.hint(format!("name a field of theirs, such as {name}.uuid")))
        }
        Entry::Column(_) | Entry::Derived(_) if entry.comparable().is_none() => {
            let rule = format!("{name} is a structure, which cannot be compared");
            Err(Error::field(key, rule).hint(format!("fields={name} shows it")))
        }
        Entry::Column(_) | Entry::Derived(_) => Ok(entry),
    }
}

/// The entry of this name, for what needs one value of each resource.
///
/// # Errors
/// As [`comparable`]; also for lists.
pub fn single(kind: Kind, key: &str, name: &str) -> Result<Entry> {
    let entry = comparable(kind, key, name)?;
    if matches!(entry.comparable(), Some(FieldType::List(_))) {
        let error = Error::field(key, format!("{name} is a list, which has no order"));
        return Err(error.hint("name a field with one value"));
    }
    Ok(entry)
}

/// Names in their order, for a hint.
pub(crate) fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = all.collect();
    all.sort_unstable();
    all.dedup();
    all.join(", ")
}

/// Conditions that take as long as looking at a record.
const TESTS_PER_LOOK: u64 = 8;

/// A snapshot of the store with what hosts report: all that an inventory shows. It counts the
/// records that were looked at through it.
pub struct Observed<'a> {
    snapshot: &'a Snapshot<Record>,
    board: &'a Board,
    looks: Cell<u64>,
    /// Conditions that were tested since the last look that they made.
    tests: Cell<u64>,
    /// Whose eyes look: what hangs on a resource is shown as far as they see it.
    scope: Cell<Scope>,
    /// What was got last: several fields of an inventory are read from the same other record.
    last: RefCell<Option<Arc<Record>>>,
    now: Timestamp,
}

impl<'a> Observed<'a> {
    /// Nothing of it has been looked at yet.
    #[must_use]
    pub const fn new(snapshot: &'a Snapshot<Record>, board: &'a Board) -> Self {
        let (looks, scope) = (Cell::new(0), Cell::new(Scope::Everything));
        let tests = Cell::new(0);
        let now = Timestamp(i64::MIN);
        Self { snapshot, board, looks, tests, scope, last: RefCell::new(None), now }
    }

    /// The same, seen at this time: what has a deadline is over after it.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// From now on, what hangs on a resource is shown as far as it is in `scope`.
    pub(crate) fn narrow(&self, scope: Scope) {
        self.scope.set(scope);
    }

    /// How many records have been looked at.
    #[must_use]
    pub const fn looks(&self) -> u64 {
        self.looks.get()
    }

    /// More records are looked at than those that were got from here.
    pub(crate) fn look(&self, more: u64) {
        self.looks.set(self.looks.get().saturating_add(more));
    }

    /// One of many conditions was tested on a record. So many cost as much as a look.
    pub(crate) fn test(&self) {
        let tests = self.tests.get() + 1;
        self.tests.set(tests % TESTS_PER_LOOK);
        self.look(tests / TESTS_PER_LOOK);
    }

    /// What hosts report.
    pub(crate) const fn board_of(&self) -> &'a Board {
        self.board
    }

    pub(crate) const fn snapshot(&self) -> &'a Snapshot<Record> {
        self.snapshot
    }

    /// The rows of the snapshot, with those that are made from others.
    pub(crate) const fn rows(&self) -> Rows<'a> {
        Rows::of(self.snapshot)
    }
}

impl View for Observed<'_> {
    fn get(&self, kind: Kind, uuid: Uuid) -> Option<Arc<Record>> {
        let is_it = |record: &&Arc<Record>| record.uuid() == uuid && record.kind() == kind;
        if let Some(again) = self.last.borrow().as_ref().filter(is_it) {
            return Some(Arc::clone(again));
        }
        self.look(1);
        let found = self.rows().get(kind, uuid)?;
        *self.last.borrow_mut() = Some(Arc::clone(&found));
        Some(found)
    }

    fn pointing(&self, kind: Kind, field: &str, parent: Uuid, max: usize) -> Vec<Arc<Record>> {
        let ids = self.snapshot.referrers(kind, field, parent).take(max);
        ids.filter_map(|id| self.get(kind, id)).collect()
    }

    fn hanging(&self, kind: Kind, field: &str, parent: Uuid, max: usize) -> Vec<Arc<Record>> {
        let ids = self.snapshot.referrers(kind, field, parent);
        let records = ids.filter_map(|id| self.get(kind, id));
        records
            .filter(|record| self.scope.get().includes(self.snapshot, record))
            .take(max)
            .collect()
    }

    fn holder(&self, claim: &Claim) -> Option<(Kind, Uuid)> {
        self.snapshot.holder(claim)
    }

    fn first_held(&self, low: &Claim, high: &Claim) -> Option<(Claim, (Kind, Uuid))> {
        self.snapshot.first_held(low, high)
    }

    fn revision(&self) -> u64 {
        self.snapshot.revision()
    }

    fn board(&self) -> &Board {
        self.board
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// A resource as ZStack shows it: no hidden fields, no empty ones, times as text. A list has
/// [`LIST_MAX`] resources at most.
#[must_use]
pub fn show(record: &Record, view: &dyn View) -> Map<String, Value> {
    project(record, view, entries(record.kind()))
}

/// The part of [`show`] that is asked for; nothing else is computed.
pub fn project(
    record: &Record,
    view: &dyn View,
    wanted: impl IntoIterator<Item = Entry>,
) -> Map<String, Value> {
    let (mut shown, mut cut) = (Map::new(), Vec::new());
    for entry in wanted {
        let value = match entry {
            Entry::List(child) if is_of_type(record, child.only) => {
                let mut children = children(record, child, view);
                if children.len() > LIST_MAX {
                    children.truncate(LIST_MAX);
                    cut.push(child.name);
                }
                list(children, child, view)
            }
            field => match field.read(record, view) {
                Plain::Null => continue,
                value => value.to_json(),
            },
        };
        shown.insert(entry.name().to_owned(), value);
    }
    if !cut.is_empty() {
        shown.insert(TRUNCATED.to_owned(), cut.into());
    }
    shown
}

/// One more than a list may have, where there are more.
fn children(record: &Record, child: &Child, view: &dyn View) -> Vec<Arc<Record>> {
    view.hanging(child.kind, child.by, record.uuid(), LIST_MAX + 1)
}

fn list(mut children: Vec<Arc<Record>>, child: &Child, view: &dyn View) -> Value {
    if children.len() > 1
        && let Some(order) = child.order.and_then(|order| child.kind.def().column(order))
    {
        let by = |a: &Arc<Record>, b: &Arc<Record>| a.read(order).order(&b.read(order));
        children.sort_by(|a, b| by(a, b).unwrap_or(Ordering::Equal));
    }
    let shown = children.iter().map(|record| match child.shown {
        Shown::Fields => project(record, view, in_record(child.kind)),
        Shown::Whole | Shown::No => show(record, view),
    });
    shown.map(Value::Object).collect()
}

/// Whether a resource has a type that something is declared for.
fn is_of_type(record: &Record, only: &[&'static str]) -> bool {
    only.is_empty() || only.iter().any(|only| record.field("type") == Plain::word(only))
}
