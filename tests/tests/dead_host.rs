//! A host that is dead for good, and one that comes back after all. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    rest::{Answer, Rest},
    root_or_skip,
    traffic::one_packet_passes,
};
use serde_json::{Value, json};

const RED_2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 12));

#[test]
fn a_dead_hosts_instance_starts_elsewhere_in_two_steps_and_the_host_is_refused_when_it_returns() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let [h1, h2] = ["h1", "h2"].map(|name| uuid(&rest, "/hosts", name));
    let bury = || delete(&rest, &format!("/hosts/{h2}?deleteMode=Enforcing"));
    let refused = bury();
    assert_eq!(refused.code(), "NL.1003", "it lives: {refused:?}");

    lab.kill(&["h2"]);
    let status = || field(&rest, "/hosts", "h2", "status");
    assert!(wait::holds(LIMIT, || status() == "Disconnected"), "{}", status());
    let vm = named(&rest, "/vm-instances", "red-2");
    assert_eq!(vm["state"], "Unknown");
    let (vm, nic) = (vm["uuid"].as_str().unwrap().to_owned(), vm["vmNics"][0].clone());
    let start = || act(&rest, &vm, "startVmInstance", json!({"hostUuid": h1}));
    assert_eq!(start().code(), "SYS.1006", "it may run");
    stop_without_waiting(&rest, &vm);
    assert_eq!(start().code(), "NL.1003", "nobody has vouched for it");

    let buried = bury();
    assert_eq!(buried.status, 200, "{buried:?}");
    let started = start();
    assert_eq!(started.status, 200, "at once: {started:?}");
    let moved = started.body["inventory"]["vmNics"][0].clone();
    let own = |nic: &Value| [&nic["uuid"], &nic["mac"], &nic["ip"]].map(Value::clone);
    assert_eq!(own(&moved), own(&nic), "with its NIC, its MAC and its address");
    let red_1 = lab.namespace("red-1");
    let [zombie, heir] = ["h2", "h1"].map(|host| on_host(&lab, host, &vm));
    assert!(one_packet_passes(&red_1, &heir, RED_2));
    assert!(one_packet_passes(&heir, &red_1, [10, 0, 0, 11].into()));
    assert!(!one_packet_passes(&zombie, &red_1, [10, 0, 0, 11].into()), "there are two of it");

    lab.start(&["h2"]);
    let log = lab.root().join(lab.name()).join("h2.log");
    let says_so = || fs::read_to_string(&log).unwrap().contains("the host was deleted");
    assert!(wait::holds(LIMIT, says_so), "its agent does not say why it is refused");
}

#[test]
fn a_host_that_comes_back_takes_its_stale_copy_down_before_there_is_another() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (h1, vm) = (uuid(&rest, "/hosts", "h1"), uuid(&rest, "/vm-instances", "red-2"));
    lab.kill(&["h2"]);
    stop_without_waiting(&rest, &vm);
    let start = || act(&rest, &vm, "startVmInstance", json!({"hostUuid": h1}));
    assert_eq!(start().code(), "NL.1003");
    lab.settle(&["h1"]);
    let stale = on_host(&lab, "h2", &vm);
    assert!(!one_packet_passes(&lab.namespace("red-1"), &stale, RED_2), "it is stopped");

    lab.start(&["h2"]);
    let mut started = start();
    let is_started = || {
        started = if started.status == 200 { started.clone() } else { start() };
        started.status == 200
    };
    assert!(wait::holds(LIMIT, is_started), "h2 has let go");
    let ports = lab.inspect("h2")["ports"].to_string();
    assert!(!ports.contains("red-2"), "{ports}");
    let (red_1, heir) = (lab.namespace("red-1"), on_host(&lab, "h1", &vm));
    // red-1's kernel may still wait for an answer to its last question.
    assert!(wait::holds(LIMIT, || one_packet_passes(&red_1, &heir, RED_2)));
}

/// The namespace of an instance on one host, of which others may have one too.
fn on_host(lab: &TestLab, host: &str, vm: &str) -> Namespace {
    Namespace::open(&format!("nl-{}-{host}-{vm}", lab.name())).unwrap()
}

/// Sends an action about an instance, and waits for it.
fn act(rest: &Rest, vm: &str, action: &str, params: Value) -> Answer {
    let body = json!({action: params}).to_string();
    let path = format!("/vm-instances/{vm}/actions");
    rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap()
}

fn stop_without_waiting(rest: &Rest, vm: &str) {
    let body = json!({"stopVmInstance": {}}).to_string();
    let accepted = rest.send("PUT", &format!("/vm-instances/{vm}/actions"), &body).unwrap();
    assert_eq!(accepted.status, 202, "{accepted:?}");
}

fn delete(rest: &Rest, path: &str) -> Answer {
    rest.clone().with("prefer", "wait=30").send("DELETE", path, "").unwrap()
}

fn named(rest: &Rest, path: &str, name: &str) -> Value {
    rest.all(path).into_iter().find(|found| found["name"] == name).unwrap()
}

fn field(rest: &Rest, path: &str, name: &str, field: &str) -> String {
    named(rest, path, name)[field].as_str().unwrap_or_default().to_owned()
}

fn uuid(rest: &Rest, path: &str, name: &str) -> String {
    field(rest, path, name, "uuid")
}
