//! A host that has lost what it had: after a reboot, or to somebody else's devices. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, root_or_skip};
use nix::mount::{MntFlags, umount2};
use serde_json::Value;

const HOSTS: [&str; 2] = ["h1", "h2"];

/// F21: the host reboots while the server is down; what it was told is on its disk.
#[test]
fn a_host_that_reboots_brings_its_networks_back_without_the_server() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.kill(&["server", "h2"]);
    let prefix = format!("nl-{}-h2-", lab.name());
    let namespaces = Namespace::list(&prefix).unwrap();
    assert!(namespaces.len() >= 2, "{namespaces:?}");
    for device in devices(&lab, "h2") {
        lab.ip("h2", &format!("link delete {device}"));
    }
    for namespace in namespaces {
        Namespace::remove(&namespace).unwrap();
    }
    umount2(&lab.data("h2").join("bpf"), MntFlags::MNT_DETACH).unwrap();
    assert!(!reaches(&lab));

    lab.start(&["h2"]);
    assert!(wait::holds(LIMIT, || reaches(&lab)), "no server, no networks");
    lab.check();
    lab.start(&["server"]);
    lab.settle(&HOSTS);
}

/// While the agent is away a port's device goes, and somebody else's gets its index, on one host
/// with a name of its own, on the other with the port's.
#[test]
fn a_device_that_has_a_ports_index_is_left_alone_and_gets_no_packets() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.kill(&HOSTS);
    let [(index, name), (other_index, other_name)] =
        [("h1", "red-1"), ("h2", "red-2")].map(|(host, vm)| port(&lab, host, vm));
    lab.ip("h1", &format!("link delete {name}"));
    lab.ip("h1", &format!("link add other0 index {index} type veth peer name other1"));
    lab.ip("h1", "link set other0 up");
    lab.ip("h1", "link set other1 up");
    lab.ip("h2", &format!("link delete {other_name}"));
    lab.ip("h2", &format!("link add {other_name} index {other_index} type bridge"));
    lab.ip("h2", &format!("link set {other_name} up"));

    lab.start(&HOSTS);
    lab.settle(&["h1"]);
    let (now, _) = port(&lab, "h1", "red-1");
    assert_ne!(now, index, "the port has a device of its own");
    assert!(devices(&lab, "h1").iter().any(|device| device == "other0"), "that one stays");
    // What h2 cannot make it tells, and no packet goes to the device that has the name.
    let rest = lab.rest();
    let vm = rest.uuid("/vm-instances", "red-2");
    let told = || {
        let nics = rest.all("/vm-instances/nics").into_iter();
        nics.filter(|nic| nic["vmInstanceUuid"] == vm.as_str())
            .map(|nic| nic["notInEffect"].to_string())
            .collect::<String>()
    };
    let vm_told = || rest.named("/vm-instances", "red-2")["notInEffect"].to_string();
    let is_told = || [told(), vm_told()].concat().contains(&other_name);
    assert!(wait::holds(LIMIT, is_told), "{} {}", told(), vm_told());
    let ports = lab.inspect("h2")["ports"].clone();
    assert!(ports.as_array().unwrap().iter().all(|port| port["ifindex"] != other_index), "{ports}");

    lab.ip("h2", &format!("link delete {other_name}"));
    lab.settle(&HOSTS);
    lab.check();
    assert_eq!(HOSTS.map(|host| lab.inspect(host)["asDesired"].clone()), [true, true]);
}

/// Whether all VMs reach those that they should, and no others.
fn reaches(lab: &TestLab) -> bool {
    lab::check(lab.name(), lab.root()).is_ok_and(|report| report.is_as_expected())
}

/// The index and the name of the host's end of a VM's only NIC.
fn port(lab: &TestLab, host: &str, vm: &str) -> (u64, String) {
    let inspection = lab.inspect(host);
    let ports = inspection["ports"].as_array().unwrap().iter();
    let found: Vec<&Value> = ports.filter(|port| port["instance"] == vm).collect();
    let index = found[0]["ifindex"].as_u64().unwrap();
    let machine = lab.machine();
    let devices = &machine.devices[&format!("nl-{}-{host}", lab.name())];
    let device = devices.iter().find(|device| u64::from(device.index) == index).unwrap();
    (index, device.name.clone())
}

/// The devices of a host that a reboot takes away.
fn devices(lab: &TestLab, host: &str) -> Vec<String> {
    let machine = lab.machine();
    let devices = machine.devices[&format!("nl-{}-{host}", lab.name())].iter();
    let names = devices.map(|device| device.name.clone());
    names.filter(|name| name != "lo" && name != "eth0").collect()
}
