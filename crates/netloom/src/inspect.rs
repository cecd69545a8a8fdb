//! `netloom inspect`: what a host's data plane holds and counted.

use std::process::ExitCode;

use clap::Args;

use crate::{Failure, agent::Directories, lab::Format};

/// What `netloom inspect` takes: the directories that the host's agent was given.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directories: Directories,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Directories { data, bpffs } = &arguments.directories;
    let inspection = agent::inspect::inspect(data, bpffs)?;
    arguments.output.print(&inspection)?;
    Ok(ExitCode::SUCCESS)
}
