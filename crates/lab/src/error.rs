//! What can go wrong, and what to do about it.

use std::{fmt::Display, io, path::PathBuf};

/// Why a lab could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology file breaks a rule; nothing was changed.
    #[error("{}: {problem}", path.display())]
    Topology {
        /// The file.
        path: PathBuf,
        /// Which rule, and where.
        problem: String,
    },
    /// The topology does not fit what the server has, or the server gives no answer.
    #[error(transparent)]
    Plan(#[from] cli::Error),
    /// A name breaks a rule.
    #[error("{what} {name:?}: {rule}")]
    Name {
        /// What the name is for.
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Nobody else may make network namespaces.
    #[error("a lab is made of network namespaces and devices: run this as root")]
    NotRoot,
    /// The address for REST is not on loopback.
    #[error("{0} is not on loopback, and the REST port has no TLS; listen on 127.0.0.1")]
    NotLoopback(std::net::SocketAddr),
    /// There is no lab of that name.
    #[error("there is no lab {name} in {}; `netloom lab up` makes one", state_root.display())]
    NoLab {
        /// The name that was given.
        name: String,
        /// Where labs keep their files.
        state_root: PathBuf,
    },
    /// Another state root has a lab of that name, and namespaces have no other name.
    #[error(
        "lab {name} is of the state root {root}; choose another name, or remove that lab by \
         `netloom lab down --name {name} --state-root {root}`",
        root = owner.display()
    )]
    Owned {
        /// The name that was given.
        name: String,
        /// Where that lab keeps its files.
        owner: PathBuf,
    },
    /// Nothing tells whose lab the namespaces of that name are.
    #[error(
        "there are namespaces named like lab {name}'s, of no lab that is known: {}; choose another \
         name, or remove them by `ip netns delete`",
        namespaces.join(", ")
    )]
    Unowned {
        /// The name that was given.
        name: String,
        /// The namespaces.
        namespaces: Vec<String>,
    },
    /// Several VMs have the name.
    #[error("several VMs are called {node}: give one of the uuids {uuids} instead")]
    Ambiguous {
        /// The name.
        node: String,
        /// Their uuids.
        uuids: String,
    },
    /// Two hosts have a namespace of a VM, and it does not pass.
    #[error(
        "VM {} is on two hosts, {namespaces}: start the agent of the one that it has left, \
         which removes what is not its own any more", vm.simple()
    )]
    TwoPlaces {
        /// The VM.
        vm: uuid::Uuid,
        /// Its namespaces.
        namespaces: String,
    },
    /// The lab has no such host, VM or process, or it does not run.
    #[error("lab {lab} has no {node} that runs; it has: {known}")]
    NoNode {
        /// The lab.
        lab: String,
        /// The name that was given.
        node: String,
        /// The names that would do.
        known: String,
    },
    /// A file or a process could not be handled.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel refused something about a namespace or a link.
    #[error(transparent)]
    Host(#[from] hostnet::Error),
    /// A host's data plane cannot be looked at.
    #[error("host {host}: {source}")]
    DataPlane {
        /// The host.
        host: String,
        /// Why not.
        source: dataplane::Error,
    },
    /// A VM has no NIC of this number.
    #[error("VM {vm} has no NIC {nic}: its device eth{nic} is not there, or no port of a host")]
    NoNic {
        /// The VM.
        vm: String,
        /// The number, from 0.
        nic: u32,
    },
    /// The server refused a message, or does not answer.
    #[error("{action}: {source}")]
    Api {
        /// Which message, for which resource.
        action: String,
        /// What it says.
        source: client::Error,
    },
    /// A process of the lab ended when it should run.
    #[error("{process} of lab {lab} ended; the end of its log:\n{log}")]
    Ended {
        /// The lab.
        lab: String,
        /// `server`, or the host of the agent.
        process: String,
        /// The last lines that it wrote.
        log: String,
    },
    /// A process of the lab does not end.
    #[error("{process} of lab {lab} (pid {pid}) does not end, not even by SIGKILL: see `ps {pid}`")]
    Unkillable {
        /// The lab.
        lab: String,
        /// `server`, or the host of the agent.
        process: String,
        /// Its pid.
        pid: i32,
    },
    /// Something was not in effect in time.
    #[error("after {seconds} s {what}{}", log.as_ref().map(|l| format!("; a log ends with:\n{l}")).unwrap_or_default())]
    Timeout {
        /// What is not as it should be.
        what: String,
        /// How long we waited, in seconds.
        seconds: u64,
        /// The last lines of the log that may tell why.
        log: Option<String>,
    },
    /// `up` failed for a lab that was there before, so it was left as it is.
    #[error("{0}; the lab is left as it is: `netloom lab down` removes it")]
    Left(Box<Error>),
}

impl Error {
    pub(crate) fn io(action: impl Display, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.to_string(), source: source.into() }
    }
}
