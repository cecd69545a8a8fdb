//! The UDP port of VXLAN, which all hosts and all foreign VTEPs have alike. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::process::Command;

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    guest::{Guest, ip},
    networks::l3,
    rest::Rest,
    root_or_skip,
    traffic::{Ping, ping, transfer},
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
const FOREIGN: &str = "172.31.255.201";

/// Changes the setting, and waits until hosts have it.
fn set(lab: &TestLab, rest: &Rest, port: u16) {
    let body = json!({"updateGlobalConfig": {"value": port.to_string()}}).to_string();
    let path = "/global-configurations/vxlan/port/actions";
    let answer = rest.clone().with("prefer", "wait=30").send("PUT", path, &body).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let vteps = rest.all("/l2-networks/vteps");
    assert!(!vteps.is_empty() && vteps.iter().all(|vtep| vtep["port"] == port), "{vteps:?}");
    let has = |host: &str| {
        let list = || Command::new("ip").args(["-d", "link", "show", "nlvx"]).output();
        let output = lab.namespace(host).run_in(list).unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&format!("dstport {port} "))
    };
    assert!(wait::holds(LIMIT, || HOSTS.iter().all(|host| has(host))), "{port}");
    lab.settle(&HOSTS);
}

#[test]
fn hosts_and_foreign_vteps_meet_at_the_port_that_is_set() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    lab.check();
    set(&lab, &rest, 4789);
    lab.check();
    // An agent that comes back finds all as it is, and what leaves past the device is right at once.
    lab.kill(&HOSTS);
    lab.check();
    lab.start(&HOSTS);
    lab.settle(&HOSTS);
    lab.check();

    let [pool, cluster] = [("/l2-networks/vxlan-pool", "pool"), ("/clusters", "cluster")]
        .map(|(path, name)| rest.uuid(path, name));
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "mixed", "poolUuid": pool}));
    let vni = rest.named("/l2-networks/vxlan", "mixed")["vni"].as_u64().unwrap();
    let l3 = l3(&rest, "mixed", &l2, 7);
    for (at, host) in HOSTS.into_iter().enumerate() {
        let addresses = [format!("10.7.0.1{at}"), format!("fd07::1{at}")];
        let made = rest.create_vm(
            &format!("mixed-{at}"),
            (&l3, host),
            &addresses.map(|text| text.parse().unwrap()),
        );
        assert_eq!(made.status, 200, "{made:?}");
    }
    let path = format!("/l2-networks/{pool}/clusters/{cluster}/remote-vtep-ip");
    rest.post(&path, &json!({"remoteVtepIp": FOREIGN}));
    lab.settle(&HOSTS);
    let gateway = gateway(&lab, vni, 4789);
    for at in [0, 1] {
        let vm = lab.namespace(&format!("mixed-{at}"));
        assert_eq!(ping(&vm, "10.7.0.201".parse().unwrap(), 1400), Ping::Answered);
        transfer(&vm, &gateway.namespace, "10.7.0.201".parse().unwrap(), 1 << 20);
        let own = format!("10.7.0.1{at}").parse().unwrap();
        transfer(&gateway.namespace, &vm, own, 1 << 20);
    }
    set(&lab, &rest, 8472);
    lab.check();
    let vm = lab.namespace("mixed-0");
    assert_eq!(ping(&vm, "10.7.0.201".parse().unwrap(), 56), Ping::Lost, "it is at another port");
    let remote = rest.all("/l2-networks/remote-vteps");
    assert!(remote.iter().all(|vtep| vtep["port"] == 8472), "{remote:?}");
}

/// A machine with Linux' own `vxlan` device on the underlay.
fn gateway(lab: &TestLab, vni: u64, port: u16) -> Guest {
    let (guest, fabric) = (Guest::new(), lab.namespace("fabric"));
    let name = guest.namespace.name();
    ip(&fabric, &format!("link add gw0 mtu 1600 type veth peer name eth0 mtu 1600 netns {name}"));
    ip(&fabric, "link set gw0 master br0 up");
    guest.ip(&format!("address add {FOREIGN}/24 dev eth0"));
    guest.ip("link set eth0 up");
    let vx = format!("link add vx type vxlan id {vni} local {FOREIGN} dstport {port} dev eth0");
    guest.ip(&vx);
    guest.ip("link set vx mtu 1450");
    guest.ip("address add 10.7.0.201/24 dev vx");
    guest.ip("link set vx up");
    for own in ["172.31.255.11", "172.31.255.12"] {
        let mut bridge = Command::new("bridge");
        bridge.args(["fdb", "append", "00:00:00:00:00:00", "dev", "vx", "dst", own]);
        assert!(guest.namespace.run_in(|| bridge.status()).unwrap().unwrap().success());
    }
    guest
}
