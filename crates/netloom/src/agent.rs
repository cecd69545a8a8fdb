//! `netloom agent`: runs a host's agent until told to stop. What it set up stays and forwards.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Failure, runtime};

/// Where what belongs to a host's agent is.
#[derive(Args)]
pub(crate) struct Directories {
    /// Where the agent keeps its identity and its last desired state; it makes it if missing.
    #[arg(long, default_value = "/var/lib/netloom/agent")]
    pub(crate) data: PathBuf,
    /// Where its eBPF programs and maps are pinned; it mounts a bpffs there if none is.
    #[arg(long, default_value = "/sys/fs/bpf/netloom")]
    pub(crate) bpffs: PathBuf,
}

/// What `netloom agent` takes.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directories: Directories,
    /// What the names of its instances' namespaces start with.
    #[arg(long, default_value = "nl")]
    prefix: String,
    /// The enrolment that CreateHostEnrolment gave, as a file. Needed once.
    #[arg(long)]
    enrol: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    runtime::log()?;
    let Directories { data, bpffs } = arguments.directories;
    let config = agent::Config { data, bpffs, prefix: arguments.prefix, enrol: arguments.enrol };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: agent::Config) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    parts.spawn(agent::run(config, stop.clone()));
    let first = tokio::select! {
        ended = runtime::ended(&stop) => ended,
        Some(part) = parts.join_next() => part?.map_err(Into::into),
    };
    stop.cancel();
    let mut result = first;
    while let Some(part) = parts.join_next().await {
        result = result.and(part?.map_err(Into::into));
    }
    result
}
