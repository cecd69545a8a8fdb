//! A map whose layout changed has another version: a host would take the old map for the new one.
//! Needs no root.
//!
//! `NETLOOM_RENEW=1` writes down the layouts of new versions (`make ebpf` does that after a build).
//! The layout of a version that is written down never changes. While nobody else has seen the
//! version, its line may be deleted.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const PACKET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packet/src");
/// The table of maps, and the structs that are in maps.
const FILES: [&str; 9] =
    ["maps", "port", "rules", "prefix", "fdb", "net", "budget", "hand_off", "moves"];
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gen/layouts.txt");

#[test]
fn a_layout_that_changed_has_another_version() {
    let read = |file| fs::read_to_string(format!("{PACKET}/{file}.rs")).unwrap();
    let found = layouts(&FILES.map(read).concat());
    assert!(found.len() >= 12, "{found:#?}");
    let record = fs::read_to_string(RECORD).unwrap_or_default();
    let recorded: BTreeMap<String, String> = record.lines().map(split).collect();
    for (map, layout) in &found {
        let before = recorded.get(map).unwrap_or(layout);
        assert_eq!(before, layout, "{map} has another layout: raise its version in maps.rs");
    }
    if std::env::var("NETLOOM_RENEW").is_ok_and(|value| value == "1") {
        let lines = found.iter().map(|(map, layout)| format!("{map} {layout}\n"));
        fs::write(RECORD, lines.collect::<String>()).unwrap();
        return;
    }
    assert_eq!(recorded, found, "gen/layouts.txt is stale: run make ebpf");
}

#[test]
fn a_layout_is_that_of_every_struct_in_it() {
    let source = "pub struct A[4] {\n /// Doc B.\n pub x: u32,\n}\npub struct C[8] {\n \
                  pub a: A, y: u32,\n}\nabc ABC 7: hash u32 => $crate::C, $crate::MAX, removed Last;";
    let (map, layout) = layouts(source).pop_first().unwrap();
    assert_eq!((&*map, &*layout), ("abc_7", "hash u32 C; A[4]{x:u32,} C[8]{a:A,y:u32,}"));
}

fn split(line: &str) -> (String, String) {
    let (map, layout) = line.split_once(' ').unwrap();
    (map.to_owned(), layout.to_owned())
}

/// The kind, key and value of each map of the table, with the structs in them.
fn layouts(source: &str) -> BTreeMap<String, String> {
    let code: Vec<&str> =
        source.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
    let code = code.join(" ");
    let structs = structs(&code);
    code.split(';').filter_map(|statement| layout(statement, &structs)).collect()
}

/// Each struct's size and fields, by name.
fn structs(code: &str) -> BTreeMap<&str, String> {
    let one = |text| -> Option<(&str, String)> {
        let (head, _) = str::split_once(text, '}')?;
        let (name, rest) = head.split_once('[')?;
        Some((name, format!("[{rest}}}").replace("pub ", "").replace(' ', "")))
    };
    code.split("pub struct ").skip(1).filter_map(one).collect()
}

/// The layout of a line of the table: `name NAME version: ...`.
fn layout(statement: &str, structs: &BTreeMap<&str, String>) -> Option<(String, String)> {
    let (head, rest) = statement.rsplit(['{', '}']).next()?.trim().split_once(": ")?;
    let mut head = head.rsplit(' ');
    let (version, capitals, name) = (head.next()?, head.next()?, head.next()?);
    version.parse::<u32>().ok().filter(|_| name.to_uppercase() == capitals)?;
    let rest = rest.replace("$crate::", "");
    let (types, _) = rest.split_once(',')?;
    let types = match types.split_once(" => ") {
        Some((key, value)) => format!("{key} {value}"),
        None => types.to_owned(),
    };
    let used = used(&types, structs);
    let bodies: Vec<String> = used.iter().map(|name| format!("{name}{}", structs[name])).collect();
    Some((format!("{name}_{version}"), format!("{types}; {}", bodies.join(" "))))
}

/// The structs that are named in a text, and those that are named in them.
fn used<'a>(text: &str, structs: &BTreeMap<&'a str, String>) -> BTreeSet<&'a str> {
    let mut used = BTreeSet::new();
    let words = |text: &str| -> Vec<&'a str> {
        let words = text.split(|c: char| !c.is_alphanumeric());
        words.filter_map(|word| structs.get_key_value(word).map(|(name, _)| *name)).collect()
    };
    let mut next = words(text);
    while let Some(name) = next.pop() {
        if used.insert(name) {
            next.extend(words(&structs[name]));
        }
    }
    used
}
