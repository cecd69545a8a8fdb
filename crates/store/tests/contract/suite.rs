//! What holds on every engine, for one server.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Poll,
    thread,
};

use model::Code;
use netloom_store::{Change, Event, Gone, HISTORY_CHANGES, Past, Read, Taken, Tx, WATCH_CAPACITY};
use uuid::Uuid;

use crate::toy::{
    Disk, Kind, Place, Toy, changed, commit, everything, id, name_holder, named, next_commit,
    next_snapshot, put, put_free, refused, thing, value,
};

macro_rules! on_every_engine {
    ($($test:ident,)*) => {
        mod sqlite { $(#[test] fn $test() { super::$test(&super::Disk::sqlite()); })* }
        mod memory { $(#[test] fn $test() { super::$test(&super::Disk::memory()); })* }
    };
}

on_every_engine! {
    a_transaction_sees_its_own_writes_and_nobody_else_does,
    a_snapshot_never_changes,
    an_error_leaves_nothing,
    a_panic_leaves_the_store_alive,
    a_claim_has_one_holder_whoever_tries_at_once,
    a_counter_never_repeats_across_threads_and_restarts,
    a_watch_tells_each_transaction_once_and_in_order,
    a_watcher_that_lags_starts_again_from_a_snapshot,
    a_watch_ends_with_the_store,
    a_watch_that_is_read_late_makes_the_state_that_there_is,
    a_follower_takes_up_where_it_was,
    a_follower_that_is_too_far_behind_is_told_and_none_misses_a_part,
    what_followed_a_restart_is_known_and_what_came_before_is_not,
    a_follower_ends_with_the_store,
    a_reopened_store_has_the_same_state,
    what_changes_nothing_makes_no_revision,
    many_rows_fit_in_a_transaction_and_no_more,
    a_transaction_whose_caller_has_left_is_finished,
    a_handle_dropped_inside_a_transaction_harms_nobody,
    a_transaction_inside_a_transaction_is_refused,
}

fn a_transaction_sees_its_own_writes_and_nobody_else_does(disk: &Disk) {
    let store = disk.open();
    let outside = store.clone();
    let ((inside, seen), _) = commit(&store, move |tx| {
        let child = Toy { inside: Some(id(9)), ..thing(1, 7) };
        put_free(tx, child);
        put_free(tx, named(3, "name"));
        let claim = Place::Name("name".to_owned());
        let taken = Taken { claim, kind: Kind::Thing, id: id(3) };
        assert_eq!(tx.put(named(2, "name")), Err(taken));
        assert_eq!(value(tx, 2), None, "a refused row is not there");
        let children: Vec<_> = tx.referrers(Kind::Thing, "inside", id(9)).collect();
        assert_eq!(children, [id(1)]);
        assert_eq!((tx.counter("n"), tx.counter("n")), (1, 2));
        (value(tx, 1), value(&outside.snapshot(), 1))
    });
    assert_eq!((inside, seen), (Some(7), None));
    assert_eq!(value(&store.snapshot(), 1), Some(7));
}

fn a_snapshot_never_changes(disk: &Disk) {
    let store = disk.open();
    put(&store, thing(1, 1));
    let old = store.snapshot();
    put(&store, thing(1, 2));
    commit(&store, |tx| {
        tx.delete(Kind::Thing, id(1));
        put_free(tx, named(2, "k"));
    });
    assert_eq!((value(&old, 1), name_holder(&old, "k"), old.revision()), (Some(1), None, 1));
    let new = store.snapshot();
    assert_eq!((value(&new, 1), name_holder(&new, "k"), new.revision()), (None, Some(id(2)), 3));
}

fn an_error_leaves_nothing(disk: &Disk) {
    let store = disk.open();
    let failed = store.transact(|tx: &mut Tx<Toy>| {
        put_free(tx, named(1, "k"));
        tx.counter("n");
        Err::<(), _>(refused())
    });
    assert_eq!(failed, Err(refused()));
    assert_eq!(everything(&store.snapshot()), []);
    assert_eq!(name_holder(&store.snapshot(), "k"), None);
    assert_eq!(store.snapshot().revision(), 0);
    assert_eq!(commit(&store, |tx| tx.counter("n")).0, 1);
}

fn a_panic_leaves_the_store_alive(disk: &Disk) {
    let store = disk.open();
    let failed = store.transact(|tx: &mut Tx<Toy>| -> model::Result<()> {
        put_free(tx, thing(1, 1));
        panic!("on purpose");
    });
    assert_eq!(failed.map_err(|error| (error.code, error.cause)).err(), {
        Some((Code::Internal, Some("on purpose".to_owned())))
    });
    put(&store, thing(2, 2));
    assert_eq!((value(&store.snapshot(), 1), value(&store.snapshot(), 2)), (None, Some(2)));
}

fn a_claim_has_one_holder_whoever_tries_at_once(disk: &Disk) {
    let store = disk.open();
    let claim_all = |me: u64| {
        let store = store.clone();
        let claim = move |key: u64| {
            let row = named(1000 * me + key, &format!("k{key}"));
            let work = move |tx: &mut Tx<Toy>| tx.put(row.clone()).is_ok();
            commit(&store, work).0
        };
        thread::spawn(move || (0..20).filter(|key| claim(*key)).collect::<Vec<u64>>())
    };
    let threads: Vec<_> = (1..=8).map(claim_all).collect();
    let won: Vec<u64> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
    assert_eq!(won.len(), 20, "each key was won once");
    assert_eq!(won.into_iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(store.snapshot().total(Kind::Thing), 20);
}

fn a_counter_never_repeats_across_threads_and_restarts(disk: &Disk) {
    let mut drawn = BTreeSet::new();
    for _ in 0..3 {
        let store = disk.open();
        let draw = |_| {
            let store = store.clone();
            let draw = move || commit(&store, |tx| tx.counter("n")).0;
            thread::spawn(move || (0..10).map(|_| draw()).collect::<Vec<u64>>())
        };
        let threads: Vec<_> = (0..4).map(draw).collect();
        for number in threads.into_iter().flat_map(|t| t.join().expect("no panic")) {
            assert!(drawn.insert(number), "{number} came twice");
        }
    }
    assert_eq!(drawn, (1..=120).collect());
}

fn a_watch_tells_each_transaction_once_and_in_order(disk: &Disk) {
    let store = disk.open();
    put(&store, thing(1, 1));
    let mut watch = store.watch();
    assert_eq!(next_snapshot(&mut watch), 1);
    put(&store, thing(2, 2));
    commit(&store, |tx| tx.counter("n"));
    commit(&store, |tx| {
        put_free(tx, thing(1, 3));
        tx.delete(Kind::Thing, id(2));
    });
    let (first, second, third) =
        (next_commit(&mut watch), next_commit(&mut watch), next_commit(&mut watch));
    assert_eq!((first.revision, changed(&first.changes)), (2, vec![id(2)]));
    assert_eq!((second.revision, changed(&second.changes)), (3, vec![]));
    assert_eq!((third.revision, changed(&third.changes)), (4, vec![id(1), id(2)]));
    let values = |row: &Option<std::sync::Arc<Toy>>| row.as_ref().map(|row| row.value);
    let told: Vec<_> =
        third.changes.iter().map(|c| (values(&c.before), values(&c.after))).collect();
    assert_eq!(told, [(Some(1), Some(3)), (Some(2), None)]);
    assert!(watch.try_next().is_none());
}

fn a_watcher_that_lags_starts_again_from_a_snapshot(disk: &Disk) {
    let store = disk.open();
    let mut watch = store.watch();
    let each = WATCH_CAPACITY as u64 / 32 + 1;
    let write = |n: u64| {
        let store = store.clone();
        thread::spawn(move || {
            for i in 1..=each {
                put(&store, thing(n, i));
            }
        })
    };
    let threads: Vec<_> = (0..32).map(write).collect();
    threads.into_iter().for_each(|t| t.join().expect("no panic"));
    assert_eq!(next_snapshot(&mut watch), 0);
    assert!(matches!(watch.next_blocking(), Some(Event::Lagged)));
    assert_eq!(next_snapshot(&mut watch), 32 * each);
    let last = put(&store, thing(1, 999));
    assert_eq!(next_commit(&mut watch).revision, last);
    assert!(watch.try_next().is_none());
}

fn a_watch_ends_with_the_store(disk: &Disk) {
    let store = disk.open();
    let mut watch = store.watch();
    put(&store, thing(1, 1));
    drop(store);
    assert_eq!(next_snapshot(&mut watch), 0);
    assert_eq!(next_commit(&mut watch).revision, 1);
    assert!(watch.next_blocking().is_none());
}

/// The rows that come of applying what was told to what there was.
fn applied(rows: &mut BTreeMap<(Kind, Uuid), Toy>, changes: &[Change<Toy>]) {
    for change in changes {
        let key = (change.kind, change.id);
        let before = match &change.after {
            Some(row) => rows.insert(key, (**row).clone()),
            None => rows.remove(&key),
        };
        assert_eq!(before.as_ref(), change.before.as_deref(), "it is told what was there");
    }
}

fn a_watch_that_is_read_late_makes_the_state_that_there_is(disk: &Disk) {
    let store = disk.open();
    let (mut watch, mut rows, mut starts) = (store.watch(), BTreeMap::new(), 0);
    // The second time it has to begin anew.
    for (round, writes) in (0_u64..).zip([WATCH_CAPACITY / 2, WATCH_CAPACITY + 10, 5]) {
        let writes = writes as u64;
        let threads = (0..8).map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                for i in 0..writes / 8 + 1 {
                    put(&store, thing((n * 7 + i) % 40, round * 1000 + i));
                    if i % 3 == 0 {
                        commit(&store, move |tx| tx.delete(Kind::Thing, id(i % 40)));
                    }
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        while let Some(event) = watch.try_next() {
            match event {
                Event::Snapshot(snapshot) => {
                    starts += 1;
                    let all = everything(&snapshot).into_iter();
                    rows = all.map(|row| ((row.kind, row.id), row)).collect();
                }
                Event::Commit(commit) => applied(&mut rows, &commit.changes),
                Event::Lagged => {}
            }
        }
        assert!(rows.values().cloned().eq(everything(&store.snapshot())), "round {round}");
    }
    assert_eq!(starts, 2);
}

fn revisions(told: Vec<Past<Toy>>) -> Vec<u64> {
    told.into_iter().map(|past| past.revision).collect()
}

fn a_follower_takes_up_where_it_was(disk: &Disk) {
    let store = disk.open();
    (1..=5).for_each(|n| _ = put(&store, thing(n, n)));
    let mut follower = store.follow_from(2).expect("it is known");
    let told = follower.try_next().expect("it is known");
    assert!(told.iter().map(|past| changed(&past.changes)).eq((3..=5).map(|n| vec![id(n)])));
    assert_eq!((follower.after(), revisions(told)), (5, vec![3, 4, 5]));
    assert!(follower.try_next().expect("it is known").is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut waits = Box::pin(follower.next());
        let is_there = std::future::poll_fn(|ctx| Poll::Ready(waits.as_mut().poll(ctx).is_ready()));
        assert!(!is_there.await, "nothing has happened");
        commit(&store, |tx| tx.counter("n"));
        let told = waits.await.expect("the store is there").expect("it is known");
        assert!(told[0].changes.is_empty(), "a counter is no row");
        assert_eq!(revisions(told), [6]);
    });
    let gone = store.follow_from(7).err().expect("nothing was at 7 yet");
    assert_eq!(gone, Gone { asked: 7, oldest: 0, newest: 6 });
}

/// The rows are as many as a transaction may have, and their revisions more than are kept.
fn a_follower_that_is_too_far_behind_is_told_and_none_misses_a_part(disk: &Disk) {
    let store = disk.open();
    let (mut slow, mut quick) = (store.follow_from(0), store.follow_from(0));
    let mut rows = BTreeMap::new();
    let many = 10_000;
    let fits = (HISTORY_CHANGES / many) as u64;
    for round in 1..=fits + 1 {
        commit(&store, move |tx| (0..many as u64).for_each(|n| put_free(tx, thing(n, round))));
        let told = quick.as_mut().expect("it is known").try_next().expect("it is quick");
        told.iter().for_each(|past| applied(&mut rows, &past.changes));
    }
    assert!(rows.into_values().eq(everything(&store.snapshot())));
    let gone = Gone { asked: 0, oldest: 1, newest: fits + 1 };
    assert_eq!(slow.as_mut().expect("it was known").try_next().err(), Some(gone.clone()));
    assert_eq!(store.follow_from(0).err(), Some(gone));
    let mut rest = store.follow_from(1).expect("what followed the oldest is known");
    let told: Vec<u64> =
        (0..fits).flat_map(|_| revisions(rest.try_next().expect("known"))).collect();
    assert_eq!(told, (2..=fits + 1).collect::<Vec<_>>(), "a large one at a time");
}

fn what_followed_a_restart_is_known_and_what_came_before_is_not(disk: &Disk) {
    let store = disk.open();
    (1..=3).for_each(|n| _ = put(&store, thing(n, n)));
    drop(store);
    let store = disk.open();
    put(&store, thing(4, 4));
    let mut follower = store.follow_from(3).expect("whoever had seen all misses nothing");
    assert_eq!(revisions(follower.try_next().expect("it is known")), [4]);
    let gone = store.follow_from(2).err().expect("who changed what is known no more");
    assert_eq!(gone, Gone { asked: 2, oldest: 3, newest: 4 });
}

fn a_follower_ends_with_the_store(disk: &Disk) {
    let store = disk.open();
    let mut follower = store.follow_from(0).expect("it is known");
    put(&store, thing(1, 1));
    drop(store);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let told = runtime.block_on(follower.next()).expect("it was there").expect("it is known");
    assert_eq!(revisions(told), [1]);
    assert!(runtime.block_on(follower.next()).is_none());
}

fn a_reopened_store_has_the_same_state(disk: &Disk) {
    let store = disk.open();
    commit(&store, |tx| {
        for n in 1..5 {
            let name = format!("name {n}");
            put_free(tx, Toy { inside: Some(id(9)), value: n, ..named(n, &name) });
        }
    });
    commit(&store, |tx| {
        tx.delete(Kind::Thing, id(2));
        put_free(tx, Toy { beside: Some(id(9)), ..thing(3, 33) });
    });
    let snapshot = store.snapshot();
    let before = (snapshot.revision(), everything(&snapshot));
    drop(store);
    let store = disk.open();
    let again = store.snapshot();
    assert_eq!((again.revision(), everything(&again)), before);
    let holders = [1, 2, 3, 4].map(|n| name_holder(&again, &format!("name {n}")));
    assert_eq!(holders, [Some(id(1)), None, None, Some(id(4))]);
    assert_eq!(again.referrers(Kind::Thing, "inside", id(9)).collect::<Vec<_>>(), [id(1), id(4)]);
    assert_eq!(again.referrers(Kind::Thing, "beside", id(9)).collect::<Vec<_>>(), [id(3)]);
}

fn what_changes_nothing_makes_no_revision(disk: &Disk) {
    let store = disk.open();
    put(&store, thing(1, 1));
    let same = commit(&store, |tx| {
        put_free(tx, thing(1, 1));
        tx.delete(Kind::Thing, id(2));
        value(tx, 1)
    });
    assert_eq!(same, (Some(1), 1));
    assert_eq!(commit(&store, |tx| tx.fence("f")).1, 2, "a fence is a write");
}

fn many_rows_fit_in_a_transaction_and_no_more(disk: &Disk) {
    let store = disk.open();
    let fill = |rows: u64| {
        move |tx: &mut Tx<Toy>| {
            (0..rows).for_each(|n| put_free(tx, thing(n, rows)));
            Ok(())
        }
    };
    let refused = store.transact(fill(25_001)).expect_err("too much at once");
    assert_eq!(refused.code, Code::OperationFailed);
    assert_eq!(store.snapshot().list(Kind::Thing).count(), 0);
    store.transact(fill(25_000)).expect("it fits");
    drop(store);
    assert_eq!(disk.open().snapshot().list(Kind::Thing).count(), 25_000);
}

fn a_transaction_whose_caller_has_left_is_finished(disk: &Disk) {
    let store = disk.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let add = |n| {
            move |tx: &mut Tx<Toy>| {
                put_free(tx, thing(n, n));
                Ok(())
            }
        };
        let done = store.transact_async(add(1)).await;
        assert_eq!(done.map(|done| done.revision), Ok(1));
        let mut leaving = Box::pin(store.transact_async(add(2)));
        let polled = std::future::poll_fn(|ctx| {
            std::task::Poll::Ready(leaving.as_mut().poll(ctx).is_ready())
        });
        // Whether it is done already is a race; that it gets done is not.
        let _ = polled.await;
    });
    drop(store);
    assert_eq!(value(&disk.open().snapshot(), 2), Some(2));
}

fn a_handle_dropped_inside_a_transaction_harms_nobody(disk: &Disk) {
    let store = disk.open();
    let mut watch = store.watch();
    let mut inner = Some(store.clone());
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let last = thread::spawn(move || {
        commit(&store, move |tx| {
            gate.recv().expect("the gate opens");
            drop(inner.take());
            put_free(tx, thing(1, 1));
        })
    });
    open.send(()).expect("the transaction waits");
    assert_eq!(last.join().expect("no panic").1, 1);
    while watch.next_blocking().is_some() {}
}

fn a_transaction_inside_a_transaction_is_refused(disk: &Disk) {
    let store = disk.open();
    let inner = store.clone();
    let (refused, _) = commit(&store, move |_| inner.transact(|_| Ok(())).err());
    assert_eq!(refused.map(|error| error.code), Some(Code::Internal));
}
