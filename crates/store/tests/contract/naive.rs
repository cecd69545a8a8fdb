//! Random histories against the plainest store that one can write.

use std::collections::{BTreeMap, BTreeSet};

use netloom_store::{Event, Read, Row, Tx};
use proptest::prelude::*;
use uuid::Uuid;

use crate::toy::{Disk, Kind, Toy, commit, everything, id};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(Toy),
    Delete(Kind, Uuid),
    Claim(String, Uuid),
    Release(String),
    Count(String),
    /// How many rows point at this one. Fenced, as every change of a row is.
    Children(Kind, Uuid),
    Get(Kind, Uuid),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Naive {
    pub(crate) rows: BTreeMap<(Kind, Uuid), Toy>,
    pub(crate) claims: BTreeMap<String, Uuid>,
    counters: BTreeMap<String, u64>,
}

impl Naive {
    /// What the operation answers: the number of a counter, whether a claim was free.
    pub(crate) fn run(&mut self, op: &Op) -> u64 {
        match op {
            Op::Put(row) => drop(self.rows.insert((row.kind, row.id), row.clone())),
            Op::Delete(kind, id) => drop(self.rows.remove(&(*kind, *id))),
            Op::Claim(key, owner) => {
                return u64::from(self.claims.entry(key.clone()).or_insert(*owner) == owner);
            }
            Op::Release(key) => drop(self.claims.remove(key)),
            Op::Count(name) => {
                let last = self.counters.entry(name.clone()).or_default();
                *last += 1;
                return *last;
            }
            Op::Children(kind, parent) => {
                return self.children(*kind, "inside", *parent).len() as u64;
            }
            Op::Get(kind, id) => {
                return self.rows.get(&(*kind, *id)).map_or(0, |row| row.value + 1);
            }
        }
        0
    }

    fn children(&self, kind: Kind, field: &str, parent: Uuid) -> Vec<Uuid> {
        let of = |row: &Toy| if field == "inside" { row.inside } else { row.beside };
        let rows = self.rows.iter().filter(|((k, _), row)| *k == kind && of(row) == Some(parent));
        rows.map(|((_, id), _)| *id).collect()
    }
}

/// Moves the fence of every row that this one points at.
fn fence_parents(tx: &mut Tx<Toy>, row: &Toy) {
    for (_, parent) in row.references() {
        tx.fence(&parent.to_string());
    }
}

pub(crate) fn run(tx: &mut Tx<Toy>, op: &Op) -> u64 {
    if let Op::Put(Toy { kind, id, .. }) | Op::Delete(kind, id) = op
        && let Some(old) = tx.get(*kind, *id)
    {
        fence_parents(tx, &old);
    }
    match op {
        Op::Put(row) => {
            fence_parents(tx, row);
            tx.put(row.clone());
        }
        Op::Delete(kind, id) => tx.delete(*kind, *id),
        Op::Claim(key, owner) => return u64::from(tx.claim(key, *owner).is_ok()),
        Op::Release(key) => tx.release_claim(key),
        Op::Count(name) => return tx.counter(name),
        Op::Children(kind, parent) => {
            tx.fence(&parent.to_string());
            return tx.referrers(*kind, "inside", *parent).count() as u64;
        }
        Op::Get(kind, id) => return tx.get(*kind, *id).map_or(0, |row| row.value + 1),
    }
    0
}

fn small_id() -> impl Strategy<Value = Uuid> {
    (0..6u64).prop_map(id)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Box), Just(Kind::Thing)]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let row =
        (kind(), small_id(), prop::option::of(small_id()), prop::option::of(small_id()), 0..3u64)
            .prop_map(|(kind, id, inside, beside, value)| Toy { kind, id, inside, beside, value });
    prop_oneof![
        4 => row.prop_map(Op::Put),
        2 => (kind(), small_id()).prop_map(|(kind, id)| Op::Delete(kind, id)),
        2 => ("[ab][12]?", small_id()).prop_map(|(key, owner)| Op::Claim(key, owner)),
        1 => "[ab][12]?".prop_map(Op::Release),
        1 => "[nm]".prop_map(Op::Count),
        1 => (kind(), small_id()).prop_map(|(kind, id)| Op::Children(kind, id)),
        2 => (kind(), small_id()).prop_map(|(kind, id)| Op::Get(kind, id)),
    ]
}

pub(crate) fn assert_same(read: &impl Read<Toy>, naive: &Naive) {
    let (rows, claims) = everything(read);
    assert_eq!(rows, naive.rows.values().cloned().collect::<Vec<_>>());
    assert_eq!(claims, naive.claims.clone().into_iter().collect::<Vec<_>>());
    for parent in (0..6).map(id) {
        for (kind, field) in
            [(Kind::Box, "inside"), (Kind::Thing, "inside"), (Kind::Thing, "beside")]
        {
            let found: Vec<Uuid> = read.referrers(kind, field, parent).collect();
            assert_eq!(found, naive.children(kind, field, parent));
        }
    }
    let with_a: BTreeSet<String> = read.claims_with_prefix("a").map(|(key, _)| key).collect();
    assert!(naive.claims.keys().filter(|key| key.starts_with('a')).eq(&with_a));
}

/// Each inner list is a transaction; one that starts with `true` is refused at its end.
fn check(disk: &Disk, history: Vec<(bool, Vec<Op>)>) {
    let store = disk.open();
    let (mut naive, mut watch) = (Naive::default(), store.watch());
    let mut followed = BTreeMap::new();
    for (refuse, ops) in history {
        let mut next = naive.clone();
        let expected: Vec<u64> = ops.iter().map(|op| next.run(op)).collect();
        let answers = store.transact(move |tx| {
            let answers: Vec<u64> = ops.iter().map(|op| run(tx, op)).collect();
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
