//! Development tasks: code generation.

#[cfg(feature = "gen")]
mod generate;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask --features gen -- gen [--check]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "gen")]
fn run(words: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match words {
        ["gen"] => generate::run(&root, generate::Mode::Write),
        ["gen", "--check"] => generate::run(&root, generate::Mode::Check),
        _ => Err(USAGE.into()),
    }
}

#[cfg(not(feature = "gen"))]
fn run(_words: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    Err(USAGE.into())
}
