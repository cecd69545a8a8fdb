//! What a policy says, against the list of its rules, read from the first to the last.

use super::*;
use crate::maps::CtKey;
use crate::rules::FAN_OUT;
use crate::vectors::rules::{Rule, Who};
use crate::vectors::{CONNTRACK, Memory};
use crate::{Addr, IdentKey, Mac};
use proptest::prelude::*;

const DOMAIN: u32 = 7;
const NET: u32 = 1;
const KEY: PortKey = PortKey::untagged(3);

/// Few addresses and ports, so that rules meet them.
fn addr(is_v6: bool, last: u8) -> Addr {
    match is_v6 {
        false => Addr::v4([10, 0, last >> 6, last]),
        true => Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last >> 6, last]),
    }
}

fn memory() -> Memory {
    let mut memory = Memory::new(CONNTRACK, 1);
    let port = Port { number: 5, net: NET, domain: DOMAIN, mac: Mac([2; 6]), ..Port::default() };
    memory.ports.insert(KEY, port.placed(1, 1));
    memory
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Probe {
    way: Direction,
    is_v6: bool,
    remote: u8,
    protocol: u8,
    at: u16,
}

/// What the program says: verdict and rule.
fn ask_program(memory: &mut Memory, probe: Probe) -> (u32, u32) {
    let mut packet = Packet::default();
    let port = receiver(memory, &KEY, &mut packet).unwrap();
    packet.policies[SENDER] = packet.policies[RECEIVER];
    packet.path.net_in = NET;
    enter(&Meta::default(), (&port, probe.way), &mut packet);
    let [kind, code] = probe.at.to_be_bytes();
    (packet.flags, packet.code) = (kind, code);
    packet.room.key = CtKey {
        zone: 1,
        local: addr(probe.is_v6, 200),
        remote: addr(probe.is_v6, probe.remote),
        local_port: if probe.way == Direction::ToPort { probe.at } else { 9 },
        remote_port: if probe.way == Direction::FromPort { probe.at } else { 9 },
        protocol: probe.protocol,
    };
    packet.inquiry.source_net = NET;
    packet.inquiry.what = probe.way as u32;
    ask(memory, &mut packet);
    (packet.inquiry.verdict, packet.zone.rule)
}

/// What the list says.
fn ask_list(rules: &[Rule], accepts: bool, groups: &[u32], probe: Probe) -> (u32, u32) {
    let bits = |addr: Addr| u128::from_be_bytes(addr.octets());
    let has_ports = [TCP, UDP, if probe.is_v6 { ICMPV6 } else { ICMP }].contains(&probe.protocol);
    let matches = |rule: &&Rule| {
        if rule.is_v6 != probe.is_v6 {
            return false;
        }
        let who = match rule.who {
            Who::Anyone => true,
            Who::Group(group) => groups.contains(&group),
            Who::Prefix(prefix, length) => {
                let rest = if probe.is_v6 { 128 } else { 32 } - u32::from(length);
                let remote = bits(addr(probe.is_v6, probe.remote));
                bits(prefix).checked_shr(rest) == remote.checked_shr(rest)
            }
        };
        let what = match rule.protocol {
            None => true,
            Some(protocol) => {
                protocol == probe.protocol
                    && (!has_ports || (rule.ports.0..=rule.ports.1).contains(&probe.at))
            }
        };
        who && what
    };
    let (accepts, stateless, number) = rules
        .iter()
        .find(matches)
        .map_or((accepts, false, 0), |rule| (rule.accepts, rule.is_stateless, rule.number));
    let denied = match probe.way {
        Direction::ToPort => u32::from(CtSlot::DENIED_INGRESS),
        Direction::FromPort => u32::from(CtSlot::DENIED_EGRESS),
    };
    let verdict = match (accepts, stateless) {
        (true, false) => ALLOWED,
        (true, true) => STATELESS,
        (false, _) => denied,
    };
    (verdict, number)
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(TCP), Just(UDP), Just(ICMP), Just(ICMPV6), Just(47), Just(132), any::<u8>()]
}

fn number() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(u16::MAX), Just(80), 70..90_u16, any::<u16>()]
}

fn rule() -> impl Strategy<Value = Rule> {
    let who = any::<bool>().prop_flat_map(|is_v6| {
        let bits = if is_v6 { 100..=128_u8 } else { 4..=32_u8 };
        let prefix = (any::<u8>(), bits).prop_map(move |(last, bits)| {
            let (full, number) = match addr(is_v6, last) {
                addr if is_v6 => (128, u128::from_be_bytes(addr.octets())),
                addr => (32, u128::from_be_bytes(addr.octets())),
            };
            let rest = full - u32::from(bits);
            let number = number.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0);
            let prefix = match is_v6 {
                true => Addr::v6(number.to_be_bytes()),
                false => {
                    let [.., a, b, c, d] = number.to_be_bytes();
                    Addr::v4([a, b, c, d])
                }
            };
            Who::Prefix(prefix, bits)
        });
        let who = prop_oneof![Just(Who::Anyone), (0..4_u32).prop_map(Who::Group), prefix];
        who.prop_map(move |who| (is_v6, who))
    });
    let ports = (number(), number()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    (who, prop::option::of(protocol()), ports, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |((is_v6, who), protocol, ports, accepts, is_stateless)| Rule {
            number: 0,
            is_v6,
            who,
            protocol,
            ports,
            accepts,
            is_stateless,
        },
    )
}

fn probe() -> impl Strategy<Value = Probe> {
    let way = prop_oneof![Just(Direction::ToPort), Just(Direction::FromPort)];
    (way, any::<bool>(), any::<u8>(), protocol(), number())
        .prop_map(|(way, is_v6, remote, protocol, at)| Probe { way, is_v6, remote, protocol, at })
}

proptest! {
    #[test]
    fn the_first_rule_of_the_list_that_matches_decides(
        rules in prop::collection::vec(rule(), 0..24),
        accepts in any::<bool>(),
        members in prop::collection::vec(prop::collection::btree_set(0..4_u32, 0..3), 256),
        probes in prop::collection::vec(probe(), 40),
    ) {
        let rules: Vec<Rule> =
            (1..).zip(rules).map(|(number, rule)| Rule { number, ..rule }).collect();
        let mut memory = memory();
        let groups = |last: u8| -> Vec<u32> { members[usize::from(last)].iter().copied().collect() };
        for last in 0..=255 {
            let identity = crate::vectors::rules::identity(&groups(last));
            for is_v6 in [false, true].into_iter().filter(|_| identity != 0) {
                let key = IdentKey { domain: DOMAIN, addr: addr(is_v6, last) };
                memory.idents.insert(key, identity);
            }
        }
        for way in [Direction::FromPort, Direction::ToPort] {
            memory.police(KEY, way, &rules, accepts);
        }
        for probe in probes {
            let said = ask_program(&mut memory, probe);
            let expected = ask_list(&rules, accepts, &groups(probe.remote), probe);
            prop_assert_eq!(said, expected, "{:?} {:?}", probe, rules);
        }
    }

    #[test]
    fn a_number_is_in_the_last_range_that_does_not_begin_above_it(
        bounds in prop::collection::btree_set(1..=u16::MAX, 0..FAN_OUT - 1),
        numbers in prop::collection::vec(number(), 20),
        rest in any::<u16>(),
    ) {
        let mut node = crate::Node { count: 1, bounds: [rest; FAN_OUT], ..crate::Node::default() };
        node.bounds[0] = 0;
        for bound in &bounds {
            node.bounds[usize::try_from(node.count).unwrap()] = *bound;
            node.count += 1;
        }
        for number in numbers.into_iter().chain(bounds.iter().copied()) {
            let expected = bounds.iter().filter(|bound| **bound <= number).count();
            prop_assert_eq!(node.range_of(u32::from(number)), expected, "{} {:?}", number, node);
        }
    }
}

#[test]
fn ten_thousand_ranges_are_four_levels_deep() {
    let mut memory = memory();
    let ranges: Vec<(u16, Cell)> = (0..10_000_u16)
        .map(|at| (at * 6, Cell { rank: u32::from(at) << 2 | u32::from(at) & 1, rule: at.into() }))
        .collect();
    let tcp = memory.nodes(ranges);
    assert_eq!(depth(tcp), 3);
    let key = ChapterKey { ruleset: 1, selector: selector_of_class(0, false) };
    memory.chapters.insert(key, crate::Chapter { tcp, ..crate::Chapter::default() });
    memory.ports.get_mut(&KEY).unwrap().ingress = 1;
    for port in [0, 1, 5, 6, 59_993, 59_994, 59_999, u16::MAX] {
        let probe =
            Probe { way: Direction::ToPort, is_v6: false, remote: 1, protocol: TCP, at: port };
        let rule = u32::from(port / 6).min(9_999);
        let verdict = if rule & 1 == 1 { ALLOWED } else { u32::from(CtSlot::DENIED_INGRESS) };
        assert_eq!(ask_program(&mut memory, probe), (verdict, rule), "{port}");
    }
}

#[test]
fn what_is_missing_denies() {
    let mut whole = memory();
    whole.member(DOMAIN, "10.0.0.1", &[1]);
    let rules = [Rule::accept(1).group(1), Rule::accept(2).prefix("10.0.0.0", 24)];
    whole.police(KEY, Direction::ToPort, &rules, true);
    let ask = |memory: &mut Memory, remote| {
        let probe = Probe { way: Direction::ToPort, is_v6: false, remote, protocol: TCP, at: 80 };
        ask_program(memory, probe)
    };
    assert_eq!(ask(&mut whole.clone(), 1), (ALLOWED, 1));
    assert_eq!(ask(&mut whole.clone(), 2), (ALLOWED, 2));
    assert_eq!(ask(&mut whole.clone(), 70), (ALLOWED, 0));
    let denied = (u32::from(CtSlot::DENIED_INGRESS), 0);
    for remote in [1, 2, 70] {
        let mut memory = whole.clone();
        memory.chapters.retain(|key, _| key.selector & 2 != 0);
        assert_eq!(ask(&mut memory, remote), denied, "no chapter about everybody");
        let mut memory = whole.clone();
        memory.ranges.clear();
        assert_eq!(ask(&mut memory, remote), denied, "no tree");
        let mut memory = whole.clone();
        let deeper = |key: &mut u64| *key |= 3 << 62;
        memory.chapters.values_mut().for_each(|chapter| deeper(&mut chapter.tcp));
        assert_eq!(ask(&mut memory, remote), denied, "a tree that goes nowhere");
    }
    // Who is known to be nobody is asked for by its address.
    whole.idents.clear();
    assert_eq!(ask(&mut whole, 1), (ALLOWED, 2));
}
