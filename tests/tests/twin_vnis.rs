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
        String::from("hosts: [h1, h2, h3, h4]\n\nresources:\n  - zone: {name: lab}\n");
    let (mut reach, mut vms) = (String::new(), String::new());
    for (tenant, hosts) in [("red", ["h1", "h2"]), ("blue", ["h3", "h4"])] {
        let mut add = |line: String| writeln!(resources, "  - {line}").unwrap();
        add(format!("cluster: {{name: c-{tenant}, zone: lab, hypervisorType: KVM}}"));
        for host in hosts {
            let ip = format!("managementIp: $host.{host}.ip");
            add(format!("host: {{name: {host}, cluster: c-{tenant}, {ip}}}"));
        }
        add(format!("pool: {{name: p-{tenant}, zone: lab}}"));
        add(format!("vnis: {{name: r-{tenant}, l2: p-{tenant}, startVni: 77, endVni: 77}}"));
        let cidr = "cidr: $underlay.cidr";
        add(format!("l2 attach: {{l2: p-{tenant}, cluster: c-{tenant}, {cidr}}}"));
        add(format!("vxlan: {{name: {tenant}, pool: p-{tenant}}}"));
        add(format!("l3: {{name: {tenant}-l3, l2: {tenant}, category: Private}}"));
        let ips = "startIp: 10.0.0.10, endIp: 10.0.0.99, netmask: 255.255.255.0, gateway: 10.0.0.1";
        add(format!("range: {{name: {tenant}-ips, l3: {tenant}-l3, {ips}}}"));
        for (at, host) in (1..).zip(hosts) {
            // The last byte differs: whoever answers is known by it.
            let last = if tenant == "red" { 10 + at } else { 20 + at };
            let what = format!("l3: {tenant}-l3, host: {host}, ip: 10.0.0.{last}");
            writeln!(vms, "  - vm: {{name: {tenant}-{at}, {what}}}").unwrap();
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
