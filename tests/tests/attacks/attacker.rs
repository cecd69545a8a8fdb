//! The attacker's process, and the table of cases that it tells.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::site::{EVIL, HOSTS, Site};

/// Debian's, which has Debian's scapy.
const PYTHON: &str = "/usr/bin/python3";

/// Sends what it is told to. It ends with its input, so it never outlives the test.
pub(crate) struct Attacker {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

/// How often something must happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Exactly(u64),
    AtLeast(u64),
}

/// An attack, and what must become of its frames: see `Case` in `world.py`.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frames: u64,
    /// By reason, on each host.
    pub(crate) drops: [BTreeMap<String, Count>; HOSTS.len()],
    /// At the neighbours, in their order.
    pub(crate) arrives: [Count; 2],
    pub(crate) underlay: Count,
    pub(crate) answers: Option<Count>,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    /// How many times each frame is counted as dropped or arrives, if each is.
    pub(crate) accounted: Option<Account>,
    pub(crate) is_from_a_stranger: bool,
}

/// Where each frame that is not dropped arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    AtOneNeighbour,
    AtEachNeighbour,
}

impl Attacker {
    /// Starts it, and gives its table.
    pub(crate) fn start(site: &Site) -> (Self, Vec<Case>) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/attacker.py");
        let mut command = Command::new(PYTHON);
        // Nothing is written beside the sources.
        command.arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = site.lab.namespace(EVIL).run_in(|| command.spawn()).unwrap().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut this = Self { input: process.stdin.take(), output, process };
        let cases = this.ask(&site.told());
        let cases = cases.as_array().unwrap().iter().map(Case::of).collect();
        (this, cases)
    }

    /// Sends the case with this number, or does as if; how many frames the sender's kernel refused.
    pub(crate) fn order(&mut self, number: usize, sends: bool) -> u64 {
        let answer = self.ask(&json!({"case": number, "sends": sends}));
        answer["refused"].as_u64().unwrap()
    }

    fn ask(&mut self, line: &Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        let answer = self.output.next().expect("the attacker answers").unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.process.wait() {
            eprintln!("the attacker stays behind: {error}");
        }
    }
}

impl Case {
    fn of(told: &Value) -> Self {
        let number = |name: &str| told[name].as_u64().unwrap();
        let drops = |at: usize| {
            let by_reason = told["drops"][at].as_object().unwrap().iter();
            by_reason.map(|(reason, count)| (reason.clone(), Count::of(count).unwrap())).collect()
        };
        let arrives = |name: &str| Count::of(&told["arrives"][name]).unwrap();
        let accounted = match (&told["accounted"], &told["copies"]) {
            (Value::Bool(false), _) => None,
            (_, Value::Bool(false)) => Some(Account::AtOneNeighbour),
            _ => Some(Account::AtEachNeighbour),
        };
        Self {
            name: told["name"].as_str().unwrap().to_owned(),
            frames: number("frames"),
            drops: [drops(0), drops(1)],
            arrives: [arrives("near"), arrives("far")],
            underlay: Count::of(&told["underlay"]).unwrap(),
            answers: Count::of(&told["answers"]),
            refused: number("refused"),
            lost: number("lost"),
            accounted,
            is_from_a_stranger: told["sender"] == "stranger",
        }
    }
}

impl Count {
    fn of(told: &Value) -> Option<Self> {
        match told {
            Value::Null => None,
            Value::Object(_) => told["atLeast"].as_u64().map(Self::AtLeast),
            _ => told.as_u64().map(Self::Exactly),
        }
    }

    pub(crate) fn holds(self, seen: u64) -> bool {
        match self {
            Self::Exactly(count) => seen == count,
            Self::AtLeast(count) => seen >= count,
        }
    }
}
