//! The binary: parses, wires up, runs.

mod agent;
mod backup;
mod data;
mod descriptors;
mod inspect;
mod installation;
mod lab;
mod password;
mod runtime;
mod server;
mod tls;

use std::{ffi::OsString, process::ExitCode};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind, parser::ValueSource,
};

/// Virtual networks for virtual machines and containers on plain Linux hosts.
#[derive(Parser)]
#[command(name = "netloom", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    connection: cli::Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server in the foreground: REST for people, gRPC for agents.
    Server(server::Arguments),
    /// Copy what the server in a directory has, while it runs.
    Backup(backup::Backup),
    /// Bring a backup back, while the server is stopped.
    Restore(backup::Restore),
    /// Give the account admin a new password, while the server is stopped.
    ResetPassword(password::Arguments),
    /// Run a host's agent in the foreground.
    Agent(agent::Arguments),
    /// On a host: what its data plane should hold, holds, and dropped. Needs no agent.
    Inspect(inspect::Arguments),
    /// Hosts, networks and VMs on this one machine.
    #[command(subcommand)]
    Lab(lab::Verb),
    #[command(flatten)]
    Client(cli::Verb),
    /// Any message or query: `CreateZone name=z1`, `QueryZone name=z1`.
    #[command(external_subcommand)]
    Call(Vec<String>),
}

fn main() -> ExitCode {
    let arguments = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = match arguments.verb {
        Verb::Server(arguments) => server::run(arguments),
        Verb::Backup(arguments) => backup::backup(&arguments),
        Verb::Restore(arguments) => backup::restore(&arguments),
        Verb::ResetPassword(arguments) => password::reset(&arguments),
        Verb::Agent(arguments) => agent::run(arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Lab(verb) => lab::run(verb),
        Verb::Client(verb) => cli::run(verb, &arguments.connection).map_err(Into::into),
        Verb::Call(words) => cli::call(&words, &arguments.connection).map_err(Into::into),
    };
    result.unwrap_or_else(|error| {
        eprintln!("netloom: {error}");
        ExitCode::FAILURE
    })
}

/// Understands the command line. Only verbs that talk to a server take a connection; the variables
/// that give one may be set all the same.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let matches = command.try_get_matches_from_mut(words)?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    let talks = matches!(arguments.verb, Verb::Client(cli::Verb::Login(_)) | Verb::Call(_));
    let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    match ["server", "password_file", "ca"].into_iter().find(is_given) {
        Some(name) if !talks => {
            let option = name.replace('_', "-");
            let text = format!("--{option} is for messages and login, and means nothing here");
            Err(command.error(ErrorKind::ArgumentConflict, text))
        }
        _ => Ok(arguments),
    }
}

/// Why a verb failed: the text for the user, nothing more is done with it.
type Failure = Box<dyn std::error::Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_command_line_is_understood() {
        let parse = |line: &str| super::parse(line.split(' ').map(OsString::from)).unwrap().verb;
        assert!(matches!(parse("netloom server --data d"), Verb::Server(_)));
        assert!(matches!(parse("netloom server --data d --new-ca"), Verb::Server(_)));
        assert!(matches!(parse("netloom reset-password --data d"), Verb::ResetPassword(_)));
        assert!(matches!(parse("netloom backup --data d --to t"), Verb::Backup(_)));
        assert!(matches!(parse("netloom restore --data d --from f --force"), Verb::Restore(_)));
        assert!(matches!(parse("netloom agent --enrol f"), Verb::Agent(_)));
        assert!(matches!(parse("netloom inspect -o json"), Verb::Inspect(_)));
        assert!(matches!(parse("netloom lab check -o json"), Verb::Lab(_)));
        assert!(matches!(parse("netloom lab exec vm -- ping -c 1 ::1"), Verb::Lab(_)));
        assert!(matches!(parse("netloom login --password-file f"), Verb::Client(_)));
        let Verb::Call(words) = parse("netloom CreateZone name=z --help") else { panic!("a call") };
        assert_eq!(words, ["CreateZone", "name=z", "--help"]);
    }

    #[test]
    fn only_what_talks_to_a_server_takes_a_connection() {
        let parse = |line: &str| super::parse(line.split(' ').map(OsString::from));
        let server = |line| parse(line).unwrap().connection.server;
        assert_eq!(server("netloom --server http://s QueryZone").as_deref(), Some("http://s"));
        assert_eq!(server("netloom --server s login --password-file f").as_deref(), Some("s"));
        assert!(parse("netloom login --password-file f --server s").is_ok());
        for verb in ["server --data d", "agent", "inspect", "messages", "lab check"] {
            let after = parse(&format!("netloom {verb} --server s")).err().unwrap();
            assert_eq!(after.kind(), ErrorKind::UnknownArgument, "{verb}");
            for option in ["--server", "--password-file", "--ca"] {
                let before = parse(&format!("netloom {option} s {verb}")).err().unwrap();
                assert!(before.to_string().contains(option), "{before}");
            }
        }
        let help = parse("netloom server --help").err().unwrap().to_string();
        assert!(help.contains("--link-listen") && !help.contains("--password-file"), "{help}");
    }
}
