//! ZStack's protocol before REST: `zstack-cli`, woodpecker and the MCP server speak it.
//!
//! `POST /zstack/api` takes one message under its Java class, with its session within:
//! `{"org.zstack.header.zone.APICreateZoneMsg": {"name": "z", "session": {"uuid": ".."}}}`. The
//! answer's `result` is the text of another such object, the event or reply. Until there is one,
//! `GET /zstack/api/result/<uuid>` asks for it. Errors are in the result too; HTTP's statuses tell
//! of broken requests alone.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use control::{
    Caller, Gate, JobId, JobState, NOTES, NOTES_MAX, command, config, inventory,
    query::{Condition, Direction, Operator, Path as Way, Query, Sort, Tells},
};
use model::{
    Error, FieldType, Id, Kind, MessageDef, Result,
    declare::Answer,
    resource::{faces, job::Job, messages},
    setting::JOB_TIMEOUT,
    shown::Face,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{answer, door, headers, query, request, schema, serve};

/// Longest body, in bytes. Who sends it is told within, so this much of a stranger's is read.
const BODY_MAX_BYTES: usize = 64 << 10;

/// The routes of this protocol.
pub(crate) fn routes() -> Router<Arc<Gate>> {
    let call = post(call).layer(DefaultBodyLimit::max(BODY_MAX_BYTES));
    Router::new().route("/api", call).route("/api/result/{uuid}", get(poll))
}

/// A message as it came: its Java class, and what is in it.
struct Called {
    package: String,
    name: String,
    fields: Map<String, Value>,
}

async fn call(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let source = serve::source(&request);
    let body = match door::read(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Some(called) = called(body) else {
        let text = "the body must be an object with one message under its class, such as \
                    {\"org.zstack.header.zone.APIQueryZoneMsg\": {}}";
        return answer::protocol(StatusCode::BAD_REQUEST, text);
    };
    let Called { package, name, mut fields } = called;
    let done = |ending: &str, result: Result<Value>| {
        let uuid = Uuid::new_v4().simple().to_string();
        answer::ok(envelope(&uuid, &format!("{package}.API{name}{ending}"), result))
    };
    let session = fields.remove("session").unwrap_or_default()["uuid"].take();
    let caller = match session.as_str() {
        Some(session) => gate.caller(session, source),
        None => Ok(Caller::Stranger { source }),
    };
    let caller = match (caller, messages().find(|def| def.name == name)) {
        (Ok(caller), _) => caller,
        // Who logs in anew may still have the session that is over.
        (Err(_), Some(def)) if def.access == model::declare::Access::Open => {
            Caller::Stranger { source }
        }
        (Err(error), _) => return done("Reply", Err(error)),
    };
    if let Some(face) = name.strip_prefix("Query").and_then(face) {
        return done("Reply", find(&gate, &caller, face, fields).await);
    }
    let Some(def) = messages().find(|def| def.name == name) else {
        let error = Error::field("message", format!("{name} is no message"));
        let hint = "docs/api-coverage.md lists what there is of ZStack's messages";
        return done("Reply", Err(error.hint(hint)));
    };
    let sent = send(&gate, caller, def, fields).await;
    if let Err(error) = &sent {
        gate.note_refusal(&caller, def, error).await;
    }
    match (def.answer, sent) {
        (Answer::Now, result) => done("Reply", result.map(|sent| sent.result)),
        (Answer::Job, Err(error)) => done("Event", Err(error)),
        (Answer::Job, Ok(Sent { job, .. })) => {
            let event = format!("{package}.API{name}Event");
            answer::ok(state(&job.to_string(), &event, gate.jobs.state(&caller, job).await))
        }
    }
}

/// Whether a body is a query, or a message that means something.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn is_understood(
    body: Map<String, Value>,
    is_command: fn(control::Request) -> bool,
) -> bool {
    let Some(Called { name, fields, .. }) = called(body) else { return false };
    if let Some((kind, face)) = name.strip_prefix("Query").and_then(face) {
        return read(Query::new(kind, face, control::query::Scope::Everything), &fields).is_ok();
    }
    let def = messages().find(|def| def.name == name);
    def.is_some_and(|def| request::of_fields(def, fields).is_ok_and(is_command))
}

fn called(body: Map<String, Value>) -> Option<Called> {
    let mut body = body.into_iter();
    let (Some((class, Value::Object(fields))), None) = (body.next(), body.next()) else {
        return None;
    };
    let (package, class) = class.rsplit_once('.')?;
    let name = class.strip_prefix("API")?.strip_suffix("Msg")?;
    Some(Called { package: package.to_owned(), name: name.to_owned(), fields })
}

/// What was answered at once, or the job.
struct Sent {
    result: Value,
    job: Id<Job>,
}

async fn send(
    gate: &Arc<Gate>,
    caller: Caller,
    def: &'static MessageDef,
    mut fields: Map<String, Value>,
) -> Result<Sent> {
    command::may_send(&caller, def)?;
    let job = JobId { uuid: Id::new(Uuid::new_v4()), is_chosen: false };
    let default = config::number(&gate.store().snapshot(), &JOB_TIMEOUT);
    let timeout = fields.remove("timeout").and_then(|ms| ms.as_i64()).filter(|ms| *ms > 0);
    let timeout_seconds = timeout.map_or(default, headers::seconds_of);
    let command = gate.command(caller, vec![request::of_fields(def, fields)?])?;
    let mut sent = Sent { result: Value::Null, job: job.uuid };
    match def.answer {
        Answer::Now => sent.result = gate.answer(command).await?,
        Answer::Job => gate.jobs.submit(command, job, timeout_seconds).await?,
    }
    Ok(sent)
}

/// A job that its caller has been told of: the uuid was drawn here, so knowing it is enough.
async fn poll(State(gate): State<Arc<Gate>>, Path(uuid): Path<String>) -> Response {
    let job = model::id::parse_uuid(&uuid).map(Id::new);
    let Some((job, message)) = job.and_then(|job| Some((job, gate.jobs.about(job)?.message)))
    else {
        return answer::protocol(StatusCode::NOT_FOUND, "no such job, or expired");
    };
    let caller = Caller::Stranger { source: IpAddr::from([0, 0, 0, 0]) };
    match gate.jobs.state(&caller, job).await {
        JobState::Unknown => answer::protocol(StatusCode::NOT_FOUND, "no such job, or expired"),
        known => {
            let event = format!("{}.API{message}Event", schema::package(&message));
            answer::ok(state(&job.to_string(), &event, known))
        }
    }
}

fn state(uuid: &str, event: &str, state: JobState) -> Value {
    match state {
        JobState::Unknown | JobState::Processing(_) => json!({"uuid": uuid, "state": "Processing"}),
        JobState::Done(result) => envelope(uuid, event, Ok(result)),
        JobState::Failed(error) => envelope(uuid, event, Err(error)),
    }
}

fn envelope(uuid: &str, class: &str, result: Result<Value>) -> Value {
    let mut event = match result {
        Ok(Value::Object(members)) => members,
        Ok(_) => Map::new(),
        Err(ref error) => Map::from_iter([("error".to_owned(), error.describe())]),
    };
    event.insert("success".to_owned(), (!event.contains_key("error")).into());
    let result = json!({class: event}).to_string();
    json!({"uuid": uuid, "state": "Done", "result": result})
}

fn face(name: &str) -> Option<(Kind, &'static Face)> {
    faces().find(|(_, face)| face.name == name)
}

async fn find(
    gate: &Arc<Gate>,
    caller: &Caller,
    (kind, face): (Kind, &'static Face),
    fields: Map<String, Value>,
) -> Result<Value> {
    let Some(scope) = caller.scope() else {
        let text = format!("Query{} needs a session", face.name);
        return Err(Error::new(model::Code::InvalidSession, text).hint("log in first"));
    };
    let query = read(Query::new(kind, face, scope), &fields)?;
    let is_strange =
        |(key, value): &(&String, &Value)| !KEYS.contains(&key.as_str()) && !value.is_null();
    let strange = fields.iter().filter(is_strange).take(NOTES_MAX);
    let rule = "is not known in a query; it was ignored";
    let notes: Vec<String> = strange.map(|(key, _)| Error::field(key, rule).message).collect();
    let mut found = gate.query(query, query::answer).await?;
    if !notes.is_empty() {
        found[NOTES] = notes.into();
    }
    Ok(found)
}

/// What a query message may have. Its time-out and tags mean nothing here.
const KEYS: [&str; 12] = [
    "conditions",
    "limit",
    "start",
    "count",
    "replyWithCount",
    "sortBy",
    "sortDirection",
    "groupBy",
    "fields",
    "timeout",
    "systemTags",
    "userTags",
];

/// Reads the fields of a query message.
fn read(mut query: Query, fields: &Map<String, Value>) -> Result<Query> {
    let kind = query.kind;
    let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    for condition in fields.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        query.conditions.push(condition_of(kind, condition)?);
    }
    let number = |key: &str, default: usize| match fields.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => query::number(key, &plain(value)),
    };
    query.limit = number("limit", query.limit)?;
    query.start = number("start", query.start)?;
    // The MCP server's documentation has numbers for these.
    let is_set = |key: &str| match fields.get(key) {
        Some(Value::Bool(set)) => *set,
        Some(other) => matches!(plain(other).as_str(), "1" | "true" | "True"),
        None => false,
    };
    query.tells = match (is_set("count"), is_set("replyWithCount")) {
        (true, _) => Tells::Total,
        (false, true) => Tells::PageAndTotal,
        (false, false) => Tells::Page,
    };
    if let Some(by) = text("sortBy") {
        let direction = match text("sortDirection") {
            Some("desc") => Direction::Descending,
            _ => Direction::Ascending,
        };
        query.sort = Some(Sort::by(kind, "sortBy", by, direction)?);
    }
    if let Some(by) = text("groupBy") {
        query.group_by = Some(inventory::single(kind, "groupBy", by)?);
    }
    let shown = fields.get("fields").and_then(Value::as_array).filter(|names| !names.is_empty());
    query.fields = shown
        .map(|names| {
            names.iter().map(|name| inventory::entry(kind, "fields", &plain(name))).collect()
        })
        .transpose()?;
    Ok(query)
}

/// `{"name": .., "op": .., "value": ..}`.
fn condition_of(kind: Kind, condition: &Value) -> Result<Condition> {
    let wrong = |rule: String| {
        let error = Error::field("conditions", rule);
        error.hint(
            "each is {\"name\": a field, \"op\": one of = != > >= < <= in, not in, like, not like, \
                    is null, is not null, \"value\": a text}",
        )
    };
    let Some(name) = condition["name"].as_str() else {
        return Err(wrong(format!("{condition} has no name")));
    };
    let operator = match condition["op"].as_str().unwrap_or("=").trim() {
        "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        "in" | "?=" => Operator::In,
        "not in" | "!?=" => Operator::NotIn,
        "like" | "~=" => Operator::Like,
        "not like" | "!~=" => Operator::NotLike,
        "is null" => Operator::IsNull,
        "is not null" | "not null" => Operator::NotNull,
        other => return Err(wrong(format!("\"{other}\" is no operator"))),
    };
    let path = Way::read(kind, "conditions", name)?;
    let values = values(operator, path.value_type(), &condition["value"]);
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Condition::read("conditions", path, operator, &values)
}

fn values(operator: Operator, kind: FieldType, value: &Value) -> Vec<String> {
    match (operator, value) {
        (Operator::IsNull | Operator::NotNull, _) => Vec::new(),
        (_, Value::Array(items)) => items.iter().map(plain).collect(),
        (Operator::In | Operator::NotIn, value) => crate::condition::items(kind, &plain(value)),
        (_, value) => vec![plain(value)],
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
