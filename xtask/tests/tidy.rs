//! The rules of the house that no compiler checks. Reads the sources, changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of a source file at most; aim for 150 to 350.
const FILE_LINES_MAX: usize = 600;
/// Lines of ARCHITECTURE.md at most.
const ARCHITECTURE_LINES_MAX: usize = 200;

/// What each crate may import of ours: always further down. ARCHITECTURE.md draws it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("damage", &[]),
    ("derive", &[]),
    ("packet", &["damage"]),
    ("hostnet", &[]),
    ("seats", &[]),
    ("model", &["damage", "derive"]),
    ("wire", &["damage", "model"]),
    ("judge", &["wire"]),
    ("store", &["model"]),
    ("compile", &["model", "store", "wire"]),
    ("link", &["compile", "model", "seats", "store", "wire"]),
    ("control", &["compile", "damage", "model", "seats", "store", "wire"]),
    ("api", &["control", "damage", "model", "seats", "store"]),
    ("client", &["model"]),
    ("dataplane", &["packet"]),
    ("compute", &["hostnet"]),
    ("guest", &["damage", "hostnet", "seats", "wire"]),
    ("policy", &["damage", "packet", "wire"]),
    ("router", &["hostnet", "model", "seats"]),
    (
        "agent",
        &[
            "compute",
            "damage",
            "dataplane",
            "guest",
            "hostnet",
            "model",
            "packet",
            "policy",
            "seats",
            "wire",
        ],
    ),
    ("lab", &["cli", "client", "compute", "damage", "dataplane", "hostnet", "model"]),
    ("cli", &["client", "damage", "model"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files that git knows, or would: what is ignored is not ours.
fn files(suffixes: &[&str]) -> Vec<PathBuf> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(list).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "tidy needs git and a checkout");
    let text = String::from_utf8(output.stdout).unwrap();
    let wanted = text.lines().filter(|path| suffixes.iter().any(|suffix| path.ends_with(suffix)));
    wanted.map(PathBuf::from).filter(|path| root().join(path).is_file()).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let written = files(&[".rs"]).into_iter().filter(|path| !is_generated(path));
    written.map(|path| (path.clone(), fs::read_to_string(root().join(&path)).unwrap())).collect()
}

fn is_generated(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "gen")
}

fn complain(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_import_only_what_is_below_them() {
    let metadata = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).args(metadata).current_dir(root()).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, BTreeSet<_>> =
        MAY_IMPORT.iter().map(|(name, below)| (*name, below.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let Some(name) = package["name"].as_str().unwrap().strip_prefix("netloom-") else {
            continue;
        };
        if matches!(name, "tests" | "bench") {
            continue;
        }
        let Some(below) = allowed.get(name) else {
            wrong.push(format!("{name} is not in tidy's table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let is_dev = dependency["kind"].as_str() == Some("dev");
            let ours = dependency["name"].as_str().unwrap().strip_prefix("netloom-");
            if let Some(ours) = ours.filter(|ours| !is_dev && !below.contains(ours)) {
                wrong.push(format!("{name} imports {ours}"));
            }
        }
    }
    complain("imports that point up", &wrong);
}

#[test]
fn no_file_is_too_long_and_each_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{} has {lines} lines, over {FILE_LINES_MAX}", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not start with //!", path.display()));
        }
    }
    complain("files", &wrong);
}

#[test]
fn nothing_is_left_over() {
    // Spelt in two parts, so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimpl", "emented!")];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    complain("left-overs", &wrong);
}

/// A parser that a crate lists in its module `fuzz` is checked by its tests; the fuzzer needs a file,
/// and a line in the manifest, which nothing else would miss.
#[test]
fn every_target_of_a_crate_has_its_fuzzer() {
    let mut expected = BTreeSet::new();
    for (path, text) in sources().iter().filter(|(path, _)| path.ends_with("src/fuzz.rs")) {
        let name = path.iter().nth(1).unwrap().to_str().unwrap();
        let targets = text.lines().filter_map(|line| line.strip_prefix("pub const "));
        let targets = targets.filter_map(|line| line.split_once(": Target ="));
        expected.extend(targets.map(|(target, _)| (name.to_owned(), target.to_owned())));
    }
    assert!(expected.len() > 10, "{expected:?}");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut missing = Vec::new();
    for (name, target) in &expected {
        let file = format!("fuzz_targets/{name}_{}.rs", target.to_lowercase());
        let text = fs::read_to_string(root().join("fuzz").join(&file)).unwrap_or_default();
        let calls = format!("netloom_fuzz::fuzz!({name}::fuzz::{target});");
        if !text.contains(&calls) || !manifest.contains(&format!("path = \"{file}\"")) {
            missing.push(format!("{file} with {calls}"));
        }
    }
    complain("fuzzers", &missing);
    assert_eq!(manifest.matches("[[bin]]").count(), expected.len(), "of targets that are gone");
}

#[test]
fn unsafe_is_only_where_the_architecture_says() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let word = concat!("uns", "afe");
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let uses = |line: &str| {
            line.contains(&format!("{word} {{")) || line.contains(&format!("{word} impl"))
        };
        let folder = path.parent().unwrap().display().to_string();
        let listed = [path.display().to_string(), format!("{folder}/")];
        if code.into_iter().any(uses)
            && !listed.iter().any(|place| architecture.contains(&format!("`{place}`")))
        {
            wrong.push(path.display().to_string());
        }
    }
    complain("unsafe outside the modules that ARCHITECTURE.md lists", &wrong);
}

#[test]
fn paths_in_documents_exist() {
    let mut wrong = Vec::new();
    for path in files(&[".md"]) {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            for word in line.split('`').skip(1).step_by(2).filter(|word| looks_like_our_path(word))
            {
                if !root().join(word).exists() {
                    wrong.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
    }
    complain("paths that do not exist", &wrong);
}

fn looks_like_our_path(word: &str) -> bool {
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let top = word.split('/').next().unwrap_or_default();
    let ours = ["crates", "ebpf", "tests", "examples", "scripts", "docs", "xtask", "bench", ".ci"];
    plain && word.contains('/') && ours.contains(&top)
}

#[test]
fn the_architecture_stays_short() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let lines = text.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
}
