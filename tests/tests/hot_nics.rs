//! NICs that come, go, move and change their address while their VM runs. Needs root.

use std::net::IpAddr;

use netloom_tests::{TestLab, rest::Rest, root_or_skip, traffic::one_packet_passes};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
const RED_1: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));

#[test]
fn nics_come_go_move_and_change_while_their_vm_runs() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let green = green(&rest);
    let address = |vm: &Value, at: usize| -> IpAddr {
        vm["vmNics"][at]["ip"].as_str().unwrap().parse().unwrap()
    };
    let made = rest.create_vm("green-1", (&green, "h2"), &[]);
    assert_eq!(made.status, 200, "{made:?}");
    let green_1_ip = address(&made.body["inventory"], 0);
    let red_1 = rest.uuid("/vm-instances", "red-1");
    let passes = |from: &str, to: &str, ip: IpAddr| {
        lab.settle(&HOSTS);
        one_packet_passes(&lab.namespace(from), &lab.namespace(to), ip)
    };

    let attach = format!("/vm-instances/{red_1}/l3-networks/{green}");
    let attached = rest.post(&attach, &json!({}));
    assert_eq!(attached.status, 200, "{attached:?}");
    let vm = &attached.body["inventory"];
    let (nic, own) = (vm["vmNics"][1]["uuid"].as_str().unwrap().to_owned(), address(vm, 1));
    assert!(passes("red-1", "green-1", green_1_ip), "by its new NIC");
    assert!(passes("green-1", "red-1", own));
    assert!(passes("red-2", "red-1", RED_1), "by the one it had");

    let free = |ip: &IpAddr| ![green_1_ip, own].contains(ip);
    let other = (77..80).map(|last| IpAddr::from([10, 5, 0, last])).find(free).unwrap();
    let body = json!({"setVmStaticIp": {"l3NetworkUuid": green, "ip": other}}).to_string();
    let path = format!("/vm-instances/{red_1}/actions");
    let set = rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
    assert_eq!(set.status, 200, "{set:?}");
    assert!(passes("green-1", "red-1", other), "at its new address");

    let detached = rest.delete(&format!("/vm-instances/nics/{nic}"));
    assert_eq!(detached.status, 200, "{detached:?}");
    let ports = lab.inspect("h1")["ports"].to_string();
    assert!(!ports.contains(&format!("\"{other}\"")), "its NIC is gone with the job: {ports}");
    assert!(passes("red-2", "red-1", RED_1));

    let made = rest.create_vm("red-3", (&rest.uuid("/l3-networks", "red-l3"), "h1"), &[]);
    let nic = made.body["inventory"]["vmNics"][0]["uuid"].as_str().unwrap().to_owned();
    let red_ip = address(&made.body["inventory"], 0);
    assert!(passes("red-2", "red-3", red_ip), "in red");
    let moved = rest.post(&format!("/vm-instances/nics/{nic}/l3-networks/{green}"), &json!({}));
    assert_eq!(moved.status, 200, "{moved:?}");
    let green_ip = address(&moved.body["inventory"], 0);
    assert!(passes("green-1", "red-3", green_ip), "in green");
    let ports = lab.inspect("h1")["ports"].to_string();
    assert!(!ports.contains(&format!("\"{red_ip}\"")), "it is in red no more: {ports}");
    assert_eq!(lab.inspect("h1")["asDesired"], true);
    assert_eq!(lab.inspect("h2")["asDesired"], true);
}

/// An L3 network of its own, 10.5.0.0/24.
fn green(rest: &Rest) -> String {
    let l2 = json!({"name": "green", "poolUuid": rest.uuid("/l2-networks/vxlan-pool", "pool")});
    let l2 = rest.made("/l2-networks/vxlan", &l2);
    let l3 = rest.made("/l3-networks", &json!({"name": "green", "l2NetworkUuid": l2}));
    let range = json!({"name": "green", "startIp": "10.5.0.10", "endIp": "10.5.0.99",
        "netmask": "255.255.255.0", "gateway": "10.5.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    l3
}
