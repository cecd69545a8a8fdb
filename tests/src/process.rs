//! What the processes of a lab use, as the kernel says.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::TestLab;

/// The directory in /proc of the server or of a host's agent.
pub fn of(lab: &TestLab, name: &str) -> PathBuf {
    let data = lab.data(name).display().to_string();
    let is_it = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|word| word == data)
    };
    fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).find(is_it).unwrap()
}

/// How many files it has open.
pub fn files(process: &Path) -> usize {
    fs::read_dir(process.join("fd")).unwrap().count()
}

/// Memory of its own, in KiB.
pub fn resident_kib(process: &Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
