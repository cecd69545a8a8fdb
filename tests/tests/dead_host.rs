//! A host that is dead for good, and one that comes back after all. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{fs, net::IpAddr};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    rest::{Answer, Rest},
    root_or_skip,
    traffic::one_packet_passes,
};
use serde_json::{Value, json};

#[test]
fn a_dead_hosts_addresses_are_free_in_one_step_and_it_is_refused_when_it_returns() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let [h1, h2] = ["h1", "h2"].map(|name| uuid(&rest, "/hosts", name));
    let l3 = uuid(&rest, "/l3-networks", "red-l3");
    let bury = || delete(&rest, &format!("/hosts/{h2}?deleteMode=Enforcing"));
    let refused = bury();
    assert_eq!(refused.code(), "NL.1003", "it lives: {refused:?}");

    lab.kill(&["h2"]);
    let status = || field(&rest, "/hosts", "h2", "status");
    assert!(wait::holds(LIMIT, || status() == "Disconnected"), "{}", status());
    let ip = IpAddr::from([10, 0, 0, 12]);
    let move_it = || {
        let params = json!({"name": "red-2b", "l3NetworkUuids": [l3], "hostUuid": h1});
        let tags = [format!("staticIp::{l3}::{ip}")];
        let body = json!({"params": params, "systemTags": tags}).to_string();
        rest.clone().with("prefer", "wait=30").send("POST", "/vm-instances", &body).unwrap()
    };
    assert_eq!(move_it().code(), "L3.1000", "red-2 has it");
    let vm = uuid(&rest, "/vm-instances", "red-2");
    let destroyed = delete(&rest, &format!("/vm-instances/{vm}?deleteMode=Enforcing"));
    assert_eq!(destroyed.status, 200, "nobody waits for the dead: {destroyed:?}");
    assert_eq!(move_it().code(), "L3.1000", "nobody has vouched for it");

    let buried = bury();
    assert_eq!(buried.status, 200, "{buried:?}");
    let vms = rest.all("/vm-instances");
    assert!(vms.iter().all(|vm| vm["hostUuid"] == json!(h1)), "{vms:?}");
    let mut moved = move_it();
    let is_moved = wait::holds(LIMIT, || {
        moved = if moved.status == 200 { moved.clone() } else { move_it() };
        moved.status == 200
    });
    assert!(is_moved, "{moved:?}");
    assert!(one_packet_passes(&lab.namespace("red-1"), &lab.namespace("red-2b"), ip));

    lab.start(&["h2"]);
    let log = lab.root().join(lab.name()).join("h2.log");
    let says_so = || fs::read_to_string(&log).unwrap().contains("the host was deleted");
    assert!(wait::holds(LIMIT, says_so), "its agent does not say why it is refused");
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
