//! The agent: makes its host what the server wants it to be, and keeps it so without the server.
//!
//! The core is pure: [`plan`] says what has to be done, [`external`] what may be plugged into devices
//! that something else made, [`render`] what the maps must hold, [`guests`] what guests are told who ask. Around it, [`converge`] does one pass over a [`kernel`], [`worker`] repeats passes, [`state`] keeps the
//! last desired objects on disk, [`connection`] talks to the server, [`identity`] and [`enrol`]
//! make it trusted. [`inspect`] looks at a host beside it, or without it; [`tell`] is what the agent
//! itself has to say then. [`questions`] are the server's: what would become of a packet ([`trace`]), and
//! what became of real ones ([`drops`]).
//!
//! A pass never waits for the server, and a connection never for the kernel. Nothing is taken down
//! because the agent does not know: without a known desired state it does not touch the host. When
//! it ends, for whatever reason, all that it made stays and forwards.

mod backoff;
mod connection;
pub mod converge;
mod count;
mod devices;
mod drivers;
mod drops;
mod enrol;
pub mod explain;
pub mod external;
pub mod flow_log;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod handover;
mod headers;
mod host;
mod identity;
pub mod inspect;
mod jobs;
pub mod kernel;
pub mod ledger;
pub mod memory;
mod paths;
pub mod plan;
mod questions;
pub mod render;
mod requests;
#[cfg(any(test, feature = "fuzz"))]
mod sample;
pub mod serve;
pub mod state;
pub mod tell;
mod trace;
pub mod underlay;
pub mod uplink;
mod worker;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use compute::Accel;
use compute::QemuOptions;
use dataplane::Options;
use hostnet::Namespace;
pub use packet::ConntrackSize;
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{converge::Converger, host::Host, kernel::HostKernel, state::StateFile};

/// What an agent needs to know about its host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it keeps its identity and the last desired state; made if missing.
    pub data: PathBuf,
    /// Where eBPF programs and maps are pinned; a bpffs is mounted there if none is.
    pub bpffs: PathBuf,
    /// What the names of its instances' namespaces start with.
    pub prefix: String,
    /// The enrolment that `CreateHostEnrolment` gave, as a file. Needed once; a file with another
    /// token makes the agent enrol again.
    pub enrol: Option<PathBuf>,
    /// Ports and connections that the host has room for. Takes effect when its maps are made.
    pub conntrack: ConntrackSize,
    /// Whether frames may leave past the tunnel device, see [`Options::direct_port`]: as long as the
    /// host has no IPsec policies.
    pub direct_underlay: bool,
    /// How machines run.
    pub accel: Accel,
    /// Where it listens for other hosts' agents, which do so at the same port; `None`: at every address
    /// and the usual port.
    pub handover: Option<SocketAddr>,
    /// How many namespaces, each with a guarded device, are kept ready for instances to come.
    pub spares: usize,
    /// One in so many verdicts about connections is asked for again of the objects, and compared; 0: none.
    pub sample: u32,
}

/// So many spares by default: a few instances at a time start at once, and a host that is idle has
/// few devices that it does not need.
pub const SPARES: usize = 8;

/// Ports and connections that this host has room for: so many connections for each port, in so
/// much memory, by default a part of the host's.
#[must_use]
pub fn conntrack_size(per_port: u32, memory_mib: Option<u64>) -> ConntrackSize {
    match memory_mib {
        Some(mib) => ConntrackSize::of_table(mib.saturating_mul(1 << 20), per_port),
        None => ConntrackSize::of_host(Options::memory_bytes(), per_port),
    }
}

/// Why an agent cannot start or go on. What it had made before stays and forwards.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The host cannot run the data plane.
    #[error("this host cannot run netloom: {0}")]
    Preflight(#[from] dataplane::PreflightError),
    /// The data plane cannot be opened.
    #[error("data plane: {0}")]
    DataPlane(#[from] dataplane::Error),
    /// A file of its own cannot be used.
    #[error("{path}: cannot {action}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// Its identity cannot be understood, and it has nothing to enrol with.
    #[error(
        "{path} is damaged ({cause}): make an enrolment with CreateHostEnrolment, save it as a \
         file and start the agent with --enrol FILE; it then gets a new identity, and what runs on \
         the host goes on"
    )]
    DamagedIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// It does not know who it is, and has nothing to enrol with.
    #[error(
        "no identity in {0}: make an enrolment with CreateHostEnrolment, save it as a file and \
         start the agent with --enrol FILE"
    )]
    NotEnrolled(PathBuf),
    /// The server does not let it in.
    #[error(
        "enrolment refused: {0}. A token works for an hour, for one agent and once: make a new \
         enrolment"
    )]
    Refused(String),
    /// A key or a request for a certificate cannot be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
    /// Nothing can be run beside the caller.
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
    /// A part of the agent has died.
    #[error("a part of the agent has died: {0}")]
    Died(#[from] JoinError),
}

impl Error {
    /// For `map_err`: `action` failed on this file.
    fn file(path: &Path, action: &'static str) -> impl Fn(io::Error) -> Self {
        move |cause| Self::File { path: path.to_owned(), action, cause }
    }
}

/// Runs the agent of the host in whose network namespace the process is, until `stop`.
///
/// # Errors
/// [`Error::Preflight`] and [`Error::DataPlane`]; otherwise as [`run_on`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let own = config.clone();
    let has_policies = match Namespace::current() {
        // Should it fail, it does so again with each look at the underlay, and that is told.
        Ok(current) => current.ipsec_policies().await.is_ok_and(|policies| policies > 0),
        Err(_) => false,
    };
    let open = move || {
        dataplane::preflight()?;
        // An agent that is not enrolled must not leave anything on the host.
        identity::Known::read(&own)?;
        let direct_port = if own.direct_underlay { host::DIRECT_PORT } else { 0 };
        let options = Options { bpffs: own.bpffs, conntrack: own.conntrack, direct_port };
        let qemu = QemuOptions::below(&own.data, own.accel);
        Host::open(&options, (own.prefix, &own.data, qemu), own.spares, has_policies)
    };
    let kernel = tokio::task::spawn_blocking(open).await??;
    run_on(kernel, config, stop).await
}

/// Runs the agent on a given kernel. Needs a runtime with several threads.
///
/// # Errors
/// [`Error::File`] when the data directory cannot be used, [`Error::NotEnrolled`] and
/// [`Error::Refused`] when it has no identity and gets none.
pub async fn run_on<K: HostKernel>(
    kernel: K,
    config: Config,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (file, saved) = StateFile::open(&config.data)?;
    let (desired, wanted) = watch::channel(saved);
    let (achieved, results) = watch::channel(None);
    let stop = stop.child_token();
    let mut parts = JoinSet::new();
    let own = stop.clone();
    let [asked, counting, looking] = [kernel.clone(), kernel.clone(), kernel.clone()];
    let (able, serving) = (kernel.clone(), kernel.clone());
    let answering = kernel.clone();
    let (seen_of, served) = watch::channel(serve::Served::default());
    let guests = Arc::new(guest::Shared::new(secret()?));
    let (seen, (counted, counts)) = (wanted.clone(), watch::channel(None));
    let (told, devices) = watch::channel(None);
    let (moved, moves) = watch::channel(handover::Told::default());
    let (named, identity) = watch::channel(None);
    let (movers, listen) = (kernel.movers(), config.handover);
    let handing = handover::Sources {
        desired: wanted.clone(),
        achieved: results.clone(),
        identity,
        told: moved,
    };
    // First of all, and whether or not there is a server.
    let converger = Converger::new(kernel).told_by(moves.clone()).sampled(config.sample != 0);
    let (sampled, samples) = watch::channel(flow_log::Sampled::default());
    let (unlogged, troubles) = watch::channel(None);
    let news = worker::News { wanted, moves, troubles };
    part(&mut parts, worker::work(converger, file, news, achieved, own));
    let sight = (results.clone(), served.clone(), Arc::clone(&guests), samples);
    part(&mut parts, tell::serve(asked, config.data.clone(), sight, stop.clone()));
    part(&mut parts, count::keep(counting, (seen, results.clone()), counted, stop.clone()));
    part(&mut parts, devices::keep(looking, told, stop.clone()));
    let (found, desks) = mpsc::channel(1);
    let (heard, rings) = mpsc::channel(1);
    let serving = serve::keep(serving, (found, heard), desired.subscribe(), seen_of, stop.clone());
    part(&mut parts, serving);
    part(&mut parts, requests::keep(guests, desired.subscribe(), desks, stop.clone()));
    let log = flow_log::Log::new(&config.data, config.sample, (unlogged, sampled));
    let sources = (desired.subscribe(), results.clone(), rings);
    part(&mut parts, flow_log::keep(log, sources, stop.clone()));
    parts.spawn(handover::keep(movers, listen, handing, stop.clone()));
    let known = (desired.subscribe(), results.clone());
    let inbox = answer_questions(&mut parts, answering, known, &stop);
    let (runs, lacking) = watch::channel(None);
    part(&mut parts, drivers::keep(able, runs, stop.clone()));
    let (walked, paths) = watch::channel(None);
    if K::HAS_UNDERLAY {
        part(&mut parts, paths::keep(desired.subscribe(), walked, stop.clone()));
    }
    let sources = connection::Sources {
        achieved: results,
        counted: counts,
        devices,
        identity: named,
        paths,
        served: served.clone(),
        lacking,
        inbox,
    };
    parts.spawn(connection::keep(config, desired, sources, stop.clone()));

    // Whatever ends first ends all; each of them is told, and ends within one step.
    let mut result = Ok(());
    while let Some(part) = parts.join_next().await {
        stop.cancel();
        result = result.and(part.map_err(Error::from).flatten());
    }
    result
}

/// A secret that ends with the agent.
fn secret() -> Result<[u8; 32], Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Error::Random(error.into()))?;
    Ok(secret)
}

/// Starts what remembers drops and answers questions about packets; where they are asked.
fn answer_questions<K: HostKernel>(
    parts: &mut JoinSet<Result<(), Error>>,
    kernel: K,
    known: questions::Known,
    stop: &CancellationToken,
) -> questions::Inbox {
    let (inbox, asks) = questions::Inbox::new();
    let (history, hearing) = (drops::Shared::default(), kernel.clone());
    part(parts, drops::keep(hearing, known.0.clone(), Arc::clone(&history), stop.clone()));
    part(parts, questions::keep(kernel, known, history, asks, stop.clone()));
    inbox
}

/// Starts something that ends without a result, when it is told to stop.
fn part(parts: &mut JoinSet<Result<(), Error>>, work: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        work.await;
        Ok(())
    });
}
