//! Whatever several servers do at once, it is as if one had done it all, in the order of the
//! revisions: every answer is what the naive store answers in that order.

use std::collections::BTreeMap;

use netloom_store::{Memory, Store};
use proptest::prelude::*;

use crate::{
    naive::{Answer, Naive, Op, assert_same, op, run},
    toy::{Toy, Work, batch, server},
};

/// What one server does, and whether servers learn of each other's work only by conflicts.
type Step = (usize, bool, Vec<Vec<Op>>);

fn step() -> impl Strategy<Value = Step> {
    let transaction = prop::collection::vec(op(), 1..5);
    (0..3usize, prop::bool::weighted(0.8), prop::collection::vec(transaction, 1..5))
}

/// A transaction that always writes, so that each has a revision of its own.
fn work(mut ops: Vec<Op>) -> (Vec<Op>, Work<Vec<Answer>>) {
    ops.push(Op::Count("each".to_owned()));
    let mine = ops.clone();
    (ops, Box::new(move |tx| mine.iter().map(|op| run(tx, op)).collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn transactions_of_several_servers_are_serialisable(
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let memory = Memory::new();
        let servers: Vec<Store<Toy>> = (0..3).map(|_| server(&memory)).collect();
        let mut history = BTreeMap::new();
        for (who, delayed, transactions) in steps {
            if delayed { memory.delay_log() } else { memory.show_log() }
            let (ops, works): (Vec<_>, Vec<_>) = transactions.into_iter().map(work).unzip();
            for (ops, (answers, revision)) in ops.into_iter().zip(batch(&servers[who], works)) {
                prop_assert!(history.insert(revision, (ops, answers)).is_none());
            }
        }
        let mut naive = Naive::default();
        prop_assert!(history.keys().copied().eq(1..=history.len() as u64));
        for (ops, answers) in history.values() {
            let expected: Vec<Answer> = ops.iter().map(|op| naive.run(op)).collect();
            prop_assert_eq!(answers, &expected);
        }
        memory.show_log();
        for server in servers {
            prop_assert_eq!(server.follow(), Ok(history.len() as u64));
            assert_same(&server.snapshot(), &naive);
        }
    }
}
