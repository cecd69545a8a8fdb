//! `netloom server`: opens the store, wires the doors and the agents' end to it, runs until told
//! to stop.

use std::{
    fs, io,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use api::{Door, Enrolment};
use clap::Args;
use control::{Jobs, account, releaser, secret};
use hostnet::Namespace;
use link::Pki;
use model::{Kind, Record, status::Board};
use store::{Read, Store};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{Failure, data, runtime};

/// How often jobs that are long over are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What `netloom server` takes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where it keeps everything; made if missing.
    #[arg(long)]
    data: PathBuf,
    /// Where it answers REST. Plain HTTP, so on loopback only.
    #[arg(long, default_value = "127.0.0.1:7480")]
    listen: SocketAddr,
    /// Where agents connect: gRPC with mutual TLS. By default on loopback, one port above REST.
    #[arg(long)]
    link_listen: Option<SocketAddr>,
    /// The address that agents are told to use, if it is not that of --link-listen.
    #[arg(long)]
    link_advertise: Option<String>,
    /// Open the agents' socket in this network namespace (its name in /run/netns).
    #[arg(long)]
    link_netns: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    runtime::log()?;
    let rest = listen_rest(arguments.listen)?;
    let agents = listen_agents(&arguments, rest.local_addr()?)?;
    let advertised = advertised(&arguments, agents.local_addr()?)?;
    data::open(&arguments.data)?;
    let engine = store::Sqlite::open(arguments.data.join(data::STORE))?;
    let store: Store<Record> = Store::open(Box::new(engine))?;
    create_admin(&store, &arguments.data)?;
    let pki = Pki::open(&arguments.data.join("pki"), runtime::now())?;
    let enrolment = Enrolment { server: advertised, ca: pki.certificate().to_owned() };
    let sockets = Sockets { rest, agents };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(serve(sockets, store, pki, enrolment))?;
    Ok(ExitCode::SUCCESS)
}

struct Sockets {
    rest: TcpListener,
    agents: TcpListener,
}

fn advertised(arguments: &Arguments, bound: SocketAddr) -> Result<String, Failure> {
    match &arguments.link_advertise {
        Some(address) => Ok(address.clone()),
        None if bound.ip().is_unspecified() => Err(format!(
            "--link-listen {bound} is every address: name the one that hosts can reach with \
             --link-advertise ADDRESS:PORT"
        )
        .into()),
        None => Ok(bound.to_string()),
    }
}

fn listen_rest(address: SocketAddr) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() {
        return Err(format!(
            "--listen {address} is not on loopback, and REST is plain HTTP: listen on 127.0.0.1 \
             and put a TLS proxy in front of it"
        )
        .into());
    }
    TcpListener::bind(address).map_err(|cause| taken(address, "--listen", &cause))
}

/// Binds the agents' socket, in another namespace if asked: a socket stays where it was made.
fn listen_agents(arguments: &Arguments, rest: SocketAddr) -> Result<TcpListener, Failure> {
    let beside = SocketAddr::new(rest.ip(), rest.port().checked_add(1).unwrap_or_default());
    let address = arguments.link_listen.unwrap_or(beside);
    let bound = match &arguments.link_netns {
        Some(name) => Namespace::open(name)?.run_in(|| TcpListener::bind(address))?,
        None => TcpListener::bind(address),
    };
    bound.map_err(|cause| taken(address, "--link-listen", &cause))
}

fn taken(address: SocketAddr, option: &str, cause: &io::Error) -> Failure {
    let hint = match cause.kind() {
        io::ErrorKind::AddrInUse => "is another server running? Stop it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose another",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose another",
        _ => "choose another",
    };
    format!("cannot listen on {address}: {cause}; {hint} with {option}").into()
}

/// At the first start: a random password into `DIR/admin-password`, its hash into the store. In
/// this order: after a crash in between, the next start does it again.
fn create_admin(store: &Store<Record>, data: &Path) -> Result<(), Failure> {
    if store.snapshot().list(Kind::Account).next().is_some() {
        return Ok(());
    }
    let password = secret::random()?;
    let path = data.join("admin-password");
    let unwritable = |cause: io::Error| format!("cannot write {}: {cause}", path.display());
    let mut file = fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
    let write = |mut file: fs::File| {
        file.write_all(password.as_bytes())?;
        file.sync_all()
    };
    file.and_then(write).map_err(unwritable)?;
    let hash = account::hash(&account::client_digest(&password))?;
    account::create_admin(store, &hash, runtime::now())?;
    tracing::info!(file = %path.display(), "made the account admin; its password is in the file");
    Ok(())
}

async fn serve(
    sockets: Sockets,
    store: Store<Record>,
    pki: Pki,
    enrolment: Enrolment,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let (board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(store.clone(), reports.clone(), runtime::now);
    let door = Arc::new(Door::new(jobs, enrolment));
    let mut parts: JoinSet<Result<(), String>> = JoinSet::new();
    let text = |error: &dyn std::error::Error| error.to_string();

    tracing::info!(rest = %sockets.rest.local_addr()?, agents = %sockets.agents.local_addr()?,
        "serving");
    let agents = link::Config { listener: sockets.agents, pki, clock: runtime::now };
    let serving = link::serve(agents, store.clone(), board, stop.clone());
    parts.spawn(async move { serving.await.map_err(|error| text(&error)) });
    let releasing = releaser::run(store, reports, stop.clone());
    parts.spawn(async move {
        releasing.await;
        Ok(())
    });
    parts.spawn(sweep(Arc::clone(&door), stop.clone()));
    let serving = api::serve(sockets.rest, door, stop.clone());
    parts.spawn(async move { serving.await.map_err(|error| text(&error)) });

    // Whatever ends first ends all: a server with half of its parts would only look alive.
    let first = tokio::select! {
        ended = runtime::ended(&stop) => ended,
        Some(part) = parts.join_next() => flatten(part),
    };
    stop.cancel();
    let mut result = first;
    while let Some(part) = parts.join_next().await {
        result = result.and(flatten(part));
    }
    result
}

fn flatten(part: Result<Result<(), String>, tokio::task::JoinError>) -> Result<(), Failure> {
    Ok(part??)
}

async fn sweep(door: Arc<Door>, stop: CancellationToken) -> Result<(), String> {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = door.jobs.sweep().await {
            tracing::warn!(%error, "old jobs are kept for now");
        }
    }
    Ok(())
}
