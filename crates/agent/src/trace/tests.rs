//! What a trace tells: the way, the end, who decided, and when it is not sure.

use std::sync::Arc;

use dataplane::Tables;
use packet::PortKey;
use wire::question::Trace;

use super::*;
use crate::{converge::Outcome, kernel::Ties, ledger::Ledger, sample};

const PORT: u32 = 7;
const OTHER: u32 = 9;
/// A second port in the first network.
const NEIGHBOUR: u128 = 33;

/// A host with what it holds, all of it in effect.
struct World {
    desired: Desired,
    tables: Tables,
    achieved: Achieved,
}

impl World {
    fn new(others: impl IntoIterator<Item = Object>) -> World {
        let mut holding = sample::two_networks();
        let neighbour = sample::port(NEIGHBOUR, sample::INSTANCE, sample::NETWORK_A, 8);
        holding.upsert(neighbour);
        others.into_iter().for_each(|object| holding.upsert(object));
        let plugs = [(sample::PORT_A, PORT), (NEIGHBOUR, OTHER)];
        let ports = plugs.map(|(port, at)| (sample::uuid(port), sample::plug(at)));
        let ties = Ties { ports: ports.into(), ..Ties::default() };
        let mut ledger = Ledger::default();
        ledger.follow(&holding, &ties);
        let mut tables = ledger.tables().clone();
        for (place, port) in (1..).zip(tables.ports.values_mut()) {
            *port = port.placed(place, place.into());
        }
        let digests = holding.digests();
        let outcome = Outcome { processed: true, ..Outcome::default() };
        let achieved = Achieved { revision: 7, digests, outcome };
        let desired = Desired { revision: 7, lineage: None, holding: Arc::new(holding) };
        World { desired, tables, achieved }
    }

    fn sight(&self) -> Sight<'_> {
        Sight { desired: &self.desired, achieved: Some(&self.achieved), live: &self.tables }
    }

    fn tcp(&self, remote: [u8; 4]) -> Trace {
        from_port(self.sight(), &asked(remote)).unwrap()
    }
}

fn asked(remote: [u8; 4]) -> FromPort {
    FromPort {
        port: sample::uuid(sample::PORT_A),
        source: None,
        remote: remote.into(),
        protocol: 6,
        source_port: 0,
        port_or_type: 80,
    }
}

fn reason(trace: &Trace) -> &str {
    match &trace.end {
        End::Dropped(dropped) => &dropped.reason,
        other => panic!("{other:?}"),
    }
}

fn texts(trace: &Trace) -> Vec<String> {
    trace.steps.iter().map(|step| format!("{}: {}", step.stage, step.text)).collect()
}

#[test]
fn what_goes_to_another_host_is_told_with_its_vtep_and_arrives_there() {
    let world = World::new([]);
    let trace = world.tcp([10, 0, 0, 91]);
    assert_eq!(trace.inconclusive, None);
    let End::Sent(sent) = &trace.end else { panic!("{trace:?}") };
    assert_eq!(sent.vtep, Some([192, 0, 2, 2].into()));
    assert_eq!(sent.own, Some([192, 0, 2, 1].into()));
    assert_eq!(sent.frame.0[..12], [2, 0, 0, 0, 1, 91, 2, 0, 0, 0, 0, 5]);
    let decision = &trace.decisions[..];
    assert!(matches!(decision, [Decision { by: By::Nothing, way: Way::Egress, .. }]));
    let peer = Some(sample::uuid(sample::PEER_A));
    let route = "MAC 02:00:00:00:01:5b is behind VTEP 192.0.2.2";
    assert!(trace.steps.iter().any(|step| step.object == peer && step.text == route), "{trace:#?}");
    assert_eq!(
        texts(&trace)[..3],
        [
            "guest: 10.0.0.91 is on the guest's own link; 10.0.0.91 has MAC 02:00:00:00:01:5b",
            "classify: it comes from port 5 on interface 7",
            "classify: in network 1",
        ]
    );

    // The same the other way round.
    let mut frame = sent.frame.0.clone();
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 5]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 1, 91]);
    let [source, destination] = [[10, 0, 0, 91], [10, 0, 0, 5]];
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    let comes = |vtep: [u8; 4]| Arrival {
        network: sample::uuid(sample::NETWORK_A),
        vtep: Some(vtep.into()),
        frame: Bytes(frame.clone()),
    };
    let trace = arrival(world.sight(), &comes([192, 0, 2, 2])).unwrap();
    let port = sample::uuid(sample::PORT_A);
    assert_eq!(trace.end, End::Delivered(Delivered { port }), "{trace:#?}");
    assert_eq!(trace.decisions.iter().map(|said| said.way).collect::<Vec<_>>(), [Way::Ingress]);
    let trace = arrival(world.sight(), &comes([192, 0, 2, 9])).unwrap();
    assert_eq!(reason(&trace), "unknown_vtep");
}

#[test]
fn the_guest_sends_to_whom_it_would_find() {
    let world = World::new([]);
    for (remote, expected, said) in [
        ([10, 0, 0, 77], "unknown_destination", "nobody in the network has it"),
        ([10, 9, 0, 1], "unknown_destination", "it asks for its gateway 10.0.0.1"),
        ([10, 0, 0, 5], "hairpin", "on the guest's own link"),
    ] {
        let trace = world.tcp(remote);
        assert_eq!(reason(&trace), expected, "{trace:#?}");
        assert!(texts(&trace)[0].contains(said), "{trace:#?}");
        assert!(trace.decisions.is_empty() && trace.inconclusive.is_none(), "{trace:#?}");
    }
    let port = sample::uuid(NEIGHBOUR);
    assert_eq!(world.tcp([10, 0, 0, 8]).end, End::Delivered(Delivered { port }));
    // An address that it routes for, and one that it has not got.
    let of = |source: [u8; 4]| FromPort { source: Some(source.into()), ..asked([10, 0, 0, 8]) };
    let trace = from_port(world.sight(), &of([192, 168, 5, 1])).unwrap();
    assert_eq!(trace.end, End::Delivered(Delivered { port }), "{trace:#?}");
    assert_eq!(reason(&from_port(world.sight(), &of([10, 0, 0, 66])).unwrap()), "spoofed_address");
    let six = FromPort {
        source: Some([10, 0, 0, 5].into()),
        remote: "fd00::8".parse().unwrap(),
        ..asked([0; 4])
    };
    assert!(from_port(world.sight(), &six).unwrap_err().contains("two families"));
}

#[test]
fn every_protocol_makes_a_frame() {
    let world = World::new([]);
    let port = sample::uuid(NEIGHBOUR);
    for (remote, protocol) in
        [("10.0.0.8", 1), ("fd00::8", 58), ("10.0.0.8", 132), ("fd00::8", 47), ("fd00::8", 17)]
    {
        let remote = remote.parse().unwrap();
        let asked = FromPort { remote, protocol, port_or_type: 0, ..asked([0; 4]) };
        let trace = from_port(world.sight(), &asked).unwrap();
        assert_eq!(trace.end, End::Delivered(Delivered { port }), "{trace:#?}");
        assert_eq!((trace.decisions.len(), &trace.inconclusive), (2, &None), "{trace:#?}");
    }
}

#[test]
fn what_is_not_in_effect_is_inconclusive() {
    let rule = sample::rule(3, Action::Accept, Some(80));
    let neighbour = sample::port(NEIGHBOUR, sample::INSTANCE, sample::NETWORK_A, 8);
    let filtered =
        || [sample::group(101, vec![rule.clone()]), sample::filtered(neighbour.clone(), &[101])];
    let world = World::new(filtered());
    let trace = world.tcp([10, 0, 0, 8]);
    assert_eq!((&trace.inconclusive, trace.decisions.len()), (&None, 2), "{trace:#?}");
    let rule = Some(sample::uuid(3));
    assert_eq!((trace.decisions[1].rule, trace.decisions[1].by), (rule, By::Rule));
    let of = |world: &World| world.tcp([10, 0, 0, 8]).inconclusive.unwrap_or_default();

    // The objects say something else by now, and the maps do not.
    let mut late = World::new(filtered());
    let mut holding = (*late.desired.holding).clone();
    holding.upsert(sample::group(101, Vec::new()));
    late.desired.holding = Arc::new(holding);
    assert!(of(&late).contains("not all that it holds is in effect"));
    late.achieved.digests = late.desired.holding.digests();
    assert!(of(&late).contains("other rules"));

    let mut broken = World::new(filtered());
    broken.tables.ranges.clear();
    assert!(of(&broken).contains("not all of its rules"));
    let mut failed = World::new(filtered());
    failed.achieved.outcome.failed.insert(sample::uuid(NEIGHBOUR), "no room".to_owned());
    assert!(of(&failed).contains("no room"));
    let mut new = World::new([]);
    new.tables.ports.remove(&PortKey::untagged(PORT));
    assert_eq!((reason(&new.tcp([10, 0, 0, 8])), of(&new).is_empty()), ("unknown_port", false));
    let sight = Sight { achieved: None, ..world.sight() };
    let trace = from_port(sight, &asked([10, 0, 0, 8])).unwrap();
    assert!(trace.inconclusive.unwrap().contains("just started"));
    let nobody = FromPort { port: sample::uuid(99), ..asked([10, 0, 0, 8]) };
    assert!(from_port(world.sight(), &nobody).is_err());
}

#[test]
fn programs_that_decide_otherwise_are_found_out() {
    let neighbour = sample::port(NEIGHBOUR, sample::INSTANCE, sample::NETWORK_A, 8);
    let world = World::new([sample::filtered(neighbour, &[])]);
    let decided = |explained| Side {
        port: match world
            .desired
            .holding
            .get(&ObjectKey { table: Table::Port, uuid: sample::uuid(NEIGHBOUR) })
        {
            Some(Object::Port(port)) => port,
            other => panic!("{other:?}"),
        },
        way: Way::Ingress,
        explained,
    };
    let named = |number, action| {
        let (rule, group) = (None, None);
        Explained::Decided(policy::Named { number, rule, group, action, is_stateless: false })
    };
    let drop = |reason, rule| Drop {
        reason,
        entry: Entry::FromPort,
        port: packet::Concerned::default(),
        rule,
    };
    let ingress = |rule| Some(drop(DropReason::PolicyIngress, rule));
    for (explained, dropped, agrees) in [
        (named(4, Action::Drop), ingress(4), true),
        (named(4, Action::Drop), ingress(5), false),
        (named(4, Action::Drop), None, false),
        (named(4, Action::Accept), None, true),
        (named(4, Action::Accept), ingress(4), false),
        (named(4, Action::Accept), Some(drop(DropReason::PolicyEgress, 4)), true),
        (Explained::Unfiltered, None, true),
        (Explained::Unfiltered, ingress(0), false),
        (Explained::Closed, ingress(0), true),
        (Explained::Closed, None, false),
    ] {
        let said = format!("{explained:?}, {dropped:?}");
        let differs = decided(explained).contradicts(dropped.as_ref());
        assert_eq!(differs.is_none(), agrees, "{said}: {differs:?}");
    }
}
