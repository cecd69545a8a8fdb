//! A VM comes, and goes; its address rests until every host has let go of it. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::net::IpAddr;

use hostnet::scratch::Scratch;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, root_or_skip, traffic::one_packet_passes, uuid};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];

#[test]
fn the_first_packet_passes_as_soon_as_the_job_says_so() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    for host in HOSTS {
        let name = format!("red-on-{host}");
        let (vm, ip) = create(&lab, &name, host);
        let (old, new) = (lab.namespace("red-1"), lab.namespace(&name));
        assert!(one_packet_passes(&new, &old, [10, 0, 0, 11].into()), "from {name}");
        assert!(one_packet_passes(&old, &new, ip), "to {name}");
        let answer = rest.clone().with("prefer", "wait=30");
        let answer = answer.send("DELETE", &format!("/vm-instances/{vm}"), "").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let is_gone = lab::namespace(lab.name(), lab.root(), &name).is_err();
        assert!(is_gone, "{name} goes with its job");
    }
    lab.check();
}

#[test]
fn an_address_rests_until_every_host_has_let_go_of_it() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (vm, ip) = create(&lab, "red-3", "h1");
    let l3 = network(&lab);
    let take = || rest.post("/nics", &json!({"l3NetworkUuid": l3, "ip": ip}));
    assert_eq!(take().code(), "L3.1000", "in use");

    // h2 knows where red-3 is, and cannot be told that it is gone.
    lab.kill(&["h2"]);
    let patient = rest.clone().with("prefer", "wait=30");
    let answer = patient.send("DELETE", &format!("/vm-instances/{vm}"), "").unwrap();
    assert_eq!(answer.status, 200, "a host that is away blocks nobody: {answer:?}");
    assert_eq!(take().code(), "L3.1000", "h2 still holds it");

    lab.start(&["h2"]);
    lab.settle(&HOSTS);
    assert!(wait::holds(LIMIT, || take().status == 200), "{:?}", take());
    lab.check();
}

/// A guest with all rights in its namespace can move its NIC where nobody finds it.
#[test]
fn a_vm_that_hides_its_nic_loses_it_and_gets_a_new_one() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let before = lab.machine().links.len();
    let nested = Scratch::new("nested").unwrap();
    let script = format!("ip link set eth0 netns {0} && ip -n {0} link set eth0 up", nested.name());
    let hide = ["sh", "-c", &script].map(str::to_owned);
    assert_eq!(lab::exec(lab.name(), lab.root(), "red-1", &hide).unwrap(), 0);
    lab.stop(&["h1"]);
    lab.start(&["h1"]);
    lab.settle(&HOSTS);
    lab.check();
    assert_eq!(lab.machine().links.len(), before, "each port has its two programs, and no more");
    assert_eq!(lab.inspect("h1")["asDesired"], true);
}

/// Makes a VM of tenant red, and gives its uuid and address.
fn create(lab: &TestLab, name: &str, host: &str) -> (String, IpAddr) {
    let (rest, vm) = (lab.rest(), uuid());
    let hosts = rest.all("/hosts");
    let host = hosts.iter().find(|found| found["name"] == host).unwrap();
    let params = json!({"name": name, "l3NetworkUuids": [network(lab)],
        "hostUuid": host["uuid"], "resourceUuid": vm});
    let answer = rest.post("/vm-instances", &params);
    assert_eq!(answer.status, 200, "{answer:?}");
    let ip = answer.body["inventory"]["vmNics"][0]["ip"].as_str().unwrap();
    (vm, ip.parse().unwrap())
}

fn network(lab: &TestLab) -> String {
    let networks = lab.rest().all("/l3-networks");
    let red = networks.iter().find(|network| network["name"] == "red-l3").unwrap();
    red["uuid"].as_str().unwrap().to_owned()
}
