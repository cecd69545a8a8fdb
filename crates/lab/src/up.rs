//! Bringing a lab up: settings first, then namespaces, processes and resources.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    time::Instant,
};

use uuid::Uuid;

use crate::{
    Error, Report, UpOptions,
    apply::{self, Applied, Applier},
    down, owner,
    process::Process,
    state::{Place, Settings},
    topology::Topology,
    underlay,
};

/// The name under which a lab keeps its topology as it was applied.
pub(crate) const TOPOLOGY: &str = "topology.yaml";

/// The first port that may be chosen, and how many there are.
const FIRST_PORT: u16 = 16_384;
const PORTS: u16 = 16_384;
/// How many ports are tried.
const PORT_TRIES_MAX: usize = 64;

/// See [`crate::up`].
pub(crate) fn up(options: &UpOptions) -> Result<Report, Error> {
    let start = Instant::now();
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let place = Place::new(&options.name, &options.state_root)?;
    if !options.listen.ip().is_loopback() {
        return Err(Error::NotLoopback(options.listen));
    }
    let path = &options.topology;
    let text = fs::read_to_string(path)
        .map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
    let topology = Topology::parse(&options.name, path, &text)?;
    let _lock = place.lock()?;
    let known = place.settings()?;
    let was_up = known.is_some();
    let settings = settle_settings(options, known.clone(), &topology)?;
    place.create()?;
    owner::claim(&place, known.as_ref()).inspect_err(|_| {
        // Nothing is in it that was not there before.
        fs::remove_dir(place.dir()).ok();
    })?;
    let applied = match bring_up(&place, &settings, (&topology, &text)) {
        Ok(applied) => applied,
        Err(error) if was_up => return Err(Error::Left(Box::new(error))),
        Err(error) => {
            if let Err(rest) = down::remove(&place) {
                tracing::error!(lab = place.lab, error = %rest, "what `up` made stays behind");
            }
            return Err(error);
        }
    };
    Ok(Report {
        name: options.name.clone(),
        url: apply::url(&settings),
        password_file: apply::password_file(&place),
        was_up,
        done: applied.done,
        unchanged: applied.unchanged,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn bring_up(
    place: &Place,
    settings: &Settings,
    (topology, text): (&Topology, &str),
) -> Result<Applied, Error> {
    place.keep(settings)?;
    place.write(TOPOLOGY, text.as_bytes())?;
    underlay::ensure(&place.lab, &settings.hosts)?;
    for process in Process::all(place, &settings.hosts) {
        process.forget_if_ended()?;
    }
    Process::server(place).start(settings)?;
    let applier = Applier::connect(place, settings)?;
    let applied = applier.apply(topology)?;
    applier.settle(topology)?;
    place.keep_addresses(&applier.addresses(topology)?)?;
    Ok(applied)
}

/// A lab that is up keeps its port and its hosts' places on the underlay.
fn settle_settings(
    options: &UpOptions,
    known: Option<Settings>,
    topology: &Topology,
) -> Result<Settings, Error> {
    let topology_path = std::path::absolute(&options.topology);
    let topology_path = topology_path.unwrap_or_else(|_| options.topology.clone());
    let listen = match &known {
        Some(known) if !topology.hosts.starts_with(&known.hosts) => {
            let problem = format!(
                "lab {} is up with the hosts {}; further hosts can only follow these: \
                 take the lab down first",
                options.name,
                known.hosts.join(", ")
            );
            return Err(Error::Topology { path: options.topology.clone(), problem });
        }
        Some(known) => known.listen,
        None => free_port(options)?,
    };
    Ok(Settings {
        listen,
        binary: options.binary.clone(),
        topology: topology_path,
        hosts: topology.hosts.clone(),
        agent_options: options.agent_options.clone(),
    })
}

/// Nobody listens there yet. For port 0 one is chosen below those that the kernel gives to outgoing
/// connections (32,768 and up): a server that is started again must find its port free.
fn free_port(options: &UpOptions) -> Result<SocketAddr, Error> {
    let wanted = options.listen;
    let mut taken = None;
    for _ in 0..PORT_TRIES_MAX {
        let [high, low, ..] = *Uuid::new_v4().as_bytes();
        let chosen = FIRST_PORT + u16::from_be_bytes([high, low]) % PORTS;
        let port = if wanted.port() == 0 { chosen } else { wanted.port() };
        let address = SocketAddr::new(wanted.ip(), port);
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => taken = Some(error),
        }
        if wanted.port() != 0 {
            break;
        }
    }
    let error = taken.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    let hint = "choose another address, or take down what listens there";
    Err(Error::io(format_args!("use {wanted} for REST ({hint})"), error))
}
