//! A process that writes to SQLite is killed at random moments: nothing acknowledged is lost.
//!
//! The writer is this test binary, started again with the file's name in the environment.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use model::{Error, Id, Kind, Record, Resource, Timestamp, resource::release::Release};
use netloom_store::{Read, Sqlite, Store, Tx};
use uuid::Uuid;

const FILE: &str = "NETLOOM_STORE_CRASH_TEST_FILE";
const ROUNDS: u64 = 12;
const THREADS: usize = 4;

fn release(number: u64) -> Release {
    Release {
        uuid: Id::new(Uuid::from_u128(number.into())),
        l2_network_uuid: Id::new(Uuid::nil()),
        claims: Vec::new(),
        hosts: Vec::new(),
        create_date: Timestamp(0),
    }
}

fn write_one(tx: &mut Tx<Record>) -> Result<u64, Error> {
    let number = tx.counter("n");
    tx.claim(&format!("k{number}"), Uuid::nil()).expect("its number is its own");
    tx.put(release(number).into_record());
    Ok(number)
}

#[test]
fn the_child_writes_until_it_is_killed() {
    let Ok(file) = std::env::var(FILE) else { return };
    let store = Store::<Record>::open(Box::new(Sqlite::open(file).unwrap())).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let store = store.clone();
            thread::spawn(move || {
                loop {
                    let number = store.transact(write_one).unwrap().value;
                    writeln!(std::io::stdout().lock(), "acknowledged {number}").unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Lets the child run until it has told `lines` numbers, kills it, and gives all that it has told.
fn run_child(file: &Path, lines: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "the_child_writes_until_it_is_killed", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let number = |line: String| line.split_once("acknowledged ")?.1.parse::<u64>().ok();
    let mut told = told.map_while(Result::ok).filter_map(number);
    let mut acknowledged: Vec<u64> = told.by_ref().take(lines).collect();
    child.kill().expect("it still writes");
    acknowledged.extend(told);
    child.wait().expect("it is gone");
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.db");
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        // Scattered, and the same in every run; what the kill hits is left to the machine.
        let lines = usize::try_from(round * 7919 % 97).unwrap() + 1;
        for number in run_child(&file, lines) {
            assert!(acknowledged.insert(number), "{number} was given out twice");
        }
        let snapshot = Store::open(Box::new(Sqlite::open(&file).unwrap())).unwrap().snapshot();
        for number in &acknowledged {
            let row = snapshot.get(Kind::Release, release(*number).uuid.uuid());
            assert_eq!(row.as_deref(), Some(&release(*number).into_record()), "round {round}");
            assert!(snapshot.claim_owner(&format!("k{number}")).is_some());
        }
        let raw = rusqlite::Connection::open(&file).unwrap();
        let verdict: String =
            raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }
    assert!(acknowledged.len() > 12, "the child did write");
}
