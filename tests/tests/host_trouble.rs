//! What ails a host is told wherever somebody asks: of the host, of its instances and NICs, and of
//! a call that waits. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::fs;

use lab::wait;
use netloom_tests::{LIMIT, TestLab, rest::Rest, root_or_skip};
use serde_json::{Value, json};

#[test]
fn another_vxlan_device_on_the_port_is_told_and_its_end_heals() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.kill(&["h2"]);
    lab.ip("h2", "link delete nlvx");
    lab.ip("h2", "link add flannel.1 type vxlan id 1 dev eth0 dstport 8472");
    lab.ip("h2", "link set flannel.1 up");
    lab.start(&["h2"]);
    let reason = "no tunnel device";
    let rest = lab.rest();
    told(&rest, "/hosts", |host| host["name"] == "h2", reason);
    told(&rest, "/vm-instances", |vm| vm["name"] == "red-2", reason);
    let vm = named(&rest, "/vm-instances", "red-2");
    let is_its = |nic: &Value| nic["vmInstanceUuid"] == vm["uuid"];
    told(&rest, "/vm-instances/nics", is_its, reason);
    waits(&rest, reason);

    lab.ip("h2", "link delete flannel.1");
    lab.settle(&["h1", "h2"]);
    lab.check();
}

#[test]
fn a_device_in_the_place_of_the_tunnel_device_is_told_and_its_end_heals() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.kill(&["h2"]);
    lab.ip("h2", "link delete nlvx");
    lab.ip("h2", "link add nlvx type bridge");
    lab.start(&["h2"]);
    let reason = "no tunnel device";
    let rest = lab.rest();
    told(&rest, "/hosts", |host| host["name"] == "h2", reason);
    let inspection = lab.inspect("h2");
    assert_eq!((&inspection["asDesired"], &inspection["inEffect"]), (&json!(true), &json!(false)));
    assert!(inspection["agent"]["trouble"].to_string().contains("bridge"), "{inspection:#}");

    lab.ip("h2", "link delete nlvx");
    lab.settle(&["h1", "h2"]);
    lab.check();
}

#[test]
fn an_agent_that_cannot_save_its_state_is_told() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    // As good as a full disk, for one file: it is gone, and a directory is in the way of a new one.
    let in_the_way = lab.data("h2").join("state.new");
    fs::create_dir(&in_the_way).unwrap();
    fs::remove_file(lab.data("h2").join("state")).unwrap();
    let rest = lab.rest();
    let reason = "the desired state cannot be saved";
    waits(&rest, reason);
    told(&rest, "/hosts", |host| host["name"] == "h2", reason);
    told(&rest, "/vm-instances", |vm| vm["name"] == "late", reason);

    fs::remove_dir(&in_the_way).unwrap();
    lab.settle(&["h1", "h2"]);
    assert_eq!(named(&rest, "/hosts", "h2")["notInEffect"], Value::Null);
    lab.check();
}

/// Waits until the one resource that is meant says so.
fn told(rest: &Rest, path: &str, is_it: impl Fn(&Value) -> bool, reason: &str) {
    let says = || {
        let found = rest.all(path).into_iter().find(&is_it).unwrap();
        found["notInEffect"].as_str().is_some_and(|text| text.contains(reason))
    };
    assert!(wait::holds(LIMIT, says), "{:?}", rest.all(path));
}

/// A new instance on h2 waits, and its job says for what.
fn waits(rest: &Rest, reason: &str) {
    let l3 = named(rest, "/l3-networks", "red-l3")["uuid"].clone();
    let host = named(rest, "/hosts", "h2")["uuid"].clone();
    let params = json!({"params":
        {"name": "late", "l3NetworkUuids": [l3], "hostUuid": host}});
    let made = rest.send("POST", "/vm-instances", &params.to_string()).unwrap();
    assert_eq!(made.status, 202, "{made:?}");
    let location = made.body["location"].as_str().unwrap();
    let job = &location[location.find("/api-jobs").unwrap()..];
    let says = || {
        let polled = rest.send("GET", job, "").unwrap();
        polled.status == 202 && polled.body["waitsFor"].to_string().contains(reason)
    };
    assert!(wait::holds(LIMIT, says), "{:?}", rest.send("GET", job, ""));
}

fn named(rest: &Rest, path: &str, name: &str) -> Value {
    rest.all(path).into_iter().find(|found| found["name"] == name).unwrap()
}
