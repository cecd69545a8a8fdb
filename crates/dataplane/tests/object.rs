//! The committed object belongs to the committed sources. Needs no root and no BPF compiler.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// What `scripts/build-ebpf` hashes, relative to the root.
const SOURCES: [&str; 5] =
    ["crates/packet/src", "crates/packet/Cargo.toml", "ebpf/.cargo", "ebpf/Cargo.lock", "ebpf"];

#[test]
fn the_object_is_built_from_these_sources() {
    let record = record();
    let recorded = field(&record, "sources_sha256");
    assert_eq!(
        sources_hash(),
        recorded,
        "crates/dataplane/gen/netloom.bpf.o is stale: run make ebpf"
    );
}

#[test]
fn the_object_is_the_one_that_the_record_describes() {
    let object = fs::read(root().join("crates/dataplane/gen/netloom.bpf.o")).unwrap();
    assert_eq!(hex(&Sha256::digest(&object)), field(&record(), "object_sha256"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn record() -> String {
    fs::read_to_string(root().join("crates/dataplane/gen/netloom.bpf.o.json")).unwrap()
}

fn field(record: &str, name: &str) -> String {
    let prefix = format!("\"{name}\": \"");
    let line = record.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap();
    line.trim_end_matches(',').trim_end_matches('"').to_owned()
}

/// The same as `scripts/build-ebpf --hash`: a hash of lines of hash and path, in order of path.
fn sources_hash() -> String {
    let root = root();
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files);
    }
    let mut lines: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let left_out = path.contains("/vectors/")
                || (path.starts_with("ebpf/") && !is_program_source(&path));
            (!left_out).then_some(path)
        })
        .collect();
    lines.sort();
    lines.dedup();
    let mut all = Sha256::new();
    for path in lines {
        let content = fs::read(root.join(&path)).unwrap();
        all.update(format!("{} {path}\n", hex(&Sha256::digest(&content))));
    }
    hex(&all.finalize())
}

fn is_program_source(path: &str) -> bool {
    path.starts_with("ebpf/src/")
        || path.starts_with("ebpf/.cargo/")
        || path == "ebpf/Cargo.toml"
        || path == "ebpf/Cargo.lock"
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.ends_with("ebpf/target") {
        return;
    }
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).unwrap() {
        collect(&entry.unwrap().path(), files);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
