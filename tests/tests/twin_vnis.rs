//! Two pools with the same VNI on one underlay, between hosts that share no VTEP: neither tenant meets
//! the other. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};

use netloom_tests::{
    TestLab, root_or_skip,
    traffic::{Ping, ping},
};

/// red-2, blue-1's address in red's network, and nobody's.
const RED_2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 12));
const RED_AS_BLUE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 21));
const GATEWAY_LESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99));

/// A cluster of two hosts with a pool of one VNI, and a VM on each host, for each tenant.
fn topology() -> String {
    let mut resources =
        String::from("hosts: [h1, h2, h3, h4]\n\nresources:\n  - CreateZone: {name: lab}\n");
    let (mut reach, mut vms) = (String::new(), String::new());
    for (tenant, hosts) in [("red", ["h1", "h2"]), ("blue", ["h3", "h4"])] {
        let add = &mut resources;
        writeln!(
            add,
            "  - CreateCluster: {{name: c-{tenant}, zoneUuid: $lab, hypervisorType: KVM}}"
        )
        .unwrap();
        for host in hosts {
            let params = format!(
                "{{name: {host}, clusterUuid: $c-{tenant}, managementIp: $host.{host}.ip}}"
            );
            writeln!(add, "  - AddKVMHost: {params}").unwrap();
        }
        writeln!(
            add,
            "  - CreateL2VxlanNetworkPool: {{name: p-{tenant}, zoneUuid: $lab}}\n  \
             - CreateVniRange: {{name: r-{tenant}, l2NetworkUuid: $p-{tenant}, startVni: 77, endVni: 77}}\n  \
             - AttachL2NetworkToCluster:\n      l2NetworkUuid: $p-{tenant}\n      \
             clusterUuid: $c-{tenant}\n      systemTags: [\"l2NetworkUuid::$p-{tenant}::\
             clusterUuid::$c-{tenant}::cidr::{{$underlay.cidr}}\"]\n  \
             - CreateL2VxlanNetwork: {{name: {tenant}, poolUuid: $p-{tenant}}}\n  \
             - CreateL3Network: {{name: {tenant}-l3, l2NetworkUuid: ${tenant}, category: Private}}\n  \
             - AddIpRange:\n      name: {tenant}-ips\n      l3NetworkUuid: ${tenant}-l3\n      \
             startIp: 10.0.0.10\n      endIp: 10.0.0.99\n      netmask: 255.255.255.0\n      \
             gateway: 10.0.0.1"
        )
        .unwrap();
        for (at, host) in (1..).zip(hosts) {
            // The last byte differs: whoever answers is known by it.
            let last = if tenant == "red" { 10 + at } else { 20 + at };
            writeln!(
                vms,
                "  - CreateVmInstance:\n      name: {tenant}-{at}\n      l3NetworkUuids: \
                 [${tenant}-l3]\n      hostUuid: ${host}\n      systemTags: \
                 [\"staticIp::${tenant}-l3::10.0.0.{last}\"]"
            )
            .unwrap();
            writeln!(reach, "    - [{tenant}-{at}, {tenant}-{}]", 3 - at).unwrap();
        }
    }
    format!("{resources}{vms}\nexpect:\n  reach:\n{reach}")
}

#[test]
fn tenants_with_the_same_vni_on_hosts_of_their_own_never_meet() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::of(&topology());
    let vnis = lab.rest().all("/l2-networks/vxlan");
    assert_eq!(vnis.len(), 2);
    assert!(vnis.iter().all(|l2| l2["vni"] == 77), "{vnis:?}");
    lab.check();
    // A broadcast goes to all of one's own network, and to nobody else's.
    let blue = ["blue-1", "blue-2"].map(|vm| lab.namespace(vm));
    let mut taps = blue.each_ref().map(|vm| vm.tap("eth0").unwrap());
    let red = lab.namespace("red-1");
    assert_ne!(ping(&red, RED_AS_BLUE, 8), Ping::Answered);
    assert_eq!(ping(&red, RED_2, 8), Ping::Answered);
    for (tap, vm) in taps.iter_mut().zip(&blue) {
        // What comes behind it has come, too.
        assert_eq!(ping(vm, GATEWAY_LESS, 8), Ping::Lost);
        while let Some(frame) = tap.take().unwrap() {
            // Where IPv4 and ARP have the sender's address.
            let is_from = |at: usize| frame.bytes.get(at..at + 4) == Some(&[10, 0, 0, 11]);
            let is_red = is_from(26) || is_from(28);
            assert!(!is_red, "{:x?}", frame.bytes);
        }
    }
}
