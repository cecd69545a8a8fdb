//! Command line verbs: log in, call any message, query any resource.
//!
//! Verbs are made from the tables of `model`, in zstack-cli's grammar: `netloom CreateZone
//! name=z1`, `netloom QueryZone name=z1`. Everything goes over REST.

mod call;
mod connection;
mod describe;
mod print;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

pub use connection::Connection;
pub use print::print;

/// A verb that talks to a server.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Open a session and remember it.
    Login(Login),
    /// List the messages, or show one with its fields.
    Messages {
        /// A message, such as `CreateZone`.
        name: Option<String>,
    },
}

/// What `login` takes.
#[derive(Debug, Args)]
pub struct Login {
    /// The account.
    #[arg(long, default_value = "admin")]
    account: String,
    /// A file with the password, such as `DIR/admin-password` of the server.
    #[arg(long)]
    password_file: PathBuf,
    /// The server's REST address.
    #[arg(long)]
    server: Option<String>,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A file could not be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// The result cannot be printed.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// The words do not make a call.
    #[error("{0}")]
    Usage(String),
}

/// Runs a verb and prints its result as JSON.
///
/// # Errors
/// Whatever keeps it from its result.
pub fn run(verb: Verb, connection: &Connection) -> Result<ExitCode, Error> {
    match verb {
        Verb::Login(Login { account, password_file, server }) => {
            let server = server.or_else(|| connection.server.clone());
            let connection = Connection { server, ..connection.clone() };
            connection::log_in(&connection, &account, &password_file)?;
        }
        Verb::Messages { name: None } => print(&describe::list().trim_end())?,
        Verb::Messages { name: Some(name) } => print(&describe::one(&name)?.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Calls a message or a query and prints the answer: `CreateZone name=z1`, `QueryZone name=z1`.
///
/// # Errors
/// Whatever keeps it from its answer.
pub fn call(words: &[String], connection: &Connection) -> Result<ExitCode, Error> {
    call::run(connection, words).map(|()| ExitCode::SUCCESS)
}
