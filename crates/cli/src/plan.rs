//! What has to be done so that the server has what a topology says: compared first, shown, then sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use client::Client;
use model::{FieldType, Kind, relation::OnDelete};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    Error, adjust,
    arguments::{self, Call, Unknown},
    names,
    noun::{Noun, nouns},
    rules::{self, Wanted},
    table::harmless,
    topology::{Entry, RESOURCE_UUID, Topology},
    words::DELETES,
};

/// In front of the name of a topology, in the tag of what it has made.
pub(crate) const SET: &str = "netloom.topology::";

/// What is to be done, in this order.
#[derive(Default)]
pub struct Plan {
    /// Each is one call.
    pub steps: Vec<Step>,
    /// What goes with something that is removed, for people.
    along: Vec<String>,
    /// Resources and attachments that are as they should be.
    pub unchanged: usize,
}

/// A resource that is to go.
struct Going {
    noun: Noun,
    row: Value,
}

/// A call of a plan.
pub struct Step {
    pub(crate) does: Does,
    /// What is done, for people.
    text: String,
    /// The call.
    pub call: Call,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Adds,
    Changes,
    Removes,
}

/// The resources of a topology by their names: those that there are, and those that will be.
#[derive(Default)]
struct Known {
    named: BTreeMap<(Kind, String), Vec<String>>,
    /// What the entries refer to.
    used: BTreeSet<String>,
}

impl Plan {
    /// Compares a topology with what there is. With `prune`, what the topology has made and no
    /// longer has goes.
    ///
    /// # Errors
    /// A name that nothing has, a difference that no message can change, no answer.
    pub fn apply(client: &Client, topology: &Topology, prune: bool) -> Result<Self, Error> {
        let (mut plan, mut known, mut rules) =
            (Self::default(), Known::default(), Wanted::default());
        for entry in &topology.entries {
            let at = |error: Error| match error {
                Error::Usage(text) => Error::Usage(format!("{}: {text}", entry.place)),
                Error::Name(text) => Error::Name(format!("{}: {text}", entry.place)),
                other => other,
            };
            let mut call = call_of(client, entry, &known).map_err(at)?;
            known.used.extend(call.params.values().flat_map(texts));
            if entry.noun.kind == rules::KIND {
                match rules.note(client, &mut call).map_err(at)? {
                    true => plan.add(entry, call),
                    false => plan.unchanged += 1,
                }
                continue;
            }
            if !entry.makes {
                match is_attached(client, entry, &mut call)? {
                    true => plan.unchanged += 1,
                    false => plan.add(entry, call),
                }
                continue;
            }
            let text = |key: &str| call.params.get(key).and_then(Value::as_str).map(str::to_owned);
            let (name, given) = (text("name").unwrap_or_default(), text(RESOURCE_UUID));
            if name.is_empty() && given.is_none() {
                let text = "only what has a name can be in a topology".to_owned();
                return Err(at(Error::Usage(text)));
            }
            match find(client, entry, &call).map_err(at)? {
                Some(row) => {
                    known.put(entry.noun.kind, &name, row["uuid"].as_str().unwrap_or_default());
                    plan.change(client, entry, &call, &row).map_err(at)?;
                }
                None => {
                    adjust::check_macs(client, &call).map_err(at)?;
                    let uuid = given.unwrap_or_else(|| Uuid::new_v4().simple().to_string());
                    known.put(entry.noun.kind, &name, &uuid);
                    call.params.insert(RESOURCE_UUID.into(), uuid.into());
                    if let Some(set) = &topology.name {
                        let tags = call.params.entry("userTags").or_insert_with(|| json!([]));
                        let own = Value::from(format!("{SET}{set}"));
                        tags.as_array_mut().into_iter().for_each(|tags| tags.push(own.clone()));
                    }
                    plan.add(entry, call);
                }
            }
        }
        if prune {
            let set = topology.name.as_ref().ok_or_else(|| {
                Error::Usage("--prune needs a name in the file: whose resources these are".into())
            })?;
            for (what, call) in rules.others(client)? {
                plan.steps.push(Step { does: Does::Removes, text: format!("- {what}"), call });
            }
            plan.prune(client, set, &known)?;
        }
        Ok(plan)
    }

    /// What it takes to delete what a topology names, the last first.
    pub(crate) fn delete(client: &Client, topology: &Topology) -> Result<Self, Error> {
        let (mut plan, mut known) = (Self::default(), Known::default());
        let mut going = Vec::new();
        for entry in topology.entries.iter().filter(|entry| entry.makes) {
            // What it refers to may be gone already, and it with that.
            let call = match call_of(client, entry, &known) {
                Err(Error::Name(_)) => continue,
                call => call?,
            };
            let Some(row) = find(client, entry, &call)? else { continue };
            let uuid = row["uuid"].as_str().unwrap_or_default();
            known.put(entry.noun.kind, row["name"].as_str().unwrap_or_default(), uuid);
            going.push(Going { noun: entry.noun.clone(), row });
        }
        plan.remove(&going);
        Ok(plan)
    }

    fn add(&mut self, entry: &Entry, call: Call) {
        let mut text = format!("+ {}", entry.noun.word);
        if !entry.makes && entry.noun.kind != rules::KIND {
            text.push_str(" attach");
        }
        let mut pairs: Vec<_> = entry.pairs.iter().collect();
        pairs.sort_by_key(|(key, _)| key != "name");
        for (key, value) in pairs {
            // Writing to a String cannot fail.
            let _ = match key.as_str() {
                "name" => write!(text, " {value}"),
                key if key.to_ascii_lowercase().contains("password") => write!(text, " {key}=..."),
                RESOURCE_UUID => Ok(()),
                key => write!(text, " {key}={value}"),
            };
        }
        self.steps.push(Step { does: Does::Adds, text, call });
    }

    /// What differs and can be changed is changed; what cannot is an error.
    fn change(
        &mut self,
        client: &Client,
        entry: &Entry,
        call: &Call,
        row: &Value,
    ) -> Result<(), Error> {
        let all = nouns();
        let update = entry.noun.verbs(&all).into_iter().find(|verb| verb.word == "update");
        let update = update.and_then(|verb| verb.messages.first().copied());
        let mut params = Map::new();
        let name = call.params.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut text = format!("~ {} {name}", entry.noun.word);
        for (key, value) in &call.params {
            // Absent is what has no value, if the inventory has such a field at all.
            let is_shown = entry.noun.fields().any(|field| field.name == key);
            let Some(is) = row.get(key).or(is_shown.then_some(&Value::Null)) else { continue };
            let is_place = adjust::PLACES.contains(&key.as_str());
            if same(is, value) || (entry.noun.kind == Kind::VmInstance && is_place) {
                continue;
            }
            let takes = update.filter(|def| def.fields.iter().any(|field| field.name == key));
            if takes.is_none() {
                return Err(Error::Usage(format!(
                    "{key} of {} {name} is {is}, and cannot become {value}; delete it first, or let \
                     the file say what is",
                    entry.noun.word
                )));
            }
            let _ = write!(text, " {key}: {is} -> {value}");
            params.insert(key.clone(), value.clone());
        }
        let before = self.steps.len();
        if let Some(def) = update.filter(|_| !params.is_empty()) {
            params.insert("uuid".into(), row["uuid"].clone());
            let call = Call { message: def.name, params, tags: Vec::new() };
            self.steps.push(Step { does: Does::Changes, text, call });
        }
        let tags = adjust::tags(client, entry, call, row)?;
        for (what, call) in tags.into_iter().chain(adjust::place(entry, call, row)) {
            let text = format!("~ {} {name} {what}", entry.noun.word);
            self.steps.push(Step { does: Does::Changes, text, call });
        }
        self.unchanged += usize::from(self.steps.len() == before);
        Ok(())
    }

    /// Removes resources that are given parents first. What goes with another one that goes is left
    /// to that.
    fn remove(&mut self, going: &[Going]) {
        let uuid = |one: &Going| one.row["uuid"].as_str().unwrap_or_default().to_owned();
        let all: Vec<String> = going.iter().map(uuid).collect();
        for one in going.iter().rev() {
            let name = one.row["name"].as_str().unwrap_or_default();
            let (word, uuid) = (&one.noun.word, uuid(one));
            let parent = one.noun.kind.def().columns().find(|column| {
                let of = one.row[column.field.name].as_str();
                column.on_delete == Some(OnDelete::Cascade)
                    && of.is_some_and(|of| of != uuid && all.iter().any(|other| other == of))
            });
            if parent.is_some() {
                self.along.push(format!("- {word} {name} ({uuid}), with what it is in"));
                continue;
            }
            let verbs = one.noun.verbs(&nouns());
            let verb = verbs.iter().find(|verb| verb.word == DELETES[0]);
            let Some(def) = verb.and_then(|verb| verb.messages.first()) else { continue };
            let text = format!("- {word} {name} ({uuid}), with all that is in it");
            let params = [("uuid".to_owned(), uuid.into())].into_iter().collect();
            let call = Call { message: def.name, params, tags: Vec::new() };
            self.steps.push(Step { does: Does::Removes, text, call });
        }
    }

    /// Removes what bears the topology's tag and is not in it.
    fn prune(&mut self, client: &Client, set: &str, known: &Known) -> Result<(), Error> {
        let tagged = client.query(Kind::UserTag.def().path(), &[format!("tag={SET}{set}")])?;
        let all = nouns();
        let mut going = Vec::new();
        for kind in Kind::ALL {
            let vo = kind.def().vo();
            let of_kind = tagged.iter().filter(|tag| tag["resourceType"] == vo.as_str());
            let uuids = of_kind.filter_map(|tag| tag["resourceUuid"].as_str());
            let Some(noun) = all.iter().find(|noun| noun.kind == *kind) else { continue };
            for uuid in uuids.filter(|uuid| !known.has(*kind, uuid)) {
                if known.used.contains(uuid) {
                    return Err(Error::Usage(format!(
                        "{} {uuid} is not in the file, which refers to it; it cannot go",
                        noun.word
                    )));
                }
                let found = client.query(noun.face.path, &[format!("uuid={uuid}")])?;
                let found = found.into_iter().filter(|row| !names::is_gone(row));
                going.extend(found.map(|row| Going { noun: noun.clone(), row }));
            }
        }
        self.remove(&going);
        Ok(())
    }

    /// The plan, as it is shown before anything is done.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let _ = writeln!(text, "{}", harmless(&step.text));
        }
        for line in &self.along {
            let _ = writeln!(text, "{}", harmless(line));
        }
        let count = |does| self.steps.iter().filter(|step| step.does == does).count();
        let _ = match self.steps.is_empty() {
            true => write!(text, "nothing to do; as they should be: {}", self.unchanged),
            false => write!(
                text,
                "to add: {}, to change: {}, to remove: {}; as they should be: {}",
                count(Does::Adds),
                count(Does::Changes),
                count(Does::Removes) + self.along.len(),
                self.unchanged
            ),
        };
        text
    }
}

impl Step {
    /// What is done, for people.
    #[must_use]
    pub fn told(&self) -> String {
        harmless(&self.text)
    }
}

impl Known {
    fn put(&mut self, kind: Kind, name: &str, uuid: &str) {
        self.named.entry((kind, name.to_owned())).or_default().push(uuid.to_owned());
    }

    fn has(&self, kind: Kind, uuid: &str) -> bool {
        self.named.iter().any(|((of, _), uuids)| *of == kind && uuids.iter().any(|one| one == uuid))
    }

    /// What the file calls so: the server may have others of this name, and the file means its own.
    fn uuid(&self, client: &Client, kind: Kind, name: &str) -> Result<String, Error> {
        match self.named.get(&(kind, name.to_owned())).map(Vec::as_slice) {
            Some([one]) => Ok(one.clone()),
            Some(_) => Err(Error::Name(format!("\"{name}\" stands for several above"))),
            None => names::uuid_of(client, kind, name),
        }
    }
}

fn call_of(client: &Client, entry: &Entry, known: &Known) -> Result<Call, Error> {
    let resolve = |kind, name: &str| known.uuid(client, kind, name);
    arguments::call(&entry.messages, &entry.pairs, Unknown::Refused, &resolve)
}

/// The resource that an entry means: by the uuid that it gives, or else by its name and by what it
/// cannot be without.
fn find(client: &Client, entry: &Entry, call: &Call) -> Result<Option<Value>, Error> {
    let text = |key: &str| call.params.get(key).and_then(Value::as_str);
    if let Some(uuid) = text(RESOURCE_UUID) {
        let found = client.query(entry.noun.face.path, &[format!("uuid={uuid}")])?;
        return Ok(found.into_iter().find(|row| !names::is_gone(row)));
    }
    let name = text("name").unwrap_or_default();
    let mut conditions = vec![format!("name={name}")];
    let def = client::message(call.message)?;
    let parents = def.fields.iter().filter(|field| {
        let is_shown = entry.noun.fields().any(|shown| shown.name == field.name);
        field.required && field.refs.is_some() && field.kind == FieldType::Uuid && is_shown
    });
    let parent = |field: &model::FieldDef| Some(format!("{}={}", field.name, text(field.name)?));
    conditions.extend(parents.filter_map(parent));
    let mut found = client.query(entry.noun.face.path, &conditions)?;
    found.retain(|row| !names::is_gone(row));
    match found.len() {
        0 | 1 => Ok(found.pop()),
        several => {
            Err(Error::Name(format!("{several} are called \"{name}\"; names must tell apart")))
        }
    }
}

/// The field that attaches what is no resource: by provider, a list of services.
const SERVICES: &str = "networkServices";

/// Whether what an attachment names first lists what it names second. Of services, those that are listed are
/// taken out of the call.
fn is_attached(client: &Client, entry: &Entry, call: &mut Call) -> Result<bool, Error> {
    let def = client::message(call.message)?;
    let Some(target) = def.target() else { return Ok(false) };
    let uuid = call.params.get(target.name).and_then(Value::as_str).unwrap_or_default();
    let found = client.query(entry.noun.face.path, &[format!("uuid={uuid}")])?;
    if let Some(Value::Object(wanted)) = call.params.get_mut(SERVICES) {
        let listed = found.first().and_then(|row| row[SERVICES].as_array()).into_iter().flatten();
        let listed: Vec<&Value> = listed.map(|service| &service["networkServiceType"]).collect();
        for services in wanted.values_mut().filter_map(Value::as_array_mut) {
            services.retain(|service| !listed.contains(&service));
        }
        wanted.retain(|_, services| services.as_array().is_none_or(|list| !list.is_empty()));
        return Ok(wanted.is_empty());
    }
    let others =
        def.fields.iter().filter(|field| field.refs.is_some() && field.name != target.name);
    let others: Vec<&Value> = others.filter_map(|field| call.params.get(field.name)).collect();
    let lists = found.first().and_then(Value::as_object).into_iter().flatten();
    let mut lists = lists.filter_map(|(_, value)| value.as_array());
    Ok(!others.is_empty() && lists.any(|list| others.iter().all(|other| list.contains(other))))
}

/// The texts of a value, or of a list.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// Whether two values mean the same.
fn same(is: &Value, wanted: &Value) -> bool {
    let ip = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    is == wanted || (is_empty(is) && is_empty(wanted)) || (ip(is).is_some() && ip(is) == ip(wanted))
}
