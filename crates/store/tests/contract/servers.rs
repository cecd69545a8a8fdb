//! Several servers on one engine, with everything that may go wrong between them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use model::Code;
use netloom_store::{Engine, Event, Gone, Memory, Read, Store, Tx, engine::memory::Fault};

use crate::toy::{
    Kind, Place, Toy, batch, changed, commit, everything, id, name_holder, named, next_commit,
    next_snapshot, put, put_free, server, thing, value,
};

/// Two servers; neither sees what the other does from now on, until it meets a conflict.
fn apart() -> (Memory, Store<Toy>, Store<Toy>) {
    let memory = Memory::new();
    let (a, b) = (server(&memory), server(&memory));
    memory.delay_log();
    (memory, a, b)
}

/// Puts row `n` with the value of row `of` plus one; counts its runs.
fn increment(n: u64, of: u64) -> (Arc<AtomicU32>, impl FnMut(&mut Tx<Toy>) -> u64 + Send) {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let work = move |tx: &mut Tx<Toy>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let next = value(tx, of).unwrap_or(0) + 1;
        put_free(tx, thing(n, next));
        next
    };
    (runs, work)
}

#[test]
fn what_others_have_not_touched_is_kept_and_moved() {
    let (_, a, b) = apart();
    put(&a, thing(1, 1));
    let (runs, work) = increment(2, 3);
    assert_eq!(commit(&b, work), (1, 2));
    assert_eq!(runs.load(Ordering::Relaxed), 1, "it need not run again");
    assert_eq!(value(&b.snapshot(), 1), Some(1));
}

#[test]
fn what_others_have_touched_runs_again_on_the_new_state() {
    let (_, a, b) = apart();
    put(&a, thing(1, 10));
    let (runs, work) = increment(2, 1);
    assert_eq!(commit(&b, work), (11, 2));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[test]
fn a_repeated_transaction_repeats_those_that_rest_on_it() {
    let (_, a, b) = apart();
    put(&a, thing(1, 10));
    let (first, work_first) = increment(1, 1);
    let (second, work_second) = increment(2, 1);
    let (other, work_other) = increment(3, 3);
    let done = batch(&b, vec![Box::new(work_first), Box::new(work_second), Box::new(work_other)]);
    assert_eq!(done, [(11, 2), (12, 3), (1, 4)]);
    let runs = [first, second, other].map(|runs| runs.load(Ordering::Relaxed));
    assert_eq!(runs, [2, 2, 1], "only the third one could be kept");
}

#[test]
fn what_a_repeated_transaction_no_longer_writes_repeats_those_that_saw_it() {
    let (_, a, b) = apart();
    put(&a, thing(1, 10));
    let first = |tx: &mut Tx<Toy>| {
        if value(tx, 1).is_none() {
            put_free(tx, thing(2, 5));
        }
        0
    };
    let (_, second) = increment(3, 2);
    let done = batch(&b, vec![Box::new(first), Box::new(second)]);
    assert_eq!(done, [(0, 1), (1, 2)], "row 2 was never there");
    assert_eq!(value(&b.snapshot(), 2), None);
}

#[test]
fn what_a_repeated_transaction_newly_writes_repeats_those_that_did_not_see_it() {
    let (_, a, b) = apart();
    put(&a, thing(1, 10));
    let first = |tx: &mut Tx<Toy>| {
        if value(tx, 1).is_some() {
            put_free(tx, thing(2, 5));
        }
        0
    };
    let (_, second) = increment(3, 2);
    assert_eq!(batch(&b, vec![Box::new(first), Box::new(second)]), [(0, 2), (6, 3)]);
}

#[test]
fn what_is_written_unseen_is_written_in_the_order_of_revisions() {
    let blind: [fn(&mut Tx<Toy>); 2] =
        [|tx| tx.delete(Kind::Thing, id(1)), |tx| put_free(tx, thing(1, 2))];
    for (work, rows) in blind.into_iter().zip([vec![], vec![thing(1, 2)]]) {
        let (_, a, b) = apart();
        put(&a, named(1, "k"));
        assert_eq!(commit(&b, move |tx| (work(tx), tx.fence("other")).0).1, 2);
        let snapshot = b.snapshot();
        assert_eq!((everything(&snapshot), name_holder(&snapshot, "k")), (rows, None));
    }
}

#[test]
fn a_server_that_finds_the_log_cut_while_it_commits_repeats_everything() {
    let memory = Memory::new();
    let (a, b) = (server(&memory), server(&memory));
    let (_, mut work) = increment(2, 1);
    let mut before_commit = Some(move || {
        put(&a, thing(1, 10));
        memory.clone().compact(1).expect("it is cut");
    });
    let slow = move |tx: &mut Tx<Toy>| {
        let number = work(tx);
        before_commit.take().into_iter().for_each(|meanwhile| meanwhile());
        number
    };
    assert_eq!(commit(&b, slow), (11, 2));
}

/// Adds a child to box 9 unless it has one; gives whether it did.
fn only_child(n: u64, fenced: bool) -> impl FnMut(&mut Tx<Toy>) -> bool + Send {
    move |tx| {
        if fenced {
            tx.fence("box 9");
        }
        let empty = tx.referrers(Kind::Thing, "inside", id(9)).next().is_none();
        if empty {
            put_free(tx, Toy { inside: Some(id(9)), ..thing(n, 0) });
        }
        empty
    }
}

#[test]
fn a_fence_protects_what_two_transactions_could_both_think_true() {
    let (_, a, b) = apart();
    assert!(commit(&a, only_child(1, true)).0);
    assert!(!commit(&b, only_child(2, true)).0);
}

#[test]
fn without_a_fence_sets_are_not_protected() {
    let (_, a, b) = apart();
    assert!(commit(&a, only_child(1, false)).0);
    assert!(commit(&b, only_child(2, false)).0, "the suite does see a forgotten fence");
}

#[test]
fn claims_are_exclusive_and_counters_unique_between_servers() {
    let (_, a, b) = apart();
    put(&a, named(1, "k"));
    let (taken, _) = commit(&b, |tx| tx.put(named(2, "k")));
    assert_eq!(taken.map_err(|taken| taken.id), Err(id(1)));
    let (_, a, b) = apart();
    assert_eq!(commit(&a, |tx| tx.counter("n")).0, 1);
    assert_eq!(commit(&b, |tx| tx.counter("n")).0, 2);
}

#[test]
fn a_refusal_does_not_outlive_the_claim_that_caused_it() {
    let memory = Memory::new();
    let (a, b) = (server(&memory), server(&memory));
    put(&a, named(1, "k"));
    assert_eq!(b.follow(), Ok(1));
    memory.delay_log();
    commit(&a, |tx| tx.delete(Kind::Thing, id(1)));
    let again = |tx: &mut Tx<Toy>| (tx.put(named(2, "k")).is_ok(), tx.fence("written")).0;
    assert_eq!(commit(&b, again), (true, 3), "b ran on a state in which row 1 held it");
}

#[test]
fn a_claim_passes_between_rows_in_either_order_of_their_ids() {
    for (from, to) in [(1, 2), (2, 1)] {
        let memory = Memory::new();
        let (a, b) = (server(&memory), server(&memory));
        put(&a, named(from, "k"));
        commit(&a, move |tx| {
            put_free(tx, thing(from, 7));
            put_free(tx, named(to, "k"));
        });
        assert_eq!(b.follow(), Ok(2), "it takes both rows from the log");
        for store in [&a, &b, &server(&memory)] {
            assert_eq!(name_holder(&store.snapshot(), "k"), Some(id(to)));
        }
    }
}

#[test]
fn what_is_free_first_is_given_to_one_server_only() {
    let (_, a, b) = apart();
    let take = |n: u64| {
        move |tx: &mut Tx<Toy>| {
            let free = tx.first_free(&Place::Number(0, 0)).expect("the line is not full");
            put_free(tx, Toy { places: vec![free.clone()], ..thing(n, 0) });
            free
        }
    };
    assert_eq!(commit(&a, take(1)).0, Place::Number(0, 0));
    assert_eq!(commit(&b, take(2)).0, Place::Number(0, 1));
}

#[test]
fn a_stored_state_in_which_two_rows_hold_one_claim_is_refused() {
    let memory = Memory::new();
    let store = server(&memory);
    put(&store, named(1, "k"));
    let row = netloom_store::RowChange {
        kind: "Thing".to_owned(),
        id: id(2),
        value: Some(netloom_store::Row::encode(&named(2, "k")).expect("it is JSON")),
    };
    let (counters, fences) = (vec![], vec![]);
    let forged = netloom_store::LogRecord { revision: 2, rows: vec![row], counters, fences };
    memory.clone().commit(1, &[forged]).expect("engines know nothing of claims");
    let told = store.follow().expect_err("the log is unsound");
    assert_eq!(told.code, Code::StoreUnavailable);
    let told = Store::<Toy>::open(Box::new(memory)).err().expect("the state is unsound");
    assert!(told.message.contains("is damaged") && told.message.contains("same claim"), "{told}");
}

#[test]
fn servers_with_interleaved_writes_converge() {
    let memory = Memory::new();
    let servers: Vec<_> = (0..3).map(|_| server(&memory)).collect();
    let write = |(n, store): (u64, &Store<Toy>)| {
        let store = store.clone();
        let once = move |i: u64| {
            let work = move |tx: &mut Tx<Toy>| {
                let number = tx.counter("n");
                put_free(tx, thing(i, number));
                put_free(tx, thing(1000 + number, n));
                let _ = tx.put(Toy { kind: Kind::Box, ..named(1000 * n + i, &format!("k{i}")) });
                number
            };
            commit(&store, work).0
        };
        thread::spawn(move || (0..60).map(once).collect::<Vec<u64>>())
    };
    let threads: Vec<_> = (1..).zip(servers.iter()).map(write).collect();
    let numbers: Vec<u64> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 180, "no number came twice");
    let states = servers.iter().map(|store| {
        assert_eq!(store.follow(), Ok(180));
        everything(&store.snapshot())
    });
    let states: Vec<_> = states.collect();
    assert!(states.iter().all(|state| *state == states[0]));
    assert_eq!(everything(&server(&memory).snapshot()), states[0]);
}

#[test]
fn a_watch_tells_other_servers_transactions_late_but_once_and_in_order() {
    let (memory, a, b) = apart();
    let mut watch = b.watch();
    assert_eq!(next_snapshot(&mut watch), 0);
    put(&a, thing(1, 1));
    put(&a, thing(2, 2));
    assert_eq!(b.follow(), Ok(0));
    assert!(watch.try_next().is_none());
    memory.show_log();
    put(&b, thing(3, 3));
    let told: Vec<_> = (0..3).map(|_| next_commit(&mut watch)).collect();
    assert!(told.iter().map(|commit| commit.revision).eq(1..=3));
    assert!(told.iter().map(|commit| changed(&commit.changes)).eq((1..=3).map(|n| vec![id(n)])));
    assert!(watch.try_next().is_none());
}

#[test]
fn an_idle_server_follows_by_itself() {
    let memory = Memory::new();
    let idle = server(&memory.clone().following_every(Duration::from_millis(1)));
    let mut watch = idle.watch();
    assert_eq!(next_snapshot(&mut watch), 0);
    put(&server(&memory), thing(1, 1));
    assert_eq!(next_commit(&mut watch).revision, 1);
}

#[test]
fn a_server_for_which_the_log_is_too_short_loads_the_state_anew() {
    let (memory, a, b) = apart();
    let mut watch = b.watch();
    assert_eq!(next_snapshot(&mut watch), 0);
    for n in 1..=5 {
        put(&a, thing(1, n));
    }
    memory.clone().compact(3).expect("it is cut");
    let (runs, work) = increment(2, 1);
    assert_eq!(commit(&b, work), (6, 6));
    assert_eq!(runs.load(Ordering::Relaxed), 1, "the gap shows before anything runs");
    assert!(matches!(watch.next_blocking(), Some(Event::Lagged)));
    assert_eq!(next_snapshot(&mut watch), 6);
}

#[test]
fn a_follower_is_told_other_servers_transactions_late_but_once_and_in_order() {
    let (memory, a, b) = apart();
    let mut follower = b.follow_from(0).expect("it is known");
    (1..=100).for_each(|n| _ = put(&a, thing(n, n)));
    assert_eq!(b.follow(), Ok(0));
    assert!(follower.try_next().expect("it is known").is_empty());
    memory.show_log();
    put(&b, thing(101, 1));
    let mut told = Vec::new();
    while told.len() < 101 {
        told.extend(follower.try_next().expect("it is known"));
    }
    assert!(told.iter().map(|past| past.revision).eq(1..=101));
    assert!(told.iter().map(|past| changed(&past.changes)).eq((1..=101).map(|n| vec![id(n)])));
}

#[test]
fn a_follower_of_a_server_that_had_to_load_anew_is_told_and_goes_on_from_there() {
    let (memory, a, b) = apart();
    let mut follower = b.follow_from(0).expect("it is known");
    (1..=5).for_each(|n| _ = put(&a, thing(1, n)));
    memory.clone().compact(3).expect("it is cut");
    memory.show_log();
    assert_eq!(b.follow(), Ok(5));
    let gone = Gone { asked: 0, oldest: 5, newest: 5 };
    assert_eq!(follower.try_next().err(), Some(gone));
    let mut again = b.follow_from(5).expect("from there on");
    put(&a, thing(2, 2));
    assert_eq!(b.follow(), Ok(6));
    assert_eq!(again.try_next().expect("it is known")[0].revision, 6);
    let mut known = a.follow_from(0).expect("the other one has seen it all").try_next();
    assert_eq!(known.as_mut().map(|told| told.len()), Ok(6));
}

fn failing_put(store: &Store<Toy>) -> model::Result<netloom_store::Committed<()>> {
    store.transact(|tx| {
        put_free(tx, thing(1, 1));
        Ok(())
    })
}

#[test]
fn a_commit_that_fails_before_it_is_applied_leaves_nothing() {
    let memory = Memory::new();
    let store = server(&memory);
    memory.inject(Fault::FailBefore);
    let failed = failing_put(&store).expect_err("the fault");
    assert_eq!(failed.code, Code::StoreUnavailable);
    assert_eq!(everything(&store.snapshot()), []);
    let (_, work) = increment(1, 1);
    assert_eq!(commit(&store, work), (1, 1));
}

#[test]
fn a_commit_that_fails_after_it_is_applied_is_found_out() {
    let memory = Memory::new();
    let store = server(&memory);
    let mut watch = store.watch();
    assert_eq!(next_snapshot(&mut watch), 0);
    memory.inject(Fault::FailAfter);
    let failed = store.transact(|tx| {
        let number = tx.counter("n");
        put_free(tx, thing(1, number));
        Ok(())
    });
    let failed = failed.expect_err("the fault");
    assert_eq!(failed.code, Code::StoreUnavailable);
    assert!(failed.message.contains("may have happened"), "{failed}");
    assert_eq!(value(&store.snapshot(), 1), Some(1), "whoever looks sees it");
    assert_eq!(commit(&store, |tx| tx.counter("n")), (2, 2));
    assert_eq!(next_commit(&mut watch).revision, 1);
    assert_eq!(next_commit(&mut watch).revision, 2);
    assert!(watch.try_next().is_none(), "watchers are told once");
}

#[test]
fn a_store_that_is_cut_off_refuses_and_recovers() {
    let memory = Memory::new();
    let (store, other) = (server(&memory), server(&memory));
    memory.cut();
    let failed = failing_put(&store).expect_err("cut off");
    assert_eq!(failed.code, Code::StoreUnavailable);
    assert!(store.follow().is_err());
    memory.mend();
    put(&other, thing(1, 5));
    let (_, work) = increment(1, 1);
    assert_eq!(commit(&store, work), (6, 2));
}

#[test]
fn a_batch_that_always_loses_is_given_up() {
    let memory = Memory::new();
    let store = server(&memory);
    (0..100).for_each(|_| memory.inject(Fault::Conflict));
    let failed = failing_put(&store).expect_err("only conflicts");
    assert_eq!(failed.code, Code::StoreUnavailable);
    assert!(failed.message.contains("nothing was changed"), "{failed}");
    assert_eq!(put(&store, thing(1, 1)), 1);
}
