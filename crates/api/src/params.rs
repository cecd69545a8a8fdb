//! Fields in a query string: `key=value`, a list as a key that is there several times or as `key.0=`
//! and `key.1=`, a structure as `key.name=`. A value that is empty says nothing: the Go SDK sends
//! `deleteMode=` for what its caller left out.

use std::collections::BTreeMap;

use model::{Error, FieldDef, FieldType, MessageDef};
use serde_json::{Map, Value};

use crate::request::Wrong;

/// What every message takes beside its own fields, as lists.
const LISTS: [&str; 3] = ["systemTags", "userTags", "tagUuids"];
/// Most items of a list that are named by their places.
const PLACES_MAX: usize = 1000;

/// All that is said of one field.
#[derive(Default)]
struct Said<'a> {
    /// `key=value`, in their order.
    plain: Vec<&'a str>,
    /// `key.0=value`, by their places.
    places: BTreeMap<usize, &'a str>,
    /// `key.name=value`, each in their order.
    named: BTreeMap<&'a str, Vec<&'a str>>,
}

/// Reads the fields of a message. Names that it does not know are read as they are.
///
/// # Errors
/// A field of one value with several.
pub(crate) fn read(
    def: &MessageDef,
    pairs: &[(String, String)],
) -> Result<Map<String, Value>, Wrong> {
    let mut said: BTreeMap<&str, Said<'_>> = BTreeMap::new();
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let (name, sub) = match key.split_once('.') {
            Some((name, sub)) if is_known(def, name) => (name, Some(sub)),
            _ => (key.as_str(), None),
        };
        let said = said.entry(name).or_default();
        match sub.map(|sub| (sub, sub.parse::<usize>())) {
            None => said.plain.push(value),
            Some((_, Ok(place))) if place < PLACES_MAX => drop(said.places.insert(place, value)),
            Some((sub, _)) => said.named.entry(sub).or_default().push(value),
        }
    }
    let read = said.into_iter().map(|(name, said)| {
        let field = def.fields.iter().find(|field| field.name == name);
        Ok((name.to_owned(), value(name, field, said)?))
    });
    read.collect()
}

fn is_known(def: &MessageDef, name: &str) -> bool {
    LISTS.contains(&name) || def.fields.iter().any(|field| field.name == name)
}

fn value(name: &str, field: Option<&FieldDef>, said: Said<'_>) -> Result<Value, Wrong> {
    if !said.named.is_empty() {
        // What is declared as a structure has lists: services by their providers.
        let is_of_lists = field.is_some_and(|field| field.kind == FieldType::Object);
        let named = said.named.into_iter().map(|(name, values)| match values[..] {
            [one] if !is_of_lists => (name.to_owned(), one.into()),
            _ => (name.to_owned(), values.into()),
        });
        return Ok(Value::Object(named.collect()));
    }
    let is_list = match field {
        Some(field) => matches!(field.kind, FieldType::List(_)),
        None => LISTS.contains(&name) || !said.places.is_empty(),
    };
    let several = said.plain.len() + said.places.len() > 1;
    match (is_list, field, &said.plain[..]) {
        (true, Some(field), [one]) if !several => Ok(field.from_text(one)),
        (true, ..) => Ok(said.plain.iter().chain(said.places.values()).copied().collect()),
        (false, _, [_, _, ..]) => {
            let error = Error::field(name, "has several values, and takes one");
            Err(Wrong::Request(error.message))
        }
        (false, Some(field), [one]) => Ok(field.from_text(one)),
        (false, None, [one]) => Ok((*one).into()),
        (false, _, []) => Ok(said.places.values().copied().collect()),
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Message,
        resource::{
            host::DeleteHost, network_service::DetachNetworkServiceFromL3Network,
            sharing::GetResourceAccount,
        },
    };
    use serde_json::json;

    use super::*;

    fn read(def: &MessageDef, text: &str) -> Result<Value, Wrong> {
        let pairs = text.split('&').map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        });
        super::read(def, &pairs.collect::<Vec<_>>()).map(Value::Object)
    }

    #[test]
    fn a_list_is_written_in_each_of_three_ways() {
        for text in [
            "resourceUuids=a,b",
            "resourceUuids=a&resourceUuids=b",
            "resourceUuids.1=b&resourceUuids.0=a",
        ] {
            let fields = read(&GetResourceAccount::DEF, text).unwrap();
            assert_eq!(fields, json!({"resourceUuids": ["a", "b"]}), "{text}");
        }
        let tags = read(&DeleteHost::DEF, "systemTags=a,b&systemTags=c").unwrap();
        assert_eq!(tags, json!({"systemTags": ["a,b", "c"]}));
    }

    #[test]
    fn a_structure_is_written_by_its_names() {
        let fields = read(&GetResourceAccount::DEF, "resourceUuids.a=1&x.y=2").unwrap();
        assert_eq!(fields, json!({"resourceUuids": {"a": "1"}, "x.y": "2"}));
        let services = "networkServices.p=DHCP&networkServices.q=DNS&networkServices.p=DNS";
        let fields = read(&DetachNetworkServiceFromL3Network::DEF, services).unwrap();
        assert_eq!(fields, json!({"networkServices": {"p": ["DHCP", "DNS"], "q": ["DNS"]}}));
    }

    #[test]
    fn an_empty_value_says_nothing_and_two_values_are_too_many_for_one() {
        assert_eq!(read(&DeleteHost::DEF, "deleteMode=").unwrap(), json!({}));
        let wrong = read(&DeleteHost::DEF, "deleteMode=Permissive&deleteMode=Enforcing");
        assert!(matches!(wrong, Err(Wrong::Request(text)) if text.contains("several values")));
    }
}
