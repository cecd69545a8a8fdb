//! Machines behind VTEPs that are no host's: gateways with Linux' own `vxlan` device. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{collections::BTreeSet, net::IpAddr, process::Command};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    ends::End,
    guest::{Guest, ip},
    machine::drops,
    root_or_skip,
    traffic::{Ping, Traffic, ping, transfer},
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// The VTEPs of the lab's hosts.
const OWN: [&str; 2] = ["172.31.255.11", "172.31.255.12"];
/// Those of the gateways.
const FOREIGN: [&str; 2] = ["172.31.255.201", "172.31.255.202"];
const VMS: [[&str; 2]; 2] = [["10.7.0.11", "fd07::11"], ["10.7.0.12", "fd07::12"]];
const MACHINES: [[&str; 2]; 2] = [["10.7.0.201", "fd07::201"], ["10.7.0.202", "fd07::202"]];

const NOBODY: [&str; 0] = [];

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A gateway on the wire, which is itself the machine behind it.
fn gateway(fabric: &Namespace, at: usize, vni: u64) -> Guest {
    let (guest, device) = (Guest::new(), format!("gw{at}"));
    let name = guest.namespace.name();
    ip(
        fabric,
        &format!("link add {device} mtu 1600 type veth peer name eth0 mtu 1600 netns {name}"),
    );
    ip(fabric, &format!("link set {device} master br0 up"));
    let vtep = FOREIGN[at];
    guest.ip(&format!("address add {vtep}/24 dev eth0"));
    guest.ip("link set eth0 up");
    guest.ip(&format!("link add vx type vxlan id {vni} local {vtep} dstport 8472 dev eth0"));
    guest.ip("link set vx mtu 1450");
    for address in MACHINES[at] {
        let (bits, dad) = if addr(address).is_ipv4() { (24, "") } else { (64, " nodad") };
        guest.ip(&format!("address add {address}/{bits} dev vx{dad}"));
    }
    guest.ip("link set vx up");
    for own in OWN {
        let mut bridge = Command::new("bridge");
        bridge.args(["fdb", "append", "00:00:00:00:00:00", "dev", "vx", "dst", own]);
        assert!(guest.namespace.run_in(|| bridge.status()).unwrap().unwrap().success());
    }
    guest
}

/// Where a host has heard of strangers: the VTEPs.
fn strangers(lab: &TestLab, host: &str) -> BTreeSet<String> {
    let seen = lab.inspect(host);
    let lines = seen["strangers"].as_array().unwrap().iter();
    lines.map(|line: &Value| line["vtep"].as_str().unwrap().to_owned()).collect()
}

/// What one VM, or one machine, says to all or to a group reaches those who are to hear it.
fn all_hear([vm_0, vm_1, machine_0, machine_1]: &[End; 4]) {
    for to_all in ["10.7.0.255", "224.0.0.77", "ff02::4d"].map(addr) {
        assert_eq!(vm_0.not_heard_by(&[vm_1, machine_0, machine_1], to_all), NOBODY, "{to_all}");
        assert_eq!(machine_0.not_heard_by(&[vm_0, vm_1], to_all), NOBODY, "{to_all}");
    }
}

#[test]
fn machines_behind_foreign_vteps_are_in_the_network_and_play_nobody_else() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let [pool, cluster] = [("/l2-networks/vxlan-pool", "pool"), ("/clusters", "cluster")]
        .map(|(path, name)| rest.uuid(path, name));
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "mixed", "poolUuid": pool}));
    let l3 = rest.made("/l3-networks", &json!({"name": "mixed", "l2NetworkUuid": l2}));
    let v4 = json!({"name": "v4", "startIp": "10.7.0.10", "endIp": "10.7.0.99",
        "netmask": "255.255.255.0", "gateway": "10.7.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &v4);
    let v6 = json!({"name": "v6", "startIp": "fd07::10", "endIp": "fd07::99", "gateway": "fd07::1",
        "prefixLen": 64, "addressMode": "Stateful-DHCP"});
    rest.made(&format!("/l3-networks/{l3}/ipv6-ranges"), &v6);
    for (at, host) in HOSTS.into_iter().enumerate() {
        let made = rest.create_vm(&format!("mixed-{at}"), (&l3, host), &VMS[at].map(addr));
        assert_eq!(made.status, 200, "{made:?}");
    }
    let vms = [lab.namespace("mixed-0"), lab.namespace("mixed-1")];
    let vni = rest.named("/l2-networks/vxlan", "mixed")["vni"].as_u64().unwrap();
    let fabric = lab.namespace("fabric");
    let gateways = [0, 1].map(|at| gateway(&fabric, at, vni));
    let machines = [0, 1].map(|at| &gateways[at].namespace);
    // As long as nobody has told of them, they are nobody.
    assert_eq!(ping(machines[0], addr(VMS[0][0]), 56), Ping::Lost);
    let between = Traffic::start(&vms[0], &vms[1], addr(VMS[1][0]));

    let path = format!("/l2-networks/{pool}/clusters/{cluster}/remote-vtep-ip");
    for vtep in FOREIGN {
        rest.post(&path, &json!({"remoteVtepIp": vtep}));
    }
    lab.settle(&HOSTS);
    let ends = [&vms[0], &vms[1], machines[0], machines[1]];
    let addresses = [VMS[0], VMS[1], MACHINES[0], MACHINES[1]];
    for (from, to) in [(0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1), (0, 1)] {
        for address in addresses[to] {
            for bytes in [56, 1400] {
                let answer = ping(ends[from], addr(address), bytes);
                assert_eq!(answer, Ping::Answered, "{from} to {address}, {bytes} bytes");
            }
            transfer(ends[from], ends[to], addr(address), 4 << 20);
        }
    }
    for host in HOSTS {
        assert_eq!(strangers(&lab, host), FOREIGN.map(str::to_owned).into(), "{host}");
    }
    all_hear(&[0, 1, 2, 3].map(|at| End {
        name: ["vm 0", "vm 1", "machine 0", "machine 1"][at],
        namespace: Namespace::open(ends[at].name()).unwrap(),
        device: if at < 2 { "eth0" } else { "vx" },
        v4: addresses[at][0].parse().unwrap(),
        v6: addresses[at][1].parse().unwrap(),
    }));

    // A gateway plays a VM: the other VM neither hears it nor is misled by its ARP.
    let refused = || drops(&lab.data("h1")).get("foreign_source").copied().unwrap_or_default();
    let before = refused();
    gateways[0].ip(&format!("address add {}/24 dev vx", VMS[1][0]));
    let mut stolen = Command::new("ping");
    stolen.args(["-q", "-c", "2", "-i", "0.2", "-W", "1", "-I", VMS[1][0], VMS[0][0]]);
    let answered = machines[0].run_in(|| stolen.status()).unwrap().unwrap();
    assert!(!answered.success(), "a gateway spoke as a VM");
    assert!(wait::holds(LIMIT, || refused() > before));
    assert_eq!(ping(&vms[0], addr(VMS[1][0]), 56), Ping::Answered);
    gateways[0].ip(&format!("address del {}/24 dev vx", VMS[1][0]));

    // Out of the pool, out of the network.
    let path = format!("/l2-networks/{pool}/clusters/{cluster}/delete/remote-vtep-ip");
    rest.delete(&format!("{path}?remoteVtepIp={}", FOREIGN[0]));
    lab.settle(&HOSTS);
    assert_eq!(ping(machines[0], addr(VMS[0][0]), 56), Ping::Lost);
    assert_eq!(ping(machines[1], addr(VMS[0][0]), 56), Ping::Answered);
    let probes = between.finish();
    assert_eq!(probes.lost, 0, "between the VMs nothing was lost");
    lab.check();
}
