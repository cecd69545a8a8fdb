//! How much room is used: a port's for connections, which the API tells, and the host's memory by its
//! agent. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, root_or_skip};
use serde_json::Value;

const CONNECTIONS: usize = 20;
/// What an idle agent may keep for itself, in KiB.
const IDLE_KIB: u64 = 15 << 10;

#[test]
fn a_nic_tells_its_connections_and_how_many_it_is_sure_to_get() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let listen = || TcpListener::bind("10.0.0.12:0").unwrap();
    let listener = lab.namespace("red-2").run_in(listen).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect(address).unwrap();
    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| lab.namespace("red-1").run_in(connect).unwrap()).collect();
    let sure = lab.inspect("h1")["ports"][0]["connectionsSure"].clone();
    assert!(sure.as_u64().is_some_and(|sure| sure > 0), "{sure}");
    let ports = lab.inspect("h1")["ports"].clone();
    let shown = ports.as_array().unwrap().iter().find(|port| port["instance"] == "red-1").unwrap();
    for vm in ["red-1", "red-2"] {
        let is_told = || {
            let nic = nic(&lab, vm);
            let counted = nic["connections"].as_u64().unwrap_or_default();
            counted >= shown["connections"].as_u64().unwrap() && nic["connectionsSure"] == sure
        };
        assert!(wait::holds(LIMIT * 4, is_told), "{vm}: {:#}", nic(&lab, vm));
    }
    assert_eq!(nic(&lab, "blue-1")["connections"], 0, "the other tenant's");
    drop(connections);
}

#[test]
fn an_agent_gives_back_what_its_start_took() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let pid = lab::start(lab.name(), lab.root(), "h1").unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < IDLE_KIB, "{kib} KiB");
}

fn nic(lab: &TestLab, vm: &str) -> Value {
    let vm = lab.named("/vm-instances", vm)["uuid"].clone();
    let nics = lab.rest().all("/vm-instances/nics");
    nics.into_iter().find(|nic| nic["vmInstanceUuid"] == vm).unwrap()
}
