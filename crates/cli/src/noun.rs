//! Nouns and verbs of the command line, from the declarations: `vm`, and what can be done with one.

use std::collections::BTreeMap;

use model::{
    FieldDef, Kind, MessageDef,
    declare::{Access, Method},
    resource::{faces, messages},
    shown::Face,
};

use crate::words::{DELETES, EVENT, KEYS, MAKES, VERBS, WORDS};

/// What people name on the command line: the resources of one face.
#[derive(Clone)]
pub(crate) struct Noun {
    /// Its word.
    pub(crate) word: String,
    /// Words that mean the same.
    pub(crate) also: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) face: &'static Face,
    columns: &'static [&'static str],
}

/// What can be done: one message, or several that differ by what they take.
pub(crate) struct Verb {
    pub(crate) word: String,
    /// Words that mean the same.
    pub(crate) also: Vec<String>,
    pub(crate) messages: Vec<&'static MessageDef>,
    /// A field that the verb itself fills in.
    pub(crate) fixed: Option<(&'static str, &'static str)>,
}

/// All nouns, in the order in which help lists them.
pub(crate) fn nouns() -> Vec<Noun> {
    let mut nouns: Vec<Noun> = faces().map(|(kind, face)| Noun::of(kind, face)).collect();
    let place = |noun: &Noun| WORDS.iter().position(|words| words.face == noun.face.name);
    nouns.sort_by_key(|noun| place(noun).unwrap_or(WORDS.len()));
    nouns
}

/// The noun that people use for a kind: that of its first face.
pub(crate) fn noun_of(kind: Kind) -> Option<Noun> {
    kind.def().faces.first().map(|face| Noun::of(kind, face))
}

impl Noun {
    fn of(kind: Kind, face: &'static Face) -> Self {
        match WORDS.iter().find(|words| words.face == face.name) {
            Some(words) => Self {
                word: words.noun.to_owned(),
                also: words.also,
                kind,
                face,
                columns: words.columns,
            },
            None => Self { word: kebab(face.name), also: &[], kind, face, columns: &[] },
        }
    }

    /// The columns of its tables. Where nobody has chosen: name and state first, then up to three
    /// fields of its own, the uuid last.
    pub(crate) fn columns(&self) -> Vec<&'static str> {
        if !self.columns.is_empty() {
            return self.columns.to_vec();
        }
        let fields: Vec<_> = self.fields().map(|field| field.name).collect();
        let first = ["name", "state", "status"].into_iter().filter(|name| fields.contains(name));
        let common = ["uuid", "name", "state", "status", "description", "createDate", "lastOpDate"];
        let own = fields.iter().copied().filter(|name| !common.contains(name)).take(3);
        first.chain(own).chain(["uuid"]).collect()
    }

    /// Every field of its inventory.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static FieldDef> + use<> {
        let def = self.kind.def();
        let shown = def.columns().filter(|column| !column.hidden).map(|column| &column.field);
        shown.chain(def.derived.iter().map(|derived| &derived.field))
    }

    /// The field by which people name one.
    pub(crate) fn key(&self) -> Option<&'static str> {
        KEYS.iter().copied().find(|key| self.fields().any(|field| field.name == *key))
    }

    /// What can be done with it beside `list` and `show`, by its word.
    pub(crate) fn verbs(&self, nouns: &[Noun]) -> Vec<Verb> {
        let mut by_word: BTreeMap<String, Verb> = BTreeMap::new();
        for def in messages().filter(|def| def.access != Access::Open) {
            let Some(word) = self.word_for(def, nouns) else { continue };
            let first = word.split('-').next().unwrap_or_default();
            let makes = MAKES.contains(&first) && self.is_made_by(def, &word);
            let (word, also) = match (makes, DELETES.contains(&word.as_str())) {
                (true, _) => (MAKES[0].to_owned(), vec![MAKES[1].to_owned()]),
                (_, true) => (DELETES[0].to_owned(), vec![DELETES[1].to_owned()]),
                _ => (word, Vec::new()),
            };
            let events = def.fields.iter().find(|field| field.name == EVENT);
            for event in events.map_or(&[][..], |field| field.one_of) {
                let verb = Verb {
                    word: (*event).to_owned(),
                    also: Vec::new(),
                    messages: vec![def],
                    fixed: Some((EVENT, event)),
                };
                by_word.insert(verb.word.clone(), verb);
            }
            if events.is_none() {
                let new = || Verb { word: word.clone(), also, messages: Vec::new(), fixed: None };
                by_word.entry(word.clone()).or_insert_with(new).messages.push(def);
            }
        }
        let mut verbs: Vec<Verb> = by_word.into_values().collect();
        shorten(&mut verbs);
        verbs
    }

    /// The verb that a message is for this noun, if it is about it.
    fn word_for(&self, def: &MessageDef, nouns: &[Noun]) -> Option<String> {
        let subject = subject(def)?;
        let target = def.target().and_then(|field| field.refs);
        let candidates = nouns.iter().filter(|noun| {
            noun.kind == subject || (def.creates.is_none() && Some(noun.kind) == target)
        });
        let parts = split(def.name);
        let named: Vec<(&Noun, String)> = candidates
            .filter_map(|noun| Some((noun, without(&parts, &split(noun.face.name))?)))
            .collect();
        let longest = named.iter().max_by_key(|(noun, _)| split(noun.face.name).len());
        let short = VERBS.iter().find(|(name, _)| *name == def.name).map(|(_, word)| *word);
        let word = match longest {
            Some((_, word)) => word.clone(),
            None => parts.join("-"),
        };
        let word = short.map_or(word, str::to_owned);
        let is_mine = match longest {
            Some((noun, _)) if noun.word == self.word => true,
            // What changes a resource works for each face of its kind.
            Some((noun, _)) => noun.kind == self.kind && target == Some(self.kind),
            None => self.face.name == subject.def().faces.first().map_or("", |face| face.name),
        };
        is_mine.then_some(word)
    }

    fn is_made_by(&self, def: &MessageDef, word: &str) -> bool {
        def.creates == Some(self.kind) || MAKES.contains(&word)
    }
}

/// What a message is about: what it is declared with, or names first, if that is not shown.
fn subject(def: &MessageDef) -> Option<Kind> {
    let declares = |kind: &&Kind| kind.def().messages.iter().any(|one| one.name == def.name);
    let own = Kind::ALL.iter().find(declares).copied()?;
    let named = || def.fields.iter().find_map(|field| field.refs);
    match own.def().is_shown() {
        true => Some(own),
        false => def.target().and_then(|field| field.refs).or_else(named),
    }
}

/// Gives a verb of several words its first word too, where no other begins with it.
fn shorten(verbs: &mut [Verb]) {
    let words: Vec<String> = verbs.iter().map(|verb| verb.word.clone()).collect();
    let first = |word: &str| word.split('-').next().unwrap_or_default().to_owned();
    let mut seen = BTreeMap::<String, usize>::new();
    words.iter().for_each(|word| *seen.entry(first(word)).or_default() += 1);
    let taken: Vec<String> = verbs.iter().flat_map(|verb| verb.also.clone()).collect();
    for verb in verbs.iter_mut().filter(|verb| verb.word.contains('-')) {
        let short = first(&verb.word);
        let is_reserved = ["list", "show", "get"].contains(&short.as_str());
        if seen.get(&short) == Some(&1) && !is_reserved && !taken.contains(&short) {
            verb.also.push(short);
        }
    }
}

/// The message's words without the noun's, joined; `None` if it does not name the noun.
fn without(parts: &[String], noun: &[String]) -> Option<String> {
    let at = parts.windows(noun.len()).position(|window| window == noun)?;
    let (before, after) = (&parts[..at], &parts[at + noun.len()..]);
    // "Add Dns To [L3 Network]".
    let preposition = ["to", "from", "for", "of"];
    let before = match before.split_last() {
        Some((last, rest)) if preposition.contains(&last.as_str()) => rest,
        _ => before,
    };
    let rest: Vec<&str> = before.iter().chain(after).map(String::as_str).collect();
    Some(rest.join("-"))
}

/// `CreateL2VxlanNetwork` as `create`, `l2`, `vxlan`, `network`; `KVMHost` as `kvm`, `host`.
pub(crate) fn split(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words: Vec<String> = Vec::new();
    for (at, letter) in letters.iter().enumerate() {
        let after_small = at > 0 && !letters[at - 1].is_ascii_uppercase();
        let before_small = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (after_small || before_small) || words.is_empty() {
            words.push(String::new());
        }
        if let Some(last) = words.last_mut() {
            last.push(letter.to_ascii_lowercase());
        }
    }
    words
}

pub(crate) fn kebab(name: &str) -> String {
    split(name).join("-")
}

/// The words by which a field can be given, the shortest first: `l3`, `l3-network`,
/// `l3-network-uuid`.
pub(crate) fn field_words(field: &FieldDef) -> Vec<String> {
    let whole = kebab(field.name);
    let bare = whole.strip_suffix("-uuid").or_else(|| whole.strip_suffix("-uuids"));
    let mut words: Vec<String> = Vec::new();
    if let (Some(bare), Some(noun)) = (bare, field.refs.and_then(noun_of)) {
        let of_noun = split(noun.face.name).join("-");
        // `defaultL3NetworkUuid` is `default-l3`.
        words.push(bare.replace(&of_noun, &noun.word));
    }
    words.extend(bare.map(str::to_owned));
    words.push(whole);
    words.dedup();
    words
}

/// Whether a message only reads.
pub(crate) fn reads(def: &MessageDef) -> bool {
    def.method == Method::Get
}
