//! A VM that routes for others: containers behind it, a VPN, an appliance. What it may speak for
//! reaches other VMs, on its own host and on another one, and nothing else does. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    process::{Child, Command},
};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    machine::{drops, tables},
    rest::{Answer, Rest},
    root_or_skip,
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
const ONE_ECHO: [&str; 5] = ["-n", "-c", "1", "-W", "2"];
/// Nobody has such an address yet.
const NO_DAD: &str = "nodad";

/// The router's address, what is behind it, and an address beside that; in both families.
const V4: [&str; 3] = ["10.0.0.11", "192.168.77.5", "192.168.78.5"];
const V6: [&str; 3] = ["fd00::11", "fd77::5", "fd78::5"];

/// A container in red-1: a namespace that red-1 routes for. It ends with this.
struct Container(Child);

impl Container {
    fn start(lab: &TestLab) -> Self {
        let vm = lab.namespace("red-1");
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let container = Self(vm.run_in(|| command.spawn()).unwrap().unwrap());
        let pid = container.0.id();
        // What it is called tells that it is in its namespace.
        let is_there = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n";
        assert!(wait::holds(LIMIT, is_there));
        lab.ip("red-1", &format!("link add c0 type veth peer name c1 netns {pid}"));
        lab.ip("red-1", "link set c0 up");
        container.ip("link set c1 up");
        for (family, [_, behind, beside], (gateway, bits, all)) in
            [("-4", V4, ("192.168.77.1", 24, 32)), ("-6", V6, ("fd77::1", 64, 128))]
        {
            lab.ip("red-1", &format!("{family} address add {gateway}/{bits} dev c0 {NO_DAD}"));
            container.ip(&format!("{family} address add {behind}/{bits} dev c1 {NO_DAD}"));
            container.ip(&format!("{family} address add {beside}/{all} dev c1 {NO_DAD}"));
            container.ip(&format!("{family} route add default via {gateway}"));
            lab.ip("red-1", &format!("{family} route add {beside}/{all} via {behind}"));
        }
        vm.run_in(|| {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
            }
        })
        .unwrap();
        container
    }

    /// A command in it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), program]);
        command
    }

    fn ip(&self, words: &str) {
        let output = self.command("ip").args(words.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
    }

    /// Whether an echo comes back to an address of its own.
    fn pings(&self, source: &str, to: &str) -> bool {
        let mut command = self.command("ping");
        command.args(ONE_ECHO).args(["-I", source, to]);
        command.output().unwrap().status.success()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether an echo comes back to a VM.
fn pings(lab: &TestLab, from: &str, to: &str) -> bool {
    let mut command = Command::new("ping");
    command.args(ONE_ECHO).arg(to);
    lab.namespace(from).run_in(|| command.output()).unwrap().unwrap().status.success()
}

fn dropped(lab: &TestLab, host: &str, reason: &str) -> u64 {
    drops(&lab.data(host)).get(reason).copied().unwrap_or_default()
}

/// The NIC of a VM.
fn nic(rest: &Rest, vm: &str) -> Value {
    let vm = rest.uuid("/vm-instances", vm);
    let mut nics = rest.all("/vm-instances/nics").into_iter();
    nics.find(|nic| nic["vmInstanceUuid"] == json!(vm)).unwrap()
}

fn set(rest: &Rest, vm: &str, prefixes: &[&str]) -> Answer {
    let uuid = nic(rest, vm)["uuid"].as_str().unwrap().to_owned();
    let path = format!("/vm-instances/nics/{uuid}/actions");
    let body = json!({"setVmNicAllowedPrefixes": {"prefixes": prefixes}}).to_string();
    rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap()
}

/// The other VMs have a route by red-1 to what is in it.
fn route(lab: &TestLab) {
    for (family, [router, behind, beside], bits) in [("-4", V4, 32), ("-6", V6, 128)] {
        for address in [behind, beside] {
            for vm in ["red-2", "red-3"] {
                lab.ip(vm, &format!("{family} route add {address}/{bits} via {router}"));
            }
        }
    }
}

/// A VM reaches what red-1 routes for and is reached from there; nobody hears what is beside it.
fn is_reached(lab: &TestLab, container: &Container, vm: &str, [v4, v6]: [&str; 2]) {
    for ([_, behind, beside], own) in [(V4, v4), (V6, v6)] {
        assert!(pings(lab, vm, behind), "{vm} to {behind}");
        assert!(container.pings(behind, own), "{behind} to {vm}");
        let before = dropped(lab, "h1", "spoofed_address");
        assert!(!container.pings(beside, own), "{beside} to {vm}");
        assert!(dropped(lab, "h1", "spoofed_address") > before, "{beside} is not red-1's");
        let before = dropped(lab, "h1", "foreign_destination");
        assert!(!pings(lab, vm, beside), "{vm} to {beside}");
        assert!(dropped(lab, "h1", "foreign_destination") > before, "{beside} is not red-1's");
    }
}

#[test]
fn a_vm_speaks_for_the_prefixes_that_it_routes_for_and_for_nothing_beside() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let l3 = rest.uuid("/l3-networks", "red-l3");
    let made = rest.create_vm("red-3", (&l3, "h1"), &[]);
    assert_eq!(made.status, 200, "{made:?}");
    let container = Container::start(&lab);
    route(&lab);
    let own = |vm: &str| {
        let ips = nic(&rest, vm)["usedIps"].as_array().unwrap().clone();
        ips.iter().map(|used| used["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (second, third) = (own("red-2"), own("red-3"));
    let [second, third] = [&second, &third].map(|ips| [ips[0].as_str(), ips[1].as_str()]);
    assert!(!pings(&lab, "red-2", V4[1]), "nothing was said of it yet");
    assert!(!container.pings(V4[1], second[0]), "nothing was said of it yet");

    let answer = set(&rest, "red-1", &["192.168.77.0/24", "fd77::/64"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(nic(&rest, "red-1")["allowedPrefixes"], json!(["192.168.77.0/24", "fd77::/64"]));
    // The job waits for the router's own host only.
    lab.settle(&HOSTS);
    is_reached(&lab, &container, "red-2", second);
    is_reached(&lab, &container, "red-3", third);
    for host in HOSTS {
        assert_eq!(tables(&lab.data(host)).behind.len(), 2, "{host}");
    }
    lab.check();

    // An agent that starts anew finds what it left.
    lab.kill(&HOSTS);
    assert!(pings(&lab, "red-2", V4[1]), "no agent is needed for it");
    lab.start(&HOSTS);
    lab.settle(&HOSTS);
    is_reached(&lab, &container, "red-2", second);

    let answer = set(&rest, "red-1", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    lab.settle(&HOSTS);
    let before = dropped(&lab, "h1", "spoofed_address");
    assert!(!container.pings(V4[1], second[0]), "it is red-1's no longer");
    assert!(dropped(&lab, "h1", "spoofed_address") > before);
    let empty = || HOSTS.iter().all(|host| tables(&lab.data(host)).behind.is_empty());
    assert!(wait::holds(LIMIT, empty));
    lab.check();
}
