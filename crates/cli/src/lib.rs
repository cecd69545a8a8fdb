//! The command line: nouns and verbs, ZStack's messages, sessions, topologies.
//!
//! Nouns, verbs and what they take are made from the tables of `model`: `netloom vm list`, `netloom
//! zone create z1`. Beside them stands zstack-cli's grammar: `netloom CreateZone name=z1`, `netloom
//! QueryZone name=z1`. Everything goes over REST.

mod act;
mod adjust;
mod apply;
mod arguments;
mod call;
mod connection;
mod describe;
mod doctor;
mod explain;
mod export;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod grammar;
mod host;
mod names;
mod near;
mod noun;
mod output;
mod plan;
mod print;
mod profile;
mod rules;
mod session;
mod shell;
mod status;
mod table;
mod told;
pub mod topics;
mod topology;
mod wait;
mod words;
mod work;

use std::path::PathBuf;

use clap::{ArgMatches, Subcommand};

pub use arguments::Call;
pub use connection::Connection;
pub use grammar::{command, commands};
pub use output::{Format, Manner};
pub use plan::{Plan, Step};
pub use print::print;
pub use shell::shell;
pub use topology::{Entry, Resource, Topology};

/// A verb that talks to a server.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Open a session and remember it.
    Login(session::Login),
    /// Close the session and forget it.
    Logout,
    /// Which server, as whom, and whether the session is open.
    Whoami,
    /// Change one's own password.
    Passwd(session::Passwd),
    /// The server at a glance: hosts, instances, and who waits for whom.
    Status,
    /// Wait for a job, or until a resource is as it should be.
    Wait(wait::Wait),
    /// Make what a file says, and nothing that is there already; the plan is shown first.
    Apply(apply::Apply),
    /// Show what `apply` would do; exit code 2 if it would do something.
    Diff(apply::Diff),
    /// Delete what a file names.
    Delete(apply::Delete),
    /// What there is, as a file for `apply`.
    Export,
    /// What would become of a packet, and which rule decides.
    Trace(explain::Trace),
    /// What was dropped at a NIC lately, and why.
    WhyDropped(explain::WhyDropped),
    /// List ZStack's messages, or show one with its fields.
    Messages {
        /// A message, such as `CreateZone`.
        name: Option<String>,
    },
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call failed.
    #[error("{}", told(.0))]
    Client(#[from] client::Error),
    /// A file could not be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// A name that nothing has, or several have.
    #[error("{0}")]
    Name(String),
    /// The result cannot be printed.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// The server has not what a file says.
    #[error("there are differences")]
    Differs,
    /// Something is not as it must be.
    #[error("the doctor has {0} findings")]
    Unsound(u64),
    /// What was waited for has not come.
    #[error("{0}")]
    Late(String),
    /// The words do not make a call.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The exit code: 1 for words that mean nothing, files and names; 2 for
    /// differences, and for findings of the doctor; 3 for what the server
    /// refused, as zstack-cli has it; 4 for what has not come in time; 5 for a server that does not
    /// answer.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        use client::Error as E;
        match self {
            Self::Client(E::Refused { .. } | E::Protocol { .. } | E::TooLarge { .. }) => 3,
            Self::Differs | Self::Unsound(_) => 2,
            Self::Client(E::Timeout { .. }) | Self::Late(_) => 4,
            Self::Client(E::Unreachable { .. } | E::Untrusted { .. }) => 5,
            Self::Client(E::UnknownMessage(_) | E::Authorities(_))
            | Self::File { .. }
            | Self::Name(_)
            | Self::Output(_)
            | Self::Usage(_) => 1,
        }
    }
}

/// An error as it is told: with what to do next, where the command line has a word for it.
fn told(error: &client::Error) -> String {
    match error {
        client::Error::Timeout { message, seconds, job } => {
            format!("{message} is not done after {seconds} s; {}", work::look(job))
        }
        client::Error::Refused { code, .. } if code == "ID.1001" => {
            format!("{error} (netloom login)")
        }
        other => other.to_string(),
    }
}

/// Runs a verb and prints its result.
///
/// # Errors
/// Whatever keeps it from its result.
pub fn run(verb: &Verb, connection: &Connection, manner: &Manner) -> Result<(), Error> {
    match verb {
        Verb::Login(login) => session::log_in(login, connection),
        Verb::Logout => session::log_out(connection),
        Verb::Whoami => session::who_am_i(connection),
        Verb::Passwd(passwd) => session::change_password(passwd, connection),
        Verb::Status => status::run(connection, manner),
        Verb::Wait(wait) => wait::run(wait, connection, manner),
        Verb::Apply(apply) => apply::apply(apply, connection, manner),
        Verb::Diff(diff) => apply::diff(diff, connection),
        Verb::Delete(delete) => apply::delete(delete, connection, manner),
        Verb::Export => export::run(connection, manner),
        Verb::Trace(trace) => explain::trace(trace, connection, manner),
        Verb::WhyDropped(why) => explain::why_dropped(why, connection, manner),
        Verb::Messages { name: None } => print(&describe::list().trim_end()),
        Verb::Messages { name: Some(name) } => print(&describe::one(name)?.trim_end()),
    }
}

/// Asks the server whether everything is as it must be, and prints what is not.
///
/// # Errors
/// [`Error::Unsound`], if something is not; whatever keeps it from its answer.
pub fn doctor(connection: &Connection, manner: &Manner) -> Result<(), Error> {
    doctor::run(connection, manner)
}

/// Prints a report of the doctor that did not come from a server.
///
/// # Errors
/// As [`doctor()`].
pub fn show_report(report: &serde_json::Value, manner: &Manner) -> Result<(), Error> {
    doctor::tell(report, manner)
}

/// Carries out a noun's verb: `vm list`, `zone create z1`.
///
/// # Errors
/// Whatever keeps it from its result.
pub fn act(noun: &str, matches: &ArgMatches, connection: &Connection) -> Result<(), Error> {
    act::run(noun, matches, connection)
}

/// Calls a message or a query and prints the answer: `CreateZone name=z1`, `QueryZone name=z1`.
///
/// # Errors
/// Whatever keeps it from its answer.
pub fn call(words: &[String], connection: &Connection, manner: &Manner) -> Result<(), Error> {
    call::run(connection, manner, words)
}
