//! A process that writes to SQLite is killed at random moments, also while rows are moved from the
//! log, the log is cut and the WAL is put into the file: nothing acknowledged is lost, and what is
//! there is what the transactions up to the last one have made, exactly.
//!
//! The writer is this test binary, started again with the file's name in the environment.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use model::{Code, Error};
use netloom_store::{ClaimKey, Key, Read, Row, Sqlite, Store, Tx};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

const FILE: &str = "NETLOOM_STORE_CRASH_TEST_FILE";
const ROUNDS: u64 = 6;
const THREADS: usize = 4;
/// Rows so large that some hundred transactions fill the WAL.
const TEXT_BYTES: usize = 40_000;
/// How many rows the transactions write in turn.
const ROWS: u64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kind {
    Line,
}

/// What transaction `number` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    id: Uuid,
    number: u64,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number(u64);

impl ClaimKey for Number {
    fn next(&self) -> Option<Self> {
        Some(Number(self.0 + 1))
    }
}

impl Row for Line {
    type Kind = Kind;
    type Claim = Number;
    fn kind(&self) -> Kind {
        Kind::Line
    }
    fn id(&self) -> Uuid {
        self.id
    }
    fn index(&self) -> Vec<(&'static str, Key)> {
        Vec::new()
    }
    fn claims(&self) -> Vec<Number> {
        vec![Number(self.number)]
    }
    fn encode(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }
    fn decode(_: Kind, json: &RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(json.get())
    }
}

/// Scattered, so that neighbours in time are none in a sorted table.
fn id(number: u64) -> Uuid {
    Uuid::from_u128(
        u128::from(number % ROWS).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    )
}

/// The row that transaction `number` puts: into a place where one of another length may be.
fn line(number: u64) -> Line {
    let bytes = TEXT_BYTES / usize::try_from(number % 3 + 1).expect("it is small");
    Line { id: id(number), number, text: "x".repeat(bytes) }
}

/// The row that transaction `number` deletes.
fn gone(number: u64) -> Option<Uuid> {
    number.is_multiple_of(5).then(|| id(number / 5))
}

fn write_one(tx: &mut Tx<Line>) -> Result<u64, Error> {
    let number = tx.counter("n");
    let put = tx.put(line(number));
    put.map_err(|taken| Error::new(Code::Internal, taken.to_string()))?;
    if let Some(id) = gone(number) {
        tx.delete(Kind::Line, id);
    }
    Ok(number)
}

/// The rows after so many transactions.
fn expected(transactions: u64) -> BTreeMap<Uuid, Line> {
    let mut rows = BTreeMap::new();
    for number in 1..=transactions {
        rows.insert(id(number), line(number));
        gone(number).map(|id| rows.remove(&id));
    }
    rows
}

#[test]
fn the_child_writes_until_it_is_killed() {
    let Ok(file) = std::env::var(FILE) else { return };
    let store = Store::<Line>::open(Box::new(Sqlite::open(file).unwrap())).unwrap();
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

/// Lets the child run until it has told `lines` numbers, kills it, and gives the last of all that
/// it has told.
fn run_child(file: &Path, lines: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "the_child_writes_until_it_is_killed", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let number = |line: String| line.split_once("acknowledged ")?.1.parse::<u64>().ok();
    let mut told = told.map_while(Result::ok).filter_map(number);
    let last = AtomicU64::new(0);
    let mut hear = |number| _ = last.fetch_max(number, Ordering::Relaxed);
    told.by_ref().take(lines).for_each(&mut hear);
    child.kill().expect("it still writes");
    told.for_each(hear);
    child.wait().expect("it is gone");
    last.into_inner()
}

/// What a file holds of the log and of rows, by a connection that is not the store's.
fn tables(file: &Path) -> (i64, i64) {
    let raw = rusqlite::Connection::open(file).expect("it opens");
    let number = |query| -> i64 { raw.query_row(query, [], |row| row.get(0)).expect("a number") };
    let verdict: String =
        raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(verdict, "ok");
    (
        number("SELECT value FROM meta WHERE name = 'kept'"),
        number("SELECT coalesce(max(revision), 0) FROM log"),
    )
}

#[test]
fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.db");
    let size = || std::fs::metadata(&file).map_or(0, |file| file.len());
    let (mut acknowledged, mut moved, mut checkpointed, mut round) = (0, 0, 0, 0);
    // On a fast machine a child may be gone before it has done both: the later ones live longer.
    while round < ROUNDS || (round < 5 * ROUNDS && (moved == 0 || checkpointed == 0)) {
        round += 1;
        // Scattered, and the same in every run; what the kill hits is left to the machine.
        let lines = usize::try_from((round * 7919 % 997) * (1 + round / ROUNDS)).unwrap() + 1;
        let before = size();
        acknowledged = acknowledged.max(run_child(&file, lines));
        checkpointed += u32::from(size() > before);
        let snapshot =
            Store::<Line>::open(Box::new(Sqlite::open(&file).unwrap())).unwrap().snapshot();
        let reached = snapshot.revision();
        assert!(reached >= acknowledged, "{acknowledged} were acknowledged, {reached} are there");
        let rows = snapshot.list(Kind::Line).map(|row| (row.id, (*row).clone()));
        assert!(rows.eq(expected(reached)), "round {round}, after {reached} transactions");
        let (kept, head) = tables(&file);
        assert!(head == i64::try_from(reached).unwrap() && kept <= head);
        moved += u32::from(0 < kept && kept < head);
    }
    assert!(acknowledged > 12, "the child did write");
    assert!(moved > 0 && checkpointed > 0, "the kills hit more than commits");
    println!("{moved} of {round} kills while rows were moved, {checkpointed} after a checkpoint");
}
