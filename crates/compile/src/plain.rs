//! The part of the reference that is about security groups: everything, from the state alone.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        address_group::AddressGroup,
        config::{GlobalConfig, ResourceConfig},
        host::Host,
        l2_network::L2Network,
        l3_network::L3Network,
        network_service::NetworkServiceL3NetworkRef,
        security_group::SecurityGroup,
        security_group_member::{VmNicSecurityGroupRef, VmNicSecurityPolicy},
        security_group_rule::SecurityGroupRule,
        vm_nic::VmNic,
    },
    setting::FlowLogEvents,
};
use store::Read;
use uuid::Uuid;
use wire::object::Object;

use crate::{
    domains,
    groups::{self, GroupId, Held, Names, Written},
    guard::{self, Guard, Guarded, Said},
    members::{Circle, Person},
    settings::{self, Value},
    timeouts,
};

/// What rows say, and what has been met.
pub(crate) struct Plain {
    rules: Vec<Written>,
    held: BTreeMap<GroupId, Held>,
    memberships: Vec<(Id<VmNic>, Guard)>,
    defaults: Vec<(Id<VmNic>, Guard)>,
    telling: Vec<(Id<VmNic>, Guard)>,
    until: BTreeSet<(Id<VmNic>, wire::policy::Way)>,
    served: BTreeSet<(Id<VmNic>, bool)>,
    networks: BTreeMap<Id<VmNic>, Id<L2Network>>,
    domains: BTreeMap<Id<L2Network>, u32>,
    globals: Vec<Value>,
    people: Vec<Person>,
    hosts: BTreeMap<Id<Host>, Met>,
}

/// What a host has ports in.
#[derive(Default)]
struct Met {
    groups: BTreeSet<GroupId>,
    circles: BTreeSet<Circle>,
}

/// All rows of a kind.
fn all<R: Resource + Clone>(read: &impl Read<Record>) -> Vec<R> {
    read.list(R::KIND).filter_map(|row| R::of(&row).cloned()).collect()
}

impl Plain {
    pub(crate) fn new(read: &impl Read<Record>) -> Self {
        let globals: BTreeSet<_> =
            all::<GlobalConfig>(read).iter().filter_map(settings::guarding).collect();
        let globals: Vec<_> = globals.into_iter().collect();
        let rules: Vec<_> =
            all::<SecurityGroupRule>(read).iter().filter_map(groups::rule).collect();
        let nics: Vec<VmNic> = all(read);
        let serving = serving(read, &globals);
        let served = |nic: &VmNic| {
            let places = guard::places(nic).into_iter();
            let closes = places.filter_map(|(l3, nic)| Some((nic, *serving.get(&l3)?)));
            closes.collect::<Vec<_>>()
        };
        let policies: Vec<VmNicSecurityPolicy> = all(read);
        Self {
            held: held(read, &rules),
            rules,
            memberships: memberships(read),
            defaults: policies.iter().map(guard::defaults).collect(),
            telling: telling(read, &nics),
            until: policies.iter().flat_map(guard::until_ruled).collect(),
            served: nics.iter().flat_map(served).collect(),
            networks: nics.iter().map(|nic| (nic.uuid, nic.l2_network_uuid)).collect(),
            domains: domains::all(read),
            globals,
            people: Vec::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// What guards a NIC, sorted.
    pub(crate) fn guards(&self, nic: Id<VmNic>) -> Vec<Guard> {
        let own = self
            .memberships
            .iter()
            .chain(&self.defaults)
            .chain(&self.telling)
            .filter(|(of, _)| *of == nic);
        let mut guards: BTreeSet<Guard> = own.map(|(_, guard)| guard.clone()).collect();
        let groups = guards.iter().filter_map(|guard| match guard {
            Guard::In(_, group, _) => Some(*group),
            _ => None,
        });
        let groups: BTreeSet<_> = groups.collect();
        for written in self.rules.iter().filter(|written| groups.contains(&written.group)) {
            let way = written.rule.chosen_way().filter(|way| self.until.contains(&(nic, *way)));
            guards.extend(way.map(|way| Guard::Ruled(written.group, way)));
        }
        let served =
            [false, true].into_iter().filter(|closes| self.served.contains(&(nic, *closes)));
        guards.extend(served.map(Guard::Served));
        let domain = self.networks.get(&nic).and_then(|l2| self.domains.get(l2));
        guards.extend(domain.map(|number| Guard::Domain(*number)));
        guards.into_iter().collect()
    }

    /// Meets a NIC that counts where it is.
    pub(crate) fn meet(&mut self, guarded: &Guarded<'_>, hosts: &[Id<Host>]) {
        self.people.extend(guarded.person());
        for host in hosts {
            let met = self.hosts.entry(*host).or_default();
            for group in guarded.groups() {
                met.groups.insert(group);
                for written in self.rules.iter().filter(|written| written.group == group) {
                    let Names::Group(named) = written.names else { continue };
                    met.circles.extend(guarded.domains().map(|domain| (named, domain)));
                }
            }
        }
    }

    /// What hosts hold beside ports.
    pub(crate) fn objects(&self) -> Vec<(Id<Host>, Object)> {
        let mut objects = Vec::new();
        for (host, met) in &self.hosts {
            let held = met.groups.iter().filter_map(|group| self.held.get(group));
            objects.extend(held.map(|held| (*host, Object::clone(&held.object))));
            let known =
                self.people.iter().filter_map(|it| it.object(|at| met.circles.contains(at)));
            objects.extend(known.map(|object| (*host, object)));
            objects.extend(timeouts::timeouts(*host, &self.globals).map(|it| (*host, it)));
        }
        objects
    }
}

fn memberships(read: &impl Read<Record>) -> Vec<(Id<VmNic>, Guard)> {
    let refs: Vec<VmNicSecurityGroupRef> = all(read);
    let standing = |group: GroupId| {
        let row = read.get(Kind::SecurityGroup, group.uuid())?;
        SecurityGroup::of(&row).map(groups::standing)
    };
    let guard = |row: &VmNicSecurityGroupRef| {
        let (group, (nic, place)) = guard::membership(row);
        Some((nic, Guard::In(place, group, standing(group)?.1)))
    };
    refs.iter().filter_map(guard).collect()
}

/// Which NICs tell of connections, and who says so.
fn telling(read: &impl Read<Record>, nics: &[VmNic]) -> Vec<(Id<VmNic>, Guard)> {
    let own: Vec<ResourceConfig> = all(read);
    let of_all: Vec<_> = all::<GlobalConfig>(read).iter().filter_map(settings::flow_log).collect();
    let told = |nic: &VmNic| {
        let places: BTreeSet<Uuid> =
            guard::places(nic).into_iter().map(|(l3, _)| l3.uuid()).collect();
        let own = own.iter().filter_map(|row| {
            let said = match row.resource.uuid {
                uuid if uuid == nic.uuid.uuid() => Said::ByNic,
                uuid if places.contains(&uuid) => Said::ByL3,
                _ => return None,
            };
            Some((said, settings::own_flow_log(row)?))
        });
        let all = of_all.iter().map(|events| (Said::ByAll, *events));
        let tells = |(said, events): (_, FlowLogEvents)| Guard::Tells(said, events.into());
        own.chain(all).map(|told| (nic.uuid, tells(told))).collect::<Vec<_>>()
    };
    nics.iter().flat_map(told).collect()
}

/// The L3 networks that have security groups, and whether each closes NICs that are in none.
fn serving(read: &impl Read<Record>, globals: &[Value]) -> BTreeMap<Id<L3Network>, bool> {
    let own: Vec<ResourceConfig> = all(read);
    let services = all::<NetworkServiceL3NetworkRef>(read).into_iter();
    let l3s = services.filter(guard::is_service).map(|row| row.l3_network_uuid);
    let closes = |l3: Id<L3Network>| {
        let own = own.iter().filter(|row| row.resource.id() == Some(l3));
        let own: Vec<_> = own.filter_map(settings::own_guarding).collect();
        (l3, guard::closes(&own, globals))
    };
    l3s.map(closes).collect()
}

/// What hosts hold for each group that is enabled.
fn held(read: &impl Read<Record>, rules: &[Written]) -> BTreeMap<GroupId, Held> {
    let whole = |written: &Written| match written.names {
        Names::Nothing => Some(written.rule.clone()),
        Names::Group(group) => {
            let row = read.get(Kind::SecurityGroup, group.uuid())?;
            Some(written.rule.of_members(SecurityGroup::of(&row)?.number))
        }
        Names::Addresses(group) => {
            let row = read.get(Kind::AddressGroup, group.uuid())?;
            written.rule.of_addresses(&groups::addresses(AddressGroup::of(&row)?).1)
        }
    };
    let groups = all::<SecurityGroup>(read);
    let groups = groups.iter().filter_map(groups::group).map(|(id, group)| {
        let own = rules.iter().filter(|written| written.group == id);
        let own: BTreeSet<_> = own.filter_map(whole).collect();
        (id, Held::new(&group, &own.into_iter().collect::<Vec<_>>()))
    });
    groups.collect()
}
