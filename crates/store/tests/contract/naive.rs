//! Random histories against the plainest store that one can write.

use std::collections::BTreeMap;

use netloom_store::{ClaimKey, Event, Key, Read, Row, Tx};
use proptest::prelude::*;
use uuid::Uuid;

use crate::toy::{Disk, Kind, LINE_END, Place, Toy, commit, everything, id};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(Toy),
    Delete(Kind, Uuid),
    Count(String),
    /// How many rows point at this one. Fenced, as every change of a row is.
    Children(Kind, Uuid),
    Get(Kind, Uuid),
    /// Which row holds this.
    Holder(Place),
    /// The first free claim from here on. Fenced, as every change of a row is.
    FirstFree(Place),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Naive {
    pub(crate) rows: BTreeMap<(Kind, Uuid), Toy>,
    counters: BTreeMap<String, u64>,
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Done,
    Number(u64),
    /// Who holds what was asked for, or what was to be put.
    Holder(Option<(Kind, Uuid)>),
    Free(Option<Place>),
}

impl Naive {
    pub(crate) fn run(&mut self, op: &Op) -> Answer {
        match op {
            Op::Put(row) => {
                let key = (row.kind, row.id);
                let mut holders = row.places.iter().filter_map(|place| self.holder(place));
                if let Some(holder) = holders.find(|holder| *holder != key) {
                    return Answer::Holder(Some(holder));
                }
                self.rows.insert(key, row.clone());
            }
            Op::Delete(kind, id) => drop(self.rows.remove(&(*kind, *id))),
            Op::Count(name) => {
                let last = self.counters.entry(name.clone()).or_default();
                *last += 1;
                return Answer::Number(*last);
            }
            Op::Children(kind, parent) => {
                let found = self.found(*kind, "inside", &Key::Uuid(*parent));
                return Answer::Number(found.len() as u64);
            }
            Op::Get(kind, id) => {
                let row = self.rows.get(&(*kind, *id));
                return Answer::Number(row.map_or(0, |row| row.value + 1));
            }
            Op::Holder(place) => return Answer::Holder(self.holder(place)),
            Op::FirstFree(from) => return Answer::Free(self.first_free(from)),
        }
        Answer::Done
    }

    fn found(&self, kind: Kind, field: &str, key: &Key) -> Vec<Uuid> {
        let rows = self.rows.iter().filter(|((k, _), row)| {
            *k == kind && row.index().iter().any(|(f, v)| *f == field && v == key)
        });
        rows.map(|((_, id), _)| *id).collect()
    }

    /// Fails when two rows hold one claim.
    fn holder(&self, place: &Place) -> Option<(Kind, Uuid)> {
        let mut holders = self.rows.iter().filter(|(_, row)| row.places.contains(place));
        let holder = holders.next().map(|(key, _)| *key);
        assert_eq!(holders.count(), 0, "{place:?} is held twice");
        holder
    }

    fn first_free(&self, from: &Place) -> Option<Place> {
        let mut line = std::iter::successors(Some(from.clone()), ClaimKey::next);
        line.find(|place| self.holder(place).is_none())
    }
}

/// Moves the fence of every row that this one points at, and the one of claims.
fn fence_parents(tx: &mut Tx<Toy>, row: &Toy) {
    for parent in [row.inside, row.beside].into_iter().flatten() {
        tx.fence(&parent.to_string());
    }
    if !row.places.is_empty() {
        tx.fence("places");
    }
}

pub(crate) fn run(tx: &mut Tx<Toy>, op: &Op) -> Answer {
    if let Op::Put(Toy { kind, id, .. }) | Op::Delete(kind, id) = op
        && let Some(old) = tx.get(*kind, *id)
    {
        fence_parents(tx, &old);
    }
    match op {
        Op::Put(row) => {
            fence_parents(tx, row);
            if let Err(taken) = tx.put(row.clone()) {
                assert!(row.places.contains(&taken.claim));
                return Answer::Holder(Some((taken.kind, taken.id)));
            }
        }
        Op::Delete(kind, id) => tx.delete(*kind, *id),
        Op::Count(name) => return Answer::Number(tx.counter(name)),
        Op::Children(kind, parent) => {
            tx.fence(&parent.to_string());
            return Answer::Number(tx.referrers(*kind, "inside", *parent).count() as u64);
        }
        Op::Get(kind, id) => {
            return Answer::Number(tx.get(*kind, *id).map_or(0, |row| row.value + 1));
        }
        Op::Holder(place) => return Answer::Holder(tx.holder(place)),
        Op::FirstFree(from) => {
            tx.fence("places");
            return Answer::Free(tx.first_free(from));
        }
    }
    Answer::Done
}

fn small_id() -> impl Strategy<Value = Uuid> {
    (0..6u64).prop_map(id)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Box), Just(Kind::Thing)]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        4 => (0..2u8, 0..=LINE_END).prop_map(|(line, n)| Place::Number(line, n)),
        1 => "[ab]".prop_map(Place::Name),
    ]
}

fn row() -> impl Strategy<Value = Toy> {
    let at = || prop::option::of(small_id());
    let tags = prop::collection::vec("[xyz]", 0..3);
    let places = prop::collection::vec(place(), 0..4);
    (kind(), small_id(), at(), at(), 0..3u64, tags, places).prop_map(
        |(kind, id, inside, beside, value, tags, places)| Toy {
            kind,
            id,
            inside,
            beside,
            value,
            tags,
            places,
        },
    )
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => row().prop_map(Op::Put),
        2 => (kind(), small_id()).prop_map(|(kind, id)| Op::Delete(kind, id)),
        1 => "[nm]".prop_map(Op::Count),
        1 => (kind(), small_id()).prop_map(|(kind, id)| Op::Children(kind, id)),
        2 => (kind(), small_id()).prop_map(|(kind, id)| Op::Get(kind, id)),
        1 => place().prop_map(Op::Holder),
        1 => place().prop_map(Op::FirstFree),
    ]
}

/// Rows, and everything that follows from them.
pub(crate) fn assert_same(read: &impl Read<Toy>, naive: &Naive) {
    assert_eq!(everything(read), naive.rows.values().cloned().collect::<Vec<_>>());
    let places = (0..2).flat_map(|line| (0..=LINE_END).map(move |n| Place::Number(line, n)));
    for place in places.chain(["a", "b"].map(|name| Place::Name(name.to_owned()))) {
        assert_eq!(read.holder(&place), naive.holder(&place));
        assert_eq!(read.first_free(&place), naive.first_free(&place));
    }
    let texts = ["x", "y", "z"].map(|text| ("tags", Key::Text(text.into())));
    let numbers = (0..4).map(|n| ("value", Key::Number(n)));
    let keys: Vec<_> = texts.into_iter().chain(numbers).collect();
    for kind in [Kind::Box, Kind::Thing] {
        let ids: Vec<Uuid> = naive.rows.keys().filter(|(k, _)| *k == kind).map(|k| k.1).collect();
        assert_eq!(read.total(kind), ids.len() as u64);
        for after in ids.iter().copied().chain([id(3)]) {
            let rest = ids.iter().copied().filter(|id| *id > after);
            assert!(read.list_after(kind, Some(after)).map(|row| row.id).eq(rest));
        }
        let parents = (0..6).map(|n| Key::Uuid(id(n)));
        let parents = parents.flat_map(|key| [("inside", key.clone()), ("beside", key)]);
        for (field, key) in keys.iter().cloned().chain(parents) {
            let expected = naive.found(kind, field, &key);
            assert_eq!(read.count(kind, field, &key), expected.len() as u64);
            assert_eq!(read.find(kind, field, &key).collect::<Vec<_>>(), expected);
        }
    }
    for to in (0..6).map(id) {
        let fields =
            [Kind::Box, Kind::Thing].into_iter().flat_map(|k| [(k, "beside"), (k, "inside")]);
        let expected = fields.flat_map(|(kind, field)| {
            let found = naive.found(kind, field, &Key::Uuid(to)).into_iter();
            found.map(move |id| (kind, field, id))
        });
        assert!(read.pointing(to).eq(expected));
        let inside = naive.found(Kind::Thing, "inside", &Key::Uuid(to));
        assert!(read.referrers(Kind::Thing, "inside", to).eq(inside));
    }
}

/// Each inner list is a transaction; one that starts with `true` is refused at its end.
fn check(disk: &Disk, history: Vec<(bool, Vec<Op>)>) {
    let store = disk.open();
    let (mut naive, mut watch) = (Naive::default(), store.watch());
    let mut followed = BTreeMap::new();
    for (refuse, ops) in history {
        let mut next = naive.clone();
        let expected: Vec<Answer> = ops.iter().map(|op| next.run(op)).collect();
        let answers = store.transact(move |tx| {
            let answers: Vec<Answer> = ops.iter().map(|op| run(tx, op)).collect();
            if refuse { Err(crate::toy::refused()) } else { Ok(answers) }
        });
        if let Ok(done) = answers {
            assert_eq!(done.value, expected);
            naive = next;
        }
        assert_same(&store.snapshot(), &naive);
        while let Some(event) = watch.try_next() {
            let Event::Commit(commit) = event else { continue };
            for change in commit.changes.iter() {
                let key = (change.kind, change.id);
                let before = match &change.after {
                    Some(row) => followed.insert(key, (**row).clone()),
                    None => followed.remove(&key),
                };
                assert_eq!(before.as_ref(), change.before.as_deref());
            }
        }
        assert_eq!(followed, naive.rows);
    }
    drop(store);
    let again = disk.open();
    assert_same(&again.snapshot(), &naive);
    for (name, last) in naive.counters {
        assert_eq!(commit(&again, move |tx| tx.counter(&name)).0, last + 1);
    }
}

fn history() -> impl Strategy<Value = Vec<(bool, Vec<Op>)>> {
    prop::collection::vec((prop::bool::weighted(0.2), prop::collection::vec(op(), 0..6)), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_history_in_memory_is_what_the_naive_store_has(history in history()) {
        check(&Disk::memory(), history);
    }
}

proptest! {
    // Fewer, because each transaction waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_history_in_sqlite_is_what_the_naive_store_has(history in history()) {
        check(&Disk::sqlite(), history);
    }
}
