//! Topology files: the resources that there shall be, in the command line's words.
//!
//! ```yaml
//! name: web                        # optional: whose resources these are, for --prune
//! resources:
//!   - zone: {name: z1}             # a noun: what `zone create` takes
//!   - CreateCluster: {name: c1, zoneUuid: z1, hypervisorType: KVM}   # or a message
//!   - pool attach: {l2: p1, cluster: c1, cidr: 192.0.2.0/24}         # a noun and `attach`
//!   - AddSecurityGroupRule: {securityGroupUuid: web, rules: [..]}    # rules: of a group, by what they say
//! ```

use std::{collections::BTreeMap, fs, io, path::Path};

use model::{Kind, MessageDef};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Error, near,
    noun::{Noun, Verb, nouns},
    rules,
    words::MAKES,
};

/// The verbs of entries that make nothing: they bring one thing into another.
const ATTACH: &str = "attach";

/// What gives a resource that is made its uuid.
pub(crate) const RESOURCE_UUID: &str = "resourceUuid";

/// A file, understood.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Whose resources these are.
    pub(crate) name: Option<String>,
    pub(crate) entries: Vec<Entry>,
}

/// A resource that there shall be, or an attachment.
#[derive(Clone)]
pub struct Entry {
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
    resources: Vec<Resource>,
}

/// A resource as it is written: its noun or message, and what that takes.
pub type Resource = BTreeMap<String, Map<String, Value>>;

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
        let Written { name, resources } =
            serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        Self::of(name, resources)
    }

    /// Understands resources that stand in another file; `name` says whose they are, for `prune`.
    ///
    /// # Errors
    /// What breaks a rule, and where, as text.
    pub fn of(name: Option<String>, resources: Vec<Resource>) -> Result<Self, String> {
        let all = nouns();
        let entries = (1..).zip(resources).map(|(number, entry)| {
            entry_of(&all, number, entry).map_err(|problem| format!("resource {number}: {problem}"))
        });
        Ok(Self { name, entries: entries.collect::<Result<_, _>>()? })
    }

    /// What it says, in its order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The same, to be changed.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }
}

impl Entry {
    /// What it makes, and under which name; `None`: it brings one thing into another.
    #[must_use]
    pub fn makes(&self) -> Option<(Kind, &str)> {
        let name = self.pairs.iter().find(|(key, _)| key == "name");
        self.makes.then(|| (self.noun.kind, name.map_or("", |(_, name)| name.as_str())))
    }

    /// What it makes gets this uuid, by which it is found again, and not by its name.
    pub fn identify(&mut self, uuid: Uuid) {
        self.pairs.retain(|(key, _)| key != RESOURCE_UUID);
        self.pairs.push((RESOURCE_UUID.to_owned(), uuid.simple().to_string()));
    }

    /// Where it stands in its file, for errors.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
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
    let pairs = fields
        .iter()
        .flat_map(|(key, value)| texts(value).into_iter().map(move |text| (key.clone(), text)));
    let (noun, verb) = named(all, &key).ok_or_else(|| {
        let words = all.iter().map(|noun| noun.word.as_str());
        let messages = model::resource::messages().map(|def| def.name);
        format!("there is no \"{key}\" to make{}", near::hint(&key, words.chain(messages)))
    })?;
    let makes = verb.word == MAKES[0] && noun.kind != rules::KIND;
    Ok(Entry {
        noun,
        makes,
        messages: verb.messages,
        pairs: pairs.collect(),
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

/// A value as it would be given on the command line: of a list, once for each item, unless they are
/// structures.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => vec![value.to_string()],
        Value::Array(items) if !items.is_empty() => items.iter().map(text).collect(),
        other => vec![text(other)],
    }
}

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
    fn rules_of_a_group_are_no_resources() {
        let text = "resources: [{AddSecurityGroupRule: {securityGroupUuid: web, rules: [{type: Ingress, \
                    dstPortRange: '80,81'}]}}]";
        let topology = Topology::parse(text).unwrap();
        let entry = &topology.entries[0];
        assert_eq!((entry.makes, entry.makes()), (false, None));
        let rules = entry.pairs.iter().find(|(key, _)| key == "rules").map(|(_, text)| text);
        let rules: Value = serde_json::from_str(rules.unwrap()).unwrap();
        assert_eq!(rules, serde_json::json!([{"type": "Ingress", "dstPortRange": "80,81"}]));
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
