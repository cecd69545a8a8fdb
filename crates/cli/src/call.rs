//! `netloom CreateZone name=z1` and `netloom QueryZone name=z1 limit=5`: zstack-cli's grammar.

use client::Error::UnknownMessage;
use model::{Kind, MessageDef, declare::Access, resource::faces, shown::Face};
use serde_json::json;

use crate::{
    Connection, Error,
    arguments::{self, Unknown},
    describe, names, near,
    output::Manner,
    work::{self, Outcome},
};

/// Keys of a query that are not conditions.
pub(crate) const QUERY_OPTIONS: [&str; 8] =
    ["limit", "start", "after", "count", "replyWithCount", "sort", "groupBy", "fields"];

/// With any of these the answer is shown as the server gives it; without, page by page to the end.
pub(crate) const PAGE_OPTIONS: [&str; 7] =
    ["limit", "start", "after", "count", "replyWithCount", "sort", "groupBy"];

pub(crate) fn run(connection: &Connection, manner: &Manner, words: &[String]) -> Result<(), Error> {
    let Some((name, arguments)) = words.split_first() else {
        return Err(Error::Usage("name a message; `netloom messages` lists them".into()));
    };
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        return crate::print(&describe::one(name)?.trim_end());
    }
    if let Some((_, face)) = queried(name) {
        let pairs: Vec<_> = arguments.iter().map(|word| query_pair(word)).collect();
        let is_page = pairs.iter().any(|(key, _)| PAGE_OPTIONS.contains(&key.as_str()));
        let result = connection.with(|client| match is_page {
            true => Ok(client.query_pairs(face.path, &pairs)?),
            false => Ok(json!({"inventories": client.query_all(face.path, &pairs)?})),
        })?;
        return manner.show_answer(&result);
    }
    let def = message(name)?;
    if is_about_sessions(def) {
        return Err(Error::Usage(format!("{name} is what `netloom login` is for")));
    }
    let pairs = pairs(arguments)?;
    connection.with(|client| {
        let resolve = |kind, name: &str| names::uuid_of(client, kind, name);
        let call = arguments::call(&[def], &pairs, Unknown::Sent, &resolve)?;
        match work::send(client, call, manner)? {
            Outcome::Done(answer) => manner.show_answer(&answer),
            Outcome::Accepted(job) => manner.show_answer(&json!({"job": job.uuid})),
        }
    })
}

/// A message by its name, with or without ZStack's `API` and `Msg`.
fn message(name: &str) -> Result<&'static MessageDef, Error> {
    let short = name.strip_prefix("API").and_then(|rest| rest.strip_suffix("Msg"));
    client::message(short.unwrap_or(name)).map_err(|_| unknown(name))
}

/// Whether a message opens, closes or checks a session. The command line does that by itself.
fn is_about_sessions(def: &MessageDef) -> bool {
    def.access == Access::Open
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

/// Words of the form `field=value`.
fn pairs(words: &[String]) -> Result<Vec<(String, String)>, Error> {
    let pair = |word: &String| {
        let Some((key, value)) = word.split_once('=') else {
            let hint = match word.starts_with('-') {
                true => "; options such as --server stand before the message",
                false => "",
            };
            return Err(Error::Usage(format!("\"{word}\" is not of the form field=value{hint}")));
        };
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// The error for a word that is neither noun nor message nor query.
pub(crate) fn unknown(name: &str) -> Error {
    let messages = model::resource::messages().map(|def| def.name.to_owned());
    let queries = faces().map(|(_, face)| format!("Query{}", face.name));
    let nouns = crate::noun::nouns().into_iter().map(|noun| noun.word);
    let verbs = ["login", "logout", "status", "wait", "apply", "lab", "server", "agent"];
    let verbs = verbs.into_iter().map(str::to_owned);
    let known: Vec<String> = messages.chain(queries).chain(nouns).chain(verbs).collect();
    let meant = near::hint(name, known.iter().map(String::as_str));
    match meant.is_empty() {
        true => UnknownMessage(name.to_owned()).into(),
        false => Error::Usage(format!("there is no \"{name}\"{meant}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn words_become_what_the_field_is() {
        let made = |message: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let resolve = |_, name: &str| Ok(name.to_owned());
            let def = super::message(message).unwrap();
            let call = arguments::call(&[def], &pairs(&words).unwrap(), Unknown::Sent, &resolve);
            let call = call.unwrap();
            (Value::Object(call.params), call.tags)
        };
        let words =
            ["name=a=b", "l3NetworkUuids=x, y", "systemTags=p::q,r::s", "odd=1", "tagUuids=a,b"];
        let (params, tags) = made("APICreateVmInstanceMsg", &words);
        let expected = json!({"name": "a=b", "l3NetworkUuids": ["x", "y"], "odd": "1", "tagUuids": ["a", "b"]});
        assert_eq!(params, expected);
        assert_eq!(tags, ["p::q", "r::s"]);
        assert!(pairs(&["name".to_owned()]).is_err());
        let (params, _) = made("UpdateZone", &["uuid=z", "description="]);
        assert_eq!(params, json!({"uuid": "z", "description": null}));
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
        assert!(queried("QueryL3Network").is_some() && queried("QueryNothing").is_none());
    }
}
