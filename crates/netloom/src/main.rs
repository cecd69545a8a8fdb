//! The binary: parses, wires up, runs.

mod agent;
mod data;
mod descriptors;
mod inspect;
mod installation;
mod lab;
mod password;
mod runtime;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    let arguments = Arguments::parse();
    let result = match arguments.verb {
        Verb::Server(arguments) => server::run(arguments),
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

/// Why a verb failed: the text for the user, nothing more is done with it.
type Failure = Box<dyn std::error::Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_command_line_is_understood() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap().verb;
        assert!(matches!(parse("netloom server --data d"), Verb::Server(_)));
        assert!(matches!(parse("netloom server --data d --new-ca"), Verb::Server(_)));
        assert!(matches!(parse("netloom reset-password --data d"), Verb::ResetPassword(_)));
        assert!(matches!(parse("netloom agent --enrol f"), Verb::Agent(_)));
        assert!(matches!(parse("netloom inspect -o json"), Verb::Inspect(_)));
        assert!(matches!(parse("netloom lab check -o json"), Verb::Lab(_)));
        assert!(matches!(parse("netloom lab exec vm -- ping -c 1 ::1"), Verb::Lab(_)));
        assert!(matches!(parse("netloom login --password-file f"), Verb::Client(_)));
        let Verb::Call(words) = parse("netloom CreateZone name=z --help") else { panic!("a call") };
        assert_eq!(words, ["CreateZone", "name=z", "--help"]);
    }
}
