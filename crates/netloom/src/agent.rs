//! `netloom agent`: runs a host's agent until told to stop. What it set up stays and forwards.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, descriptors, heap,
    runtime::{self, LogFormat},
    traces::{self, Traces},
};

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
    /// Connections that each port is sure of: as many that it opens, and as many that others open
    /// to it. Takes effect when there is no data plane yet.
    #[arg(long, default_value_t = agent::ConntrackSize::DEFAULT_PER_PORT,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    connections_per_port: u32,
    /// Memory for connections, in MiB [default: a 256th of the host's, for 64 ports at least]. It
    /// says how many ports the host may have. Takes effect when there is no data plane yet.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 14))]
    connection_mib: Option<u64>,
    /// Let every frame to and from other hosts pass the tunnel device, where the host's netfilter
    /// sees it. Else most pass it by, which is faster, unless the host has IPsec policies.
    #[arg(long)]
    through_tunnel_device: bool,
    /// How many namespaces, each with a device and its programs, are kept ready for instances to
    /// come, which then start sooner.
    #[arg(long, default_value_t = agent::SPARES as u64, value_parser = clap::value_parser!(u64).range(0..=64))]
    spares: u64,
    /// Ask for one in so many verdicts about connections again, rule by rule, and compare: `netloom inspect` shows
    /// how many were other ones. 0: none.
    #[arg(long, default_value_t = 0)]
    sample: u32,
    /// Where it listens for the agents of other hosts, which hand over what moves here: address and
    /// port [default: every address, port 7482]. All agents listen at the same port.
    #[arg(long)]
    handover_listen: Option<SocketAddr>,
    /// How instances of driver qemu run: auto is by KVM where a guest that does nothing runs with it,
    /// else by TCG.
    #[arg(long, value_enum, default_value_t)]
    qemu_accel: QemuAccel,
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    traces: traces::Arguments,
}

/// How instances of driver qemu run.
#[derive(Clone, Copy, Default, ValueEnum)]
enum QemuAccel {
    /// By KVM where that works, else by TCG.
    #[default]
    Auto,
    /// By KVM: on the host's processor.
    Kvm,
    /// By TCG: translated, which works everywhere and is many times slower.
    Tcg,
}

impl From<QemuAccel> for agent::Accel {
    fn from(accel: QemuAccel) -> Self {
        match accel {
            QemuAccel::Auto => Self::Auto,
            QemuAccel::Kvm => Self::Kvm,
            QemuAccel::Tcg => Self::Tcg,
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let settled = heap::settle();
    let traces = Traces::new(&arguments.traces, "netloom-agent")?;
    runtime::log(arguments.log_format, traces.as_ref())?;
    if let Err(error) = settled {
        tracing::warn!(%error, "could not start anew: the heap will keep more than it needs");
    }
    // The agent keeps the links of its ports open, two for each.
    descriptors::raise()?;
    let Directories { data, bpffs } = arguments.directories;
    let Arguments { prefix, enrol, connections_per_port, connection_mib, spares, .. } = arguments;
    let accel = arguments.qemu_accel.into();
    let direct_underlay = !arguments.through_tunnel_device;
    let conntrack = agent::conntrack_size(connections_per_port, connection_mib);
    let (spares, sample) = (usize::try_from(spares)?, arguments.sample);
    let handover = arguments.handover_listen;
    let config = agent::Config {
        data,
        bpffs,
        prefix,
        enrol,
        conntrack,
        direct_underlay,
        accel,
        handover,
        spares,
        sample,
    };
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
