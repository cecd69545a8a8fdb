//! What a request consists of, for property tests and fuzzing: whatever it says, nothing panics.

use axum::{
    extract::Query as QueryString,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri},
};
use control::{
    Caller, Operations, Unknown,
    inventory::Observed,
    query::{self as search, Query, Scope},
};
use damage::Target;
use model::{
    FieldDef, FieldType, Id, Kind, MessageDef, Record, Timestamp,
    declare::FieldsIn,
    resource::{account::ADMIN, faces, messages},
    shown::Face,
    status::Board,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::Store;

use crate::{
    door::UNTOLD,
    events::Wanted,
    headers, old, query,
    request::{self, Parts},
    serve, strict,
};

/// All of them.
pub const TARGETS: &[Target] = &[QUERY, BODY, OLD, HEADERS, EVENTS];

/// A face of a resource and a query string: `VmInstance?q=name=a`.
pub const QUERY: Target =
    Target { name: "api_query", read: query_string, samples: || owned(&QUERIES) };

/// A message's name and, after a blank, the body of its request.
pub const BODY: Target = Target { name: "api_body", read: body, samples: bodies };

/// A body of the protocol before REST.
pub const OLD: Target = Target { name: "api_old", read: old_body, samples: old_bodies };

/// Headers, a line each.
pub const HEADERS: Target =
    Target { name: "api_headers", read: header_lines, samples: || owned(&LINES) };

/// A `Last-Event-ID` and, in the next line, the query string beside it.
pub const EVENTS: Target = Target {
    name: "api_events",
    read: events,
    samples: || owned(&["7\nafter=3", "0\nresourceType=ZoneVO"]),
};

const QUERIES: [&str; 6] = [
    "VmNic?q=ip=10.0.0.1&q=vmInstance.name~=a%25&start=5&limit=10&replyWithCount=true&sort=-deviceId",
    "VmInstance?q=createDate?=2026-01-01%2000:00:00,Apr%201,%202026%201:00:00%20PM&count=true",
    "L3Network?q=description%20is%20null&groupBy=name&fields=uuid,name",
    "L2Network?q=vni!?=1,2&q=__systemTag__=a::b&after=0123456789abcdef0123456789abcdef",
    "Zone?q=name!~=%25b&sort=%2Bname&limit=5&start=0",
    "Host?q=cluster.zone.uuid!=0123456789abcdef0123456789abcdef&q=__userTag__~=a",
];

const LINES: [&str; 4] = [
    "Authorization: OAuth 0123456789abcdef0123456789abcdef\nX-Job-UUID: \
     0123456789abcdef0123456789abcdef\nX-API-Timeout: 30\nPrefer: wait=5, handling=strict",
    "Authorization: ZStack id:c2lnbmF0dXJl\nDate: Thu, 01 Jan 1970 00:00:00 GMT",
    "Authorization: OAuth x\nPrefer: respond-async; a=\"b\"\nX-JSON-Schema: true\n\
     X-Forwarded-For: 192.0.2.1, 2001:db8::1\nX-Forwarded-Proto: https",
    "Authorization: ZStack a:b:c\nDate: Thu, 01 Jan 1970 01:00:00 +0100",
];

fn owned(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|sample| sample.as_bytes().to_vec()).collect()
}

fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let uri = Uri::builder().path_and_query(format!("/?{query}")).build().ok()?;
    QueryString::try_from_uri(&uri).ok().map(|QueryString(pairs)| pairs)
}

fn query_string(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((name, query)) = text.split_once('?') else { return false };
    let face = faces().find(|(_, face): &(Kind, &Face)| face.name == name);
    let (Some(face), Some(pairs)) = (face, pairs(query)) else { return false };
    let all = [Unknown::Refuse, Unknown::Name];
    let [_, read] = all.map(|unknown| query::parse(face, Scope::Everything, (&pairs, unknown)));
    read.is_ok_and(|(query, _)| is_answered(&query))
}

/// Asks an empty store.
fn is_answered(query: &Query) -> bool {
    let store: Store<Record> = Store::in_memory().expect("it is in memory");
    let (snapshot, board) = (store.snapshot(), Board::default());
    search::run(query, &Observed::new(&snapshot, &board)).is_ok()
}

fn body(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (name, body) = text.split_once(' ').unwrap_or((&text, ""));
    let Some(def) = messages().find(|def| def.name == name) else { return false };
    let Ok(body) = strict::object(body.as_bytes()) else { return false };
    let path: BTreeMap<String, String> = def
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| (name.to_owned(), UUID.to_owned()))
        .collect();
    let parts = Parts { path: &path, pairs: &[], body, unknown: Unknown::Name };
    request::parse(def, parts).is_ok_and(is_command)
}

fn is_command(request: control::Request) -> bool {
    let admin =
        Caller::Account { id: Id::new(ADMIN), is_admin: true, session: None, source: UNTOLD };
    Operations::default().command(admin, vec![request]).is_ok()
}

const UUID: &str = "0123456789abcdef0123456789abcdef";

/// A body of each message, with all fields that it may have.
fn bodies() -> Vec<Vec<u8>> {
    let all = messages().filter_map(|def| {
        let (name, fields) = (def.name, Value::Object(fields(def)));
        let key = match def.fields_in {
            FieldsIn::Below(key) => key,
            FieldsIn::Path => "params",
            FieldsIn::Query => return None,
        };
        let body = json!({key: fields, "systemTags": ["a::b"], "userTags": []});
        let text = format!("{name} {body}").into_bytes();
        self::body(&text).then_some(text)
    });
    all.collect()
}

fn fields(def: &MessageDef) -> Map<String, Value> {
    def.fields.iter().map(|field| (field.name.to_owned(), value(field))).collect()
}

fn value(field: &FieldDef) -> Value {
    match (field.one_of, field.range) {
        ([first, ..], _) => (*first).into(),
        (_, Some((least, _))) => least.into(),
        _ => of_type(field.kind),
    }
}

fn of_type(kind: FieldType) -> Value {
    match kind {
        FieldType::Text => "a".into(),
        FieldType::Bool => true.into(),
        FieldType::Integer => 1.into(),
        FieldType::Uuid => UUID.into(),
        FieldType::Ip => "10.0.0.1".into(),
        FieldType::Cidr => "10.0.0.0/24".into(),
        FieldType::Mac => "02:00:00:00:00:01".into(),
        FieldType::Time => "2017-11-14 22:20:57".into(),
        FieldType::List(item) => vec![of_type(*item)].into(),
        FieldType::Object => json!({}),
    }
}

fn old_body(bytes: &[u8]) -> bool {
    let Ok(body) = strict::object(bytes) else { return false };
    old::is_understood(body, is_command)
}

fn old_bodies() -> Vec<Vec<u8>> {
    let query = |fields: Value| json!({"org.zstack.header.vm.APIQueryVmNicMsg": fields});
    let all = [
        query(json!({"conditions": [{"name": "ip", "op": "in", "value": ["10.0.0.1"]},
            {"name": "vmInstance.name", "op": "not like", "value": "a%"}], "limit": 10,
            "start": "0", "replyWithCount": true, "sortBy": "ip", "sortDirection": "desc"})),
        query(json!({"conditions": [{"name": "createDate", "op": "?=",
            "value": "2026-01-01 00:00:00,Apr 1, 2026 1:00:00 PM"}], "count": 1,
            "groupBy": "ip", "fields": ["uuid"], "session": {"uuid": UUID}})),
        json!({"org.zstack.header.zone.APICreateZoneMsg": {"name": "z", "description": null,
            "session": {"uuid": UUID}, "timeout": 1000, "systemTags": ["a::b"]}}),
        json!({"a.APIDeleteZoneMsg": {"uuid": UUID, "deleteMode": "Permissive"}}),
    ];
    all.iter().map(|body| body.to_string().into_bytes()).collect()
}

fn header_lines(bytes: &[u8]) -> bool {
    let lines = bytes.split(|byte| *byte == b'\n');
    let headers = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
        Some((name, value))
    });
    let headers: HeaderMap = headers.collect();
    let signed = headers::signed_text(&Method::GET, "/zstack/v1/zones", &headers, Timestamp(0));
    let _ = (headers::wants_schema(&headers), serve::forwarded_for(&headers));
    let is_fine = headers::job(&headers).is_ok()
        & headers::timeout_seconds(&headers, 1).is_ok()
        & headers::preferences(&headers).is_ok();
    match headers::credential(&headers) {
        Ok(headers::Credential::Session(_)) => is_fine,
        Ok(headers::Credential::Key(..)) => is_fine && signed.is_ok(),
        Err(_) => false,
    }
}

fn events(bytes: &[u8]) -> bool {
    let (last, query) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(0));
    let query = String::from_utf8_lossy(query.strip_prefix(b"\n").unwrap_or(query));
    let (Ok(last), Some(pairs)) = (HeaderValue::from_bytes(last), pairs(&query)) else {
        return false;
    };
    let headers = HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), last)]);
    Wanted::read(&pairs, &headers).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
