//! Physical networks: VMs, hosts and machines that netloom does not manage, on one wire. Needs root.
//!
//! The wire is the bridge that joins the lab's hosts; it passes tagged frames as they are. Each
//! host has one NIC there, which also carries its tunnels and its agent's connection.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    frames::{Wire, ethernet, udp},
    guest::Guest,
    rest::Rest,
    root_or_skip,
    traffic::{Ping, Traffic, ping, transfer},
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
/// The bridge's own address: a machine on the wire.
const MACHINE: [&str; 2] = ["172.31.255.1", "fd31::1"];
const HOST_1: &str = "172.31.255.11";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A physical network in all hosts, by an interface and in a VLAN of it, with addresses; its L3 network.
fn network(
    rest: &Rest,
    name: &str,
    (interface, vlan): (&str, Option<u16>),
    v4: [&str; 4],
    v6: [&str; 3],
) -> String {
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let (path, mut body) = (
        "/l2-networks/no-vlan",
        json!({"name": name, "zoneUuid": zone, "physicalInterface": interface}),
    );
    let path = match vlan {
        None => path,
        Some(vlan) => {
            body["vlan"] = vlan.into();
            "/l2-networks/vlan"
        }
    };
    let l2 = rest.made(path, &body);
    rest.post(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
    let l3 = rest.made("/l3-networks", &json!({"name": name, "l2NetworkUuid": l2}));
    let [start, end, netmask, gateway] = v4;
    let range = json!({"name": "v4", "startIp": start, "endIp": end, "netmask": netmask,
        "gateway": gateway});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    let [start, end, gateway] = v6;
    let range = json!({"name": "v6", "startIp": start, "endIp": end, "gateway": gateway,
        "prefixLen": 64, "addressMode": "Stateful-DHCP"});
    rest.made(&format!("/l3-networks/{l3}/ipv6-ranges"), &range);
    l3
}

fn vm(lab: &TestLab, name: &str, at: (&str, &str), addresses: &[&str]) -> Namespace {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    let made = lab.rest().create_vm(name, at, &addresses);
    assert_eq!(made.status, 200, "{made:?}");
    lab.namespace(name)
}

/// Whether a broadcast of one reaches the others.
fn broadcast(from: &Namespace, to: &[&Namespace], address: &str) {
    let sockets: Vec<UdpSocket> = to
        .iter()
        .map(|to| {
            let socket = to.run_in(|| UdpSocket::bind("0.0.0.0:9999").unwrap()).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket
        })
        .collect();
    let sender = from.run_in(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"to all", (address, 9999)).unwrap();
    for (at, socket) in sockets.iter().enumerate() {
        let mut buffer = [0; 16];
        let received = socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(&buffer[..received.0], b"to all", "{at}");
    }
}

/// A public network on the hosts' only NIC, which is the underlay, too.
#[test]
fn vms_hosts_and_machines_are_on_one_wire_and_the_host_does_not_notice() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let [fabric, h1, h2] = ["fabric", "h1", "h2"].map(|node| lab.namespace(node));
    lab.ip("fabric", "address add fd31::1/64 dev br0 nodad");
    // As an operator's session to the host: through attach, work and detach.
    let session = Traffic::start(&fabric, &h1, ip(HOST_1));

    let v4 = ["172.31.255.100", "172.31.255.120", "255.255.255.0", "172.31.255.1"];
    let l3 = network(&rest, "public", ("eth0", None), v4, ["fd31::100", "fd31::120", "fd31::1"]);
    let one = vm(&lab, "one", (&l3, "h1"), &["172.31.255.101", "fd31::101"]);
    let two = vm(&lab, "two", (&l3, "h2"), &["172.31.255.102", "fd31::102"]);
    let three = vm(&lab, "three", (&l3, "h1"), &["172.31.255.103", "fd31::103"]);
    lab.settle(&HOSTS);

    let ends = [
        ("one", &one, ["172.31.255.101", "fd31::101"]),
        ("two", &two, ["172.31.255.102", "fd31::102"]),
        ("three", &three, ["172.31.255.103", "fd31::103"]),
        ("machine", &fabric, MACHINE),
    ];
    for (from, namespace, _) in ends {
        for (to, _, addresses) in ends {
            for address in addresses.into_iter().filter(|_| from != to) {
                assert_eq!(ping(namespace, ip(address), 56), Ping::Answered, "{from} to {address}");
                assert_eq!(ping(namespace, ip(address), 1400), Ping::Answered, "{from} {address}");
            }
        }
    }
    // The host is a machine on the wire, too.
    assert_eq!(ping(&one, ip(HOST_1), 56), Ping::Answered, "a VM to its own host");
    assert_eq!(ping(&two, ip(HOST_1), 56), Ping::Answered, "a VM to another host");
    assert_eq!(ping(&h1, ip("172.31.255.101"), 56), Ping::Answered, "a host to its own VM");
    assert_eq!(ping(&h1, ip("172.31.255.102"), 56), Ping::Answered, "a host to another's VM");

    for (from, to, address) in [
        (&one, &two, "172.31.255.102"),
        (&one, &three, "172.31.255.103"),
        (&one, &fabric, MACHINE[0]),
        (&fabric, &one, "fd31::101"),
        (&one, &h1, HOST_1),
        (&h1, &one, "172.31.255.101"),
    ] {
        transfer(from, to, ip(address), 8 << 20);
    }
    broadcast(&one, &[&two, &three, &fabric, &h1, &h2], "172.31.255.255");
    broadcast(&fabric, &[&one, &two, &three, &h1], "172.31.255.255");
    broadcast(&h1, &[&one, &two, &three, &fabric], "172.31.255.255");

    // Tunnels go on beside it, and nobody of the wire is in them.
    lab.check();
    let probes = session.finish();
    assert_eq!(probes.lost, 0, "{probes:?}");
    for host in HOSTS {
        lab.digests(host);
    }
}

/// VLANs on one NIC: equal addresses, apart from each other and from what is untagged.
#[test]
fn vlans_of_one_interface_are_apart() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let v4 = ["10.9.0.10", "10.9.0.20", "255.255.255.0", "10.9.0.1"];
    let v6 = ["fd09::10", "fd09::20", "fd09::1"];
    let [a, b] = [("a", 100), ("b", 200)]
        .map(|(name, vlan)| network(&rest, name, ("eth0", Some(vlan)), v4, v6));
    let a1 = vm(&lab, "a1", (&a, "h1"), &["10.9.0.11", "fd09::11"]);
    let a2 = vm(&lab, "a2", (&a, "h2"), &["10.9.0.12", "fd09::12"]);
    let b1 = vm(&lab, "b1", (&b, "h1"), &["10.9.0.11", "fd09::11"]);
    let b3 = vm(&lab, "b3", (&b, "h2"), &["10.9.0.13", "fd09::13"]);
    lab.settle(&HOSTS);
    for (from, to, [v4, v6]) in
        [(&a1, &a2, ["10.9.0.12", "fd09::12"]), (&b1, &b3, ["10.9.0.13", "fd09::13"])]
    {
        assert_eq!(ping(from, ip(v4), 1400), Ping::Answered);
        assert_eq!(ping(from, ip(v6), 1400), Ping::Answered);
        transfer(from, to, ip(v4), 8 << 20);
        transfer(from, to, ip(v6), 8 << 20);
    }
    broadcast(&a1, &[&a2], "10.9.0.255");
    // A machine that netloom does not manage, at a switch's port in the VLAN.
    let machine = Guest::new();
    let _port = machine.run_in_vlan(&lab.namespace("fabric"), "access0", 100);
    lab.ip("fabric", "link set access0 master br0");
    machine.configure("02:00:00:00:77:07", "10.9.0.50/24");
    machine.ip("address add fd09::50/64 dev eth0 nodad");
    let in_vlan: &Namespace = &machine.namespace;
    for (from, to, address) in
        [(&a1, in_vlan, "10.9.0.50"), (in_vlan, &a1, "10.9.0.11"), (in_vlan, &a2, "fd09::12")]
    {
        assert_eq!(ping(from, ip(address), 1400), Ping::Answered, "{address}");
        transfer(from, to, ip(address), 1 << 20);
    }
    assert_ne!(ping(&b3, ip("10.9.0.50"), 56), Ping::Answered, "it is in the other VLAN");
    broadcast(&machine.namespace, &[&a1, &a2], "10.9.0.255");
    // What one says to all stays in its VLAN.
    let hears = |namespace: &Namespace| Wire::open(namespace);
    let (wire_b, wire_a) = (hears(&b3), hears(&a2));
    let sender = Wire::open(&a1);
    let v4 = |text: &str| text.parse().unwrap();
    let payload = udp(v4("10.9.0.11"), v4("10.9.0.255"), 9, b"only in VLAN 100");
    sender.send(&ethernet([0xff; 6], sender.mac, 0x0800, &payload));
    assert!(wire_a.hears(b"only in VLAN 100", LIMIT));
    assert!(!wire_b.hears(b"only in VLAN 100", Duration::from_millis(50)));
    assert_ne!(ping(&a1, ip("10.9.0.13"), 56), Ping::Answered, "the other VLAN's");
    lab.check();
}

/// Case Q18: with a second uplink on a host the first one stays what it was. The VLANs are the same on
/// both, and so are the addresses.
#[test]
fn networks_of_two_interfaces_of_a_host_are_side_by_side_and_apart() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    lab.ip("fabric", "link add br1 type bridge");
    lab.ip("fabric", "link set br1 up");
    for host in HOSTS {
        let other = lab.namespace(host);
        lab.ip(
            "fabric",
            &format!("link add q-{host} type veth peer name eth1 netns {}", other.name()),
        );
        lab.ip("fabric", &format!("link set q-{host} up master br1"));
        lab.ip(host, "link set eth1 up");
        let has = || rest.named("/hosts", host)["devices"].to_string().contains("eth1");
        assert!(wait::holds(LIMIT, has), "{host} does not tell of eth1");
    }
    let v4 = ["10.9.0.10", "10.9.0.20", "255.255.255.0", "10.9.0.1"];
    let v6 = ["fd09::10", "fd09::20", "fd09::1"];
    let a = network(&rest, "a", ("eth0", Some(100)), v4, v6);
    let a1 = vm(&lab, "a1", (&a, "h1"), &["10.9.0.11", "fd09::11"]);
    let a2 = vm(&lab, "a2", (&a, "h2"), &["10.9.0.12", "fd09::12"]);
    lab.settle(&HOSTS);
    let flow = Traffic::start(&a1, &a2, ip("10.9.0.12"));
    let b = network(&rest, "b", ("eth1", Some(100)), v4, v6);
    let b1 = vm(&lab, "b1", (&b, "h1"), &["10.9.0.11", "fd09::11"]);
    let b3 = vm(&lab, "b3", (&b, "h2"), &["10.9.0.13", "fd09::13"]);
    let untagged = ["10.7.0.10", "10.7.0.20", "255.255.255.0", "10.7.0.1"];
    let u6 = ["fd07::10", "fd07::20", "fd07::1"];
    let u = network(&rest, "u", ("eth1", None), untagged, u6);
    let u1 = vm(&lab, "u1", (&u, "h1"), &["10.7.0.11", "fd07::11"]);
    let u2 = vm(&lab, "u2", (&u, "h2"), &["10.7.0.12", "fd07::12"]);
    lab.settle(&HOSTS);
    for (from, to, addresses) in [
        (&a1, &a2, ["10.9.0.12", "fd09::12"]),
        (&b1, &b3, ["10.9.0.13", "fd09::13"]),
        (&u1, &u2, ["10.7.0.12", "fd07::12"]),
    ] {
        for address in addresses {
            assert_eq!(ping(from, ip(address), 1400), Ping::Answered, "{address}");
            transfer(from, to, ip(address), 1 << 20);
        }
    }
    assert_ne!(ping(&a1, ip("10.9.0.13"), 56), Ping::Answered, "it is at the other interface");
    assert_ne!(ping(&b1, ip("10.9.0.12"), 56), Ping::Answered, "it is at the other interface");
    broadcast(&a1, &[&a2], "10.9.0.255");
    broadcast(&b1, &[&b3], "10.9.0.255");
    // The second one goes, and takes nothing along.
    lab.ip("h1", "link delete eth1");
    let told = || rest.named("/vm-instances", "b1")["vmNics"][0]["notInEffect"].clone();
    let says = || told().as_str().is_some_and(|told| told.contains("no interface eth1"));
    assert!(wait::holds(LIMIT, says), "{}", told());
    assert_eq!(ping(&a1, ip("fd09::12"), 1400), Ping::Answered);
    let probes = flow.finish();
    assert_eq!(probes.lost, 0, "{probes:?}");
}

/// What an interface is lacking is told at once, and mended by itself.
#[test]
fn an_interface_that_is_not_there_is_told_and_found_when_it_comes() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let body = json!({"name": "later", "zoneUuid": zone, "physicalInterface": "eth7", "vlan": 9});
    let l2 = rest.made("/l2-networks/vlan", &body);
    let attach = || rest.post(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
    let has_told = |host: &&str| rest.named("/hosts", host)["devices"] != json!([]);
    assert!(wait::holds(LIMIT, || HOSTS.iter().all(has_told)));
    let says = |text: &str| attach().body["error"].to_string().contains(text);
    assert!(wait::holds(LIMIT, || says("has no interface eth7")), "{:?}", attach());
    assert_eq!(rest.named("/l2-networks", "later")["attachedClusterUuids"], json!([]));

    let plug = |host: &str| lab.ip(host, "link add eth7 type veth peer name eth7p");
    HOSTS.iter().for_each(|host| plug(host));
    assert!(wait::holds(LIMIT, || says("eth7 is down")), "{:?}", attach());
    HOSTS.iter().for_each(|host| lab.ip(host, "link set eth7 up"));
    assert!(wait::holds(LIMIT, || attach().status == 200), "{:?}", attach());

    let l3 = rest.made("/l3-networks", &json!({"name": "later", "l2NetworkUuid": l2}));
    let range = json!({"name": "v4", "startIp": "10.8.0.10", "endIp": "10.8.0.20",
        "netmask": "255.255.255.0", "gateway": "10.8.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    vm(&lab, "late", (&l3, "h1"), &[]);
    lab.settle(&HOSTS);
    let told = || rest.named("/vm-instances", "late")["vmNics"][0]["notInEffect"].clone();
    let says = |text: &str| told().as_str().is_some_and(|told| told.contains(text));
    assert!(told().is_null(), "{}", told());
    lab.ip("h1", "link delete eth7");
    assert!(wait::holds(LIMIT, || says("no interface eth7")), "{}", told());
    plug("h1");
    assert!(wait::holds(LIMIT, || says("eth7 is down")), "{}", told());
    lab.ip("h1", "link set eth7 up");
    assert!(wait::holds(LIMIT, || told().is_null()), "{}", told());
    lab.settle(&["h1"]);
}

/// What dies beside the wire takes nothing from it.
#[test]
fn traffic_of_a_physical_network_goes_on_without_agent_and_server() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let v4 = ["172.31.255.100", "172.31.255.120", "255.255.255.0", "172.31.255.1"];
    let l3 = network(&rest, "public", ("eth0", None), v4, ["fd31::100", "fd31::120", "fd31::1"]);
    let one = vm(&lab, "one", (&l3, "h1"), &["172.31.255.101", "fd31::101"]);
    let two = vm(&lab, "two", (&l3, "h2"), &["172.31.255.102", "fd31::102"]);
    lab.settle(&HOSTS);
    let fabric = lab.namespace("fabric");
    let flows = [
        Traffic::start(&one, &two, ip("172.31.255.102")),
        Traffic::start(&fabric, &one, ip("172.31.255.101")),
    ];
    let before = HOSTS.map(|host| lab.digests(host));
    lab.kill(&["h1"]);
    flows[0].run_for(Duration::from_millis(300));
    // Somebody new on the wire, while nobody is there to learn of it.
    lab.ip("fabric", "address add 172.31.255.9/24 dev br0");
    assert_eq!(ping(&one, ip("172.31.255.9"), 56), Ping::Answered);
    lab.kill(&["server", "h2"]);
    flows[0].run_for(Duration::from_millis(300));
    lab.start(&["server", "h1", "h2"]);
    lab.settle(&HOSTS);
    let v4 = ["10.9.0.10", "10.9.0.20", "255.255.255.0", "10.9.0.1"];
    let rest = lab.rest();
    network(&rest, "beside", ("eth0", Some(100)), v4, ["fd09::10", "fd09::20", "fd09::1"]);
    flows[0].run_for(Duration::from_millis(300));
    let (l2, cluster) = (rest.uuid("/l2-networks", "beside"), rest.uuid("/clusters", "cluster"));
    let detached = rest.delete(&format!("/l2-networks/{l2}/clusters/{cluster}"));
    assert_eq!(detached.status, 200, "{detached:?}");
    flows[0].run_for(Duration::from_millis(300));
    for flow in flows {
        let probes = flow.finish();
        assert_eq!(probes.lost, 0, "{probes:?}");
    }
    assert_eq!(HOSTS.map(|host| lab.digests(host)), before);
}

/// An uplink that goes away and comes back takes its time, and no connection.
#[test]
fn connections_outlive_an_uplink_that_is_down_for_a_while() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let v4 = ["10.9.0.10", "10.9.0.20", "255.255.255.0", "10.9.0.1"];
    let l3 = network(&rest, "a", ("eth0", Some(100)), v4, ["fd09::10", "fd09::20", "fd09::1"]);
    let one = vm(&lab, "one", (&l3, "h1"), &["10.9.0.11", "fd09::11"]);
    let two = vm(&lab, "two", (&l3, "h2"), &["10.9.0.12", "fd09::12"]);
    lab.settle(&HOSTS);
    let flow = Traffic::with_patience(&one, &two, ip("10.9.0.12"), LIMIT);
    lab.ip("h1", "link set eth0 down");
    let told = || rest.named("/vm-instances", "one")["vmNics"][0]["notInEffect"].clone();
    lab.ip("h1", "link set eth0 up");
    let bytes = flow.bytes();
    assert!(wait::holds(LIMIT, || flow.bytes() > bytes), "nothing passes any more");
    lab.settle(&HOSTS);
    assert!(told().is_null(), "{}", told());
    flow.finish();
}
