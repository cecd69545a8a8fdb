//! ZStack's query string: `q=<path><op><value>`, AND-ed, with `start`, `limit`, `count`,
//! `replyWithCount`, `sort`, `groupBy` and `fields`; and netloom's `after=<uuid>`: only what comes after it in
//! the order of uuids, which is the order of an answer without `sort`. `limit` and the last uuid of
//! each page give pages that neither miss a resource nor show one twice while others are deleted.

use control::{
    NOTES_MAX, Unknown, inventory,
    query::{Condition, Direction, Found, Operator, Path, Query, Scope, Sort, Tells},
};
use model::{Error, Id, Kind, Record, Result, shown::Face};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{condition, request::Wrong};

/// Reads a query string; gives a sentence for each key that was passed over, as ZStack does.
///
/// # Errors
/// A condition without an operator; [`model::Code::InvalidArgument`] for a condition that cannot be
/// met, and in strict handling for an unknown key, or one that is there twice and is not `q`.
pub(crate) fn parse(
    (kind, face): (Kind, &'static Face),
    scope: Scope,
    (pairs, unknown): (&[(String, String)], Unknown),
) -> Result<(Query, Vec<String>), Wrong> {
    let (mut query, mut notes) = (Query::new(kind, face, scope), Vec::new());
    for (at, (key, value)) in pairs.iter().enumerate() {
        let repeated = key != "q" && pairs.iter().take(at).any(|(before, _)| before == key);
        let (rule, hint) = match (repeated, KEYS.contains(&key.as_str())) {
            (true, _) => ("is there twice", "name it once"),
            (false, false) => ("is not known in a query", KEYS_HINT),
            (false, true) => {
                read(&mut query, key, value)?;
                continue;
            }
        };
        match unknown {
            Unknown::Refuse => return Err(Error::field(key, rule).hint(hint).into()),
            Unknown::Name if notes.len() < NOTES_MAX => {
                notes.push(Error::field(key, format!("{rule}; it was ignored")).message);
            }
            Unknown::Name => {}
        }
    }
    Ok((query, notes))
}

/// What a query string may say.
const KEYS: [&str; 9] =
    ["q", "start", "after", "limit", "count", "replyWithCount", "sort", "groupBy", "fields"];
const KEYS_HINT: &str =
    "q, start, after, limit, count, replyWithCount, sort, groupBy and fields are";

/// The query of a single resource, by its uuid in a path.
///
/// # Errors
/// [`model::Code::InvalidArgument`] for what is no uuid.
pub(crate) fn of_one(
    (kind, face): (Kind, &'static Face),
    scope: Scope,
    uuid: &str,
) -> Result<Query> {
    let path = Path::read(kind, "uuid", "uuid")?;
    let mut query = Query::new(kind, face, scope);
    query.conditions.push(Condition::read("uuid", path, Operator::Equal, &[uuid])?);
    Ok(query)
}

fn read(query: &mut Query, key: &str, value: &str) -> Result<(), Wrong> {
    match key {
        "q" => query.conditions.push(condition::parse(query.kind, value)?),
        "start" => query.start = number(key, value)?,
        "after" => query.after = Some(uuid(key, value)?),
        "limit" => query.limit = number(key, value)?,
        "count" if truth(key, value)? => query.tells = Tells::Total,
        "replyWithCount" if truth(key, value)? && query.tells == Tells::Page => {
            query.tells = Tells::PageAndTotal;
        }
        "count" | "replyWithCount" => {}
        "sort" => query.sort = Some(sort(query.kind, value)?),
        "groupBy" => query.group_by = Some(inventory::single(query.kind, key, value.trim())?),
        "fields" => {
            let names = value.split(',').map(str::trim);
            let fields = names.map(|name| inventory::entry(query.kind, key, name));
            query.fields = Some(fields.collect::<Result<_>>()?);
        }
        // Those that are not known have been passed over.
        _ => {}
    }
    Ok(())
}

/// The body of the answer.
pub(crate) fn answer(found: Found) -> Value {
    let mut answer = Map::new();
    if let Some(page) = found.inventories {
        answer.insert("inventories".to_owned(), page.into_iter().map(Value::Object).collect());
    }
    if let Some(total) = found.total {
        answer.insert("total".to_owned(), total.into());
    }
    Value::Object(answer)
}

/// `name`, `+name` or `-name`. A `+` that was not escaped arrives as a blank.
fn sort(kind: Kind, value: &str) -> Result<Sort> {
    let direction = match value.starts_with('-') {
        true => Direction::Descending,
        false => Direction::Ascending,
    };
    let name = value.trim_start_matches(['+', '-', ' ']).trim_end();
    Sort::by(kind, "sort", name, direction)
}

fn truth(key: &str, value: &str) -> Result<bool> {
    value.trim().to_ascii_lowercase().parse().map_err(|_| {
        let error = Error::field(key, format!("\"{value}\" is not true or false"));
        error.hint(format!("write {key}=true, or leave it out"))
    })
}

fn uuid(key: &str, value: &str) -> Result<Uuid> {
    let id: Id<Record> = value.trim().parse().map_err(|rule: &str| {
        let error = Error::field(key, format!("\"{value}\" {rule}"));
        error.hint("write the uuid of the last resource of the page before")
    })?;
    Ok(id.uuid())
}

pub(crate) fn number(key: &str, value: &str) -> Result<usize> {
    value.trim().parse().map_err(|_| {
        let error = Error::field(key, format!("\"{value}\" is not a whole number from 0 on"));
        error.hint(format!("write {key}=100, or leave it out"))
    })
}

#[cfg(test)]
mod tests {
    use control::inventory::Observed;
    use model::status::Board;
    use serde_json::json;
    use store::Store;

    use super::*;

    fn query(text: &str) -> Result<Query> {
        match read_as(text, Unknown::Refuse) {
            Ok((query, _)) => Ok(query),
            Err(Wrong::Message(error)) => Err(error),
            Err(Wrong::Request(text)) => panic!("{text}"),
        }
    }

    fn read_as(text: &str, unknown: Unknown) -> Result<(Query, Vec<String>), Wrong> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        });
        let face = &Kind::VmNic.def().faces[0];
        parse((Kind::VmNic, face), Scope::Everything, (&pairs.collect::<Vec<_>>(), unknown))
    }

    #[test]
    fn what_zstack_passes_over_is_named() {
        let (query, notes) = read_as("limit=1&limit=2&filterName=x:y", Unknown::Name).unwrap();
        assert_eq!(query.limit, 1, "the first counts");
        assert_eq!(notes.len(), 2);
        assert!(notes[0].contains("twice") && notes[1].contains("filterName"), "{notes:?}");
        let (_, notes) = read_as(&"a=b&".repeat(100), Unknown::Name).unwrap();
        assert_eq!(notes.len(), NOTES_MAX);
    }

    #[test]
    fn a_condition_without_an_operator_is_no_request() {
        let wrong = read_as("q=name", Unknown::Name);
        assert!(matches!(wrong, Err(Wrong::Request(text)) if text.contains("has no operator")));
    }

    #[test]
    fn every_key_is_read() {
        let text = "q=ip=10.0.0.1&q=vmInstance.name~=a%&start=5&limit=10&replyWithCount=true\
                    &sort=-deviceId&groupBy=ip&fields=uuid, ip";
        let read = query(text).unwrap();
        assert_eq!((read.conditions.len(), read.start, read.limit), (2, 5, 10));
        assert_eq!(read.tells, Tells::PageAndTotal);
        let fields: Vec<&str> = read.fields.unwrap().iter().map(|field| field.name()).collect();
        assert_eq!(fields, ["uuid", "ip"]);
        assert_eq!(query("count=true&replyWithCount=true").unwrap().tells, Tells::Total);
        assert_eq!(query("replyWithCount=true&count=true").unwrap().tells, Tells::Total);
        assert_eq!(query("count=false").unwrap().tells, Tells::Page);
    }

    #[test]
    fn what_is_wrong_is_refused_with_a_hint() {
        for (text, field) in [
            ("limit=-1", "limit"),
            ("start=x", "start"),
            ("after=x", "after"),
            ("count=maybe", "count"),
            ("sort=colour", "sort"),
            ("sort=usedIps", "sort"),
            ("groupBy=colour", "groupBy"),
            ("groupBy=usedIps", "groupBy"),
            ("fields=uuid,colour", "fields"),
            ("q=colour=red", "q"),
            ("q=createDate>yesterday", "q"),
            ("q=ip=10.0.0", "q"),
            ("q=usedIps>1", "q"),
            ("limit=1&limit=2", "limit"),
            ("colour=red", "colour"),
        ] {
            let error = query(text).expect_err(text);
            assert_eq!(error.field.as_deref(), Some(field), "{error}");
            assert!(error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn one_resource_is_asked_for_by_a_uuid_in_any_spelling() {
        let face = (Kind::VmNic, &Kind::VmNic.def().faces[0]);
        let error = of_one(face, Scope::Everything, "nonsense").unwrap_err();
        assert_eq!(error.field.as_deref(), Some("uuid"));
        assert!(error.hint.is_some_and(|hint| hint.contains("32 hex digits")));
        for uuid in ["0123456789ABCDEF0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"] {
            of_one(face, Scope::Everything, uuid).unwrap();
        }
    }

    #[test]
    fn answers_have_what_was_asked_for() {
        let store: Store<Record> = Store::in_memory().unwrap();
        let (snapshot, board) = (store.snapshot(), Board::default());
        for (text, expected) in [
            ("", json!({"inventories": []})),
            ("count=true", json!({"total": 0})),
            ("replyWithCount=true", json!({"inventories": [], "total": 0})),
        ] {
            let found =
                control::query::run(&query(text).unwrap(), &Observed::new(&snapshot, &board));
            assert_eq!(answer(found.unwrap()), expected);
        }
    }
}
