//! Makes the committed code under `gen/` from the protocol's definition, without `protoc`.
//!
//! Generated code is never edited; `check` fails when it differs from what the definition gives.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether to write the generated files or only to compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write them.
    Write,
    /// Fail if a committed file differs.
    Check,
}

type Failure = Box<dyn std::error::Error>;

/// Generates the protocol's messages, client and server into `crates/wire/src/gen`.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<(), Failure> {
    let wire = root.join("crates/wire");
    let fresh = root.join("target/gen");
    fs::create_dir_all(&fresh)?;
    let files = protox::compile(["link.proto"], [wire.join("proto")])?;
    tonic_prost_build::configure().out_dir(&fresh).compile_fds(files)?;

    let name = "netloom.link.v1.rs";
    settle(&fresh.join(name), &wire.join("src/gen").join(name), mode)
}

fn settle(fresh: &Path, committed: &PathBuf, mode: Mode) -> Result<(), Failure> {
    let wanted = fs::read_to_string(fresh)?;
    match mode {
        Mode::Write => Ok(fs::write(committed, wanted)?),
        Mode::Check if fs::read_to_string(committed)? == wanted => Ok(()),
        Mode::Check => Err(format!(
            "{} is not what crates/wire/proto gives; run `cargo run -p xtask --features gen -- gen`",
            committed.display()
        )
        .into()),
    }
}
