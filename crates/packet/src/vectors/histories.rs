//! Random histories of packets, changes and time: with the flow cache and without it, each packet
//! has the same verdict, and leaves the same counters and the same connections.

use super::Memory;
use super::frame::{Ip, icmp, tcp, udp, vxlan};
use super::rules::Rule;
use super::world::{
    A, A_IFINDEX, B, B_IFINDEX, C, DOMAIN, LOCAL_VTEP, MTU, NOW, R, Station, VNI, VTEP, addr, world,
};
use crate::flow::hit;
use crate::{
    Addr, AddrKey, Behind, Direction, DropReason, Fdb, FdbKey, Flow, Meta, NeighKey, Net, NextHop,
    Packet, Port, PortKey, PrefixKey, Verdict, VtepKey, from_opened, from_port, from_tunnel,
    from_underlay,
};
use crate::{HEADER_BYTES, Opened};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::mem::swap;

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// A station sends to another one.
    Packet { from: usize, to: usize, kind: Kind, ports: (u16, u16), is_v6: bool },
    /// A station opens so many flows to another one.
    Flood { from: usize, to: usize, flows: u16 },
    /// Packets to come have a checksum filled in that ends there; 0 for none.
    FillsIn(u16),
    /// Packets to come are to be cut into segments of so many bytes; 0 for none.
    Segments(u16),
    /// Time goes by, in sixteenths of a tick.
    Passes(u64),
    /// The agent changes a table, and raises the epoch.
    Changes(Change),
    /// Packets to come are seen by the other CPU.
    OtherCpu,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp(u8),
    Udp,
    Echo,
    Fragment,
    Options,
    /// IPv6 with the addresses of IPv4, which is never on a wire.
    Mapped,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Policy(usize),
    /// Another rule set for one way of a port: one of [`rules`].
    Rules(usize, Direction, usize),
    /// Who is in which group of two, or in none.
    Member(usize, usize),
    Net(usize),
    /// Of the network: closed, open, or not known.
    Kind(u32),
    Via(usize),
    Station(usize),
    Moves,
    Address(usize),
    /// A station routes for all addresses of the others, or no longer.
    Prefix(usize),
    Vtep,
    Tunnel,
}

/// Rule sets, and what becomes of the rest.
const RULES: [(&[Rule], bool); 7] = [
    (&[], true),
    (&[], false),
    (&[Rule::accept(1).group(1)], false),
    (&[Rule::deny(2).group(2), Rule::accept(3).group(1).v6()], true),
    (&[Rule::accept(4).stateless()], false),
    (&[Rule::accept(5).group(1).stateless(), Rule::accept(6).ports(6, 80, 80)], false),
    (&[Rule::accept(7).ports(17, 81, 81), Rule::deny(8).of(17), Rule::accept(9)], false),
];

const STATIONS: [Station; 4] = [A, B, C, R];
/// R is on another host: its frames come out of the tunnel.
const REMOTE: usize = 3;
const INTERFACES: [u32; 4] = [A_IFINDEX, B_IFINDEX, 3, 9];
const DIRECT_PORT: u16 = 8_472;
const NETS: [u32; 4] = [1, 1, 2, 1];

fn event() -> impl Strategy<Value = Event> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let flags = prop_oneof![
        12 => Just(ACK),
        2 => Just(SYN),
        2 => Just(SYN | ACK),
        1 => Just(ACK | 1),
        1 => Just(20_u8),
    ];
    let kind = prop_oneof![
        16 => flags.prop_map(Kind::Tcp),
        12 => Just(Kind::Udp),
        1 => Just(Kind::Echo),
        1 => Just(Kind::Fragment),
        1 => Just(Kind::Options),
        1 => Just(Kind::Mapped),
    ];
    // Few ends, so that packets meet.
    let ends = prop_oneof![
        8 => Just((0_usize, 1_usize)),
        8 => Just((0, REMOTE)),
        1 => (0..4_usize, 0..4_usize),
    ];
    let client = prop_oneof![8 => Just(1_000_u16), 1 => Just(1_001)];
    let packet = (ends.clone(), any::<bool>(), kind, client, prop::bool::weighted(0.2)).prop_map(
        |((a, b), answers, kind, client, is_v6)| match answers {
            false => Event::Packet { from: a, to: b, kind, ports: (client, 80), is_v6 },
            true => Event::Packet { from: b, to: a, kind, ports: (80, client), is_v6 },
        },
    );
    let flood = (ends, any::<bool>(), 1..60_u16).prop_map(|((a, b), turned, flows)| {
        let (from, to) = if turned { (b, a) } else { (a, b) };
        Event::Flood { from, to, flows }
    });
    let way = prop_oneof![Just(Direction::FromPort), Just(Direction::ToPort)];
    let change = prop_oneof![
        1 => (0..3_usize).prop_map(Change::Policy),
        4 => (0..3_usize, way, 0..RULES.len()).prop_map(|(at, way, set)| Change::Rules(at, way, set)),
        3 => (0..4_usize, 0..3_usize).prop_map(|(at, group)| Change::Member(at, group)),
        1 => (0..3_usize).prop_map(Change::Net),
        1 => (1..3_u32).prop_map(Change::Kind),
        1 => (0..3_usize).prop_map(Change::Via),
        1 => (0..4_usize).prop_map(Change::Station),
        1 => Just(Change::Moves),
        1 => (0..3_usize).prop_map(Change::Address),
        1 => (0..4_usize).prop_map(Change::Prefix),
        1 => Just(Change::Vtep),
        1 => Just(Change::Tunnel),
    ];
    let passes = prop_oneof![4 => 0..4_u64, 2 => 0..40_u64, 1 => 0..4_000_u64];
    prop_oneof![
        60 => packet,
        1 => flood,
        2 => passes.prop_map(Event::Passes),
        1 => prop_oneof![Just(0_u16), Just(1_410), 1_380..1_480_u16].prop_map(Event::Segments),
        2 => prop_oneof![Just(0_u16), Just(52), Just(42), 2..80_u16].prop_map(Event::FillsIn),
        2 => change.prop_map(Event::Changes),
        4 => Just(Event::OtherCpu),
    ]
}

fn frame(from: usize, to: usize, kind: Kind, ports: (u16, u16), is_v6: bool) -> Vec<u8> {
    let (source, destination) = (STATIONS[from], STATIONS[to]);
    let (protocol, payload) = match kind {
        Kind::Tcp(flags) => (6, tcp(ports.0, ports.1, flags)),
        Kind::Echo if is_v6 => (58, icmp(128, 0, [0, 7, 0, 1], b"ping")),
        Kind::Echo => (1, icmp(8, 0, [0, 7, 0, 1], b"ping")),
        Kind::Udp | Kind::Fragment | Kind::Options | Kind::Mapped => (17, udp(ports.0, ports.1)),
    };
    let mapped = |v4: &str| format!("::ffff:{v4}");
    let mut packet = match is_v6 {
        _ if matches!(kind, Kind::Mapped) => {
            Ip::new(&mapped(source.v4), &mapped(destination.v4), protocol, payload)
        }
        true => Ip::new(source.v6, destination.v6, protocol, payload),
        false => Ip::new(source.v4, destination.v4, protocol, payload),
    };
    match kind {
        Kind::Fragment => packet.fragment = 0x2000,
        Kind::Options if !is_v6 => packet.extra = vec![1, 1, 1, 1],
        _ => {}
    }
    packet.frame(destination.mac, source.mac)
}

fn meta(from: usize, now_ns: u64, frame: &[u8]) -> Meta {
    let length = u32::try_from(frame.len()).unwrap();
    let meta = Meta { now_ns, ifindex: INTERFACES[from], length, ..Meta::default() };
    if from != REMOTE {
        return meta;
    }
    Meta { tunnelled: 1, vni: VNI, vtep: addr(VTEP), local: addr(LOCAL_VTEP), ..meta }
}

/// One run of the programs on what a station sent.
fn run(memory: &mut Memory, from: usize, meta: &Meta, frame: &[u8]) -> Verdict {
    memory.frame = frame.to_vec();
    let mut packet = Packet::default();
    match from {
        REMOTE => from_tunnel(memory, meta, &mut packet),
        _ => from_port(memory, meta, &mut packet),
    }
    packet.verdict
}

/// Makes a change, or takes it back.
fn change(memory: &mut Memory, change: Change) {
    let key = |at: usize| PortKey::untagged(INTERFACES[at]);
    let port = |memory: &mut Memory, at: usize, with: fn(&mut Port)| {
        if let Some(port) = memory.ports.get_mut(&key(at)) {
            with(port);
        }
    };
    let station = |at: usize| FdbKey::new(NETS[at], STATIONS[at].mac);
    match change {
        Change::Policy(at) => port(memory, at, |port| port.generation += 1),
        Change::Rules(at, way, set) => {
            let (rules, accepts) = RULES[set];
            memory.police(key(at), way, rules, accepts);
            port(memory, at, |port| port.generation += 1);
        }
        Change::Member(at, group) => {
            let groups: &[u32] = [&[][..], &[1], &[1, 2]][group];
            for text in [STATIONS[at].v4, STATIONS[at].v6] {
                memory.member(DOMAIN, text, groups);
            }
            memory.config.members += 1;
        }
        Change::Net(at) => port(memory, at, |port| port.net = 3 - port.net),
        Change::Kind(net) => {
            match memory.nets.remove(&net) {
                Some(kind) if kind == Net::closed() => memory.nets.insert(net, Net::open()),
                Some(_) => None,
                None => memory.nets.insert(net, Net::closed()),
            };
        }
        Change::Via(at) => port(memory, at, |port| port.flags ^= Port::PEER),
        Change::Station(at) => {
            let there = world().fdb[&station(at)];
            if memory.fdb.remove(&station(at)).is_none() {
                memory.fdb.insert(station(at), there);
            }
        }
        Change::Moves => {
            let remote = world().fdb[&station(REMOTE)];
            let moved = Fdb::local(key(1));
            let now = memory.fdb.get(&station(REMOTE)) == Some(&remote);
            memory.fdb.insert(station(REMOTE), if now { moved } else { remote });
        }
        Change::Prefix(at) => change_prefix(memory, at),
        Change::Address(at) => {
            let number = memory.ports[&key(at)].number;
            let address = AddrKey { port: number, addr: addr(STATIONS[at].v4) };
            let allowed = world().addrs[&address];
            if memory.addrs.remove(&address).is_none() {
                memory.addrs.insert(address, allowed);
            }
            let neigh = NeighKey { net: NETS[at], addr: addr(STATIONS[at].v4) };
            let there = world().neigh[&neigh];
            if memory.neigh.remove(&neigh).is_none() {
                memory.neigh.insert(neigh, there);
            }
        }
        Change::Vtep => {
            let vtep = VtepKey { vni: VNI, addr: addr(VTEP) };
            let there = world().vteps[&vtep];
            if memory.vteps.remove(&vtep).is_none() {
                memory.vteps.insert(vtep, there);
            }
        }
        Change::Tunnel => memory.config.tunnel_ifindex = 9 - memory.config.tunnel_ifindex,
    }
    memory.config.epoch += 1;
}

/// A station routes for its network, or no more.
fn change_prefix(memory: &mut Memory, at: usize) {
    let mac = STATIONS[at].mac;
    let behind = match at {
        REMOTE => Behind::remote(mac, addr(VTEP)),
        _ => Behind::local(mac, MTU),
    };
    for (prefix, bits) in [("10.0.0.0", 24), ("fd00::", 64)] {
        let key = PrefixKey::new(NETS[at], addr(prefix), bits);
        if memory.behind.insert(key, behind) == Some(behind) {
            memory.behind.remove(&key);
        }
    }
}

/// The verdict if all outer packets went through the tunnel device: it is the same packet.
fn by_device(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Underlay { vni, vtep, local, .. } => {
            let (vtep, local) = (Addr::v4_word(vtep), Addr::v4_word(local));
            Verdict::Tunnel { vni, vtep, local }
        }
        other => other,
    }
}

/// What a run has left, but for the frame and the cache.
fn left(memory: &Memory) -> Memory {
    Memory { flows: Vec::new(), shared_flows: Vec::new(), hops: BTreeMap::new(), ..memory.clone() }
}

/// Two worlds with one history.
struct Worlds {
    plain: Memory,
    cached: Memory,
    /// The flow cache of the other CPU.
    other_flows: Vec<Flow>,
    now: u64,
    checksum_end: u16,
    gso_size: u16,
    /// Packets that have found their flow.
    hits: u32,
    /// Packets out of the tunnel that were taken before the tunnel device.
    direct: u32,
}

impl Worlds {
    fn new(places: usize) -> Worlds {
        let mut cached = world().with_flows(places);
        let hop = NextHop { ifindex: 5, gateway: 1, mtu: 1_500 };
        cached.hops.insert(addr(VTEP), hop);
        let mut plain = world();
        for memory in [&mut plain, &mut cached] {
            memory.config.direct_port = DIRECT_PORT.into();
        }
        let other_flows = cached.flows.clone();
        let (checksum_end, gso_size, hits, direct) = (0, 0, 0, 0);
        Worlds { plain, cached, other_flows, now: NOW, checksum_end, gso_size, hits, direct }
    }

    fn play(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Passes(sixteenths) => self.now += sixteenths << 26,
            Event::FillsIn(end) => self.checksum_end = end,
            Event::Segments(bytes) => self.gso_size = bytes,
            Event::OtherCpu => swap(&mut self.cached.flows, &mut self.other_flows),
            Event::Changes(what) => {
                change(&mut self.plain, what);
                change(&mut self.cached, what);
            }
            Event::Packet { from, to, kind, ports, is_v6 } => {
                let frame = frame(from, to, kind, ports, is_v6);
                self.send(from, &frame, event)?;
            }
            Event::Flood { from, to, flows } => {
                for flow in 0..flows {
                    let frame = frame(from, to, Kind::Udp, (2_000 + flow, 81), false);
                    self.send(from, &frame, event)?;
                }
            }
        }
        Ok(())
    }

    /// What becomes of a frame from another host before the tunnel device, if anything.
    fn receive(&mut self, inner: &Meta, frame: &[u8]) -> Option<Verdict> {
        self.cached.frame = vxlan(VNI, (VTEP, LOCAL_VTEP), DIRECT_PORT, frame);
        let length = u32::try_from(self.cached.frame.len()).unwrap();
        let checksum_end = match inner.checksum_end {
            0 => 0,
            end => end + u16::try_from(HEADER_BYTES).unwrap(),
        };
        let Meta { now_ns, gso_size, .. } = *inner;
        let mut meta =
            Meta { now_ns, gso_size, ifindex: 5, length, checksum_end, ..Meta::default() };
        let mut packet = Packet::default();
        let opened = from_underlay(&mut self.cached, &mut meta, &mut packet);
        if opened == Opened::Foreign {
            return None;
        }
        assert_eq!(meta, *inner, "the tunnel device tells the same");
        // The shim takes the outer packet off.
        self.cached.frame = frame.to_vec();
        if opened == Opened::Admitted {
            from_opened(&mut self.cached, &meta, &mut packet);
        }
        Some(packet.verdict)
    }

    fn send(&mut self, from: usize, frame: &[u8], event: &Event) -> Result<(), TestCaseError> {
        let (checksum_end, gso_size) = (self.checksum_end, self.gso_size);
        let meta = Meta { checksum_end, gso_size, ..meta(from, self.now, frame) };
        self.cached.frame = frame.to_vec();
        let known = hit::<Memory, 0>(&mut self.cached.clone(), &meta, &mut Packet::default());
        self.hits += u32::from(known);
        let expected = run(&mut self.plain, from, &meta, frame);
        let direct = if from == REMOTE { self.receive(&meta, frame) } else { None };
        self.direct += u32::from(direct.is_some());
        let verdict = direct.unwrap_or_else(|| run(&mut self.cached, from, &meta, frame));
        prop_assert_eq!(by_device(verdict), expected, "{:?}", event);
        // Printed, the worlds would fill pages.
        prop_assert!(left(&self.cached) == left(&self.plain), "what is left differs: {:?}", event);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn the_flow_cache_changes_nothing(history in prop::collection::vec(event(), 1..300)) {
        let mut worlds = Worlds::new(16);
        for event in &history {
            worlds.play(event)?;
        }
    }
}

#[test]
fn a_conversation_is_found_in_the_flow_cache() {
    let packet = |from, to, kind| {
        let ports = if from == 0 { (1_000, 80) } else { (80, 1_000) };
        Event::Packet { from, to, kind, ports, is_v6: false }
    };
    let hits = |parts: &[&[Event]]| {
        let mut worlds = Worlds::new(4_096);
        parts.concat().iter().for_each(|event| worlds.play(event).unwrap());
        worlds.hits
    };
    for other in [1, REMOTE] {
        let opening = [
            packet(0, other, Kind::Tcp(2)),
            packet(other, 0, Kind::Tcp(18)),
            packet(0, other, Kind::Tcp(16)),
        ];
        let both = [packet(0, other, Kind::Tcp(16)), packet(other, 0, Kind::Tcp(16))];
        let end = [packet(0, other, Kind::Tcp(17)), packet(other, 0, Kind::Tcp(17))];
        let again = [packet(0, other, Kind::Tcp(2)), packet(0, other, Kind::Tcp(2))];
        // On one host, what opens leaves the flow of its answers, too.
        let answer = u32::from(other == 1);
        let opened = 1 + answer;
        assert_eq!(hits(&[&opening]), opened, "all but what opens");
        assert_eq!(hits(&[&again, &opening]), opened, "nor does what opens again");
        assert_eq!(hits(&[&opening, &both, &both, &both]), opened + 6);
        let ended = hits(&[&opening, &both, &end, &both]);
        assert_eq!(ended, opened + 6, "the end is found, and what follows");
        let change = [Event::Changes(Change::Policy(0))];
        let changed = hits(&[&opening, &both, &both, &change, &both, &both]);
        assert_eq!(changed, opened + 6, "a change ends it");
        let later = [Event::Passes(16)];
        let aged = hits(&[&opening, &both, &both, &later, &both, &both]);
        assert_eq!(aged, opened + 6, "so does time");
        let reset = [packet(0, other, Kind::Tcp(20))];
        assert_eq!(hits(&[&opening, &both, &reset, &both]), opened + 5, "an abort does not");
        let anew = hits(&[&opening, &both, &reset, &opening, &both]);
        assert_eq!(anew, opened + 7, "nor what comes anew");
        // What comes out of a tunnel stays on the CPU that its device has chosen.
        let elsewhere = hits(&[&opening, &both, &[Event::OtherCpu], &both, &both]);
        assert_eq!(elsewhere, opened + 2 + if other == 1 { 4 } else { 3 }, "on another CPU");
    }
}

#[test]
fn what_two_cpus_have_written_at_once_is_nobodys_flow() {
    let packet = |from, to, flags| {
        let ports = if from == 0 { (1_000, 80) } else { (80, 1_000) };
        Event::Packet { from, to, kind: Kind::Tcp(flags), ports, is_v6: false }
    };
    let opened = || {
        let mut worlds = Worlds::new(4_096);
        let opening = [packet(0, 1, 2), packet(1, 0, 18), packet(0, 1, 16), Event::OtherCpu];
        opening.iter().for_each(|event| worlds.play(event).unwrap());
        worlds
    };
    let hits = |mut worlds: Worlds| {
        let before = worlds.hits;
        [packet(0, 1, 16), packet(1, 0, 16)].iter().for_each(|event| worlds.play(event).unwrap());
        worlds.hits - before
    };
    assert_eq!(hits(opened()), 2);
    let spoil: [fn(&mut Flow); 5] = [
        |flow| flow.target ^= 1,
        |flow| flow.words[1] ^= 1 << 40,
        |flow| flow.ways.swap(0, 1),
        |flow| flow.mtu ^= 1,
        |flow| flow.key[7] ^= 1,
    ];
    for spoil in spoil {
        let mut worlds = opened();
        worlds.cached.shared_flows.iter_mut().filter(|flow| flow.verdict != 0).for_each(spoil);
        assert_eq!(hits(worlds), 0);
    }
}

#[test]
fn both_directions_of_a_connection_lie_side_by_side() {
    for is_v6 in [false, true] {
        for client in [1_000, 1_001, 50_000] {
            let mut worlds = Worlds::new(4_096);
            let ports = (client, 80);
            let opens = Event::Packet { from: 0, to: 1, kind: Kind::Tcp(2), ports, is_v6 };
            worlds.play(&opens).unwrap();
            let flows = &worlds.cached.shared_flows;
            let kept: Vec<usize> = (0..flows.len()).filter(|at| flows[*at].verdict != 0).collect();
            assert_eq!((kept.len(), kept[0] ^ 1), (2, kept[1]));
        }
    }
}

#[test]
fn who_comes_after_segments_waits_for_them_in_the_tunnel_device() {
    const SEGMENTS: [Event; 2] = [Event::Segments(1_400), Event::Segments(0)];
    let data = |to| Event::Packet {
        from: REMOTE,
        to,
        kind: Kind::Tcp(16),
        ports: (80, 1_000),
        is_v6: false,
    };
    let mut worlds = Worlds::new(4_096);
    let mut direct = |events: &[Event]| {
        let before = worlds.direct;
        events.iter().for_each(|event| worlds.play(event).unwrap());
        worlds.direct - before
    };
    let open = [
        Event::Packet { from: 0, to: REMOTE, kind: Kind::Tcp(2), ports: (1_000, 80), is_v6: false },
        Event::Packet {
            from: REMOTE,
            to: 0,
            kind: Kind::Tcp(18),
            ports: (80, 1_000),
            is_v6: false,
        },
    ];
    assert_eq!(direct(&open), 1);
    assert_eq!(direct(&[data(0), data(0)]), 2, "what comes by itself comes directly");
    assert_eq!(direct(&[SEGMENTS[0].clone(), data(0), SEGMENTS[1].clone(), data(0)]), 0);
    let later = Event::Passes(16);
    assert_eq!(direct(&[later.clone(), data(0), data(0)]), 0, "in the next tick, too");
    assert_eq!(
        direct(&[later.clone(), later, data(0), data(0)]),
        2,
        "then there are none any more"
    );
}

#[test]
fn an_end_that_its_senders_side_refuses_does_not_reach_the_other_side() {
    let packet = |port, flags| {
        let ports = (port, 80);
        Event::Packet { from: 0, to: 1, kind: Kind::Tcp(flags), ports, is_v6: false }
    };
    // The flood takes the place of what has ended, on one side sooner than on the other.
    let mut worlds = Worlds::new(16);
    let start = [packet(1_000, 16), packet(1_000, 20), Event::Flood { from: 0, to: 1, flows: 3 }];
    let end = [packet(1_000, 16), packet(1_000, 16), packet(1_001, 16), packet(1_000, 17)];
    start.iter().chain(&end).for_each(|event| worlds.play(event).unwrap());
    assert_eq!(worlds.plain.drops.get(&DropReason::NoConnection), Some(&1));
}
