//! Policies in the ledger: what ports have of them, also when groups, members and room change.

use policy::Salt;
use wire::{
    object::{Port, SecurityGroup},
    policy::{Action, AddressSpan, PortSpan, Rule, Way},
};

use super::*;
use crate::explain::{Explained, Opening, closed, explain};

const SALT: Salt = Salt(0);
const WEB: u32 = 101;
const DATABASE: u32 = 102;

fn both() -> Ties {
    interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])
}

/// Port 5, at interface 7, in these groups, and what else is there.
fn with(groups: &[u32], others: impl IntoIterator<Item = Object>) -> Holding {
    let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
    let mut desired = sample::two_networks();
    desired.upsert(sample::filtered(port, groups));
    others.into_iter().for_each(|object| desired.upsert(object));
    desired
}

fn of_group(rule: Rule, group: u32) -> Rule {
    Rule { group: Some(group), ..rule }
}

fn entry(tables: &Tables, ifindex: u32) -> packet::Port {
    tables.ports[&PortKey::untagged(ifindex)]
}

/// What is decided about TCP to a port of port 5, from an address with this end.
fn decided(desired: &Holding, ledger: &Ledger, last: u8, port: u16) -> (u32, bool) {
    let key = ObjectKey { table: Table::Port, uuid: uuid(sample::PORT_A) };
    let Some(Object::Port(of)) = desired.get(&key) else { panic!("no port") };
    let remote = IpAddr::from([10, 0, 0, last]);
    let opening = Opening { way: Way::Ingress, own: None, remote, protocol: 6, port };
    match explain((desired, ledger.tables(), SALT), of, &opening) {
        Explained::Decided(named) => (named.number, named.action == Action::Accept),
        other => panic!("{other:?}"),
    }
}

/// Whether the rule sets of the port at an interface are those of a closed one.
fn is_closed(ledger: &Ledger, ifindex: u32) -> bool {
    let port = entry(ledger.tables(), ifindex);
    let held = |selector| {
        let key = packet::ChapterKey { ruleset: closed(SALT), selector };
        ledger.tables().chapters.contains_key(&key)
    };
    let is = (port.ingress, port.egress) == (closed(SALT), closed(SALT));
    assert!(!is || (held(0) && held(1)), "what drops everything is in the maps");
    is
}

#[test]
fn a_port_without_a_policy_is_as_before() {
    let ledger = Ledger::of(&sample::two_networks(), &both());
    let port = entry(ledger.tables(), 7);
    assert_eq!((port.ingress, port.egress, port.rules, port.generation), (0, 0, 0, 0));
    assert!(ledger.tables().chapters.is_empty() && ledger.tables().ranges.is_empty());
}

#[test]
fn rules_are_asked_in_the_order_of_groups_and_members_follow() {
    let web = sample::group(WEB, vec![sample::rule(1, Action::Accept, Some(80))]);
    let rules = vec![
        of_group(sample::rule(2, Action::Accept, Some(5432)), WEB),
        sample::rule(3, Action::Drop, Some(80)),
    ];
    let database = sample::group(DATABASE, rules);
    let mut desired = with(&[WEB, DATABASE], [web, database]);
    let mut ledger = Ledger::of(&desired, &both());
    assert_eq!(ledger.closed().count(), 0);
    assert_eq!(decided(&desired, &ledger, 9, 80), (1, true));
    assert_eq!(decided(&desired, &ledger, 9, 5432), (0, false), "nobody is a member yet");
    let before = entry(ledger.tables(), 7);
    assert_eq!(before.rules, packet::Port::HAS_MEMBERS);
    assert_eq!(before.domain, sample::DOMAIN);

    desired.upsert(sample::member(501, 9, &[WEB, 77]));
    let edits = ledger.follow(&desired, &both());
    assert!(edits.ports.is_empty() && edits.classes.is_empty());
    assert_eq!((edits.idents.len(), edits.chapters.len()), (1, 1));
    assert_eq!(decided(&desired, &ledger, 9, 5432), (2, true));
    // One more who is in the same groups, one whose groups nobody names.
    desired.upsert(sample::member(502, 10, &[WEB, 77]));
    desired.upsert(sample::member(503, 11, &[78]));
    let edits = ledger.follow(&desired, &both());
    assert_eq!((edits.idents.len(), edits.chapters.len(), edits.ranges.len()), (2, 0, 0));
    assert_eq!(decided(&desired, &ledger, 10, 5432), (2, true));

    // The other order is another policy.
    let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
    desired.upsert(sample::filtered(port, &[DATABASE, WEB]));
    ledger.follow(&desired, &both());
    assert_eq!(decided(&desired, &ledger, 9, 80), (3, false));
    let after = entry(ledger.tables(), 7);
    assert_ne!((before.ingress, before.generation), (after.ingress, after.generation));
    assert_eq!(before.egress, after.egress, "the other way nothing has changed");

    for at in [501, 502] {
        desired.remove(&sample::member(at, 0, &[]).key());
    }
    ledger.follow(&desired, &both());
    assert_eq!(decided(&desired, &ledger, 9, 5432), (0, false));
    assert_eq!(ledger, Ledger::of(&desired, &both()));
}

#[test]
fn whoever_is_in_no_domain_or_in_no_group_has_no_identity() {
    let Object::Member(member) = sample::member(501, 9, &[WEB]) else { unreachable!("a member") };
    let idents = |addresses: &[(&str, u32)], groups: &[u32]| {
        let address = |(ip, domain): &(&str, u32)| wire::policy::MemberAddress {
            ip: ip.parse().unwrap(),
            domain: *domain,
        };
        let addresses = addresses.iter().map(address).collect();
        let mut desired = Holding::default();
        desired.upsert(Object::Member(wire::object::Member {
            addresses,
            groups: groups.to_vec(),
            ..member.clone()
        }));
        Ledger::of(&desired, &Ties::default()).tables().idents.clone()
    };
    assert_eq!(idents(&[("10.0.0.9", 40), ("fd00::9", 40)], &[WEB]).len(), 2);
    assert_eq!(idents(&[("10.0.0.9", 0), ("::ffff:10.0.0.9", 40)], &[WEB]), BTreeMap::new());
    assert_eq!(idents(&[("10.0.0.9", 40)], &[]), BTreeMap::new());
    let (one, other) =
        (idents(&[("10.0.0.9", 40)], &[1, 2]), idents(&[("10.0.0.9", 40)], &[2, 1, 2]));
    assert_eq!(one, other, "a set has no order");
}

#[test]
fn a_port_whose_group_is_not_known_is_closed_until_it_is() {
    let web = sample::group(WEB, vec![sample::rule(1, Action::Accept, Some(80))]);
    let mut desired = with(&[WEB, DATABASE], [web.clone()]);
    let mut ledger = Ledger::of(&desired, &both());
    assert!(is_closed(&ledger, 7), "the other group may drop what this one accepts");
    let told: Vec<_> = ledger.closed().collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, uuid(sample::PORT_A));
    assert!(told[0].1.contains(&uuid(DATABASE.into()).simple().to_string()), "{told:?}");
    assert!(ledger.unfit().is_empty(), "it is not for lack of room");

    desired.upsert(sample::group(DATABASE, Vec::new()));
    ledger.follow(&desired, &both());
    assert!(!is_closed(&ledger, 7) && ledger.closed().count() == 0);
    assert_eq!(decided(&desired, &ledger, 9, 80), (1, true));
    assert_eq!(ledger.tables().chapters.len(), 4, "those of closed ports are gone");
    desired.remove(&web.key());
    ledger.follow(&desired, &both());
    assert!(is_closed(&ledger, 7));
}

#[test]
fn a_changed_group_changes_what_its_ports_have_and_nothing_else() {
    let group = |port| sample::group(WEB, vec![sample::rule(1, Action::Accept, Some(port))]);
    let mut desired = with(&[WEB], [group(80)]);
    let port = sample::port(sample::PORT_B, sample::INSTANCE, sample::NETWORK_B, 6);
    desired.upsert(sample::filtered(port, &[DATABASE]));
    desired.upsert(sample::group(DATABASE, Vec::new()));
    let mut ledger = Ledger::of(&desired, &both());
    desired.upsert(group(443));
    let edits = ledger.follow(&desired, &both());
    assert_eq!(edits.ports.keys().collect::<Vec<_>>(), [&PortKey::untagged(7)]);
    // Of two rule sets, one is another: two chapters of it come, two go.
    assert_eq!(edits.chapters.len(), 4);
    assert_eq!(decided(&desired, &ledger, 9, 443), (1, true));
    assert_eq!(ledger, Ledger::of(&desired, &both()));
    // The same again is nothing.
    assert!(ledger.follow(&desired.clone(), &both()).is_empty());
}

#[test]
fn ports_with_the_same_policy_share_its_rule_sets() {
    let (count, rules) = (1_000_u32, 2_000_u32);
    let at = |number: u32| Ipv4Addr::from(0x0b00_0000 + number * 4).into();
    let rule = |number: u32| Rule {
        addresses: vec![AddressSpan { first: at(number), last: at(number) }],
        ..sample::rule(number, Action::Accept, Some(80))
    };
    let mut desired = sample::two_networks();
    desired.upsert(sample::group(WEB, (1..=rules).map(rule).collect()));
    let mut ties = Ties::default();
    for number in 0..count {
        let key = 10_000 + u128::from(number);
        let Object::Port(port) = sample::port(key, sample::INSTANCE, sample::NETWORK_A, 5) else {
            unreachable!("a port")
        };
        let [_, _, c, d] = number.to_be_bytes();
        let port =
            Port { number: 1_000 + number, mac: [2, 1, 0, 0, c, d], addresses: vec![], ..port };
        desired.upsert(sample::filtered(Object::Port(port), &[WEB]));
        ties.ports.insert(uuid(key), sample::plug(100 + number));
    }
    let ledger = Ledger::of(&desired, &ties);
    assert_eq!(ledger.tables().ports.len(), count as usize);
    assert_eq!(ledger.tables().classes.len(), rules as usize);
    let sets: BTreeSet<_> =
        ledger.tables().ports.values().map(|port| (port.ingress, port.egress)).collect();
    assert_eq!(sets.len(), 1);
    assert!(ledger.closed().next().is_none() && ledger.unfit().is_empty());
}

/// A group whose rules need so many prefixes, each with a chapter of its own.
fn wide(number: u32, prefixes: u32) -> Object {
    let at = |at: u32| Ipv4Addr::from((number << 20) + at * 2).into();
    let rule = |rule: u32| Rule {
        addresses: vec![AddressSpan { first: at(rule), last: at(rule) }],
        ..sample::rule(number * 100_000 + rule, Action::Accept, Some(80))
    };
    sample::group(number, (1..=prefixes).map(rule).collect())
}

#[test]
fn a_policy_that_does_not_fit_closes_its_port_and_no_other() {
    let mut desired = with(&[WEB], [wide(WEB, 33_000)]);
    let mut ledger = Ledger::of(&desired, &both());
    assert!(ledger.unfit().is_empty(), "{:?}", ledger.unfit());
    let port = sample::port(sample::PORT_B, sample::INSTANCE, sample::NETWORK_B, 6);
    desired.upsert(sample::filtered(port.clone(), &[DATABASE]));
    desired.upsert(wide(DATABASE, 33_000));
    let before = entry(ledger.tables(), 7);
    ledger.follow(&desired, &both());
    let reason = &ledger.unfit()[&uuid(sample::PORT_B)];
    assert!(reason.contains("65534 entries for chapters") && reason.contains("use another host"));
    assert_eq!(ledger.unfit().len(), 1);
    assert!(is_closed(&ledger, 9));
    assert_eq!(entry(ledger.tables(), 7), before, "the older one keeps what it has");
    assert!(ledger.tables().chapters.len() <= packet::MAX_CHAPTERS as usize);
    // What is decided for it is nothing halfway.
    assert_eq!(decided(&desired, &ledger, 1, 80), (0, false));
    desired.upsert(wide(DATABASE, 100));
    ledger.follow(&desired, &both());
    assert!(ledger.unfit().is_empty() && !is_closed(&ledger, 9));
    assert_eq!(ledger.tables().chapters.len(), 33_000 + 100 + 3 * 2);
    // Nor is more than any host has room for.
    let at = |last| Ipv4Addr::from(last).into();
    let spans = (0..2_500_u32)
        .map(|n| AddressSpan { first: at((n << 16) + 1), last: at((n << 16) + 0xfffe) });
    let rule = Rule { addresses: spans.collect(), ..sample::rule(9, Action::Accept, None) };
    let rules = (0..64).map(|number| Rule { number: number + 9, ..rule.clone() });
    desired.upsert(sample::group(DATABASE, rules.collect()));
    ledger.follow(&desired, &both());
    assert!(is_closed(&ledger, 9) && ledger.unfit().is_empty());
    let told: Vec<_> = ledger.closed().map(|(uuid, why)| (uuid, why.to_owned())).collect();
    assert_eq!(told[0].0, uuid(sample::PORT_B));
    assert!(told[0].1.contains("more than 131072 prefixes"), "{told:?}");
}

#[test]
fn whose_drop_cannot_know_all_members_is_closed() {
    let drops = of_group(sample::rule(1, Action::Drop, None), DATABASE);
    let accepts = of_group(sample::rule(2, Action::Accept, None), DATABASE);
    let groups = [
        sample::group(WEB, vec![drops, sample::rule(3, Action::Accept, None)]),
        sample::group(DATABASE, vec![accepts]),
    ];
    let mut desired = with(&[WEB], groups);
    let port = sample::port(sample::PORT_B, sample::INSTANCE, sample::NETWORK_B, 6);
    desired.upsert(sample::filtered(port, &[DATABASE]));
    // Each has a thousand, the last but one what is left.
    let (mut left, mut number) = (packet::MAX_IDENTS + 1, 0_u32);
    let mut last = uuid(0);
    while left > 0 {
        let count = if left == 1 { 1 } else { (left - 1).min(1_000) };
        let ips = (0..count).map(|at| Ipv4Addr::from(0x0c00_0000 + number * 1_000 + at).into());
        let address = |ip| wire::policy::MemberAddress { ip, domain: sample::DOMAIN };
        let addresses = ips.map(address).collect();
        last = uuid(1_000_000 + u128::from(number));
        let groups = vec![DATABASE];
        desired.upsert(Object::Member(wire::object::Member { uuid: last, addresses, groups }));
        (left, number) = (left - count, number + 1);
    }
    let ledger = Ledger::of(&desired, &both());
    assert_eq!(ledger.tables().idents.len(), packet::MAX_IDENTS as usize);
    let member = &ledger.unfit()[&last];
    assert!(member.contains("rules that name groups of this NIC do not match it"), "{member}");
    assert!(
        is_closed(&ledger, 7) && ledger.unfit()[&uuid(sample::PORT_A)].contains("its rules drop")
    );
    assert!(!is_closed(&ledger, 9), "who is not known is not let in there");
    assert_eq!(ledger.unfit().len(), 2);
}

/// Groups, members and ports of a history; few, so that they have to do with each other.
pub(super) fn object_of_policy(which: u8, variant: u8) -> Object {
    let number = u32::from(which);
    let rule = |at: u8| {
        let number = 10 * number + u32::from(at);
        let action = if (variant ^ at) & 1 == 0 { Action::Accept } else { Action::Drop };
        let mut rule = sample::rule(number, action, (at == 0).then_some(80));
        match at {
            1 => rule.group = Some(u32::from(variant % 3)),
            2 => {
                let [first, last] =
                    [0, 9].map(|last| IpAddr::from([10, 0, 0, variant % 4 * 3 + last]));
                rule.addresses = vec![AddressSpan { first, last }];
            }
            3 => {
                rule.protocol = Some(17);
                let port = u16::from(variant);
                rule.ports = (0..40)
                    .map(|at| port * 64 + 3 * at)
                    .map(|p| PortSpan { first: p, last: p })
                    .collect();
            }
            _ => {}
        }
        rule
    };
    match which {
        0..3 => Object::SecurityGroup(SecurityGroup {
            uuid: uuid(which.into()),
            number,
            rules: (0..4).filter(|at| variant >> at & 1 == 1).map(rule).collect(),
            is_stateless: variant == 0x2f,
        }),
        3..8 => {
            let groups: Vec<u32> = (0..4).filter(|group| variant >> group & 1 == 1).collect();
            sample::member(u128::from(which), which + variant % 2, &groups)
        }
        8 => sample::network(1, 101),
        _ => {
            let port = sample::port(u128::from(which), 7, 1, which);
            let groups: Vec<u32> = (0..3).filter(|group| variant >> group & 1 == 1).collect();
            match variant >> 6 {
                0 => port,
                _ => sample::filtered(port, &groups),
            }
        }
    }
}

proptest! {
    #[test]
    fn following_policies_gives_what_making_them_anew_gives(
        steps in proptest::collection::vec(
            proptest::collection::vec((0..13_u8, any::<Option<u8>>(), 0..4_u32), 1..6), 1..30),
    ) {
        let (mut holding, mut ties) = (Holding::default(), Ties::default());
        holding.upsert(object_of_policy(8, 0));
        let (mut ledger, mut maps) = (Ledger::default(), Tables::default());
        for step in steps {
            for (which, variant, ifindex) in step {
                match variant {
                    Some(variant) => holding.upsert(object_of_policy(which, variant)),
                    None => holding.remove(&object_of_policy(which, 0).key()),
                }
                match ifindex {
                    0 => _ = ties.ports.remove(&uuid(which.into())),
                    index => _ = ties.ports.insert(uuid(which.into()), sample::plug(u32::from(which) * 8 + index / 3)),
                }
            }
            let edits = ledger.follow(&holding, &ties);
            check_order(&mut maps, &edits);
            prop_assert_eq!(&maps, ledger.tables());
            let mut anew = Ledger::default();
            anew.anew(&holding, &ties);
            prop_assert_eq!(&ledger, &anew);
            check_decisions(&holding, &maps);
        }
    }
}

/// The maps decide as the objects do, for each port that is there.
fn check_decisions(holding: &Holding, maps: &Tables) {
    let ports = holding.objects().values().filter_map(|object| match &**object {
        Object::Port(port) => Some(port),
        _ => None,
    });
    let there: BTreeSet<u32> = maps.ports.values().map(|port| port.number).collect();
    for port in ports.filter(|port| there.contains(&port.number)) {
        let is_closed = port.policy.as_ref().is_some_and(|policy| {
            let key = |uuid| ObjectKey { table: Table::SecurityGroup, uuid };
            policy.groups.iter().any(|group| holding.get(&key(*group)).is_none())
        });
        for (last, port_number) in [(3, 80), (4, 81), (9, 80), (200, 3), (5, 64)] {
            for protocol in [6, 17] {
                let remote = IpAddr::from([10, 0, 0, last]);
                let port_to = port_number;
                let opening =
                    Opening { way: Way::Ingress, own: None, remote, protocol, port: port_to };
                let found = explain((holding, maps, SALT), port, &opening);
                let is_right = match (&found, &port.policy) {
                    (Explained::Unfiltered, None) => true,
                    (Explained::Decided(_), Some(_)) => !is_closed,
                    (Explained::Closed, Some(_)) => is_closed,
                    _ => false,
                };
                assert!(is_right, "{found:?} of {port:?}");
            }
        }
    }
}

/// One entry after the other, in the order in which they are written.
macro_rules! steps {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        fn steps(edits: &Edits) -> Vec<Edits> {
            let mut steps = Vec::new();
            $(if stringify!($when) == "First" {
                let gone = edits.$name.iter().filter(|(_, value)| value.is_none());
                let step = |(key, _): (&$key, _)| Edits { $name: [(*key, None)].into(), ..Edits::default() };
                steps.extend(gone.map(step));
            })*
            $({
                let come = edits.$name.iter().filter(|(_, value)| value.is_some());
                let step = |(key, value): (&$key, &Option<$value>)| {
                    Edits { $name: [(*key, *value)].into(), ..Edits::default() }
                };
                steps.extend(come.map(step));
            })*
            // Who is no member any more is none before what was said of them goes.
            let gone = edits.idents.iter().filter(|(_, value)| value.is_none());
            steps.extend(gone.map(|(key, _)| Edits { idents: [(*key, None)].into(), ..Edits::default() }));
            $(if stringify!($when) == "Last" && stringify!($name) != "idents" {
                let gone = edits.$name.iter().filter(|(_, value)| value.is_none());
                let step = |(key, _): (&$key, _)| Edits { $name: [(*key, None)].into(), ..Edits::default() };
                steps.extend(gone.map(step));
            })*
            steps
        }
    };
}
packet::maps!(steps);

/// Makes edits entry by entry. What is refused before and after is refused all the time, and what may be
/// before and after may be all the time, at ports that are there all the time.
fn check_order(maps: &mut Tables, edits: &Edits) {
    let mut after = maps.clone();
    after.apply(edits);
    let probes =
        [(3, 80), (4, 81), (5, 64), (9, 80), (200, 3)].into_iter().flat_map(|(last, port)| {
            [6, 17].map(|protocol| {
                let remote = IpAddr::from([10, 0, 0, last]);
                Opening { way: Way::Ingress, own: None, remote, protocol, port }
            })
        });
    let probes: Vec<Opening> = probes.collect();
    let all = |maps: &Tables| -> Vec<bool> {
        let at = (9..13_u32).flat_map(|port| probes.iter().map(move |probe| (port, probe)));
        at.map(|(port, probe)| accepts(maps, port, probe)).collect()
    };
    let numbers = |maps: &Tables| -> Vec<Option<PortKey>> {
        let key = |number| maps.ports.iter().find(|(_, port)| port.number == number);
        (9..13_u32).map(|number| key(number).map(|(key, _)| *key)).collect()
    };
    let (old, new) = (all(maps), all(&after));
    let mut rest = edits.clone();
    let unsure = rest.take_unsure(&maps.ports);
    let stays = numbers(maps).into_iter().zip(numbers(&after)).map(|(old, new)| {
        // Those are shut for a moment.
        old == new && !old.is_some_and(|key| unsure.after.contains_key(&key))
    });
    let stays: Vec<bool> = stays.collect();
    let only = |ports| steps(&Edits { ports, ..Edits::default() });
    let all_steps = [only(unsure.before), steps(&rest), only(unsure.after)].concat();
    for step in all_steps {
        maps.apply(&step);
        for (at, accepts) in all(maps).into_iter().enumerate() {
            let is_sure = old[at] == new[at] && (!old[at] || stays[at / probes.len()]);
            assert!(
                !is_sure || accepts == new[at],
                "{:?} after {step:?}",
                probes[at % probes.len()]
            );
        }
    }
}

/// Whether the programs would let this connection be opened.
fn accepts(maps: &Tables, port: u32, opening: &Opening) -> bool {
    let Some(entry) = maps.ports.values().find(|entry| entry.number == port) else { return false };
    let cell = crate::explain::by_maps(maps, entry, entry.domain, opening).unwrap();
    entry.ingress == 0 || cell.is_some_and(|cell| cell.rank & packet::Cell::ACCEPT != 0)
}
