//! The tables of a store file, and the statements that read and write them.
//!
//! `log` is the truth: one record for each revision, in the order of revisions, so that a commit
//! only appends. `rows` and `counters` follow it, up to the revision that `meta` calls `kept` and
//! partly beyond: the log's records since then say what holds. A row stays where it was first put
//! (`slot`), in the order of arrival, and not where its random id would sort it: what is new lies
//! together, on few pages.
//!
//! Each row of each table has the checksum of what is in it ([`sum`]): a bit that has changed on the
//! disk may leave a file that SQLite finds sound, and text that is JSON.

use std::collections::BTreeMap;

use model::Error;
use rusqlite::{Connection, ToSql, params, types::ValueRef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error as ErrorOf;
use uuid::Uuid;

use crate::{Loaded, LogRecord, RowChange, StoredRow};

pub(super) const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL, sum INTEGER) WITHOUT ROWID;
    CREATE TABLE log (revision INTEGER PRIMARY KEY, record BLOB NOT NULL, sum INTEGER);
    CREATE TABLE rows (slot INTEGER PRIMARY KEY, kind TEXT NOT NULL, id BLOB NOT NULL,
                       json TEXT NOT NULL, sum INTEGER);
    CREATE TABLE counters (name TEXT PRIMARY KEY, last INTEGER NOT NULL, sum INTEGER) WITHOUT ROWID;
";

/// What makes the tables of version 2, which had no checksums, those of version 3.
const ADD_SUMS: &str = "
    ALTER TABLE meta ADD COLUMN sum INTEGER;
    ALTER TABLE log ADD COLUMN sum INTEGER;
    ALTER TABLE rows ADD COLUMN sum INTEGER;
    ALTER TABLE counters ADD COLUMN sum INTEGER;
";

/// Something that is not what was written.
#[derive(Debug, ErrorOf)]
#[error("{what} is not what was written there: its checksum differs")]
pub(super) struct Damaged {
    what: String,
}

/// The checksum (CRC-32) of what is in a row: its key, then the rest.
fn sum(key: &[&[u8]], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in key {
        // Of no fixed length: where one ends must not be open.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(rest);
    hasher.finalize()
}

fn sum_of_number(name: &str, number: u64) -> u32 {
    sum(&[name.as_bytes()], &number.to_le_bytes())
}

fn sum_of_record(revision: u64, record: &[u8]) -> u32 {
    sum(&[&revision.to_le_bytes()], record)
}

fn sum_of_row(kind: &str, id: &[u8], json: &str) -> u32 {
    sum(&[kind.as_bytes(), id], json.as_bytes())
}

/// Refuses what does not have the checksum that was written with it.
fn check(stored: Option<i64>, found: u32, what: impl FnOnce() -> String) -> rusqlite::Result<()> {
    match stored == Some(found.into()) {
        true => Ok(()),
        false => Err(invalid(Damaged { what: what() })),
    }
}

/// What a file that is empty begins with.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)?;
    connection
        .execute("INSERT INTO meta VALUES ('kept', 0, ?1)", [sum_of_number("kept", 0)])
        .map(|_| ())
}

/// Gives the tables of a file without checksums what they have in it now.
pub(super) fn add_sums(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(ADD_SUMS)?;
    for (table, key, number) in [("meta", "name", "value"), ("counters", "name", "last")] {
        let sums = found(connection, &format!("SELECT {key}, {number} FROM {table}"), |row| {
            let name: String = row.get(0)?;
            let sum = sum_of_number(&name, unsigned(row.get(1)?)?);
            Ok((name, sum))
        })?;
        set_sums(connection, &format!("UPDATE {table} SET sum = ?2 WHERE {key} = ?1"), sums)?;
    }
    let sums = found(connection, "SELECT revision, record FROM log", |row| {
        let revision: i64 = row.get(0)?;
        Ok((revision, sum_of_record(unsigned(revision)?, row.get_ref(1)?.as_blob()?)))
    })?;
    set_sums(connection, "UPDATE log SET sum = ?2 WHERE revision = ?1", sums)?;
    let sums = found(connection, "SELECT slot, kind, id, json FROM rows", |row| {
        let (kind, id) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_blob()?);
        Ok((row.get::<_, i64>(0)?, sum_of_row(kind, id, row.get_ref(3)?.as_str()?)))
    })?;
    set_sums(connection, "UPDATE rows SET sum = ?2 WHERE slot = ?1", sums)
}

fn found<T>(
    connection: &Connection,
    query: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(query)?.query_map([], read)?.collect()
}

fn set_sums<K: ToSql>(
    connection: &Connection,
    update: &str,
    sums: Vec<(K, u32)>,
) -> rusqlite::Result<()> {
    let mut update = connection.prepare(update)?;
    sums.into_iter().try_for_each(|(key, sum)| update.execute(params![key, sum]).map(|_| ()))
}

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
    let sum = sum_of_record(record.revision, &json);
    let mut append = connection.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3)")?;
    append.execute(params![signed(record.revision)?, json, sum])?;
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
    let mut found = connection.prepare_cached("SELECT value, sum FROM meta WHERE name = 'kept'")?;
    let kept = found.query_row([], |row| Ok((unsigned(row.get(0)?)?, row.get(1)?)));
    let (kept, stored) = kept?;
    check(stored, sum_of_number("kept", kept), || "the row kept of the table meta".to_owned())?;
    Ok(kept)
}

/// `rows` has followed the log up to this revision; so do now the counters.
pub(super) fn set_kept(
    connection: &Connection,
    revision: u64,
    counters: &BTreeMap<String, u64>,
) -> rusqlite::Result<()> {
    let mut count =
        connection.prepare_cached("INSERT OR REPLACE INTO counters VALUES (?1, ?2, ?3)")?;
    for (name, last) in counters {
        count.execute(params![name, signed(*last)?, sum_of_number(name, *last)])?;
    }
    let set = "UPDATE meta SET value = ?1, sum = ?2 WHERE name = 'kept'";
    let sum = sum_of_number("kept", revision);
    connection.prepare_cached(set)?.execute(params![signed(revision)?, sum]).map(|_| ())
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
    let insert = "INSERT INTO rows (kind, id, json, sum) VALUES (?1, ?2, ?3, ?4)";
    let sum = sum_of_row(kind, id.as_bytes(), json.get());
    connection.prepare_cached(insert)?.insert(params![kind, id.as_bytes(), json.get(), sum])
}

pub(super) fn update_row(
    connection: &Connection,
    slot: i64,
    (kind, id): &RowKey,
    json: &RawValue,
) -> rusqlite::Result<()> {
    let sum = sum_of_row(kind, id.as_bytes(), json.get());
    let update = "UPDATE rows SET json = ?2, sum = ?3 WHERE slot = ?1";
    connection.prepare_cached(update)?.execute(params![slot, json.get(), sum]).map(|_| ())
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
    let kept = kept(&tx)?;
    // Older records are kept for who follows; they are looked at all the same, as damage spreads.
    each_record(&tx, 0, |revision, _| Ok(revision < kept))?;
    let newer = net(&tx, kept, u64::MAX)?;
    let mut rows = tx.prepare("SELECT kind, id, json, sum FROM rows")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        check_row(row)?;
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
        .prepare("SELECT name, last, sum FROM counters")?
        .query_map([], |row| {
            let (name, last): (String, u64) = (row.get(0)?, unsigned(row.get(1)?)?);
            let what = || format!("the row {name} of the table counters");
            check(row.get(2)?, sum_of_number(&name, last), what)?;
            Ok((name, last))
        })?
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

/// Whether a row is what was written. Its parts may be anything.
fn check_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
    let bytes = |at| -> rusqlite::Result<&[u8]> {
        Ok(match row.get_ref(at)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
        })
    };
    let (kind, id, json) = (bytes(0)?, bytes(1)?, bytes(2)?);
    let found = sum(&[kind, id], json);
    check(row.get(3)?, found, || {
        let id = Uuid::from_slice(id).map_or_else(|_| "?".to_owned(), |id| id.simple().to_string());
        format!("the row {} {id} of the table rows", String::from_utf8_lossy(kind))
    })
}

/// Hands out records after this revision for as long as `take` wants more.
fn each_record(
    connection: &Connection,
    after: u64,
    mut take: impl FnMut(u64, &[u8]) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let query = "SELECT revision, record, sum FROM log WHERE revision > ?1 ORDER BY revision";
    let mut found = connection.prepare_cached(query)?;
    let mut found = found.query([signed(after)?])?;
    while let Some(row) = found.next()? {
        let (revision, record) = (unsigned(row.get(0)?)?, row.get_ref(1)?.as_blob()?);
        check(row.get(2)?, sum_of_record(revision, record), || {
            format!("the record of revision {revision} in the table log")
        })?;
        if !take(revision, record)? {
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
