//! Security groups: what ports have for a policy, and which hosts are told of groups and of members.

use std::{net::IpAddr, sync::Arc};

use model::{
    Record,
    resource::{
        l2_network::Segment,
        l3_network::{L3Category, L3Network},
        network_service::{NetworkServiceType, ProviderType},
        security_group::SecurityGroup,
        security_group_member::NicPolicy,
        security_group_rule::{RuleAction, RuleProtocol, RuleType, SecurityGroupRule},
        vm_nic::VmNic,
        zone::EnableState,
    },
    setting::{FLOW_LOG, TCP_ESTABLISHED, WITHOUT_GROUP},
};
use netloom_compile::Compiler;
use store::Change;
use uuid::Uuid;
use wire::{
    object::{FlowLog, Member, Object, Table, Timeouts},
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
};

use crate::{followed::Followed, group_rows::*, rows::*};

impl Followed {
    /// Networks 1 and 2, each with a NIC on each of hosts 0 to 3: NICs 10 to 13, 20 to 23. Group 0.
    pub(crate) fn grouped() -> Self {
        let mut all = Self::empty();
        let mut rows: Vec<Record> = (0..4).map(|h| record_of(vtep(h, h, 0, h))).collect();
        for net in [1, 2] {
            rows.extend([record_of(network(net, 0, net)), range_on(net, net)]);
            rows.extend([record_of(l3_on(net, L3Category::Private)), record_of(guarded(net))]);
            rows.extend((0..4).flat_map(|host| nic_on(net * 10 + host, net, host)));
        }
        rows.push(record_of(group(0)));
        all.put(rows);
        all
    }

    fn group(&self, host: u32, n: u32) -> Option<wire::object::SecurityGroup> {
        match self.object(host, Table::SecurityGroup, group_uuid(n))? {
            Object::SecurityGroup(group) => Some(group),
            _ => None,
        }
    }

    fn member(&self, host: u32, nic: u32) -> Option<Member> {
        match self.object(host, Table::Member, id::<VmNic>(6, nic).uuid())? {
            Object::Member(member) => Some(member),
            _ => None,
        }
    }

    /// The members that a host knows, each with the groups.
    fn members(&self, host: u32) -> Vec<(u32, Vec<u32>)> {
        let known = |nic| self.member(host, nic).map(|member| (nic, member.groups));
        (10..30).filter_map(known).collect()
    }

    fn policy(&self, nic: u32) -> Option<Policy> {
        self.port_on(nic % 10, nic).policy
    }
}

fn group_uuid(n: u32) -> Uuid {
    id::<SecurityGroup>(20, n).uuid()
}

fn closed(groups: &[u32]) -> Policy {
    let groups = groups.iter().map(|n| group_uuid(*n)).collect();
    Policy { groups, ingress: Action::Drop, egress: Action::Accept }
}

fn disabled(n: u32) -> SecurityGroup {
    SecurityGroup { state: EnableState::Disabled, ..group(n) }
}

#[test]
fn a_nic_has_its_groups_in_order_and_without_the_disabled_ones() {
    let mut all = Followed::grouped();
    assert_eq!(all.policy(10), None, "a NIC in no group is open");
    assert_eq!(all.port_on(0, 10).addresses[0].domain, 0, "nothing depends on it");
    all.put(vec![
        record_of(group(1)),
        record_of(in_group(10, 0, 2)),
        record_of(in_group(10, 1, 1)),
    ]);
    assert_eq!(all.policy(10), Some(closed(&[1, 0])));
    assert_eq!(all.port_on(0, 10).addresses[0].domain, 1, "its network's number");
    assert_eq!(all.policy(20), None);
    all.put(vec![record_of(disabled(1))]);
    assert_eq!(all.policy(10), Some(closed(&[0])));
    all.put(vec![record_of(disabled(0))]);
    assert_eq!(all.policy(10), Some(closed(&[])), "what it is closed for stays closed");
    assert_eq!(all.port_on(0, 10).addresses[0].domain, 0);
    all.put(vec![record_of(group(0)), record_of(policy(10, NicPolicy::Allow, NicPolicy::Deny))]);
    let open = Policy { ingress: Action::Accept, egress: Action::Drop, ..closed(&[0]) };
    assert_eq!(all.policy(10), Some(open));
    all.delete(&in_group(10, 0, 2));
    all.delete(&in_group(10, 1, 1));
    assert_eq!(all.policy(10), None);
}

#[test]
fn a_default_that_holds_until_there_are_rules_follows_them() {
    let mut all = Followed::grouped();
    let until = policy(10, NicPolicy::Deny, NicPolicy::AllowUntilRule);
    all.put(vec![record_of(in_group(10, 0, 1)), record_of(until)]);
    let egress = |all: &Followed| all.policy(10).map(|policy| policy.egress);
    let out = |n| SecurityGroupRule { rule_type: RuleType::Egress, ..rule(n, 0) };
    assert_eq!(egress(&all), Some(Action::Accept));
    all.put(vec![record_of(out(10)), record_of(rule(11, 0))]);
    assert_eq!(egress(&all), Some(Action::Accept), "rules that came with the group do not count");
    all.put(vec![record_of(out(12))]);
    assert_eq!(egress(&all), Some(Action::Drop));
    all.put(vec![record_of(SecurityGroupRule { state: EnableState::Disabled, ..out(12) })]);
    assert_eq!(egress(&all), Some(Action::Accept));
    all.put(vec![record_of(out(13)), record_of(disabled(0))]);
    assert_eq!(egress(&all), Some(Action::Accept), "nobody asks its rules");
    all.put(vec![record_of(group(0))]);
    assert_eq!(egress(&all), Some(Action::Drop));
}

#[test]
fn a_network_may_close_nics_that_are_in_no_group() {
    let mut all = Followed::grouped();
    let nothing = Policy { egress: Action::Drop, ..closed(&[]) };
    all.delete(&guarded(1));
    all.put(vec![record_of(own_setting(&WITHOUT_GROUP, id::<L3Network>(9, 1), "Closed"))]);
    assert_eq!(all.policy(10), None, "the network does not have the service");
    all.put(vec![record_of(guarded(1))]);
    assert_eq!(all.told(), [0, 1, 2, 3]);
    assert_eq!((all.policy(10), all.policy(20)), (Some(nothing.clone()), None));
    all.put(vec![record_of(setting(&WITHOUT_GROUP, "Closed"))]);
    assert_eq!(all.policy(20), Some(nothing));
    all.put(vec![record_of(own_setting(&WITHOUT_GROUP, id::<L3Network>(9, 1), "Open"))]);
    assert_eq!(all.policy(10), None);
    all.put(vec![record_of(in_group(21, 0, 1))]);
    assert_eq!(all.policy(21), Some(closed(&[0])), "its groups decide");
    // Another service, or another provider of it, closes nothing.
    all.delete(&guarded(2));
    all.put(vec![record_of(service(2, ProviderType::Flat, NetworkServiceType::Dhcp))]);
    assert_eq!(all.policy(20), None);
}

/// As the API says: such a membership is not in effect.
#[test]
fn groups_count_on_networks_that_have_the_service() {
    let mut all = Followed::grouped();
    all.put(vec![record_of(rule_about(10, 0, 0)), record_of(in_group(10, 0, 1))]);
    all.put(vec![record_of(in_group(11, 0, 1))]);
    assert_eq!(all.members(0), [(10, vec![100]), (11, vec![100])]);
    all.delete(&guarded(1));
    assert_eq!(all.policy(10), None);
    assert_eq!((all.group(0, 0), all.members(0)), (None, vec![]), "nobody is a member either");
    // One of a NIC's networks is enough.
    let both = VmNic {
        l3_network_uuid: id(9, 1),
        more_l3_network_uuids: vec![id(9, 2)],
        ..nic(10, 1, Some(0))
    };
    all.put(vec![record_of(both)]);
    assert_eq!(all.policy(10), Some(closed(&[0])));
    all.put(vec![record_of(guarded(1))]);
    assert_eq!(all.members(0), [(10, vec![100]), (11, vec![100])]);
}

#[test]
fn a_group_is_where_its_ports_are_with_its_enabled_rules_in_order() {
    let mut all = Followed::grouped();
    let icmp = SecurityGroupRule {
        ip_version: 6,
        protocol: RuleProtocol::Icmp,
        icmp_type: Some(128),
        action: RuleAction::Drop,
        ..rule(2, 0)
    };
    let addressed = SecurityGroupRule {
        src_ip_range: Some("192.0.2.0/24,198.51.100.7".to_owned()),
        dst_port_range: Some("22,80-90".to_owned()),
        ..rule(11, 0)
    };
    let off = SecurityGroupRule { state: EnableState::Disabled, ..rule(3, 0) };
    all.put(vec![record_of(icmp), record_of(addressed), record_of(off)]);
    assert!((0..4).all(|host| all.group(host, 0).is_none()), "nobody is in it");
    all.put(vec![record_of(in_group(11, 0, 1)), record_of(in_group(22, 0, 1))]);
    assert_eq!((all.group(0, 0), all.group(3, 0)), (None, None));
    let group = all.group(1, 0).expect("a port is in it");
    assert_eq!(all.group(2, 0).as_ref(), Some(&group));
    let span = |first: &str, last: &str| AddressSpan {
        first: first.parse().expect("an address"),
        last: last.parse().expect("an address"),
    };
    let first = Rule {
        uuid: id::<SecurityGroupRule>(21, 11).uuid(),
        number: 1011,
        way: Way::Ingress,
        is_v6: false,
        action: Action::Accept,
        protocol: Some(6),
        ports: vec![PortSpan { first: 22, last: 22 }, PortSpan { first: 80, last: 90 }],
        group: None,
        addresses: vec![span("192.0.2.0", "192.0.2.255"), span("198.51.100.7", "198.51.100.7")],
    };
    let second = Rule {
        uuid: id::<SecurityGroupRule>(21, 2).uuid(),
        number: 1002,
        is_v6: true,
        action: Action::Drop,
        protocol: Some(58),
        ports: vec![PortSpan { first: 128 << 8, last: (128 << 8) + 255 }],
        addresses: Vec::new(),
        ..first.clone()
    };
    assert_eq!(group.rules, [first, second]);
    assert_eq!((group.number, group.is_stateless), (100, false));

    all.put(vec![record_of(SecurityGroup { is_stateless: true, ..self::group(0) })]);
    assert_eq!(all.told(), [1, 2]);
    assert!(all.group(1, 0).expect("it is there").is_stateless);
    all.put(vec![record_of(SecurityGroup { name: "other".to_owned(), ..self::group(0) })]);
    all.put(vec![record_of(SecurityGroup { description: Some("x".into()), ..self::group(0) })]);
    assert_eq!(all.told(), [0; 0], "no host knows names");
    all.put(vec![record_of(disabled(0))]);
    assert_eq!(all.group(1, 0), None);
}

/// A rule about nobody must not become one about everybody.
#[test]
fn a_rule_about_addresses_of_the_other_family_is_left_out() {
    let mut all = Followed::grouped();
    let v6 = SecurityGroupRule { ip_version: 6, ..rule_about_addresses(2, 0, 5) };
    all.put(vec![
        record_of(in_group(10, 0, 1)),
        record_of(rule_about_addresses(1, 0, 5)),
        record_of(v6),
        record_of(address_group(5, &["fd00::/64"])),
    ]);
    let rules = |all: &Followed| -> Vec<(u32, Vec<AddressSpan>)> {
        let rules = all.group(0, 0).expect("a port is in it").rules.into_iter();
        rules.map(|rule| (rule.number, rule.addresses)).collect()
    };
    let span = |first: &str, last: &str| AddressSpan {
        first: first.parse().expect("an address"),
        last: last.parse().expect("an address"),
    };
    let (v4, v6) = (span("10.1.0.0", "10.1.255.255"), span("fd00::", "fd00::ffff:ffff:ffff:ffff"));
    assert_eq!(rules(&all), [(1002, vec![v6.clone()])]);
    all.put(vec![record_of(address_group(5, &["fd00::/64", "10.1.0.0/16"]))]);
    assert_eq!(rules(&all), [(1001, vec![v4]), (1002, vec![v6])]);
    all.put(vec![record_of(address_group(5, &[]))]);
    assert_eq!(rules(&all), []);
}

#[test]
fn members_are_told_where_rules_of_ports_name_their_groups() {
    let mut all = Followed::grouped();
    let groups = [record_of(group(1)), record_of(group(2)), record_of(rule_about(1, 0, 1))];
    all.put(groups.to_vec());
    // NIC 10 looks for members of group 1; 11 and 22 are such, 12 is in another one.
    all.put(vec![record_of(in_group(10, 0, 1)), record_of(in_group(11, 1, 1))]);
    all.put(vec![record_of(in_group(22, 1, 1)), record_of(in_group(12, 2, 1))]);
    assert_eq!(all.members(0), [(11, vec![101])], "22 is in another domain");
    let addresses = vec![MemberAddress { ip: ip((1 << 8) + 11), domain: 1 }];
    let uuid = id::<VmNic>(6, 11).uuid();
    assert_eq!(all.member(0, 11), Some(Member { uuid, addresses, groups: vec![101] }));
    for host in 1..4 {
        assert_eq!(all.members(host), [], "no rule of its groups names a group");
    }
    // By all of its groups that are named, and by no other.
    all.put(vec![record_of(in_group(11, 2, 2)), record_of(in_group(11, 0, 3))]);
    assert_eq!(all.members(0), [(11, vec![101])]);
    assert_eq!(all.members(1), [(11, vec![101])], "it looks for those of group 1 itself");
    all.put(vec![record_of(rule_about(2, 0, 2))]);
    assert_eq!(all.members(0), [(11, vec![101, 102]), (12, vec![102])]);
    // Rules and groups that nobody asks look for nobody; members of disabled groups are members.
    all.put(vec![record_of(disabled(1)), record_of(disabled(2))]);
    assert_eq!(all.members(0), [(11, vec![101, 102]), (12, vec![102])]);
    all.put(vec![record_of(disabled(0))]);
    assert_eq!((all.members(0), all.members(1)), (vec![], vec![]));
    all.put(vec![record_of(group(0))]);
    let off = SecurityGroupRule { state: EnableState::Disabled, ..rule_about(2, 0, 2) };
    all.put(vec![record_of(off)]);
    assert_eq!(all.members(0), [(11, vec![101])]);
    // A NIC that does not count is nobody.
    let stopped = VmNic { l3_network_uuid: id(9, 1), ..nic(11, 1, None) };
    all.put(vec![record_of(stopped)]);
    assert_eq!(all.members(0), []);
}

/// The default rules of ZStack's groups: members reach each other.
#[test]
fn nics_of_one_host_are_members_for_each_other_too() {
    let mut all = Followed::grouped();
    all.put(nic_on(14, 1, 0));
    all.put(vec![record_of(rule_about(10, 0, 0)), record_of(in_group(14, 0, 1))]);
    assert_eq!(all.members(0), [(14, vec![100])]);
    all.put(vec![record_of(in_group(10, 0, 1))]);
    assert_eq!(all.members(0), [(10, vec![100]), (14, vec![100])]);
}

#[test]
fn link_local_addresses_are_their_networks_where_ports_have_them() {
    let mut all = Followed::grouped();
    let rows = [in_group(10, 0, 1), in_group(11, 0, 1), in_group(20, 0, 1), in_group(21, 0, 1)];
    all.put(rows.map(record_of).to_vec());
    all.put(vec![record_of(rule_about(10, 0, 0))]);
    let addresses = |all: &Followed| {
        let member = all.member(0, 11).expect("it is one");
        member.addresses.into_iter().map(|at| (at.ip, at.domain)).collect::<Vec<_>>()
    };
    let own = (ip((1 << 8) + 11), 1);
    assert_eq!(addresses(&all), [own]);
    // A physical network has guests' own routers in it.
    all.put(vec![record_of(on(1, Segment::NoVlan))]);
    let link_local: IpAddr = "fe80::f816:ff:fe00:b".parse().expect("an address");
    let port = all.port_on(1, 11);
    let Some(Object::Network(network)) = all.object(1, Table::Network, port.network) else {
        panic!("it is there")
    };
    assert_eq!(port.ips(&network).last(), Some(link_local));
    assert_eq!(addresses(&all), [own, (link_local, 0x8000_0001)]);
    all.put(vec![record_of(network_again())]);
    assert_eq!(addresses(&all), [own]);
    // So has one with a VTEP that is no host's, for hosts that know it.
    all.put(vec![record_of(host(1, 0)), record_of(remote_vtep(0, 0, 1))]);
    assert_eq!(addresses(&all), [own, (link_local, 0x8000_0001)]);
}

fn network_again() -> model::resource::l2_network::L2Network {
    network(1, 0, 1)
}

/// Hosts 0 to 99 with a NIC each in network 1: NICs 100 to 199. The first three are in group 0, which looks
/// for group 1.
fn hundred() -> Followed {
    let mut all = Followed::empty();
    let mut rows: Vec<Record> = (0..100).map(|h| record_of(vtep(h, h, 0, h))).collect();
    rows.extend([record_of(network(1, 0, 1)), range_on(1, 1)]);
    rows.extend([record_of(l3_on(1, L3Category::Private)), record_of(guarded(1))]);
    rows.extend((0..100).flat_map(|host| nic_on(100 + host, 1, host)));
    rows.extend([record_of(group(0)), record_of(group(1)), record_of(rule_about(1, 0, 1))]);
    rows.extend((0..3).map(|n| record_of(in_group(100 + n, 0, 1))));
    all.put(rows);
    all
}

#[test]
fn a_membership_change_reaches_the_hosts_that_look_for_it_and_no_other() {
    let mut all = hundred();
    let before = all.compiler.work().total();
    all.put(vec![record_of(in_group(150, 1, 1))]);
    let told: Vec<_> = all.told.iter().map(|(host, objects)| (*host, *objects)).collect();
    // A member on each of three; on its own host its port and its group.
    let expected = [(id(4, 0), 1), (id(4, 1), 1), (id(4, 2), 1), (id(4, 50), 2)];
    assert_eq!(told, expected);
    let work = all.compiler.work().total() - before;
    assert!(work < 60, "{work} entries for five objects, of 100 hosts");
    // What is a member already is told by one more group to those who look for that.
    all.put(vec![record_of(group(2)), record_of(rule_about(11, 1, 2))]);
    assert_eq!(all.told(), [50], "its rules are where its ports are");
    all.put(vec![record_of(in_group(151, 2, 1))]);
    assert_eq!(all.told(), [50, 51]);
    all.put(vec![record_of(in_group(151, 1, 2))]);
    assert_eq!(all.told(), [0, 1, 2, 51]);
    all.delete(&in_group(151, 2, 1));
    assert_eq!(all.told(), [50, 51], "whom the others know by another group");
    all.delete(&in_group(150, 1, 1));
    assert_eq!(all.told(), [0, 1, 2, 50]);
    // Whom all hosts know by another group costs those who look for this one.
    let rows = (0..100).map(|n| record_of(in_group(100 + n, 4, 5)));
    all.put(rows.chain([record_of(group(4)), record_of(rule_about(14, 4, 4))]).collect());
    let before = all.compiler.work().total();
    all.put(vec![record_of(in_group(152, 1, 1))]);
    assert_eq!(all.told(), [0, 1, 2, 52]);
    let work = all.compiler.work().total() - before;
    assert!(work < 60, "{work} entries for five objects, of 100 hosts that know it");
}

#[test]
fn a_rule_change_reaches_the_hosts_with_ports_in_its_group_and_no_other() {
    let mut all = hundred();
    let before = all.compiler.work().total();
    all.put(vec![record_of(rule(12, 0))]);
    assert_eq!(all.told, (0..3).map(|host| (id(4, host), 1)).collect());
    let work = all.compiler.work().total() - before;
    assert!(work < 30, "{work} entries for three objects, of 100 hosts");
    all.put(vec![record_of(rule(13, 1))]);
    assert_eq!(all.told(), [0; 0], "no port is in it");
    all.put(vec![record_of(address_group(1, &["10.9.0.0/16"]))]);
    assert_eq!(all.told(), [0; 0]);
    all.put(vec![record_of(rule_about_addresses(14, 0, 1))]);
    all.put(vec![record_of(address_group(1, &["10.8.0.0/16"]))]);
    assert_eq!(all.told(), [0, 1, 2]);
}

/// A group of 100,000 that knows its members, on 3 hosts: one more costs what its hosts cost.
#[test]
fn one_more_member_of_a_large_group_costs_its_hosts() {
    let new = |row: Record| Change {
        kind: row.kind(),
        id: row.uuid(),
        before: None,
        after: Some(Arc::new(row)),
    };
    let rows = |n: u32| {
        let on = VmNic { l3_network_uuid: id(9, 1), ..nic(n, 1, Some(n % 3)) };
        [record_of(in_group(n, 0, 1)), record_of(used(n, 0, n)), record_of(on)]
    };
    // Of changes alone: to write so many rows takes longer than all else.
    let cost = |members: u32| {
        let mut compiler = Compiler::new();
        let first = [record_of(on(1, Segment::NoVlan)), record_of(group(0))];
        let rules = [record_of(rule_about(10, 0, 0)), record_of(guarded(1))];
        let first = first.into_iter().chain(rules);
        let all: Vec<_> = first.chain((0..members).flat_map(rows)).map(new).collect();
        let held = compiler.apply(&all).into_values().map(|delta| delta.upserts.len());
        // Of each member a port and three objects; of each host a network and a group.
        assert_eq!(held.sum::<usize>(), members as usize * 4 + 3 * 2);
        let before = compiler.work().total();
        let told = compiler.apply(&rows(members).map(new)).into_values();
        let told: usize = told.map(|delta| delta.upserts.len() + delta.removes.len()).sum();
        assert_eq!(told, 4, "a port, and a member on each host");
        compiler.work().total() - before
    };
    let (few, many) = (cost(100), cost(100_000));
    assert_eq!(few, many);
    assert!(few < 60, "{few} entries for 4 objects");
}

#[test]
fn groups_follow_a_nic_that_moves_to_both_hosts() {
    let mut all = Followed::grouped();
    all.put(vec![record_of(in_group(10, 0, 1)), record_of(in_group(11, 0, 1))]);
    all.put(vec![record_of(rule_about(10, 0, 0))]);
    assert_eq!(all.members(3), []);
    let still = VmNic { l3_network_uuid: id(9, 1), ..nic(10, 1, Some(0)) };
    all.put(vec![record_of(moving(still.clone(), 3))]);
    let [here, there] = [0, 3].map(|host| all.port_on(host, 10));
    assert_eq!((&here.policy, &there.policy), (&Some(closed(&[0])), &Some(closed(&[0]))));
    assert_eq!(here.addresses, there.addresses);
    assert!(here.goes.is_some() && there.comes.is_some());
    assert_eq!(all.members(3), all.members(0), "known before it is there");
    assert_eq!((all.group(3, 0), all.members(3).len()), (all.group(0, 0), 2));
    assert!(all.group(3, 0).is_some());

    all.put(vec![record_of(VmNic { host_uuid: Some(id(4, 3)), ..still })]);
    assert_eq!((all.group(0, 0), all.members(0)), (None, vec![]), "nothing is left");
    assert_eq!(all.members(3).len(), 2);
}

#[test]
fn hosts_with_ports_are_told_how_long_connections_rest_where_it_was_set() {
    let mut all = Followed::grouped();
    let timeouts = |all: &Followed, host| {
        let uuid = id::<model::resource::host::Host>(4, host).uuid();
        all.object(host, Table::Timeouts, uuid)
    };
    all.put(vec![record_of(setting(&TCP_ESTABLISHED, "7440"))]);
    assert_eq!(timeouts(&all, 0), None, "as it is by itself");
    all.put(vec![record_of(setting(&TCP_ESTABLISHED, "600"))]);
    assert_eq!(all.told(), [0, 1, 2, 3]);
    let Some(Object::Timeouts(told)) = timeouts(&all, 2) else { panic!("it was told") };
    let expected = Timeouts {
        uuid: id::<model::resource::host::Host>(4, 2).uuid(),
        tcp_opening: 30,
        tcp_established: 600,
        tcp_closing: 240,
        tcp_closed: 10,
        opening: 30,
        udp_established: 120,
        icmp: 30,
        other: 600,
    };
    assert_eq!(told, expected);
    all.put(nic_on(15, 1, 5));
    assert_eq!(timeouts(&all, 5), None, "it has no VTEP, and so no port");
    all.put(vec![record_of(vtep(5, 5, 0, 5))]);
    assert!(timeouts(&all, 5).is_some());
    all.delete(&setting(&TCP_ESTABLISHED, "600"));
    assert_eq!(timeouts(&all, 2), None);
}

#[test]
fn a_nic_tells_of_its_connections_as_itself_its_network_or_all_say() {
    let mut all = Followed::grouped();
    let log = |all: &Followed, nic: u32| all.port_on(nic % 10, nic).flow_log;
    let l3 = |word| record_of(own_setting(&FLOW_LOG, id::<L3Network>(9, 1), word));
    let own = |word| record_of(own_setting(&FLOW_LOG, id::<VmNic>(6, 10), word));
    assert_eq!(log(&all, 10), None);
    all.put(vec![l3("Denied")]);
    assert_eq!(all.told(), [0, 1, 2, 3]);
    assert_eq!((log(&all, 10), log(&all, 20)), (Some(FlowLog::Denied), None));
    all.put(vec![record_of(setting(&FLOW_LOG, "All"))]);
    assert_eq!((log(&all, 10), log(&all, 20)), (Some(FlowLog::Denied), Some(FlowLog::All)));
    all.put(vec![own("None")]);
    assert_eq!(all.told(), [0], "the host of that NIC");
    assert_eq!((log(&all, 10), log(&all, 11)), (None, Some(FlowLog::Denied)));
    all.delete(&own_setting(&FLOW_LOG, id::<VmNic>(6, 10), "None"));
    all.put(vec![l3("None"), record_of(setting(&FLOW_LOG, "None"))]);
    assert_eq!((log(&all, 10), log(&all, 20)), (None, None));
}
