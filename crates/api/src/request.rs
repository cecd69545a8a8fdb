//! Requests: from path, query string and body to a message's fields.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, StatusCode, header};
use control::{JobId, Request, validate};
use model::{
    Error, FieldType, Id, MessageDef, Result, Timestamp,
    declare::{FieldsIn, Method as Verb},
};
use serde_json::{Map, Value, map::Entry};
use uuid::Uuid;

/// Chooses the message that a body means among those of one path: a PUT is told by its key.
///
/// # Errors
/// A text for `400`: no known action.
pub(crate) fn choose(
    defs: &[&'static MessageDef],
    body: &Map<String, Value>,
) -> std::result::Result<&'static MessageDef, String> {
    let fits = |def: &&&MessageDef| match def.fields_in {
        FieldsIn::Below(key) => body.contains_key(key),
        FieldsIn::Path | FieldsIn::Query => true,
    };
    defs.iter().find(fits).copied().ok_or_else(|| {
        let keys = defs.iter().filter_map(|def| match def.fields_in {
            FieldsIn::Below(key) => Some(format!("\"{key}\"")),
            FieldsIn::Path | FieldsIn::Query => None,
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
) -> Result<Request> {
    let params = fields(def, query, &mut body)?;
    let mut parsed = Request { message: def.name.to_owned(), params, ..Request::default() };
    parsed.system_tags =
        tags(&mut body, "systemTags")?.iter().map(|tag| with_plain_uuids(tag)).collect();
    parsed.user_tags = tags(&mut body, "userTags")?;
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
        let hint = "32 hex digits, with or without dashes; or leave it out";
        let wrong = || Error::field("resourceUuid", format!("{wanted} is not a uuid")).hint(hint);
        parsed.resource_uuid = Some(uuid.ok_or_else(wrong)?);
    }
    if def.creates.is_some() {
        // Labels for people, as user tags are: only their form counts.
        let tags = tags(&mut parsed.params, "tagUuids")?;
        if let Some(tag) = tags.iter().find(|tag| model::id::parse_uuid(tag).is_none()) {
            let error = Error::field("tagUuids", format!("\"{tag}\" is not a uuid"));
            return Err(error.hint("32 hex digits each, with or without dashes; or leave it out"));
        }
    }
    let declares_mode = def.fields.iter().any(|field| field.name == "deleteMode");
    if def.method == Verb::Delete && !declares_mode {
        delete_mode(parsed.params.remove("deleteMode").as_ref())?;
    }
    Ok(parsed)
}

fn fields(
    def: &MessageDef,
    query: &[(String, String)],
    body: &mut Map<String, Value>,
) -> Result<Map<String, Value>> {
    let FieldsIn::Below(key) = def.fields_in else {
        return from_query(def, query);
    };
    match body.remove(key) {
        Some(Value::Object(params)) => Ok(params),
        _ => Err(Error::field(key, "must be a JSON object").hint(validate::usage(def))),
    }
}

/// As ZStack's SDKs write them: a list as a repeated key or as `key.0=..&key.1=..`, a map as
/// `key.sub=..`, whose values are lists.
fn from_query(def: &MessageDef, query: &[(String, String)]) -> Result<Map<String, Value>> {
    let mut params = Map::new();
    for (name, text) in query {
        let (head, sub) = name.split_once('.').unwrap_or((name, ""));
        let field = def.fields.iter().find(|field| field.name == head);
        match field.map(|field| (field, field.kind)) {
            Some((field, FieldType::List(_))) => {
                append(params.entry(head), field.from_text(text));
            }
            Some((_, FieldType::Object)) if !sub.is_empty() => {
                let map = params.entry(head).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    append(map.entry(sub), Value::Array(vec![text.as_str().into()]));
                }
            }
            _ if params.contains_key(name) => {
                return Err(Error::field(name, "is there twice").hint(validate::usage(def)));
            }
            _ => {
                let field = def.fields.iter().find(|field| field.name == name);
                let value = field.map_or_else(|| text.as_str().into(), |f| f.from_text(text));
                params.insert(name.clone(), value);
            }
        }
    }
    Ok(params)
}

fn append(list: Entry<'_>, more: Value) {
    let list = list.or_insert_with(|| Value::Array(Vec::new()));
    if let (Value::Array(list), Value::Array(more)) = (list, more) {
        list.extend(more);
    }
}

/// A system tag whose uuids have the form in which handlers look for them.
fn with_plain_uuids(tag: &str) -> String {
    let plain = |part: &str| match model::id::parse_uuid(part) {
        Some(uuid) => uuid.simple().to_string(),
        None => part.to_owned(),
    };
    tag.split("::").map(plain).collect::<Vec<_>>().join("::")
}

fn tags(body: &mut Map<String, Value>, name: &str) -> Result<Vec<String>> {
    let wrong = || {
        let error = Error::field(name, "must be a list of texts");
        error.hint(format!("such as \"{name}\": [\"a\", \"b\"]; or leave it out"))
    };
    match body.remove(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => {
            let text = |tag: &Value| tag.as_str().map(str::to_owned).ok_or_else(wrong);
            tags.iter().map(text).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Both of ZStack's modes mean the same for a message that does not declare them: what is deleted
/// along, and what refuses, is declared.
fn delete_mode(mode: Option<&Value>) -> Result<()> {
    match mode.map(Value::as_str) {
        None | Some(Some("Permissive" | "Enforcing")) => Ok(()),
        Some(_) => {
            let error = Error::field("deleteMode", "is not one of Permissive, Enforcing");
            Err(error.hint("leave it out"))
        }
    }
}

/// How a caller says who it is.
pub(crate) enum Credential<'a> {
    /// `Authorization: OAuth <session>`.
    Session(&'a str),
    /// `Authorization: ZStack <access key>:<signature>`.
    Key(&'a str, &'a str),
}

/// What a caller shows.
pub(crate) fn credential(headers: &HeaderMap) -> std::result::Result<Credential<'_>, &'static str> {
    let header = headers.get(header::AUTHORIZATION).ok_or("the Authorization header is missing")?;
    let text = header.to_str().unwrap_or_default();
    if let Some(session) = text.strip_prefix("OAuth ") {
        return Ok(Credential::Session(session.trim()));
    }
    let key = text.strip_prefix("ZStack ").and_then(|key| key.trim().split_once(':'));
    key.map(|(id, signature)| Credential::Key(id, signature))
        .ok_or("Authorization must be: OAuth <session uuid>, or ZStack <access key id>:<signature>")
}

/// How far the date of a signed request and the server's clock may be apart, in seconds: a signature
/// that somebody has seen is of use for no longer.
const SKEW_SECONDS: i64 = 900;

/// The text that is signed with an access key: method, date and path, a line each.
///
/// # Errors
/// The status and text of the answer to a request without a date of these minutes.
pub(crate) fn signed_text(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> std::result::Result<String, (StatusCode, &'static str)> {
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok()).unwrap_or_default();
    let Some(at) = Timestamp::of_http(date) else {
        let text = "a signed request needs a Date header, such as Tue, 14 Nov 2017 22:20:57 GMT";
        return Err((StatusCode::BAD_REQUEST, text));
    };
    if at < now.plus_seconds(-SKEW_SECONDS) || at > now.plus_seconds(SKEW_SECONDS) {
        let text =
            "requestTimeTooSkewed: the Date header is over 15 minutes from the server's time";
        return Err((StatusCode::FORBIDDEN, text));
    }
    let path = path.strip_prefix("/zstack").unwrap_or(path);
    Ok(format!("{method}\n{date}\n{path}"))
}

/// The caller's own job uuid, for repeating a call safely.
pub(crate) fn job(headers: &HeaderMap) -> std::result::Result<JobId, &'static str> {
    match headers.get("x-job-uuid") {
        None => Ok(JobId { uuid: Id::new(Uuid::new_v4()), is_chosen: false }),
        Some(text) => {
            let uuid = text.to_str().ok().and_then(model::id::parse_uuid);
            let job = uuid.map(|uuid| JobId { uuid: Id::new(uuid), is_chosen: true });
            job.ok_or("X-Job-UUID must be a uuid: 32 hex digits, with or without dashes")
        }
    }
}

/// Longest time that a job may be told to wait for hosts, in seconds: a day.
const TIMEOUT_SECONDS_MAX: i64 = 86_400;
/// Longest time that a request may be told to wait for its job, in seconds.
const PATIENCE_SECONDS_MAX: u64 = 3600;

/// How long the caller lets the job wait for hosts, in seconds; `default` if it does not say.
///
/// # Errors
/// A text for `400`: the header is there and says something else.
pub(crate) fn timeout_seconds(
    headers: &HeaderMap,
    default: i64,
) -> std::result::Result<i64, String> {
    let Some(given) = headers.get("x-api-timeout") else {
        return Ok(default);
    };
    let seconds = given.to_str().ok().and_then(|text| text.trim().parse().ok());
    seconds.filter(|seconds| (1..=TIMEOUT_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        format!(
            "X-API-Timeout must be a whole number of seconds from 1 to {TIMEOUT_SECONDS_MAX}, \
             or be left out: then it is {default}"
        )
    })
}

/// `Prefer: wait=<seconds>` (RFC 7240 §4.3): answer with the job's result if it is done by then.
/// Other preferences are passed over, as the RFC wants it.
///
/// # Errors
/// A text for `400`: `wait` is there and is no such number.
pub(crate) fn patience_seconds(headers: &HeaderMap) -> std::result::Result<Option<u64>, String> {
    let wrong = || {
        format!(
            "Prefer: wait= must be a whole number of seconds from 0 to {PATIENCE_SECONDS_MAX}, \
             such as Prefer: wait=30"
        )
    };
    let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
    let preferences = lines.flat_map(|line| line.split(','));
    for preference in preferences {
        let first = preference.split(';').next().unwrap_or_default();
        let (name, value) = first.split_once('=').unwrap_or((first, ""));
        if !name.trim().eq_ignore_ascii_case("wait") {
            continue;
        }
        let seconds = value.trim().trim_matches('"').parse().ok();
        let seconds = seconds.filter(|seconds| *seconds <= PATIENCE_SECONDS_MAX);
        // Of several, the first one counts.
        return seconds.map(Some).ok_or_else(wrong);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_maps_are_read_in_each_form_that_sdks_write() {
        let def = |name: &str| {
            model::resource::messages().find(|def| def.name == name).expect("it is declared")
        };
        let read = |name: &str, query: &[(&str, &str)]| {
            let query: Vec<_> =
                query.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            from_query(def(name), &query).map(Value::Object)
        };
        let expected = serde_json::json!({"l3NetworkUuids": ["a", "b", "c"], "all": true});
        for query in [
            [("l3NetworkUuids", "a"), ("l3NetworkUuids", "b, c"), ("all", "true")],
            [("l3NetworkUuids.0", "a,b"), ("all", "true"), ("l3NetworkUuids.1", "c")],
        ] {
            assert_eq!(read("GetIpAddressCapacity", &query).unwrap(), expected);
        }
        assert!(read("GetIpAddressCapacity", &[("all", "true"), ("all", "true")]).is_err());
        let services = [("networkServices.p", "DHCP"), ("networkServices.p", "DNS")];
        let read = read("DetachNetworkServiceFromL3Network", &services).unwrap();
        assert_eq!(read, serde_json::json!({"networkServices": {"p": ["DHCP", "DNS"]}}));
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds_within_a_day() {
        let check = |value: &str| timeout_seconds(&headers("x-api-timeout", value), 1800).ok();
        assert_eq!(timeout_seconds(&HeaderMap::new(), 7), Ok(7));
        assert_eq!([check("1"), check(" 86400 ")], [Some(1), Some(86_400)]);
        for odd in ["", "0", "-1", "86401", "soon", "1.5", "10s", "99999999999999999999"] {
            assert_eq!(check(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_preference_to_wait_is_read_among_others() {
        let check = |value: &str| patience_seconds(&headers("prefer", value)).ok();
        for (text, expected) in [
            ("wait=30", Some(30)),
            ("respond-async, wait=0", Some(0)),
            ("Wait = \"7\"; x=1", Some(7)),
            ("return=minimal", None),
            ("wait=1, wait=2", Some(1)),
        ] {
            assert_eq!(check(text), Some(expected), "{text}");
        }
        for odd in ["wait", "wait=", "wait=x", "wait=-1", "wait=3601", "a=b, wait=1.5"] {
            assert_eq!(check(odd), None, "{odd}");
        }
    }
}
