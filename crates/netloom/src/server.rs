//! `netloom server`: opens the store, wires the doors and the agents' end to it, runs until told
//! to stop.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use api::Limits;
use clap::Args;
use control::{
    Enrolment, Gate, Jobs, audit, evacuation, explain, expunger, jobs::spans, long_job, mover,
    realiser, releaser, steady::Steady, webhook,
};
use hostnet::Namespace;
use ipnet::IpNet;
use link::Pki;
use model::{Record, status::Board};
use store::Store;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Failure, descriptors,
    installation::{self, OnLoss},
    runtime::{self, LogFormat},
    tls,
    traces::{self, Traces},
};

/// How often jobs that are long over are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// By how much the machine's clock may be set ahead before it is told.
const CLOCK_STEP_SECONDS: i64 = 60;

/// What `netloom server` takes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where it keeps everything; made if missing.
    #[arg(long)]
    data: PathBuf,
    /// Where it answers REST: on loopback by plain HTTP, elsewhere by TLS.
    #[arg(long, default_value = "127.0.0.1:7480")]
    listen: SocketAddr,
    #[command(flatten)]
    tls: tls::Arguments,
    /// Where agents connect: gRPC with mutual TLS. By default on loopback, one port above REST.
    #[arg(long)]
    link_listen: Option<SocketAddr>,
    /// The address that agents are told to use, if it is not that of --link-listen.
    #[arg(long)]
    link_advertise: Option<String>,
    /// Open the agents' socket in this network namespace (its name in /run/netns).
    #[arg(long)]
    link_netns: Option<String>,
    /// Make a new certificate authority, because pki/ is lost. Every host must enrol again.
    #[arg(long)]
    new_ca: bool,
    /// The database was restored from a backup that is older than what hosts have seen: make them
    /// what it says. What was made since is lost to the server and removed from the hosts.
    #[arg(long)]
    accept_older_database: bool,
    /// REST connections at a time [default: what the limit on open files allows, at most 4096].
    #[arg(long)]
    connections_max: Option<usize>,
    /// REST connections of one address at a time; loopback, where proxies are, is exempt.
    #[arg(long, default_value_t = Limits::default().connections_per_source_max)]
    connections_per_source_max: usize,
    /// A TLS proxy on this machine appends its client's address to X-Forwarded-For: believe it.
    #[arg(long)]
    forwarded_for: bool,
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    traces: traces::Arguments,
    /// From where /metrics and /readyz may be asked for, besides this machine: an address or a
    /// prefix, such as 192.0.2.0/24; several may be given. They need no session.
    #[arg(long, value_parser = prefix)]
    metrics_from: Vec<IpNet>,
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let one = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(one).map_err(|_| format!("{text} is neither an address nor a prefix"))
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let traces = Traces::new(&arguments.traces, "netloom-server")?;
    runtime::log(arguments.log_format, traces.as_ref())?;
    let files = descriptors::raise()?;
    let limits = limits(&arguments, files)?;
    let agents_limits = agents_limits(files);
    let rest = TcpListener::bind(arguments.listen)
        .map_err(|cause| taken(arguments.listen, "--listen", &cause))?;
    let agents = listen_agents(&arguments, rest.local_addr()?)?;
    let advertised = advertised(&arguments, agents.local_addr()?)?;
    let on_loss = if arguments.new_ca { OnLoss::MakeAnew } else { OnLoss::Refuse };
    let lineage = Uuid::new_v4();
    let (store, pki) = installation::open(&arguments.data, on_loss, (lineage, runtime::now()))?;
    let enrolment = Enrolment { server: advertised, ca: pki.certificate().to_owned() };
    let accept_older = arguments.accept_older_database;
    let identity = tls::Source::choose(&arguments.tls, &arguments.data, arguments.listen)?;
    let metrics_from = arguments.metrics_from;
    let sockets = Sockets {
        rest,
        identity,
        metrics_from,
        agents,
        limits,
        agents_limits,
        lineage,
        accept_older,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(serve(sockets, store, pki, enrolment))?;
    Ok(ExitCode::SUCCESS)
}

struct Sockets {
    rest: TcpListener,
    identity: Option<tls::Source>,
    metrics_from: Vec<IpNet>,
    agents: TcpListener,
    limits: Limits,
    agents_limits: link::Limits,
    lineage: Uuid,
    accept_older: bool,
}

/// How many connections the door takes, as far as files may be opened.
fn limits(arguments: &Arguments, files: u64) -> Result<Limits, Failure> {
    let defaults = Limits::default();
    let wanted = arguments.connections_max.unwrap_or(defaults.connections_max);
    let connections_max = descriptors::share(files, wanted)?;
    if connections_max < wanted {
        tracing::warn!(
            wanted,
            connections_max,
            "the limit on open files is low: fewer REST connections are taken"
        );
    }
    let connections_per_source_max = arguments.connections_per_source_max.max(1);
    let believe_forwarded_for = arguments.forwarded_for;
    Ok(Limits { connections_max, connections_per_source_max, believe_forwarded_for, ..defaults })
}

/// How many connections the agents' door takes from nobody knows whom, as far as files may be
/// opened.
fn agents_limits(files: u64) -> link::Limits {
    let defaults = link::Limits::default();
    link::Limits { guests_max: descriptors::guests(files, defaults.guests_max), ..defaults }
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

/// How the gate asks hosts.
fn asks(questions: link::Questions) -> explain::Asks {
    Arc::new(move |host, question| -> explain::Asking {
        let questions = questions.clone();
        Box::pin(async move { questions.ask(host, question).await })
    })
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
    let questions = link::Questions::default();
    let gate = Arc::new(Gate::new(jobs, enrolment).asking(asks(questions.clone())));
    let mut parts: JoinSet<Result<(), String>> = JoinSet::new();
    let text = |error: &dyn std::error::Error| error.to_string();

    tracing::info!(rest = %sockets.rest.local_addr()?, agents = %sockets.agents.local_addr()?,
        "serving");
    let agents = link::Config {
        listener: sockets.agents,
        pki,
        clock: runtime::now,
        lineage: sockets.lineage,
        earlier: installation::earlier_lineages(&store),
        accept_older: sockets.accept_older,
        limits: sockets.agents_limits,
        questions,
    };
    let serving = link::serve(agents, store.clone(), board, stop.clone());
    parts.spawn(async move { serving.await.map_err(|error| text(&error)) });
    let steady = Steady::new(runtime::now);
    let expunging = expunger::run(store.clone(), reports.clone(), steady, stop.clone());
    let moving = mover::run(store.clone(), reports.clone(), steady, stop.clone());
    let releasing = releaser::run(store, reports, stop.clone());
    parts.spawn(async move {
        tokio::join!(releasing, expunging, moving);
        Ok(())
    });
    parts.spawn(sweep(Arc::clone(&gate), steady, stop.clone()));
    let long_jobs = long_job::run(Arc::clone(&gate), stop.clone());
    let evacuating = evacuation::run(Arc::clone(&gate), stop.clone());
    let sender = api::Sender::default();
    let sends = Arc::new(move |post: &webhook::Post| sender.send(post));
    let webhooks = webhook::run(Arc::clone(&gate), stop.clone(), sends);
    let caller = api::RealiserCaller::default();
    let calls = Arc::new(move |call: &realiser::Call| caller.call(call));
    let realisers = realiser::run(Arc::clone(&gate), stop.clone(), calls);
    let spans = spans::run(Arc::clone(&gate), stop.clone());
    parts.spawn(async move {
        tokio::join!(long_jobs, evacuating, webhooks, realisers, spans);
        Ok(())
    });
    let identity = match sockets.identity {
        None => None,
        Some(source) => {
            let (kept, shown) = watch::channel(source.identity(runtime::now())?);
            parts.spawn(tls::renew(source, kept, stop.clone()));
            Some(shown)
        }
    };
    let (listener, limits, metrics_from) = (sockets.rest, sockets.limits, sockets.metrics_from);
    let door = api::Door { listener, identity, limits, metrics_from };
    let serving = api::serve(door, gate, stop.clone());
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

async fn sweep(gate: Arc<Gate>, steady: Steady, stop: CancellationToken) -> Result<(), String> {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    let mut told = false;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = gate.jobs.sweep().await {
            tracing::warn!(%error, "old jobs are kept for now");
        }
        if let Err(error) = audit::sweep(gate.store(), steady.now()).await {
            tracing::warn!(%error, "old rows of the audit are kept for now");
        }
        let ahead_seconds = steady.ahead_seconds();
        if ahead_seconds > CLOCK_STEP_SECONDS && !std::mem::replace(&mut told, true) {
            tracing::warn!(
                ahead_seconds,
                "the machine's clock was set ahead; destroyed instances \
                and the audit are kept for longer, until the server is started again"
            );
        }
        if let Err(error) = webhook::sweep(gate.store(), steady.now()).await {
            tracing::warn!(%error, "calls of webhooks that failed are kept for now");
        }
    }
    Ok(())
}
