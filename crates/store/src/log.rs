//! What one transaction wrote: in memory, and as the record that engines keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use crate::Row;

/// What two transactions can conflict about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key<K> {
    Row(K, Uuid),
    Claim(Arc<str>),
    Counter(Arc<str>),
    Fence(Arc<str>),
}

/// One transaction's writes, last value of each key.
#[derive(Debug)]
pub(crate) struct Writes<R: Row> {
    pub(crate) rows: BTreeMap<(R::Kind, Uuid), Option<Arc<R>>>,
    pub(crate) claims: BTreeMap<Arc<str>, Option<Uuid>>,
    pub(crate) counters: BTreeMap<Arc<str>, u64>,
    pub(crate) fences: BTreeSet<Arc<str>>,
}

/// One revision as engines keep it: the durable form of a transaction's writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogRecord {
    /// The revision that it makes.
    pub revision: u64,
    /// Rows put and deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowChange>,
    /// Claims taken (owner) and given up (`None`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(String, Option<Uuid>)>,
    /// Counters and the last number each has given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<(String, u64)>,
    /// Fences touched. They are kept nowhere else: only other transactions' conflicts need them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fences: Vec<String>,
}

/// A row put or deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowChange {
    /// Its table's name.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// The row as JSON; `None`: deleted.
    pub value: Option<Box<RawValue>>,
}

impl<R: Row> Writes<R> {
    pub(crate) fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            claims: BTreeMap::new(),
            counters: BTreeMap::new(),
            fences: BTreeSet::new(),
        }
    }

    /// How many keys are written.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.claims.len() + self.counters.len() + self.fences.len()
    }

    /// Every key that is written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key<R::Kind>> {
        let rows = self.rows.keys().map(|&(kind, id)| Key::Row(kind, id));
        let claims = self.claims.keys().map(|key| Key::Claim(Arc::clone(key)));
        let counters = self.counters.keys().map(|name| Key::Counter(Arc::clone(name)));
        let fences = self.fences.iter().map(|name| Key::Fence(Arc::clone(name)));
        rows.chain(claims).chain(counters).chain(fences)
    }

    /// The durable form.
    pub(crate) fn encode(&self, revision: u64) -> serde_json::Result<LogRecord> {
        let rows = self.rows.iter().map(|(&(kind, id), row)| {
            let value = row.as_deref().map(serde_json::value::to_raw_value).transpose()?;
            Ok(RowChange { kind: kind_name(kind)?, id, value })
        });
        Ok(LogRecord {
            revision,
            rows: rows.collect::<serde_json::Result<_>>()?,
            claims: self.claims.iter().map(|(key, owner)| (key.to_string(), *owner)).collect(),
            counters: self.counters.iter().map(|(name, last)| (name.to_string(), *last)).collect(),
            fences: self.fences.iter().map(ToString::to_string).collect(),
        })
    }

    /// Reads the durable form.
    pub(crate) fn decode(record: &LogRecord) -> serde_json::Result<Self> {
        let rows = record.rows.iter().map(|change| {
            let kind = serde_json::from_value(Value::String(change.kind.clone()))?;
            let row = change.value.as_ref().map(|json| serde_json::from_str(json.get()));
            Ok(((kind, change.id), row.transpose()?.map(Arc::new)))
        });
        Ok(Self {
            rows: rows.collect::<serde_json::Result<_>>()?,
            claims: record
                .claims
                .iter()
                .map(|(key, owner)| (key.as_str().into(), *owner))
                .collect(),
            counters: record.counters.iter().map(|(name, n)| (name.as_str().into(), *n)).collect(),
            fences: record.fences.iter().map(|name| name.as_str().into()).collect(),
        })
    }
}

fn kind_name<K: Serialize>(kind: K) -> serde_json::Result<String> {
    match serde_json::to_value(kind)? {
        Value::String(name) => Ok(name),
        other => Err(serde::ser::Error::custom(format!("a kind must be a string, not {other}"))),
    }
}
