//! What the lab tells people: as text with `Display`, as JSON with `Serialize`.

use std::{
    fmt::{self, Display},
    net::IpAddr,
    path::PathBuf,
};

use serde::Serialize;

/// What `up` did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The lab.
    pub name: String,
    /// Where its server answers REST.
    pub url: String,
    /// The file with the password of `admin`.
    pub password_file: PathBuf,
    /// Whether it was up before.
    pub was_up: bool,
    /// What was made, changed and removed, in words and in order.
    pub done: Vec<String>,
    /// How many resources and attachments were as they should be.
    pub unchanged: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = if self.was_up { "was up already" } else { "is up" };
        writeln!(
            f,
            "lab {} {is}: {} steps done, {} resources unchanged, {:.1} s",
            self.name,
            self.done.len(),
            self.unchanged,
            self.seconds
        )?;
        write!(f, "REST: {}  password of admin: {}", self.url, self.password_file.display())
    }
}

/// Who reaches whom.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// How many pairs were judged.
    pub expected: usize,
    /// How many of them are as the topology expects.
    pub as_expected: usize,
    /// Each VM towards each address of each other VM.
    pub pairs: Vec<Pair>,
}

/// A VM towards an address of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Who sent the probes.
    pub from: String,
    /// Whom they were meant for.
    pub to: String,
    /// Its address.
    pub address: IpAddr,
    /// The UDP port there.
    pub port: u16,
    /// Whether the topology wants it reached.
    pub expected: bool,
    /// Whether it was: seen by `to` and answered. Of a pair that must not reach, anything that
    /// was seen on either side counts.
    pub seen: bool,
    /// Who answered at that address; with addresses used twice, not always `to`.
    pub answered_by: Vec<String>,
}

impl CheckReport {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.expected == self.as_expected
    }
}

impl Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:<12} {:<26} {:<5} expected  seen", "from", "to", "address", "port")?;
        for pair in &self.pairs {
            let line = pair.to_string();
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "{} of {} as expected, by real packets", self.as_expected, self.expected)
    }
}

impl Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |reached| if reached { "reach" } else { "-" };
        let (expected, seen) = (word(self.expected), word(self.seen));
        let Self { from, to, address, port, .. } = self;
        let address = address.to_string();
        write!(f, "{from:<12} {to:<12} {address:<26} {port:<5} {expected:<8}  {seen:<5}")?;
        if self.expected != self.seen {
            f.write_str("  DIFFERS")?;
        }
        let others = self.answered_by.iter().filter(|vm| **vm != self.to);
        others.into_iter().try_for_each(|vm| write!(f, "  ({vm} answers there)"))
    }
}

/// A lab, and what runs of it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The lab.
    pub name: String,
    /// Where its server answers REST.
    pub url: String,
    /// Its topology file.
    pub topology: PathBuf,
    /// Its processes, by name (`server` or a host's), and their pid where they run.
    pub processes: Vec<(String, Option<i32>)>,
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lab {}  {}  {}", self.name, self.url, self.topology.display())?;
        for (name, pid) in &self.processes {
            match pid {
                Some(pid) => write!(f, "\n  {name:<12} runs, pid {pid}")?,
                None => write!(f, "\n  {name:<12} is not running")?,
            }
        }
        Ok(())
    }
}
