//! The truth table, as the documentation has it. Each case is a small port and what it is asked.

#![allow(clippy::unwrap_used, reason = "a table with a mistake fails")]

use std::net::IpAddr;

use netloom_judge::{End, Known, Probe, Shows, Verdict, judge, judge_pair};
use uuid::Uuid;
use wire::{
    object::{Member, SecurityGroup},
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
};

use Action::{Accept, Drop};
use Way::{Egress, Ingress};

/// The routing domain of the port.
const HERE: u32 = 7;

/// A group in the words of the table: `web: 1 in tcp 80 accept; 2 in any @9 drop`, each rule with its number, way,
/// protocol, ports if any, other end if any (`@group`, `a-b` or an address), `v6` if it is, and action.
/// `stateless` before the colon: for single packets.
fn group(text: &str) -> SecurityGroup {
    let (head, rules) = text.split_once(':').unwrap();
    let mut head = head.split_whitespace();
    let number = head.next().unwrap().parse().unwrap();
    SecurityGroup {
        uuid: uuid_of(number),
        number,
        rules: rules.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(rule).collect(),
        is_stateless: head.next() == Some("stateless"),
    }
}

fn uuid_of(group: u32) -> Uuid {
    Uuid::from_u128(u128::from(group))
}

fn rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [number, way, protocol, middle @ .., action] = &words[..] else { panic!("{text}") };
    let number = number.parse().unwrap();
    let mut rule = Rule {
        uuid: Uuid::from_u128(1000 + u128::from(number)),
        number,
        way: if *way == "in" { Ingress } else { Egress },
        is_v6: false,
        action: if *action == "accept" { Accept } else { Drop },
        protocol: protocol_of(protocol),
        ports: Vec::new(),
        group: None,
        addresses: Vec::new(),
    };
    for word in middle {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        match (word.strip_prefix('@'), first.parse::<IpAddr>()) {
            (Some(group), _) => rule.group = Some(group.parse().unwrap()),
            (None, _) if *word == "v6" => rule.is_v6 = true,
            (None, Ok(first)) => {
                rule.addresses.push(AddressSpan { first, last: last.parse().unwrap() });
            }
            (None, Err(_)) => {
                let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
                rule.ports.push(PortSpan { first, last });
            }
        }
    }
    rule
}

fn protocol_of(word: &str) -> Option<u8> {
    match word {
        "any" => None,
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp6" => Some(58),
        number => Some(number.parse().unwrap()),
    }
}

/// A packet: `tcp 80 10.0.0.9`, `icmp 8/0 10.0.0.9`, `132 10.0.0.9`.
fn probe(text: &str) -> Probe {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (shows, remote) = match &words[1..] {
        [remote] => (Shows::Nothing, remote),
        [what, remote] => match what.split_once('/') {
            Some((kind, code)) => {
                (Shows::Icmp { kind: kind.parse().unwrap(), code: code.parse().unwrap() }, remote)
            }
            None => (Shows::Ports { source: 40_000, destination: what.parse().unwrap() }, remote),
        },
        _ => panic!("{text}"),
    };
    let (remote, protocol) = (remote.parse().unwrap(), protocol_of(words[0]).unwrap());
    Probe { domain: HERE, remote, protocol, shows }
}

fn member(ip: &str, domain: u32, groups: &[u32]) -> Member {
    let ip: IpAddr = ip.parse().unwrap();
    let addresses = vec![MemberAddress { ip, domain }];
    Member { uuid: Uuid::from_u128(9000), addresses, groups: groups.to_vec() }
}

/// Asks a port that is in these groups, in this order, denies what others open and allows what it opens.
fn ask(groups: &[&str], members: &[Member], way: Way, packet: &str) -> (Action, u32) {
    let verdict = verdict(groups, members, way, packet);
    assert!(!verdict.is_stateless, "no group here is");
    (verdict.action, verdict.rule)
}

fn verdict(groups: &[&str], members: &[Member], way: Way, packet: &str) -> Verdict {
    let groups: Vec<_> = groups.iter().map(|text| group(text)).collect();
    let policy = Policy {
        groups: groups.iter().map(|group| group.uuid).collect(),
        ingress: Drop,
        egress: Accept,
    };
    judge(&policy, Known { groups: &groups, members }, way, &probe(packet))
}

/// One group, one rule each row: whether it matches.
#[test]
fn a_rule_matches_by_way_family_protocol_ports_and_other_end() {
    let members = [member("10.0.0.9", HERE, &[9]), member("fd00::9", HERE, &[9])];
    for (rule, packet, matches) in [
        ("in any", "tcp 80 10.0.0.9", true),
        ("in any", "132 10.0.0.9", true),
        ("in any", "tcp 80 fd00::9", false),
        ("in any v6", "tcp 80 fd00::9", true),
        ("in any v6", "tcp 80 10.0.0.9", false),
        ("out any", "tcp 80 10.0.0.9", false),
        ("in tcp", "tcp 80 10.0.0.9", true),
        ("in tcp", "udp 80 10.0.0.9", false),
        ("in tcp 80", "tcp 80 10.0.0.9", true),
        ("in tcp 80", "tcp 81 10.0.0.9", false),
        ("in tcp 80", "tcp 10.0.0.9", false),
        ("in tcp 80", "udp 80 10.0.0.9", false),
        ("in tcp 80-90", "tcp 79 10.0.0.9", false),
        ("in tcp 80-90", "tcp 80 10.0.0.9", true),
        ("in tcp 80-90", "tcp 90 10.0.0.9", true),
        ("in tcp 80-90", "tcp 91 10.0.0.9", false),
        ("in tcp 22 80-90", "tcp 22 10.0.0.9", true),
        ("in udp 0-65535", "udp 0 10.0.0.9", true),
        ("in udp 0-65535", "udp 10.0.0.9", false),
        ("in udp", "udp 10.0.0.9", true),
        ("in icmp", "icmp 8/0 10.0.0.9", true),
        ("in icmp 2048", "icmp 8/0 10.0.0.9", true),
        ("in icmp 2048", "icmp 8/1 10.0.0.9", false),
        ("in icmp 2048-2303", "icmp 8/255 10.0.0.9", true),
        ("in icmp 2048-2303", "icmp 9/0 10.0.0.9", false),
        ("in icmp 768-1023", "icmp 3/4 10.0.0.9", true),
        ("in icmp", "icmp6 128/0 fd00::9", false),
        ("in icmp6 32768 v6", "icmp6 128/0 fd00::9", true),
        ("in 132", "132 10.0.0.9", true),
        ("in 132", "47 10.0.0.9", false),
        ("in any 10.0.0.9", "tcp 80 10.0.0.9", true),
        ("in any 10.0.0.8", "tcp 80 10.0.0.9", false),
        ("in any 10.0.0.0-10.0.0.8", "tcp 80 10.0.0.9", false),
        ("in any 10.0.0.0-10.0.0.9", "tcp 80 10.0.0.9", true),
        ("in any 10.0.0.9-10.0.0.20", "tcp 80 10.0.0.9", true),
        ("in any 10.0.0.10-10.0.0.20", "tcp 80 10.0.0.9", false),
        ("in any 192.0.2.1 10.0.0.9", "tcp 80 10.0.0.9", true),
        ("in any fd00::-fd00::ff v6", "tcp 80 fd00::9", true),
        ("in any @9", "tcp 80 10.0.0.9", true),
        ("in any @9", "tcp 80 10.0.0.8", false),
        ("in any @8", "tcp 80 10.0.0.9", false),
        ("in any @9", "tcp 80 fd00::9", false),
        ("in any @9 v6", "tcp 80 fd00::9", true),
        ("in tcp 80 @9", "tcp 81 10.0.0.9", false),
        ("in tcp 80 @9", "tcp 80 10.0.0.9", true),
    ] {
        let text = format!("1: 5 {rule} accept");
        let expected = if matches { (Accept, 5) } else { (Drop, 0) };
        assert_eq!(ask(&[&text], &members, Ingress, packet), expected, "{rule}, {packet}");
    }
}

#[test]
fn egress_asks_rules_of_egress_by_the_ports_where_it_goes() {
    let groups = ["1: 1 out tcp 25 drop; 2 in tcp 80 accept; 3 out any 192.0.2.0-192.0.2.255 drop"];
    for (packet, expected) in [
        ("tcp 25 10.0.0.9", (Drop, 1)),
        ("tcp 80 10.0.0.9", (Accept, 0)),
        ("tcp 80 192.0.2.9", (Drop, 3)),
        ("udp 25 10.0.0.9", (Accept, 0)),
        ("tcp 25 fd00::9", (Accept, 0)),
    ] {
        assert_eq!(ask(&groups, &[], Egress, packet), expected, "{packet}");
    }
}

/// What several groups with ACCEPT and DROP mean together: the first rule that matches, in the order of
/// the groups and then of the rules. Neither DROP nor ACCEPT goes before the other.
#[test]
fn the_first_rule_of_the_first_group_decides() {
    let (open, closed) = ("1: 1 in tcp 80 accept", "2: 2 in tcp 80 drop");
    let other = "3: 3 in udp accept";
    for (groups, expected) in [
        (&[][..], (Drop, 0)),
        (&[open], (Accept, 1)),
        (&[closed], (Drop, 2)),
        (&[other], (Drop, 0)),
        (&[open, closed], (Accept, 1)),
        (&[closed, open], (Drop, 2)),
        (&[other, open], (Accept, 1)),
        (&[other, closed, open], (Drop, 2)),
        (&["4: 4 in any drop", open], (Drop, 4)),
        (&["5: 1 in tcp 80 accept; 2 in any drop", closed], (Accept, 1)),
        (&["6: 2 in any drop; 1 in tcp 80 accept", open], (Drop, 2)),
    ] {
        assert_eq!(ask(groups, &[], Ingress, "tcp 80 10.0.0.9"), expected, "{groups:?}");
    }
}

#[test]
fn without_a_rule_each_way_has_its_own_default() {
    for (ingress, egress) in [(Accept, Accept), (Accept, Drop), (Drop, Accept), (Drop, Drop)] {
        let policy = Policy { groups: vec![uuid_of(1)], ingress, egress };
        let known = Known { groups: &[], members: &[] };
        for (way, action) in [(Ingress, ingress), (Egress, egress)] {
            let expected = Verdict { action, rule: 0, is_stateless: false };
            let found = judge(&policy, known, way, &probe("tcp 80 10.0.0.9"));
            assert_eq!(found, expected, "a group that is not known has no rules");
        }
    }
}

/// A member is an address in a routing domain: what another tenant has there is somebody else.
#[test]
fn a_member_is_known_by_exact_address_in_the_ports_own_domain() {
    let rule = ["1: 5 in any @9 accept"];
    for (member, is_one) in [
        (member("10.0.0.9", HERE, &[9]), true),
        (member("10.0.0.9", HERE, &[8, 9]), true),
        (member("10.0.0.9", HERE, &[8]), false),
        (member("10.0.0.9", HERE, &[]), false),
        (member("10.0.0.9", HERE + 1, &[9]), false),
        (member("10.0.0.8", HERE, &[9]), false),
        (member("::ffff:10.0.0.9", HERE, &[9]), false),
    ] {
        let expected = if is_one { (Accept, 5) } else { (Drop, 0) };
        let members = [member];
        assert_eq!(ask(&rule, &members, Ingress, "tcp 80 10.0.0.9"), expected, "{members:?}");
    }
    let nowhere = Probe { domain: 0, ..probe("tcp 80 10.0.0.9") };
    let (groups, members) = ([group(rule[0])], [member("10.0.0.9", 0, &[9])]);
    let policy = Policy { groups: vec![uuid_of(1)], ingress: Drop, egress: Accept };
    let known = Known { groups: &groups, members: &members };
    assert_eq!(judge(&policy, known, Ingress, &nowhere).action, Drop);
}

#[test]
fn a_nic_with_several_addresses_is_a_member_with_each_where_that_is() {
    let mut two = member("10.0.0.9", HERE, &[9]);
    two.addresses.push(MemberAddress { ip: "192.0.2.9".parse().unwrap(), domain: HERE + 1 });
    let rule = ["1: 5 in any @9 accept"];
    let members = [two];
    assert_eq!(ask(&rule, &members, Ingress, "tcp 80 10.0.0.9"), (Accept, 5));
    assert_eq!(ask(&rule, &members, Ingress, "tcp 80 192.0.2.9"), (Drop, 0));
}

#[test]
fn a_rule_that_drops_members_leaves_others_to_later_rules() {
    let members = [member("10.0.0.9", HERE, &[9])];
    let groups = ["1: 1 in tcp @9 drop; 2 in tcp 22 accept"];
    assert_eq!(ask(&groups, &members, Ingress, "tcp 22 10.0.0.9"), (Drop, 1));
    assert_eq!(ask(&groups, &members, Ingress, "tcp 22 10.0.0.8"), (Accept, 2));
}

#[test]
fn a_stateless_group_decides_single_packets_and_the_others_connections() {
    let stateless = "1 stateless: 1 in udp 53 accept; 2 out udp 53 drop";
    let stateful = "2: 3 in udp accept";
    let ask = |way, packet| verdict(&[stateless, stateful], &[], way, packet);
    let expected = |action, rule, is_stateless| Verdict { action, rule, is_stateless };
    assert_eq!(ask(Ingress, "udp 53 10.0.0.9"), expected(Accept, 1, true));
    assert_eq!(ask(Ingress, "udp 54 10.0.0.9"), expected(Accept, 3, false));
    assert_eq!(ask(Egress, "udp 53 10.0.0.9"), expected(Drop, 2, true));
    assert_eq!(ask(Egress, "udp 40000 10.0.0.9"), expected(Accept, 0, false));
}

/// The example of a web server and a database: the database hears the web servers alone, and nobody
/// hears anything else.
#[test]
fn between_two_ports_both_have_to_accept() {
    let groups = [
        group("1: 1 in tcp 80 accept; 2 out tcp 5432 @2 accept"),
        group("2: 3 in tcp 5432 @1 accept"),
    ];
    let members = [member("10.0.0.1", HERE, &[1]), member("10.0.0.2", HERE, &[2])];
    let known = Known { groups: &groups, members: &members };
    let policy = |group, egress| Policy { groups: vec![uuid_of(group)], ingress: Drop, egress };
    let (web, database) = (policy(1, Drop), policy(2, Accept));
    let end = |policy, ip: &str, domain| {
        let address = ip.parse().unwrap();
        End { policy, known, address, domain }
    };
    let (web, database) =
        (end(Some(&web), "10.0.0.1", HERE), end(Some(&database), "10.0.0.2", HERE));
    let stranger = end(None, "10.0.0.3", HERE);
    let pass = |from: &End<'_>, to: &End<'_>, port| {
        let shows = Shows::Ports { source: 40_000, destination: port };
        let passage = judge_pair(from, to, 6, shows);
        (passage.arrives(), passage.egress.rule, passage.ingress.map(|verdict| verdict.rule))
    };
    assert_eq!(pass(&web, &database, 5432), (true, 2, Some(3)));
    assert_eq!(pass(&web, &database, 22), (false, 0, None), "it does not even leave");
    assert_eq!(pass(&database, &web, 80), (true, 0, Some(1)));
    assert_eq!(pass(&database, &web, 5432), (false, 0, Some(0)));
    assert_eq!(pass(&stranger, &web, 80), (true, 0, Some(1)));
    assert_eq!(pass(&stranger, &database, 5432), (false, 0, Some(0)));
    assert_eq!(pass(&database, &stranger, 1), (true, 0, Some(0)), "it has no policy");
    // The same addresses elsewhere are somebody else.
    let elsewhere = End { domain: HERE + 1, ..database };
    assert_eq!(pass(&web, &elsewhere, 5432), (false, 2, Some(0)));
}
