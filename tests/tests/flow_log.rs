//! The flow log of a NIC: new and denied connections, with the rule that decided. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    net::{IpAddr, TcpListener, TcpStream},
    time::Duration,
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, networks, rest::Rest, root_or_skip};
use serde_json::{Value, json};

/// How long a connection is tried that is denied: that it was, says the log.
const TRY: Duration = Duration::from_millis(100);

/// Sets which connections a NIC or the NICs of a network tell of.
fn tell(rest: &Rest, of: &str, events: &str) {
    let path = format!("/resource-configurations/flowLog/events/{of}/actions");
    let body = json!({"updateResourceConfig": {"value": events}}).to_string();
    let done = rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
    assert_eq!(done.status, 200, "{done:?}");
}

fn lines(lab: &TestLab, host: &str) -> Vec<Value> {
    let text = fs::read_to_string(lab.data(host).join("flows.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Those of a port of the server, as soon as there are some.
fn of_port(lab: &TestLab, host: &str, port: u16) -> Vec<Value> {
    let found = || -> Vec<Value> {
        let lines = lines(lab, host).into_iter();
        lines.filter(|line| line["destinationPort"] == port).collect()
    };
    assert!(wait::holds(LIMIT, || !found().is_empty()), "{:#?}", lines(lab, host));
    found()
}

#[test]
fn new_and_denied_connections_of_a_nic_are_written_with_their_rule() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "shop", "poolUuid": pool}));
    let l3 = networks::l3(&rest, "shop", &l2, 6);
    networks::groups(&rest, &l3);
    let ip: IpAddr = "10.6.0.21".parse().unwrap();
    for (name, host, at) in [("server", "h1", "10.6.0.21"), ("client", "h2", "10.6.0.22")] {
        let made = rest.create_vm(name, (&l3, host), &[at.parse().unwrap()]);
        assert_eq!(made.status, 200, "{made:?}");
    }
    let group = rest.made("/security-groups", &json!({"name": "servers"}));
    let rule = json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "22", "ipVersion": 4});
    let added = rest.post(&format!("/security-groups/{group}/rules"), &json!({"rules": [rule]}));
    assert_eq!(added.status, 200, "{added:?}");
    let server = lab.named("/vm-instances", "server");
    let nic = server["vmNics"][0]["uuid"].as_str().unwrap().to_owned();
    let path = format!("/security-groups/{group}/vm-instances/nics");
    let joined = rest.post(&path, &json!({"vmNicUuids": [nic]}));
    assert_eq!(joined.status, 200, "{joined:?}");
    tell(&rest, &l3, "All");

    let listen = |port: u16| {
        lab.namespace("server").run_in(|| TcpListener::bind((ip, port))).unwrap().unwrap()
    };
    let _listeners = [listen(22), listen(23), listen(24)];
    let tried = |port: u16| {
        let connect = || TcpStream::connect_timeout(&(ip, port).into(), TRY);
        lab.namespace("client").run_in(connect).unwrap().is_ok()
    };
    assert!(wait::holds(LIMIT, || tried(22)), "allowed");
    assert!(!tried(23), "denied");
    let rules = lab.named("/security-groups", "servers")["rules"].as_array().unwrap().clone();
    let rule = rules.into_iter().find(|rule| rule["dstPortRange"] == "22").unwrap();
    let opened = of_port(&lab, "h1", 22).remove(0);
    let denied = of_port(&lab, "h1", 23).remove(0);
    let common = |line: &Value| {
        assert_eq!((&line["nic"], &line["instance"]), (&json!(nic), &server["uuid"]), "{line:#}");
        assert_eq!((&line["source"], &line["destination"]), (&json!("10.6.0.22"), &json!(ip)));
        assert_eq!((&line["direction"], &line["protocol"]), (&json!("ingress"), &json!(6)));
    };
    [&opened, &denied].into_iter().for_each(common);
    assert_eq!((&opened["verdict"], &opened["rule"]), (&json!("new"), &rule["uuid"]), "{opened:#}");
    assert_eq!(opened["group"], json!(group));
    assert_eq!(
        (&denied["verdict"], &denied["reason"]),
        (&json!("denied"), &json!("policy_ingress"))
    );
    assert!(denied["rule"].is_null(), "no rule says so, but the policy: {denied:#}");
    let sent = of_port(&lab, "h2", 22).remove(0);
    assert_eq!((&sent["direction"], &sent["verdict"]), (&json!("egress"), &json!("new")));

    // What the NIC itself says counts before its network, and the network's others go on.
    tell(&rest, &nic, "None");
    assert!(!tried(24), "denied");
    of_port(&lab, "h2", 24);
    assert!(lines(&lab, "h1").iter().all(|line| line["destinationPort"] != 24));
}
