//! `netloom vm list`, `netloom vm create red-3 --l3 red-l3`: a noun's verbs, carried out.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal, Write},
    sync::mpsc,
    time::Duration,
};

use clap::{ArgMatches, FromArgMatches};
use client::Client;
use model::{Kind, MessageDef};
use serde_json::{Value, json};

use crate::{
    Connection, Error,
    arguments::{self, Unknown, is_password},
    call::{PAGE_OPTIONS, QUERY_OPTIONS},
    grammar::{LIST, SHOW, WATCH, WORDS, positionals},
    host, names, near,
    noun::{Noun, Verb, field_words, nouns, reads},
    output::{self, Format, Manner},
    told,
    words::{DELETES, MAKES},
    work::{self, Outcome},
};

/// How long `--watch` waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Carries out what the words after a noun ask for.
pub(crate) fn run(word: &str, matches: &ArgMatches, above: &Connection) -> Result<(), Error> {
    let nouns = nouns();
    let noun = nouns.iter().find(|noun| noun.word == word || noun.also.contains(&word));
    let noun = noun.ok_or_else(|| Error::Usage(format!("there is no noun \"{word}\"")))?;
    let Some((word, matches)) = matches.subcommand() else {
        return Err(Error::Usage(format!("what about {}? --help lists verbs", noun.word)));
    };
    let usage = |error: clap::Error| Error::Usage(error.to_string());
    let connection = Connection::from_arg_matches(matches).map_err(usage)?.or(above);
    let manner = Manner::from_arg_matches(matches).map_err(usage)?;
    let words: Vec<String> =
        matches.get_many::<String>(WORDS).into_iter().flatten().cloned().collect();
    match word {
        LIST => connection
            .with(|client| repeat(matches.get_flag(WATCH), || list(client, noun, &words, &manner))),
        SHOW => connection
            .with(|client| repeat(matches.get_flag(WATCH), || show(client, noun, &words, &manner))),
        host::COUNTERS if noun.face.name == host::FACE => connection.with(|client| {
            let show = || host::counters(client, noun, (&words, &manner));
            repeat(matches.get_flag(WATCH), show)
        }),
        _ => {
            let verbs = noun.verbs(&nouns);
            let verb = verbs.iter().find(|verb| verb.word == word);
            let verb = verb.ok_or_else(|| Error::Usage(format!("there is no verb \"{word}\"")))?;
            let options = options(matches);
            connection.with(|client| act(client, noun, verb, (&words, &options), &manner))
        }
    }
}

/// The options of fields that were given, in the order of the declaration.
fn options(matches: &ArgMatches) -> Vec<(String, String)> {
    let own = ["output", "out", "no_wait", "timeout", "server", "password_file", "profile", WORDS];
    let ids = matches.ids().map(clap::Id::as_str).filter(|id| !own.contains(id));
    let values = |id: &str| -> Vec<(String, String)> {
        let found = matches.try_get_many::<String>(id).ok().flatten();
        found.into_iter().flatten().map(|value| (id.to_owned(), value.clone())).collect()
    };
    ids.flat_map(values).collect()
}

/// Once, or again and again until somebody ends it.
fn repeat(watch: bool, mut show: impl FnMut() -> Result<String, Error>) -> Result<(), Error> {
    let mut before = None;
    let (_nobody, end) = mpsc::channel::<()>();
    loop {
        let text = show()?;
        if before.as_ref() != Some(&text) {
            if watch && io::stdout().is_terminal() {
                // Clears the screen; a terminal that is gone shows in what is printed next.
                let _ = write!(io::stdout(), "\x1b[H\x1b[2J");
            }
            if !text.is_empty() {
                crate::print(&text)?;
            }
        }
        if !watch {
            return Ok(());
        }
        before = Some(text);
        let _ = end.recv_timeout(LOOK_AGAIN);
    }
}

fn list(client: &Client, noun: &Noun, words: &[String], manner: &Manner) -> Result<String, Error> {
    let mut pairs = conditions(client, noun, words)?;
    let is_plain = matches!(manner.output, None | Some(Format::Table)) && manner.out.is_none();
    let is_plain = is_plain && !pairs.iter().any(|(key, _)| ["fields", "count"].contains(&&**key));
    let is_host = is_plain && noun.face.name == host::FACE;
    if is_host {
        pairs = host::listed(pairs);
    } else if is_plain {
        // Lists inside of rows that no column shows are not made.
        let shown = noun.columns().into_iter().map(|path| path.split('.').next().unwrap_or(path));
        let shown: BTreeSet<&str> = shown.chain(["uuid"]).collect();
        let shown: Vec<&str> = shown.into_iter().collect();
        pairs.push(("fields".to_owned(), shown.join(",")));
    }
    let is_page = pairs.iter().any(|(key, _)| PAGE_OPTIONS.contains(&key.as_str()));
    let rows = match is_page {
        true => {
            let mut answer = client.query_pairs(noun.face.path, &pairs)?;
            match answer["inventories"].take() {
                Value::Array(rows) => rows,
                _ => return manner.rows_text(client, noun, &[answer]),
            }
        }
        false => client.query_all(noun.face.path, &pairs)?,
    };
    if manner.out.is_some() {
        manner.show_rows(client, noun, &rows)?;
        return Ok(String::new());
    }
    let is_table = matches!(manner.output, None | Some(Format::Table | Format::Wide));
    match rows.is_empty() && is_table {
        true => Ok(format!("no {} found", noun.word)),
        false if is_host => Ok(host::list(&rows, output::screen())),
        false => manner.rows_text(client, noun, &rows),
    }
}

/// The pairs of a query: fields by their short words, names for uuids, a bare word for a part of a
/// name.
pub(crate) fn conditions(
    client: &Client,
    noun: &Noun,
    words: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let mut pairs = Vec::new();
    for word in words {
        let Some(at) = word.find(['=', '!', '<', '>', '~', '?']) else {
            let key = noun.key().ok_or_else(|| {
                Error::Usage(format!("\"{word}\" is no condition, such as uuid=..."))
            })?;
            let is_null = word.ends_with(" null");
            let like = || format!("{key}~=%{}%", word.replace('*', "%"));
            pairs.push(("q".to_owned(), if is_null { word.clone() } else { like() }));
            continue;
        };
        let (left, rest) = word.split_at(at);
        if let Some(value) = rest.strip_prefix('=').filter(|_| QUERY_OPTIONS.contains(&left)) {
            pairs.push((left.to_owned(), value.to_owned()));
            continue;
        }
        pairs.push(("q".to_owned(), condition(client, noun, left, rest)?));
    }
    Ok(pairs)
}

fn condition(client: &Client, noun: &Noun, left: &str, rest: &str) -> Result<String, Error> {
    let is_it = |word: &String| word == left;
    let found =
        noun.fields().find(|field| field.name == left || field_words(field).iter().any(is_it));
    let Some(field) = found else {
        if left.contains('.') || left.starts_with("__") {
            return Ok(format!("{left}{rest}"));
        }
        let known: Vec<&str> = noun.fields().map(|field| field.name).collect();
        let meant = near::hint(left, known.into_iter());
        return Err(Error::Usage(format!("a {} has no field \"{left}\"{meant}", noun.word)));
    };
    let operator = ["!=", "="].into_iter().find(|operator| rest.starts_with(operator));
    if let (Some(kind), Some(operator)) = (field.refs.filter(|_| field.name != "uuid"), operator)
        && !["", "null"].contains(&&rest[operator.len()..])
    {
        let uuid = names::uuid_of(client, kind, &rest[operator.len()..])?;
        return Ok(format!("{}{operator}{uuid}", field.name));
    }
    Ok(format!("{}{rest}", field.name))
}

fn show(client: &Client, noun: &Noun, words: &[String], manner: &Manner) -> Result<String, Error> {
    let mut texts = Vec::new();
    for word in words {
        let uuid = names::uuid(client, noun, word)?;
        let found = client.query(noun.face.path, &[format!("uuid={uuid}")])?;
        let Some(row) = found.first() else {
            return Err(Error::Name(format!("there is no {} {uuid}", noun.word)));
        };
        let is_plain = matches!(manner.output, None | Some(Format::Table)) && manner.out.is_none();
        texts.push(match noun.face.name {
            host::FACE if is_plain => host::show(row, &cluster(client, row)?),
            told::FACE if is_plain => {
                [manner.one_text(client, noun, row)?, told::of(client, row)?].join("\n\n")
            }
            _ => manner.one_text(client, noun, row)?,
        });
    }
    Ok(texts.join("\n\n"))
}

/// The name of the cluster that a host is in.
fn cluster(client: &Client, host: &Value) -> Result<String, Error> {
    let uuid = host["clusterUuid"].as_str().unwrap_or_default();
    let pairs =
        [("q".to_owned(), format!("uuid={uuid}")), ("fields".to_owned(), "name".to_owned())];
    let found = client.query_all(Kind::Cluster.def().path(), &pairs)?;
    let name = found.first().and_then(|cluster| cluster["name"].as_str());
    Ok(name.unwrap_or(uuid).to_owned())
}

fn act(
    client: &Client,
    noun: &Noun,
    verb: &Verb,
    (words, options): (&[String], &[(String, String)]),
    manner: &Manner,
) -> Result<(), Error> {
    let mut common: Vec<(String, String)> = options.to_vec();
    common.extend(verb.fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (mut bare, fields) = positionals_of(verb, words);
    common.extend(fields);
    let order: Vec<_> = positionals(verb)
        .into_iter()
        .filter(|field| {
            !common.iter().any(|(key, _)| field_words(field).contains(key) || field.name == key)
        })
        .collect();
    let is_delete = verb.word == DELETES[0] && order.len() == 1;
    // Several may be deleted at once; elsewhere each word has its place.
    let several = match is_delete {
        true if !bare.is_empty() => {
            std::mem::take(&mut bare).into_iter().map(|w| vec![w]).collect()
        }
        _ => vec![bare],
    };
    for words in several {
        if let Some(extra) = words.get(order.len()) {
            let text = format!("\"{extra}\" is one word too many: {} {}", noun.word, verb.word);
            return Err(Error::Usage(text));
        }
        let placed = order.iter().zip(&words);
        let mut pairs: Vec<_> =
            placed.map(|(field, word)| (field.name.to_owned(), word.clone())).collect();
        pairs.extend(common.clone());
        ask_for_password(verb, &mut pairs)?;
        // `vxlan delete p` must not find a pool of this name.
        let is_subject =
            |name: &str| verb.word != MAKES[0] && words.first().is_some_and(|w| w == name);
        let resolve = |kind, name: &str| match kind == noun.kind && is_subject(name) {
            true => names::uuid(client, noun, name),
            false => names::uuid_of(client, kind, name),
        };
        let call = arguments::call(&verb.messages, &pairs, Unknown::Refused, &resolve)?;
        let subject = words.first().cloned().unwrap_or_default();
        let outcome = work::send(client, call, manner)?;
        tell(client, noun, (verb, &subject), &outcome, manner)?;
    }
    Ok(())
}

/// Words that stand alone, and those that name a field.
fn positionals_of(verb: &Verb, words: &[String]) -> (Vec<String>, Vec<(String, String)>) {
    let (mut bare, mut fields) = (Vec::new(), Vec::new());
    let known = |key: &str| {
        let named = |def: &&'static MessageDef| arguments::is_known(def, key);
        verb.messages.iter().any(named)
    };
    for word in words {
        match word.split_once('=') {
            Some((key, value)) if known(key) || bare.len() >= positionals(verb).len() => {
                fields.push((key.to_owned(), value.to_owned()));
            }
            _ => bare.push(word.clone()),
        }
    }
    (bare, fields)
}

/// A password that is needed and not given is asked for, so that it is in no history.
fn ask_for_password(verb: &Verb, pairs: &mut Vec<(String, String)>) -> Result<(), Error> {
    let Some(def) = verb.messages.first() else { return Ok(()) };
    let needed = def.fields.iter().filter(|field| field.required && is_password(field));
    for field in needed {
        if !pairs.iter().any(|(key, _)| field_words(field).contains(key) || field.name == key) {
            pairs.push((field.name.to_owned(), crate::session::ask(field.name)?));
        }
    }
    Ok(())
}

/// Says what has come of it.
fn tell(
    client: &Client,
    noun: &Noun,
    (verb, subject): (&Verb, &str),
    outcome: &Outcome,
    manner: &Manner,
) -> Result<(), Error> {
    let answer = match outcome {
        Outcome::Accepted(job) => {
            return match manner.output {
                None | Some(Format::Table | Format::Wide) => crate::print(&format_args!(
                    "accepted, job {0}; {1}",
                    job.uuid,
                    work::look(&job.uuid)
                )),
                _ => manner.show_answer(&json!({"job": job.uuid})),
            };
        }
        Outcome::Done(answer) => answer,
    };
    let only_reads = verb.messages.first().is_some_and(|def| reads(def));
    let is_table = matches!(manner.output, None | Some(Format::Table | Format::Wide));
    let inventory = &answer["inventory"];
    let is_of_noun =
        inventory["uuid"].is_string() && noun.key().is_none_or(|key| inventory.get(key).is_some());
    if manner.out.is_none() && is_table && is_of_noun {
        return manner.show_rows(client, noun, std::slice::from_ref(inventory));
    }
    if let Some(found) = answer["inventories"].as_array().filter(|_| is_table)
        && manner.out.is_none()
    {
        return crate::print(&output::draw_plain(found));
    }
    if manner.out.is_none() && is_table && only_reads {
        return Manner { output: Some(Format::Yaml), ..manner.clone() }.show_answer(answer);
    }
    let is_plain = inventory.is_null() && answer["inventories"].is_null();
    if manner.out.is_none() && is_table && is_plain {
        let done = match verb.word.as_str() {
            word if word == DELETES[0] => "deleted",
            word if word == MAKES[0] => "created",
            _ => "done",
        };
        return crate::print(&format_args!("{} {subject}: {done}", noun.word));
    }
    manner.show_answer(answer)
}
