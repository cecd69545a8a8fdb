//! The query language: `q=<field><op><value>`, AND-ed, over the inventories of one kind.
//!
//! A condition is split at the leftmost operator, and there at the longest one. ZStack tries its
//! operators in a fixed order instead, which differs only for values that contain operators.

use std::cmp::Ordering;

use control::inventory;
use model::{Error, FieldType, Kind, Record, Result, Timestamp, status::Board};
use serde_json::{Map, Value, json};
use store::Read;
use uuid::Uuid;

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

#[derive(Debug)]
struct Condition {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    NotLike,
    In,
    NotIn,
    IsNull,
    NotNull,
}

/// Longest first, so that `!=` is not taken for `=`.
const OPERATORS: [(&str, Operator); 12] = [
    (" is null", Operator::IsNull),
    (" not null", Operator::NotNull),
    ("!?=", Operator::NotIn),
    ("!~=", Operator::NotLike),
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("~=", Operator::Like),
    ("?=", Operator::In),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
];

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
            "q" => query.conditions.push(condition(kind, value)?),
            "start" => query.start = number(key, value)?,
            "limit" => query.limit = number(key, value)?,
            "count" => query.count_only = truth(key, value)?,
            "replyWithCount" => query.with_count = truth(key, value)?,
            "sort" => {
                let field = value.trim_start_matches(['+', '-', ' ']);
                known_field(kind, key, field)?;
                query.sort = Some((field.to_owned(), value.starts_with('-')));
            }
            "fields" => {
                let names: Vec<String> = value.split(',').map(|f| f.trim().to_owned()).collect();
                names.iter().try_for_each(|name| known_field(kind, key, name))?;
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

/// Runs a query: `{"inventories": [..], "total": n}`.
pub(crate) fn run(query: &Query, read: &impl Read<Record>, board: &Board) -> Value {
    let mut found: Vec<Map<String, Value>> = candidates(query, read)
        .iter()
        .map(|record| inventory::show(record, read, board))
        .filter(|shown| {
            query.conditions.iter().all(|condition| holds(query.kind, condition, shown))
        })
        .collect();
    let total = found.len();
    if query.count_only {
        return json!({"total": total});
    }
    if let Some((field, descending)) = &query.sort {
        let by_time = is_time(query.kind, field);
        found.sort_by(|a, b| {
            let order = compare(by_time, a.get(field), b.get(field));
            if *descending { order.reverse() } else { order }
        });
    }
    let mut page: Vec<_> = found.into_iter().skip(query.start).take(query.limit).collect();
    if let Some(names) = &query.fields {
        page.iter_mut().for_each(|shown| shown.retain(|name, _| names.contains(name)));
    }
    match query.with_count {
        true => json!({"inventories": page, "total": total}),
        false => json!({"inventories": page}),
    }
}

/// The records that can match: by uuid or by the store's index of references, else all.
fn candidates(query: &Query, read: &impl Read<Record>) -> Vec<Record> {
    let by_id = |ids: Vec<Uuid>| -> Vec<Record> {
        let records = ids.into_iter().filter_map(|id| read.get(query.kind, id));
        records.map(|record| (*record).clone()).collect()
    };
    for condition in query.conditions.iter().filter(|c| c.operator == Operator::Equal) {
        let Some(uuid) = model::id::parse_uuid(&condition.value) else { continue };
        let field = query.kind.def().fields.iter().find(|f| f.name == condition.field);
        match field {
            Some(field) if field.name == "uuid" => return by_id(vec![uuid]),
            Some(field) if field.refs.is_some() && !matches!(field.kind, FieldType::List(_)) => {
                return by_id(read.referrers(query.kind, field.name, uuid).collect());
            }
            _ => {}
        }
    }
    read.list(query.kind).map(|record| (*record).clone()).collect()
}

fn truth(key: &str, value: &str) -> Result<bool> {
    value.parse().map_err(|_| Error::field(key, format!("\"{value}\" is not true or false")))
}

fn number(key: &str, value: &str) -> Result<usize> {
    value.parse().map_err(|_| Error::field(key, format!("\"{value}\" is not a whole number")))
}

fn condition(kind: Kind, text: &str) -> Result<Condition> {
    let found = (0..text.len()).filter(|at| text.is_char_boundary(*at)).find_map(|at| {
        let rest = &text[at..];
        OPERATORS
            .iter()
            .find(|(op, _)| rest.starts_with(op))
            .map(|(op, operator)| (at, op, *operator))
    });
    let Some((at, op, operator)) = found else {
        let error = Error::field("q", format!("\"{text}\" has no operator"));
        return Err(error.hint(
            "write q=<field><op><value> with = != > < >= <= ~= !~= ?= !?=, \
                               or q=<field> is null",
        ));
    };
    let (field, value) = (text[..at].trim(), &text[at + op.len()..]);
    known_field(kind, "q", field)?;
    comparable(kind, field, operator, value)?;
    Ok(Condition { field: field.to_owned(), operator, value: value.to_owned() })
}

/// A point in time is before or after another one only.
fn comparable(kind: Kind, name: &str, operator: Operator, value: &str) -> Result<()> {
    use Operator::{Greater, GreaterOrEqual, Less, LessOrEqual};
    let ordered = matches!(operator, Greater | GreaterOrEqual | Less | LessOrEqual);
    if !ordered || !is_time(kind, name) {
        return Ok(());
    }
    let time: std::result::Result<Timestamp, _> = value.parse();
    time.map(drop).map_err(|rule| Error::field("q", format!("\"{value}\" is {rule}")))
}

fn is_time(kind: Kind, name: &str) -> bool {
    kind.def().fields.iter().any(|field| field.name == name && field.kind == FieldType::Time)
}

fn known_field(kind: Kind, key: &str, name: &str) -> Result<()> {
    let def = kind.def();
    let declared = def.fields.iter().filter(|field| !field.hidden).map(|field| field.name);
    let mut all: Vec<&str> =
        declared.chain(inventory::derived_fields(kind).iter().copied()).collect();
    if all.contains(&name) {
        return Ok(());
    }
    all.sort_unstable();
    let error = Error::field(key, format!("{} has no field {name}", def.name));
    Err(error.hint(format!("its fields: {}", all.join(", "))))
}

fn holds(kind: Kind, condition: &Condition, shown: &Map<String, Value>) -> bool {
    let value = shown.get(&condition.field).filter(|value| !value.is_null());
    let text = value.map(plain);
    let items = || condition.value.split(',').map(str::trim);
    let equals = |wanted: &str| text.as_deref() == Some(wanted);
    let ordered =
        |test: fn(Ordering) -> bool| value.is_some_and(|value| test(order(kind, condition, value)));
    match condition.operator {
        Operator::Equal => equals(&condition.value),
        Operator::NotEqual => value.is_some() && !equals(&condition.value),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessOrEqual => ordered(Ordering::is_le),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(Ordering::is_ge),
        Operator::Like => text.is_some_and(|text| like(&condition.value, &text)),
        Operator::NotLike => text.is_some_and(|text| !like(&condition.value, &text)),
        Operator::In => items().any(equals),
        Operator::NotIn => value.is_some() && !items().any(equals),
        Operator::IsNull => value.is_none(),
        Operator::NotNull => value.is_some(),
    }
}

/// A value as the text that a condition compares with.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Numbers compare as numbers, times as times, everything else as text.
fn order(kind: Kind, condition: &Condition, value: &Value) -> Ordering {
    if let (Some(value), Ok(wanted)) = (time(value), condition.value.parse())
        && is_time(kind, &condition.field)
    {
        return value.cmp(&wanted);
    }
    let field = kind.def().fields.iter().find(|field| field.name == condition.field);
    let numeric = field.is_some_and(|field| field.kind == FieldType::Integer) || value.is_number();
    match (numeric, value.as_i64(), condition.value.parse::<i64>()) {
        (true, Some(value), Ok(wanted)) => value.cmp(&wanted),
        _ => plain(value).as_str().cmp(&condition.value),
    }
}

fn time(shown: &Value) -> Option<Timestamp> {
    shown.as_str()?.parse().ok()
}

/// How two resources are ordered by a field that both show, or do not.
fn compare(by_time: bool, a: Option<&Value>, b: Option<&Value>) -> Ordering {
    if by_time {
        return a.and_then(time).cmp(&b.and_then(time));
    }
    match (a.and_then(Value::as_i64), b.and_then(Value::as_i64)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.map(plain).cmp(&b.map(plain)),
    }
}

/// SQL's LIKE: `%` is any text, `_` any character. Linear in the text for each `%`.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when a character does not fit: after the last `%`, one character further.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '_' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_split_at_the_leftmost_longest_operator() {
        let cases = [
            ("name=a", ("name", Operator::Equal, "a")),
            ("name!=a", ("name", Operator::NotEqual, "a")),
            ("name!~=a%", ("name", Operator::NotLike, "a%")),
            ("name?=a,b", ("name", Operator::In, "a,b")),
            ("name=a>=b", ("name", Operator::Equal, "a>=b")),
            ("vni>=7", ("vni", Operator::GreaterOrEqual, "7")),
            ("description is null", ("description", Operator::IsNull, "")),
            ("name=", ("name", Operator::Equal, "")),
        ];
        for (text, (field, operator, value)) in cases {
            let seen = condition(Kind::L2VxlanNetwork, text).unwrap();
            assert_eq!(
                (seen.field.as_str(), seen.operator, seen.value.as_str()),
                (field, operator, value)
            );
        }
        assert!(condition(Kind::Zone, "name").is_err());
        assert!(condition(Kind::Zone, "colour=red").is_err());
        assert!(condition(Kind::L2VxlanNetwork, "number=1").is_err(), "hidden");
    }

    #[test]
    fn times_compare_as_times() {
        let at = |text: &str| serde_json::json!(text);
        let (april, march) = (at("Apr 1, 2026 1:00:00 PM"), at("Mar 1, 2026 2:00:00 PM"));
        assert_eq!(compare(true, Some(&april), Some(&march)), Ordering::Greater);
        let after = condition(Kind::Zone, "createDate>2026-03-09 00:00:00").unwrap();
        assert_eq!(order(Kind::Zone, &after, &april), Ordering::Greater);
        assert_eq!(order(Kind::Zone, &after, &march), Ordering::Less);
        assert!(condition(Kind::Zone, "createDate>yesterday").is_err());
    }

    #[test]
    fn like_is_sqls() {
        let cases = [
            ("web%", "web-1", true),
            ("%1", "web-1", true),
            ("w_b%", "web", true),
            ("%b%b%", "abab", true),
            ("%b%b%", "aba", false),
            ("web", "web-1", false),
            ("", "", true),
            ("%", "", true),
            ("_", "", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }
}
