//! What is dead changes nothing: agents and server are killed under traffic, and come back. Needs
//! root.

use std::time::Duration;

use netloom_tests::{TestLab, machine, root_or_skip, traffic::Traffic};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// How long traffic runs in each state.
const WHILE: Duration = Duration::from_secs(2);

#[test]
fn traffic_goes_on_while_agents_are_dead_and_when_they_come_back() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let before = lab.machine();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    let traffic = Traffic::start(&red_1, &red_2, [10, 0, 0, 12].into());
    traffic.run_for(WHILE);

    lab.kill(&HOSTS);
    traffic.run_for(WHILE);
    let digests = HOSTS.map(|host| lab.digests(host));
    let tables = HOSTS.map(|host| machine::tables(&lab.data(host)));
    // New flows need no agent either.
    lab.check();

    lab.start(&HOSTS);
    lab.settle(&HOSTS);
    traffic.run_for(WHILE);
    let probes = traffic.finish();
    assert!(probes.sent > 300 && probes.lost <= 1, "{probes:?}");
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
