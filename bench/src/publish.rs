//! Results as files: JSON for programs, and a document for people that is made from the same JSON.

use std::{fmt::Write, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Failure, machine::Machine, plan::Figure};

/// Where results go that are published.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");
/// The document that is made from them.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");
/// What people read before the figures.
const INTRODUCTION: &str = include_str!("introduction.md");
/// What people read before those of a group, by the group.
const GROUPS: [(&str, &str); 19] = [
    ("same-host", include_str!("same_host.md")),
    ("cross-host", include_str!("cross_host.md")),
    ("wires", include_str!("wires.md")),
    ("taps", include_str!("taps.md")),
    ("moves", include_str!("moves.md")),
    ("flood", include_str!("flood.md")),
    ("packet", include_str!("packet.md")),
    ("groups", include_str!("groups.md")),
    ("groups-packet", include_str!("policy_cost.md")),
    ("groups-change", include_str!("change.md")),
    ("syn-flood", include_str!("syn_flood.md")),
    ("control", include_str!("control.md")),
    ("http", include_str!("http.md")),
    ("vm", include_str!("vm.md")),
    ("scale", include_str!("scale.md")),
    ("start", include_str!("start.md")),
    ("agent", include_str!("agent.md")),
    ("hosts", include_str!("hosts.md")),
    ("leases", include_str!("leases.md")),
];

/// The figures of a group, and where they come from.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The machine.
    pub(crate) machine: Machine,
    /// Its figures.
    pub(crate) figures: Vec<Figure>,
}

/// Writes the results of a group, and the document anew from the results of all groups.
///
/// # Errors
/// A file cannot be written, or the results of another group not be understood.
pub(crate) fn write(out: Option<&Path>, group: &str, results: &Results) -> Result<(), Failure> {
    let directory = out.unwrap_or(Path::new(RESULTS));
    fs::create_dir_all(directory)?;
    let json = serde_json::to_string_pretty(results)?;
    fs::write(directory.join(format!("{group}.json")), json + "\n")?;
    let mut document = INTRODUCTION.to_owned();
    for (group, text) in GROUPS {
        let Ok(json) = fs::read_to_string(directory.join(format!("{group}.json"))) else {
            continue;
        };
        let results: Results = serde_json::from_str(&json)?;
        write!(document, "\n{text}\n{}{}", about(&results.machine), table(group, &results))?;
    }
    let path = out.map_or_else(|| DOCUMENT.into(), |out| out.join("benchmarks.md"));
    fs::write(path, document)?;
    Ok(())
}

fn about(machine: &Machine) -> String {
    format!(
        "Measured on {} CPUs ({}), {} GiB of memory, Linux {}, {}; load before: {}.\n\n",
        machine.cpus,
        machine.cpu_model,
        machine.memory_gib,
        machine.kernel,
        machine.architecture,
        machine.load_before
    )
}

/// The figures of a group as a table.
pub(crate) fn table(group: &str, results: &Results) -> String {
    let mut table = String::from(
        "| figure | contender | value | unit | ratio | 95 % interval | against | rounds |\n\
         | --- | --- | ---: | --- | ---: | --- | --- | ---: |\n",
    );
    for figure in &results.figures {
        let name = figure.id.strip_prefix(group).unwrap_or(&figure.id);
        let mut parts = name.trim_start_matches('.').splitn(3, '.');
        let (metric, contender) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let is_baseline = figure.against == contender;
        let (ratio, interval, against) = match is_baseline {
            true => ("1".to_owned(), "baseline".to_owned(), ""),
            false => (
                short(figure.ratio),
                format!("{} to {}", short(figure.low), short(figure.high)),
                figure.against.as_str(),
            ),
        };
        table.push_str(&format!(
            "| {metric} | {contender} | {} | {} | {ratio} | {interval} | {against} | {} |\n",
            short(figure.value),
            figure.unit,
            figure.rounds
        ));
    }
    table
}

/// Three digits that count, no exponent.
fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_are_sure() {
        let cases = [(12345.6, "12346"), (12.34, "12.3"), (1.234, "1.23"), (0.9876, "0.988")];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn a_figure_is_a_line() {
        let figure = |id: &str, against: &str| Figure {
            id: id.to_owned(),
            value: 12.5,
            unit: "us".to_owned(),
            against: against.to_owned(),
            ratio: 1.25,
            low: 1.125,
            high: 1.5,
            rounds: 20,
        };
        let figures = vec![figure("g.rr.veth", "veth"), figure("g.rr.netloom", "veth")];
        let table = table("g", &Results { machine: Machine::here(), figures });
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines[0], "| rr | veth | 12.5 | us | 1 | baseline |  | 20 |");
        assert_eq!(lines[1], "| rr | netloom | 12.5 | us | 1.25 | 1.12 to 1.50 | veth | 20 |");
    }
}
