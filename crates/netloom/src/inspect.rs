//! `netloom inspect`: what a host's data plane holds and counted.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{Failure, lab::Format};

/// What `netloom inspect` takes: the directories that the host's agent was given.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the agent keeps its last desired state.
    #[arg(long, default_value = "/var/lib/netloom/agent")]
    data: PathBuf,
    /// Where the eBPF programs and maps are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/netloom")]
    bpffs: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let inspection = agent::inspect::inspect(&arguments.data, &arguments.bpffs)?;
    arguments.output.print(&inspection)?;
    Ok(ExitCode::SUCCESS)
}
