//! Ports that netloom has not made: a container's veth, a VM's tap. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{net::Ipv4Addr, time::Duration};

use aya::programs::{SchedClassifier, TcAttachType};
use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    frames::{Wire, ethernet, has_got, listener, udp},
    guest::Guest,
    machine::drops,
    rest::{Answer, Rest},
    root_or_skip,
    traffic::{Ping, Traffic, one_packet_passes, ping, transfer},
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
const DEVICE: &str = "vnet0";
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const RED_1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const RED_2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
/// How long something that must not arrive is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// A NIC of the network red, and what is done with it.
struct Nic<'a> {
    lab: &'a TestLab,
    rest: Rest,
    uuid: String,
    mac: String,
}

impl<'a> Nic<'a> {
    fn new(lab: &'a TestLab) -> Self {
        let rest = lab.rest();
        let l3 = rest.uuid("/l3-networks", "red-l3");
        let made = rest.post("/nics", &json!({"l3NetworkUuid": l3, "ip": GUEST}));
        assert_eq!(made.status, 200, "{made:?}");
        let text = |field: &str| made.body["inventory"][field].as_str().unwrap().to_owned();
        Self { lab, rest, uuid: text("uuid"), mac: text("mac") }
    }

    /// Sends a message about it, and waits so many seconds for what becomes of it.
    fn act(&self, seconds: u32, body: &Value) -> Answer {
        let path = format!("/vm-instances/nics/{}/actions", self.uuid);
        let rest = self.rest.clone().with("prefer", &format!("wait={seconds}"));
        rest.send("PUT", &path, &body.to_string()).unwrap()
    }

    fn plug(&self, seconds: u32) -> Answer {
        let host = self.rest.uuid("/hosts", "h1");
        self.act(seconds, &json!({"plugVmNic": {"hostUuid": host, "device": DEVICE}}))
    }

    fn unplug(&self) {
        let done = self.act(30, &json!({"unplugVmNic": {}}));
        assert_eq!(done.status, 200, "{done:?}");
    }

    /// It as the API shows it.
    fn shown(&self) -> Value {
        let found = self.rest.all("/vm-instances/nics");
        found.into_iter().find(|nic| nic["uuid"] == *self.uuid).unwrap()
    }

    /// Waits until the API and `inspect` say this of it.
    fn is_told(&self, what: &str) {
        let told = || self.shown()["notInEffect"].as_str().unwrap_or_default().to_owned();
        assert!(wait::holds(LIMIT, || told().contains(what)), "{what}: {}", self.shown());
        let inspection = self.lab.inspect("h1");
        assert!(inspection["agent"]["notInEffect"].to_string().contains(what), "{inspection:#}");
        assert_eq!(inspection["inEffect"], false, "{inspection:#}");
    }

    /// Gives a guest what the NIC has.
    fn configure(&self, guest: &Guest) {
        guest.configure(&self.mac, "10.0.0.50/24");
    }

    /// Waits until the guest reaches VMs on both hosts and they reach it.
    fn passes(&self, guest: &Guest) {
        self.lab.settle(&HOSTS);
        let (red_1, red_2) = (self.lab.namespace("red-1"), self.lab.namespace("red-2"));
        for (vm, ip) in [(&red_1, RED_1), (&red_2, RED_2)] {
            assert!(
                one_packet_passes(vm, &guest.namespace, GUEST.into()),
                "{ip}: {:#}",
                self.report()
            );
            assert!(
                one_packet_passes(&guest.namespace, vm, ip.into()),
                "{ip}: {:#}",
                self.report()
            );
            assert_eq!(ping(vm, GUEST.into(), 1400), Ping::Answered, "{ip}");
            transfer(vm, &guest.namespace, GUEST.into(), 300_000);
            transfer(&guest.namespace, vm, ip.into(), 300_000);
        }
        assert_eq!(self.shown()["notInEffect"], Value::Null);
        self.lab.digests("h1");
        let inspection = self.lab.inspect("h1");
        assert_eq!(inspection["inEffect"], true, "{inspection:#}");
        let ports = inspection["ports"].as_array().unwrap();
        let line = ports.iter().find(|port| port["device"] == DEVICE).unwrap();
        assert_eq!(line["instance"], Value::Null);
        assert!(line["toPortPackets"].as_u64().unwrap() > 0, "{line:#}");
    }

    /// What a guest sends as somebody else reaches nobody, and is counted.
    fn does_not_spoof(&self, guest: &Guest) {
        let (wire, red_2) = (Wire::open(&guest.namespace), self.lab.namespace("red-2"));
        let heard = listener(&red_2, RED_2, 5001);
        let to = self.mac_of("red-2");
        let from: [u8; 6] = wire.mac;
        wire.send(&ethernet(to, from, 0x0800, &udp(GUEST, RED_2, 5001, b"itself")));
        assert!(wait::holds(LIMIT, || has_got(&heard)), "as itself");
        let count = |reason: &str| drops(&self.lab.data("h1")).get(reason).copied().unwrap_or(0);
        let before = ["spoofed_mac", "spoofed_address"].map(count);
        wire.send(&ethernet(to, [2, 0, 0, 0, 0, 9], 0x0800, &udp(GUEST, RED_2, 5001, b"other")));
        wire.send(&ethernet(to, from, 0x0800, &udp(RED_1, RED_2, 5001, b"red-1")));
        assert!(!wait::holds(PATIENCE, || has_got(&heard)), "as somebody else");
        let now = ["spoofed_mac", "spoofed_address"].map(count);
        assert_eq!(now, before.map(|count| count + 1), "{:?}", drops(&self.lab.data("h1")));
    }

    fn mac_of(&self, vm: &str) -> [u8; 6] {
        let mac = self.lab.named("/vm-instances", vm)["vmNics"][0]["mac"].clone();
        let bytes =
            mac.as_str().unwrap().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
        bytes.collect::<Vec<_>>().try_into().unwrap()
    }

    fn report(&self) -> Value {
        json!({"nic": self.shown(), "host": self.lab.inspect("h1")})
    }
}

/// How many programs a device of h1 has; none if it is not there.
fn programs(h1: &Namespace) -> Option<[usize; 2]> {
    let count = |side| SchedClassifier::query_tcx(DEVICE, side).map(|(_, found)| found.len()).ok();
    h1.run_in(|| Some([count(TcAttachType::Ingress)?, count(TcAttachType::Egress)?])).unwrap()
}

#[test]
fn a_containers_veth_is_a_port_from_when_it_is_there_until_it_is_unplugged() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (nic, h1) = (Nic::new(&lab), lab.namespace("h1"));
    let guest = Guest::new();
    assert_eq!(nic.plug(0).status, 202, "it waits for the device");
    nic.is_told("has no device vnet0");
    guest.cable(&h1, DEVICE);
    nic.configure(&guest);
    lab.settle(&HOSTS);
    assert_eq!(programs(&h1), Some([1, 1]), "guarded while it is down");
    lab.ip("h1", "link set vnet0 up");
    nic.passes(&guest);
    nic.does_not_spoof(&guest);
    let shown = nic.shown();
    assert_eq!((&shown["device"], &shown["driverType"]), (&json!(DEVICE), &json!("external")));

    // An agent that comes and goes changes nothing.
    let traffic = Traffic::start(&lab.namespace("red-2"), &guest.namespace, GUEST.into());
    let before = lab.machine();
    lab.kill(&["h1"]);
    lab.start(&["h1"]);
    lab.settle(&HOSTS);
    let probes = traffic.finish();
    assert_eq!(probes.lost, 0, "of {}", probes.sent);
    assert_eq!(lab.machine(), before);

    // Its owner makes it anew, in two steps.
    lab.ip("h1", "link delete vnet0");
    nic.is_told("has no device vnet0");
    lab.ip("h1", "link add vnet0 mtu 1450 type veth peer name far0 mtu 1450");
    lab.settle(&HOSTS);
    lab.ip("h1", &format!("link set far0 netns {} name eth0", guest.namespace.name()));
    lab.ip("h1", "link set vnet0 up");
    nic.configure(&guest);
    nic.passes(&guest);

    nic.unplug();
    assert_eq!(programs(&h1), Some([0, 0]), "it is its owner's again");
    let red_1 = lab.namespace("red-1");
    assert_eq!(ping(&red_1, GUEST.into(), 100), Ping::Lost);
    assert_eq!(ping(&guest.namespace, RED_1.into(), 100), Ping::Lost);
    lab.settle(&HOSTS);
    assert_eq!(nic.plug(30).status, 200, "and in again");
    nic.passes(&guest);

    // What is unplugged while no agent runs is given back by the next one.
    lab.kill(&["h1"]);
    assert_eq!(nic.act(0, &json!({"unplugVmNic": {}})).status, 202);
    assert_eq!(programs(&h1), Some([1, 1]), "nobody is there to do it");
    lab.start(&["h1"]);
    assert!(wait::holds(LIMIT, || programs(&h1) == Some([0, 0])), "{:#}", nic.report());
    lab.settle(&HOSTS);
    let deleted = nic.rest.delete(&format!("/nics/{}", nic.uuid));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    lab.check();
}

#[test]
fn a_vms_tap_is_a_port_each_time_that_its_hypervisor_makes_it() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (nic, h1) = (Nic::new(&lab), lab.namespace("h1"));
    assert_eq!(nic.plug(0).status, 202, "it waits for the device");
    nic.is_told("has no device vnet0");
    for round in 0..2 {
        let guest = Guest::new();
        let hypervisor = guest.run(&h1, DEVICE);
        nic.configure(&guest);
        nic.passes(&guest);
        nic.does_not_spoof(&guest);
        if round == 0 {
            let traffic = Traffic::start(&lab.namespace("red-1"), &guest.namespace, GUEST.into());
            lab.kill(&["h1"]);
            lab.start(&["h1"]);
            lab.settle(&HOSTS);
            let probes = traffic.finish();
            assert_eq!(probes.lost, 0, "of {}", probes.sent);
            drop(hypervisor);
            nic.is_told("has no device vnet0");
        } else {
            nic.unplug();
            assert_eq!(programs(&h1), Some([0, 0]), "it is its owner's again");
            assert_eq!(ping(&lab.namespace("red-1"), GUEST.into(), 100), Ping::Lost);
        }
    }
    lab.check();
}

#[test]
fn a_device_that_cannot_be_used_is_told_with_its_remedy_and_left_alone() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (nic, h1) = (Nic::new(&lab), lab.namespace("h1"));
    let guest = Guest::new();
    guest.cable(&h1, DEVICE);
    nic.configure(&guest);
    let cases = [
        ("link set vnet0 mtu 1300", "has an MTU of 1300", "link set vnet0 mtu 1450"),
        ("address add 192.0.2.9/32 dev vnet0", "has address 192.0.2.9", "address flush dev vnet0"),
        ("link set vnet0 master br0", "belongs to br0", "link set vnet0 nomaster"),
    ];
    lab.ip("h1", "link add br0 type bridge");
    for (spoil, told, remedy) in cases {
        lab.ip("h1", spoil);
        assert_eq!(nic.plug(0).status, 202, "{spoil}");
        nic.is_told(told);
        assert!(nic.shown()["notInEffect"].to_string().contains(remedy), "{}", nic.shown());
        assert_eq!(programs(&h1), Some([0, 0]), "{spoil}");
        lab.ip("h1", remedy);
        lab.ip("h1", "link set vnet0 up");
        nic.passes(&guest);
        // It is noticed just as well while all works.
        lab.ip("h1", spoil);
        nic.is_told(told);
        lab.ip("h1", remedy);
        nic.passes(&guest);
        nic.unplug();
        lab.settle(&HOSTS);
    }
    // The host's own way to the others.
    let underlay = lab.inspect("h1")["underlay"][0]["device"].as_str().unwrap().to_owned();
    let host = nic.rest.uuid("/hosts", "h1");
    let plug = |device: &str| json!({"plugVmNic": {"hostUuid": host, "device": device}});
    for (device, told) in [(underlay.as_str(), "leads to other hosts"), ("nlvx", "netloom's own")] {
        assert_eq!(nic.act(0, &plug(device)).status, 202);
        nic.is_told(told);
        nic.unplug();
        lab.settle(&HOSTS);
    }
    lab.check();
}
