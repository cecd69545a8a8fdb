//! What the figures were measured on: enough to judge them, nothing that tells whose machine it is.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The version of the kernel, without what a distributor appends.
    pub(crate) kernel: String,
    /// How many CPUs are online.
    pub(crate) cpus: usize,
    /// Memory, in GiB.
    pub(crate) memory_gib: f64,
    /// The model of the CPUs.
    pub(crate) cpu_model: String,
    /// The instruction set.
    pub(crate) architecture: String,
    /// How many processes ran or wanted to before the first round, on average over a minute: well
    /// below 1 on a quiet machine.
    pub(crate) load_before: f64,
}

impl Machine {
    /// This machine, now. What `/proc` does not tell is empty or zero.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let cpus = read("/proc/cpuinfo");
        let memory = read("/proc/meminfo");
        let kib: f64 =
            field(&memory, "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or(0.0);
        let load = read("/proc/loadavg");
        Self {
            kernel: release.split(['-', '+']).next().unwrap_or_default().trim().to_owned(),
            cpus: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            cpu_model: field(&cpus, "model name").to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            load_before: load.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
}

/// A line of `/proc/<pid>/status` in KiB, as MiB.
///
/// # Errors
/// There is no such process, or no such line.
pub(crate) fn memory(pid: u32, name: &str) -> Result<f64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.ok_or("/proc has no memory sizes")?.trim().trim_end_matches("kB").trim();
    Ok(kib.parse::<f64>()? / 1024.0)
}
