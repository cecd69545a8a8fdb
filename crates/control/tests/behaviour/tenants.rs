//! A matrix of tenants: whatever message an account sends about what is another's, with whatever
//! field, it is told what it would be told of nothing, and nothing changes; whatever it asks for, it
//! finds nothing of another's. Messages, fields and faces come from the declarations, so that a new
//! one takes part by itself.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    FieldDef, FieldType, Kind, Record, Timestamp,
    declare::{Access, Answer, MessageDef},
    resource::{faces, messages},
};
use netloom_control::{
    Caller, Enrolment, Gate, Jobs, Request,
    inventory::{self, Entry, Observed},
    query::{self, Query},
};
use serde_json::{Map, Value, json};
use store::Read;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    harness::{Cloud, tenant},
    specimen,
};

/// No resource has it, and no error but that of what is not there names it.
const NOBODY: Uuid = Uuid::from_u128(0x0bad_0bad_0bad_0bad);

/// Everything is another's, and nothing is shared; and an account that has nothing.
fn start() -> (Cloud, Caller) {
    let cloud = Cloud::over(specimen::of_every_kind());
    cloud.call("RevokeResourceSharing", shared(&cloud)).unwrap();
    let stranger = tenant(&cloud, 0xb);
    (cloud, stranger)
}

/// A uuid of each kind that is shown, none of them the caller's.
fn others(cloud: &Cloud, caller: Caller) -> Vec<(Kind, Uuid)> {
    let snapshot = cloud.snapshot();
    let own = caller.account().unwrap().uuid();
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let rows = snapshot.list(*kind).map(|row| row.uuid());
        found.extend(rows.filter(|id| *id != own).map(|id| (*kind, id)));
    }
    found
}

/// A message with a value in every field that it must have, and `uuid` in all that name resources.
fn about(def: &MessageDef, field: &FieldDef, uuid: Uuid) -> Map<String, Value> {
    let needed = def.fields.iter().filter(|other| other.required || other.name == field.name);
    needed
        .map(|other| {
            let names = other.name == field.name || is_reference(other);
            let value = if names { named(other, uuid) } else { plausible(other) };
            (other.name.to_owned(), value)
        })
        .collect()
}

fn is_reference(field: &FieldDef) -> bool {
    let is_uuid = matches!(field.kind, FieldType::Uuid | FieldType::List(FieldType::Uuid));
    is_uuid && field.name != "resourceUuid" || field.refs.is_some()
}

fn named(field: &FieldDef, uuid: Uuid) -> Value {
    let uuid = uuid.simple().to_string();
    if matches!(field.kind, FieldType::List(_)) { json!([uuid]) } else { json!(uuid) }
}

fn plausible(field: &FieldDef) -> Value {
    match field.kind {
        FieldType::Text if field.name == "name" => json!("mine"),
        FieldType::Text => json!(field.one_of.first().unwrap_or(&"text")),
        FieldType::Bool => json!(false),
        FieldType::Integer => json!(field.range.map_or(4, |(low, _)| low)),
        FieldType::Uuid => json!(NOBODY.simple().to_string()),
        FieldType::Ip if field.name == "netmask" => json!("255.255.255.0"),
        FieldType::Ip => json!("10.0.0.200"),
        FieldType::Cidr => json!("10.0.0.0/24"),
        FieldType::Mac => json!("02:00:00:00:00:01"),
        FieldType::Time => json!("2026-04-01 13:00:00"),
        FieldType::List(_) => json!([]),
        FieldType::Object => json!({}),
    }
}

/// What a caller is told, with `uuid` named as nobody is.
fn told(
    cloud: &Cloud,
    caller: Caller,
    def: &MessageDef,
    params: Map<String, Value>,
    uuid: Uuid,
) -> String {
    let message = def.name.to_owned();
    let text = match def.answer {
        Answer::Job => {
            let sent = cloud.send(caller, vec![Request { message, params, ..Request::default() }]);
            sent.map_or_else(|error| error.to_string(), |done| format!("{:?}", done.reply))
        }
        Answer::Now => {
            let answer = cloud.look(caller, def.name, Value::Object(params));
            answer.map_or_else(|error| error.to_string(), |answer| answer.to_string())
        }
    };
    text.replace(&uuid.simple().to_string(), &NOBODY.simple().to_string())
}

/// Everything but the audit, in which a deletion of nothing is, too.
fn resources(cloud: &Cloud) -> Vec<Record> {
    cloud.contents().into_iter().filter(|record| record.kind() != Kind::Audit).collect()
}

/// Those that are answered at once and do more than look have no transaction that this could run.
fn is_testable(def: &MessageDef) -> bool {
    let is_look = def.answer == Answer::Now && netloom_control::operation::is_look(def.name);
    def.access == Access::Account && (def.answer == Answer::Job || is_look)
}

#[test]
fn whatever_is_sent_about_anothers_is_answered_as_if_it_were_not_there() {
    let (cloud, caller) = start();
    let (others, mut asked) = (others(&cloud, caller), 0);
    for def in messages().filter(|def| is_testable(def)) {
        for field in
            def.fields.iter().filter(|field| is_reference(field) || field.name == "resourceUuid")
        {
            let of_nobody = told(&cloud, caller, def, about(def, field, NOBODY), NOBODY);
            let fits = |kind: Kind| field.refs.is_none_or(|refs| refs == kind);
            for (kind, uuid) in others.iter().filter(|(kind, _)| fits(*kind)) {
                let before = resources(&cloud);
                let of_another = told(&cloud, caller, def, about(def, field, *uuid), *uuid);
                assert_eq!(of_another, of_nobody, "{} {} of a {kind:?}", def.name, field.name);
                assert!(resources(&cloud) == before, "{} changed a {kind:?}", def.name);
                asked += 1;
            }
        }
    }
    assert!(asked > 50, "only {asked} messages");
}

/// The same, of what is answered at once and does more than look.
#[tokio::test]
async fn what_is_answered_at_once_tells_nothing_of_anothers_either() {
    let (cloud, caller) = start();
    let (_board, reports) = watch::channel(cloud.board.clone());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    let (gate, mut asked) = (Arc::new(Gate::new(jobs, enrolment)), 0);
    let at_once =
        messages().filter(|def| def.answer == Answer::Now && def.access == Access::Account);
    for def in at_once.filter(|def| !netloom_control::operation::is_look(def.name)) {
        let told = async |params: Map<String, Value>, uuid: Uuid| {
            let request = Request { message: def.name.into(), params, ..Request::default() };
            let answer = match gate.command(caller, vec![request]) {
                Ok(command) => gate.answer(command).await,
                Err(error) => Err(error),
            };
            let text = answer.map_or_else(|error| error.to_string(), |answer| answer.to_string());
            text.replace(&uuid.simple().to_string(), &NOBODY.simple().to_string())
        };
        for field in def.fields.iter().filter(|field| is_reference(field)) {
            let of_nobody = told(about(def, field, NOBODY), NOBODY).await;
            let fits = |kind: Kind| field.refs.is_none_or(|refs| refs == kind);
            for (kind, uuid) in others(&cloud, caller).into_iter().filter(|(kind, _)| fits(*kind)) {
                let before = cloud.contents();
                let of_another = told(about(def, field, uuid), uuid).await;
                assert_eq!(of_another, of_nobody, "{} {} of a {kind:?}", def.name, field.name);
                assert!(cloud.contents() == before, "{} changed a {kind:?}", def.name);
                asked += 1;
            }
        }
    }
    assert!(asked >= 2, "only {asked} messages");
}

/// The fields of what an account finds, with conditions over relations: nothing of another's.
#[test]
fn whatever_is_asked_for_nothing_of_anothers_is_found() {
    let (cloud, caller) = start();
    let snapshot = cloud.snapshot();
    for (kind, face) in faces() {
        let query = Query::new(kind, face, caller.scope().unwrap());
        let found = query::run(&query, &Observed::new(&snapshot, &cloud.board)).unwrap();
        let found = found.inventories.unwrap();
        let expected = usize::from(kind == Kind::Account);
        assert_eq!(found.len(), expected, "{}: {found:?}", face.name);
        for entry in inventory::entries(kind).filter(|entry| entry.comparable().is_some()) {
            if matches!(entry, Entry::List(_)) || kind == Kind::Account {
                continue;
            }
            let path = query::Path::read(kind, "q", entry.name()).unwrap();
            let all = query::Condition::read("q", path, query::Operator::NotNull, &[]).unwrap();
            let query =
                Query { conditions: vec![all], tells: query::Tells::Total, ..query.clone() };
            let found = query::run(&query, &Observed::new(&snapshot, &cloud.board)).unwrap();
            assert_eq!(found.total, Some(0), "{} {}", face.name, entry.name());
        }
    }
}

fn shared(cloud: &Cloud) -> Value {
    let snapshot = cloud.snapshot();
    let shared = snapshot.list(Kind::SharedResource);
    let shared: BTreeSet<String> =
        shared.map(|row| row.whole().unwrap().uuid.simple().to_string()).collect();
    json!({"resourceUuids": shared, "all": true})
}
