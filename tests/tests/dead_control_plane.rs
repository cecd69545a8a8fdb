//! What is dead changes nothing: agents and server are killed under traffic, and come back. Needs
//! root.

use std::{net::IpAddr, time::Duration};

use netloom_tests::{TestLab, machine, root_or_skip, traffic::Traffic};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// How long traffic runs in each state.
const WHILE: Duration = Duration::from_secs(2);

/// F07: on three paths, no probe is lost: on one host, across hosts, and in IPv6.
#[test]
fn traffic_goes_on_while_agents_are_dead_and_when_they_come_back() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let l3 = rest.uuid("/l3-networks", "red-l3");
    let made = rest.create_vm("red-3", (&l3, "h1"), &[IpAddr::from([10, 0, 0, 13])]);
    assert_eq!(made.status, 200, "{made:?}");
    lab.settle(&HOSTS);
    let before = lab.machine();
    let [red_1, red_2, red_3] = ["red-1", "red-2", "red-3"].map(|vm| lab.namespace(vm));
    let [across, same] = [12, 13].map(|last| IpAddr::from([10, 0, 0, last]));
    let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0x12]);
    let paths = [(&red_3, same), (&red_2, across), (&red_2, six)];
    let traffic = paths.map(|(to, ip)| Traffic::start(&red_1, to, ip));
    traffic[0].run_for(WHILE);

    lab.kill(&HOSTS);
    traffic[0].run_for(WHILE);
    let digests = HOSTS.map(|host| lab.digests(host));
    let tables = HOSTS.map(|host| machine::tables(&lab.data(host)));
    // New flows need no agent either.
    lab.check();

    lab.start(&HOSTS);
    lab.settle(&HOSTS);
    traffic[0].run_for(WHILE);
    for (path, traffic) in traffic.into_iter().enumerate() {
        let probes = traffic.finish();
        assert!(probes.sent > 300 && probes.lost == 0, "path {path}: {probes:?}");
    }
    assert_eq!(lab.machine(), before, "no device, program or map was made anew");
    assert_eq!(HOSTS.map(|host| lab.digests(host)), digests);
    let after = HOSTS.map(|host| machine::tables(&lab.data(host)));
    assert_eq!(after, tables, "the maps hold what they held");
}

#[test]
fn server_and_agents_may_end_and_start_in_any_order() {
    if !root_or_skip() {
        return;
    }
    const ALL: [[&str; 3]; 6] = [
        ["server", "h1", "h2"],
        ["server", "h2", "h1"],
        ["h1", "server", "h2"],
        ["h1", "h2", "server"],
        ["h2", "server", "h1"],
        ["h2", "h1", "server"],
    ];
    let lab = TestLab::up();
    let (before, digests) = (lab.machine(), HOSTS.map(|host| lab.digests(host)));
    // Each order of ending meets another order of starting.
    for (index, ending) in ALL.iter().enumerate() {
        lab.stop(ending);
        lab.start(&ALL[(index + 2) % ALL.len()]);
        lab.settle(&HOSTS);
        lab.check();
        assert_eq!(lab.machine(), before, "after round {index}: {ending:?}");
        assert_eq!(HOSTS.map(|host| lab.digests(host)), digests, "after round {index}");
    }
    for host in HOSTS {
        let ports = lab.inspect(host)["ports"].as_array().unwrap().len();
        assert_eq!(ports, 2, "{host}");
    }
}
