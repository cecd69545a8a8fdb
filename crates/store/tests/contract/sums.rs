//! Checksums: what has changed on the disk is told, though SQLite finds the file sound.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::{fs, path::Path};

use model::{Code, Error};
use netloom_store::{Engine, LogRecord, Read, RowChange, Sqlite, Store};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::toy::{Kind, Toy, id, put, thing};

/// Rows in their table and rows only in the log, a counter, and a log that is kept.
fn written() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut engine = Sqlite::open(&path).unwrap();
    let row = |n: u64| RowChange {
        kind: "Thing".to_owned(),
        id: id(n),
        value: Some(serde_json::value::to_raw_value(&thing(n, 0x7e57_0000 + n)).unwrap()),
    };
    let record = |revision: u64| LogRecord {
        revision,
        rows: vec![row(revision)],
        counters: vec![("c".to_owned(), revision)],
        fences: vec![],
    };
    let records: Vec<LogRecord> = (1..=20).map(record).collect();
    engine.commit(0, &records).unwrap();
    let kept = Connection::open(&path).unwrap();
    let is_kept = || {
        let query = "SELECT value = 20 FROM meta WHERE name = 'kept'";
        kept.query_row(query, [], |row| row.get::<_, bool>(0)).unwrap()
    };
    while !is_kept() {
        std::thread::yield_now();
    }
    drop(kept);
    drop(engine);
    // Into one file, which is looked at as it is.
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "journal_mode", "DELETE").unwrap();
    dir
}

fn open(path: &Path) -> Result<Store<Toy>, Error> {
    Store::open(Box::new(Sqlite::open(path)?))
}

fn is_sound(path: &Path) -> bool {
    let raw = Connection::open(path).unwrap();
    let verdict: String = raw.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    verdict == "ok"
}

fn check_refused(path: &Path, names: &str) {
    assert!(is_sound(path), "SQLite finds nothing");
    let error = open(path).map(|_| ()).expect_err(names);
    assert_eq!(error.code, Code::StoreUnavailable);
    let text = error.to_string();
    assert!(text.contains(names) && text.contains("restore a backup"), "{text}");
}

#[test]
fn a_byte_that_has_changed_inside_of_a_row_is_told_with_its_table_and_id() {
    let dir = written();
    let path = dir.path().join("store.db");
    open(&path).map(|_| ()).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "DELETE").unwrap();
    let bytes = fs::read(&path).unwrap();
    let value = (0x7e57_0000_u64 + 7).to_string();
    let places =
        (0..bytes.len() - value.len()).filter(|at| bytes[*at..].starts_with(value.as_bytes()));
    let mut told = Vec::new();
    for at in places {
        let mut changed = bytes.clone();
        // A digit stays one.
        changed[at + value.len() - 1] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(is_sound(&path));
        match open(&path) {
            Err(error) => told.push(error.to_string()),
            // It was in a place that is free again.
            Ok(store) => {
                let row = store.snapshot().get(Kind::Thing, id(7)).unwrap();
                assert_eq!(row.value.to_string(), value);
            }
        }
    }
    assert_eq!(told.len(), 2, "in the log and in its table: {told:?}");
    told.sort();
    assert!(told[0].contains("the record of revision 7 in the table log"), "{told:?}");
    let row = format!("the row Thing {} of the table rows", id(7).simple());
    assert!(told[1].contains(&row), "{told:?}");
    fs::write(&path, &bytes).unwrap();
    let store = open(&path).unwrap();
    assert_eq!(store.snapshot().total(Kind::Thing), 20);
}

#[test]
fn whatever_column_has_changed_is_told_with_its_row() {
    for (change, names) in [
        ("UPDATE counters SET last = last + 1", "the row c of the table counters"),
        ("UPDATE counters SET name = 'd'", "the row d of the table counters"),
        ("UPDATE meta SET value = value - 1", "the row kept of the table meta"),
        ("UPDATE rows SET kind = 'Other' WHERE slot = 3", "the row Other"),
        ("UPDATE rows SET id = x'00' WHERE slot = 3", "the row Thing ?"),
        ("UPDATE rows SET json = x'00ff' WHERE slot = 3", "of the table rows"),
        ("UPDATE rows SET sum = NULL WHERE slot = 3", "of the table rows"),
        ("UPDATE log SET revision = 30 WHERE revision = 20", "of revision 30 in the table log"),
        ("UPDATE log SET sum = sum + 1 WHERE revision = 1", "of revision 1 in the table log"),
    ] {
        let dir = written();
        let path = dir.path().join("store.db");
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        check_refused(&path, names);
    }
}

/// Files of the version before have no checksums; a start adds them.
#[test]
fn a_file_without_checksums_is_opened_and_has_them_from_then_on() {
    let dir = written();
    let path = dir.path().join("store.db");
    let raw = Connection::open(&path).unwrap();
    let before = "ALTER TABLE meta DROP COLUMN sum; ALTER TABLE log DROP COLUMN sum;
                  ALTER TABLE rows DROP COLUMN sum; ALTER TABLE counters DROP COLUMN sum;
                  PRAGMA user_version = 2;";
    raw.execute_batch(before).unwrap();
    drop(raw);
    let copy = dir.path().join("copy.db");
    Sqlite::copy(&path, &copy).expect("a backup can be made of it");
    for path in [&path, &copy] {
        let store = open(path).unwrap();
        assert_eq!(store.snapshot().total(Kind::Thing), 20);
        put(&store, thing(30, 1));
        drop(store);
        let store = open(path).unwrap();
        assert_eq!(store.snapshot().total(Kind::Thing), 21);
        drop(store);
        let raw = Connection::open(path).unwrap();
        raw.execute_batch("UPDATE rows SET json = replace(json, '7', '8') WHERE slot = 9").unwrap();
        drop(raw);
        check_refused(path, "of the table rows");
    }
}
