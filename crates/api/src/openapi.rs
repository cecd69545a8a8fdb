//! The OpenAPI 3.1 document of the REST door, made from the declarations, and a page to try it.
//!
//! Neither needs a session: they tell what there may be, not what there is.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use control::{Gate, inventory};
use model::{
    FieldDef, FieldType, Kind, MessageDef,
    declare::{Access, Answer, FieldsIn, Method},
    resource::{faces, messages},
    shown::{Child, Face, Shown},
};
use serde_json::{Map, Value, json};

/// What the page may load and ask: this server alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The document and the page.
pub(crate) fn routes() -> Router<Arc<Gate>> {
    let document = Bytes::from(document().to_string());
    let document = move || async move { file("application/json", document) };
    let page = || async { file("text/html; charset=utf-8", PAGE.into()) };
    let script = || async { file("text/javascript; charset=utf-8", SCRIPT.into()) };
    let style = || async { file("text/css; charset=utf-8", STYLE.into()) };
    Router::new()
        .route("/openapi.json", get(document))
        .route("/", get(page))
        .route("/docs", get(page))
        .route("/docs/try.js", get(script))
        .route("/docs/try.css", get(style))
}

const PAGE: &str = include_str!("openapi/try.html");
const SCRIPT: &str = include_str!("openapi/try.js");
const STYLE: &str = include_str!("openapi/try.css");

fn file(kind: &'static str, body: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}

/// The document.
pub(crate) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "netloom",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Virtual networks for virtual machines, by ZStack's messages. A write is \
                answered by 202 and the place of its job, or by its result if the request has \
                `Prefer: wait=<seconds>`.",
        },
        "servers": [{"url": "/zstack/v1"}],
        "security": [{"session": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {"session": {
                "type": "apiKey", "in": "header", "name": "Authorization",
                "description": "`OAuth <session uuid>`; LogInByAccount gives a session.",
            }},
            "responses": responses(),
            "schemas": schemas(),
        },
    })
}

/// What is at one path with one method.
#[derive(Default)]
struct Place {
    path: String,
    messages: Vec<&'static MessageDef>,
    query: Option<(Kind, &'static Face)>,
}

/// Paths, each with the names of the first message there: other messages may have other names in the
/// same places, and OpenAPI has one path for all of them.
fn paths() -> Map<String, Value> {
    let mut places: BTreeMap<(String, Method), Place> = BTreeMap::new();
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let mut place = |path: &str, method| {
        let shape: Vec<_> =
            path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
        let shape = shape.join("/");
        let path = named.entry(shape.clone()).or_insert_with(|| path.to_owned()).clone();
        ((shape, method), path)
    };
    for def in messages() {
        let (at, path) = place(def.path, def.method);
        let there = places.entry(at).or_default();
        there.path = path;
        there.messages.push(def);
    }
    for (kind, face) in faces() {
        for path in [face.path.to_owned(), format!("{}/{{uuid}}", face.path)] {
            let (at, path) = place(&path, Method::Get);
            let there = places.entry(at).or_default();
            *there = Place { path, query: Some((kind, face)), messages: Vec::new() };
        }
    }
    let mut paths: Map<String, Value> = Map::new();
    for ((_, method), place) in &places {
        let at = paths.entry(place.path.clone()).or_insert_with(|| json!({}));
        let operation = match place.query {
            Some((kind, face)) => query(kind, face, variables(&place.path).next()),
            None => operation(place),
        };
        at[verb(*method)] = operation;
    }
    paths.insert("/api-jobs/{uuid}".to_owned(), json!({"get": poll()}));
    paths.insert("/events".to_owned(), json!({"get": follow()}));
    paths
}

const fn verb(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
    }
}

/// The names in a path.
fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operation(place: &Place) -> Value {
    let names: Vec<&str> = place.messages.iter().map(|def| def.name).collect();
    let docs = place.messages.iter().map(|def| format!("{}: {}", def.name, def.doc));
    let first = place.messages.first();
    let uuid = || json!({"type": "string"});
    let schema_of = |name: &str| {
        let field = first.and_then(|def| def.fields.iter().find(|field| field.name == name));
        field.map_or_else(uuid, value)
    };
    let mut parameters: Vec<Value> = variables(&place.path)
        .map(
            |name| json!({"name": name, "in": "path", "required": true, "schema": schema_of(name)}),
        )
        .collect();
    let in_query = place.messages.iter().filter(|def| def.fields_in == FieldsIn::Query);
    for def in in_query {
        let others = def.fields.iter().filter(|field| variables(def.path).all(|v| v != field.name));
        parameters.extend(others.map(|field| {
            json!({
                "name": field.name, "in": "query", "required": field.required,
                "description": field.doc, "schema": value(field),
            })
        }));
        if def.method == Method::Delete && def.fields.iter().all(|f| f.name != "deleteMode") {
            let modes = json!({"type": "string", "enum": ["Permissive", "Enforcing", ""]});
            parameters.push(json!({"name": "deleteMode", "in": "query", "schema": modes}));
        }
    }
    let mut operation = json!({
        "operationId": names.join("_"),
        "summary": names.join(", "),
        "description": docs.collect::<Vec<_>>().join("\n\n"),
        "parameters": parameters,
        "responses": answers(&place.messages),
    });
    if let Some(body) = body(&place.messages) {
        operation["requestBody"] = body;
    }
    if place.messages.iter().all(|def| def.access == Access::Open) {
        operation["security"] = json!([]);
    }
    operation
}

/// The bodies of messages at one place; `None` if they have none.
fn body(messages: &[&'static MessageDef]) -> Option<Value> {
    let tags = json!({"type": ["array", "null"], "items": {"type": "string"}});
    let wrapped = |def: &&&'static MessageDef| {
        let mut properties = json!({"systemTags": tags, "userTags": tags});
        let mut required: Vec<&str> = Vec::new();
        match def.fields_in {
            FieldsIn::Query => return None,
            FieldsIn::Path => {}
            FieldsIn::Below(key) => {
                properties[key] = json!({"$ref": format!("#/components/schemas/{}", def.name)});
                required.push(key);
            }
        }
        Some(json!({"type": "object", "properties": properties, "required": required}))
    };
    let mut bodies: Vec<Value> = messages.iter().filter_map(|def| wrapped(&def)).collect();
    let schema = match bodies.len() {
        0 => return None,
        1 => bodies.remove(0),
        _ => json!({"oneOf": bodies}),
    };
    Some(json!({"content": {"application/json": {"schema": schema}}}))
}

fn answers(messages: &[&'static MessageDef]) -> Value {
    let is_job = messages.iter().any(|def| def.answer == Answer::Job);
    let shown: Vec<Kind> = messages.iter().filter_map(|def| def.creates).collect();
    let mut properties = json!({
        "messages": {"type": "array", "items": {"type": "string"}},
        "schema": {"$ref": "#/components/schemas/JavaClasses"},
    });
    properties["inventory"] = match &shown[..] {
        [kind] if messages.len() == 1 => reference(*kind),
        _ => json!({"type": "object"}),
    };
    let result = json!({"type": "object", "properties": properties});
    let mut answers = json!({
        "200": {
            "description": if is_job { "The result, if the request waits for it." } else { "The result." },
            "content": {"application/json": {"schema": result}},
        },
        "414": {"$ref": "#/components/responses/Cut"},
            "431": {"$ref": "#/components/responses/Cut"},
            "4XX": {"$ref": "#/components/responses/Refused"},
        "503": {"$ref": "#/components/responses/Failed"},
    });
    if is_job {
        answers["202"] = json!({"$ref": "#/components/responses/Accepted"});
    }
    answers
}

/// A query of a face; of one resource, if its path names one.
fn query(kind: Kind, face: &Face, one: Option<&str>) -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 0});
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(name) = one {
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": text}));
    } else {
        let conditions = json!({"type": "array", "items": {"type": "string"}});
        let flag = json!({"type": "boolean"});
        for (name, schema, says) in [
            (
                "q",
                &conditions,
                "Conditions, AND-ed: <field><op><value>, <relation>.<field><op><value>.",
            ),
            ("limit", &number, "How many are given; 1000 if it is not said."),
            ("start", &number, "How many are left out at the beginning."),
            ("after", &text, "Only those whose uuid comes after this one."),
            ("count", &flag, "Only how many there are."),
            ("replyWithCount", &flag, "How many there are, too."),
            ("sort", &text, "+field or -field."),
            ("groupBy", &text, "Only the first of those with the same value in this field."),
            ("fields", &text, "What is shown of each, separated by commas."),
        ] {
            parameters
                .push(json!({"name": name, "in": "query", "description": says, "schema": schema}));
        }
    }
    let found = json!({
        "type": "object",
        "properties": {
            "inventories": {"type": "array", "items": reference(kind)},
            "total": number,
            "messages": {"type": "array", "items": {"type": "string"}},
            "schema": {"$ref": "#/components/schemas/JavaClasses"},
        },
        "additionalProperties": false,
    });
    let name = if one.is_some() {
        format!("Query{}_one", face.name)
    } else {
        format!("Query{}", face.name)
    };
    json!({
        "operationId": name,
        "summary": format!("Query{}", face.name),
        "description": kind.def().doc,
        "parameters": parameters,
        "responses": {
            "200": {"description": "What was found.", "content": {"application/json": {"schema": found}}},
            "414": {"$ref": "#/components/responses/Cut"},
            "431": {"$ref": "#/components/responses/Cut"},
            "4XX": {"$ref": "#/components/responses/Refused"},
            "503": {"$ref": "#/components/responses/Failed"},
        },
    })
}

fn poll() -> Value {
    json!({
        "operationId": "PollJob",
        "summary": "What became of a job",
        "security": [],
        "parameters": [{"name": "uuid", "in": "path", "required": true, "schema": {"type": "string"}}],
        "responses": {
            "200": {
                "description": "It is done: its result.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "202": {
                "description": "It is not decided yet.",
                "content": {"application/json": {"schema": {
                    "type": "object",
                    "properties": {"waitsFor": {"type": "array", "items": {"type": "string"}}},
                    "additionalProperties": false,
                }}},
            },
            "404": {"$ref": "#/components/responses/Refused"},
            "503": {"$ref": "#/components/responses/Failed"},
        },
    })
}

fn follow() -> Value {
    let says = "A stream of server-sent events: what changes, for what the caller sees. It begins \
        with `start`, whose `revision` is where it begins. Each `changes` has a `revision` and its \
        `changes`: `change` (`created`, `updated`, `deleted`), `resourceType`, `uuid`, and \
        `inventory` as it is now, unless the resource is gone. Sharing shows as a change of its \
        SharedResource alone. A client that comes back with `Last-Event-ID` misses nothing. `gone`: \
        it was too slow; `closed`: its session has ended. After 410 and `gone` it must read \
        everything anew, and follow from the revision that the answer names. To miss nothing, open \
        the stream first, then read.";
    let revision = json!({"type": "integer", "minimum": 0});
    let text = json!({"type": "string"});
    let parameter = |name: &str, within: &str, schema: &Value, says: &str| json!({"name": name, "in": within, "schema": schema, "description": says});
    json!({
        "operationId": "FollowEvents",
        "summary": "What changes, as it happens",
        "description": says,
        "parameters": [
            parameter("after", "query", &revision, "Tell what followed this revision; from now on \
                if absent."),
            parameter("resourceType", "query", &json!({"type": "array", "items": text}), "Only \
                resources of these types, such as VmInstanceVO."),
            parameter("Last-Event-ID", "header", &revision, "The id of the last event that was \
                seen; it counts more than `after`."),
        ],
        "responses": {
            "200": {"description": "The stream.", "content": {"text/event-stream": {}}},
            "4XX": {"$ref": "#/components/responses/Refused"},
            "503": {"$ref": "#/components/responses/Failed"},
        },
    })
}

fn responses() -> Value {
    let error = json!({"schema": {"$ref": "#/components/schemas/Failure"}});
    json!({
        // The HTTP library says so itself, before anybody has read the request.
        "Cut": {"description": "The address, or the headers, are too long. There is no text."},
        "Accepted": {
            "description": "It is being done; its job tells what becomes of it.",
            "content": {"application/json": {"schema": {
                "type": "object",
                "properties": {"location": {"type": "string"}, "apiTimeout": {"type": "integer"}},
                "required": ["location", "apiTimeout"],
                "additionalProperties": false,
            }}},
        },
        "Refused": {
            "description": "A broken request, in plain text; or an error, if the request waits for its result.",
            "content": {"text/plain": {"schema": {"type": "string"}}, "application/json": error},
        },
        "Failed": {"description": "An error.", "content": {"application/json": error}},
    })
}

fn schemas() -> Map<String, Value> {
    let text = json!({"type": "string"});
    let mut schemas = Map::new();
    let mut put = |name: &str, schema| drop(schemas.insert(name.to_owned(), schema));
    put("JavaClasses", json!({"type": "object", "additionalProperties": text}));
    put(
        "Failure",
        json!({
            "type": "object",
            "properties": {"error": {
                "type": "object",
                "properties": {
                    "code": text, "description": text, "details": text, "elaboration": text,
                    "opaque": {
                        "type": "object",
                        "properties": {"rule": text, "field": text, "hint": text},
                        "additionalProperties": false,
                    },
                },
                "required": ["code", "description", "details", "opaque"],
                "additionalProperties": false,
            }},
            "required": ["error"],
            "additionalProperties": false,
        }),
    );
    for def in messages().filter(|def| matches!(def.fields_in, FieldsIn::Below(_))) {
        put(def.name, fields(def));
    }
    for kind in Kind::ALL.iter().filter(|kind| is_seen(**kind)) {
        put(&format!("{}Inventory", kind.def().name), inventory_of(*kind));
    }
    schemas
}

/// Whether answers show resources of a kind.
fn is_seen(kind: Kind) -> bool {
    let is_made = messages().any(|def| def.creates == Some(kind));
    let hangs = |child: &Child| child.kind == kind && child.shown != Shown::No;
    let is_part = Kind::ALL.iter().any(|of| of.def().children.iter().any(hangs));
    !kind.def().faces.is_empty() || is_made || is_part
}

fn reference(kind: Kind) -> Value {
    json!({"$ref": format!("#/components/schemas/{}Inventory", kind.def().name)})
}

/// The fields of a message below its key; those in its path may be left out there.
fn fields(def: &MessageDef) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in def.fields {
        properties.insert(field.name.to_owned(), described(field, value(field)));
        if field.required && variables(def.path).all(|name| name != field.name) {
            required.push(field.name);
        }
    }
    if def.creates.is_some() {
        let uuid = || json!({"type": ["string", "null"]});
        properties.entry("resourceUuid").or_insert_with(uuid);
        let tags = json!({"type": ["array", "null"], "items": {"type": "string"}});
        properties.insert("tagUuids".to_owned(), tags);
    }
    json!({"type": "object", "description": def.doc, "properties": properties, "required": required})
}

/// Everything that an inventory may show; what is empty is left out.
fn inventory_of(kind: Kind) -> Value {
    let mut properties = Map::new();
    for entry in inventory::entries(kind) {
        let schema = match (entry, entry.field()) {
            (inventory::Entry::List(child), _) => {
                json!({"type": "array", "items": reference(child.kind)})
            }
            (_, Some(field)) => described(field, shown(field)),
            (_, None) => json!({}),
        };
        properties.insert(entry.name().to_owned(), schema);
    }
    let names = json!({"type": "array", "items": {"type": "string"}});
    properties.insert(inventory::TRUNCATED.to_owned(), names);
    json!({
        "type": "object",
        "description": kind.def().doc,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn described(field: &FieldDef, mut schema: Value) -> Value {
    schema["description"] = field.doc.into();
    schema
}

/// What a field of a message may be.
fn value(field: &FieldDef) -> Value {
    let mut schema = of_type(field.kind);
    if let Some((low, high)) = field.range {
        schema["minimum"] = low.into();
        schema["maximum"] = high.into();
    }
    if field.kind == FieldType::Text && field.one_of.is_empty() {
        schema["maxLength"] = field.max_len.into();
    }
    if let FieldType::List(_) = field.kind {
        schema["maxItems"] = field.max_len.into();
    }
    if !field.one_of.is_empty() {
        schema["enum"] = field.one_of.iter().copied().collect();
    }
    match (field.required, schema.get("enum").is_some()) {
        (false, false) => match &mut schema["type"] {
            Value::Array(types) => types.push("null".into()),
            one => *one = json!([one, "null"]),
        },
        (false, true) => schema = json!({"anyOf": [schema, {"type": "null"}]}),
        (true, _) => {}
    }
    schema
}

/// What a field of an inventory is.
fn shown(field: &FieldDef) -> Value {
    let mut schema = match field.kind {
        FieldType::Uuid => json!({"type": "string", "pattern": "^[0-9a-f]{32}$"}),
        kind => of_type(kind),
    };
    if !field.one_of.is_empty() {
        schema["enum"] = field.one_of.iter().copied().collect();
    }
    schema
}

fn of_type(kind: FieldType) -> Value {
    match kind {
        FieldType::Text | FieldType::Cidr | FieldType::Mac | FieldType::Time => {
            json!({"type": "string"})
        }
        FieldType::Uuid => json!({"type": "string", "pattern": "^[0-9a-fA-F-]{32,36}$"}),
        FieldType::Ip => {
            json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
        }
        FieldType::Bool => json!({"type": "boolean"}),
        FieldType::Integer => json!({"type": "integer"}),
        FieldType::Object => json!({"type": ["object", "array"]}),
        FieldType::List(item) => json!({"type": "array", "items": of_type(*item)}),
    }
}

#[cfg(test)]
#[path = "openapi/tests.rs"]
mod tests;
