//! What of ZStack's API there is: `docs/api-coverage.md` is made from the declarations and from a
//! list of ZStack's messages, and must be what it would be if it were made now.
//!
//! `NETLOOM_RENEW=1` writes it. The list, `zstack/messages.json`, has names, paths and fields as
//! they are in zstackio/zstack 5.x (`@RestRequest` and `@APIParam` of
//! `header/.../API*Msg.java` and of the plugins), read in October 2024.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use netloom_model::{
    MessageDef,
    declare::Method,
    resource::{faces, messages},
};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write as _, fs};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api-coverage.md");

/// Why a message will not come, or not as ZStack has it.
const REASONS: &[(&str, &str)] = &[
    ("BatchQuery", "not yet: a Groovy script upstream; `ZQLQuery` takes several statements"),
    ("ResumeLongJob", "nothing suspends a long job: there is none to resume"),
];

#[derive(Deserialize)]
struct Message {
    message: String,
    group: String,
    method: String,
    path: String,
    also: Vec<String>,
    fields: Vec<String>,
}

fn zstack() -> Vec<Message> {
    serde_json::from_str(include_str!("zstack/messages.json")).unwrap()
}

/// A path without the names of its placeholders.
fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Whether a message is there, and what it lacks.
enum Status {
    Done { unknown: Vec<String> },
    Elsewhere,
    Missing,
}

fn status(message: &Message, ours: &BTreeMap<&str, &'static MessageDef>) -> Status {
    if message.message.starts_with("Query") {
        let name = &message.message["Query".len()..];
        return match faces().find(|(_, face)| face.name == name) {
            Some((_, face)) if face.path == message.path => Status::Done { unknown: Vec::new() },
            Some(_) => Status::Elsewhere,
            None => Status::Missing,
        };
    }
    let Some(def) = ours.get(message.message.as_str()) else { return Status::Missing };
    let method = match def.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
    };
    let mut paths = message.also.iter().chain([&message.path]);
    if method != message.method || !paths.any(|path| shape(path) == shape(def.path)) {
        return Status::Elsewhere;
    }
    let known = |field: &&String| {
        let answered_elsewhere =
            ["deleteMode", "resourceUuid", "tagUuids"].contains(&field.as_str());
        answered_elsewhere || def.fields.iter().any(|ours| ours.name == field.as_str())
    };
    let unknown = message.fields.iter().filter(|field| !known(field)).cloned().collect();
    Status::Done { unknown }
}

/// The document.
fn rendered() -> String {
    let ours: BTreeMap<&str, _> = messages().map(|def| (def.name, def)).collect();
    let zstack = zstack();
    let reason = |name: &str| REASONS.iter().find(|(of, _)| *of == name).map(|(_, why)| *why);
    let mut groups: Vec<(&str, Vec<&Message>)> = Vec::new();
    for message in &zstack {
        match groups.last_mut() {
            Some((name, members)) if *name == message.group => members.push(message),
            _ => groups.push((&message.group, vec![message])),
        }
    }
    let mut text = String::from(concat!(
        "# What of ZStack's API there is\n\n",
        "<!-- Made by `NETLOOM_RENEW=1 cargo test -p netloom-model --test coverage`. -->\n\n",
        "All paths are below `/zstack/v1` and `/v1`. *Unknown fields* are those that ZStack's \
         message has and ours does not take yet.\n\n",
        "| group | done | of |\n| --- | ---: | ---: |\n",
    ));
    let is_done = |message: &&&Message| matches!(status(message, &ours), Status::Done { .. });
    for (name, members) in &groups {
        let done = members.iter().filter(is_done).count();
        writeln!(text, "| {name} | {done} | {} |", members.len()).unwrap();
    }
    for (name, members) in &groups {
        let columns = "| message | path | state | unknown fields |\n| --- | --- | --- | --- |";
        writeln!(text, "\n## {name}\n\n{columns}").unwrap();
        for message in members {
            let (state, unknown) = match status(message, &ours) {
                Status::Done { unknown } => ("done", unknown.join(", ")),
                Status::Elsewhere => ("at another path", String::new()),
                Status::Missing => ("not yet", String::new()),
            };
            let state = reason(&message.message).unwrap_or(state);
            let Message { message, method, path, .. } = message;
            writeln!(text, "| {message} | `{method} {path}` | {state} | {unknown} |").unwrap();
        }
    }
    let names: Vec<&str> = zstack.iter().map(|message| message.message.as_str()).collect();
    let own: Vec<&str> = ours.keys().filter(|name| !names.contains(*name)).copied().collect();
    writeln!(text, "\n## Messages that ZStack does not have\n\n{}", own.join(", ")).unwrap();
    text
}

#[test]
fn the_document_says_what_there_is() {
    let text = rendered();
    if std::env::var("NETLOOM_RENEW").is_ok_and(|value| value == "1") {
        fs::write(DOCUMENT, &text).unwrap();
    }
    let written = fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(written == text, "docs/api-coverage.md is old: run this test with NETLOOM_RENEW=1");
}

#[test]
fn whatever_has_zstacks_name_is_where_zstack_has_it() {
    let ours: BTreeMap<&str, _> = messages().map(|def| (def.name, def)).collect();
    let elsewhere = |message: &&Message| matches!(status(message, &ours), Status::Elsewhere);
    let wrong: Vec<_> = zstack().iter().filter(elsewhere).map(|m| m.message.clone()).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_reason_is_about_a_message_of_zstack_that_is_not_there() {
    let ours: BTreeMap<&str, _> = messages().map(|def| (def.name, def)).collect();
    for (name, why) in REASONS {
        let zstack = zstack();
        let message = zstack.iter().find(|message| message.message == *name).unwrap();
        assert!(!matches!(status(message, &ours), Status::Done { .. }), "{name}: {why}");
    }
}
