//! How results look: tables for people, JSON, YAML, names or uuids for programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, IsTerminal, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use client::Client;
use model::Kind;
use serde_json::Value;

use crate::{
    Error,
    noun::{Noun, noun_of, split},
    table::{self, Screen},
};

/// How results look, and how long they are waited for.
#[derive(Clone, Debug, Default, Args)]
pub struct Manner {
    /// How the result looks: a table if nothing is said, JSON for ZStack's messages.
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub output: Option<Format>,
    /// Write the result into a file that only you can read, as JSON.
    #[arg(short = 'O', long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Do not wait for the hosts: print the job.
    #[arg(long)]
    pub no_wait: bool,
    /// Wait for the hosts so many seconds at most; the job goes on after that.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns that fit the terminal.
    Table,
    /// All columns, uncut.
    Wide,
    /// As the server gives it.
    Json,
    /// The same as YAML.
    Yaml,
    /// A name in each line.
    Name,
    /// A uuid in each line.
    Uuid,
}

/// Most uuids whose names are asked for at a time.
const NAMES_MAX: usize = 200;

/// The names of resources, by their uuids.
pub(crate) type Named = BTreeMap<String, String>;

impl Manner {
    /// Shows an answer as a message gives it.
    pub(crate) fn show_answer(&self, answer: &Value) -> Result<(), Error> {
        self.put(answer, || match self.output {
            Some(Format::Yaml | Format::Table | Format::Wide) => yaml(answer),
            Some(Format::Name) => lines(rows(answer), "name"),
            Some(Format::Uuid) => lines(rows(answer), "uuid"),
            Some(Format::Json) | None => Ok(format!("{answer:#}")),
        })
    }

    /// Shows resources in a table, or however it is asked for.
    pub(crate) fn show_rows(
        &self,
        client: &Client,
        noun: &Noun,
        rows: &[Value],
    ) -> Result<(), Error> {
        let all = || Value::Object([("inventories".to_owned(), rows.into())].into_iter().collect());
        if self.out.is_some() {
            return self.put(&all(), || Ok(String::new()));
        }
        crate::print(&self.rows_text(client, noun, rows)?)
    }

    /// The text of resources.
    pub(crate) fn rows_text(
        &self,
        client: &Client,
        noun: &Noun,
        rows: &[Value],
    ) -> Result<String, Error> {
        match self.output {
            Some(Format::Json) => Ok(format!("{:#}", Value::from(rows))),
            Some(Format::Yaml) => yaml(&rows.into()),
            Some(Format::Name) => lines(rows, noun.key().unwrap_or("uuid")),
            Some(Format::Uuid) => lines(rows, "uuid"),
            Some(Format::Table | Format::Wide) | None => {
                let wide = self.output == Some(Format::Wide);
                let columns = match wide {
                    true => wide_columns(noun),
                    false => noun.columns(),
                };
                let named = names(client, noun, &columns, rows)?;
                let screen = Screen { width: width().filter(|_| !wide), colours: colours() };
                Ok(draw_rows(noun, &columns, rows, &named, screen))
            }
        }
    }

    /// One resource with all its fields; nothing if it goes into a file.
    pub(crate) fn one_text(
        &self,
        client: &Client,
        noun: &Noun,
        row: &Value,
    ) -> Result<String, Error> {
        if self.out.is_some() {
            self.put(row, || Ok(String::new()))?;
            return Ok(String::new());
        }
        match self.output {
            Some(Format::Json) => Ok(format!("{row:#}")),
            Some(Format::Yaml) => yaml(row),
            None | Some(Format::Table) => {
                let fields: Vec<_> = noun.fields().map(|field| field.name).collect();
                let named = names(client, noun, &fields, std::slice::from_ref(row))?;
                Ok(draw_one(noun, row, &named))
            }
            Some(_) => self.rows_text(client, noun, std::slice::from_ref(row)),
        }
    }

    /// Into the file, if there is one, else to standard output.
    fn put(
        &self,
        value: &Value,
        text: impl FnOnce() -> Result<String, Error>,
    ) -> Result<(), Error> {
        match &self.out {
            Some(file) => write_private(file, format!("{value:#}\n").as_bytes()),
            None => crate::print(&text()?),
        }
    }
}

/// Writes a file that its owner alone can read, in the place of what was there.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |cause| Error::File { path: path.to_owned(), cause };
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let write = |mut file: fs::File| {
        // A file that was there before has kept its mode.
        if file.metadata()?.is_file() {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        file.write_all(bytes)
    };
    file.and_then(write).map_err(failed)
}

/// The table of resources.
pub(crate) fn draw_rows(
    noun: &Noun,
    columns: &[&str],
    rows: &[Value],
    named: &Named,
    screen: Screen,
) -> String {
    let head: Vec<String> = columns.iter().map(|column| title(noun, column)).collect();
    let cells = |row: &Value| columns.iter().map(|column| cell(row, column, named)).collect();
    table::draw(&head, &rows.iter().map(cells).collect::<Vec<_>>(), screen)
}

/// A resource, a field in each line; what is empty is left out, lists are below.
pub(crate) fn draw_one(noun: &Noun, row: &Value, named: &Named) -> String {
    let mut rows = Vec::new();
    let order: Vec<&str> = noun.fields().map(|field| field.name).collect();
    let place = |key: &str| order.iter().position(|name| *name == key).unwrap_or(order.len());
    let mut fields: Vec<_> = row.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(key, _)| place(key));
    for (key, value) in fields {
        match value {
            Value::Null => {}
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for item in items {
                    rows.push(vec![key.clone(), brief(item)]);
                }
            }
            Value::Array(items) if items.is_empty() => {}
            Value::String(uuid) if named.contains_key(uuid) && key != "uuid" => {
                rows.push(vec![key.clone(), format!("{} ({uuid})", named[uuid])]);
            }
            _ => rows.push(vec![key.clone(), cell(row, key, named)]),
        }
    }
    let widest = rows.iter().map(|row| row[0].len()).max().unwrap_or_default();
    let line = |row: &Vec<String>| {
        format!("{:widest$}  {}", table::harmless(&row[0]), table::harmless(&row[1]))
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A table of rows that are no resources of a noun: a column for each plain field of the first one.
pub(crate) fn draw_plain(rows: &[Value]) -> String {
    let fields = rows.first().and_then(Value::as_object).into_iter().flatten();
    let plain = fields.filter(|(_, value)| !value.is_object() && !value.is_array());
    let keys: Vec<&String> = plain.map(|(key, _)| key).collect();
    if keys.is_empty() {
        let texts = rows.iter().map(|row| text(row, &Named::new()));
        return texts.map(|text| table::harmless(&text)).collect::<Vec<_>>().join("\n");
    }
    let head: Vec<String> = keys.iter().map(|key| split(key).join(" ").to_uppercase()).collect();
    let cells = |row: &Value| keys.iter().map(|key| cell(row, key, &Named::new())).collect();
    let screen = Screen { width: width(), colours: colours() };
    table::draw(&head, &rows.iter().map(cells).collect::<Vec<_>>(), screen)
}

/// What is said of a resource in a list of another one: the short fields that people know it by.
fn brief(item: &Value) -> String {
    let shown = ["name", "ip", "mac", "networkCidr", "startIp", "endIp", "gateway", "uuid"];
    let text = |key: &&str| Some(format!("{key}={}", item.get(*key)?.as_str()?));
    shown.iter().filter_map(text).collect::<Vec<_>>().join(" ")
}

/// Titles say what a reference leads to: `HOST` above the names of hosts.
fn title(noun: &Noun, column: &str) -> String {
    let name = column.rsplit('.').next().unwrap_or(column);
    let field = noun.fields().find(|field| field.name == name);
    let refs = field.filter(|field| field.name != "uuid").and_then(|field| field.refs);
    match refs.and_then(noun_of) {
        Some(noun) => noun.word.to_uppercase(),
        None => split(name).join(" ").to_uppercase(),
    }
}

/// A value as text. A path leads into lists.
fn cell(row: &Value, column: &str, named: &Named) -> String {
    let (first, rest) = match column.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (column, None),
    };
    match (&row[first], rest) {
        (Value::Array(items), Some(rest)) => {
            let cells: BTreeSet<String> =
                items.iter().map(|item| cell(item, rest, named)).collect();
            cells.into_iter().collect::<Vec<_>>().join(",")
        }
        (value, Some(rest)) => cell(value, rest, named),
        (value, None) => text(value, named),
    }
}

fn text(value: &Value, named: &Named) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => named.get(text).unwrap_or(text).clone(),
        Value::Array(items) => {
            items.iter().map(|item| text(item, named)).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// The names of what rows point at in these columns.
fn names(client: &Client, noun: &Noun, columns: &[&str], rows: &[Value]) -> Result<Named, Error> {
    let mut wanted: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
    let fields =
        noun.fields().filter(|field| columns.contains(&field.name) && field.name != "uuid");
    for (name, kind) in fields.filter_map(|field| Some((field.name, field.refs?))) {
        let values = rows.iter().filter_map(|row| row[name].as_str());
        wanted.entry(kind).or_default().extend(values);
    }
    let mut named = Named::new();
    for (kind, uuids) in wanted {
        let Some((noun, key)) = noun_of(kind).and_then(|noun| Some((noun.clone(), noun.key()?)))
        else {
            continue;
        };
        let uuids: Vec<&str> = uuids.into_iter().collect();
        for some in uuids.chunks(NAMES_MAX) {
            let pairs = [
                ("q".to_owned(), format!("uuid?={}", some.join(","))),
                ("fields".to_owned(), format!("uuid,{key}")),
                ("limit".to_owned(), NAMES_MAX.to_string()),
            ];
            let answer = client.query_pairs(noun.face.path, &pairs)?;
            let pair = |one: &Value| {
                Some((one["uuid"].as_str()?.to_owned(), one[key].as_str()?.to_owned()))
            };
            named.extend(answer["inventories"].as_array().into_iter().flatten().filter_map(pair));
        }
    }
    Ok(named)
}

fn wide_columns(noun: &Noun) -> Vec<&'static str> {
    let mut columns = noun.columns();
    let uuid = columns.iter().position(|column| *column == "uuid").map(|at| columns.remove(at));
    let more: Vec<_> = noun.fields().map(|field| field.name).collect();
    for name in more {
        if name != "uuid" && !columns.contains(&name) {
            columns.push(name);
        }
    }
    columns.extend(uuid);
    columns
}

fn rows(answer: &Value) -> &[Value] {
    match (&answer["inventory"], &answer["inventories"]) {
        (one @ Value::Object(_), _) => std::slice::from_ref(one),
        (_, Value::Array(rows)) => rows,
        _ => &[],
    }
}

fn lines(rows: &[Value], key: &str) -> Result<String, Error> {
    let line = |row: &Value| row[key].as_str().map(table::harmless);
    Ok(rows.iter().filter_map(line).collect::<Vec<_>>().join("\n"))
}

pub(crate) fn yaml(value: &Value) -> Result<String, Error> {
    let text = serde_yaml_ng::to_string(value);
    let text = text.map_err(|error| Error::Output(io::Error::other(error)))?;
    Ok(text.trim_end().to_owned())
}

/// How wide the terminal is, if standard output is one.
fn width() -> Option<usize> {
    let size = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(size.0.0))
}

/// The screen that a table goes to.
pub(crate) fn screen() -> Screen {
    Screen { width: width(), colours: colours() }
}

/// Colours are for terminals, and for those who want them: <https://no-color.org>.
fn colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !unwanted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::noun::nouns;

    fn noun(word: &str) -> Noun {
        nouns().into_iter().find(|noun| noun.word == word).unwrap()
    }

    #[test]
    fn a_table_names_what_its_rows_point_at() {
        let host = "0123456789abcdef0123456789abcdef";
        let row = json!({
            "name": "web", "state": "Running", "hostUuid": host, "uuid": "u",
            "vmNics": [{"ip": "10.0.0.1"}, {"ip": "10.0.1.1"}],
        });
        let named = [(host.to_owned(), "h1".to_owned())].into_iter().collect();
        let vm = noun("vm");
        let text = draw_rows(&vm, &vm.columns(), &[row], &named, Screen::default());
        let expected = "\
NAME  STATE    IP                 HOST  UUID
web   Running  10.0.0.1,10.0.1.1  h1    u";
        assert_eq!(text, expected);
    }

    #[test]
    fn one_resource_is_shown_with_what_it_has() {
        let row = json!({
            "name": "red", "description": null, "zoneUuid": "z", "uuid": "u",
            "dns": ["192.0.2.1", "192.0.2.2"], "ipRanges": [{"name": "r", "startIp": "10.0.0.1"}],
        });
        let named = [("z".to_owned(), "home".to_owned())].into_iter().collect();
        let text = draw_one(&noun("l3"), &row, &named);
        let expected = "\
uuid      u
name      red
zoneUuid  home (z)
dns       192.0.2.1,192.0.2.2
ipRanges  name=r startIp=10.0.0.1";
        assert_eq!(text, expected);
    }
}
