//! Hosts, networks and VMs on one machine.
//!
//! A lab is a server, and for each host of a topology file a network namespace with an agent, all
//! real processes of the same binary, joined by an underlay. [`up`] makes it and applies the
//! file's messages through the public API, [`check`] proves with packets who reaches whom,
//! [`down`] removes every trace. Nothing here knows the server's or the agent's insides, and no
//! process is ever ended that this lab did not start.

mod apply;
mod capture;
mod check;
mod down;
mod error;
mod exec;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod names;
mod options;
mod owner;
mod probe;
mod process;
mod reference;
mod report;
pub mod scratch;
mod state;
mod topology;
mod underlay;
mod up;
pub mod wait;

use std::{path::Path, sync::atomic::AtomicBool};

use process::Process;
use state::Place;

pub use capture::{Capture, Captured};
pub use error::Error;
pub use options::{LISTEN, STATE_ROOT, UpOptions};
pub use report::{CheckReport, Pair, Report, Status};

/// Brings a lab up and applies its topology; a lab that is up already is brought to what the
/// topology says now. Returns when everything is in effect; a new lab that fails is taken down.
///
/// # Errors
/// What could not be done, and what to do about it.
pub fn up(options: &UpOptions) -> Result<Report, Error> {
    up::up(options)
}

/// Removes every trace of a lab: processes, namespaces, mounts, files. No such lab is success.
///
/// # Errors
/// The first thing that stays; the rest is gone then. [`Error::Owned`] when the name is another
/// state root's, whose lab is left alone.
pub fn down(name: &str, state_root: &Path) -> Result<(), Error> {
    down::down(name, state_root)
}

/// Runs a command in the network namespace of a VM or host of a lab, with the caller's standard
/// streams, and returns its exit status (128 + signal when a signal ended it, as shells do).
///
/// # Errors
/// No such lab or node, or the command cannot be started.
pub fn exec(name: &str, state_root: &Path, node: &str, argv: &[String]) -> Result<i32, Error> {
    exec::exec(name, state_root, node, argv)
}

/// Writes down the frames of a VM's NIC or of a host's devices, and which of them were dropped and
/// why, until `stop` says so or one of the limits is reached. The file is whole whenever it ends.
///
/// # Errors
/// No such lab, node or NIC; somebody else captures on that host; the file cannot be written.
pub fn capture(
    name: &str,
    state_root: &Path,
    what: &Capture,
    stop: &AtomicBool,
) -> Result<Captured, Error> {
    capture::capture(&Place::new(name, state_root)?, what, stop)
}

/// The network namespace of a VM or host of a lab.
///
/// # Errors
/// No such lab or node.
pub fn namespace(name: &str, state_root: &Path, node: &str) -> Result<hostnet::Namespace, Error> {
    exec::namespace(&Place::new(name, state_root)?, node)
}

/// Finds out with packets who reaches whom, and compares with what the topology expects.
///
/// # Errors
/// The lab is not up. Differences are no error: see [`CheckReport::is_as_expected`].
pub fn check(name: &str, state_root: &Path) -> Result<CheckReport, Error> {
    check::check(name, state_root)
}

/// The labs of this machine, by name, with what runs of each.
///
/// # Errors
/// The state directory cannot be read.
pub fn status(state_root: &Path) -> Result<Vec<Status>, Error> {
    let mut found = Vec::new();
    for name in state::labs(state_root)? {
        let place = Place::new(&name, state_root)?;
        let Some(settings) = place.settings()? else { continue };
        let mut processes = Vec::new();
        for process in Process::all(&place, &settings.hosts) {
            processes.push((process.name.clone(), process.pid()?));
        }
        let (url, topology) = (apply::url(&settings), settings.topology);
        found.push(Status { name, url, topology, processes });
    }
    Ok(found)
}

/// Starts a process of a lab (`server`, or a host's agent) unless it runs, and returns its pid. It
/// goes on with the data that it has.
///
/// # Errors
/// No such lab or process, or it cannot be started.
pub fn start(name: &str, state_root: &Path, process: &str) -> Result<i32, Error> {
    let (place, settings) = existing(name, state_root)?;
    one(&place, &settings, process)?.start(&settings)
}

/// Ends a process of a lab as an operator would: SIGTERM, and SIGKILL after five seconds.
///
/// # Errors
/// No such lab or process, or it does not end.
pub fn stop(name: &str, state_root: &Path, process: &str) -> Result<(), Error> {
    let (place, settings) = existing(name, state_root)?;
    one(&place, &settings, process)?.stop()
}

/// Ends a process of a lab as a crash would, by SIGKILL.
///
/// # Errors
/// No such lab or process, or it does not end.
pub fn kill(name: &str, state_root: &Path, process: &str) -> Result<(), Error> {
    let (place, settings) = existing(name, state_root)?;
    one(&place, &settings, process)?.kill()
}

fn existing(name: &str, state_root: &Path) -> Result<(Place, state::Settings), Error> {
    let place = Place::new(name, state_root)?;
    let settings = place.existing()?;
    Ok((place, settings))
}

fn one(place: &Place, settings: &state::Settings, name: &str) -> Result<Process, Error> {
    let all = Process::all(place, &settings.hosts);
    let known = all.iter().map(|process| process.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|process| process.name == name);
    let (lab, node) = (place.lab.clone(), name.to_owned());
    found.ok_or(Error::NoNode { lab, node, known })
}
