//! The host's own addresses and uplink go away and come back (field case F15): traffic comes back with
//! them, from the right source, and meanwhile the host says what is wrong. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab, root_or_skip,
    traffic::{Traffic, one_packet_passes},
};
use serde_json::{Value, json};

const RED_1: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
const RED_2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 12));
/// h2's address on the underlay, its VTEP.
const VTEP: &str = "172.31.255.12/24";
const OTHER: &str = "172.31.255.212/24";
/// TCP sends again after 0.2, 0.6, 1.4, 3 and 6.2 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Field case F15. That the source is right is seen at the other end, which takes no other one.
#[test]
fn traffic_comes_back_with_address_and_uplink() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    let traffic = Traffic::with_patience(&red_1, &red_2, RED_2, PATIENCE);
    let away = |words: &[&str], time| {
        words.iter().for_each(|words| lab.ip("h2", words));
        traffic.run_for(Duration::from_secs(time));
    };
    let back = |words: &str| {
        lab.ip("h2", words);
        let begin = Instant::now();
        let passes = || one_packet_passes(&red_1, &red_2, RED_2);
        assert!(wait::holds(LIMIT, passes), "after {words}");
        eprintln!("{words}: traffic after {:?}", begin.elapsed());
        assert!(one_packet_passes(&red_2, &red_1, RED_1), "after {words}");
        let bytes = traffic.bytes();
        assert!(wait::holds(LIMIT, || traffic.bytes() > bytes), "TCP after {words}");
    };
    // Two seconds without it: that long an answer is waited for.
    away(&[&format!("address delete {VTEP} dev eth0")], 0);
    assert!(!one_packet_passes(&red_2, &red_1, RED_1), "it has no source to leave from");
    back(&format!("address add {VTEP} dev eth0"));
    // The programs let it through; the kernel says where it is.
    let losses = lab.inspect("h2")["agent"]["losses"].clone();
    let of_tunnel = losses.as_array().unwrap().iter().find(|of| of["device"] == "nlvx");
    let lost = of_tunnel.map_or(0, |of| of["txCarrierErrors"].as_u64().unwrap());
    assert!(lost > 0, "{losses}");
    away(&["link set eth0 down"], 1);
    back("link set eth0 up");
    // By now the other one is the host's first address, from which it sends by default.
    let other = format!("address add {OTHER} dev eth0");
    away(&[&format!("address delete {VTEP} dev eth0"), &other], 1);
    back(&format!("address add {VTEP} dev eth0"));
    let probes = traffic.finish();
    assert!(probes.lost < probes.sent, "{probes:?}");
    lab.settle(&["h1", "h2"]);
    lab.check();
}

#[test]
fn a_vtep_address_that_the_host_lacks_is_told_wherever_somebody_asks() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.ip("h2", &format!("address delete {VTEP} dev eth0"));
    // So that the agent reaches the server.
    lab.ip("h2", &format!("address add {OTHER} dev eth0"));
    let reason = "no device of the host has its VTEP address 172.31.255.12";
    told(&lab, "/hosts", |host| host["name"] == "h2", reason);
    told(&lab, "/vm-instances", |vm| vm["name"] == "red-2", reason);
    let vm = lab.named("/vm-instances", "red-2")["uuid"].clone();
    told(&lab, "/vm-instances/nics", |nic| nic["vmInstanceUuid"] == vm, reason);
    let inspection = lab.inspect("h2");
    assert_eq!((&inspection["asDesired"], &inspection["inEffect"]), (&json!(true), &json!(false)));
    assert!(inspection["agent"]["trouble"].to_string().contains(reason), "{inspection:#}");

    let job = create(&lab);
    let rest = lab.rest();
    let polled = || rest.send("GET", &job, "").unwrap();
    let waits = || polled().body["waitsFor"].to_string().contains(reason);
    assert!(wait::holds(LIMIT, waits), "{:?}", polled());

    lab.ip("h2", &format!("address add {VTEP} dev eth0"));
    let begin = Instant::now();
    assert!(wait::holds(LIMIT, || polled().status == 200), "{:?}", polled());
    eprintln!("healed after {:?}", begin.elapsed());
    lab.settle(&["h1", "h2"]);
    // The next probes between the hosts find that way open, too.
    let told = || lab.named("/hosts", "h2")["notInEffect"].clone();
    assert!(wait::holds(LIMIT, || told().is_null()), "{}", told());
    assert!(wait::holds(LIMIT, || lab.inspect("h2")["inEffect"] == true));
    lab.check();
}

/// The address of a host changes within its cluster's CIDR; its operator has it looked at again.
#[test]
fn a_vtep_follows_the_hosts_address_and_connections_live_on() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    // The agent takes some 15 s to notice that its connection is dead; then TCP sends again.
    let traffic = Traffic::with_patience(&red_1, &red_2, RED_2, 2 * LIMIT);
    // The second of two would go with the first.
    lab.ip("h2", &format!("address delete {VTEP} dev eth0"));
    lab.ip("h2", &format!("address add {OTHER} dev eth0"));
    told(&lab, "/hosts", |host| host["name"] == "h2", "no device of the host has its VTEP address");
    let host = rest.uuid("/hosts", "h2");
    let reconnect = || {
        let path = format!("/hosts/{host}/actions");
        let rest = rest.clone().with("prefer", "wait=30");
        rest.send("PUT", &path, &json!({"reconnectHost": {}}).to_string()).unwrap()
    };
    // It finds nothing before the agent has told of the new address.
    assert!(wait::holds(LIMIT, || reconnect().status == 200), "{:?}", reconnect());
    let vteps =
        || rest.all("/l2-networks/vteps").iter().map(|vtep| vtep["vtepIp"].clone()).collect();
    let now: Vec<Value> = vteps();
    assert!(now.contains(&json!("172.31.255.212")), "{now:?}");
    assert!(!now.contains(&json!("172.31.255.12")), "{now:?}");
    lab.settle(&["h1", "h2"]);
    assert!(wait::holds(LIMIT, || one_packet_passes(&red_1, &red_2, RED_2)));
    assert!(one_packet_passes(&red_2, &red_1, RED_1));
    let bytes = traffic.bytes();
    assert!(wait::holds(LIMIT, || traffic.bytes() > bytes), "TCP goes on");
    traffic.finish();
    for host in ["h1", "h2"] {
        lab.digests(host);
    }
    lab.check();
}

/// Waits until the one resource that is meant says so.
fn told(lab: &TestLab, path: &str, is_it: impl Fn(&Value) -> bool, reason: &str) {
    let rest = lab.rest();
    let says = || {
        let found = rest.all(path).into_iter().find(&is_it).unwrap();
        found["notInEffect"].as_str().is_some_and(|text| text.contains(reason))
    };
    assert!(wait::holds(LIMIT, says), "{:?}", rest.all(path));
}

/// Asks for an instance on h2; the path of its job.
fn create(lab: &TestLab) -> String {
    let l3 = lab.named("/l3-networks", "red-l3")["uuid"].clone();
    let host = lab.named("/hosts", "h2")["uuid"].clone();
    let params = json!({"params": {"name": "late", "l3NetworkUuids": [l3], "hostUuid": host}});
    let made = lab.rest().send("POST", "/vm-instances", &params.to_string()).unwrap();
    assert_eq!(made.status, 202, "{made:?}");
    let location = made.body["location"].as_str().unwrap();
    location[location.find("/api-jobs").unwrap()..].to_owned()
}
