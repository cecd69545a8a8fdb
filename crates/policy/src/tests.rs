//! Compiled rule sets decide as their rules do, one by one; and they stay small and are made fast.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use proptest::{collection::vec, option, prelude::*, sample::select};
use wire::{
    object::{Member, SecurityGroup},
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
};

use crate::{
    Probe, RuleSet, Said, Salt, Unfit, first_match,
    fuzz::maps::Entries,
    identity,
    sample::{group, of, rule, span, tcp},
};

const SALT: Salt = Salt(0x5a17);

/// Edges of what rules name, of both families.
const ADDRESSES: [&str; 16] = [
    "0.0.0.0",
    "255.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.255",
    "10.0.1.0",
    "10.255.255.255",
    "11.0.0.0",
    "::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fd00::",
    "fd00::1",
    "fd00::ffff",
    "::ffff:10.0.0.1",
    "::fffe:ffff:ffff",
    "::1:0:0:0",
];
const PORTS: [u16; 10] = [0, 1, 22, 80, 0x0800, 0x0fff, 0x1000, 0x8000, 65_534, 65_535];
const PROTOCOLS: [u8; 7] = [0, 1, 6, 17, 47, 58, 255];
/// Groups that rules name, and one that none does.
const GROUPS: [u32; 4] = [1, 2, 3, 9];

fn addresses(is_v6: bool) -> Vec<IpAddr> {
    let all = ADDRESSES.map(|text| text.parse::<IpAddr>().unwrap());
    all.into_iter().filter(|ip| ip.is_ipv6() == is_v6).collect()
}

fn span_of_addresses(is_v6: bool) -> impl Strategy<Value = AddressSpan> {
    (select(addresses(is_v6)), select(addresses(is_v6)))
        .prop_map(|(a, b)| AddressSpan { first: a.min(b), last: a.max(b) })
}

fn span_of_ports() -> impl Strategy<Value = PortSpan> {
    let edge = || prop_oneof![4 => select(PORTS.to_vec()), 1 => any::<u16>()];
    (edge(), edge()).prop_map(|(a, b)| PortSpan { first: a.min(b), last: a.max(b) })
}

/// A rule; its number is given later.
fn a_rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Accept), Just(Action::Drop)];
    let protocol = option::weighted(0.8, select(PROTOCOLS.to_vec()));
    let ports = prop_oneof![1 => Just(Vec::new()), 2 => vec(span_of_ports(), 1..4)];
    let what = (any::<bool>(), action, protocol, ports, prop::bool::weighted(0.9));
    (what, 0..3, select(GROUPS[..3].to_vec())).prop_flat_map(|(what, remote, group)| {
        let (is_v6, action, protocol, ports, is_in) = what;
        let way = if is_in { Way::Ingress } else { Way::Egress };
        let has_ports = protocol.is_some_and(|known| [1, 6, 17, 58].contains(&known));
        let ports = if has_ports { ports } else { Vec::new() };
        let group = (remote == 1).then_some(group);
        let count = if remote == 2 { 1..4 } else { 0..1 };
        vec(span_of_addresses(is_v6), count).prop_map(move |addresses| Rule {
            is_v6,
            protocol,
            ports: ports.clone(),
            group,
            addresses,
            ..rule(1, way, action)
        })
    })
}

/// Groups, with rules whose numbers differ.
fn groups() -> impl Strategy<Value = Vec<SecurityGroup>> {
    vec((vec(a_rule(), 0..12), prop::bool::weighted(0.2)), 0..4).prop_map(|all| {
        let mut number = 0;
        let numbered = |(rules, is_stateless): (Vec<Rule>, bool)| {
            let rules = rules.into_iter().map(|rule| {
                number += 1;
                Rule { number, ..rule }
            });
            SecurityGroup { is_stateless, ..group(100, rules.collect()) }
        };
        all.into_iter().map(numbered).collect()
    })
}

/// Ports at the edges of the rules, and these.
fn ports(said: &Said<'_>) -> Vec<u16> {
    let edges = said.rules().flat_map(|(rule, _)| &rule.ports);
    let edges = edges.flat_map(|span| {
        [span.first.wrapping_sub(1), span.first, span.last, span.last.wrapping_add(1)]
    });
    edges.chain([0, u16::MAX]).collect()
}

fn remotes(is_v6: bool) -> Vec<IpAddr> {
    let beside = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => {
            let number = u32::from(*ip);
            [number.wrapping_sub(1), number, number.wrapping_add(1)].map(|n| IpAddr::V4(n.into()))
        }
        IpAddr::V6(ip) => {
            let number = u128::from(*ip);
            [number.wrapping_sub(1), number, number.wrapping_add(1)].map(|n| IpAddr::V6(n.into()))
        }
    };
    addresses(is_v6).iter().flat_map(beside).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn entries_decide_as_the_rules_do(
        groups in groups(),
        accepts in any::<bool>(),
        member_of in prop::sample::subsequence(GROUPS.to_vec(), 0..4),
        picks in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 100),
    ) {
        let groups: Vec<_> = groups.iter().collect();
        let default = if accepts { Action::Accept } else { Action::Drop };
        let said = Said { groups: &groups, way: Way::Ingress, default };
        let mut set = RuleSet::compile(&said, SALT).unwrap();
        let about = set.about(&member_of).unwrap();
        let names: Vec<u32> = set.names().collect();
        prop_assert!(about.is_empty() || member_of.iter().any(|group| names.contains(group)));
        let entries = Entries::of(&set, &about);
        let ports = ports(&said);
        for is_v6 in [false, true] {
            let remotes = remotes(is_v6);
            for (remote, port) in &picks {
                let (remote, port) = (*remote.get(&remotes), *port.get(&ports));
                for protocol in PROTOCOLS {
                    let probe = Probe { remote, groups: &member_of, protocol, port };
                    let known = (!member_of.is_empty()).then(|| identity(SALT, &member_of));
                    entries.check(&said, set.number, &probe, known);
                }
            }
        }
    }

    /// The reference is written from the documentation, and shares no code with what is here.
    #[test]
    fn rules_decide_as_the_reference_says(
        mut groups in groups(),
        accepts in any::<bool>(),
        member_of in prop::sample::subsequence(GROUPS.to_vec(), 0..4),
        picks in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 50),
    ) {
        for (at, group) in (1..).zip(&mut groups) {
            group.uuid = uuid::Uuid::from_u128(at);
        }
        let default = if accepts { Action::Accept } else { Action::Drop };
        let uuids = groups.iter().map(|group| group.uuid).collect();
        let policy = Policy { groups: uuids, ingress: default, egress: Action::Drop };
        let held: Vec<_> = groups.iter().collect();
        let said = Said { groups: &held, way: Way::Ingress, default };
        let mut set = RuleSet::compile(&said, SALT).unwrap();
        let about = set.about(&member_of).unwrap();
        let entries = Entries::of(&set, &about);
        let ports = ports(&said);
        for is_v6 in [false, true] {
            let remotes = remotes(is_v6);
            for (remote, port) in &picks {
                let (remote, port) = (*remote.get(&remotes), *port.get(&ports));
                let addresses = vec![MemberAddress { ip: remote, domain: 7 }];
                let uuid = uuid::Uuid::from_u128(99);
                let members = [Member { uuid, addresses, groups: member_of.clone() }];
                let known = judge::Known { groups: &groups, members: &members };
                for protocol in PROTOCOLS {
                    let [kind, code] = port.to_be_bytes();
                    let shows = match (protocol, is_v6) {
                        (6 | 17, _) => judge::Shows::Ports { source: 9, destination: port },
                        (1, false) | (58, true) => judge::Shows::Icmp { kind, code },
                        _ => judge::Shows::Nothing,
                    };
                    let asked = judge::Probe { domain: 7, remote, protocol, shows };
                    let expected = judge::judge(&policy, known, Way::Ingress, &asked);
                    let probe = Probe { remote, groups: &member_of, protocol, port };
                    let named = first_match(&said, &probe);
                    prop_assert_eq!(
                        (named.number, named.action, named.is_stateless),
                        (expected.rule, expected.action, expected.is_stateless)
                    );
                    let identity = (!member_of.is_empty()).then(|| identity(SALT, &member_of));
                    entries.check(&said, set.number, &probe, identity);
                }
            }
        }
    }

    #[test]
    fn another_policy_has_another_number_and_the_same_has_the_same(
        one in groups(), other in groups(), accepts in any::<bool>(),
    ) {
        let number = |groups: &[SecurityGroup], way, accepts| {
            let groups: Vec<_> = groups.iter().collect();
            let default = if accepts { Action::Accept } else { Action::Drop };
            let said = Said { groups: &groups, way, default };
            let rules: Vec<_> = said.rules().map(|(rule, is)| (rule.clone(), is)).collect();
            (said.number(SALT), rules)
        };
        let (first, rules) = number(&one, Way::Ingress, accepts);
        let (second, others) = number(&other, Way::Ingress, accepts);
        prop_assert_eq!(first == second, rules == others);
        prop_assert_ne!(first, number(&one, Way::Ingress, !accepts).0);
    }
}

/// The nodes that the chapters lead to, and how deep the deepest is.
fn reached(
    set: &RuleSet,
    chapters: &BTreeMap<packet::ChapterKey, packet::Chapter>,
) -> (usize, u32) {
    let mut found = BTreeMap::new();
    let roots = chapters.values().flat_map(|c| [c.tcp, c.udp, c.icmp, c.other]);
    let mut left: Vec<(u64, u32)> = roots.filter(|key| *key != 0).map(|key| (key, 1)).collect();
    while let Some((key, level)) = left.pop() {
        if found.insert(key, level) != Some(level) {
            let node = set.node(key).expect("a tree is whole");
            assert!((1..=packet::FAN_OUT).contains(&(node.count as usize)), "{node:?}");
            left.extend(RuleSet::below(key, node).map(|key| (key, level + 1)));
        }
    }
    (found.len(), found.values().copied().max().unwrap_or_default())
}

fn said<'a>(groups: &'a [&'a SecurityGroup]) -> Said<'a> {
    Said { groups, way: Way::Ingress, default: Action::Drop }
}

fn compile(rules: Vec<Rule>) -> Result<RuleSet, Unfit> {
    RuleSet::compile(&said(&[&group(1, rules)]), SALT)
}

/// The address with this number in 10.0.0.0/8.
fn ten(number: u32) -> String {
    std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string()
}

#[test]
fn ten_thousand_rules_with_an_address_each_have_an_entry_each() {
    let one = |number: u32| {
        let port = u16::try_from(number).unwrap();
        of(
            tcp(number, Action::Accept, &[(port, port)]),
            &[(&ten(number * 4), &ten(number * 4 + 1))],
        )
    };
    let set = compile((1..=10_000).map(one).collect()).unwrap();
    assert_eq!((set.classes.len(), set.chapters.len()), (10_000, 10_000 + 2));
    // A leaf for TCP of each, and one for all else.
    assert_eq!(reached(&set, &set.chapters), (10_000 + 1, 1));
}

#[test]
fn what_prefixes_have_in_common_is_there_once() {
    let anywhere = (1..=2_000_u32).map(|number| {
        let port = u16::try_from(number * 30).unwrap();
        tcp(number, Action::Accept, &[(port, port)])
    });
    let own = (2_001..=6_000_u32).map(|number| {
        let port = u16::try_from(number * 7).unwrap();
        of(tcp(number, Action::Accept, &[(port, port)]), &[(&ten(number), &ten(number))])
    });
    let set = compile(anywhere.chain(own).collect()).unwrap();
    let (nodes, depth) = reached(&set, &set.chapters);
    // Some have a port that is open to all anyway.
    assert!((3_800..4_000).contains(&set.classes.len()), "{}", set.classes.len());
    // Each prefix has a way of its own through the tree, of four nodes at most.
    assert!(nodes < 4_000 * 4 + 1_000, "{nodes}");
    assert!(depth <= packet::DEPTH_MAX);
}

#[test]
fn all_ports_may_be_different() {
    let spans = |from: u32| {
        let all = (from..65_536).step_by(2).map(|port| u16::try_from(port).unwrap());
        all.map(|port| PortSpan { first: port, last: port }).collect()
    };
    let odd = Rule { ports: spans(1), ..tcp(1, Action::Accept, &[]) };
    let set = compile(vec![odd, tcp(2, Action::Drop, &[])]).unwrap();
    assert_eq!(reached(&set, &set.chapters), (1 + 16 + 256 + 4_096 + 1, 4));
}

#[test]
fn members_in_few_groups_have_few_chapters_and_groups_that_nobody_names_none() {
    let member =
        |number: u32, group| Rule { group: Some(group), ..tcp(number, Action::Accept, &[]) };
    let mut set = compile(vec![member(1, 1), member(2, 2)]).unwrap();
    assert!(set.has_members && !set.has_classes && !set.has_stateless);
    assert!(set.about(&[3, 4]).unwrap().is_empty());
    let about = [vec![1], vec![1, 3], vec![1, 4, 7]].map(|groups| set.about(&groups).unwrap());
    let trees = about.map(|chapters| chapters.values().copied().collect::<Vec<_>>());
    assert_eq!(trees[0].len(), 1, "for IPv4 alone");
    assert!(trees.iter().all(|other| *other == trees[0]), "they share their trees");
}

#[test]
fn too_many_prefixes_are_refused_before_they_are_all_there() {
    let wide = |number: u32| {
        let first = format!("{number}.0.0.1");
        let last = format!("{number}.255.255.254");
        of(rule(number, Way::Ingress, Action::Accept), &[(&first, &last)])
    };
    let few: Vec<_> = (1..200).map(wide).collect();
    let set = compile(few.clone()).unwrap();
    assert!(set.classes.len() > 8_000);
    let mut many = Vec::new();
    for number in 0..3_000_u32 {
        let first = 0x0a00_0001 + number * 0x1_0000;
        let ends = [first, first + 0xfffd].map(|n| std::net::Ipv4Addr::from(n).to_string());
        many.push(of(
            rule(number + 1, Way::Ingress, Action::Accept),
            &[(ends[0].as_str(), ends[1].as_str()); 64],
        ));
    }
    let refused = compile(many).err().unwrap();
    assert!(refused.to_string().contains("131072 prefixes"), "{refused}");
}

#[test]
fn rules_that_overlap_in_every_way_are_refused_in_time() {
    // Every second port has a rule of its own, and every prefix another one in between.
    let mut rules = Vec::new();
    for number in 0..5_000_u32 {
        let port = u16::try_from(number * 13).unwrap();
        rules.push(tcp(2 * number + 1, Action::Accept, &[(port, port)]));
        let prefix = ten((number * 7_919) % 5_000);
        rules.push(of(tcp(2 * number + 2, Action::Drop, &[]), &[(&prefix, &prefix)]));
    }
    // Shuffled, so that ranks and ports have nothing to do with each other.
    rules.sort_by_key(|rule| rule.number.wrapping_mul(2_654_435_761));
    assert_eq!(compile(rules).err(), Some(Unfit::Work));
}

#[test]
fn ipv4_in_ipv6_has_no_entry() {
    let mapped = Rule {
        is_v6: true,
        addresses: vec![span("::ffff:10.0.0.0", "::ffff:10.0.0.255")],
        ..rule(1, Way::Ingress, Action::Accept)
    };
    assert!(compile(vec![mapped]).unwrap().classes.is_empty());
}

/// Prints what the design says it costs: `cargo test --release -p netloom-policy -- --ignored
/// --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn measure() {
    let timed = |name: &str, rules: Vec<Rule>| {
        let begin = Instant::now();
        let set = compile(rules);
        let took = begin.elapsed();
        let size =
            |set: RuleSet| (set.classes.len(), set.chapters.len(), reached(&set, &set.chapters));
        let size = set.map(size);
        println!("{name}: {took:?}, {size:?}");
    };
    let one = |number: u32| {
        of(tcp(number, Action::Accept, &[(80, 80)]), &[(&ten(number * 4), &ten(number * 4))])
    };
    timed("10,000 rules, an address each", (1..=10_000).map(one).collect());
    let port = |number: u32| {
        let port = u16::try_from(number * 6).unwrap();
        tcp(number, Action::Accept, &[(port, port)])
    };
    let spread = |number: u32| {
        let ports = (0..32_u32).map(|at| u16::try_from((number + at * 2_039) % 65_536).unwrap());
        let ports: Vec<_> = ports.map(|port| (port, port)).collect();
        of(tcp(number, Action::Accept, &ports), &[(&ten(number * 4), &ten(number * 4))])
    };
    timed("2,000 rules, 32 ports and an address each", (1..=2_000).map(spread).collect());
    timed("10,000 rules, a port each", (1..=10_000).map(port).collect());
    let mut rules = Vec::new();
    for number in 0..5_000_u32 {
        let port = u16::try_from(number * 13).unwrap();
        rules.push(tcp(2 * number + 1, Action::Accept, &[(port, port)]));
        let prefix = ten((number * 7_919) % 5_000);
        rules.push(of(tcp(2 * number + 2, Action::Drop, &[]), &[(&prefix, &prefix)]));
    }
    rules.sort_by_key(|rule| rule.number.wrapping_mul(2_654_435_761));
    timed("5,000 ports, 5,000 prefixes of all ports in between", rules);
}

#[test]
fn link_local_addresses_have_one_domain_here_and_there() {
    assert_eq!(packet::LINK_LOCAL_DOMAIN, wire::policy::LINK_LOCAL_DOMAIN);
}
