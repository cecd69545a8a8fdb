//! From objects to packets: what the ledger puts into the maps, read by the programs themselves, decides
//! as the reference evaluator does; and a trace says so, with the rule that decided.

use std::sync::Arc;

use packet::{
    ConntrackSize, Meta, Packet, Verdict, from_port,
    vectors::{
        Memory,
        frame::{Ip, tcp, udp},
    },
};
use wire::{
    object::{Member, Port, SecurityGroup},
    policy::{Action, Way},
    question::{By, Decision, Delivered, End, FromPort, Trace},
};

use super::{policies::object_of_policy, *};
use crate::{
    converge::Outcome,
    state::Desired,
    trace::{self, Sight},
    worker::Achieved,
};

/// The ports that talk to each other, and their places in the maps.
const SENDER: u8 = 9;
const RECEIVER: u8 = 10;

/// The maps as the programs see them.
fn memory(tables: &Tables) -> Memory {
    let size = ConntrackSize { ports: 4, port_buckets: 4, common_buckets: 4 };
    let mut memory = Memory::new(size, 5);
    let Tables { nets, ports, addrs, fdb, neigh, ranges, chapters, classes, idents, .. } =
        tables.clone();
    let placed =
        (1..).zip(ports).map(|(place, (key, port))| (key, port.placed(place, place.into())));
    memory.ports = placed.collect();
    (memory.nets, memory.addrs, memory.fdb, memory.neigh) = (nets, addrs, fdb, neigh);
    (memory.ranges, memory.chapters, memory.classes, memory.idents) =
        (ranges, chapters, classes, idents);
    memory
}

fn port(holding: &Holding, which: u8) -> &Port {
    match holding.get(&ObjectKey { table: Table::Port, uuid: uuid(which.into()) }) {
        Some(Object::Port(port)) => port,
        _ => panic!("no port {which}"),
    }
}

/// Whether the programs hand a packet over to the receiver.
fn arrives(tables: &Tables, (sender, receiver): (&Port, &Port), at: usize, frame: &[u8]) -> bool {
    let mut memory = memory(tables);
    memory.frame = frame.to_vec();
    let key = tables.ports.iter().find(|(_, port)| port.number == sender.number).unwrap().0;
    let meta = Meta {
        now_ns: 60_000_000_000,
        ifindex: key.ifindex,
        length: u32::try_from(frame.len()).unwrap(),
        ..Meta::default()
    };
    let mut packet = Packet::default();
    from_port(&mut memory, &meta, &mut packet);
    match packet.verdict {
        Verdict::DeliverLocal { .. } => true,
        Verdict::Drop(reason) => {
            let name = reason.name();
            let is_policy = matches!(name, "policy_ingress" | "policy_egress");
            assert!(is_policy, "{name} from {} to {}, {at}", sender.number, receiver.number);
            false
        }
        other => panic!("{other:?}"),
    }
}

/// What the reference says.
fn judged(
    holding: &Holding,
    ends: (&Port, &Port),
    at: usize,
    is_tcp: bool,
    to: u16,
) -> judge::Passage {
    let objects = || holding.objects().values().map(|object| &**object);
    let groups: Vec<SecurityGroup> = objects()
        .filter_map(|object| match object {
            Object::SecurityGroup(group) => Some(group.clone()),
            _ => None,
        })
        .collect();
    let members: Vec<Member> = objects()
        .filter_map(|object| match object {
            Object::Member(member) => Some(member.clone()),
            _ => None,
        })
        .collect();
    let known = judge::Known { groups: &groups, members: &members };
    let shows = judge::Shows::Ports { source: 4_000, destination: to };
    let protocol = if is_tcp { 6 } else { 17 };
    let (sender, receiver) = (self::end(ends.0, known, at), self::end(ends.1, known, at));
    judge::judge_pair(&sender, &receiver, protocol, shows)
}

/// What a trace says, which has to be sure.
fn traced(
    holding: &Arc<Holding>,
    tables: &Tables,
    (sender, receiver): (&Port, &Port),
    at: usize,
    (is_tcp, to): (bool, u16),
) -> Trace {
    let ports = (1..).zip(tables.ports.clone());
    let ports = ports.map(|(place, (key, port))| (key, port.placed(place, place.into())));
    let tables = Tables { ports: ports.collect(), ..tables.clone() };
    let desired = Desired { revision: 7, lineage: None, holding: Arc::clone(holding) };
    let outcome = Outcome { processed: true, ..Outcome::default() };
    let achieved = Achieved { revision: 7, digests: holding.digests(), outcome };
    let sight = Sight { desired: &desired, achieved: Some(&achieved), live: &tables };
    let asked = FromPort {
        port: sender.uuid,
        source: Some(sender.addresses[at].ip),
        remote: receiver.addresses[at].ip,
        protocol: if is_tcp { 6 } else { 17 },
        source_port: 4_000,
        port_or_type: to,
    };
    let trace = trace::from_port(sight, &asked).unwrap();
    assert_eq!(trace.inconclusive, None, "{asked:?}: {trace:?}");
    trace
}

/// Whether a trace says what the reference says: where it ends, and what decided.
fn agrees(
    holding: &Holding,
    (sender, receiver): (&Port, &Port),
    trace: &Trace,
    passage: &judge::Passage,
) -> bool {
    let delivered = End::Delivered(Delivered { port: receiver.uuid });
    let is_end = match passage.arrives() {
        true => trace.end == delivered,
        false => {
            matches!(&trace.end, End::Dropped(dropped) if dropped.reason.starts_with("policy_"))
        }
    };
    let rule_numbered = |number: u32| {
        let objects = holding.objects().values();
        let rules = objects.flat_map(|object| match &**object {
            Object::SecurityGroup(group) => group.rules.clone(),
            _ => Vec::new(),
        });
        rules.into_iter().find(|rule| rule.number == number).map(|rule| rule.uuid)
    };
    let said = |port: &Port, way, verdict: &judge::Verdict| {
        let by = match (port.policy.is_some(), verdict.rule) {
            (false, _) => By::Nothing,
            (true, 0) => By::Policy,
            (true, _) => By::Rule,
        };
        (port.uuid, way, by, verdict.action, rule_numbered(verdict.rule), verdict.is_stateless)
    };
    let egress = [said(sender, Way::Egress, &passage.egress)];
    let ingress = passage.ingress.map(|verdict| said(receiver, Way::Ingress, &verdict));
    let told = trace.decisions.iter().map(|decision| {
        let Decision { port, way, by, action, rule, is_stateless, .. } = decision;
        (*port, *way, *by, *action, *rule, *is_stateless)
    });
    is_end && told.eq(egress.into_iter().chain(ingress))
}

fn end<'a>(port: &'a Port, known: judge::Known<'a>, at: usize) -> judge::End<'a> {
    let address = &port.addresses[at];
    let policy = port.policy.as_ref();
    judge::End { policy, known, address: address.ip, domain: address.domain }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn packets_pass_as_the_reference_says(
        variants in proptest::array::uniform3(any::<u8>()),
        ways in any::<u16>(),
        ports in proptest::array::uniform2((64..=u8::MAX, any::<bool>())),
        members in proptest::array::uniform2(0..16_u8),
        ports_to in proptest::collection::vec(prop_oneof![Just(80_u16), Just(81), any::<u16>()], 4),
    ) {
        let mut holding = Holding::default();
        holding.upsert(object_of_policy(8, 0));
        for (which, variant) in (0..).zip(variants) {
            let Object::SecurityGroup(mut group) = object_of_policy(which, variant) else {
                unreachable!("a group")
            };
            // 0 is no rule's number.
            group.rules.iter_mut().for_each(|rule| rule.number += 1);
            let all = group.rules.clone();
            for (at, rule) in (0_u32..).zip(&mut group.rules) {
                let is_out = ways >> (u32::from(which) * 4 + at) & 1 == 1;
                rule.way = if is_out { Way::Egress } else { Way::Ingress };
            }
            // What is said of IPv4 is said of IPv6, too, but for addresses.
            let all = all.into_iter().filter(|rule| rule.addresses.is_empty());
            group.rules.extend(all.map(|rule| wire::policy::Rule {
                is_v6: true,
                number: rule.number + 1_000,
                ..rule
            }));
            holding.upsert(Object::SecurityGroup(group));
        }
        let mut ties = Ties::default();
        for (which, ((variant, accepts), member)) in (SENDER..).zip(ports.into_iter().zip(members)) {
            let Object::Port(mut port) = object_of_policy(which, variant) else {
                unreachable!("a port")
            };
            let addresses = port.addresses.iter();
            let addresses = addresses.map(|at| wire::policy::MemberAddress { ip: at.ip, domain: at.domain });
            let groups = (0..4).filter(|group| member >> group & 1 == 1).collect();
            let (of, addresses) = (uuid(100 + u128::from(which)), addresses.collect());
            holding.upsert(Object::Member(Member { uuid: of, addresses, groups }));
            if let Some(policy) = &mut port.policy {
                policy.egress = if accepts { Action::Accept } else { Action::Drop };
            }
            holding.upsert(Object::Port(port));
            ties.ports.insert(uuid(which.into()), sample::plug(which.into()));
        }
        let ledger = Ledger::of(&holding, &ties);
        prop_assert_eq!(ledger.closed().count(), 0);
        let holding = Arc::new(holding);
        let ends = (port(&holding, SENDER), port(&holding, RECEIVER));
        for (at, is_tcp, to) in ports_to.iter().flat_map(|to| {
            [(0, true), (0, false), (1, true), (1, false)].map(|(at, is_tcp)| (at, is_tcp, *to))
        }) {
            let [source, destination] =
                [ends.0, ends.1].map(|port| port.addresses[at].ip.to_string());
            let payload = if is_tcp { tcp(4_000, to, 2) } else { udp(4_000, to) };
            let ip = Ip::new(&source, &destination, if is_tcp { 6 } else { 17 }, payload);
            let frame = ip.frame(packet::Mac(ends.1.mac), packet::Mac(ends.0.mac));
            let passage = judged(&holding, ends, at, is_tcp, to);
            prop_assert_eq!(
                arrives(ledger.tables(), ends, at, &frame), passage.arrives(),
                "{} to {}, TCP: {}, port {}", source, destination, is_tcp, to
            );
            let trace = traced(&holding, ledger.tables(), ends, at, (is_tcp, to));
            prop_assert!(agrees(&holding, ends, &trace, &passage), "{passage:?}: {trace:?}");
        }
    }
}
