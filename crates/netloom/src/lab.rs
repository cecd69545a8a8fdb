//! `netloom lab`: hosts, networks and VMs on this one machine.

use std::{
    fmt::Display,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use lab::{Capture, Captured, UpOptions};
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;

use crate::Failure;

/// What `netloom lab` can do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Bring a topology up; a lab that is up already is brought to what the file says now.
    Up {
        /// The topology, such as examples/two-tenants.yaml.
        topology: PathBuf,
        #[command(flatten)]
        which: Which,
        /// Where its server answers REST; port 0 picks a free one.
        #[arg(long, default_value_t = lab::LISTEN)]
        listen: SocketAddr,
        /// An option for every agent: `--agent-option=--connection-mib=400` has room for a thousand
        /// ports.
        #[arg(long = "agent-option", value_name = "OPTION", allow_hyphen_values = true)]
        agent_options: Vec<String>,
        /// How to print what was done.
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Remove every trace of a lab.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Run a command in a VM or on a host: `netloom lab exec red-1 -- ping -c1 10.0.0.12`.
    Exec {
        /// The VM or host.
        node: String,
        #[command(flatten)]
        which: Which,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Find out with real packets who reaches whom, and compare with what is expected.
    Check {
        #[command(flatten)]
        which: Which,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Write down the frames of a VM's NIC or of a host, and why frames were dropped:
    /// `netloom lab capture red-1 -w red.pcapng`.
    Capture {
        /// The VM or host.
        node: String,
        #[command(flatten)]
        which: Which,
        /// Which NIC of a VM: 0 is eth0.
        #[arg(long, default_value_t = 0)]
        nic: u32,
        /// The pcapng file to write; without it, frames are printed as text.
        #[arg(short, long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// Print frames as text, in a line each.
        #[arg(long, conflicts_with = "write")]
        text: bool,
        /// End after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
        /// End after so many frames and drops.
        #[arg(long)]
        count: Option<u64>,
    },
    /// List the labs of this machine.
    List {
        #[command(flatten)]
        which: Which,
    },
}

/// Which lab.
#[derive(Args)]
pub(crate) struct Which {
    /// The lab's name.
    #[arg(long, default_value = "demo")]
    name: String,
    /// Where labs keep their files.
    #[arg(long, default_value = lab::STATE_ROOT)]
    state_root: PathBuf,
}

/// How a result is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// Prints a result.
    pub(crate) fn print(self, result: &(impl Display + Serialize)) -> Result<(), Failure> {
        match self {
            Self::Text => cli::print(result)?,
            Self::Json => cli::print(&serde_json::to_string_pretty(result)?)?,
        }
        Ok(())
    }
}

pub(crate) fn run(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Up { topology, which: Which { name, state_root }, listen, agent_options, output } => {
            let binary = std::env::current_exe()?;
            let report =
                lab::up(&UpOptions { topology, name, state_root, binary, listen, agent_options })?;
            output.print(&report)?;
        }
        Verb::Down { which } => lab::down(&which.name, &which.state_root)?,
        Verb::Exec { node, which, command } => {
            let status = lab::exec(&which.name, &which.state_root, &node, &command)?;
            return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)));
        }
        Verb::Check { which, output } => return check(&which, output),
        Verb::Capture { node, which, nic, write, text: _, seconds, count } => {
            let time = seconds.map(Duration::from_secs);
            capture(&which, &Capture { node, nic, file: write, time, count })?;
        }
        Verb::List { which } => {
            for status in lab::status(&which.state_root)? {
                cli::print(&status)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Captures until SIGINT or SIGTERM, or as long as is asked for.
fn capture(which: &Which, what: &Capture) -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Threads that are started from here on leave them to the one that waits for them.
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&stop);
    thread::spawn(move || {
        if signals.wait().is_ok() {
            own.store(true, Ordering::Relaxed);
        }
    });
    let Captured { records, dropped, missed, untold } =
        lab::capture(&which.name, &which.state_root, what, &stop)?;
    eprintln!("{records} frames, {dropped} of them dropped");
    if missed > 0 {
        eprintln!("{missed} more frames came faster than they could be taken: they are missing");
    }
    if untold > 0 {
        eprintln!("{untold} drops were not told: as many frames seem to have passed");
    }
    Ok(())
}

fn check(which: &Which, output: Format) -> Result<ExitCode, Failure> {
    let report = lab::check(&which.name, &which.state_root)?;
    output.print(&report)?;
    Ok(if report.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
