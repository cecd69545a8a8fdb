//! Names in the place of uuids.

use client::Client;
use model::{Kind, id::parse_uuid};
use serde_json::Value;

use crate::{
    Error, near,
    noun::{Noun, noun_of},
};

/// Most uuids that an answer about an ambiguous name lists.
const SHOWN_MAX: usize = 10;
/// Most names that are looked at for what was meant.
const LOOKED_AT_MAX: usize = 1000;

/// The uuid of the one resource of a kind that has this name.
///
/// # Errors
/// None has it, or several have, or no answer.
pub(crate) fn uuid_of(client: &Client, kind: Kind, name: &str) -> Result<String, Error> {
    match noun_of(kind) {
        Some(noun) => uuid(client, &noun, name),
        None => Err(Error::Usage(format!("\"{name}\" is not a uuid, which is 32 hex digits"))),
    }
}

/// The same, for the resources of a noun. A uuid stands for itself.
pub(crate) fn uuid(client: &Client, noun: &Noun, name: &str) -> Result<String, Error> {
    if let Some(uuid) = parse_uuid(name) {
        return Ok(uuid.simple().to_string());
    }
    let Some(key) = noun.key() else {
        let text = format!("a {} has no name; \"{name}\" is not a uuid", noun.word);
        return Err(Error::Usage(text));
    };
    let mut found = some(client, noun, key, Some(name), SHOWN_MAX + 1)?;
    // What is destroyed has its name only as long as nobody else has.
    if found.iter().any(|one| !is_gone(one)) {
        found.retain(|one| !is_gone(one));
    }
    let uuids: Vec<&str> = found.iter().filter_map(|one| one["uuid"].as_str()).collect();
    match uuids[..] {
        [one] => Ok(one.to_owned()),
        [] => {
            let all = some(client, noun, key, None, LOOKED_AT_MAX)?;
            let meant = near::hint(name, all.iter().filter_map(|one| one[key].as_str()));
            Err(Error::Name(format!("there is no {} \"{name}\"{meant}", noun.word)))
        }
        _ => {
            let more = if uuids.len() > SHOWN_MAX { ", ..." } else { "" };
            let shown = uuids[..uuids.len().min(SHOWN_MAX)].join(", ");
            let text = format!("\"{name}\" is ambiguous, it may be {} {shown}{more}", noun.word);
            Err(Error::Name(format!("{text}; give one of these uuids")))
        }
    }
}

/// Whether a resource is destroyed, so that it can be recovered and nothing else; its host may not
/// have let go yet.
pub(crate) fn is_gone(row: &Value) -> bool {
    row["state"] == "Destroyed" || row["state"] == "Destroying"
}

/// Names that there are, for completion.
pub(crate) fn some_names(client: &Client, noun: &Noun) -> Vec<String> {
    let Some(key) = noun.key() else { return Vec::new() };
    let found = some(client, noun, key, None, LOOKED_AT_MAX).unwrap_or_default();
    found.iter().filter_map(|one| one[key].as_str().map(str::to_owned)).collect()
}

fn some(
    client: &Client,
    noun: &Noun,
    key: &str,
    name: Option<&str>,
    max: usize,
) -> Result<Vec<Value>, Error> {
    let state = if noun.fields().any(|field| field.name == "state") { ",state" } else { "" };
    let fields = format!("uuid,{key}{state}");
    let mut pairs = vec![("fields".to_owned(), fields), ("limit".to_owned(), max.to_string())];
    if let Some(name) = name {
        pairs.push(("q".to_owned(), format!("{key}={name}")));
    }
    let mut answer = client.query_pairs(noun.face.path, &pairs)?;
    match answer["inventories"].take() {
        Value::Array(found) => Ok(found),
        _ => Ok(Vec::new()),
    }
}
