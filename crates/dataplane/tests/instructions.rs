//! The verifier's work per program, against the committed figures: a program that grows by more
//! than a tenth does so on purpose. Needs root.
//!
//! `NETLOOM_RENEW=1` writes the figures instead (`make ebpf` does that after a build).
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::{DataPlane, Options};
use std::fs;
use support::{Host, may_run};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gen/netloom.bpf.o.json");

#[test]
fn programs_stay_within_their_verified_instruction_counts() {
    if !may_run("programs_stay_within_their_verified_instruction_counts") {
        return;
    }
    let host = Host::enter();
    let plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    let counts = plane.verified_instructions().unwrap();
    let record = fs::read_to_string(RECORD).unwrap();
    if std::env::var("NETLOOM_RENEW").is_ok_and(|value| value == "1") {
        let lines: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("    \"{name}\": {}", count.unwrap_or_default()))
            .collect();
        let (head, _) = record.split_once("  \"verified_instructions\"").unwrap();
        let body = lines.join(",\n");
        let text = format!("{head}  \"verified_instructions\": {{\n{body}\n  }}\n}}\n");
        fs::write(RECORD, text).unwrap();
        return;
    }
    for (name, count) in counts {
        let Some(count) = count else {
            eprintln!("SKIPPED {name}: this kernel does not tell verified instructions");
            continue;
        };
        let recorded = recorded(&record, name);
        println!("{name}: {count} instructions verified, {recorded} recorded");
        assert!(count <= recorded + recorded / 10, "{name}: {count} over {recorded}");
    }
}

/// The figure of a program in the record; a line each.
fn recorded(record: &str, name: &str) -> u32 {
    let prefix = format!("\"{name}\": ");
    let line = record.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap();
    line.trim_end_matches(',').parse().unwrap()
}
