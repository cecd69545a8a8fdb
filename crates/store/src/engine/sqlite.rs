//! SQLite: the embedded engine, one file, one server.
//!
//! WAL with `synchronous=FULL`: a commit has been synced before it returns
//! (<https://sqlite.org/pragma.html#pragma_synchronous>).
//! The file is locked for as long as it is open, so two servers cannot take it by mistake; that
//! also means that there is nobody to follow, and no conflict.

use std::path::{Path, PathBuf};

use model::{Code, Error};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior,
    params,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::must_follow;
use crate::{CommitError, Engine, Loaded, LogError, LogRecord};

/// Marks a file as ours: "ntlm" (<https://sqlite.org/pragma.html#pragma_application_id>).
const APPLICATION_ID: i64 = 0x6e74_6c6d;
/// Version of the tables below.
const SCHEMA_VERSION: i64 = 1;
/// A record is kept in pieces of so many bytes.
const CHUNK_BYTES: usize = 256 * 1024;

const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE log (revision INTEGER, chunk INTEGER, bytes BLOB NOT NULL,
                      PRIMARY KEY (revision, chunk)) WITHOUT ROWID;
    CREATE TABLE rows (kind TEXT, id TEXT, value TEXT NOT NULL,
                       PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE counters (name TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('head', 0);
";

/// An open store file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
    /// The head, unless a commit has failed: then the file has to be asked.
    head: Option<u64>,
}

impl Sqlite {
    /// Opens the file, or makes it. Its directory must exist.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`]: it is open elsewhere, damaged, of another version, not a store,
    /// or the file system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let opened = connect(&path).map_err(|error| failed(&path, error))?;
        opened.map(|connection| Self { path, connection, head: None })
    }

    fn apply(&mut self, expected: u64, records: &[LogRecord]) -> rusqlite::Result<Option<u64>> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = head(&tx)?;
        if head != expected {
            return Ok(Some(head));
        }
        for record in records {
            write_rows(&tx, record)?;
            write_claims(&tx, record)?;
            write_log(&tx, record)?;
        }
        let reached = records.last().map_or(head, |record| record.revision);
        tx.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'head'")?
            .execute([signed(reached)?])?;
        tx.commit()?;
        self.head = Some(reached);
        Ok(None)
    }

    fn log_after(&self, after: u64, limit: usize) -> rusqlite::Result<Option<Vec<LogRecord>>> {
        if self.head.is_some_and(|head| head <= after) {
            return Ok(Some(Vec::new()));
        }
        let oldest: Option<i64> =
            self.connection.query_row("SELECT min(revision) FROM log", [], |row| row.get(0))?;
        let before_log = oldest.map_or_else(|| head(&self.connection), |n| unsigned(n - 1))?;
        if before_log > after {
            return Ok(None);
        }
        let records = "SELECT revision, bytes FROM log WHERE revision > ?1 AND revision <= ?2
                       ORDER BY revision, chunk";
        let last = signed(after)?.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX));
        let mut pieces: Vec<(i64, Vec<u8>)> = Vec::new();
        let mut found = self.connection.prepare_cached(records)?;
        let mut found = found.query([signed(after)?, last])?;
        while let Some(row) = found.next()? {
            let (revision, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            match pieces.last_mut() {
                Some((last, start)) if *last == revision => start.extend(bytes),
                _ => pieces.push((revision, bytes)),
            }
        }
        pieces.iter().map(|(_, json)| parse(json)).collect::<Result<_, _>>().map(Some)
    }
}

impl Engine for Sqlite {
    fn load(&mut self) -> Result<Loaded, Error> {
        let loaded = load(&self.connection).map_err(|error| failed(&self.path, error))?;
        self.head = Some(loaded.head);
        Ok(loaded)
    }

    fn commit(&mut self, expected_head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
        must_follow(expected_head, records)?;
        match self.apply(expected_head, records) {
            Ok(None) => Ok(()),
            Ok(Some(head)) => Err(CommitError::Conflict { head }),
            Err(error) => {
                self.head = None;
                Err(CommitError::Failed(failed(&self.path, error)))
            }
        }
    }

    fn read_log(&mut self, after: u64, limit: usize) -> Result<Vec<LogRecord>, LogError> {
        let records = self.log_after(after, limit);
        let records = records.map_err(|error| LogError::Failed(failed(&self.path, error)))?;
        records.ok_or(LogError::Compacted)
    }

    fn compact(&mut self, revision: u64) -> Result<(), Error> {
        let cut = |connection: &Connection| {
            connection.execute("DELETE FROM log WHERE revision <= ?1", [signed(revision)?])
        };
        cut(&self.connection).map(|_| ()).map_err(|error| failed(&self.path, error))
    }
}

/// Takes the file's lock, then looks whether the file is what it should be.
fn connect(path: &Path) -> rusqlite::Result<Result<Connection, Error>> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(32);
    // In this order: the lock mode counts from the first access, and WAL's is the first one.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    if let Err(error) = check(&tx, path)? {
        return Ok(Err(error));
    }
    tx.commit()?;
    Ok(Ok(connection))
}

/// Makes the tables in an empty file; refuses any other file that is not a sound store.
fn check(tx: &Transaction<'_>, path: &Path) -> rusqlite::Result<Result<(), Error>> {
    let number = |pragma: &str| tx.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, tables) == (0, 0, 0) {
        tx.execute_batch(SCHEMA)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        return Ok(Ok(()));
    }
    if application != APPLICATION_ID {
        return Ok(Err(refused(path, "is not a netloom store", "name another file")));
    }
    if version != SCHEMA_VERSION {
        let what = format!("has version {version} of the tables, this netloom {SCHEMA_VERSION}");
        return Ok(Err(refused(path, &what, "start the netloom that wrote it")));
    }
    let verdict: String = tx.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Err(refused(path, "is damaged", "restore a backup").cause(verdict)));
    }
    Ok(Ok(()))
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let rows = connection
        .prepare("SELECT value FROM rows")?
        .query_map([], |row| row.get::<_, String>(0))?
        .map(|json| RawValue::from_string(json?).map_err(invalid))
        .collect::<rusqlite::Result<_>>()?;
    let claims = connection
        .prepare("SELECT key, owner FROM claims")?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?
        .map(|claim| claim.and_then(|(key, owner)| Ok((key, owner.parse().map_err(invalid)?))))
        .collect::<rusqlite::Result<_>>()?;
    let counters = connection
        .prepare("SELECT name, last FROM counters")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Loaded { head: head(connection)?, rows, claims, counters })
}

fn head(connection: &Connection) -> rusqlite::Result<u64> {
    let mut found = connection.prepare_cached("SELECT value FROM meta WHERE name = 'head'")?;
    unsigned(found.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn write_rows(tx: &Transaction<'_>, record: &LogRecord) -> rusqlite::Result<()> {
    let mut put = tx.prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3)")?;
    let mut delete = tx.prepare_cached("DELETE FROM rows WHERE kind = ?1 AND id = ?2")?;
    for row in &record.rows {
        match &row.value {
            Some(json) => put.execute(params![row.kind, hex(row.id), json.get()])?,
            None => delete.execute(params![row.kind, hex(row.id)])?,
        };
    }
    Ok(())
}

fn write_claims(tx: &Transaction<'_>, record: &LogRecord) -> rusqlite::Result<()> {
    let mut take = tx.prepare_cached("INSERT OR REPLACE INTO claims VALUES (?1, ?2)")?;
    let mut release = tx.prepare_cached("DELETE FROM claims WHERE key = ?1")?;
    for (key, owner) in &record.claims {
        match owner {
            Some(owner) => take.execute(params![key, hex(*owner)])?,
            None => release.execute([key])?,
        };
    }
    let mut count = tx.prepare_cached("INSERT OR REPLACE INTO counters VALUES (?1, ?2)")?;
    for (name, last) in &record.counters {
        count.execute(params![name, signed(*last)?])?;
    }
    Ok(())
}

fn write_log(tx: &Transaction<'_>, record: &LogRecord) -> rusqlite::Result<()> {
    let json = serde_json::to_vec(record).map_err(invalid)?;
    let mut add: CachedStatement<'_> = tx.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3)")?;
    for (chunk, bytes) in (0_i64..).zip(json.chunks(CHUNK_BYTES)) {
        add.execute(params![signed(record.revision)?, chunk, bytes])?;
    }
    Ok(())
}

fn parse(json: &[u8]) -> rusqlite::Result<LogRecord> {
    serde_json::from_slice(json).map_err(invalid)
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// SQLite's integers have a sign.
fn signed(n: u64) -> rusqlite::Result<i64> {
    i64::try_from(n).map_err(invalid)
}

fn unsigned(n: i64) -> rusqlite::Result<u64> {
    u64::try_from(n).map_err(invalid)
}

/// The file holds, or would get, what has no meaning.
fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn refused(path: &Path, what: &str, hint: &str) -> Error {
    Error::new(Code::StoreUnavailable, format!("the file {} {what}", path.display())).hint(hint)
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    let (what, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            "is open in another process, probably another netloom server",
            "stop that one, or give this server a data directory of its own",
        ),
        Some(ErrorCode::NotADatabase) => ("is not a netloom store", "name another file"),
        Some(ErrorCode::DatabaseCorrupt) => ("is damaged", "restore a backup"),
        Some(ErrorCode::DiskFull) => ("cannot grow: the disk is full", "free some space"),
        _ => ("cannot be read or written", "look at the disk, and at the server's log"),
    };
    refused(path, what, hint).cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_synced_and_the_file_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path().join("store.db")).unwrap();
        let pragma = |name: &str| {
            store
                .connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        assert_eq!(pragma("synchronous").unwrap(), 2.into(), "FULL");
        assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
        assert_eq!(pragma("locking_mode").unwrap(), "exclusive".to_owned().into());
    }

    #[test]
    fn a_full_disk_fails_the_commit_and_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Sqlite::open(dir.path().join("store.db")).unwrap();
        let record = |revision, fences| {
            let (rows, claims, counters) = (vec![], vec![], vec![]);
            LogRecord { revision, rows, claims, counters, fences }
        };
        store.commit(0, &[record(1, vec![])]).unwrap();
        store.connection.pragma_update(None, "max_page_count", 20).unwrap();
        let big = store.commit(1, &[record(2, vec![]), record(3, vec!["x".repeat(500_000)])]);
        let Err(CommitError::Failed(error)) = big else { panic!("it fits: {big:?}") };
        assert!(error.message.contains("the disk is full"), "{error}");
        assert_eq!(store.read_log(1, 10).unwrap().len(), 0, "all or none");
        store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        store.commit(1, &[record(2, vec!["x".repeat(500_000)])]).unwrap();
        assert_eq!(store.load().unwrap().head, 2);
    }
}
