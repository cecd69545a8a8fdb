//! Which of an instance's networks its default routes go by. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::process::Command;

use lab::wait;
use netloom_tests::{LIMIT, TestLab, rest::Rest, root_or_skip, uuid};
use serde_json::json;

#[test]
fn an_instance_has_one_default_route_for_each_family_by_its_default_network() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let red = rest.all("/l3-networks").into_iter().find(|l3| l3["name"] == "red-l3").unwrap();
    let (red, second) = (red["uuid"].as_str().unwrap().to_owned(), second_network(&rest));
    let vm = uuid();
    let params = json!({"name": "two-nics", "l3NetworkUuids": [red, second], "resourceUuid": vm,
        "defaultL3NetworkUuid": second});
    let made = rest.post("/vm-instances", &params);
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(made.body["inventory"]["defaultL3NetworkUuid"], json!(second));
    let [by_red, by_second] = [
        "default via 10.0.0.1 dev eth0; default via fd00::1 dev eth0",
        "default via 10.7.0.1 dev eth1; default via fd07::1 dev eth1",
    ];
    assert_eq!(default_routes(&lab), by_second);

    let params = json!({"updateVmInstance": {"defaultL3NetworkUuid": red}}).to_string();
    let path = format!("/vm-instances/{vm}/actions");
    let changed = rest.with("prefer", "wait=30").send("PUT", &path, &params).unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
    let follows = wait::holds(LIMIT, || default_routes(&lab) == by_red);
    assert!(follows, "{}", default_routes(&lab));
    lab.check();
}

/// An L3 network with both families, on an L2 network of its own.
fn second_network(rest: &Rest) -> String {
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let (l2, l3) = (uuid(), uuid());
    let calls = [
        (
            "/l2-networks/vxlan".to_owned(),
            json!({"name": "second", "poolUuid": pool, "resourceUuid": l2}),
        ),
        (
            "/l3-networks".to_owned(),
            json!({"name": "second", "l2NetworkUuid": l2, "resourceUuid": l3}),
        ),
        (
            format!("/l3-networks/{l3}/ip-ranges"),
            json!({"name": "v4", "startIp": "10.7.0.10", "endIp": "10.7.0.20",
                "netmask": "255.255.255.0", "gateway": "10.7.0.1"}),
        ),
        (
            format!("/l3-networks/{l3}/ipv6-ranges"),
            json!({"name": "v6", "startIp": "fd07::10", "endIp": "fd07::20",
                "gateway": "fd07::1", "prefixLen": 64, "addressMode": "Stateful-DHCP"}),
        ),
    ];
    for (path, params) in calls {
        let answer = rest.post(&path, &params);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    l3
}

/// The gateways and devices of all default routes of the instance, IPv4 first.
fn default_routes(lab: &TestLab) -> String {
    let namespace = lab.namespace("two-nics");
    let list = |family: &str| {
        let mut command = Command::new("ip");
        command.args([family, "route", "show", "default"]);
        let output = namespace.run_in(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let words = |line: &str| line.split(' ').take(5).collect::<Vec<_>>().join(" ");
    let lines = ["-4", "-6"].map(list).concat();
    lines.lines().map(words).collect::<Vec<_>>().join("; ")
}
