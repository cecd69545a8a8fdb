//! `netloom export`: what there is as a topology file, parents first.

use std::collections::{BTreeMap, BTreeSet};

use client::Client;
use model::{FieldDef, FieldType, Kind, MessageDef};
use serde_json::{Map, Value};

use crate::{
    Connection, Error, arguments, names,
    noun::{Noun, Verb, field_words, noun_of, nouns},
    output::{self, Format, Manner},
    words::MAKES,
};

/// A resource, as it is exported.
struct Row {
    noun: Noun,
    fields: Value,
}

/// The names by which rows refer to others: those that are alone in their kind.
struct Names(BTreeMap<String, String>);

pub(crate) fn run(connection: &Connection, manner: &Manner) -> Result<(), Error> {
    let entries = connection.with(|client| {
        let rows = ordered(rows(client)?);
        let names = Names::of(&rows);
        let mut entries: Vec<Value> = Vec::new();
        for row in &rows {
            entries.extend(entry(row, &names));
            entries.extend(attachments(row, &rows, &names));
        }
        Ok(entries)
    })?;
    let topology = object([("resources", Value::from(entries))]);
    match (&manner.out, manner.output) {
        (Some(file), _) => {
            output::write_private(file, format!("{}\n", output::yaml(&topology)?).as_bytes())
        }
        (None, Some(Format::Json)) => crate::print(&format_args!("{topology:#}")),
        (None, _) => crate::print(&output::yaml(&topology)?),
    }
}

/// Everything that has a name and can be made again from what is shown of it.
fn rows(client: &Client) -> Result<Vec<Row>, Error> {
    let mut rows: Vec<Row> = Vec::new();
    let all = nouns();
    // The nouns of single types first: they say more than that of all types.
    let mut all_types_last: Vec<&Noun> = all.iter().collect();
    all_types_last.sort_by_key(|noun| noun.face.only.is_none());
    let mut seen = BTreeSet::new();
    for noun in all_types_last {
        let Some(verb) = makes(noun, &all).filter(|_| noun.key() == Some("name")) else { continue };
        // A secret is not told, so that nothing can be made with it.
        let is_secret = |field: &FieldDef| field.secret && field.required;
        if verb.messages.iter().any(|def| def.fields.iter().any(is_secret)) {
            continue;
        }
        for fields in client.query(noun.face.path, &[])? {
            if !names::is_gone(&fields) && seen.insert(fields["uuid"].to_string()) {
                rows.push(Row { noun: noun.clone(), fields });
            }
        }
    }
    let place = |row: &Row| Kind::ALL.iter().position(|kind| *kind == row.noun.kind);
    rows.sort_by_key(|row| (place(row), row.fields["name"].to_string()));
    Ok(rows)
}

/// Each after what it refers to.
fn ordered(rows: Vec<Row>) -> Vec<Row> {
    let all: BTreeSet<String> = rows.iter().filter_map(uuid).collect();
    let (mut done, mut ordered, mut rest) = (BTreeSet::new(), Vec::new(), rows);
    while !rest.is_empty() {
        let is_free = |row: &Row| {
            let own = uuid(row);
            let refs = row.noun.fields().filter(|field| field.refs.is_some());
            let mut named = refs.filter_map(|field| row.fields[field.name].as_str());
            named.all(|to| Some(to) == own.as_deref() || done.contains(to) || !all.contains(to))
        };
        let (free, later): (Vec<Row>, Vec<Row>) = rest.into_iter().partition(is_free);
        // Rows that refer to each other in a circle keep the order of their kinds.
        let (mut free, later) = if free.is_empty() { (later, free) } else { (free, later) };
        // Parts, such as ranges, come before what takes numbers out of them.
        free.sort_by_key(|row| row.noun.kind.def().part().is_none());
        done.extend(free.iter().filter_map(uuid));
        ordered.extend(free);
        rest = later;
    }
    ordered
}

/// What makes a resource again.
fn entry(row: &Row, names: &Names) -> Option<Value> {
    let verb = makes(&row.noun, &nouns())?;
    let is_there = |field: &&FieldDef| !field.required || of_field(row, field, names).is_some();
    let fits = |def: &&&MessageDef| def.fields.iter().all(|field| is_there(&field));
    let def = verb.messages.iter().find(fits)?;
    let mut fields = Map::new();
    for field in def.fields {
        if let Some(value) = of_field(row, field, names) {
            fields.insert(word(field), value);
        }
    }
    // The short words of tags: what the parts of the resource have.
    for (key, _) in arguments::keys(def) {
        let is_field = def.fields.iter().any(|field| word(field) == key || field.name == key);
        let found = of_parts(row, &key);
        if !is_field && !found.is_empty() {
            fields.insert(key, found.into());
        }
    }
    Some(object([(row.noun.word.as_str(), Value::Object(fields))]))
}

/// What a field of a message has to be, if the resource tells.
fn of_field(row: &Row, field: &FieldDef, names: &Names) -> Option<Value> {
    let own = row.fields.get(field.name).filter(|value| !value.is_null()).cloned();
    let one = field.name.strip_suffix('s').filter(|_| matches!(field.kind, FieldType::List(_)));
    let of_parts = || one.map(|one| of_parts(row, one)).filter(|found| !found.is_empty());
    let value = own.or_else(|| of_parts().map(Value::from))?;
    Some(if field.refs.is_some() { names.replace(value) } else { value })
}

/// A field of the resources that are listed in this one, each value once.
fn of_parts(row: &Row, key: &str) -> Vec<Value> {
    let lists =
        row.fields.as_object().into_iter().flatten().filter_map(|(_, list)| list.as_array());
    let mut found = Vec::new();
    for value in lists.flatten().filter_map(|part| part.get(key)).filter(|value| value.is_string())
    {
        if !found.contains(value) {
            found.push(value.clone());
        }
    }
    found
}

/// Where a resource is brought in, unless what it is a part of is there too, and brings it along.
fn attachments(row: &Row, rows: &[Row], names: &Names) -> Vec<Value> {
    let verbs = row.noun.verbs(&nouns());
    let attach = verbs.iter().find(|verb| verb.also.iter().any(|also| also == "attach"));
    let Some(def) = attach.and_then(|verb| verb.messages.first()) else { return Vec::new() };
    let Some(target) = def.target() else { return Vec::new() };
    let mut found = Vec::new();
    for other in def.fields.iter().filter(|field| field.refs.is_some() && field.name != target.name)
    {
        let list = format!("attached{}s", capital(other.name));
        let uuids = row.fields[list.as_str()].as_array().into_iter().flatten();
        for uuid in uuids.filter_map(Value::as_str) {
            let has_it = |one: &&Row| {
                let lists = one.fields[list.as_str()].as_array();
                lists.is_some_and(|uuids| uuids.iter().any(|one| one == uuid))
            };
            let parents = row.noun.fields().filter_map(|field| row.fields[field.name].as_str());
            let mut parents = parents.filter(|parent| Some(*parent) != row.fields["uuid"].as_str());
            let is_part = parents
                .any(|parent| rows.iter().filter(has_it).any(|one| one.fields["uuid"] == parent));
            if is_part {
                continue;
            }
            let own = row.fields["uuid"].clone();
            let mut fields: Map<String, Value> = Map::new();
            fields.insert(word(target), names.replace(own));
            fields.insert(word(other), names.replace(uuid.into()));
            for (key, _) in arguments::keys(def) {
                let of_each = &row.fields[format!("attached{}s", capital(&key)).as_str()][uuid];
                if of_each.is_string() {
                    fields.insert(key, of_each.clone());
                }
            }
            found.push(object([(format!("{} attach", row.noun.word).as_str(), fields.into())]));
        }
    }
    found
}

impl Names {
    fn of(rows: &[Row]) -> Self {
        let mut seen: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
        let key = |row: &'_ Row| {
            (row.noun.kind, row.fields["name"].as_str().unwrap_or_default().to_owned())
        };
        for row in rows {
            let name = row.fields["name"].as_str().unwrap_or_default();
            *seen.entry((row.noun.kind, name)).or_default() += 1;
        }
        let alone = rows.iter().filter(|row| {
            let (kind, name) = key(row);
            seen.get(&(kind, name.as_str())) == Some(&1)
        });
        Self(alone.filter_map(|row| Some((uuid(row)?, key(row).1))).collect())
    }

    /// A uuid, or a list of them, by names as far as these tell apart.
    fn replace(&self, value: Value) -> Value {
        match value {
            Value::String(uuid) => self.0.get(&uuid).cloned().unwrap_or(uuid).into(),
            Value::Array(items) => items.into_iter().map(|item| self.replace(item)).collect(),
            other => other,
        }
    }
}

/// The verb that makes a noun's resources.
fn makes(noun: &Noun, all: &[Noun]) -> Option<Verb> {
    noun.verbs(all).into_iter().find(|verb| verb.word == MAKES[0])
}

/// References by their short words, all other fields by their names.
fn word(field: &FieldDef) -> String {
    let short = field.refs.and_then(noun_of).and_then(|_| field_words(field).into_iter().next());
    short.unwrap_or_else(|| field.name.to_owned())
}

fn uuid(row: &Row) -> Option<String> {
    row.fields["uuid"].as_str().map(str::to_owned)
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn object<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}
