//! The verifier's work per program, against the committed figures: a program that grows by more
//! than a tenth does so on purpose. Needs root.
//!
//! `NETLOOM_RENEW=1` writes the figures instead (`make ebpf` does that after a build).
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use aya::programs::SchedClassifier;
use netloom_dataplane::{DataPlane, Hold, Options, open_earlier};
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

/// Half of what the verifier walks before it gives up.
const LIMIT: u32 = 500_000;

/// Before Linux 6.8 no function is checked by itself: the verifier walks it anew for each call. It
/// must not give up then.
#[test]
fn an_older_kernel_may_walk_each_function_for_each_call() {
    if !may_run("an_older_kernel_may_walk_each_function_for_each_call") {
        return;
    }
    let host = Host::enter();
    drop(Hold::take(&host.bpffs()).unwrap());
    let maps = host.bpffs().join("maps");
    fs::create_dir_all(&maps).unwrap();
    let mut object = fs::read(RECORD.strip_suffix(".json").unwrap()).unwrap();
    // Under another name, nobody knows the table. Names share their ends.
    let (table, prefix) = (b".relchecked\0", b".rel");
    let name = object.windows(table.len()).position(|text| text == table).unwrap();
    object[name + prefix.len()] = b'C';
    let mut object = open_earlier(&object, &maps, &[]).unwrap();
    let mut walked = 0;
    for name in ["from_port", "from_tunnel", "from_underlay", "from_gre", "from_uplink"] {
        let program: &mut SchedClassifier = object.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        let count = program.info().unwrap().verified_instruction_count().unwrap_or(0);
        println!("{name}: {count} instructions verified without types");
        assert!(count < LIMIT, "{name}: {count}");
        walked += count;
    }
    assert!(walked > 400_000, "{walked}: they were checked by themselves after all");
}

/// The figure of a program in the record; a line each.
fn recorded(record: &str, name: &str) -> u32 {
    let prefix = format!("\"{name}\": ");
    let line = record.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap();
    line.trim_end_matches(',').parse().unwrap()
}
