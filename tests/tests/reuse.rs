//! What is used again: a VNI that a host still holds, and an address that moves from VM to VM.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    rest::{Answer, Rest},
    root_or_skip,
    traffic::{Pings, one_packet_passes},
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
const VNI: u32 = 150;
/// How long a peer may miss the new owner of an address. The new owner's own kernel asks again after a
/// second for its peer's MAC, if its first question left before its device had a carrier.
const GAP_MAX: Duration = Duration::from_millis(1_500);
/// How long each owner is there.
const WHILE: Duration = Duration::from_secs(2);

/// F16: what a host that is away still holds meets nobody, and its VNI is nobody else's.
#[test]
fn a_vni_rests_until_a_host_that_is_away_has_let_go_of_it() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (l2, l3) = network(&rest, "first", Some(VNI)).unwrap();
    let [one, two] = [1, 2].map(|last| IpAddr::from([10, 5, 0, 10 + last]));
    let [vm, ghost] = [("ghost-1", "h1", one), ("ghost-2", "h2", two)].map(|(name, host, ip)| {
        let made = rest.create_vm(name, (&l3, host), &[ip]);
        assert_eq!(made.status, 200, "{made:?}");
        (made.body["inventory"]["uuid"].as_str().unwrap().to_owned(), lab.namespace(name))
    });
    lab.settle(&HOSTS);
    assert!(one_packet_passes(&ghost.1, &vm.1, one));

    lab.kill(&["h2"]);
    let status = || rest.named("/hosts", "h2")["status"].clone();
    assert!(wait::holds(LIMIT, || status() == "Disconnected"), "{}", status());
    for path in [
        format!("/vm-instances/{}?deleteMode=Enforcing", vm.0),
        format!("/vm-instances/{}?deleteMode=Enforcing", ghost.0),
        format!("/l2-networks/{l2}?deleteMode=Enforcing"),
    ] {
        let deleted = rest.delete(&path);
        assert_eq!(deleted.status, 200, "{path}: {deleted:?}");
    }
    let refused = network(&rest, "second", Some(VNI)).unwrap_err();
    assert!(refused.body.to_string().contains("150"), "{refused:?}");
    let (_, l3) = network(&rest, "third", None).unwrap();
    for (name, ip) in [("heir-1", one), ("heir-2", two)] {
        let made = rest.create_vm(name, (&l3, "h1"), &[ip]);
        assert_eq!(made.status, 200, "{made:?}");
    }
    let [heir_1, heir_2] = ["heir-1", "heir-2"].map(|name| lab.namespace(name));
    assert!(one_packet_passes(&heir_2, &heir_1, one));
    assert!(!one_packet_passes(&ghost.1, &heir_1, one), "the ghost reaches an heir");

    lab.start(&["h2"]);
    lab.settle(&HOSTS);
    let is_free = || network(&rest, "second", Some(VNI)).is_ok();
    assert!(wait::holds(LIMIT, is_free), "h2 has let go of it");
    lab.check();
}

/// F17: peers that know the former owner's MAC reach the new one at once.
#[test]
fn an_address_that_moves_three_times_is_reached_at_once() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let l3 = rest.uuid("/l3-networks", "red-l3");
    let addresses = [IpAddr::from([10, 0, 0, 77]), "fd00::77".parse().unwrap()];
    let peers = ["red-1", "red-2"].map(|peer| lab.namespace(peer));
    let pings = peers.iter().flat_map(|peer| addresses.map(|ip| Pings::start(peer, ip)));
    let pings: Vec<Pings> = pings.collect();
    let mut owners = Vec::new();
    for round in 0..4 {
        let host = HOSTS[round % 2];
        let mut made = rest.create_vm("owner", (&l3, host), &addresses);
        // Until every host has let go of the former owner.
        let is_made = || {
            if made.status != 200 {
                made = rest.create_vm("owner", (&l3, host), &addresses);
            }
            made.status == 200
        };
        assert!(wait::holds(LIMIT, is_made), "{made:?}");
        let begin = SystemTime::now();
        wait::holds(WHILE, || false);
        owners.push((begin, SystemTime::now()));
        let vm = made.body["inventory"]["uuid"].as_str().unwrap();
        let gone = rest.delete(&format!("/vm-instances/{vm}"));
        assert_eq!(gone.status, 200, "{gone:?}");
    }
    for (index, ping) in pings.into_iter().enumerate() {
        let answers = ping.finish();
        for (round, (begin, end)) in owners.iter().enumerate() {
            let first = answers.iter().find(|at| (begin..=end).contains(at));
            let gap = first.map(|at| at.duration_since(*begin).unwrap());
            let what = format!("pings {index}, owner {round}: {gap:?}");
            assert!(gap.is_some_and(|gap| gap < GAP_MAX), "{what}");
        }
    }
}

/// A network and its L3 network with addresses of 10.5.0.0/24.
fn network(rest: &Rest, name: &str, vni: Option<u32>) -> Result<(String, String), Answer> {
    let pool = rest.uuid("/l2-networks/vxlan-pool", "pool");
    let l2 = rest.post("/l2-networks/vxlan", &json!({"name": name, "poolUuid": pool, "vni": vni}));
    if l2.status != 200 {
        return Err(l2);
    }
    let l2 = l2.body["inventory"]["uuid"].as_str().unwrap().to_owned();
    let l3 = rest.made("/l3-networks", &json!({"name": name, "l2NetworkUuid": l2}));
    let range = json!({"name": name, "startIp": "10.5.0.10", "endIp": "10.5.0.99",
        "netmask": "255.255.255.0", "gateway": "10.5.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    Ok((l2, l3))
}
