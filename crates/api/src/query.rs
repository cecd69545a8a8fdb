//! The query language: `q=<field><op><value>`, AND-ed, over the inventories of one kind.

use std::{cmp::Ordering, sync::Arc};

use control::inventory;
use model::{Error, FieldType, Kind, Record, Result, status::Board};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use crate::condition::{Condition, Operator, plain, shown_time, type_of};

/// Resources in one answer if the query names no limit (ZStack's default).
const DEFAULT_LIMIT: usize = 1000;

/// A parsed query.
#[derive(Debug)]
pub(crate) struct Query {
    kind: Kind,
    conditions: Vec<Condition>,
    start: usize,
    limit: usize,
    count_only: bool,
    with_count: bool,
    sort: Option<(String, bool)>,
    fields: Option<Vec<String>>,
}

/// Reads a query string.
///
/// # Errors
/// [`model::Code::InvalidArgument`] for an unknown key or field, or a condition without operator.
pub(crate) fn parse(kind: Kind, pairs: &[(String, String)]) -> Result<Query> {
    let mut query = Query {
        kind,
        conditions: Vec::new(),
        start: 0,
        limit: DEFAULT_LIMIT,
        count_only: false,
        with_count: false,
        sort: None,
        fields: None,
    };
    for (key, value) in pairs {
        match key.as_str() {
            "q" => query.conditions.push(Condition::parse(kind, value)?),
            "start" => query.start = number(key, value)?,
            "limit" => query.limit = number(key, value)?,
            "count" => query.count_only = truth(key, value)?,
            "replyWithCount" => query.with_count = truth(key, value)?,
            "sort" => {
                let field = value.trim_start_matches(['+', '-', ' ']);
                type_of(kind, key, field)?;
                query.sort = Some((field.to_owned(), value.starts_with('-')));
            }
            "fields" => {
                let names: Vec<String> = value.split(',').map(|f| f.trim().to_owned()).collect();
                names.iter().try_for_each(|name| known_field(kind, name))?;
                query.fields = Some(names);
            }
            other => {
                let error = Error::field(other, "is not known in a query");
                return Err(
                    error.hint("q, start, limit, count, replyWithCount, sort and fields are")
                );
            }
        }
    }
    Ok(query)
}

/// Runs a query: `{"inventories": [..], "total": n}`. Whole inventories are made of one page at
/// most, unless a condition or the order asks for what only they have.
pub(crate) fn run(query: &Query, read: &Snapshot<Record>, board: &Board) -> Value {
    let derived = |name: &str| {
        inventory::derived_fields(query.kind).iter().any(|(derived, _)| *derived == name)
    };
    let named = query.conditions.iter().map(|condition| condition.field.as_str());
    let whole = named.chain(query.sort.iter().map(|(field, _)| field.as_str())).any(derived);
    let look = |record: Arc<Record>| {
        let shown = match whole {
            true => inventory::show(&record, read, board),
            false => inventory::declared(&record),
        };
        (record, shown)
    };
    let meets = |(_, shown): &(Arc<Record>, Map<String, Value>)| {
        query.conditions.iter().all(|condition| condition.holds(shown))
    };
    let found = candidates(query, read);
    if query.count_only {
        let total = match query.conditions.is_empty() {
            true => found.len(),
            false => found.into_iter().map(look).filter(meets).count(),
        };
        return json!({"total": total});
    }
    let mut found: Vec<_> = found.into_iter().map(look).filter(meets).collect();
    let total = found.len();
    sort(query, &mut found);
    let page = found.into_iter().skip(query.start).take(query.limit).map(|(record, shown)| {
        let mut shown = if whole { shown } else { inventory::show(&record, read, board) };
        if let Some(names) = &query.fields {
            shown.retain(|name, _| names.contains(name));
        }
        shown
    });
    let page: Vec<_> = page.collect();
    match query.with_count {
        true => json!({"inventories": page, "total": total}),
        false => json!({"inventories": page}),
    }
}

fn sort(query: &Query, found: &mut [(Arc<Record>, Map<String, Value>)]) {
    let Some((field, descending)) = &query.sort else { return };
    let mut fields = query.kind.def().fields.iter();
    let by_time = fields.any(|known| known.name == field && known.kind == FieldType::Time);
    found.sort_by(|(_, a), (_, b)| {
        let order = compare(by_time, a.get(field), b.get(field));
        if *descending { order.reverse() } else { order }
    });
}

/// The records that can match: by uuid or by the store's index of references, else all.
fn candidates(query: &Query, read: &impl Read<Record>) -> Vec<Arc<Record>> {
    for condition in query.conditions.iter().filter(|c| c.operator == Operator::Equal) {
        let Some(uuid) = model::id::parse_uuid(&condition.text) else { continue };
        let field = query.kind.def().fields.iter().find(|f| f.name == condition.field);
        match field {
            Some(field) if field.name == "uuid" => {
                return read.get(query.kind, uuid).into_iter().collect();
            }
            Some(field) if field.refs.is_some() && !matches!(field.kind, FieldType::List(_)) => {
                let ids: Vec<Uuid> = read.referrers(query.kind, field.name, uuid).collect();
                return ids.into_iter().filter_map(|id| read.get(query.kind, id)).collect();
            }
            _ => {}
        }
    }
    read.list(query.kind).collect()
}

fn truth(key: &str, value: &str) -> Result<bool> {
    value.parse().map_err(|_| Error::field(key, format!("\"{value}\" is not true or false")))
}

fn number(key: &str, value: &str) -> Result<usize> {
    value.parse().map_err(|_| Error::field(key, format!("\"{value}\" is not a whole number")))
}

/// Whether answers show the field, to be chosen.
fn known_field(kind: Kind, name: &str) -> Result<()> {
    match inventory::derived_structures(kind).contains(&name) {
        true => Ok(()),
        false => type_of(kind, "fields", name).map(|_| ()),
    }
}

/// How two resources are ordered by a field that both show, or do not.
fn compare(by_time: bool, a: Option<&Value>, b: Option<&Value>) -> Ordering {
    if by_time {
        return a.and_then(shown_time).cmp(&b.and_then(shown_time));
    }
    match (a.and_then(Value::as_i64), b.and_then(Value::as_i64)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.map(plain).cmp(&b.map(plain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ordered_as_times() {
        let at = |text: &str| serde_json::json!(text);
        let (april, march) = (at("Apr 1, 2026 1:00:00 PM"), at("Mar 1, 2026 2:00:00 PM"));
        assert_eq!(compare(true, Some(&april), Some(&march)), Ordering::Greater);
    }
}
