//! Who gets connections when others take what they can get: the real programs over real maps,
//! packet by packet, with a clock that the test sets. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::vectors::frame::{Ip, tcp, udp};
use netloom_dataplane::packet::{
    Addr, AddrKey, Config, ConntrackSize, DropReason, Entry, Fdb, FdbKey, Mac, Meta, Neigh,
    NeighKey, Net, Port, PortKey, Source, Vtep, VtepKey,
};
use netloom_dataplane::{Options, Tables, TestHarness};
use support::{Host, may_run};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const SYN_ACK: u8 = 0x12;
const VNI: u32 = 100;
const LOCAL_VTEP: Addr = Addr::v4([192, 0, 2, 1]);
const TUNNEL: u32 = 9;
const SECOND: u64 = 1_000_000_000;
/// More peers than any test has, and the number of the first.
const PEERS: u16 = 100;
const FIRST_PEER: u16 = 100;

/// A station: the local ports have the numbers from 1 on, peers on another host those from
/// [`FIRST_PEER`] on.
type Station = u16;

/// A host with so many ports, and peers behind a tunnel.
struct Lab {
    harness: TestHarness,
    now_ns: u64,
}

impl Lab {
    fn new(host: &Host, ports: u16, conntrack: ConntrackSize) -> Lab {
        let options = Options { conntrack, ..Options::new(host.bpffs()) };
        let mut harness = TestHarness::open(&options).unwrap();
        let vtep = Addr::v4([192, 0, 2, 2]);
        let mut tables = Tables::default();
        tables.nets.insert(1, Net::closed());
        tables.vteps.insert(VtepKey { vni: VNI, addr: vtep }, Vtep::of_host(1, LOCAL_VTEP));
        for station in (1..=ports).chain(FIRST_PEER..FIRST_PEER + PEERS) {
            let key = PortKey::untagged(ifindex(station));
            let number = u32::from(station);
            let (place, neigh) = match station <= ports {
                true => {
                    let (net, generation) = (1, 1);
                    let port =
                        Port { number, net, generation, mac: mac(station), ..Port::default() };
                    tables.ports.insert(key, port);
                    tables
                        .addrs
                        .insert(AddrKey { port: number, addr: addr(station) }, Source::default());
                    (Fdb::local(key), Neigh::local(mac(station)))
                }
                false => (Fdb::remote(VNI, vtep), Neigh::behind(vtep, mac(station))),
            };
            tables.fdb.insert(FdbKey::new(1, mac(station)), place);
            let key = NeighKey { net: 1, addr: addr(station) };
            tables.neigh.insert(key, neigh);
        }
        harness.plane.reconcile(&tables).unwrap();
        let config = harness.config().unwrap();
        harness.set_config(Config { tunnel_ifindex: TUNNEL, ..config }).unwrap();
        Lab { harness, now_ns: 1 << 50 }
    }

    fn pass(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND;
    }

    /// Sends a packet; whether it was let through.
    fn send(&mut self, from: Station, to: Station, protocol: u8, payload: Vec<u8>) -> bool {
        let frame = Ip::new(&text(from), &text(to), protocol, payload).frame(mac(to), mac(from));
        let length = u32::try_from(frame.len()).unwrap();
        let mut meta = Meta { now_ns: self.now_ns, length, ..Meta::default() };
        let entry = if from >= FIRST_PEER {
            meta.ifindex = TUNNEL;
            (meta.tunnelled, meta.vni, meta.vtep) = (1, VNI, Addr::v4([192, 0, 2, 2]));
            meta.local = LOCAL_VTEP;
            Entry::FromTunnel
        } else {
            meta.ifindex = ifindex(from);
            Entry::FromPort
        };
        let verdict = self.harness.run(entry, &meta, &frame, 1).unwrap().verdict;
        assert!((1..=3).contains(&verdict.kind), "{verdict:?}");
        verdict.kind != 1
    }

    fn tcp(
        &mut self,
        (from, source): (Station, u16),
        (to, port): (Station, u16),
        flags: u8,
    ) -> bool {
        self.send(from, to, 6, tcp(source, port, flags))
    }

    /// Sends a datagram.
    fn udp(&mut self, (from, source): (Station, u16), (to, port): (Station, u16)) -> bool {
        self.send(from, to, 17, udp(source, port))
    }

    /// Makes a connection; whether it came up.
    fn connect(&mut self, from: (Station, u16), to: (Station, u16)) -> bool {
        self.tcp(from, to, SYN) && self.tcp(to, from, SYN_ACK) && self.tcp(from, to, ACK)
    }

    /// A packet each way: neither can open anything.
    fn lives(&mut self, from: (Station, u16), to: (Station, u16)) -> bool {
        const PUSH_FIN_ACK: u8 = 0x19;
        self.tcp(from, to, PUSH_FIN_ACK) && self.tcp(to, from, PUSH_FIN_ACK)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        let counters = self.harness.plane.view().counters().unwrap();
        counters.drops.get(reason.name()).copied().unwrap_or_default()
    }
}

fn ifindex(station: Station) -> u32 {
    1_000 + u32::from(station)
}

fn mac(station: Station) -> Mac {
    let [high, low] = station.to_be_bytes();
    Mac([2, 0, 0, 0, high, low])
}

fn text(station: Station) -> String {
    format!("10.0.{}.{}", station / 200, station % 200 + 1)
}

fn addr(station: Station) -> Addr {
    Addr::from(text(station).parse::<std::net::IpAddr>().unwrap())
}

/// Each side of each port is sure of 64 connections.
const SMALL: ConntrackSize = ConntrackSize { ports: 64, port_buckets: 64, common_buckets: 256 };

#[test]
fn what_has_expired_locks_no_port_out() {
    if !may_run("what_has_expired_locks_no_port_out") {
        return;
    }
    let host = Host::enter();
    let mut lab = Lab::new(&host, 2, SMALL);
    for number in 0..17_000 {
        lab.udp((1, number), (FIRST_PEER, 53));
    }
    for number in 0..15_000 {
        lab.udp((FIRST_PEER + 1, number), (1, 9));
    }
    lab.pass(32);
    for peer in 0..50 {
        assert!(lab.connect((FIRST_PEER + peer, 40_000), (1, 80)), "peer {peer}");
        assert!(lab.connect((1, 50_000 + peer), (FIRST_PEER, 80)), "outwards {peer}");
    }
}

/// F01 of the field cases, and a flood of datagrams that nobody answers.
#[test]
fn half_open_connections_of_one_peer_shut_nobody_out() {
    if !may_run("half_open_connections_of_one_peer_shut_nobody_out") {
        return;
    }
    let host = Host::enter();
    let mut lab = Lab::new(&host, 3, SMALL);
    // From another host, and from a port of this one.
    for (attacker, client) in [(FIRST_PEER, FIRST_PEER + 1), (3, 2)] {
        for number in 0..20_000 {
            lab.tcp((attacker, number), (1, 80), SYN);
            lab.tcp((1, 80), (attacker, number), SYN_ACK);
        }
        for number in 0..5_000 {
            lab.udp((attacker, number), (1, 9));
        }
        for (seconds, port) in [(0, 1), (60, 2), (65, 3), (75, 4), (100, 5)] {
            lab.pass(seconds);
            assert!(lab.connect((client, port), (1, 80)), "{client} after {seconds} s");
            assert!(lab.connect((1, port), (client, 80)), "outwards after {seconds} s");
        }
    }
}

/// The proof of a fair table: 63 ports and a peer that take all that they can get.
#[test]
fn a_full_table_leaves_the_newcomer_its_room_and_the_victim_its_connections() {
    if !may_run("a_full_table_leaves_the_newcomer_its_room_and_the_victim_its_connections") {
        return;
    }
    const VICTIM: Station = 1;
    const NEWCOMER: Station = 64;
    let host = Host::enter();
    let mut lab = Lab::new(&host, 64, SMALL);
    // The victim's own connections, in and out, with several peers.
    for number in 0..10 {
        assert!(lab.connect((FIRST_PEER + number % 10, number), (VICTIM, 80)));
        assert!(lab.connect((VICTIM, number), (FIRST_PEER + number % 10, 443)));
    }
    // 62 ports open, and are opened to, until the table has nothing left for them.
    for port in 2..NEWCOMER {
        for number in 0..400 {
            lab.connect((port, number), (FIRST_PEER + number % 90, 443));
            lab.connect((FIRST_PEER + number % 90, number), (port, 80));
        }
    }
    let refused = lab.drops(DropReason::ConntrackPortBudget) + lab.drops(DropReason::ConntrackFull);
    assert!(refused > 10_000, "{refused} refused: the table is full");
    // One peer completes as many connections to the victim as it can, and then sends SYNs.
    let flooder = FIRST_PEER + 95;
    for number in 0..2_000 {
        lab.connect((flooder, number), (VICTIM, 80));
    }
    for number in 2_000..6_000 {
        lab.tcp((flooder, number), (VICTIM, 80), SYN);
    }
    assert!(lab.drops(DropReason::ConntrackPeerBudget) > 1_000, "the flooder is told");

    for number in 0..60 {
        assert!(lab.connect((NEWCOMER, number), (FIRST_PEER + number % 7, 443)), "out {number}");
        assert!(lab.connect((FIRST_PEER + number % 20, number), (NEWCOMER, 80)), "in {number}");
    }
    // A peer that comes late reaches the victim beside the flooder; the victim opens.
    for number in 0..5 {
        assert!(lab.connect((FIRST_PEER + 97, number), (VICTIM, 80)), "late {number}");
        assert!(lab.connect((VICTIM, 1_000 + number), (FIRST_PEER + 97, 443)), "victim {number}");
    }
    for number in 0..10 {
        assert!(lab.lives((FIRST_PEER + number % 10, number), (VICTIM, 80)), "{number} lives");
        assert!(lab.lives((VICTIM, number), (FIRST_PEER + number % 10, 443)), "{number} lives");
    }
}

/// F02 of the field cases.
#[test]
fn the_number_of_neighbours_decides_nothing() {
    if !may_run("the_number_of_neighbours_decides_nothing") {
        return;
    }
    let host = Host::enter();
    let size = ConntrackSize::of_host(24 << 30, ConntrackSize::DEFAULT_PER_PORT);
    let mut lab = Lab::new(&host, 75, size);
    for number in 0..1_000 {
        assert!(lab.connect((FIRST_PEER + number % 50, number), (1, 80)), "client {number}");
    }
    // Two minutes of 20 questions a second, each from a new source port.
    for number in 0..2_400 {
        let client = (FIRST_PEER + number % 3, 10_000 + number);
        assert!(lab.udp(client, (2, 53)) && lab.udp((2, 53), client), "question {number}");
        lab.now_ns += SECOND / 20;
    }
    for number in 0..1_000 {
        assert!(lab.lives((FIRST_PEER + number % 50, number), (1, 80)), "client {number}");
    }
}

/// F03 and F04 of the field cases, as the table sees them: on one host and across hosts.
#[test]
fn ports_are_used_again_at_once() {
    if !may_run("ports_are_used_again_at_once") {
        return;
    }
    let host = Host::enter();
    let mut lab = Lab::new(&host, 2, SMALL);
    for client in [(2, 5_000), (FIRST_PEER, 5_000)] {
        let server = (1, 80);
        for turn in 0..20 {
            assert!(lab.connect(client, server), "{client:?} turn {turn}");
            for (from, to, flags) in [
                (server, client, FIN_ACK),
                (client, server, ACK),
                (client, server, FIN_ACK),
                (server, client, ACK),
            ] {
                assert!(lab.tcp(from, to, flags), "{client:?} turn {turn}: {flags:#x}");
            }
        }
        for turn in 0..20 {
            assert!(lab.connect(client, server), "{client:?} aborted, turn {turn}");
            assert!(lab.tcp(client, server, RST));
        }
    }
}
