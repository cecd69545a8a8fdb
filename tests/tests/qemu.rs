//! Instances of driver qemu: a real kernel behind a tap, with all that it leaves to be filled in and
//! segmented. Needs root, and QEMU. By TCG, so that it is the same on every machine.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{fs, net::IpAddr};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    machine::leftovers,
    root_or_skip,
    traffic::{Ping, ping},
    vm::{Console, Flow, Machine, connect, exchange, image_of, install_guest},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
const RED: [(&str, &str); 2] = [("red-1", "10.0.0.11"), ("red-2", "10.0.0.12")];
const IN_VLAN: [(&str, &str, &str); 2] = [("one", "h1", "10.9.0.11"), ("two", "h2", "10.9.0.12")];
/// So many bytes go to the guest and come back.
const BULK: usize = 32 << 20;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Guest and peer reach each other, with large pings and much TCP.
fn passes(console: &mut Console, guest: IpAddr, (peer, peer_ip): (&Namespace, IpAddr)) {
    assert_eq!(ping(peer, guest, 1400), Ping::Answered, "{peer_ip} pings {guest}");
    console.run(&format!("ping -c 1 -W 5 -s 1400 {peer_ip}"));
    exchange(console, (guest, peer_ip), peer, BULK);
}

/// What of a machine is left on its host.
fn left_of(lab: &TestLab, vm: &Machine<'_>) -> Vec<String> {
    let host = lab.data("h1").join("vm");
    let mut left: Vec<String> = fs::read_dir(host)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains(&vm.uuid))
        .collect();
    let devices = lab.machine().devices;
    let taps = devices.values().flatten().filter(|link| link.kind.to_string() == "kind tun");
    left.extend(taps.map(|link| link.name.clone()));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&vm.uuid) {
            left.push(process.path().display().to_string());
        }
    }
    left
}

/// A network in VLAN 100 of the hosts' only NIC, with a VM on each host; its L3 network.
fn vlan(lab: &TestLab) -> String {
    let rest = lab.rest();
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let l2 = json!({"name": "v", "zoneUuid": zone, "physicalInterface": "eth0", "vlan": 100});
    let l2 = rest.made("/l2-networks/vlan", &l2);
    rest.post(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
    let l3 = rest.made("/l3-networks", &json!({"name": "v", "l2NetworkUuid": l2}));
    let range = json!({"name": "v4", "startIp": "10.9.0.10", "endIp": "10.9.0.20",
        "netmask": "255.255.255.0", "gateway": "10.9.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    for (name, host, address) in IN_VLAN {
        let made = rest.create_vm(name, (&l3, host), &[ip(address)]);
        assert_eq!(made.status, 200, "{made:?}");
    }
    l3
}

#[test]
fn a_machine_reaches_others_through_all_that_happens_to_its_agent_and_to_itself() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = lab.rest().uuid("/l3-networks", "red-l3");
    let vm = Machine::create(&lab, "machine", &l3, "h1");
    let (guest, _) = vm.nic();
    let mut console = vm.configured(24);
    for (name, peer) in RED {
        passes(&mut console, guest, (&lab.namespace(name), ip(peer)));
    }

    // A second NIC comes while it runs, in a VLAN of the hosts' only NIC.
    let vlan = vlan(&lab);
    let attach = format!("/vm-instances/{}/l3-networks/{vlan}", vm.uuid);
    let attached = lab.rest().post(&attach, &json!({}));
    assert_eq!(attached.status, 200, "{attached:?}");
    let nic = attached.body["inventory"]["vmNics"][1].clone();
    let second = ip(nic["ip"].as_str().unwrap());
    assert_eq!(nic["driverType"], "virtio");
    let up = format!("ip address add {second}/24 dev eth1 && ip link set eth1 up");
    console.wait_for("ip link show dev eth1");
    console.run(&up);
    console.run(&format!("ping -c 1 -W 5 -s 1400 {}", IN_VLAN[0].2));
    passes(&mut console, second, (&lab.namespace("two"), ip(IN_VLAN[1].2)));
    let detached =
        lab.rest().delete(&format!("/vm-instances/nics/{}", nic["uuid"].as_str().unwrap()));
    assert_eq!(detached.status, 200, "{detached:?}");
    assert_eq!(ping(&lab.namespace("two"), second, 56), Ping::Lost);

    // Its agent is killed while it works, and the next one takes it over as it is.
    console.run("nc -l -p 7001 -e cat >/dev/null 2>&1 </dev/null &");
    let flow = Flow::start(connect(&lab.namespace("red-2"), (guest, 7001)));
    let (pid, before) = (vm.pid(), lab.machine());
    lab.kill(&["h1"]);
    flow.goes_on();
    lab.start(&["h1"]);
    lab.settle(&HOSTS);
    flow.goes_on();
    flow.finish();
    assert_eq!((vm.pid(), lab.machine()), (pid, before));
    assert_eq!(vm.shown()["state"], "Running");

    // It stands still, and goes on.
    let act = |action: &str| {
        let path = format!("/vm-instances/{}/actions", vm.uuid);
        let rest = lab.rest().with("prefer", "wait=30");
        let done = rest.send("PUT", &path, &json!({action: {}}).to_string()).unwrap();
        assert_eq!(done.status, 200, "{done:?}");
    };
    let red_1 = lab.namespace("red-1");
    act("pauseVmInstance");
    assert_eq!(vm.shown()["state"], "Paused");
    assert_eq!(ping(&red_1, guest, 56), Ping::Lost);
    act("resumeVmInstance");
    assert_eq!(ping(&red_1, guest, 56), Ping::Answered);
    vm.settle();

    // Its QEMU is killed: that is told, and it starts anew.
    kill(Pid::from_raw(pid.unwrap()), Signal::SIGKILL).unwrap();
    let told = || vm.shown()["notInEffect"].as_str().unwrap_or_default().to_owned();
    assert!(wait::holds(LIMIT, || vm.pid().is_some_and(|now| Some(now) != pid)), "{}", told());
    vm.settle();
    let mut console = vm.configured(24);
    console.run("ping -c 1 -W 5 10.0.0.12");
    assert_eq!(ping(&red_1, guest, 56), Ping::Answered);
    lab.digests("h1");

    // It ends, and with it all that it had.
    let deleted = lab.rest().delete(&format!("/vm-instances/{}", vm.uuid));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert!(wait::holds(LIMIT, || left_of(&lab, &vm).is_empty()), "{:?}", left_of(&lab, &vm));
    lab.check();
    let again = Machine::create(&lab, "again", &l3, "h1");
    let running = again.pid().unwrap();
    lab.down();
    assert_eq!(leftovers(lab.name(), lab.root()), Vec::<String>::new());
    // One that has ended has no arguments, also when nobody has waited for it yet.
    let words = fs::read(format!("/proc/{running}/cmdline")).unwrap_or_default();
    assert!(words.is_empty(), "it outlives its lab: {}", String::from_utf8_lossy(&words));
}

/// What comes out of GRE in one piece is cut for the machine's tap.
#[test]
fn a_machine_in_gre_reaches_others() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::in_gre();
    let l3 = lab.rest().uuid("/l3-networks", "red-l3");
    let vm = Machine::create(&lab, "machine", &l3, "h1");
    let (guest, _) = vm.nic();
    let mut console = vm.configured(24);
    for (name, peer) in RED {
        passes(&mut console, guest, (&lab.namespace(name), ip(peer)));
    }
    lab.check();
}

#[test]
fn a_machine_that_cannot_start_is_told_with_its_remedy_and_leaves_nothing() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = lab.rest().uuid("/l3-networks", "red-l3");
    let image = image_of(&lab, "guest");
    let vm = Machine::create_of(&lab, "machine", (&l3, "h1"), &image);
    let told = || vm.shown()["notInEffect"].as_str().unwrap_or_default().to_owned();
    let missing = lab.data("h1").join("images/guest/vmlinuz").display().to_string();
    assert!(wait::holds(LIMIT, || told().contains(&missing)), "{}", told());
    assert!(told().contains("put it there"), "{}", told());
    assert_eq!(vm.shown()["state"], "Starting");
    // The job says the same once its time is over.
    let rest = lab.rest().with("prefer", "wait=30").with("x-api-timeout", "1");
    let path = format!("/vm-instances/{}/actions", vm.uuid);
    let body = json!({"rebootVmInstance": {}}).to_string();
    let failed = rest.send("PUT", &path, &body).unwrap();
    assert!(failed.body["error"].to_string().contains(&missing), "{failed:?}");

    // What QEMU itself refuses is told in its words.
    let images = lab.data("h1").join("images");
    fs::create_dir_all(images.join("guest")).unwrap();
    for file in ["vmlinuz", "initrd"] {
        fs::write(images.join("guest").join(file), "no kernel").unwrap();
    }
    assert!(wait::holds(LIMIT, || told().contains("does not start")), "{}", told());
    assert!(told().contains("kernel"), "{}", told());
    assert!(left_of(&lab, &vm).is_empty(), "{:?}", left_of(&lab, &vm));

    // With what it needs, it starts by itself.
    install_guest(&lab, "h1");
    assert!(wait::holds(LIMIT, || vm.pid().is_some()), "{}", told());
    vm.settle();
    let mut console = vm.configured(24);
    console.run("ping -c 1 -W 5 10.0.0.12");
    let deleted = lab.rest().delete(&format!("/vm-instances/{}", vm.uuid));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert!(wait::holds(LIMIT, || left_of(&lab, &vm).is_empty()), "{:?}", left_of(&lab, &vm));
}
