//! Packets that are larger than their network's MTU, from VMs that do not know it. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::Port;
use support::ethtool::{OFFLOADS, switch_off};
use support::traffic::{ping_command, transfer};
use support::vm::{Hosts, v4, v6};
use support::{ip, may_run};

/// Hosts whose underlay has just room for the network's MTU; VMs believe in 1500.
fn hosts() -> Hosts {
    let hosts = Hosts::up(Port::PEER);
    ip("link set under0 mtu 1500");
    hosts.far.ip("link set under0 mtu 1500");
    hosts
}

#[test]
fn a_packet_too_big_for_the_network_is_answered_with_the_mtu() {
    if !may_run("a_packet_too_big_for_the_network_is_answered_with_the_mtu") {
        return;
    }
    let hosts = hosts();
    let vm = &hosts.vm(1).inside;
    for (number, family, told, gateway) in [
        (2, "-s 1472 10.0.0", "mtu = 1450", "10.0.0.254"),
        (2, "-s 1452 fd00:", "mtu=1450", "fd00::fe"),
        (3, "-s 1472 10.0.0", "mtu = 1450", "10.0.0.254"),
        (3, "-s 1452 fd00:", "mtu=1450", "fd00::fe"),
    ] {
        let before = hosts.drops("packet_too_big");
        let separator = if family.ends_with(':') { ':' } else { '.' };
        let (answered, said) =
            ping_command(vm, &format!("-n -M do -c 1 -W 3 {family}{separator}{number}"));
        assert!(!answered, "{said}");
        assert!(said.contains(told) && said.contains(gateway), "{said}");
        assert_eq!(hosts.drops("packet_too_big") - before, 1, "{said}");
        // The kernel inside has learnt it, and one that fits passes.
        let (_, said) = ping_command(vm, &format!("-M do -c 1 {family}{separator}{number}"));
        assert!(said.contains("mtu=1450") || said.contains("mtu: 1450"), "{said}");
        let fits = family.replace("1472", "1422").replace("1452", "1402");
        let (answered, said) = ping_command(vm, &format!("-M do -c 1 {fits}{separator}{number}"));
        assert!(answered, "{said}");
    }
}

#[test]
fn tcp_of_a_vm_with_too_large_an_mtu_finds_the_right_one() {
    if !may_run("tcp_of_a_vm_with_too_large_an_mtu_finds_the_right_one") {
        return;
    }
    let hosts = hosts();
    let [one, two, three] = [1, 2, 3].map(|number| &hosts.vm(number).inside);
    transfer(one, two, v4(2).into());
    transfer(one, three, v6(3).into());
    assert!(hosts.drops("packet_too_big") > 0, "segments of a frame are looked at");
    for vm in [one, two, three] {
        vm.run(|| switch_off("eth0", &OFFLOADS));
        // As if nothing had been learnt.
        vm.ip("route flush cache");
        vm.ip("-6 route flush cache");
    }
    transfer(two, one, v4(1).into());
    transfer(one, two, v6(2).into());
    transfer(three, one, v4(1).into());
}
