//! Security groups: which operators bring rows and NICs together, from them to what hosts hold.
//!
//! ```text
//! rules ─┬─join groups, address groups─┐
//! groups ┼─────────────────────────gather─► held ─────────────────(with present)─join─► SecurityGroup
//!        └─map, group─► named ──────────────────────────────┐
//! memberships, policies, services, domains ─join─► guards   ├─join─group─► lookers ─┐
//!                                                     │     │                       │
//! bound NICs ──────────────────────────────────────gather─► guarded ─► present      ├─members─► Member
//!                                                           └──────────► people ────┘
//! ```

use std::sync::Arc;

use model::{
    Id, Record,
    resource::{
        address_group::AddressGroup,
        config::{GlobalConfig, ResourceConfig},
        host::Host,
        l2_network::L2Network,
        l3_network::L3Network,
        network_service::NetworkServiceL3NetworkRef,
        security_group::SecurityGroup,
        security_group_member::{VmNicSecurityGroupRef, VmNicSecurityPolicy},
        vm_nic::VmNic,
    },
};
use store::Change;
use wire::{policy::Way, shared::Shared};

use crate::{
    changes::rows,
    compiler::{Bound, hosts_of},
    groups::{self, Addresses, Group, GroupId, Held, Names, Rule, Standing, Written},
    guard::{self, Guard, Guarded, Said, Telling},
    members::{Circle, Members},
    operators::{self, Delta, Gather, Join, each, map},
    settings::{self, Value},
    timeouts,
};

type NetworkId = Id<L2Network>;

/// A NIC that counts, with what guards it, sorted.
pub(crate) type Guards = (Arc<Bound>, Vec<Guard>);

/// The operators.
#[derive(Debug)]
pub(crate) struct Security {
    by_group: Join<GroupId, (GroupId, Arc<Rule>), u32>,
    by_addresses: Join<Id<AddressGroup>, (GroupId, Arc<Rule>), Arc<Addresses>>,
    held: Gather<GroupId, Group, Arc<Rule>>,
    named: operators::Group<(GroupId, GroupId), ()>,
    ruled: operators::Group<(GroupId, Way), ()>,

    memberships: Join<GroupId, (Id<VmNic>, u32), Standing>,
    until: Join<Id<VmNic>, GroupId, Way>,
    until_ruled: Join<(GroupId, Way), Id<VmNic>, ()>,
    services: operators::Group<Id<L3Network>, ()>,
    closing: Gather<Id<L3Network>, Id<L3Network>, Value>,
    globals: Gather<(), (), Value>,
    /// What has every setting, until it is taken in.
    all: Delta<((), ())>,
    serving: Join<(), (Id<L3Network>, Vec<Value>), Vec<Value>>,
    served: Join<Id<L3Network>, Id<VmNic>, bool>,
    domains: Join<NetworkId, Id<VmNic>, u32>,
    /// Who tells of connections: the NICs of an L3 network, and all.
    telling: Join<Id<L3Network>, Id<VmNic>, Telling>,
    all_telling: Join<(), Id<VmNic>, Telling>,
    guarded: Gather<Id<VmNic>, Arc<Bound>, Guard>,

    present: operators::Group<(GroupId, Id<Host>), ()>,
    groups: Join<GroupId, Id<Host>, Held>,
    looking: operators::Group<(GroupId, (Id<Host>, u32)), ()>,
    looked_for: Join<GroupId, (Id<Host>, u32), GroupId>,
    lookers: operators::Group<(Circle, Id<Host>), ()>,
    members: Members,
    with_ports: operators::Group<Id<Host>, ()>,
    timeouts: Join<(), Id<Host>, Vec<Value>>,
}

impl Security {
    pub(crate) fn new() -> Self {
        Self {
            by_group: Join::new(),
            by_addresses: Join::new(),
            held: Gather::new(),
            named: operators::Group::new(),
            ruled: operators::Group::new(),
            memberships: Join::new(),
            until: Join::new(),
            until_ruled: Join::new(),
            services: operators::Group::new(),
            closing: Gather::new(),
            globals: Gather::new(),
            all: vec![(((), ()), 1)],
            serving: Join::new(),
            served: Join::new(),
            domains: Join::new(),
            telling: Join::new(),
            all_telling: Join::new(),
            guarded: Gather::new(),
            present: operators::Group::new(),
            groups: Join::new(),
            looking: operators::Group::new(),
            looked_for: Join::new(),
            lookers: operators::Group::new(),
            members: Members::new(),
            with_ports: operators::Group::new(),
            timeouts: Join::new(),
        }
    }

    /// What guards NICs that count, and what hosts hold for that beside their ports.
    pub(crate) fn step(
        &mut self,
        changes: &[Change<Record>],
        bound: &Delta<Bound>,
        domains: Delta<(NetworkId, u32)>,
    ) -> (Delta<Guards>, Delta<(Id<Host>, Shared)>) {
        let settings = rows(changes, |row: &GlobalConfig| Some(((), settings::guarding(row)?)));
        let globals = self.globals.step(std::mem::take(&mut self.all), settings);
        let globals = map(&globals, |((), all)| Some(((), all.clone())));
        let rules = rows(changes, groups::rule);
        let named = named(&rules);
        let named = map(&self.named.step(named), |(pair, ())| Some(*pair));
        let ruled = map(&rules, |rule| Some(((rule.group, rule.rule.chosen_way()?), ())));
        let ruled = self.ruled.step(ruled);

        let mut guards = self.memberships(changes, ruled);
        guards.extend(self.served(changes, globals.clone()));
        guards.extend(self.telling(changes));
        let on = rows(changes, |row: &VmNic| Some(guard::on(row)));
        let domains = self.domains.step(on, domains);
        guards.extend(map(&domains, |(_, nic, number)| Some((*nic, Guard::Domain(*number)))));
        let bound = map(bound, |bound| Some((bound.0.0.uuid, Arc::new(bound.clone()))));
        let guarded = self.guarded.step(bound, guards);

        let held = self.held(changes, &rules);
        let mut out = self.groups(&guarded, held);
        out.extend(self.members(&guarded, named));
        let hosts =
            each(&guarded, |(bound, _)| hosts_of(bound).map(|host| (host, ())).collect::<Vec<_>>());
        let hosts = map(&self.with_ports.step(hosts), |(host, ())| Some(((), *host)));
        let timeouts = self.timeouts.step(hosts, globals);
        out.extend(map(&timeouts, |((), host, values)| {
            Some((*host, timeouts::timeouts(*host, values)?.into()))
        }));
        (guarded, out)
    }

    pub(crate) fn work(&self) -> u64 {
        self.by_group.work
            + self.by_addresses.work
            + self.held.work
            + self.named.work
            + self.ruled.work
            + self.memberships.work
            + self.until.work
            + self.until_ruled.work
            + self.services.work
            + self.closing.work
            + self.globals.work
            + self.serving.work
            + self.served.work
            + self.domains.work
            + self.telling.work
            + self.all_telling.work
            + self.guarded.work
            + self.present.work
            + self.groups.work
            + self.with_ports.work
            + self.timeouts.work
    }

    /// The work for members.
    pub(crate) fn members_work(&self) -> u64 {
        self.looking.work + self.looked_for.work + self.lookers.work + self.members.work
    }

    /// Groups with their rules.
    fn held(&mut self, changes: &[Change<Record>], rules: &Delta<Written>) -> Delta<Held> {
        let whole = map(rules, |written| {
            (written.names == Names::Nothing).then(|| (written.group, Arc::clone(&written.rule)))
        });
        let by_group = map(rules, |written| match written.names {
            Names::Group(group) => Some((group, (written.group, Arc::clone(&written.rule)))),
            _ => None,
        });
        let numbers = rows(changes, |row: &SecurityGroup| Some((row.uuid, row.number)));
        let by_group = self.by_group.step(by_group, numbers);
        let by_addresses = map(rules, |written| match written.names {
            Names::Addresses(group) => Some((group, (written.group, Arc::clone(&written.rule)))),
            _ => None,
        });
        let addresses = rows(changes, |row: &AddressGroup| Some(groups::addresses(row)));
        let by_addresses = self.by_addresses.step(by_addresses, addresses);
        let mut rules = whole;
        rules.extend(map(&by_group, |(_, (group, rule), number)| {
            Some((*group, rule.of_members(*number)))
        }));
        rules.extend(map(&by_addresses, |(_, (group, rule), addresses)| {
            Some((*group, rule.of_addresses(addresses)?))
        }));
        let held = self.held.step(rows(changes, groups::group), rules);
        map(&held, |(group, rules)| Some(Held::new(group, rules)))
    }

    /// What groups that a NIC is in, and what it has said about the rest, mean for it.
    fn memberships(
        &mut self,
        changes: &[Change<Record>],
        ruled: Delta<((GroupId, Way), ())>,
    ) -> Delta<(Id<VmNic>, Guard)> {
        let refs = rows(changes, |row: &VmNicSecurityGroupRef| Some(guard::membership(row)));
        let groups = map(&refs, |(group, (nic, _))| Some((*nic, *group)));
        let standings = rows(changes, |row: &SecurityGroup| Some(groups::standing(row)));
        let standings = self.memberships.step(refs, standings);
        let mut guards = map(&standings, |(group, (nic, place), standing)| {
            Some((*nic, Guard::In(*place, *group, *standing)))
        });
        guards.extend(rows(changes, |row: &VmNicSecurityPolicy| Some(guard::defaults(row))));
        let until = rows(changes, |row: &VmNicSecurityPolicy| Some(guard::until_ruled(row)));
        let until = self.until.step(groups, each(&until, Clone::clone));
        let until = map(&until, |(nic, group, way)| Some(((*group, *way), *nic)));
        let until = self.until_ruled.step(until, ruled);
        guards.extend(map(&until, |((group, way), nic, ())| {
            Some((*nic, Guard::Ruled(*group, *way)))
        }));
        guards
    }

    /// The NICs of L3 networks that have security groups.
    fn served(
        &mut self,
        changes: &[Change<Record>],
        globals: Delta<((), Vec<Value>)>,
    ) -> Delta<(Id<VmNic>, Guard)> {
        let services = rows(changes, |row: &NetworkServiceL3NetworkRef| {
            guard::is_service(row).then_some((row.l3_network_uuid, ()))
        });
        let services = map(&self.services.step(services), |(l3, ())| Some((*l3, *l3)));
        let own = rows(changes, |row: &ResourceConfig| {
            Some((row.resource.id()?, settings::own_guarding(row)?))
        });
        let closing = self.closing.step(services, own);
        let closing = map(&closing, |it| Some(((), it.clone())));
        let serving = self.serving.step(closing, globals);
        let serving =
            map(&serving, |((), (l3, own), globals)| Some((*l3, guard::closes(own, globals))));
        let nics = each(&rows(changes, |row: &VmNic| Some(guard::places(row))), Clone::clone);
        let nics = self.served.step(nics, operators::settle(serving));
        map(&nics, |(_, nic, closes)| Some((*nic, Guard::Served(*closes))))
    }

    /// Who tells of its connections, as its own setting says, that of its L3 networks, and that of all.
    fn telling(&mut self, changes: &[Change<Record>]) -> Delta<(Id<VmNic>, Guard)> {
        let tells = |nic: Id<VmNic>, said, telling| Some((nic, Guard::Tells(said, telling)));
        let mut guards = rows(changes, |row: &ResourceConfig| {
            tells(row.resource.id()?, Said::ByNic, settings::own_flow_log(row)?.into())
        });
        let of_l3 = rows(changes, |row: &ResourceConfig| {
            let telling: Telling = settings::own_flow_log(row)?.into();
            Some((row.resource.id::<L3Network>()?, telling))
        });
        let nics = each(&rows(changes, |row: &VmNic| Some(guard::places(row))), Clone::clone);
        let of_l3 = self.telling.step(nics, of_l3);
        guards.extend(map(&of_l3, |(_, nic, telling)| tells(*nic, Said::ByL3, *telling)));
        let of_all = rows(changes, |row: &GlobalConfig| {
            let telling: Telling = settings::flow_log(row)?.into();
            Some(((), telling))
        });
        let nics = rows(changes, |row: &VmNic| Some(((), row.uuid)));
        let of_all = self.all_telling.step(nics, of_all);
        guards.extend(map(&of_all, |((), nic, telling)| tells(*nic, Said::ByAll, *telling)));
        guards
    }

    /// The groups that a host has ports in.
    fn groups(&mut self, guarded: &Delta<Guards>, held: Delta<Held>) -> Delta<(Id<Host>, Shared)> {
        let present = each(guarded, |guards| {
            let at = |group| hosts_of(&guards.0).map(move |host| ((group, host), ()));
            Guarded::from(guards).groups().flat_map(at).collect::<Vec<_>>()
        });
        let present = map(&self.present.step(present), |(pair, ())| Some(*pair));
        let held = map(&held, |held| Some((held.uuid(), held.clone())));
        let groups = self.groups.step(present, held);
        map(&groups, |(_, host, held)| Some((*host, held.object.clone())))
    }

    /// Those who are in groups that rules of a host's groups name.
    fn members(
        &mut self,
        guarded: &Delta<Guards>,
        named: Delta<(GroupId, GroupId)>,
    ) -> Delta<(Id<Host>, Shared)> {
        let looking = each(guarded, |guards| {
            let seen = Guarded::from(guards);
            let hosts: Vec<_> = hosts_of(&guards.0).collect();
            let at = |group| {
                let places = hosts.iter().flat_map(|host| seen.domains().map(|it| (*host, it)));
                places.map(move |place| ((group, place), ())).collect::<Vec<_>>()
            };
            seen.groups().flat_map(at).collect::<Vec<_>>()
        });
        let looking = map(&self.looking.step(looking), |(looking, ())| Some(*looking));
        let lookers = self.looked_for.step(looking, named);
        let lookers =
            map(&lookers, |(_, (host, domain), group)| Some((((*group, *domain), *host), ())));
        let lookers = map(&self.lookers.step(lookers), |(looker, ())| Some(*looker));
        let people = map(guarded, |guards| Guarded::from(guards).person());
        self.members.step(operators::settle(people), lookers)
    }
}

/// The groups that rules name, each with the rule's own.
fn named(rules: &Delta<Written>) -> Delta<((GroupId, GroupId), ())> {
    map(rules, |written| match written.names {
        Names::Group(group) => Some(((written.group, group), ())),
        _ => None,
    })
}
