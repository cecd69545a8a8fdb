//! Engines by themselves: compare-and-set, log, lock, refusals.

use std::{collections::BTreeSet, fs, path::Path};

use model::Code;
use netloom_store::{CommitError, Engine, Loaded, LogError, LogRecord, Sqlite, Store};

use crate::toy::{Disk, Toy, everything, named, put, thing};

fn record(revision: u64) -> LogRecord {
    let json = format!(
        r#"{{"revision": {revision}, "counters": [["n", {revision}]], "fences": ["f"],
            "rows": [{{"kind": "Thing", "id": "00000000-0000-0000-0000-{revision:012}",
                       "value": {{"any": "thing"}}}}]}}"#
    );
    serde_json::from_str(&json).expect("a record")
}

/// Loads everything; gives how many rows there are, too.
fn load(engine: &mut dyn Engine) -> (Loaded, usize) {
    let mut rows = BTreeSet::new();
    let loaded = engine.load(&mut |row| {
        assert_eq!(row.json.get(), r#"{"any": "thing"}"#);
        assert!(rows.insert((row.kind, row.id)), "{} came twice", row.id);
        Ok(())
    });
    (loaded.expect("it loads"), rows.len())
}

fn on_both(test: impl Fn(&mut dyn Engine)) {
    for disk in [Disk::sqlite(), Disk::memory()] {
        let mut engine = disk.engine();
        load(engine.as_mut());
        test(engine.as_mut());
    }
}

fn revisions(engine: &mut dyn Engine, after: u64, limit: usize) -> Vec<u64> {
    let records = engine.read_log(after, limit).expect("the log reaches back");
    records.into_iter().map(|record| record.revision).collect()
}

#[test]
fn a_commit_on_an_old_head_writes_nothing() {
    on_both(|engine| {
        engine.commit(0, &[record(1), record(2)]).expect("the head is 0");
        let late = engine.commit(1, &[record(2)]);
        assert!(matches!(late, Err(CommitError::Conflict { head: 2 })));
        let (loaded, rows) = load(engine);
        assert_eq!((loaded.head, rows), (2, 2));
        assert_eq!(loaded.counters, [("n".to_owned(), 2)]);
    });
}

#[test]
fn a_commit_that_would_leave_a_gap_is_refused() {
    on_both(|engine| {
        for wrong in [vec![record(2)], vec![record(1), record(3)], vec![record(0)]] {
            assert!(matches!(engine.commit(0, &wrong), Err(CommitError::Failed(_))));
        }
        assert_eq!(load(engine).0.head, 0);
    });
}

#[test]
fn the_log_is_read_in_pages_and_may_be_cut() {
    on_both(|engine| {
        engine.commit(0, &(1..=9).map(record).collect::<Vec<_>>()).expect("the head is 0");
        assert_eq!(revisions(engine, 0, 4), [1, 2, 3, 4]);
        assert_eq!(revisions(engine, 4, 100), [5, 6, 7, 8, 9]);
        assert!(revisions(engine, 9, 100).is_empty());
        engine.compact(6).expect("it is cut");
        assert!(matches!(engine.read_log(5, 9), Err(LogError::Compacted)));
        assert_eq!(revisions(engine, 6, 100), [7, 8, 9]);
        engine.compact(9).expect("it is cut");
        assert!(matches!(engine.read_log(8, 9), Err(LogError::Compacted)));
        assert!(revisions(engine, 9, 100).is_empty());
        assert_eq!(load(engine).0.head, 9);
    });
}

#[test]
fn a_record_larger_than_a_piece_comes_back_whole() {
    on_both(|engine| {
        let mut big = record(1);
        big.counters = vec![("x".repeat(1_000_000), 1), ("y".to_owned(), 2)];
        engine.commit(0, &[big.clone(), record(2)]).expect("the head is 0");
        let read = engine.read_log(0, 10).expect("the log is there");
        assert_eq!((&read[0].counters, read.len()), (&big.counters, 2));
    });
}

/// Opens a file that must be refused; gives what the user is told.
fn refusal(path: &Path) -> String {
    let error = Sqlite::open(path).expect_err("it must be refused");
    assert_eq!(error.code, Code::StoreUnavailable);
    error.to_string()
}

/// Field case F30.
#[test]
fn a_file_that_another_server_has_open_is_refused_until_that_one_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.db");
    let first = Sqlite::open(&path).expect("it opens");
    let told = refusal(&path);
    assert!(told.contains("open in another process") && told.contains("stop that one"), "{told}");
    drop(first);
    Sqlite::open(&path).expect("it is free again");
}

#[test]
fn a_file_that_is_no_sound_store_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = dir.path().join("text");
    fs::write(&text, "not a database at all, but long enough to be read as one".repeat(50))
        .expect("it is written");
    assert!(refusal(&text).contains("is not a netloom store"));

    let other = dir.path().join("other.db");
    let tables = rusqlite::Connection::open(&other).expect("it opens");
    tables.execute_batch("CREATE TABLE t (x)").expect("a table");
    drop(tables);
    assert!(refusal(&other).contains("is not a netloom store"));
    let missing = dir.path().join("no/such/dir/store.db");
    assert!(refusal(&missing).contains("cannot be read or written"));
}

#[test]
fn a_store_of_another_version_is_refused() {
    let disk = Disk::sqlite();
    put(&disk.open(), thing(1, 1));
    let Disk::Sqlite(dir) = &disk else { panic!("it is SQLite") };
    let path = dir.path().join("store.db");
    let told = |version: i64| {
        let raw = rusqlite::Connection::open(&path).expect("it opens");
        raw.pragma_update(None, "user_version", version).expect("it is changed");
        drop(raw);
        refusal(&path)
    };
    let later = told(99);
    assert!(later.contains("version 99") && later.contains("start the netloom"), "{later}");
    let earlier = told(1);
    assert!(earlier.contains("version 1") && earlier.contains("begin anew"), "{earlier}");
}

#[test]
fn a_damaged_store_is_refused() {
    let disk = Disk::sqlite();
    let store = disk.open();
    for n in 0..200 {
        put(&store, thing(n, n));
    }
    drop(store);
    let Disk::Sqlite(dir) = &disk else { panic!("it is SQLite") };
    let path = dir.path().join("store.db");
    let mut bytes = fs::read(&path).expect("it is read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0xa5);
    fs::write(&path, bytes).expect("it is written");
    assert!(refusal(&path).contains("is damaged"));
}

#[test]
fn a_record_that_is_none_is_damage() {
    let disk = Disk::sqlite();
    put(&disk.open(), thing(1, 1));
    let Disk::Sqlite(dir) = &disk else { panic!("it is SQLite") };
    let path = dir.path().join("store.db");
    let raw = rusqlite::Connection::open(&path).expect("it opens");
    let sum = crc32fast::hash(&[&8_u64.to_le_bytes()[..], &2_u64.to_le_bytes(), &[0]].concat());
    raw.execute("INSERT INTO log VALUES (2, x'00', ?1)", [sum]).expect("it is added");
    drop(raw);
    let mut engine = Sqlite::open(&path).expect("its pages are sound");
    let told = engine.load(&mut |_| Ok(())).expect_err("its content is not").to_string();
    assert!(told.contains("is damaged") && told.contains("restore a backup"), "{told}");
}

/// Whatever page breaks, the store is refused, or it is the same: what was there is never lost
/// without a word.
#[test]
fn a_page_that_breaks_is_told_or_was_not_needed() {
    const PAGE_BYTES: usize = 4096;
    let disk = Disk::sqlite();
    let store = disk.open();
    for n in 0..60 {
        put(&store, named(n, &"x".repeat(40 * usize::try_from(n).expect("small"))));
    }
    let expected = everything(&store.snapshot());
    drop(store);
    let Disk::Sqlite(dir) = &disk else { panic!("it is SQLite") };
    let path = dir.path().join("store.db");
    let sound = fs::read(&path).expect("it is read");
    let (mut refused, pages) = (0, sound.len() / PAGE_BYTES);
    for page in 0..pages {
        let mut broken = sound.clone();
        broken[page * PAGE_BYTES + 200..][..PAGE_BYTES - 300].fill(0xa5);
        fs::write(&path, &broken).expect("it is written");
        let opened = Sqlite::open(&path).and_then(|it| Store::<Toy>::open(Box::new(it)));
        match opened {
            Err(error) => {
                assert_eq!(error.code, Code::StoreUnavailable, "page {page}: {error}");
                let hint = error.hint.as_deref().unwrap_or_default();
                assert!(hint.contains("restore a backup"), "page {page}: {error}");
                refused += 1;
            }
            Ok(store) => assert_eq!(everything(&store.snapshot()), expected),
        }
    }
    assert!(pages > 10 && refused * 2 > pages, "{refused} of {pages} pages were told");
    fs::write(&path, &sound).expect("it is written");
    assert_eq!(everything(&disk.open().snapshot()), expected, "nothing else was harmed");
}
