//! Requests: from path, query string and body to a message's fields.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use control::validate;
use model::{
    Error, Id, MessageDef, Result,
    declare::{Body, Method},
    resource::job::Job,
};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What a request says, apart from who sent it.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) params: Map<String, Value>,
    pub(crate) system_tags: Vec<String>,
    pub(crate) resource_uuid: Option<Uuid>,
}

/// Chooses the message that a body means among those of one path: a PUT is told by its key.
///
/// # Errors
/// A text for `400`: no known action.
pub(crate) fn choose(
    defs: &[&'static MessageDef],
    body: &Map<String, Value>,
) -> std::result::Result<&'static MessageDef, String> {
    let fits = |def: &&&MessageDef| match def.body {
        Body::Below(key) => body.contains_key(key),
        Body::Path | Body::Query => true,
    };
    defs.iter().find(fits).copied().ok_or_else(|| {
        let keys = defs.iter().filter_map(|def| match def.body {
            Body::Below(key) => Some(format!("\"{key}\"")),
            Body::Path | Body::Query => None,
        });
        format!("the body needs one of the keys {}", keys.collect::<Vec<_>>().join(", "))
    })
}

/// Reads a message's fields; path variables win over the body.
///
/// # Errors
/// [`model::Code::InvalidArgument`] naming the field.
pub(crate) fn parse(
    def: &MessageDef,
    path: &BTreeMap<String, String>,
    query: &[(String, String)],
    mut body: Map<String, Value>,
) -> Result<Parsed> {
    let mut parsed = Parsed { params: fields(def, query, &mut body)?, ..Parsed::default() };
    parsed.system_tags = tags(&mut body, "systemTags")?;
    // User tags are labels for people; there is nothing to label yet, so only their form counts.
    tags(&mut body, "userTags")?;
    if let Some(unknown) = body.keys().next() {
        let error = Error::field(unknown, "is not known beside the message");
        return Err(error.hint("systemTags and userTags are; fields go below the message's key"));
    }
    for (name, text) in path {
        if let Some(field) = def.fields.iter().find(|field| field.name == name) {
            parsed.params.insert(name.clone(), field.from_text(text));
        }
    }
    if def.creates.is_some()
        && let Some(wanted) = parsed.params.remove("resourceUuid")
        && !wanted.is_null()
    {
        let uuid = wanted.as_str().and_then(model::id::parse_uuid);
        let hint = "32 lower-case hex digits without dashes, or leave it out";
        let wrong = || Error::field("resourceUuid", format!("{wanted} is not a uuid")).hint(hint);
        parsed.resource_uuid = Some(uuid.ok_or_else(wrong)?);
    }
    if def.creates.is_some() {
        // Labels for people, as user tags are: only their form counts.
        let tags = tags(&mut parsed.params, "tagUuids")?;
        if let Some(tag) = tags.iter().find(|tag| model::id::parse_uuid(tag).is_none()) {
            return Err(Error::field("tagUuids", format!("\"{tag}\" is not a uuid")));
        }
    }
    if def.method == Method::Delete {
        delete_mode(parsed.params.remove("deleteMode").as_ref())?;
    }
    validate::check(def, &parsed.params)?;
    Ok(parsed)
}

fn fields(
    def: &MessageDef,
    query: &[(String, String)],
    body: &mut Map<String, Value>,
) -> Result<Map<String, Value>> {
    let Body::Below(key) = def.body else {
        let typed = query.iter().map(|(name, text)| {
            let field = def.fields.iter().find(|field| field.name == name);
            let value = field.map_or_else(|| text.as_str().into(), |f| f.from_text(text));
            (name.clone(), value)
        });
        return Ok(typed.collect());
    };
    match body.remove(key) {
        Some(Value::Object(params)) => Ok(params),
        _ => Err(Error::field(key, "must be a JSON object").hint(validate::usage(def))),
    }
}

fn tags(body: &mut Map<String, Value>, name: &str) -> Result<Vec<String>> {
    let wrong = || Error::field(name, "must be a list of texts");
    match body.remove(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => {
            let text = |tag: &Value| tag.as_str().map(str::to_owned).ok_or_else(wrong);
            tags.iter().map(text).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Both of ZStack's modes mean the same here: what is in use is never deleted.
fn delete_mode(mode: Option<&Value>) -> Result<()> {
    match mode.map(Value::as_str) {
        None | Some(Some("Permissive" | "Enforcing")) => Ok(()),
        Some(_) => {
            let error = Error::field("deleteMode", "is not one of Permissive, Enforcing");
            Err(error.hint("leave it out"))
        }
    }
}

/// The session in `Authorization: OAuth <session>`.
pub(crate) fn session(headers: &HeaderMap) -> std::result::Result<&str, &'static str> {
    let header = headers.get(header::AUTHORIZATION).ok_or("the Authorization header is missing")?;
    let text = header.to_str().unwrap_or_default();
    text.strip_prefix("OAuth ").map(str::trim).ok_or("Authorization must be: OAuth <session uuid>")
}

/// The caller's own job uuid, for repeating a call safely.
pub(crate) fn job(headers: &HeaderMap) -> std::result::Result<Id<Job>, &'static str> {
    match headers.get("x-job-uuid") {
        None => Ok(Id::new(Uuid::new_v4())),
        Some(text) => {
            let uuid = text.to_str().ok().and_then(model::id::parse_uuid);
            uuid.map(Id::new).ok_or("X-Job-UUID must be 32 lower-case hex digits")
        }
    }
}

/// How long the caller lets the job wait for hosts, in seconds.
pub(crate) fn timeout_seconds(headers: &HeaderMap) -> i64 {
    let given = headers.get("x-api-timeout").and_then(|text| text.to_str().ok()?.parse().ok());
    given.filter(|seconds| *seconds > 0).unwrap_or(control::jobs::TIMEOUT_SECONDS)
}

/// `Prefer: wait=<seconds>` (RFC 7240 §4.3): answer with the job's result if it is done by then.
pub(crate) fn patience_seconds(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("prefer")?.to_str().ok()?;
    text.split(',').find_map(|part| part.trim().strip_prefix("wait=")?.parse().ok())
}
