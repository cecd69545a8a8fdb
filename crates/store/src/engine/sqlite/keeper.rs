//! The keeper: a thread that copies committed changes from the log into the tables, after the
//! commit.
//!
//! A commit is durable once it is in the log. The keeper does what may come later: it copies rows
//! and counters into their tables, so that the log may be cut and a start is quick, and it copies
//! the WAL into the file (a checkpoint), so that the WAL may be reused. It works in slices of about
//! a millisecond, since SQLite has one writer at a time, and pauses after each slice for as long as
//! the slice took. It reads the log from the file, so its backlog takes no memory. It may be
//! stopped anywhere: a slice is one transaction, and rows that are newer than the revision `kept`
//! are overwritten with what the log says.
//!
//! **When it cannot keep up**, commits wait for it (see [`Shared::wait_for_keeper`]): they become
//! slower, and the backlog stays near its limit. **When it cannot write** (a full disk), commits go
//! on for as long as they fit, without waiting for it. That is logged once and tried again each
//! second; that it works again is logged, too.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::value::RawValue;

use super::{
    file::failed,
    progress::{Progress, Shared},
    tables::{self, Net, RowKey},
};

/// How long the keeper lets changes gather: a row that changes again by then is moved once.
const GATHER: Duration = Duration::from_millis(500);
/// How long one slice may keep the writer waiting, about.
const SLICE: Duration = Duration::from_millis(1);
/// About how much of the log is moved at once.
const MOVE_BYTES: u64 = 4 << 20;
/// After how many more pages of 4 KiB the WAL goes into the file: a page that changes often in
/// between is written once.
const CHECKPOINT_PAGES: u64 = 4_000;
/// How long the WAL may become before the writer has to wait for it to begin again.
const WAL_MAX_PAGES: u64 = 16_000;
/// How much of the log is kept at most, however many or few revisions that is.
const LOG_MAX_BYTES: u64 = 64 << 20;
/// After how much more log its length is looked at again.
const LOG_GROWTH_BYTES: u64 = 8 << 20;
/// How many records of the log are cut at once.
const CUT_RECORDS: u64 = 128;

/// The thread's own.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    connection: Connection,
    shared: Arc<Shared>,
    /// Where each row lies; `None`: to be read from the file.
    slots: Option<Slots>,
    /// By how much the log has grown since its length was looked at.
    grown_bytes: u64,
    /// How long the WAL was when it was put into the file.
    checkpointed_pages: u64,
    slice: Duration,
}

/// Finds a row's place; tables are numbered, to take less room.
#[derive(Debug, Default)]
struct Slots {
    kinds: HashMap<String, u16>,
    slots: HashMap<(u16, uuid::Uuid), i64>,
}

/// The keeper shall end; a part of its work may be left.
#[derive(Debug, PartialEq)]
struct Stopped;

type Step<T> = Result<Result<T, Stopped>, rusqlite::Error>;

impl Keeper {
    pub(super) fn new(
        path: PathBuf,
        mut connection: Connection,
        shared: Arc<Shared>,
    ) -> rusqlite::Result<Self> {
        shared.measure_wal(&mut connection)?;
        Ok(Self {
            path,
            connection,
            shared,
            slots: None,
            grown_bytes: LOG_GROWTH_BYTES,
            checkpointed_pages: 0,
            slice: SLICE,
        })
    }

    /// Works until the store is closed.
    pub(super) fn run(mut self) {
        loop {
            if self.shared.wait_while(Progress::idle) || self.shared.pause(GATHER) {
                return;
            }
            let worked = self.work();
            self.tell(worked.as_ref().err());
            if matches!(worked, Ok(Err(Stopped))) {
                return;
            }
            if worked.is_err() {
                // What has been rolled back may have taken new places along.
                self.slots = None;
                if self.shared.wait_for_retry() {
                    return;
                }
            }
        }
    }

    /// Logs when it begins to fail and when it works again, not each time.
    fn tell(&self, error: Option<&rusqlite::Error>) {
        let failing = error.is_some();
        let before = std::mem::replace(&mut self.shared.progress().failing, failing);
        match error {
            Some(error) if !before => {
                let error = failed(&self.path, error);
                tracing::warn!(%error, "the store's log is not moved into its tables; it grows until it is");
            }
            None if before => tracing::info!("the store's log is moved into its tables again"),
            _ => {}
        }
    }

    /// Moves everything that the log has, checkpoints the WAL when it is long, cuts the log.
    fn work(&mut self) -> Step<()> {
        loop {
            let (head, kept) = {
                let progress = self.shared.progress();
                (progress.head, progress.kept)
            };
            if kept >= head {
                break;
            }
            let net = tables::net(&self.connection, kept, MOVE_BYTES)?;
            if net.revision == kept {
                break;
            }
            if self.keep(&net)?.is_err() || self.checkpoint_if_long()?.is_err() {
                return Ok(Err(Stopped));
            }
        }
        self.cut()
    }

    /// Brings rows and counters to where the log was at `net`.
    fn keep(&mut self, net: &Net) -> Step<()> {
        if self.slots.is_none() {
            self.slots = Some(Slots::read(&self.connection)?);
        }
        let Some(slots) = &mut self.slots else { return Ok(Ok(())) };
        let mut rows = net.rows.iter().peekable();
        loop {
            let done = slice(&self.connection, &self.shared, |tx, start| {
                for (key, json) in rows.by_ref() {
                    slots.write(tx, key, json.as_deref())?;
                    if start.elapsed() >= self.slice {
                        break;
                    }
                }
                let done = rows.peek().is_none();
                if done {
                    tables::set_kept(tx, net.revision, &net.counters)?;
                }
                Ok(done)
            })?;
            match done {
                Ok(false) => {}
                Ok(true) => break,
                Err(Stopped) => return Ok(Err(Stopped)),
            }
        }
        self.grown_bytes += net.bytes;
        self.shared.moved(net.revision, net.bytes);
        Ok(Ok(()))
    }

    /// Cuts the log as far as allowed, or as its length demands.
    fn cut(&mut self) -> Step<()> {
        if self.grown_bytes >= LOG_GROWTH_BYTES {
            self.shared.dispense(tables::surplus(&self.connection, LOG_MAX_BYTES)?);
            self.grown_bytes = 0;
        }
        loop {
            let (cut, may_cut) = {
                let progress = self.shared.progress();
                (progress.cut, progress.may_cut())
            };
            if cut >= may_cut {
                return Ok(Ok(()));
            }
            let next = may_cut.min(cut + CUT_RECORDS);
            let done =
                slice(&self.connection, &self.shared, |tx, _| tables::cut_before(tx, next + 1))?;
            self.shared.progress().cut = next;
            if done.is_err() || self.checkpoint_if_long()?.is_err() {
                return Ok(Err(Stopped));
            }
        }
    }

    /// Puts into the file what the WAL has got since the last time, when it is much. The writer goes
    /// on meanwhile; thus the WAL does not begin again unless the writer rests for a moment. Only
    /// when it has grown too long does the writer wait for the end of a checkpoint.
    fn checkpoint_if_long(&mut self) -> Step<()> {
        let pages = self.shared.wal_pages();
        if pages < self.checkpointed_pages {
            // It has begun again.
            self.checkpointed_pages = 0;
        }
        if pages < self.checkpointed_pages + CHECKPOINT_PAGES {
            return Ok(Ok(()));
        }
        if checkpoint(&self.connection)? > 0 && pages >= WAL_MAX_PAGES {
            // Once more, so that little is left for which the writer has to wait.
            checkpoint(&self.connection)?;
            let _turn = self.shared.turn();
            checkpoint(&self.connection)?;
        }
        self.checkpointed_pages = pages;
        Ok(if self.shared.progress().stop { Err(Stopped) } else { Ok(()) })
    }
}

/// One transaction in the keeper's turn, and then as long a pause as it took.
fn slice<T>(
    connection: &Connection,
    shared: &Shared,
    work: impl FnOnce(&Connection, Instant) -> rusqlite::Result<T>,
) -> Step<T> {
    let (done, taken) = {
        let _turn = shared.turn();
        let start = Instant::now();
        let tx = connection.unchecked_transaction()?;
        let done = work(&tx, start)?;
        tx.commit()?;
        (done, start.elapsed())
    };
    Ok(if shared.pause(taken) { Err(Stopped) } else { Ok(done) })
}

/// Puts into the file what is in the WAL now, without hindering anybody; gives how many pages have
/// been added meanwhile.
fn checkpoint(connection: &Connection) -> rusqlite::Result<i64> {
    let query = "PRAGMA wal_checkpoint(PASSIVE)";
    connection.query_row(query, [], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

impl Slots {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut slots = Self::default();
        tables::each_slot(connection, |slot, kind, id| {
            let kind = slots.number(kind);
            slots.slots.insert((kind, id), slot);
        })?;
        Ok(slots)
    }

    fn number(&mut self, kind: &str) -> u16 {
        if let Some(number) = self.kinds.get(kind) {
            return *number;
        }
        let number = u16::try_from(self.kinds.len()).expect("there are fewer tables");
        self.kinds.insert(kind.to_owned(), number);
        number
    }

    fn write(
        &mut self,
        connection: &Connection,
        key: &RowKey,
        json: Option<&RawValue>,
    ) -> rusqlite::Result<()> {
        let place = (self.number(&key.0), key.1);
        match (self.slots.get(&place), json) {
            (Some(slot), Some(json)) => tables::update_row(connection, *slot, key, json),
            (Some(slot), None) => {
                tables::delete_row(connection, *slot)?;
                self.slots.remove(&place);
                Ok(())
            }
            (None, Some(json)) => {
                let slot = tables::insert_row(connection, key, json)?;
                self.slots.insert(place, slot);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        Engine, LogRecord, RowChange, Sqlite,
        engine::sqlite::{
            file::connect_keeper,
            progress::{BACKLOG_MAX_BYTES, BACKLOG_WAIT},
        },
    };

    /// A store whose keeper works only when it is told to.
    fn apart(path: &Path) -> (Sqlite, Keeper) {
        let store = Sqlite::open_idle(path).unwrap();
        let keeper = connect_keeper(path).unwrap();
        let keeper = Keeper::new(path.to_owned(), keeper, Arc::clone(&store.shared)).unwrap();
        (store, keeper)
    }

    fn json(text: &str) -> Box<RawValue> {
        serde_json::value::to_raw_value(text).unwrap()
    }

    fn record(revision: u64, rows: &[(u8, Option<&str>)]) -> LogRecord {
        let change = |(n, text): &(u8, Option<&str>)| RowChange {
            kind: if n % 2 == 0 { "Even" } else { "Odd" }.to_owned(),
            id: Uuid::from_u128((*n).into()),
            value: text.map(json),
        };
        let rows = rows.iter().map(change).collect();
        LogRecord { revision, rows, counters: vec![("n".to_owned(), revision)], fences: vec![] }
    }

    type Contents = (u64, BTreeMap<RowKey, String>, Vec<(String, u64)>);

    fn contents(store: &mut Sqlite) -> Contents {
        let mut rows = BTreeMap::new();
        let loaded = store.load(&mut |row| {
            let before = rows.insert((row.kind, row.id), row.json.get().to_owned());
            assert_eq!(before, None, "no row comes twice");
            Ok(())
        });
        let loaded = loaded.unwrap();
        (loaded.head, rows, loaded.counters)
    }

    fn count(keeper: &Keeper, table: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        keeper.connection.query_row(&query, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn rows_follow_the_log_and_the_log_is_cut_no_further_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, mut keeper) = apart(&dir.path().join("store.db"));
        let records: Vec<LogRecord> =
            (1..=300).map(|n| record(n, &[(7, Some("x")), (8, None)])).collect();
        store.commit(0, &records).unwrap();
        store.compact(290).unwrap();
        assert_eq!((count(&keeper, "rows"), count(&keeper, "log")), (0, 300));
        assert_eq!(keeper.cut().unwrap(), Ok(()));
        assert_eq!(count(&keeper, "log"), 300, "the rows need it yet");
        assert_eq!(keeper.work().unwrap(), Ok(()));
        assert_eq!((count(&keeper, "rows"), count(&keeper, "log")), (1, 10));
        assert_eq!(store.read_log(290, 100).unwrap().len(), 10);
        let idle = store.shared.progress().idle();
        assert!(idle && store.shared.progress().backlog_bytes == 0);
    }

    #[test]
    fn a_keeper_that_cannot_write_fails_no_commit_and_catches_up_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let (mut store, mut keeper) = apart(&path);
        let long = "x".repeat(100_000);
        store.commit(0, &[record(1, &[(1, Some(&long))])]).unwrap();
        keeper.connection.pragma_update(None, "max_page_count", 40).unwrap();
        let failed = keeper.work().unwrap_err();
        assert_eq!(failed.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
        keeper.tell(Some(&failed));
        store.shared.progress().backlog_bytes = BACKLOG_MAX_BYTES + 1;
        assert!(!store.shared.progress().too_far_behind(), "nobody waits for one that fails");
        store.commit(1, &[record(2, &[(2, Some(&long))])]).unwrap();
        keeper.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        keeper.slots = None;
        assert_eq!(keeper.work().unwrap(), Ok(()));
        keeper.tell(None);
        assert_eq!((count(&keeper, "rows"), contents(&mut store).0), (2, 2));
    }

    #[test]
    fn commits_wait_for_a_keeper_that_is_too_far_behind_but_not_forever() {
        let shared = Shared::default();
        shared.added(1, BACKLOG_MAX_BYTES);
        assert!(!shared.progress().too_far_behind());
        shared.added(2, 1);
        assert!(shared.progress().too_far_behind());
        let start = Instant::now();
        shared.wait_for_keeper();
        assert!(start.elapsed() >= BACKLOG_WAIT);
    }

    #[test]
    fn neither_the_wal_nor_the_log_grows_with_all_that_was_ever_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let (mut store, mut keeper) = apart(&path);
        let long = "x".repeat(1_000_000);
        for revision in 1..=100 {
            store.commit(revision - 1, &[record(revision, &[(1, Some(&long))])]).unwrap();
            assert_eq!(keeper.work().unwrap(), Ok(()));
        }
        assert!(count(&keeper, "log") <= 67 + 8, "the log does not grow for ever either");
        let wal = std::fs::metadata(dir.path().join("store.db-wal")).unwrap().len();
        assert!(wal < (CHECKPOINT_PAGES + 1_000) * 4_120, "{wal} bytes after 200 million");
    }

    fn writes() -> impl Strategy<Value = Vec<(u8, Option<&'static str>)>> {
        let text = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
        prop::collection::vec((0..12u8, text), 0..4)
    }

    proptest! {
        // Few, because each commit waits for the disk.
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// With slices of one row each, the keeper is stopped after one slice, as a kill would do.
        #[test]
        fn wherever_the_keeper_is_stopped_a_start_finds_what_was_committed(
            steps in prop::collection::vec((prop::collection::vec(writes(), 1..4), 0..5usize, any::<bool>()), 1..8),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store.db");
            let (mut store, mut keeper) = apart(&path);
            let (mut head, mut rows) = (0, BTreeMap::new());
            for (records, slices, reopen) in steps {
                let records: Vec<LogRecord> =
                    (head + 1..).zip(&records).map(|(n, writes)| record(n, writes)).collect();
                for change in records.iter().flat_map(|record| &record.rows) {
                    let key = (change.kind.clone(), change.id);
                    match &change.value {
                        Some(json) => drop(rows.insert(key, json.get().to_owned())),
                        None => drop(rows.remove(&key)),
                    }
                }
                store.commit(head, &records).unwrap();
                head += records.len() as u64;
                store.compact(head - 1).unwrap();
                (keeper.slice, store.shared.progress().stop) = (Duration::ZERO, true);
                for _ in 0..slices {
                    prop_assert!(keeper.work().is_ok());
                }
                if reopen {
                    drop((keeper, store));
                    (store, keeper) = apart(&path);
                }
                let expected = (head, rows.clone(), vec![("n".to_owned(), head)]);
                prop_assert_eq!(contents(&mut store), expected);
            }
        }
    }
}
