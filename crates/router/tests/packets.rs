//! A router between an inside and an outside, with real packets. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use hostnet::{
    Arp, VethSpec,
    scratch::{Scratch, root_or_skip},
};
use model::Mac;
use netloom_router::{
    Desired, Eip, Forwarding, Machine, Nic, Protocol, Role, Service, SourceNat, announce,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;
use uuid::Uuid;

const PUBLIC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GUEST: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// How long to wait for what must come; what must not come is waited for as long as [`REFUSED`].
const PATIENCE: Duration = Duration::from_secs(10);
const REFUSED: Duration = Duration::from_millis(300);

/// Two guests of a network behind the router, two clients outside.
struct World {
    router: Scratch,
    inside: Vec<Scratch>,
    outside: Vec<Scratch>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A machine on one side of the router: a namespace on a bridge of the side's.
async fn station(
    (bridge, number): (&Scratch, u8),
    addresses: &[(&str, u8)],
    gateways: &[&str],
) -> Scratch {
    let name = format!("s{number}");
    let station = Scratch::new(&name).unwrap();
    cable((bridge, &name, number), &station, Mac([2, 0, 0, 0, 1, number])).await;
    let netlink = station.netlink().await.unwrap();
    let device = netlink.existing("eth0").await.unwrap().index;
    netlink.set_up(device).await.unwrap();
    let lo = netlink.existing("lo").await.unwrap().index;
    netlink.set_up(lo).await.unwrap();
    for (address, bits) in addresses {
        netlink.address_add(device, ip(address), *bits).await.unwrap();
    }
    for gateway in gateways {
        netlink.route_add_default(device, ip(gateway), 0).await.unwrap();
    }
    station
}

async fn cable((bridge, name, number): (&Scratch, &str, u8), to: &Scratch, mac: Mac) {
    let netlink = bridge.netlink().await.unwrap();
    let peer_name = if mac == PUBLIC { "pub0" } else { "eth0" };
    let spec = VethSpec {
        name,
        mac: [0xfe, 0, 0, 0, 0, number],
        arp: Arp::Off,
        peer_namespace: to,
        peer_name,
        peer_mac: mac.0,
        mtu_bytes: 1500,
    };
    let made = netlink.create_veth(&spec).await.unwrap();
    let switch = netlink.create_bridge("br0").await.unwrap();
    netlink.set_controller(made.index, switch.index).await.unwrap();
    netlink.set_up(switch.index).await.unwrap();
    netlink.set_up(made.index).await.unwrap();
}

impl World {
    async fn new() -> (World, Machine, Vec<Scratch>) {
        let (inner, outer) = (Scratch::new("inner").unwrap(), Scratch::new("outer").unwrap());
        let router = Scratch::new("router").unwrap();
        cable((&outer, "r", 1), &router, PUBLIC).await;
        cable((&inner, "r", 2), &router, GUEST).await;
        let guest = |last: u8| [(format!("10.1.0.{last}"), 24), (format!("fd01::{last:x}"), 64)];
        let client =
            |last: u8| [(format!("203.0.113.{last}"), 24), (format!("2001:db8::{last:x}"), 64)];
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for last in [5, 6] {
            let own = guest(last);
            let own: Vec<_> = own.iter().map(|(ip, bits)| (ip.as_str(), *bits)).collect();
            inside.push(station((&inner, last), &own, &["10.1.0.1", "fd01::1"]).await);
        }
        for last in [8, 9] {
            let own = client(last);
            let own: Vec<_> = own.iter().map(|(ip, bits)| (ip.as_str(), *bits)).collect();
            outside.push(station((&outer, last), &own, &[]).await);
        }
        let namespace = hostnet::Namespace::open(router.name()).unwrap();
        let machine = Machine::open(namespace).await.unwrap();
        (World { router, inside, outside }, machine, vec![inner, outer])
    }
}

fn desired(generation: u64) -> Desired {
    let nic = |mac, role, addresses: &[&str], vips: &[&str]| Nic {
        mac,
        roles: [role].into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        vips: vips.iter().map(|text| ip(text)).collect(),
        mtu_bytes: 1500,
    };
    let vips = ["203.0.113.100", "203.0.113.101", "2001:db8::100"];
    Desired {
        router: Uuid::from_u128(1),
        generation,
        nics: vec![
            nic(PUBLIC, Role::Public, &["203.0.113.1/24", "2001:db8::1/64"], &vips),
            nic(GUEST, Role::Guest, &["10.1.0.1/24", "fd01::1/64"], &[]),
        ],
        ..Desired::default()
    }
}

fn hidden() -> SourceNat {
    let (guests, to) = ("10.1.0.0/24".parse().unwrap(), ip("203.0.113.1"));
    SourceNat { nic: GUEST, guests, to }
}

fn eip(vip: &str, guest: &str) -> Eip {
    let uuid = Uuid::from_u128(7);
    Eip { uuid, vip: ip(vip), guest: ip(guest), hides_source: false }
}

fn forwarding(first: u16, last: u16, guest_first: u16) -> Forwarding {
    Forwarding {
        uuid: Uuid::from_u128(u128::from(first)),
        vip: ip("203.0.113.101"),
        protocol: Protocol::Tcp,
        first,
        last,
        guest: ip("10.1.0.6"),
        guest_first,
        allowed: None,
        hides_source: false,
    }
}

/// A server that says to each client from where it is seen.
fn serve(at: &Scratch, port: u16, is_ipv4: bool) {
    let any = if is_ipv4 { "0.0.0.0" } else { "::" };
    let listener = at.run_in(|| TcpListener::bind((ip(any), port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            std::thread::spawn(move || {
                let mut word = [0; 1];
                while stream.read_exact(&mut word).is_ok() {
                    let _ = stream.write_all(from.ip().to_string().as_bytes());
                }
            });
        }
    });
}

/// As who a client is seen there; `None` if nothing answers.
fn seen(from: &Scratch, to: &str, port: u16, patience: Duration) -> Option<String> {
    let mut stream = from
        .run_in(|| TcpStream::connect_timeout(&SocketAddr::new(ip(to), port), patience).ok())
        .unwrap()?;
    ask(&mut stream, patience)
}

fn ask(stream: &mut TcpStream, patience: Duration) -> Option<String> {
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"?").ok()?;
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
    Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
}

fn is_seen_as(from: &Scratch, to: &str, port: u16, as_who: &str) {
    assert_eq!(seen(from, to, port, PATIENCE).as_deref(), Some(as_who), "{to}:{port}");
}

fn is_refused(from: &Scratch, to: &str, port: u16) {
    assert_eq!(seen(from, to, port, REFUSED), None, "{to}:{port}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_are_hidden_while_the_service_is_on_and_cut_when_it_is_not() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let [guest, _] = &world.inside[..] else { unreachable!() };
    serve(&world.outside[0], 80, true);
    let mut wanted = desired(1);
    assert!(machine.apply(&wanted).await.problems.is_empty());
    is_refused(guest, "203.0.113.8", 80);
    wanted.source_nats.push(hidden());
    assert!(machine.apply(&wanted).await.problems.is_empty());
    is_seen_as(guest, "203.0.113.8", 80, "203.0.113.1");
    // What was open is cut, too: the kernel would go on translating it.
    let there = SocketAddr::new(ip("203.0.113.8"), 80);
    let mut open = guest.run_in(|| TcpStream::connect_timeout(&there, PATIENCE).unwrap()).unwrap();
    assert_eq!(ask(&mut open, PATIENCE).as_deref(), Some("203.0.113.1"));
    // The same again changes nothing.
    assert!(machine.apply(&wanted).await.problems.is_empty());
    assert_eq!(ask(&mut open, PATIENCE).as_deref(), Some("203.0.113.1"));
    machine.apply(&desired(2)).await;
    let before = machine.drops();
    assert_eq!(ask(&mut open, REFUSED), None);
    assert!(machine.drops()["refused"] > before["refused"], "{before:?}");
    assert_eq!(before["full"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eip_stands_for_its_guest_both_ways_and_moves_with_all_connections() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let ([first, second], [client, _]) = (&world.inside[..], &world.outside[..]) else {
        unreachable!()
    };
    for at in [first, second, client] {
        serve(at, 80, true);
        serve(at, 81, false);
    }
    let mut wanted = desired(1);
    wanted.source_nats.push(hidden());
    wanted.eips = vec![eip("203.0.113.100", "10.1.0.5"), eip("2001:db8::100", "fd01::5")];
    assert!(machine.apply(&wanted).await.problems.is_empty());
    is_seen_as(client, "203.0.113.100", 80, "203.0.113.8");
    is_seen_as(client, "2001:db8::100", 81, "2001:db8::8");
    is_seen_as(first, "203.0.113.8", 80, "203.0.113.100");
    is_seen_as(first, "2001:db8::8", 81, "2001:db8::100");
    is_seen_as(second, "203.0.113.8", 80, "203.0.113.1");
    // From inside, also to oneself.
    is_seen_as(second, "203.0.113.100", 80, "10.1.0.1");
    is_seen_as(first, "203.0.113.100", 80, "10.1.0.1");
    // No way past it.
    is_refused(second, "203.0.113.101", 80);
    let vip = SocketAddr::new(ip("203.0.113.100"), 80);
    let mut open = client.run_in(|| TcpStream::connect_timeout(&vip, PATIENCE).unwrap()).unwrap();
    assert!(ask(&mut open, PATIENCE).is_some());
    wanted.eips = vec![Eip { hides_source: true, ..eip("203.0.113.100", "10.1.0.6") }];
    assert!(machine.apply(&wanted).await.problems.is_empty());
    assert_eq!(ask(&mut open, REFUSED), None, "the old guest is cut off");
    is_seen_as(client, "203.0.113.100", 80, "10.1.0.1");
    is_seen_as(first, "203.0.113.8", 80, "203.0.113.1");
    is_refused(client, "2001:db8::100", 81);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_ports_lead_to_theirs_for_those_who_may() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let ([_, guest], [allowed, other]) = (&world.inside[..], &world.outside[..]) else {
        unreachable!()
    };
    for port in [80, 81, 1000, 1100, 2000, 2500, 3001] {
        serve(guest, port, true);
    }
    let mut wanted = desired(1);
    let only =
        |forwarding| Forwarding { allowed: Some("203.0.113.8/32".parse().unwrap()), ..forwarding };
    wanted.forwardings = vec![
        forwarding(8080, 8081, 80),
        forwarding(1000, 1100, 1000),
        only(forwarding(2000, 2500, 2000)),
        only(forwarding(4000, 4001, 3000)),
        Forwarding { protocol: Protocol::Udp, ..forwarding(8080, 8080, 90) },
    ];
    assert!(machine.apply(&wanted).await.problems.is_empty());
    for (port, from) in [(8080, other), (8081, other), (1000, other), (1100, other)] {
        is_seen_as(from, "203.0.113.101", port, "203.0.113.9");
    }
    for port in [2000, 2500, 4001] {
        is_seen_as(allowed, "203.0.113.101", port, "203.0.113.8");
        is_refused(other, "203.0.113.101", port);
    }
    for port in [8082, 80, 1101, 999] {
        is_refused(other, "203.0.113.101", port);
    }
    let server = guest.run_in(|| UdpSocket::bind("0.0.0.0:90").unwrap()).unwrap();
    let client = other.run_in(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    client.send_to(b"?", (ip("203.0.113.101"), 8080)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"!", from).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from, SocketAddr::new(ip("203.0.113.101"), 8080));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mistake_costs_nothing_else_and_is_said() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let ([first, guest], [client, _]) = (&world.inside[..], &world.outside[..]) else {
        unreachable!()
    };
    serve(guest, 80, true);
    serve(first, 80, true);
    let mut wanted = desired(1);
    wanted.eips = vec![eip("203.0.113.100", "10.1.0.5"), eip("192.0.2.1", "10.1.0.6")];
    wanted.forwardings = vec![forwarding(80, 80, 80), forwarding(70, 90, 70)];
    wanted.gateways = vec![ip("192.0.2.254")];
    let told = machine.apply(&wanted).await.problems;
    let services: BTreeMap<_, _> = told.0.iter().map(|(of, why)| (*of, why.len())).collect();
    let expected = [(Service::Network, 1), (Service::Eip, 1), (Service::PortForwarding, 1)];
    assert_eq!(services, expected.into());
    is_seen_as(client, "203.0.113.100", 80, "203.0.113.8");
    is_seen_as(client, "203.0.113.101", 80, "203.0.113.8");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_translated_never_leaves() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let ([guest, _], [client, _]) = (&world.inside[..], &world.outside[..]) else { unreachable!() };
    serve(client, 80, true);
    assert!(machine.apply(&desired(1)).await.problems.is_empty());
    // Somebody lets it through, and nothing translates it.
    let element = r#"add element inet netloom hidden4 { "eth0" . 10.1.0.0/24 }"#;
    let let_through = || std::process::Command::new("nft").arg(element).status();
    assert!(world.router.run_in(let_through).unwrap().unwrap().success());
    let mut heard = client.tap("eth0").unwrap();
    is_refused(guest, "203.0.113.8", 80);
    assert!(machine.drops()["untranslated"] > 0);
    while let Some(frame) = heard.take().unwrap() {
        // The source of an IPv4 header behind one of Ethernet.
        assert_ne!(frame.bytes.get(26..30), Some(&[10, 1, 0, 5][..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_learn_at_once_where_an_address_has_come_to() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let [client, _] = &world.outside[..] else { unreachable!() };
    let elsewhere = Mac([2, 0, 0, 0, 9, 9]);
    let neighbours = |arguments: &[&str]| {
        let run = || std::process::Command::new("ip").args(arguments).output().unwrap();
        String::from_utf8(client.run_in(run).unwrap().stdout).unwrap()
    };
    let vips = ["203.0.113.100", "2001:db8::100"];
    for vip in vips {
        let mac = elsewhere.to_string();
        neighbours(&["neigh", "add", vip, "lladdr", &mac, "dev", "eth0", "nud", "stale"]);
        assert!(neighbours(&["neigh", "show", vip]).contains(&mac));
    }
    let mut heard = client.tap("eth0").unwrap();
    assert!(machine.apply(&desired(1)).await.problems.is_empty());
    let (mut heard_of, until) = (BTreeSet::<&str>::new(), Instant::now() + PATIENCE);
    while heard_of.len() < vips.len() {
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "only {heard_of:?} were heard");
        let Some(frame) = heard.take().unwrap() else {
            hostnet::wait_for_frames(&[&heard], left).unwrap();
            continue;
        };
        heard_of.extend(vips.iter().filter(|vip| announce::frame(PUBLIC, ip(vip)) == frame.bytes));
    }
    for vip in vips {
        assert!(neighbours(&["neigh", "show", vip]).contains(&PUBLIC.to_string()), "{vip}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_makes_no_difference() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let mut wanted = desired(1);
    wanted.source_nats.push(hidden());
    wanted.eips = vec![eip("203.0.113.100", "10.1.0.5")];
    wanted.forwardings = (1..200).map(|port| forwarding(port, port, port)).collect();
    assert!(machine.apply(&desired(1)).await.problems.is_empty());
    assert!(machine.apply(&wanted).await.problems.is_empty());
    let by_steps = content(&world.router);
    let namespace = hostnet::Namespace::open(world.router.name()).unwrap();
    let mut another = Machine::open(namespace).await.unwrap();
    assert!(another.apply(&wanted).await.problems.is_empty());
    assert_same(&content(&world.router), &by_steps);
    // Somebody meddles: the change is refused, and all is made anew.
    let flush = || std::process::Command::new("nft").args(["flush", "ruleset"]).status();
    assert!(world.router.run_in(flush).unwrap().unwrap().success());
    wanted.eips.clear();
    assert!(another.apply(&wanted).await.problems.is_empty());
    let after = content(&world.router);
    assert!(machine.apply(&wanted).await.problems.is_empty());
    assert_same(&content(&world.router), &after);
}

/// States of a router, one after the other.
fn histories() -> impl Strategy<Value = Vec<Desired>> {
    let vip = select(vec!["203.0.113.100", "203.0.113.101", "203.0.113.102", "203.0.113.1"]);
    let guest = select(vec!["10.1.0.5", "10.1.0.6", "10.1.0.7"]);
    let eips = vec((vip.clone(), guest.clone(), any::<bool>()), 0..3);
    let allowed = select(vec![None, Some("203.0.113.0/24"), Some("192.0.2.7/32"), Some("::/0")]);
    let rule = (vip, guest, 1..200_u16, 0..150_u16, 1..100_u16, allowed);
    let has = (any::<bool>(), any::<bool>(), any::<bool>());
    let state = (eips, vec(rule, 0..6), has).prop_map(|(eips, forwardings, has)| {
        let (is_hidden, has_gateway, has_vips) = has;
        let mut state = desired(1);
        if is_hidden {
            state.source_nats.push(hidden());
        }
        if has_gateway {
            state.gateways.push(ip("203.0.113.8"));
        }
        if !has_vips {
            state.nics[0].vips.clear();
        }
        let eip = |(vip, guest, hides_source)| Eip { hides_source, ..eip(vip, guest) };
        state.eips = eips.into_iter().map(eip).collect();
        let one = |(vip, guest, first, more, to, allowed): (_, _, u16, u16, u16, Option<&str>)| {
            Forwarding {
                vip: ip(vip),
                guest: ip(guest),
                allowed: allowed.map(|text| text.parse().unwrap()),
                ..forwarding(first, first + more, to)
            }
        };
        state.forwardings = forwardings.into_iter().map(one).collect();
        state
    });
    vec(state, 1..5)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_history_a_wiped_router_comes_out_the_same() {
    if !root_or_skip() {
        return;
    }
    let (world, mut machine, _switches) = World::new().await;
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    for _ in 0..24 {
        let history = histories().new_tree(&mut runner).unwrap().current();
        let mut status = None;
        for state in &history {
            status = Some(machine.apply(state).await);
        }
        let by_steps = content(&world.router);
        wipe(&world.router);
        let namespace = hostnet::Namespace::open(world.router.name()).unwrap();
        machine = Machine::open(namespace).await.unwrap();
        let last = history.last().unwrap();
        assert_eq!(Some(machine.apply(last).await), status, "{history:#?}");
        assert_same(&content(&world.router), &by_steps);
        // Nothing that is possible was refused by the kernel.
        let firewall = status.unwrap().problems.0.get(&Service::Firewall).cloned();
        assert_eq!(firewall, None, "{history:#?}");
    }
}

/// Takes away all that a router's agent has made.
fn wipe(router: &Scratch) {
    for command in [
        "nft flush ruleset",
        "ip address flush dev pub0 scope global",
        "ip address flush dev eth0 scope global",
        "ip -4 route flush default",
    ] {
        let mut words = command.split(' ');
        let mut run = std::process::Command::new(words.next().unwrap());
        run.args(words).stderr(std::process::Stdio::null());
        // Fails where there is nothing.
        router.run_in(|| run.status()).unwrap().unwrap();
    }
}

/// Addresses, routes, and the packet filter, without handles, counts, and the order of elements.
fn content(router: &Scratch) -> Vec<String> {
    let said = |command: &str, arguments: &[&str]| {
        let run = || std::process::Command::new(command).args(arguments).output().unwrap();
        String::from_utf8(router.run_in(run).unwrap().stdout).unwrap()
    };
    let filter: Value = serde_json::from_str(&said("nft", &["-j", "list", "ruleset"])).unwrap();
    let objects = filter["nftables"].as_array().unwrap().iter().cloned();
    let plain = |mut object: Value| {
        for (_, fields) in object.as_object_mut().unwrap() {
            let fields = fields.as_object_mut().unwrap();
            for name in ["handle", "packets", "bytes"] {
                fields.remove(name);
            }
            if let Some(elements) = fields.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_key(ToString::to_string);
            }
        }
        object.to_string()
    };
    // Devices and addresses, without the state of the devices and the kernel's own addresses.
    let addresses = said("ip", &["-br", "address"]);
    let is_ours = |word: &&str| !word.starts_with(char::is_uppercase) && !word.starts_with("fe80");
    let mut addresses: Vec<_> = addresses.split_whitespace().filter(is_ours).collect();
    addresses.sort_unstable();
    let mut all = vec![addresses.join(" "), said("ip", &["route"])];
    all.extend(objects.map(plain));
    all
}

/// What one has and the other has not.
fn assert_same(one: &[String], other: &[String]) {
    let differs = one.iter().zip(other).find(|(a, b)| a != b);
    assert!(one.len() == other.len() && differs.is_none(), "{differs:#?}");
}
