//! Bringing a lab up: settings first, then namespaces, processes and resources.

use std::{fs, net::TcpListener, time::Instant};

use crate::{
    Error, Report, UpOptions,
    apply::{self, Applied, Applier},
    down,
    process::Process,
    state::{Place, Settings},
    topology::Topology,
    underlay,
};

/// The name under which a lab keeps its topology as it was applied.
pub(crate) const TOPOLOGY: &str = "topology.yaml";

/// See [`crate::up`].
pub(crate) fn up(options: &UpOptions) -> Result<Report, Error> {
    let start = Instant::now();
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
    let settings = settle_settings(options, known, &topology)?;
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
        created: applied.created,
        unchanged: applied.unchanged,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn bring_up(
    place: &Place,
    settings: &Settings,
    (topology, text): (&Topology, &str),
) -> Result<Applied, Error> {
    place.create()?;
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
    })
}

/// Nobody listens there yet; for port 0, the kernel chooses one.
fn free_port(options: &UpOptions) -> Result<std::net::SocketAddr, Error> {
    let bound = TcpListener::bind(options.listen).and_then(|listener| listener.local_addr());
    bound.map_err(|error| {
        let action = format!(
            "use {} for REST (choose another address, or take down what listens there)",
            options.listen
        );
        Error::io(action, error)
    })
}
