//! Security groups, by real connections: who reaches whom, on one host and across two, while rules and
//! members change. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, machine, networks, rest::Rest, root_or_skip};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// How long a try may take: a refusal is seen by the drop that it is, not by this.
const TRY: Duration = Duration::from_millis(250);

/// What became of a try to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Reaches,
    /// A host has dropped it for a policy.
    Denied,
}

/// An instance that listens at some ports.
struct Node {
    name: &'static str,
    inside: Namespace,
    addresses: Vec<IpAddr>,
    _listeners: Vec<TcpListener>,
}

impl Node {
    /// Of the instance of this name, listening at each address and port.
    fn of(lab: &TestLab, name: &'static str, ports: &[u16]) -> Self {
        let inside = lab.namespace(name);
        let nic = &lab.named("/vm-instances", name)["vmNics"][0];
        let used = nic["usedIps"].as_array().unwrap();
        let ip = |used: &Value| used["ip"].as_str().unwrap().parse().unwrap();
        let addresses: Vec<IpAddr> = used.iter().map(ip).collect();
        let mut listeners = Vec::new();
        for address in addresses.iter().flat_map(|ip| ports.iter().map(|port| (*ip, *port))) {
            listeners.push(inside.run_in(|| TcpListener::bind(address)).unwrap().unwrap());
        }
        Self { name, inside, addresses, _listeners: listeners }
    }
}

/// How many frames the hosts have dropped for a policy.
fn denied(lab: &TestLab) -> u64 {
    let of = |host: &&str| machine::drops(&lab.data(host));
    let policy = |(reason, count): (&str, u64)| reason.contains("policy").then_some(count);
    HOSTS.iter().flat_map(of).filter_map(policy).sum()
}

/// What becomes of a connection.
fn outcome(lab: &TestLab, from: &Node, to: SocketAddr) -> Outcome {
    let mut found = None;
    let decided = wait::holds(LIMIT, || {
        let before = denied(lab);
        let tried = from.inside.run_in(|| TcpStream::connect_timeout(&to, TRY)).unwrap();
        found = match tried {
            Ok(_) => Some(Outcome::Reaches),
            Err(_) if denied(lab) > before => Some(Outcome::Denied),
            // Neighbours are not known yet.
            Err(_) => None,
        };
        found.is_some()
    });
    assert!(decided, "{} to {to}: neither an answer nor a drop", from.name);
    found.unwrap()
}

/// Fails unless exactly these reach each other, by the ports that they may use.
fn check(lab: &TestLab, nodes: &[Node], ports: &[u16], expected: &[(&str, &str, u16)]) {
    let mut wrong = Vec::new();
    for (from, to) in nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to))) {
        if from.name == to.name {
            continue;
        }
        for (ip, port) in to.addresses.iter().flat_map(|ip| ports.iter().map(move |p| (*ip, *p))) {
            let wanted = match expected.contains(&(from.name, to.name, port)) {
                true => Outcome::Reaches,
                false => Outcome::Denied,
            };
            let seen = outcome(lab, from, (ip, port).into());
            if seen != wanted {
                wrong.push(format!("{} to {} at {ip} port {port}: {seen:?}", from.name, to.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An L3 network with security groups.
fn guarded(rest: &Rest, name: &str, number: u8) -> String {
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": name, "poolUuid": pool}));
    let l3 = networks::l3(rest, name, &l2, number);
    networks::groups(rest, &l3);
    l3
}

fn group(rest: &Rest, name: &str) -> String {
    rest.made("/security-groups", &json!({"name": name}))
}

/// Adds rules to a group, waiting until hosts have them.
fn add(rest: &Rest, group: &str, rules: &[Value]) {
    let done = rest.post(&format!("/security-groups/{group}/rules"), &json!({"rules": rules}));
    assert_eq!(done.status, 200, "{done:?}");
}

/// From whom TCP may be opened at a port, in both families.
fn tcp(port: &str, from: Option<&str>) -> Vec<Value> {
    let rule = |version| {
        let mut rule = json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": port,
            "ipVersion": version});
        if let Some(group) = from {
            rule["remoteSecurityGroupUuid"] = group.into();
        }
        rule
    };
    [4, 6].map(rule).to_vec()
}

fn nic(lab: &TestLab, vm: &str) -> String {
    lab.named("/vm-instances", vm)["vmNics"][0]["uuid"].as_str().unwrap().to_owned()
}

fn join(lab: &TestLab, group: &str, vm: &str) {
    let path = format!("/security-groups/{group}/vm-instances/nics");
    let done = lab.rest().post(&path, &json!({"vmNicUuids": [nic(lab, vm)]}));
    assert_eq!(done.status, 200, "{done:?}");
}

fn leave(lab: &TestLab, group: &str, vm: &str) {
    let nic = nic(lab, vm);
    let path = format!("/security-groups/{group}/vm-instances/nics?vmNicUuids={nic}");
    let done = lab.rest().delete(&path);
    assert_eq!(done.status, 200, "{done:?}");
}

/// The instances of an L3 network, by host, with addresses of both families from .21 and ::21 on.
fn instances(lab: &TestLab, l3: &str, number: u8, vms: &[(&str, &str)]) {
    for ((name, host), last) in vms.iter().zip(21..) {
        let addresses = [format!("10.{number}.0.{last}"), format!("fd0{number}::{last}")];
        let addresses = addresses.map(|ip| ip.parse().unwrap());
        let made = lab.rest().create_vm(name, (l3, *host), &addresses);
        assert_eq!(made.status, 200, "{made:?}");
    }
}

/// What goes over a connection comes back.
fn passes(stream: &mut (TcpStream, TcpStream)) -> bool {
    let (near, far) = stream;
    let mut back = [0];
    let sent = near.write_all(b"x").and_then(|()| far.read_exact(&mut back));
    sent.is_ok()
}

/// The example of Neutron's documents: web servers, a database behind them, and a host to log in from.
#[test]
fn web_servers_a_database_and_a_jump_host_reach_what_their_groups_say() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::sampled();
    let rest = lab.rest();
    let l3 = guarded(&rest, "shop", 6);
    let [web, database, ssh] = ["web", "database", "ssh"].map(|name| group(&rest, name));
    let vms = [("web", "h1"), ("db", "h1"), ("jump", "h2"), ("other", "h2")];
    instances(&lab, &l3, 6, &vms);
    for (group, vm) in [(&web, "web"), (&database, "db"), (&ssh, "jump")] {
        join(&lab, group, vm);
    }
    let ports = [22, 80, 3306];
    let nodes = ["web", "db", "jump", "other"].map(|name| Node::of(&lab, name, &ports));
    let open = |to| ports.map(|port| ["web", "db", "jump"].map(|from| (from, to, port)));
    // In no group: open.
    let other = open("other").concat();
    check(&lab, &nodes, &ports, &other);

    add(&rest, &web, &tcp("80", None));
    add(&rest, &database, &tcp("3306", Some(&web)));
    add(&rest, &database, &tcp("22", Some(&ssh)));
    add(&rest, &web, &tcp("22", Some(&ssh)));
    add(&rest, &ssh, &tcp("22", None));
    let mut expected = other;
    for from in ["db", "jump", "other"] {
        expected.push((from, "web", 80));
    }
    expected.push(("web", "db", 3306));
    expected.extend([("jump", "db", 22), ("jump", "web", 22)]);
    expected.extend(["web", "db", "other"].map(|from| (from, "jump", 22)));
    check(&lab, &nodes, &ports, &expected);

    assert!(lab.compared(&HOSTS) > 0, "nothing was compared");
    // Neither agents nor the server are needed.
    lab.kill(&["server", "h1", "h2"]);
    check(&lab, &nodes, &ports, &expected);
}

/// What a rule or a member alone allowed ends with it, at the next packet; all else goes on.
#[test]
fn connections_end_with_the_rule_or_the_member_that_allowed_them_and_others_go_on() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::sampled();
    let rest = lab.rest();
    let l3 = guarded(&rest, "shop", 6);
    let [servers, clients] = ["servers", "clients"].map(|name| group(&rest, name));
    instances(&lab, &l3, 6, &[("server", "h1"), ("near", "h1"), ("far", "h2")]);
    join(&lab, &servers, "server");
    join(&lab, &clients, "near");
    join(&lab, &clients, "far");
    add(&rest, &servers, &tcp("80", None));
    add(&rest, &servers, &tcp("22", Some(&clients)));
    let server = lab.namespace("server");
    let ip: IpAddr = "10.6.0.21".parse().unwrap();
    let [http, shell] =
        [80, 22].map(|port| server.run_in(|| TcpListener::bind((ip, port))).unwrap().unwrap());
    let connect = |vm: &str, listener: &TcpListener| {
        let near = netloom_tests::vm::connect(
            &lab.namespace(vm),
            (ip, listener.local_addr().unwrap().port()),
        );
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(TRY)).unwrap();
        (near, far)
    };
    let mut by_rule = ["near", "far"].map(|vm| connect(vm, &http));
    let mut by_member = ["near", "far"].map(|vm| connect(vm, &shell));
    assert!(by_rule.iter_mut().chain(&mut by_member).all(passes));

    leave(&lab, &clients, "far");
    assert!(!passes(&mut by_member[1]), "it is a client no more");
    assert!(passes(&mut by_member[0]));
    assert!(by_rule.iter_mut().all(passes));

    let rules = lab.named("/security-groups", "servers")["rules"].as_array().unwrap().clone();
    let http_rules = rules.iter().filter(|rule| rule["dstPortRange"] == "80");
    let uuids: Vec<_> =
        http_rules.map(|rule| format!("ruleUuids={}", rule["uuid"].as_str().unwrap())).collect();
    let done = rest.delete(&format!("/security-groups/rules?{}", uuids.join("&")));
    assert_eq!(done.status, 200, "{done:?}");
    assert!(by_rule.iter_mut().all(|stream| !passes(stream)), "the rule is gone");
    assert!(passes(&mut by_member[0]));
    assert!(denied(&lab) >= 3);
    lab.compared(&HOSTS);
}

/// An instance with a NIC in each of two L3 networks, at .31, which forwards between them.
fn router(lab: &TestLab, l3s: [&str; 2], host: &str) {
    let tag = |(l3, number): (&str, u8)| {
        [format!("10.{number}.0.31"), format!("fd0{number}----31")]
            .map(|ip| format!("staticIp::{l3}::{ip}"))
    };
    let host = lab.named("/hosts", host)["uuid"].clone();
    let params = json!({"name": "router", "l3NetworkUuids": l3s, "defaultL3NetworkUuid": l3s[0],
        "hostUuid": host});
    let tags = [tag((l3s[0], 6)), tag((l3s[1], 7))].concat();
    let body = json!({"params": params, "systemTags": tags});
    let rest = lab.rest().with("prefer", "wait=30");
    let made = rest.send("POST", "/vm-instances", &body.to_string()).unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let inside = lab.namespace("router");
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        inside.sysctl(setting, "1").unwrap();
    }
}

/// The router's NIC in an L3 network may send from these, beside its own addresses.
fn route(lab: &TestLab, l3: &str, prefixes: &[&str]) {
    let vm = lab.named("/vm-instances", "router");
    let nic = vm["vmNics"].as_array().unwrap().iter().find(|nic| nic["l3NetworkUuid"] == *l3);
    let path = format!("/vm-instances/nics/{}/actions", nic.unwrap()["uuid"].as_str().unwrap());
    let body = json!({"setVmNicAllowedPrefixes": {"prefixes": prefixes}}).to_string();
    let done = lab.rest().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
    assert_eq!(done.status, 200, "{done:?}");
    lab.settle(&HOSTS);
}

/// Two networks that an instance joins are one routing domain: a group of one is known in the other. What
/// it routes without joining them passes by its addresses alone. Each port tracks by itself what it sees,
/// wherever the router is (Q35 of the field's cases).
#[test]
fn a_group_counts_across_networks_as_long_as_an_instance_joins_them() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let [front, back] = [("front", 6), ("back", 7)].map(|(name, at)| guarded(&rest, name, at));
    instances(&lab, &front, 6, &[("client", "h1"), ("other", "h2")]);
    instances(&lab, &back, 7, &[("server", "h2")]);
    router(&lab, [&front, &back], "h1");
    for (vm, far, near) in [("client", 7, 6), ("other", 7, 6), ("server", 6, 7)] {
        lab.ip(vm, &format!("route add 10.{far}.0.0/24 via 10.{near}.0.31"));
        lab.ip(vm, &format!("-6 route add fd0{far}::/64 via fd0{near}::31"));
    }
    let whole = ["10.6.0.0/24", "fd06::/64"];
    route(&lab, &front, &["10.7.0.0/24", "fd07::/64"]);
    route(&lab, &back, &whole);

    let [servers, clients] = ["servers", "clients"].map(|name| group(&rest, name));
    let (by_group, by_address) = (80, 81);
    add(&rest, &servers, &tcp("80", Some(&clients)));
    let mut rules = tcp("81", None);
    for (rule, from) in rules.iter_mut().zip(whole) {
        rule["srcIpRange"] = from.into();
    }
    add(&rest, &servers, &rules);
    join(&lab, &servers, "server");
    join(&lab, &clients, "client");
    let [client, other] = ["client", "other"].map(|name| Node::of(&lab, name, &[]));
    let server = Node::of(&lab, "server", &[by_group, by_address]);
    let reaches = |from: &Node, port: u16, expected: Outcome| {
        for ip in &server.addresses {
            assert_eq!(outcome(&lab, from, (*ip, port).into()), expected, "{} {ip}", from.name);
        }
    };
    let check = |client_by_group| {
        reaches(&client, by_group, client_by_group);
        reaches(&other, by_group, Outcome::Denied);
        reaches(&client, by_address, Outcome::Reaches);
        reaches(&other, by_address, Outcome::Reaches);
    };
    check(Outcome::Reaches);
    // It goes on routing for these two, but no longer for the whole network: that is no join.
    route(&lab, &back, &["10.6.0.21/32", "10.6.0.22/32", "fd06::21/128", "fd06::22/128"]);
    check(Outcome::Denied);
    route(&lab, &back, &whole);
    check(Outcome::Reaches);
}

/// P52 of ZStack's tests: rules outlive what becomes of an instance, and change while it is stopped.
#[test]
fn p52_rules_are_kept_while_an_instance_stops_starts_and_reboots() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let l3 = guarded(&rest, "shop", 6);
    let servers = group(&rest, "servers");
    instances(&lab, &l3, 6, &[("server", "h1"), ("far", "h2")]);
    join(&lab, &servers, "server");
    add(&rest, &servers, &tcp("80", None));
    let far = Node::of(&lab, "far", &[]);
    let check = |open: &[u16]| {
        let server = Node::of(&lab, "server", &[22, 80, 81]);
        for (ip, port) in server.addresses.iter().flat_map(|ip| [22, 80, 81].map(|at| (*ip, at))) {
            let wanted = if open.contains(&port) { Outcome::Reaches } else { Outcome::Denied };
            assert_eq!(outcome(&lab, &far, (ip, port).into()), wanted, "{ip} {port}");
        }
    };
    let act = |message: &str| {
        let path = format!("/vm-instances/{}/actions", rest.uuid("/vm-instances", "server"));
        let body = json!({message: {}}).to_string();
        let done = rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
        assert_eq!(done.status, 200, "{message}: {done:?}");
    };
    check(&[80]);
    act("rebootVmInstance");
    check(&[80]);
    act("stopVmInstance");
    add(&rest, &servers, &tcp("81", None));
    act("startVmInstance");
    check(&[80, 81]);
}
