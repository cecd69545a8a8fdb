//! The client of ZStack's MCP server, a package from PyPI, against a running door. It needs a Python
//! that has it, which `NETLOOM_MCP_PYTHON` names (`pip install zstack-mcp-server==0.1.7` in a virtual
//! environment); without one it is skipped and says so. Nothing is fetched here.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::process::Command;

use netloom_api::Limits;
use support::{PASSWORD, Running};

#[test]
fn zstacks_mcp_client_builds_a_network_and_takes_it_away() {
    let Some(python) = std::env::var_os("NETLOOM_MCP_PYTHON") else {
        eprintln!("SKIPPED: NETLOOM_MCP_PYTHON names no Python with zstack-mcp-server");
        return;
    };
    let running = Running::start(Limits::default());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/mcp.py");
    let url = format!("http://{}", running.address);
    let ran = Command::new(python).args([script, &url, PASSWORD]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
