//! The binary: parses, wires up, runs.

mod agent;
mod backup;
mod data;
mod descriptors;
mod doctor;
mod heap;
mod inspect;
mod installation;
mod lab;
mod password;
mod router;
mod runtime;
mod server;
mod tls;
mod traces;

use std::{ffi::OsString, process::ExitCode};

use clap::{
    ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind,
    parser::ValueSource,
};

/// Virtual networks for virtual machines and containers on plain Linux hosts.
#[derive(Parser)]
#[command(name = "netloom", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    connection: cli::Connection,
    #[command(flatten)]
    manner: cli::Manner,
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
    /// Whether everything that is allocated is referenced, and the reverse; names each leak.
    Doctor(doctor::Arguments),
    /// Run a host's agent in the foreground.
    Agent(agent::Arguments),
    /// Run a virtual router's agent in the foreground, in its machine.
    #[command(hide = true)]
    Router(router::Arguments),
    /// On a host: what its data plane should hold, holds, and dropped. Needs no agent.
    Inspect(inspect::Arguments),
    /// Hosts, networks and VMs on this one machine.
    #[command(subcommand)]
    Lab(lab::Verb),
    #[command(flatten)]
    Client(cli::Verb),
    /// Read commands one after the other, with completion and a history.
    Shell,
    /// Help by topic, with examples; or of a command, as `--help` gives it.
    Help {
        /// A topic, or the words of a command.
        words: Vec<String>,
    },
    /// Any of ZStack's messages or queries: `CreateZone name=z1`, `QueryZone name=z1`.
    #[command(external_subcommand)]
    Call(Vec<String>),
}

/// What is to be done.
enum Asked {
    Verb(Box<Arguments>),
    /// A noun and what follows it: `vm list`.
    Noun(String, ArgMatches, Box<cli::Connection>),
}

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(command).complete();
    let asked = match parse(std::env::args_os()) {
        Ok(asked) => asked,
        Err(error) => {
            // Nobody may read it any more.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let result = match asked {
        Asked::Noun(noun, matches, connection) => {
            done(cli::act(&noun, &matches, &connection).map_err(Into::into))
        }
        Asked::Verb(arguments) => run(*arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("netloom: {error}");
        let of_cli = error.downcast_ref::<cli::Error>().map(cli::Error::exit_code);
        of_cli.map_or(ExitCode::FAILURE, ExitCode::from)
    })
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { connection, manner, verb } = arguments;
    match verb {
        Verb::Server(arguments) => server::run(arguments),
        Verb::Backup(arguments) => backup::backup(&arguments),
        Verb::Restore(arguments) => backup::restore(&arguments),
        Verb::ResetPassword(arguments) => password::reset(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments, &connection, &manner),
        Verb::Agent(arguments) => agent::run(arguments),
        Verb::Router(arguments) => router::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Lab(verb) => lab::run(verb),
        Verb::Shell => done(cli::shell(command).map_err(Into::into)),
        Verb::Help { words } => help(&words),
        Verb::Client(verb) => done(cli::run(&verb, &connection, &manner).map_err(Into::into)),
        Verb::Call(words) => done(cli::call(&words, &connection, &manner).map_err(Into::into)),
    }
}

/// Prints what a topic or a command is about.
fn help(words: &[String]) -> Result<ExitCode, Failure> {
    if let [word] = words
        && let Some(topic) = cli::topics::TOPICS.iter().find(|topic| topic.word == word)
    {
        return done(cli::print(&topic.text.trim_end()).map_err(Into::into));
    }
    let mut whole = command();
    whole.build();
    let mut below = &mut whole;
    for word in words {
        let text = format!(
            "there is no topic and no command \"{word}\"; topics:\n{}",
            cli::topics::list()
        );
        below = below.find_subcommand_mut(word).ok_or_else(|| text.trim_end().to_owned())?;
    }
    done(cli::print(&below.render_help()).map_err(Into::into))
}

fn done(result: Result<(), Failure>) -> Result<ExitCode, Failure> {
    result.map(|()| ExitCode::SUCCESS)
}

/// The whole command line, with the nouns that the declarations give.
fn command() -> clap::Command {
    let help = format!("{HELP}\n\nnetloom help TOPIC has examples:\n{}", cli::topics::list());
    let command = Arguments::command().disable_help_subcommand(true);
    command.subcommands(cli::commands()).after_help(help.trim_end().to_owned())
}

const HELP: &str = "\
Nouns have verbs: netloom vm list, netloom zone create z1, netloom l3 show red.
netloom NOUN --help lists them; netloom NOUN VERB --help says what they take.
Exit codes: 0 done, 1 wrong words, names or files, 2 differences, 3 refused by
the server, 4 not done in time, 5 the server does not answer, 130 interrupted.";

/// Understands the command line. Only verbs that talk to a server take a connection; the variables
/// that give one may be set all the same.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(words)?;
    let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let given = OPTIONS.into_iter().find(is_given);
    let found = matches.subcommand_name().and_then(cli::command);
    if let Some(noun) = found {
        if let Some(name) = given.filter(|name| MANNERS.contains(name)) {
            let text = format!("--{} stands after the verb", name.replace('_', "-"));
            return Err(command.error(ErrorKind::ArgumentConflict, text));
        }
        let connection = cli::Connection::from_arg_matches(&matches)?;
        let below = matches.remove_subcommand().map(|(_, below)| below).unwrap_or_default();
        return Ok(Asked::Noun(noun.get_name().to_owned(), below, Box::new(connection)));
    }
    let arguments = Arguments::from_arg_matches(&matches)?;
    let talks = match &arguments.verb {
        Verb::Client(cli::Verb::Messages { .. }) => false,
        // Even to the database of a stopped one there is a manner of printing.
        Verb::Doctor(_) => true,
        Verb::Client(_) | Verb::Call(_) => true,
        _ => false,
    };
    match given {
        Some(name) if !talks => {
            let option = name.replace('_', "-");
            let text = format!("--{option} is for what talks to a server, and means nothing here");
            Err(command.error(ErrorKind::ArgumentConflict, text))
        }
        _ => Ok(Asked::Verb(Box::new(arguments))),
    }
}

/// The options of a connection and of a manner: before a message, after a noun's verb.
const OPTIONS: [&str; 8] =
    ["server", "password_file", "ca", "profile", "output", "out", "no_wait", "timeout"];
const MANNERS: [&str; 4] = ["output", "out", "no_wait", "timeout"];

/// Why a verb failed: the text for the user, nothing more is done with it.
type Failure = Box<dyn std::error::Error>;

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(line: &str) -> Result<Arguments, clap::Error> {
        match parse(line.split(' ').map(OsString::from))? {
            Asked::Verb(arguments) => Ok(*arguments),
            Asked::Noun(noun, ..) => panic!("{noun} is a noun"),
        }
    }

    #[test]
    fn a_noun_takes_its_options_after_its_verb() {
        let asked = |line: &str| parse(line.split(' ').map(OsString::from));
        for line in
            ["netloom vm ls", "netloom --server s vm list -o json", "netloom vm list --server s"]
        {
            let Ok(Asked::Noun(noun, below, _)) = asked(line) else { panic!("{line}") };
            assert_eq!((noun.as_str(), below.subcommand_name()), ("vm", Some("list")));
        }
        let early = asked("netloom -o json vm list").err().unwrap();
        assert!(early.to_string().contains("--output stands after the verb"), "{early}");
        let slip = asked("netloom vm lsit").err().unwrap().to_string();
        assert!(slip.contains("list"), "{slip}");
    }

    /// The words of a line, as a shell would read it: it may have double quotes.
    fn words(line: &str) -> Vec<OsString> {
        let parts = line.split('"').enumerate();
        let words = parts.flat_map(|(at, part)| match at % 2 {
            0 => part.split(' ').map(str::to_owned).collect(),
            _ => vec![format!("\"{part}")],
        });
        let mut joined: Vec<String> = Vec::new();
        for word in words.filter(|word| !word.is_empty()) {
            match (word.strip_prefix('"'), joined.last_mut()) {
                (Some(quoted), Some(last)) => last.push_str(quoted),
                _ => joined.push(word),
            }
        }
        joined.into_iter().map(OsString::from).collect()
    }

    #[test]
    fn every_example_of_a_topic_is_understood() {
        for topic in cli::topics::TOPICS {
            let lines = topic.text.lines().filter_map(|line| line.strip_prefix("  "));
            let mut examples = 0;
            for line in lines {
                examples += 1;
                let asked = parse(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
                let Asked::Verb(arguments) = asked else { continue };
                let Verb::Call(words) = arguments.verb else { continue };
                let declared = model::resource::messages().any(|def| def.name == words[0]);
                assert!(declared || words[0].starts_with("Query"), "{line}");
            }
            assert!(examples > 2, "{}", topic.word);
            assert!(topic.text.lines().all(|line| line.len() <= 90), "{}", topic.word);
        }
    }

    #[test]
    fn every_form_of_the_command_line_is_understood() {
        let parse = |line: &str| understood(line).unwrap().verb;
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
        let parse = understood;
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
