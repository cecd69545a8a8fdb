//! A guest that moves from one host to another with its address, under traffic. Needs root.
//!
//! The guest stands for a VM that a hypervisor moves: its own device, `eth0`, and its sockets stay, and
//! the cable behind it is another one from one moment to the next.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    frames::{Wire, arp, echo, ethernet, udp},
    gre,
    guest::{Guest, ip},
    machine::drops,
    networks,
    rest::Answer,
    root_or_skip, three_hosts,
    traffic::{Ping, Probes, Traffic, one_packet_passes, ping},
};
use serde_json::{Value, json};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const VMS: [&str; 3] = ["red-1", "red-2", "red-3"];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const RED_2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
const RED_3: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);
/// How long something that must not arrive is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long traffic goes on before and after something is done.
const WHILE: Duration = Duration::from_millis(700);
/// How long a connection may stand still: servers and agents take their time to come back.
const STANDS: Duration = Duration::from_secs(20);
/// Of probes every 10 ms, so many may be lost by a move.
const LOST_MAX: usize = 20;

/// A lab of three hosts with a VM of the network red on each, and a guest with a cable to each host.
struct Stage {
    lab: TestLab,
    guest: Guest,
    nic: String,
    mac: String,
}

impl Stage {
    fn new() -> Self {
        Self::of(str::to_owned)
    }

    /// The same with another topology, made of this one.
    fn of(change: impl Fn(&str) -> String) -> Self {
        let lab = TestLab::of(&change(&three_hosts()));
        let rest = lab.rest();
        let l3 = rest.uuid("/l3-networks", "red-l3");
        let made = rest.post("/nics", &json!({"l3NetworkUuid": l3, "ip": GUEST}));
        assert_eq!(made.status, 200, "{made:?}");
        let text = |field: &str| made.body["inventory"][field].as_str().unwrap().to_owned();
        let (nic, mac, guest) = (text("uuid"), text("mac"), Guest::new());
        // Of itself it says nothing: what comes first is for the test to say.
        let mtu = &made.body["inventory"]["mtu"];
        let bridge = "address 02:00:00:00:00:01 type bridge forward_delay 0";
        guest.ip(&format!("link add eth0 mtu {mtu} {bridge}"));
        guest.ip(&format!("link set eth0 address {mac} addrgenmode none"));
        guest.ip(&format!("address add {GUEST}/24 dev eth0"));
        guest.ip("link set eth0 up");
        for host in HOSTS {
            let far = format!("to-{host}");
            let cable = format!(
                "link add {} mtu {mtu} type veth peer name {far} mtu {mtu} netns {}",
                device(host),
                guest.namespace.name()
            );
            ip(&lab.namespace(host), &cable);
            guest.ip(&format!("link set {far} addrgenmode none"));
        }
        Self { lab, guest, nic, mac }
    }

    /// Sends a message about the NIC, and waits so many seconds for what becomes of it.
    fn act(&self, seconds: u32, body: &Value) -> Answer {
        let path = format!("/vm-instances/nics/{}/actions", self.nic);
        let rest = self.lab.rest().with("prefer", &format!("wait={seconds}"));
        rest.send("PUT", &path, &body.to_string()).unwrap()
    }

    fn done(&self, message: &str, host: Option<&str>) {
        let params = match host {
            Some(host) => {
                json!({"hostUuid": self.lab.rest().uuid("/hosts", host), "device": device(host)})
            }
            None => json!({}),
        };
        let answer = self.act(30, &json!({message: params}));
        assert_eq!(answer.status, 200, "{message}: {answer:?}");
    }

    /// The guest is plugged in on a host, and reaches all VMs.
    fn plugged(&self, host: &str) {
        self.done("plugVmNic", Some(host));
        self.lab.ip(host, &format!("link set {} up", device(host)));
        self.cable(host);
        self.lab.settle(&HOSTS);
        for vm in VMS {
            assert_eq!(ping(&self.lab.namespace(vm), GUEST.into(), 1400), Ping::Answered, "{vm}");
        }
    }

    /// The move to a host is prepared.
    fn bound(&self, host: &str) {
        self.done("bindVmNic", Some(host));
        self.lab.ip(host, &format!("link set {} up", device(host)));
        self.lab.settle(&HOSTS);
    }

    /// From now on the guest is behind this cable.
    fn cable(&self, host: &str) {
        for other in HOSTS.into_iter().filter(|other| *other != host) {
            self.guest.ip(&format!("link set to-{other} nomaster"));
        }
        self.guest.ip(&format!("link set to-{host} master eth0 up"));
    }

    /// As QEMU announces a machine that goes on here (`announce_self`): a RARP request.
    fn announce(&self) {
        let wire = Wire::open(&self.guest.namespace);
        let none = Ipv4Addr::UNSPECIFIED;
        wire.send(&ethernet([0xff; 6], wire.mac, 0x8035, &arp(3, wire.mac, none, none)));
    }

    /// The NIC as the API shows it.
    fn shown(&self) -> Value {
        let found = self.lab.rest().all("/vm-instances/nics");
        found.into_iter().find(|nic| nic["uuid"] == *self.nic).unwrap()
    }

    /// Waits until the server knows that the NIC is on this host, and nothing is left elsewhere.
    fn arrived(&self, host: &str) {
        let uuid = json!(self.lab.rest().uuid("/hosts", host));
        assert!(wait::holds(LIMIT, || self.shown()["hostUuid"] == uuid), "{}", self.shown());
        self.lab.settle(&HOSTS);
        let shown = self.shown();
        assert_eq!(
            (&shown["pendingHostUuid"], &shown["notInEffect"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(shown["device"], *device(host));
        for other in HOSTS {
            let guarded = if other == host { [1, 1] } else { [0, 0] };
            let namespace = self.lab.namespace(other);
            assert_eq!(programs(&namespace, &device(other)), guarded, "{other}");
            self.lab.digests(other);
        }
    }

    /// Traffic between the guest and the VMs on all hosts, which they or it began.
    fn traffic(&self) -> Vec<(String, Traffic)> {
        let guest = &self.guest.namespace;
        let from = |vm: &str| {
            let traffic =
                Traffic::with_patience(&self.lab.namespace(vm), guest, GUEST.into(), STANDS);
            (format!("{vm} to guest"), traffic)
        };
        let mut all: Vec<_> = VMS.into_iter().map(from).collect();
        let red_3 = self.lab.namespace("red-3");
        let back = Traffic::with_patience(guest, &red_3, RED_3.into(), STANDS);
        all.push(("guest to red-3".to_owned(), back));
        all
    }
}

/// The name of the cable's end on a host.
fn device(host: &str) -> String {
    format!("vnet-{host}")
}

/// How many programs a device has.
fn programs(host: &Namespace, device: &str) -> [usize; 2] {
    let count = |side| SchedClassifier::query_tcx(device, side).map_or(0, |(_, found)| found.len());
    host.run_in(|| [count(TcAttachType::Ingress), count(TcAttachType::Egress)]).unwrap()
}

/// Whether each of these carries more than what may be under way.
fn goes_on(all: &[(String, Traffic)]) -> bool {
    let before: Vec<u64> = all.iter().map(|(_, traffic)| traffic.bytes()).collect();
    wait::holds(LIMIT, || {
        all.iter().zip(&before).all(|((_, traffic), before)| traffic.bytes() > before + 50_000)
    })
}

/// No connection was lost; how many probes were, which is told.
fn finished(what: &str, all: Vec<(String, Traffic)>) -> Vec<Probes> {
    let finish = |(who, traffic): (String, Traffic)| {
        let probes = traffic.finish();
        let gap = probes.lost * 10;
        println!("{what}: {who}: {} of {} probes lost, about {gap} ms", probes.lost, probes.sent);
        probes
    };
    all.into_iter().map(finish).collect()
}

fn is_short(probes: &[Probes]) {
    assert!(probes.iter().all(|probes| probes.lost <= LOST_MAX), "{probes:?}");
}

#[test]
fn a_guest_moves_between_hosts_and_its_connections_go_on() {
    if !root_or_skip() {
        return;
    }
    goes_round(&Stage::new());
}

/// What the old host hands on comes out of GRE and goes on in it.
#[test]
fn a_guest_moves_in_gre() {
    if root_or_skip() {
        goes_round(&Stage::of(gre));
    }
}

fn goes_round(stage: &Stage) {
    stage.plugged("h1");
    for (from, to) in [("h1", "h2"), ("h2", "h3"), ("h3", "h1")] {
        stage.bound(to);
        let shown = stage.shown();
        assert_eq!(shown["device"], *device(from), "it is still there: {shown}");
        assert_eq!(shown["pendingDevice"], *device(to));
        let traffic = stage.traffic();
        traffic[0].1.run_for(WHILE);
        stage.cable(to);
        stage.announce();
        stage.arrived(to);
        traffic[0].1.run_for(WHILE);
        is_short(&finished(&format!("{from} to {to}"), traffic));
    }
    stage.lab.check();
}

/// What only a connection's entry lets through: without one, an end of TCP, or an answer to a ping, is
/// no part of anything.
#[test]
fn connections_go_along_with_a_guest_that_moves() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    stage.plugged("h1");
    let (red_3, guest) = (stage.lab.namespace("red-3"), &stage.guest.namespace);
    let listener = guest.run_in(|| TcpListener::bind((GUEST, 0))).unwrap().unwrap();
    let at = listener.local_addr().unwrap();
    let connected = red_3.run_in(|| TcpStream::connect_timeout(&at, LIMIT));
    let mut stream = connected.unwrap().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let mut said = [0; 5];
    for _ in 0..2 {
        stream.write_all(b"hello").unwrap();
        accepted.read_exact(&mut said).unwrap();
        accepted.write_all(&said).unwrap();
        stream.read_exact(&mut said).unwrap();
    }
    // A ping whose answer is yet to come.
    red_3.sysctl("net/ipv4/icmp_echo_ignore_all", "1").unwrap();
    let (asks, answers) = (Wire::open(guest), Wire::open(&red_3));
    let request = echo((GUEST, RED_3), 8, 77, b"is-asked");
    asks.send(&ethernet(answers.mac, asks.mac, 0x0800, &request));
    assert!(answers.hears(b"is-asked", LIMIT));

    stage.bound("h2");
    stage.cable("h2");
    stage.announce();
    stage.arrived("h2");
    let reply = echo((RED_3, GUEST), 0, 77, b"is-answered");
    answers.send(&ethernet(asks.mac, answers.mac, 0x0800, &reply));
    assert!(asks.hears(b"is-answered", PATIENCE * 10), "{:?}", drops(&stage.lab.data("h2")));
    // Nothing was said since. That the other end is done has to be heard.
    drop(stream);
    accepted.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    assert_eq!(accepted.read(&mut said).unwrap(), 0, "{:?}", drops(&stage.lab.data("h2")));
    red_3.sysctl("net/ipv4/icmp_echo_ignore_all", "0").unwrap();
    stage.lab.check();
}

/// From one end to the other.
fn passes((near, far): (&mut TcpStream, &mut TcpStream)) -> bool {
    let mut said = [0; 5];
    far.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    near.write_all(b"hello").and_then(|()| far.read_exact(&mut said)).is_ok()
}

/// The guest is in a group that one VM's group may reach; gives what takes that VM out of its group.
fn in_groups(stage: &Stage) -> String {
    let rest = stage.lab.rest();
    networks::groups(&rest, &rest.uuid("/l3-networks", "red-l3"));
    let [guests, clients] =
        ["guests", "clients"].map(|name| rest.made("/security-groups", &json!({"name": name})));
    let rule = json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "7000",
        "remoteSecurityGroupUuid": clients});
    rest.made(&format!("/security-groups/{guests}/rules"), &json!({"rules": [rule]}));
    let client = stage.lab.named("/vm-instances", "red-2")["vmNics"][0]["uuid"].clone();
    let client = client.as_str().unwrap();
    for (group, nic) in [(&guests, stage.nic.as_str()), (&clients, client)] {
        let members = json!({"vmNicUuids": [nic]});
        rest.made(&format!("/security-groups/{group}/vm-instances/nics"), &members);
    }
    format!("/security-groups/{clients}/vm-instances/nics?vmNicUuids={client}")
}

/// What its groups allow goes on, what it has opened is remembered, and what they deny is denied at the
/// new host from its first packet on.
#[test]
fn groups_go_along_with_a_guest_that_moves() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    stage.plugged("h1");
    let leave = in_groups(&stage);
    let (red_2, red_3) = (stage.lab.namespace("red-2"), stage.lab.namespace("red-3"));
    let guest = &stage.guest.namespace;
    let connect = |(from, of): (&Namespace, &Namespace), at: (Ipv4Addr, u16)| {
        let listener = of.run_in(|| TcpListener::bind(at)).unwrap().unwrap();
        let near = from.run_in(|| TcpStream::connect_timeout(&at.into(), LIMIT)).unwrap();
        (near.unwrap(), listener.accept().unwrap().0)
    };
    let (mut client, mut served) = connect((&red_2, guest), (GUEST, 7_000));
    // Nobody may open what red-3 answers here.
    let (mut opened, mut answers) = connect((guest, &red_3), (RED_3, 7_001));
    assert!(passes((&mut client, &mut served)) && passes((&mut served, &mut client)));
    assert!(passes((&mut opened, &mut answers)) && passes((&mut answers, &mut opened)));
    let denied = |host: &str| {
        drops(&stage.lab.data(host)).get("policy_ingress").copied().unwrap_or_default()
    };
    let (intruder, heard) = (Wire::open(&red_3), Wire::open(guest));
    let frame = udp(RED_3, GUEST, 7_000, b"never-to-be-heard");
    let mut mac = [0; 6];
    for (byte, text) in mac.iter_mut().zip(stage.mac.split(':')) {
        *byte = u8::from_str_radix(text, 16).unwrap();
    }
    let intrude = || intruder.send(&ethernet(mac, intruder.mac, 0x0800, &frame));

    stage.bound("h2");
    assert_eq!(denied("h2"), 0, "it is on another host");
    intrude();
    assert!(wait::holds(LIMIT, || denied("h1") > 0));
    stage.cable("h2");
    stage.announce();
    let is_denied_there = wait::holds(LIMIT, || {
        intrude();
        denied("h2") > 0
    });
    assert!(is_denied_there, "{:?}", drops(&stage.lab.data("h2")));
    stage.arrived("h2");
    assert!(!heard.hears(b"never-to-be-heard", PATIENCE), "not one of them got through");
    // The other ends speak first: without what was remembered, that would be an opening.
    assert!(passes((&mut answers, &mut opened)), "{:?}", drops(&stage.lab.data("h2")));
    assert!(passes((&mut client, &mut served)), "{:?}", drops(&stage.lab.data("h2")));
    let _ = connect((&red_2, guest), (GUEST, 7_000));
    let before = denied("h2");
    let left = stage.lab.rest().delete(&leave);
    assert_eq!(left.status, 200, "{left:?}");
    assert!(!passes((&mut client, &mut served)), "the new host follows what changes");
    assert!(denied("h2") > before);
    assert!(passes((&mut opened, &mut answers)) && passes((&mut answers, &mut opened)));
}

#[test]
fn a_guest_moves_while_no_server_runs() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    stage.plugged("h1");
    stage.bound("h2");
    let traffic = stage.traffic();
    traffic[0].1.run_for(WHILE);
    stage.lab.kill(&["server"]);
    stage.cable("h2");
    assert!(goes_on(&traffic), "nobody has told the hosts, and they know");
    is_short(&finished("without a server", traffic));
    // Whoever has not spoken to it yet reaches it by its old host.
    let (red_1, guest) = (stage.lab.namespace("red-1"), &stage.guest.namespace);
    assert!(one_packet_passes(&red_1, guest, IpAddr::from(GUEST)));
    stage.lab.start(&["server"]);
    stage.arrived("h2");
    stage.lab.check();
}

#[test]
fn a_guest_moves_while_no_agent_and_no_server_runs() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    stage.plugged("h1");
    stage.bound("h2");
    let traffic = stage.traffic();
    traffic[0].1.run_for(WHILE);
    stage.lab.kill(&["server", "h1", "h2", "h3"]);
    stage.cable("h2");
    stage.announce();
    assert!(goes_on(&traffic), "the programs decide by themselves");
    // Agents come back before they are told anything, and keep what has come about.
    stage.lab.start(&["h1", "h2", "h3"]);
    traffic[0].1.run_for(WHILE);
    stage.lab.start(&["server"]);
    stage.arrived("h2");
    traffic[0].1.run_for(WHILE);
    is_short(&finished("without agents and server", traffic));
    stage.lab.check();
}

#[test]
fn nothing_passes_a_port_that_waits_until_its_nic_speaks() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    stage.plugged("h1");
    stage.bound("h2");
    // Somebody else at the cable that waits.
    let other = Guest::new();
    let far = "to-h2";
    stage.guest.ip(&format!("link set {far} netns {} name eth0", other.namespace.name()));
    other.configure("02:00:00:00:00:09", "10.0.0.51/24");
    let wire = Wire::open(&other.namespace);
    let counted = |host: &str, reason: &str| {
        drops(&stage.lab.data(host)).get(reason).copied().unwrap_or_default()
    };
    let before = counted("h2", "spoofed_mac");
    let own = udp(GUEST, RED_3, 5001, b"other");
    wire.send(&ethernet([2, 0, 0, 0, 0, 1], wire.mac, 0x0800, &own));
    assert!(wait::holds(LIMIT, || counted("h2", "spoofed_mac") > before));
    assert_eq!(stage.shown()["device"], *device("h1"), "that does not move it");
    for vm in VMS {
        assert_eq!(ping(&stage.lab.namespace(vm), GUEST.into(), 1400), Ping::Answered, "{vm}");
    }
    // What is for all is not for it.
    let (red_2, red_3) = (stage.lab.namespace("red-2"), stage.lab.namespace("red-3"));
    let (sender, heard) = (Wire::open(&red_2), Wire::open(&red_3));
    let frame = udp(RED_2, Ipv4Addr::new(10, 0, 0, 255), 5001, b"to-all-of-us");
    sender.send(&ethernet([0xff; 6], sender.mac, 0x0800, &frame));
    assert!(heard.hears(b"to-all-of-us", LIMIT));
    assert!(!wire.hears(b"to-all-of-us", PATIENCE), "it waits");
    // It is given up, and begun again.
    stage.done("unbindVmNic", None);
    assert!(wait::holds(LIMIT, || programs(&stage.lab.namespace("h2"), &device("h2")) == [0, 0]));
    stage.arrived("h1");
    stage.bound("h2");

    // Once it speaks there, it has no say where it was.
    let (mac, name) = (stage.mac.clone(), stage.guest.namespace.name().to_owned());
    other.ip(&format!("link set eth0 netns {name} name {far}"));
    stage.lab.kill(&["server"]);
    stage.cable("h2");
    stage.announce();
    assert_eq!(ping(&red_2, GUEST.into(), 100), Ping::Answered);
    let before = counted("h1", "moved");
    stage.guest.ip(&format!("link set to-h1 netns {} name eth0", other.namespace.name()));
    other.ip("link set eth0 down");
    other.configure(&mac, "10.0.0.50/24");
    let wire = Wire::open(&other.namespace);
    wire.send(&ethernet([2, 0, 0, 0, 0, 1], wire.mac, 0x0800, &own));
    assert!(
        wait::holds(LIMIT, || counted("h1", "moved") > before),
        "{:?}",
        drops(&stage.lab.data("h1"))
    );
    assert_eq!(ping(&red_2, GUEST.into(), 100), Ping::Answered);
    stage.lab.start(&["server"]);
    stage.arrived("h2");
    stage.lab.check();
}
