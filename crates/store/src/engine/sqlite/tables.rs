//! The tables of a store file, and the statements that read and write them.
//!
//! `log` is the truth: one record for each revision, in the order of revisions, so that a commit
//! only appends. `rows` and `counters` follow it, up to the revision that `meta` calls `kept` and
//! partly beyond: the log's records since then say what holds. A row stays where it was first put
//! (`slot`), in the order of arrival, and not where its random id would sort it: what is new lies
//! together, on few pages.

use std::collections::BTreeMap;

use model::Error;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Loaded, LogRecord, RowChange, StoredRow};

pub(super) const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE log (revision INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE rows (slot INTEGER PRIMARY KEY, kind TEXT NOT NULL, id BLOB NOT NULL,
                       json TEXT NOT NULL);
    CREATE TABLE counters (name TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('kept', 0);
";

/// A table and an id in it.
pub(super) type RowKey = (String, Uuid);

/// A [`LogRecord`] as it is stored. Without its revision, which is its key, and without fences,
/// which only servers that share an engine need.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rows: &'a [RowChange],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    counters: &'a [(String, u64)],
}

#[derive(Deserialize)]
struct ReadBack {
    #[serde(default)]
    rows: Vec<RowChange>,
    #[serde(default)]
    counters: Vec<(String, u64)>,
}

/// What some consecutive records come to: the last value of each row and counter.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) rows: BTreeMap<RowKey, Option<Box<RawValue>>>,
    pub(super) counters: BTreeMap<String, u64>,
    /// The last revision in it.
    pub(super) revision: u64,
    /// How many bytes the records have.
    pub(super) bytes: u64,
}

/// Adds a record to the log; gives its size.
pub(super) fn append(connection: &Connection, record: &LogRecord) -> rusqlite::Result<u64> {
    let written = Written { rows: &record.rows, counters: &record.counters };
    let json = serde_json::to_vec(&written).map_err(invalid)?;
    let mut append = connection.prepare_cached("INSERT INTO log VALUES (?1, ?2)")?;
    append.execute(params![signed(record.revision)?, json])?;
    Ok(json.len() as u64)
}

/// Up to `limit` records after this revision.
pub(super) fn records(
    connection: &Connection,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<LogRecord>> {
    let mut found = Vec::new();
    each_record(connection, after, |revision, bytes| {
        found.push(parse(revision, bytes)?);
        Ok(found.len() < limit)
    })?;
    Ok(found)
}

/// What the records after this revision come to, from about as many as have so many bytes.
pub(super) fn net(connection: &Connection, after: u64, bytes_max: u64) -> rusqlite::Result<Net> {
    let mut net = Net { revision: after, ..Net::default() };
    each_record(connection, after, |revision, bytes| {
        let record = parse(revision, bytes)?;
        let rows = record.rows.into_iter().map(|row| ((row.kind, row.id), row.value));
        net.rows.extend(rows);
        net.counters.extend(record.counters);
        net.revision = revision;
        net.bytes += bytes.len() as u64;
        Ok(net.bytes < bytes_max)
    })?;
    Ok(net)
}

/// How many bytes of the log `rows` does not follow yet.
pub(super) fn bytes_after(connection: &Connection, revision: u64) -> rusqlite::Result<u64> {
    let sum = "SELECT coalesce(sum(length(record)), 0) FROM log WHERE revision > ?1";
    unsigned(connection.query_row(sum, [signed(revision)?], |row| row.get(0))?)
}

/// The last revision.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<u64> {
    match edge(connection, "SELECT max(revision) FROM log")? {
        Some(last) => Ok(last),
        None => kept(connection),
    }
}

/// The first revision whose record is there.
pub(super) fn oldest(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    edge(connection, "SELECT min(revision) FROM log")
}

fn edge(connection: &Connection, query: &str) -> rusqlite::Result<Option<u64>> {
    let found: Option<i64> = connection.prepare_cached(query)?.query_row([], |row| row.get(0))?;
    found.map(unsigned).transpose()
}

/// The last revision whose record, with all later ones, has more than so many bytes; 0: the log is
/// shorter.
pub(super) fn surplus(connection: &Connection, bytes_max: u64) -> rusqlite::Result<u64> {
    let query = "SELECT revision, length(record) FROM log ORDER BY revision DESC";
    let mut found = connection.prepare_cached(query)?;
    let mut found = found.query([])?;
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        bytes += unsigned(row.get(1)?)?;
        if bytes > bytes_max {
            return unsigned(row.get(0)?);
        }
    }
    Ok(0)
}

/// Forgets the records of the log before this revision.
pub(super) fn cut_before(connection: &Connection, revision: u64) -> rusqlite::Result<()> {
    let mut cut = connection.prepare_cached("DELETE FROM log WHERE revision < ?1")?;
    cut.execute([signed(revision)?]).map(|_| ())
}

/// Up to where `rows` and `counters` have followed the log.
pub(super) fn kept(connection: &Connection) -> rusqlite::Result<u64> {
    let mut found = connection.prepare_cached("SELECT value FROM meta WHERE name = 'kept'")?;
    unsigned(found.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// `rows` has followed the log up to this revision; so do now the counters.
pub(super) fn set_kept(
    connection: &Connection,
    revision: u64,
    counters: &BTreeMap<String, u64>,
) -> rusqlite::Result<()> {
    let mut count = connection.prepare_cached("INSERT OR REPLACE INTO counters VALUES (?1, ?2)")?;
    for (name, last) in counters {
        count.execute(params![name, signed(*last)?])?;
    }
    let mut set = connection.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'kept'")?;
    set.execute([signed(revision)?]).map(|_| ())
}

/// Where each row lies.
pub(super) fn each_slot(
    connection: &Connection,
    mut take: impl FnMut(i64, &str, Uuid),
) -> rusqlite::Result<()> {
    let mut rows = connection.prepare("SELECT slot, kind, id FROM rows")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let id = Uuid::from_slice(row.get_ref(2)?.as_blob()?).map_err(invalid)?;
        take(row.get(0)?, row.get_ref(1)?.as_str()?, id);
    }
    Ok(())
}

/// Puts a row where it has no place yet; gives the place.
pub(super) fn insert_row(
    connection: &Connection,
    (kind, id): &RowKey,
    json: &RawValue,
) -> rusqlite::Result<i64> {
    let insert = "INSERT INTO rows (kind, id, json) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(insert)?.insert(params![kind, id.as_bytes(), json.get()])
}

pub(super) fn update_row(
    connection: &Connection,
    slot: i64,
    json: &RawValue,
) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached("UPDATE rows SET json = ?2 WHERE slot = ?1")?;
    update.execute(params![slot, json.get()]).map(|_| ())
}

pub(super) fn delete_row(connection: &Connection, slot: i64) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM rows WHERE slot = ?1")?;
    delete.execute([slot]).map(|_| ())
}

/// The state at the head: `rows`, and what the log says beyond them.
pub(super) fn load(
    connection: &Connection,
    take: &mut dyn FnMut(StoredRow) -> Result<(), Error>,
) -> rusqlite::Result<Result<Loaded, Error>> {
    // What is read must be of one moment: rows may be moved from the log meanwhile.
    let tx = connection.unchecked_transaction()?;
    let newer = net(&tx, kept(&tx)?, u64::MAX)?;
    let mut rows = tx.prepare("SELECT kind, id, json FROM rows")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let id = Uuid::from_slice(row.get_ref(1)?.as_blob()?).map_err(invalid)?;
        let key = (row.get(0)?, id);
        if newer.rows.contains_key(&key) {
            continue;
        }
        let json = RawValue::from_string(row.get(2)?).map_err(invalid)?;
        if let Err(error) = take(StoredRow { kind: key.0, id, json }) {
            return Ok(Err(error));
        }
    }
    let mut counters: BTreeMap<String, u64> = tx
        .prepare("SELECT name, last FROM counters")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?)?)))?
        .collect::<rusqlite::Result<_>>()?;
    counters.extend(newer.counters);
    for ((kind, id), json) in newer.rows {
        if let Some(json) = json
            && let Err(error) = take(StoredRow { kind, id, json })
        {
            return Ok(Err(error));
        }
    }
    Ok(Ok(Loaded { head: newer.revision, counters: counters.into_iter().collect() }))
}

/// Hands out records after this revision for as long as `take` wants more.
fn each_record(
    connection: &Connection,
    after: u64,
    mut take: impl FnMut(u64, &[u8]) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let query = "SELECT revision, record FROM log WHERE revision > ?1 ORDER BY revision";
    let mut found = connection.prepare_cached(query)?;
    let mut found = found.query([signed(after)?])?;
    while let Some(row) = found.next()? {
        if !take(unsigned(row.get(0)?)?, row.get_ref(1)?.as_blob()?)? {
            break;
        }
    }
    Ok(())
}

fn parse(revision: u64, json: &[u8]) -> rusqlite::Result<LogRecord> {
    let ReadBack { rows, counters } = serde_json::from_slice(json).map_err(invalid)?;
    Ok(LogRecord { revision, rows, counters, fences: Vec::new() })
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
