//! Underlays: tunnels over IPv6, and what VMs may send through them. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab, machine,
    rest::Rest,
    root_or_skip,
    traffic::{Ping, ping, transfer},
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// How long it takes at most until a change of a device is told: audits come later.
const SOON: Duration = Duration::from_secs(20);
/// The hosts' addresses on the underlay.
const VTEPS: [&str; 2] = ["fd99::11", "fd99::12"];

/// F08: a VM has the MTU that IPv6 tunnels leave it, and everything that it may send arrives.
#[test]
fn tunnels_over_ipv6_carry_all_that_a_vm_may_send() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    for (host, vtep) in HOSTS.iter().zip(VTEPS) {
        lab.ip(host, "link set eth0 mtu 1500");
        lab.ip(host, &format!("address add {vtep}/64 dev eth0 nodad"));
    }
    let rest = lab.rest();
    let l3 = network_over_ipv6(&rest);
    let [one, two] = [("six-1", "h1", 11), ("six-2", "h2", 12)].map(|(name, host, last)| {
        let addresses = [IpAddr::from([10, 6, 0, last]), format!("fd06::{last}").parse().unwrap()];
        let made = rest.create_vm(name, (&l3, host), &addresses);
        assert_eq!(made.status, 200, "{made:?}");
        assert_eq!(made.body["inventory"]["vmNics"][0]["mtu"], 1430, "{made:?}");
        (lab.namespace(name), addresses)
    });
    lab.settle(&HOSTS);
    let vteps = machine::tables(&lab.data("h1")).vteps;
    let peer: IpAddr = VTEPS[1].parse().unwrap();
    assert!(vteps.keys().any(|key| IpAddr::from(key.addr) == peer), "{vteps:?}");

    let ([v4, v6], (from, to)) = (two.1, (&one.0, &two.0));
    // IP and ICMP headers take 28 bytes, in IPv6 48.
    for (ip, largest) in [(v4, 1402), (v6, 1382)] {
        for bytes in (1300..largest).step_by(9).chain([largest - 1, largest]) {
            assert_eq!(ping(from, ip, bytes), Ping::Answered, "{bytes} bytes to {ip}");
        }
        assert_eq!(ping(from, ip, largest + 1), Ping::TooBig, "{ip}");
        transfer(from, to, ip, 4 << 20);
        transfer(to, from, if ip.is_ipv4() { one.1[0] } else { one.1[1] }, 4 << 20);
    }
    // Networks whose VTEPs are IPv4 go on beside them.
    lab.check();
}

/// F09: that the underlay is smaller than what VMs were given is told before a user feels it.
#[test]
fn an_underlay_that_is_too_small_is_told_by_its_host_until_it_is_not() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let told = |host: &str| rest.named("/hosts", host)["notInEffect"].clone();
    let seen = || lab.inspect("h2")["underlay"].clone();
    let underlay = |mtu: u32| lab.ip("h2", &format!("link set eth0 mtu {mtu}"));
    underlay(1500);
    let vtep = json!({"vtep": "172.31.255.12", "device": "eth0", "mtuBytes": 1500,
        "neededBytes": 1500, "trouble": null});
    assert_eq!(seen(), json!([vtep]));
    lab.settle(&HOSTS);

    underlay(1400);
    let says = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains("the underlay is too small: eth0 has an MTU of 1400") && text.contains("1500")
    };
    assert!(wait::holds(LIMIT, || says(&told("h2"))), "{}", told("h2"));
    assert!(says(&seen()[0]["trouble"]), "{}", seen());
    assert_eq!(told("h1"), Value::Null, "the other host's is large enough");
    // It is told, and nothing more: what fits goes through, and hosts take what is new.
    lab.check();
    let l3 = rest.uuid("/l3-networks", "red-l3");
    let made = rest.create_vm("red-3", (&l3, "h2"), &[]);
    assert_eq!(made.status, 200, "{made:?}");

    let raised = Instant::now();
    underlay(1500);
    assert!(wait::holds(LIMIT, || told("h2") == Value::Null), "{}", told("h2"));
    assert!(raised.elapsed() < SOON, "{:?}", raised.elapsed());
    lab.settle(&HOSTS);
}

/// A network of a pool whose VTEPs are IPv6; it has both families inside.
fn network_over_ipv6(rest: &Rest) -> String {
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let pool = rest.made("/l2-networks/vxlan-pool", &json!({"name": "pool6", "zoneUuid": zone}));
    let range = json!({"name": "vnis6", "startVni": 600, "endVni": 609});
    rest.made(&format!("/l2-networks/vxlan-pool/{pool}/vni-ranges"), &range);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{fd99::/64}}");
    let body = json!({"systemTags": [tag]}).to_string();
    let attach = format!("/l2-networks/{pool}/clusters/{cluster}");
    // As soon as the hosts have said that they have these addresses, tunnels end there.
    let attach = || rest.clone().with("prefer", "wait=30").send("POST", &attach, &body).unwrap();
    let told =
        |host: &str, vtep: &str| rest.named("/hosts", host)["devices"].to_string().contains(vtep);
    let all_told = || HOSTS.iter().zip(VTEPS).all(|(host, vtep)| told(host, vtep));
    assert!(wait::holds(LIMIT, all_told));
    let attached = attach();
    assert_eq!(attached.status, 200, "{attached:?}");
    for (host, vtep) in HOSTS.iter().zip(VTEPS) {
        let host = rest.uuid("/hosts", host);
        let all = rest.all("/l2-networks/vteps");
        let is_there = |found: &Value| {
            found["hostUuid"] == *host && found["vtepIp"] == vtep && found["poolUuid"] == *pool
        };
        assert!(all.iter().any(is_there), "{all:?}");
    }
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "six", "poolUuid": pool}));
    let l3 = rest.made("/l3-networks", &json!({"name": "six", "l2NetworkUuid": l2}));
    let ranges = [
        (
            "ip-ranges",
            json!({"name": "v4", "startIp": "10.6.0.10", "endIp": "10.6.0.99",
            "netmask": "255.255.255.0", "gateway": "10.6.0.1"}),
        ),
        (
            "ipv6-ranges",
            json!({"name": "v6", "startIp": "fd06::10", "endIp": "fd06::99",
            "gateway": "fd06::1", "prefixLen": 64, "addressMode": "Stateful-DHCP"}),
        ),
    ];
    for (kind, range) in ranges {
        rest.made(&format!("/l3-networks/{l3}/{kind}"), &range);
    }
    l3
}
