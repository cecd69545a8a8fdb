//! Topology files: the resources that there shall be, in the command line's words.
//!
//! ```yaml
//! name: web                        # optional: whose resources these are, for --prune
//! resources:
//!   - zone: {name: z1}             # a noun: what `zone create` takes
//!   - CreateCluster: {name: c1, zoneUuid: z1, hypervisorType: KVM}   # or a message
//!   - pool attach: {l2: p1, cluster: c1, cidr: 192.0.2.0/24}         # a noun and `attach`
//! ```

use std::{collections::BTreeMap, fs, io, path::Path};

use model::MessageDef;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    Error, near,
    noun::{Noun, Verb, nouns},
    words::MAKES,
};

/// The verbs of entries that make nothing: they bring one thing into another.
const ATTACH: &str = "attach";

/// A file, understood.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Whose resources these are.
    pub(crate) name: Option<String>,
    pub(crate) entries: Vec<Entry>,
}

/// A resource that there shall be, or an attachment.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) noun: Noun,
    pub(crate) makes: bool,
    pub(crate) messages: Vec<&'static MessageDef>,
    pub(crate) pairs: Vec<(String, String)>,
    /// Where it stands, for errors.
    pub(crate) place: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.place, self.pairs)
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    resources: Vec<BTreeMap<String, Map<String, Value>>>,
}

impl Topology {
    /// Reads a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = match path.as_os_str() == "-" {
            true => io::read_to_string(io::stdin()),
            false => fs::read_to_string(path),
        };
        let text = text.map_err(|cause| Error::File { path: path.to_owned(), cause })?;
        Self::parse(&text).map_err(|problem| Error::Usage(format!("{}: {problem}", path.display())))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let all = nouns();
        let entries = (1..).zip(written.resources).map(|(number, entry)| {
            entry_of(&all, number, entry).map_err(|problem| format!("resource {number}: {problem}"))
        });
        Ok(Self { name: written.name, entries: entries.collect::<Result<_, _>>()? })
    }
}

fn entry_of(
    all: &[Noun],
    number: usize,
    entry: BTreeMap<String, Map<String, Value>>,
) -> Result<Entry, String> {
    let mut entries = entry.into_iter();
    let (Some((key, fields)), None) = (entries.next(), entries.next()) else {
        return Err("must be one resource: a single key with its fields below".to_owned());
    };
    let pairs = fields.into_iter().map(|(key, value)| (key, text(&value))).collect();
    let (noun, verb) = named(all, &key).ok_or_else(|| {
        let words = all.iter().map(|noun| noun.word.as_str());
        let messages = model::resource::messages().map(|def| def.name);
        format!("there is no \"{key}\" to make{}", near::hint(&key, words.chain(messages)))
    })?;
    let makes = verb.word == MAKES[0];
    Ok(Entry {
        noun,
        makes,
        messages: verb.messages,
        pairs,
        place: format!("resource {number}, {key}"),
    })
}

/// The noun and what is done with it, by a noun, a noun and `attach`, or a message.
fn named(all: &[Noun], key: &str) -> Option<(Noun, Verb)> {
    let (word, wanted) = key.split_once(' ').unwrap_or((key, MAKES[0]));
    let fits = |verb: &Verb| {
        let is_it = verb.word == wanted || verb.also.iter().any(|also| also == wanted);
        is_it && (verb.word == MAKES[0] || wanted == ATTACH)
    };
    if let Some(noun) = all.iter().find(|noun| noun.word == word || noun.also.contains(&word)) {
        return Some((noun.clone(), noun.verbs(all).into_iter().find(fits)?));
    }
    all.iter().find_map(|noun| {
        let is_it = |verb: &Verb| {
            let short = verb.also.iter().any(|also| also == ATTACH);
            let works = verb.word == MAKES[0] || short;
            works && verb.messages.iter().any(|def| def.name == key)
        };
        let mut verb = noun.verbs(all).into_iter().find(is_it)?;
        verb.messages.retain(|def| def.name == key);
        Some((noun.clone(), verb))
    })
}

/// A value as it would be given on the command line.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_rule_is_named() {
        for (text, part) in [
            (
                "resources: [{zoen: {name: z}}]",
                "resource 1: there is no \"zoen\" to make; did you mean \"zone\"",
            ),
            ("resources: [{zone: {name: z}, cluster: {}}]", "a single key"),
            ("resources: [{DeleteZone: {uuid: z}}]", "to make"),
            ("resorces: []", "unknown field `resorces`"),
            ("resources: [{zone delete: {}}]", "to make"),
        ] {
            let problem = Topology::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn nouns_messages_and_attachments_are_understood() {
        let text = "resources: [{zone: {name: z}}, {CreateZone: {name: y}}, {AddKVMHost: {name: h}}, \
                    {pool attach: {l2: p, cluster: [c]}}, {AttachL2NetworkToCluster: {}}]";
        let topology = Topology::parse(text).unwrap();
        let seen: Vec<_> =
            topology.entries.iter().map(|one| (&*one.noun.word, one.makes)).collect();
        let expected =
            [("zone", true), ("zone", true), ("host", true), ("pool", false), ("l2", false)];
        assert_eq!(seen, expected);
    }
}
