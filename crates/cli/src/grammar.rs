//! The nouns and verbs as commands: what help, completion and the reading of words come from.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, Args, Command, ValueHint};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use model::{FieldDef, FieldType, Kind, MessageDef};

use crate::{
    Connection, arguments, host,
    noun::{Noun, Verb, field_words, noun_of, nouns},
    output::Manner,
    words::MAKES,
};

/// Where words stand that belong to no option.
pub(crate) const WORDS: &str = "words";
/// Show again and again.
pub(crate) const WATCH: &str = "watch";
pub(crate) const LIST: &str = "list";
pub(crate) const SHOW: &str = "show";
/// The same as `show`, where no message of the noun is called so.
const GET: &str = "get";

/// Every noun with its verbs.
pub fn commands() -> Vec<Command> {
    let nouns = nouns();
    nouns.iter().map(|noun| of_noun(noun, &nouns)).collect()
}

/// One noun with its verbs, if there is one of this word.
pub fn command(word: &str) -> Option<Command> {
    let nouns = nouns();
    let found = nouns.iter().find(|noun| noun.word == word || noun.also.contains(&word))?;
    Some(of_noun(found, &nouns))
}

fn of_noun(noun: &Noun, nouns: &[Noun]) -> Command {
    let word = &noun.word;
    let list = verb_command(LIST, "List them: `list`, `list web`, `list FIELD=VALUE`.")
        .visible_alias("ls")
        .arg(words("CONDITION").add(ArgValueCandidates::new(fields_of(noun))))
        .arg(watch())
        .override_usage(format!("netloom {word} list [CONDITION]... [OPTIONS]"))
        .after_help(LIST_HELP.replace("NOUN", word));
    let show = verb_command(SHOW, "Show all fields of one.")
        .arg(words("NAME").required(true).add(ArgValueCandidates::new(names_of(noun.kind))))
        .arg(watch())
        .override_usage(format!("netloom {word} show NAME... [OPTIONS]"));
    let verbs = noun.verbs(nouns);
    let gets = verbs.iter().any(|verb| verb.word == GET || verb.also.iter().any(|w| w == GET));
    let show = if gets { show } else { show.visible_alias(GET) };
    let counters = (noun.face.name == host::FACE).then(|| {
        verb_command(
            host::COUNTERS,
            "Show what hosts dropped and why, how full they are, and what passed.",
        )
        .arg(words("NAME").add(ArgValueCandidates::new(names_of(noun.kind))))
        .arg(watch())
        .override_usage(format!("netloom {word} counters [NAME]... [OPTIONS]"))
    });
    Command::new(word.clone())
        .visible_aliases(noun.also.iter().copied())
        .about(about(noun))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list)
        .subcommand(show)
        .subcommands(counters)
        .subcommands(verbs.iter().map(|verb| of_verb(noun, verb)))
}

const LIST_HELP: &str = "\
Conditions have the operators = != > < >= <= ~= (like, with %) ?= (one of).
A word alone is part of a name. Names stand for uuids.

Examples:
  netloom NOUN list
  netloom NOUN list name~=web% limit=10
  netloom NOUN list -o json";

fn of_verb(noun: &Noun, verb: &Verb) -> Command {
    let positionals = positionals(verb);
    let shown: Vec<String> = positionals.iter().map(|field| shown(field)).collect();
    let needed = match &verb.messages[..] {
        [def] => needed(def, &positionals, verb),
        _ => String::new(),
    };
    let shown = shown.join(" ");
    let usage = format!("netloom {} {} {shown}{needed} [OPTIONS]", noun.word, verb.word);
    let about = verb.messages.first().map_or("", |def| def.doc);
    let names: Vec<&str> = verb.messages.iter().map(|def| def.name).collect();
    let mut command = verb_command(&verb.word, about)
        .aliases(verb.also.clone())
        .override_usage(usage)
        .after_help(format!("ZStack's words: {}", names.join(", ")))
        .arg(
            words("WORD")
                .help("As in the usage; FIELD=VALUE too")
                .add(ArgValueCandidates::new(names_of_first(&positionals))),
        );
    let mut taken: BTreeSet<String> =
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    let is_fixed = |field: &FieldDef| verb.fixed.is_some_and(|(name, _)| name == field.name);
    for def in &verb.messages {
        for field in def.fields.iter().filter(|field| !is_fixed(field)) {
            let fresh = |word: &String| taken.insert(word.clone());
            let words: Vec<String> = field_words(field).into_iter().filter(fresh).collect();
            if let Some((first, rest)) = words.split_first() {
                command = command.arg(
                    option(first, field.doc)
                        .aliases(rest.to_vec())
                        .add(ArgValueCandidates::new(values_of(field))),
                );
            }
        }
        let extra = EXTRA.iter().filter(|(word, _)| arguments::is_known(def, word));
        let extra = extra.map(|(word, doc)| ((*word).to_owned(), *doc));
        let tags = arguments::keys(def).into_iter().chain(extra);
        for (word, doc) in tags {
            if taken.insert(word.clone()) {
                command = command.arg(option(&word, doc));
            }
        }
    }
    command
}

/// What messages take beside their fields.
const EXTRA: [(&str, &str); 2] = [
    ("system-tags", "ZStack's system tags, separated by commas."),
    ("user-tags", "Words for people that are put on it, separated by commas."),
];

/// What stands without an option: the name of what is made; else what the path names, then what is
/// needed beside it.
pub(crate) fn positionals(verb: &Verb) -> Vec<&'static FieldDef> {
    let Some(def) = verb.messages.first() else { return Vec::new() };
    let field = |name: &str| def.fields.iter().find(|field| field.name == name);
    if verb.word == MAKES[0] {
        return field("name").into_iter().collect();
    }
    let placeholders = def.path.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let mut found: Vec<_> = placeholders.filter_map(|(name, _)| field(name)).collect();
    for field in def.fields {
        let is_there = found.iter().any(|one| one.name == field.name);
        let is_fixed = verb.fixed.is_some_and(|(name, _)| name == field.name);
        if field.required && !is_there && !is_fixed {
            found.push(field);
        }
    }
    if found.is_empty() {
        found.extend(first_reference(def));
    }
    found
}

/// What a noun is, in a sentence.
fn about(noun: &Noun) -> String {
    let doc = noun.kind.def().doc;
    let (first, _) = doc.split_once(". ").unwrap_or((doc, ""));
    let first = first.trim_end_matches('.');
    match noun.face.only {
        Some((field, value)) => format!("{first}: those whose {field} is {value}"),
        None => first.to_owned(),
    }
}

/// The options without which a message is refused.
fn needed(def: &MessageDef, positionals: &[&FieldDef], verb: &Verb) -> String {
    let is_option = |field: &&FieldDef| {
        let is_fixed = verb.fixed.is_some_and(|(name, _)| name == field.name);
        field.required && !is_fixed && !positionals.iter().any(|one| one.name == field.name)
    };
    let option = |field: &FieldDef| {
        let word = field_words(field).into_iter().next().unwrap_or_default();
        format!(" --{word} {}", word.to_uppercase())
    };
    def.fields.iter().filter(is_option).map(option).collect()
}

fn first_reference(def: &MessageDef) -> Option<&'static FieldDef> {
    def.fields.iter().find(|field| field.refs.is_some())
}

fn shown(field: &FieldDef) -> String {
    if let Some(noun) = field.refs.filter(|_| field.name == "uuid").and_then(noun_of) {
        return noun.word.to_uppercase();
    }
    field_words(field).first().map_or_else(String::new, |word| word.to_uppercase())
}

fn verb_command(word: &str, about: &str) -> Command {
    let command = Connection::augment_args(Manner::augment_args(Command::new(word.to_owned())));
    let command = command.mut_args(|arg| {
        let is_file = ["out", "password_file"].contains(&arg.get_id().as_str());
        let hint = if is_file { ValueHint::FilePath } else { ValueHint::Unknown };
        arg.value_hint(hint).hide_short_help(true).help_heading("Result, waiting, connection")
    });
    // The structs have texts of their own.
    let (first, _) = about.split_once(". ").unwrap_or((about, ""));
    command.about(first.trim_end_matches('.').to_owned()).long_about(about.to_owned())
}

fn words(name: &'static str) -> Arg {
    Arg::new(WORDS).value_name(name).num_args(0..).allow_hyphen_values(false)
}

fn option(word: &str, doc: &str) -> Arg {
    Arg::new(word.to_owned())
        .long(word.to_owned())
        .value_name("VALUE")
        .help(doc.to_owned())
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
}

fn watch() -> Arg {
    Arg::new(WATCH)
        .long(WATCH)
        .short('w')
        .action(ArgAction::SetTrue)
        .help("Show again whenever something has changed")
}

type Candidates = Box<dyn Fn() -> Vec<CompletionCandidate> + Send + Sync>;

fn fields_of(noun: &Noun) -> Candidates {
    let noun = noun.clone();
    Box::new(move || {
        let fields = noun.fields();
        fields.map(|field| CompletionCandidate::new(format!("{}=", field.name))).collect()
    })
}

fn names_of_first(positionals: &[&'static FieldDef]) -> Candidates {
    match positionals.first() {
        Some(field) => values_of(field),
        None => Box::new(Vec::new),
    }
}

/// The values that a field may have, as far as they are few or have names.
fn values_of(field: &'static FieldDef) -> Candidates {
    let words = match field.kind {
        FieldType::Bool => &["true", "false"][..],
        _ => field.one_of,
    };
    match field.refs {
        Some(kind) => names_of(kind),
        None => Box::new(move || words.iter().map(CompletionCandidate::new).collect()),
    }
}

fn names_of(kind: Kind) -> Candidates {
    Box::new(move || {
        let names = noun_of(kind).map(|noun| crate::connection::names_now(&noun));
        names.unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noun::nouns;

    #[test]
    fn the_commands_are_what_clap_can_use() {
        for command in commands() {
            command.debug_assert();
        }
    }

    #[test]
    fn every_message_but_those_of_sessions_is_a_verb_of_a_noun() {
        let nouns = nouns();
        let verbs: Vec<Verb> = nouns.iter().flat_map(|noun| noun.verbs(&nouns)).collect();
        let is_there = |def: &MessageDef| {
            verbs.iter().any(|verb| verb.messages.iter().any(|one| one.name == def.name))
        };
        let missing: Vec<_> = model::resource::messages()
            .filter(|def| def.access != model::declare::Access::Open && !is_there(def))
            .map(|def| def.name)
            .collect();
        // Of no resource: a query in ZStack's words, and what `netloom doctor` asks.
        assert_eq!(missing, ["ZQLQuery", "GetDoctorReport"]);
    }

    #[test]
    fn no_two_nouns_share_a_word() {
        let mut seen = BTreeSet::new();
        for noun in nouns() {
            for word in std::iter::once(noun.word.as_str()).chain(noun.also.iter().copied()) {
                assert!(seen.insert(word.to_owned()), "{word}");
            }
        }
    }
}
