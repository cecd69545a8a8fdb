//! A host is taken into maintenance: what runs there goes on elsewhere, with its addresses, and a
//! server that dies in between goes on where it was. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use lab::wait;
use netloom_tests::{LIMIT, TestLab, root_or_skip};
use serde_json::{Value, json};

fn query(lab: &TestLab, path: &str, conditions: &[&str]) -> Vec<Value> {
    let conditions: Vec<String> = conditions.iter().map(|text| (*text).to_owned()).collect();
    lab.client().query(path, &conditions).unwrap()
}

fn host(lab: &TestLab, name: &str) -> Value {
    query(lab, "/hosts", &[&format!("name={name}")]).remove(0)
}

fn vms_on(lab: &TestLab, host: &Value) -> Vec<Value> {
    let uuid = host["uuid"].as_str().unwrap();
    query(lab, "/vm-instances", &[&format!("hostUuid={uuid}"), "state=Running"])
}

#[test]
fn a_host_is_emptied_for_maintenance_though_the_server_dies_and_all_reach_whom_they_shall() {
    if !root_or_skip() {
        return;
    }
    // Some of the VMs get their addresses by DHCP: of the host where they are.
    let lab = TestLab::unmade();
    lab.apply();
    lab.check();
    let (h1, h2) = (host(&lab, "h1"), host(&lab, "h2"));
    let all = vms_on(&lab, &h1).len() + vms_on(&lab, &h2).len();
    lab.stop(&["h1"]);
    let uuid = h1["uuid"].as_str().unwrap();
    let maintain = json!({"changeHostState": {"stateEvent": "maintain"}}).to_string();
    let path = format!("/hosts/{uuid}/actions");
    assert!(wait::holds(LIMIT, || host(&lab, "h1")["status"] == "Disconnected"));
    let refused = lab.rest().with("prefer", "wait=30").send("PUT", &path, &maintain).unwrap();
    assert!(refused.body.to_string().contains("is not connected"), "{refused:?}");
    lab.start(&["h1"]);
    lab.settle(&["h1"]);
    let accepted = lab.rest().send("PUT", &path, &maintain).unwrap();
    assert_eq!(accepted.status, 202, "{accepted:?}");
    lab.kill(&["server"]);
    lab.start(&["server"]);
    assert!(wait::holds(LIMIT, || host(&lab, "h1")["state"] == "Maintenance"));
    assert!(wait::holds(LIMIT, || vms_on(&lab, &h2).len() == all));
    assert!(vms_on(&lab, &h1).is_empty());
    lab.settle(&["h1", "h2"]);
    lab.check();
    assert_eq!(lab.inspect("h1")["ports"].as_array().unwrap().len(), 0, "nothing is left there");
}
