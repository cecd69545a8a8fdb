//! What hosts hold, judged by the reference: it decides as the rows mean it.

use std::{collections::BTreeSet, net::IpAddr};

use judge::{End, Known, Probe, Shows, judge, judge_pair};
use model::{
    Record, Resource,
    resource::{
        l3_network::L3Category,
        security_group::SecurityGroup,
        security_group_member::VmNicSecurityGroupRef,
        security_group_rule::{RuleProtocol, RuleType, SecurityGroupRule},
        used_ip::UsedIp,
        vm_nic::VmNic,
    },
};
use proptest::prelude::*;
use store::Read;
use wire::{
    object::{self, Member, Object},
    policy::{MemberAddress, Way},
};

use crate::{commit, followed::Followed, group_rows::*, random, random::Step, rows::*};

/// What a host knows, and its ports.
#[derive(Default)]
struct Held {
    groups: Vec<object::SecurityGroup>,
    members: Vec<Member>,
    ports: Vec<object::Port>,
}

impl Held {
    fn of(all: &Followed, host: u32) -> Self {
        let mut held = Self::default();
        for object in all.held.get(&id(4, host)).into_iter().flat_map(|objects| objects.values()) {
            match &**object {
                Object::SecurityGroup(group) => held.groups.push(group.clone()),
                Object::Member(member) => held.members.push(member.clone()),
                Object::Port(port) => held.ports.push(port.clone()),
                _ => {}
            }
        }
        held
    }

    fn known(&self) -> Known<'_> {
        Known { groups: &self.groups, members: &self.members }
    }

    fn end(&self, nic: u32) -> End<'_> {
        let uuid = id::<VmNic>(6, nic).uuid();
        let port = self.ports.iter().find(|port| port.uuid == uuid).expect("it is here");
        let at = &port.addresses[0];
        let policy = port.policy.as_ref();
        End { policy, known: self.known(), address: at.ip, domain: at.domain }
    }
}

/// Whether TCP to a port gets from one NIC to another, each on the host of its last digit.
fn passes(all: &Followed, (from, to): (u32, u32), port: u16) -> bool {
    let (there, here) = (Held::of(all, from % 10), Held::of(all, to % 10));
    let shows = Shows::Ports { source: 40_000, destination: port };
    judge_pair(&there.end(from), &here.end(to), 6, shows).arrives()
}

/// Web servers in network 1 (NICs 10 and 11) and a database in network 2 (NIC 22). The world reaches the web
/// servers, these the database, and an administrator everything by SSH. A routing VM joins the networks.
#[test]
fn web_servers_reach_their_database_across_networks_that_a_vm_joins() {
    let mut all = Followed::empty();
    let mut rows = vec![record_of(group(1)), record_of(group(2)), record_of(group(3))];
    for net in [1, 2, 3] {
        rows.extend([record_of(network(net, 0, net)), range_on(net, net)]);
        rows.extend([record_of(l3_on(net, L3Category::Private)), record_of(guarded(net))]);
    }
    rows.extend((0..4).map(|h| record_of(vtep(h, h, 0, h))));
    for (nic, net) in [(10, 1), (11, 1), (13, 1), (22, 2), (33, 3)] {
        rows.extend(nic_on(nic, net, nic % 10));
    }
    let tcp = |rule: SecurityGroupRule, ports: &str| SecurityGroupRule {
        protocol: RuleProtocol::Tcp,
        dst_port_range: Some(ports.to_owned()),
        ..rule
    };
    let from = |list: &str, rule| SecurityGroupRule { src_ip_range: Some(list.to_owned()), ..rule };
    rows.extend([
        record_of(tcp(rule(11, 1), "80,443")),
        record_of(tcp(rule_about(21, 2, 1), "5432")),
        record_of(from("10.0.3.0/24", tcp(rule(31, 3), "22"))),
    ]);
    for (nic, group, place) in [(10, 1, 1), (11, 1, 1), (22, 2, 1), (10, 3, 2), (22, 3, 2)] {
        rows.push(record_of(in_group(nic, group, place)));
    }
    all.put(rows);
    let table = |all: &Followed| {
        let ways = [(10, 22, 5432), (11, 22, 5432), (13, 22, 5432), (33, 22, 5432)];
        let more = [(13, 10, 80), (22, 10, 443), (22, 10, 5432), (33, 10, 22), (13, 10, 22)];
        let pass = |(from, to, port)| passes(all, (from, to), port);
        ways.into_iter().chain(more).map(pass).collect::<Vec<_>>()
    };
    let apart = [false, false, false, false, true, true, false, true, false];
    let joined = [true, true, false, false, true, true, false, true, false];
    assert_eq!(table(&all), apart, "addresses of another domain are nobody's");
    all.put(vec![record_of(leg(70, 70, 1, &[2])), record_of(leg(71, 70, 2, &[1]))]);
    assert_eq!(table(&all), joined);
    all.delete(&leg(70, 70, 1, &[2]));
    assert_eq!(table(&all), apart);
}

/// All NICs that count as members of all their groups, as the rows say.
fn everybody(all: &Followed) -> Vec<Member> {
    let snapshot = all.store.snapshot();
    let rows = |kind| snapshot.list(kind).collect::<Vec<_>>();
    let (nics, refs) = (rows(VmNic::KIND), rows(VmNicSecurityGroupRef::KIND));
    let used = rows(UsedIp::KIND);
    let member = |row: &std::sync::Arc<Record>| {
        let nic = VmNic::of(row)?;
        nic.host_uuid?;
        let own = used.iter().filter_map(|row| UsedIp::of(row));
        let own = own.filter(|used| used.used_by.id() == Some(nic.uuid));
        let domain = u32::try_from(nic.l2_network_uuid.uuid().as_u128() & 0xff).expect("small");
        let refs = refs.iter().filter_map(|row| VmNicSecurityGroupRef::of(row));
        let groups = refs.filter(|row| row.vm_nic_uuid == nic.uuid).filter_map(|row| {
            let group = snapshot.get(SecurityGroup::KIND, row.security_group_uuid.uuid())?;
            Some(SecurityGroup::of(&group)?.number)
        });
        Some(Member {
            uuid: nic.uuid.uuid(),
            addresses: own.map(|used| MemberAddress { ip: used.ip, domain }).collect(),
            groups: groups.collect(),
        })
    };
    nics.iter().filter_map(member).collect()
}

fn probes(remotes: &BTreeSet<IpAddr>, domain: u32) -> Vec<Probe> {
    let of = |remote: &IpAddr| {
        let shows = Shows::Ports { source: 1, destination: 80 };
        let tcp = Probe { domain, remote: *remote, protocol: 6, shows };
        [tcp, Probe { protocol: 132, shows: Shows::Nothing, ..tcp }]
    };
    remotes.iter().flat_map(of).collect()
}

fn row() -> impl Strategy<Value = Record> {
    let names = (0..16u32, 0..4u32, 0..4u32, any::<bool>());
    let rules = names.prop_map(|(n, of, about, is_egress)| {
        let rule_type = if is_egress { RuleType::Egress } else { RuleType::Ingress };
        record_of(SecurityGroupRule { rule_type, ..rule_about(n, of, about) })
    });
    let nics = || (1..3u32, 0..4u32).prop_map(|(net, host)| net * 10 + host);
    let refs = (nics(), 0..4u32, 1..4u32).prop_map(|(nic, group, at)| in_group(nic, group, at));
    let hosts = (nics(), prop::option::of(0..4u32)).prop_map(|(n, host)| {
        record_of(VmNic { l3_network_uuid: id(9, n / 10), ..nic(n, n / 10, host) })
    });
    prop_oneof![3 => rules, 5 => refs.prop_map(record_of), 1 => hosts, 3 => random::guarded_by()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What a host was not told of decides nothing there.
    #[test]
    fn a_host_decides_by_what_it_holds_as_if_it_knew_everything(
        steps in prop::collection::vec(prop::collection::vec(row(), 1..6), 1..12),
    ) {
        let mut all = Followed::grouped();
        all.put((1..4).map(|n| record_of(group(n))).collect());
        for step in steps {
            commit(&all.store, Step::Put(step));
            all.follow();
        }
        let everybody = everybody(&all);
        let remotes: BTreeSet<IpAddr> =
            everybody.iter().flat_map(|member| member.addresses.iter().map(|at| at.ip)).collect();
        for host in 0..4 {
            let held = Held::of(&all, host);
            let whole = Known { groups: &held.groups, members: &everybody };
            for port in &held.ports {
                let Some(policy) = &port.policy else { continue };
                let known = |uuid: &uuid::Uuid| held.groups.iter().any(|group| group.uuid == *uuid);
                prop_assert!(policy.groups.iter().all(known), "its groups are there");
                let domain = port.addresses.first().map_or(0, |at| at.domain);
                for (probe, way) in probes(&remotes, domain)
                    .into_iter()
                    .flat_map(|probe| [(probe, Way::Ingress), (probe, Way::Egress)])
                {
                    let found = judge(policy, held.known(), way, &probe);
                    prop_assert_eq!(found, judge(policy, whole, way, &probe), "{:?}", probe);
                }
            }
        }
    }
}
