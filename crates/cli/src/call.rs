//! `netloom CreateZone name=z1` and `netloom QueryZone name=z1 limit=5`.

use std::io::{self, Write};

use client::Error::UnknownMessage;
use model::{Kind, MessageDef, declare::Access, resource::faces, shown::Face};
use serde_json::{Map, Value, json};

use crate::{Connection, Error, describe};

/// Keys of a query that are not conditions.
const QUERY_OPTIONS: [&str; 8] =
    ["limit", "start", "after", "count", "replyWithCount", "sort", "groupBy", "fields"];

/// With any of these the answer is shown as the server gives it; without, page by page to the end.
const PAGE_OPTIONS: [&str; 7] =
    ["limit", "start", "after", "count", "replyWithCount", "sort", "groupBy"];

pub(crate) fn run(connection: &Connection, words: &[String]) -> Result<(), Error> {
    let Some((name, arguments)) = words.split_first() else {
        return Err(Error::Usage("name a message; `netloom messages` lists them".into()));
    };
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        crate::print(&describe::one(name)?.trim_end())?;
        return Ok(());
    }
    let result = match queried(name) {
        Some((_, face)) => {
            let pairs: Vec<_> = arguments.iter().map(|word| query_pair(word)).collect();
            let is_page = pairs.iter().any(|(key, _)| PAGE_OPTIONS.contains(&key.as_str()));
            connection.with(|client| match is_page {
                true => Ok(client.query_pairs(face.path, &pairs)?),
                false => Ok(json!({"inventories": client.query_all(face.path, &pairs)?})),
            })?
        }
        None => {
            let def = client::message(name)?;
            if is_about_sessions(def) {
                return Err(Error::Usage(format!("{name} is what `netloom login` is for")));
            }
            let (params, tags) = params(def, arguments)?;
            connection.with(|client| Ok(client.call_and_hear(name, params, &tags, tell)?))?
        }
    };
    crate::print(&format_args!("{result:#}"))?;
    Ok(())
}

/// Whether a message opens, closes or checks a session. The command line does that by itself.
fn is_about_sessions(def: &MessageDef) -> bool {
    def.access == Access::Open
}

/// Says what a call waits for, beside its result.
fn tell(reasons: &[&str]) {
    for reason in reasons {
        // Nobody may read it any more; the call goes on.
        let _ = writeln!(io::stderr(), "waiting: {reason}");
    }
}

/// What `Query<Name>` asks for.
pub(crate) fn queried(name: &str) -> Option<(Kind, &'static Face)> {
    let wanted = name.strip_prefix("Query")?;
    faces().find(|(_, face)| face.name == wanted)
}

fn query_pair(word: &str) -> (String, String) {
    match word.split_once('=') {
        Some((key, value)) if QUERY_OPTIONS.contains(&key) => (key.to_owned(), value.to_owned()),
        _ => ("q".to_owned(), word.to_owned()),
    }
}

/// The fields of a call, and its system tags.
fn params(def: &MessageDef, words: &[String]) -> Result<(Map<String, Value>, Vec<String>), Error> {
    let (mut params, mut tags) = (Map::new(), Vec::new());
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            let hint = match word.starts_with("--") {
                true => "; options such as --server stand before the message",
                false => "",
            };
            return Err(Error::Usage(format!("\"{word}\" is not of the form field=value{hint}")));
        };
        if key == "systemTags" {
            tags.extend(value.split(',').map(str::to_owned));
            continue;
        }
        // ZStack's one list that every creation takes, declared or not.
        if key == "tagUuids" && def.creates.is_some() {
            params.insert(key.to_owned(), value.split(',').map(str::trim).collect());
            continue;
        }
        let field = def.fields.iter().find(|field| field.name == key);
        // The server knows best what is wrong with an unknown field, and says so with a hint.
        let value = match field {
            // `description=`: away with it.
            Some(field) if field.nullable && value.is_empty() => Value::Null,
            Some(field) => field.from_text(value),
            None => value.into(),
        };
        params.insert(key.to_owned(), value);
    }
    Ok((params, tags))
}

/// The error for a name that is neither message nor query.
pub(crate) fn unknown(name: &str) -> Error {
    UnknownMessage(name.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_what_the_field_is() {
        let def = client::message("CreateVmInstance").unwrap();
        let words =
            ["name=a=b", "l3NetworkUuids=x, y", "systemTags=p::q,r::s", "odd=1", "tagUuids=a,b"];
        let (params, tags) = params(def, &words.map(str::to_owned)).unwrap();
        let expected = json!({"name": "a=b", "l3NetworkUuids": ["x", "y"], "odd": "1", "tagUuids": ["a", "b"]});
        assert_eq!(Value::Object(params), expected);
        assert_eq!(tags, ["p::q", "r::s"]);
        assert!(super::params(def, &["name".to_owned()]).is_err());
        let def = client::message("UpdateZone").unwrap();
        let (params, _) = super::params(def, &["description=".to_owned()]).unwrap();
        assert_eq!(Value::Object(params), json!({"description": null}));
    }

    #[test]
    fn only_messages_about_sessions_are_left_to_login() {
        let names = ["LogInByAccount", "LogOut", "ValidateSession", "UpdateAccount", "CreateZone"];
        let left = names.map(|name| is_about_sessions(client::message(name).unwrap()));
        assert_eq!(left, [true, true, true, false, false]);
    }

    #[test]
    fn options_of_a_query_are_not_conditions() {
        assert_eq!(query_pair("limit=5"), ("limit".into(), "5".into()));
        assert_eq!(query_pair("name!=a"), ("q".into(), "name!=a".into()));
        assert!(queried("QueryL3Network").is_some() && queried("QueryJob").is_none());
    }
}
