//! What ZStack's own tests show with real VMs, of L2 and L3 networks. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::net::IpAddr;

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    guest::Guest,
    rest::Rest,
    root_or_skip,
    traffic::{Ping, Traffic, ping, transfer},
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
const VLAN: u16 = 10;
/// The machine that netloom does not manage.
const OUTSIDE: &str = "192.168.100.200";
/// Bytes of the IPv4 and ICMP headers of an echo request.
const ECHO_HEADERS: usize = 28;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn l3_of(rest: &Rest, l2: &str, name: &str) -> String {
    rest.made("/l3-networks", &json!({"name": name, "l2NetworkUuid": l2}))
}

fn range(rest: &Rest, l3: &str, [start, end]: [&str; 2]) -> String {
    let wanted = json!({"name": start, "startIp": start, "endIp": end,
        "netmask": "255.255.255.0", "gateway": "192.168.100.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &wanted)
}

/// A range is deleted under a VM: that one loses its NIC, one with an address of another range does
/// not notice, and the range can be made again.
#[test]
fn p08_a_range_is_deleted_under_use() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let pool = rest.uuid("/l2-networks/vxlan-pool", "pool");
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "ranges", "poolUuid": pool}));
    let l3 = l3_of(&rest, &l2, "ranges");
    let first = ["192.168.100.10", "192.168.100.19"];
    let first_range = range(&rest, &l3, first);
    range(&rest, &l3, ["192.168.100.30", "192.168.100.39"]);
    let vms = [
        ("one", "h1", "192.168.100.10"),
        ("two", "h1", "192.168.100.30"),
        ("three", "h2", "192.168.100.31"),
    ];
    for (name, host, address) in vms {
        let made = rest.create_vm(name, (&l3, host), &[ip(address)]);
        assert_eq!(made.status, 200, "{made:?}");
    }
    let [two, three] = ["two", "three"].map(|name| lab.namespace(name));
    assert_eq!(ping(&two, ip("192.168.100.10"), 56), Ping::Answered);
    let untouched = Traffic::start(&two, &three, ip("192.168.100.31"));

    let deleted = rest.delete(&format!("/l3-networks/ip-ranges/{first_range}"));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let nics = |name: &str| rest.named("/vm-instances", name)["vmNics"].clone();
    assert_eq!(nics("one"), json!([]));
    assert_ne!(nics("two"), json!([]));
    let devices = |vm: &str| {
        let machine = lab.machine();
        let own = machine.devices.into_iter().find(|(name, _)| name.ends_with(vm)).unwrap().1;
        own.into_iter().map(|link| link.name).filter(|name| name != "lo").collect::<Vec<_>>()
    };
    let uuid = rest.uuid("/vm-instances", "one");
    assert!(wait::holds(LIMIT, || devices(&uuid).is_empty()), "{:?}", devices(&uuid));
    assert_eq!(ping(&two, ip("192.168.100.10"), 56), Ping::Lost);

    range(&rest, &l3, first);
    let made = rest.create_vm("four", (&l3, "h2"), &[ip("192.168.100.10")]);
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(ping(&two, ip("192.168.100.10"), 56), Ping::Answered);
    assert_eq!(untouched.finish().lost, 0);
    lab.settle(&HOSTS);
    HOSTS.iter().for_each(|host| drop(lab.digests(host)));
}

/// The MTU of an L3 network is the path's MTU to a machine outside, for VMs that are made from then
/// on; and is so no more once it is set back.
#[test]
fn p10_the_mtu_of_an_l3_network_is_that_of_the_path() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let l2 =
        json!({"name": "private", "zoneUuid": zone, "physicalInterface": "eth0", "vlan": VLAN});
    let l2 = rest.made("/l2-networks/vlan", &l2);
    rest.post(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
    let l3 = l3_of(&rest, &l2, "private");
    range(&rest, &l3, ["192.168.100.10", "192.168.100.99"]);
    let machine = Guest::new();
    let _port = machine.run_in_vlan(&lab.namespace("fabric"), "machine", VLAN);
    lab.ip("fabric", "link set machine master br0");
    machine.configure("02:00:00:00:77:07", &format!("{OUTSIDE}/24"));

    for (name, address, mtu) in
        [("small", "192.168.100.10", 1200), ("normal", "192.168.100.11", 1400)]
    {
        let set = rest.post(&format!("/l3-networks/{l3}/mtu"), &json!({"mtu": mtu}));
        assert_eq!(set.status, 200, "{set:?}");
        let made = rest.create_vm(name, (&l3, "h1"), &[ip(address)]);
        assert_eq!(made.status, 200, "{made:?}");
        let vm = lab.namespace(name);
        assert_eq!(ping(&vm, ip(OUTSIDE), mtu - ECHO_HEADERS), Ping::Answered, "{name}");
        assert_eq!(ping(&vm, ip(OUTSIDE), mtu - ECHO_HEADERS + 1), Ping::TooBig, "{name}");
        transfer(&vm, &machine.namespace, ip(OUTSIDE), 1 << 20);
        transfer(&machine.namespace, &vm, ip(address), 1 << 20);
    }
}
