//! Hosts, networks and VMs on one machine.
//!
//! A lab is a server, and for each host of a topology file a network namespace with an agent, all
//! real processes of the same binary, joined by an underlay. [`up`] makes it and applies the
//! file's messages through the public API, [`check`] proves with packets who reaches whom,
//! [`down`] removes every trace. Nothing here knows the server's or the agent's insides, and no
//! process is ever ended that this lab did not start.

mod error;
mod options;

use std::path::Path;

pub use error::Error;
pub use options::{LISTEN, STATE_ROOT, UpOptions};
pub use report::{CheckReport, Pair, Report, Status};

mod report;

/// Brings a lab up and applies its topology; a lab that is up already is brought to what the
/// topology says now. Returns when everything is in effect; a new lab that fails is taken down.
///
/// # Errors
/// What could not be done, and what to do about it.
pub fn up(options: &UpOptions) -> Result<Report, Error> {
    Err(Error::Unfinished(options.name.clone()))
}

/// Removes every trace of a lab: processes, namespaces, mounts, files. No such lab is success.
///
/// # Errors
/// The first thing that stays; the rest is gone then.
pub fn down(name: &str, state_root: &Path) -> Result<(), Error> {
    let _ = state_root;
    Err(Error::Unfinished(name.to_owned()))
}

/// Runs a command in the network namespace of a VM or host of a lab, with the caller's standard
/// streams, and returns its exit status (128 + signal when a signal ended it, as shells do).
///
/// # Errors
/// No such lab or node, or the command cannot be started.
pub fn exec(name: &str, state_root: &Path, node: &str, argv: &[String]) -> Result<i32, Error> {
    let _ = (state_root, node, argv);
    Err(Error::Unfinished(name.to_owned()))
}

/// Finds out with packets who reaches whom, and compares with what the topology expects.
///
/// # Errors
/// The lab is not up. Differences are no error: see [`CheckReport::is_as_expected`].
pub fn check(name: &str, state_root: &Path) -> Result<CheckReport, Error> {
    let _ = state_root;
    Err(Error::Unfinished(name.to_owned()))
}

/// The labs of this machine, by name, with what runs of each.
///
/// # Errors
/// The state directory cannot be read.
pub fn status(state_root: &Path) -> Result<Vec<Status>, Error> {
    let _ = state_root;
    Ok(Vec::new())
}
