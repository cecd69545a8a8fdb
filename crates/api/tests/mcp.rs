//! The client of ZStack's MCP server, a package from PyPI, unchanged, against a running door.
//! `scripts/setup test` brings the package; nothing is fetched here.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::process::Command;

use netloom_api::Limits;
use support::{PASSWORD, Running};

#[test]
fn zstacks_mcp_client_builds_a_network_and_takes_it_away() {
    let Some(python) = support::python() else { return };
    let running = Running::start(Limits::default());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/mcp.py");
    let url = format!("http://{}", running.address);
    let ran = Command::new(python).args([script, &url, PASSWORD]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
