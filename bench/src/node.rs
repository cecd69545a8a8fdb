//! A process in a VM's namespace that makes or takes load. It reads orders from standard input,
//! a line each, and ends with it: when the benchmark is killed, so are its nodes.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use hostnet::Namespace;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{Failure, load::Load, serve};

/// Where clients run.
pub(crate) const CLIENT_CPU: usize = 0;
/// Where servers run.
const SERVER_CPU: usize = 1;
/// What a node says when it is ready for orders.
const READY: &str = "ready";

/// What a node is for. Each kind has a CPU of its own, equal for all contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Makes load, on the first CPU.
    Client,
    /// Takes load, on the second CPU.
    Server,
}

/// An order to a client.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    load: Load,
    to: Ipv4Addr,
    seconds: f64,
}

/// A node's process. It ends when this is dropped.
pub(crate) struct Node {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub(crate) fn start(namespace: &Namespace, role: Role) -> Result<Self, Failure> {
        let name = if role == Role::Client { "client" } else { "server" };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A child starts in the namespace of the thread that started it.
        let mut child = namespace.run_in(|| command.spawn())??;
        let orders = child.stdin.take();
        let answers = child.stdout.take().ok_or("a node without standard output")?;
        let mut node = Self { child, orders, answers: BufReader::new(answers) };
        match node.read()?.as_str() {
            READY => Ok(node),
            other => Err(format!("a node in {} is not ready: {other}", namespace.name()).into()),
        }
    }

    /// Makes a client do something.
    ///
    /// # Errors
    /// What it says. It says something in any case: all its waiting is limited.
    pub(crate) fn run(
        &mut self,
        load: Load,
        to: Ipv4Addr,
        time: Duration,
    ) -> Result<Vec<f64>, Failure> {
        self.begin(load, to, time)?;
        self.end()
    }

    /// As [`Node::run`], without waiting: [`Node::end`] does that.
    pub(crate) fn begin(
        &mut self,
        load: Load,
        to: Ipv4Addr,
        time: Duration,
    ) -> Result<(), Failure> {
        let order = serde_json::to_string(&Order { load, to, seconds: time.as_secs_f64() })?;
        Ok(writeln!(self.orders.as_mut().ok_or("the node has ended")?, "{order}")?)
    }

    /// Waits until what was begun is done.
    pub(crate) fn end(&mut self) -> Result<Vec<f64>, Failure> {
        let answer: Result<Vec<f64>, String> = serde_json::from_str(&self.read()?)?;
        Ok(answer?)
    }

    fn read(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err("a node has ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It would end by itself; this is for one that is stuck.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node's own side: pins itself, gets ready, takes orders until there are no more.
///
/// # Errors
/// There is no such CPU, or a port is taken.
pub(crate) fn main(role: Role) -> Result<(), Failure> {
    let cpu = if role == Role::Client { CLIENT_CPU } else { SERVER_CPU };
    pin(cpu).map_err(|error| format!("cannot run on CPU {cpu}: {error}; two are needed"))?;
    if role == Role::Server {
        serve::start()?;
    }
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let done = order.load.run(order.to, Duration::from_secs_f64(order.seconds));
        let answer = done.map_err(|error| error.to_string());
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

/// Lets the calling thread, and those that it starts, run on one CPU only.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}
