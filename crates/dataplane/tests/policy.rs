//! Policies between VMs of one host: who is a member, what goes to several, how long is remembered.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::vectors::Memory;
use netloom_dataplane::packet::vectors::rules::Rule;
use netloom_dataplane::packet::{Direction, DropReason, Net, Port, PortKey, Timeouts};
use netloom_dataplane::{DataPlane, Error, Options, Tables};
use std::net::UdpSocket;
use support::traffic::LIMIT;
use support::vm::{Vm, add_local, v4};
use support::{Host, may_run};

const UDP: u8 = 17;
/// UDP ports that a rule for groups is about, that everybody may speak to, and that nobody may.
const FOR_GROUP: u16 = 7_000;
const FOR_ALL: u16 = 7_001;
const FOR_NONE: u16 = 7_002;
const RULES: [Rule; 3] = [
    Rule::deny(7).group(2),
    Rule::accept(5).group(1).ports(UDP, FOR_GROUP, FOR_GROUP),
    Rule::accept(6).ports(UDP, FOR_ALL, FOR_ALL),
];

/// Two VMs of a host, the second of which has those rules.
struct World {
    vms: [Vm; 2],
    plane: DataPlane,
    sender: UdpSocket,
    _host: Host,
}

impl World {
    fn new() -> World {
        let host = Host::enter();
        let vms = [Vm::new(1), Vm::new(2)];
        let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
        for vm in &vms {
            plane.attach_port(vm.ifindex()).unwrap();
        }
        let sender = vms[0].inside.run(|| UdpSocket::bind((v4(1), 7_000)).unwrap());
        sender.set_broadcast(true).unwrap();
        World { vms, plane, sender, _host: host }
    }

    /// What the host is to hold while the first VM is in these groups.
    fn tables(&self, groups: &[u32]) -> Tables {
        let mut tables = Tables::default();
        for vm in &self.vms {
            add_local(&mut tables, vm.number, vm.ifindex(), Port::PEER);
        }
        let mut memory = Memory { ports: tables.ports.clone(), ..Memory::default() };
        // The rule set does not depend on whether the first VM is there.
        memory.member(0, "10.1.0.1", &[1]);
        memory.member(0, "10.1.0.2", &[2]);
        if !groups.is_empty() {
            memory.member(0, "10.0.0.1", groups);
        }
        let key = PortKey::untagged(self.vms[1].ifindex());
        memory.police(key, Direction::ToPort, &RULES, false);
        let Memory { ports, ranges, chapters, classes, idents, .. } = memory;
        Tables { ports, ranges, chapters, classes, idents, ..tables }
    }

    fn inbox(&self, port: u16) -> UdpSocket {
        let inbox = self.vms[1].inside.run(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        inbox.set_read_timeout(Some(LIMIT)).unwrap();
        inbox
    }

    fn drops(&self) -> u64 {
        let drops = self.plane.view().counters().unwrap().drops;
        drops.get("policy_ingress").copied().unwrap_or_default()
    }
}

#[test]
fn who_leaves_a_group_is_cut_off_at_the_next_packet() {
    if !may_run("who_leaves_a_group_is_cut_off_at_the_next_packet") {
        return;
    }
    let mut world = World::new();
    let (of_group, of_all) = (world.inbox(FOR_GROUP), world.inbox(FOR_ALL));
    // All the time there is one connection, which nobody opens anew.
    for (groups, rule) in [(&[1][..], None), (&[], Some(0)), (&[1], None), (&[2], Some(7))] {
        let tables = world.tables(groups);
        world.plane.reconcile(&tables).unwrap();
        assert!(world.plane.reconcile(&tables).unwrap().is_empty());
        let _ = world.plane.events().unwrap();
        let before = world.drops();
        for _ in 0..3 {
            world.sender.send_to(b"x", (v4(2), FOR_GROUP)).unwrap();
        }
        if let Some(rule) = rule {
            // In group 2, nothing at all passes.
            if rule == 0 {
                world.sender.send_to(b"x", (v4(2), FOR_ALL)).unwrap();
                of_all.recv(&mut [0; 8]).unwrap();
            }
            let told = world.plane.events().unwrap();
            let denied =
                told.iter().filter(|event| event.reason == Some(DropReason::PolicyIngress));
            assert_eq!(denied.map(|event| event.rule).collect::<Vec<_>>(), [rule; 3], "{groups:?}");
            assert_eq!(world.drops() - before, 3, "{groups:?}");
        } else {
            for _ in 0..3 {
                of_group.recv(&mut [0; 8]).unwrap();
            }
            assert_eq!(world.drops(), before, "{groups:?}");
        }
    }
    of_group.set_nonblocking(true).unwrap();
    assert!(of_group.recv(&mut [0; 8]).is_err(), "nothing of what was denied has come");
}

#[test]
fn a_broadcast_reaches_those_whose_policy_lets_it_in() {
    if !may_run("a_broadcast_reaches_those_whose_policy_lets_it_in") {
        return;
    }
    let mut world = World::new();
    let mut tables = world.tables(&[1]);
    tables.nets.insert(1, Net::open());
    world.plane.reconcile(&tables).unwrap();
    let (of_group, of_all, of_none) =
        (world.inbox(FOR_GROUP), world.inbox(FOR_ALL), world.inbox(FOR_NONE));
    let before = world.drops();
    for port in [FOR_NONE, FOR_GROUP, FOR_ALL] {
        world.sender.send_to(b"x", ("10.0.0.255", port)).unwrap();
    }
    of_group.recv(&mut [0; 8]).unwrap();
    of_all.recv(&mut [0; 8]).unwrap();
    of_none.set_nonblocking(true).unwrap();
    assert!(of_none.recv(&mut [0; 8]).is_err(), "what is denied does not arrive");
    assert_eq!(world.drops() - before, 1);
    let traffic = world.plane.view().counters().unwrap().traffic;
    assert!(traffic[&2].dropped_packets >= 1, "{traffic:?}");
    assert!(world.plane.view().connections().unwrap().is_empty(), "a broadcast opens none");
}

#[test]
fn connections_are_remembered_as_long_as_they_are_told_to_be() {
    if !may_run("connections_are_remembered_as_long_as_they_are_told_to_be") {
        return;
    }
    let mut world = World::new();
    world.plane.reconcile(&world.tables(&[1])).unwrap();
    let of_all = world.inbox(FOR_ALL);
    let mut left = |timeouts: Option<Timeouts>| {
        if let Some(timeouts) = timeouts {
            world.plane.set_timeouts(&timeouts).unwrap();
        }
        world.sender.send_to(b"x", (v4(2), FOR_ALL)).unwrap();
        of_all.recv(&mut [0; 8]).unwrap();
        let connections = world.plane.view().connections().unwrap();
        let udp = connections.iter().filter(|connection| connection.key.protocol == UDP);
        udp.map(|connection| connection.seconds_left).max().unwrap()
    };
    let default = Timeouts::default();
    assert!((28..=32).contains(&left(None)), "as Linux");
    assert!((995..=1_002).contains(&left(Some(Timeouts { opening: 1_000, ..default }))));
    for seconds in [0, Timeouts::MAX_SECONDS + 1] {
        let refused = world.plane.set_timeouts(&Timeouts { icmp: seconds, ..default }).unwrap_err();
        assert!(matches!(refused, Error::BadTable(_)), "{refused}");
        assert!(refused.to_string().contains("icmp"), "{refused}");
    }
}
