//! SQLite: the embedded engine, one file, one server.
//!
//! A commit appends its records to the log, and is synced; that is all the writer waits for. The
//! tables that a start reads follow later, on another thread ([`keeper`]). The file is locked for
//! as long as it is open, so that two servers cannot take it by mistake; that also means that there
//! is nobody to follow, and no conflict. Beside the file lie only SQLite's own `-wal` and `-shm`.

mod file;
mod keeper;
mod progress;
mod tables;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use model::{Code, Error};
use rusqlite::{Connection, TransactionBehavior};

use self::{file::failed, keeper::Keeper, progress::Shared};
use super::must_follow;
use crate::{Backlog, CommitError, Engine, Loaded, LogError, LogRecord, StoredRow};

/// An open store file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
    /// The head, unless a commit has failed: then the file has to be asked.
    head: Option<u64>,
    /// The log up to here may be cut at any time; readers must not rely on it.
    cut: u64,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    /// Dropped last.
    _lock: File,
}

impl Sqlite {
    /// Opens the file, or makes it. Its directory must exist.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`]: it is open elsewhere, damaged, of another version, not a store,
    /// or the file system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let mut store = Self::open_idle(&path)?;
        let keeper = file::connect_keeper(&path)?;
        let keeper = Keeper::new(path, keeper, Arc::clone(&store.shared));
        let keeper = keeper.map_err(|error| failed(&store.path, &error))?;
        let thread = thread::Builder::new().name("store-keeper".to_owned());
        let thread = thread.spawn(move || keeper.run()).map_err(|error| {
            Error::new(Code::StoreUnavailable, "the keeper thread cannot be started").cause(error)
        })?;
        store.keeper = Some(thread);
        Ok(store)
    }

    /// Copies a store file as it is at one moment into `to`, which must not be there or be empty. A
    /// server may go on writing `from`.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`]: `from` is not a store of this version, or the file system
    /// refuses; what is in `to` is worth nothing then.
    pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        file::copy(from.as_ref(), to.as_ref())
    }

    /// Without the keeper.
    fn open_idle(path: &Path) -> Result<Self, Error> {
        let lock = file::lock(path)?;
        let mut connection = file::connect_writer(path)?;
        let shared = Arc::new(Shared::default());
        let mut begin = || {
            shared.measure_wal(&mut connection)?;
            shared.begin(&connection)
        };
        let head = begin().map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            head: Some(head),
            cut: 0,
            shared,
            keeper: None,
            _lock: lock,
        })
    }

    fn append(&mut self, expected: u64, records: &[LogRecord]) -> rusqlite::Result<Option<u64>> {
        let head = self.head()?;
        if head != expected {
            return Ok(Some(head));
        }
        let mut bytes = 0;
        {
            let _turn = self.shared.turn();
            let behavior = TransactionBehavior::Immediate;
            let tx = self.connection.transaction_with_behavior(behavior)?;
            for record in records {
                bytes += tables::append(&tx, record)?;
            }
            tx.commit()?;
        }
        let reached = records.last().map_or(head, |record| record.revision);
        self.head = Some(reached);
        self.shared.added(reached, bytes);
        Ok(None)
    }

    fn head(&mut self) -> rusqlite::Result<u64> {
        let head = match self.head {
            Some(head) => head,
            None => tables::head(&self.connection)?,
        };
        self.head = Some(head);
        Ok(head)
    }

    fn log_after(&mut self, after: u64, limit: usize) -> rusqlite::Result<Option<Vec<LogRecord>>> {
        let head = self.head()?;
        if head <= after {
            return Ok(Some(Vec::new()));
        }
        let oldest = tables::oldest(&self.connection)?.unwrap_or(head + 1);
        if after < self.cut || after + 1 < oldest {
            return Ok(None);
        }
        tables::records(&self.connection, after, limit).map(Some)
    }
}

impl Engine for Sqlite {
    fn load(
        &mut self,
        take: &mut dyn FnMut(StoredRow) -> Result<(), Error>,
    ) -> Result<Loaded, Error> {
        tables::load(&self.connection, take).map_err(|error| failed(&self.path, &error))?
    }

    fn backlog(&self) -> Backlog {
        let shared = Arc::clone(&self.shared);
        Box::new(move || shared.backlog_bytes())
    }

    fn commit(&mut self, expected_head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
        must_follow(expected_head, records)?;
        match self.append(expected_head, records) {
            Ok(None) => {
                self.shared.wait_for_keeper();
                Ok(())
            }
            Ok(Some(head)) => Err(CommitError::Conflict { head }),
            Err(error) => {
                self.head = None;
                Err(CommitError::Failed(failed(&self.path, &error)))
            }
        }
    }

    fn read_log(&mut self, after: u64, limit: usize) -> Result<Vec<LogRecord>, LogError> {
        let records = self.log_after(after, limit);
        let records = records.map_err(|error| LogError::Failed(failed(&self.path, &error)))?;
        records.ok_or(LogError::Compacted)
    }

    fn compact(&mut self, revision: u64) -> Result<(), Error> {
        self.cut = self.cut.max(revision);
        self.shared.dispense(revision);
        Ok(())
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.shared.stop();
        if self.keeper.take().is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the store's keeper thread has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn commits_are_synced_and_leave_checkpoints_to_the_keeper() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path().join("store.db")).unwrap();
        let pragma = |name: &str| {
            store
                .connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        assert_eq!(pragma("synchronous").unwrap(), 2.into(), "FULL");
        assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
        assert_eq!(pragma("wal_autocheckpoint").unwrap(), 0.into());
    }

    #[test]
    fn only_the_owner_may_read_the_files_even_if_others_could_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let modes = || {
            ["", "-wal", "-shm"].map(|end| {
                let file = format!("{}{end}", path.display());
                std::fs::metadata(file).unwrap().permissions().mode() & 0o777
            })
        };
        let record = LogRecord { revision: 1, rows: vec![], counters: vec![], fences: vec![] };
        let mut store = Sqlite::open(&path).unwrap();
        store.commit(0, std::slice::from_ref(&record)).unwrap();
        assert_eq!(modes(), [0o600; 3]);
        drop(store);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let mut store = Sqlite::open(&path).unwrap();
        store.commit(1, &[LogRecord { revision: 2, ..record }]).unwrap();
        assert_eq!(modes(), [0o600; 3]);
    }

    #[test]
    fn a_full_disk_fails_the_commit_and_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Sqlite::open(dir.path().join("store.db")).unwrap();
        let record = |revision, name: &str| {
            let counters = vec![(name.to_owned(), 1)];
            LogRecord { revision, rows: vec![], counters, fences: vec![] }
        };
        let big = "x".repeat(500_000);
        store.commit(0, &[record(1, "small")]).unwrap();
        store.connection.pragma_update(None, "max_page_count", 20).unwrap();
        let failed = store.commit(1, &[record(2, "small"), record(3, &big)]);
        let Err(CommitError::Failed(error)) = failed else { panic!("it fits: {failed:?}") };
        assert!(error.message.contains("the disk is full"), "{error}");
        assert_eq!(error.hint.as_deref(), Some("free some space"));
        assert_eq!(store.read_log(1, 10).unwrap().len(), 0, "all or none");
        store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        store.commit(1, &[record(2, &big)]).unwrap();
        assert_eq!(store.load(&mut |_| Ok(())).unwrap().head, 2);
    }
}
