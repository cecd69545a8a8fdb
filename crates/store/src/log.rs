//! What one transaction wrote: in memory, and as the record that engines keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IntoDeserializer},
};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use crate::{Change, Row};

/// What two transactions can conflict about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark<K, C> {
    Row(K, Uuid),
    Claim(C),
    Counter(Arc<str>),
    Fence(Arc<str>),
}

/// The marks of a row type's transactions.
pub(crate) type Marks<R> = BTreeSet<Mark<<R as Row>::Kind, <R as Row>::Claim>>;

/// One transaction's writes, last value of each.
#[derive(Debug)]
pub(crate) struct Writes<R: Row> {
    pub(crate) rows: BTreeMap<(R::Kind, Uuid), Option<Arc<R>>>,
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
    /// Counters and the last number each has given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<(String, u64)>,
    /// Fences touched. They are kept nowhere else: only other servers' conflicts need them.
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
    /// The row's durable form; `None`: deleted.
    pub value: Option<Box<RawValue>>,
}

impl<R: Row> Writes<R> {
    pub(crate) fn new() -> Self {
        Self { rows: BTreeMap::new(), counters: BTreeMap::new(), fences: BTreeSet::new() }
    }

    /// How many keys are written.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.counters.len() + self.fences.len()
    }

    /// Everything that is written: also every claim that `changes`, which these writes have made,
    /// have taken or given up.
    pub(crate) fn marks(&self, changes: &[Change<R>]) -> Marks<R> {
        let rows = self.rows.keys().map(|&(kind, id)| Mark::Row(kind, id));
        let both = changes.iter().flat_map(|change| [&change.before, &change.after]);
        let claims = both.flatten().flat_map(|row| row.claims()).map(Mark::Claim);
        let counters = self.counters.keys().map(|name| Mark::Counter(Arc::clone(name)));
        let fences = self.fences.iter().map(|name| Mark::Fence(Arc::clone(name)));
        rows.chain(claims).chain(counters).chain(fences).collect()
    }

    /// The durable form.
    pub(crate) fn encode(&self, revision: u64) -> serde_json::Result<LogRecord> {
        let rows = self.rows.iter().map(|(&(kind, id), row)| {
            let value = row.as_deref().map(R::encode).transpose()?;
            Ok(RowChange { kind: kind_name(kind)?, id, value })
        });
        Ok(LogRecord {
            revision,
            rows: rows.collect::<serde_json::Result<_>>()?,
            counters: self.counters.iter().map(|(name, last)| (name.to_string(), *last)).collect(),
            fences: self.fences.iter().map(ToString::to_string).collect(),
        })
    }

    /// Reads the durable form.
    pub(crate) fn decode(record: &LogRecord) -> serde_json::Result<Self> {
        let rows = record.rows.iter().map(|change| {
            let kind = kind_of(&change.kind)?;
            let row = change.value.as_ref().map(|json| R::decode(kind, json)).transpose()?;
            Ok(((kind, change.id), row.map(Arc::new)))
        });
        Ok(Self {
            rows: rows.collect::<serde_json::Result<_>>()?,
            counters: record.counters.iter().map(|(name, n)| (name.as_str().into(), *n)).collect(),
            fences: record.fences.iter().map(|name| name.as_str().into()).collect(),
        })
    }
}

/// A table by its name.
pub(crate) fn kind_of<K: DeserializeOwned>(name: &str) -> serde_json::Result<K> {
    K::deserialize(name.into_deserializer())
}

fn kind_name<K: Serialize>(kind: K) -> serde_json::Result<String> {
    match serde_json::to_value(kind)? {
        Value::String(name) => Ok(name),
        other => Err(serde::ser::Error::custom(format!("a kind must be a string, not {other}"))),
    }
}
