//! Opening a store file: its lock, its mode, whether it is what it should be, and what goes wrong.
//!
//! WAL with `synchronous=FULL` on the connection that commits: a commit has been synced before it
//! returns (<https://sqlite.org/pragma.html#pragma_synchronous>).

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use model::{Code, Error};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::tables::{self, Damaged};

/// Marks a file as ours: "ntlm" (<https://sqlite.org/pragma.html#pragma_application_id>).
const APPLICATION_ID: i64 = 0x6e74_6c6d;
/// Version of the tables. The form of rows in them has versions of its own, which the rows know.
const SCHEMA_VERSION: i64 = 3;
/// The version before, which a start makes the present one: it had no checksums.
const WITHOUT_SUMS: i64 = 2;
/// Only its owner may read the state, or write it.
const MODE: u32 = 0o600;
/// How long a statement waits for another process, such as one that makes a backup.
const BUSY: Duration = Duration::from_secs(5);

/// Takes the file for this process until the lock is dropped, which must be after every connection
/// is closed: closing any handle of a file gives up SQLite's own locks on it.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let open = OpenOptions::new().read(true).write(true).create(true).mode(MODE).open(path);
    let file = open.map_err(|error| unusable(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => Err(unusable(path, error)),
    }
}

/// A connection that commits: what it has committed survives a power loss.
pub(super) fn connect_writer(path: &Path) -> Result<Connection, Error> {
    let failed = |error| failed(path, &error);
    let mut connection = connect(path).map_err(failed)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(failed)?;
    check(&tx, path).map_err(failed)??;
    tx.commit().map_err(failed)?;
    let mode = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", mode);
    if mode.map_err(failed)? != "wal" {
        let what = "is where SQLite cannot keep a write-ahead log";
        return Err(refused(path, what, "put the data directory on a local file system"));
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    for end in ["", "-wal", "-shm"] {
        close_to_others(&PathBuf::from(format!("{}{end}", path.display())))
            .map_err(|error| unusable(path, error))?;
    }
    Ok(connection)
}

/// A connection that does not wait for the disk when it commits: what it writes is in the log.
pub(super) fn connect_keeper(path: &Path) -> Result<Connection, Error> {
    let connection = connect(path).and_then(|connection| {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(connection)
    });
    connection.map_err(|error| failed(path, &error))
}

/// Copies what a file holds at one moment. One statement in one read transaction, so that nobody
/// waits for it and it waits for nobody (<https://sqlite.org/lang_vacuum.html#vacuuminto>).
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    // Without this it would be made, and found empty.
    if let Err(error) = fs::metadata(from) {
        return Err(unusable(from, error));
    }
    let failed = |error| failed(from, &error);
    let mut connection = connect(from).map_err(failed)?;
    let tx = connection.transaction().map_err(failed)?;
    let number = |pragma: &str| tx.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(failed)?;
    let version = number("user_version").map_err(failed)?;
    if application != APPLICATION_ID || ![SCHEMA_VERSION, WITHOUT_SUMS].contains(&version) {
        let hint = "name the directory of a server of this version";
        return Err(refused(from, "is not a netloom store of this version", hint));
    }
    drop(tx);
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(to);
    let copy = open.map_err(|error| unusable(to, error))?;
    let path = to.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [&*path]).map_err(failed)?;
    copy.sync_all().map_err(|error| unusable(to, error))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

fn close_to_others(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o777 == MODE => Ok(()),
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(MODE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the tables in an empty file; refuses any other file that is not a sound store.
fn check(tx: &Transaction<'_>, path: &Path) -> rusqlite::Result<Result<(), Error>> {
    let number = |pragma: &str| tx.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, tables) == (0, 0, 0) {
        tables::begin(tx)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        return Ok(Ok(()));
    }
    if application != APPLICATION_ID {
        return Ok(Err(refused(path, "is not a netloom store", "name another file")));
    }
    if ![SCHEMA_VERSION, WITHOUT_SUMS].contains(&version) {
        let what = format!("has version {version} of the tables, this netloom {SCHEMA_VERSION}");
        let hint = if version < SCHEMA_VERSION {
            "start the netloom that wrote it, or begin anew with an empty data directory: files of \
             releases before 1.0 are not converted"
        } else {
            "start the netloom that wrote it"
        };
        return Ok(Err(refused(path, &what, hint)));
    }
    let verdict: String = tx.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Err(refused(path, "is damaged", "restore a backup").cause(verdict)));
    }
    if version == WITHOUT_SUMS {
        tables::add_sums(tx)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    Ok(Ok(()))
}

fn refused(path: &Path, what: &str, hint: &str) -> Error {
    Error::new(Code::StoreUnavailable, format!("the file {} {what}", path.display())).hint(hint)
}

fn in_use(path: &Path) -> Error {
    let what = "is open in another process, probably another netloom server";
    refused(path, what, "stop that one, or give this server a data directory of its own")
}

fn unusable(path: &Path, error: io::Error) -> Error {
    let hint = "look at the disk, and at the server's log";
    refused(path, "cannot be read or written", hint).cause(error)
}

/// What a caller is told when SQLite refuses, or gives what cannot have been written.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    if let rusqlite::Error::ToSqlConversionFailure(cause) = error
        && let Some(damaged) = cause.downcast_ref::<Damaged>()
    {
        let hint = "restore a backup (netloom restore), and look at the disk and the memory";
        return refused(path, &format!("is damaged: {damaged}"), hint);
    }
    let (what, hint) = match error.sqlite_error_code() {
        // SQLite reported no fault; what it returned could not be understood.
        None => ("is damaged", "restore a backup"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            return in_use(path).cause(error);
        }
        Some(ErrorCode::NotADatabase) => ("is not a netloom store", "name another file"),
        Some(ErrorCode::DatabaseCorrupt) => ("is damaged", "restore a backup"),
        Some(ErrorCode::DiskFull) => ("cannot grow: the disk is full", "free some space"),
        Some(_) => ("cannot be read or written", "look at the disk, and at the server's log"),
    };
    refused(path, what, hint).cause(error)
}
