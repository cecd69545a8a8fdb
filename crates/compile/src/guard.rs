//! What guards a NIC: from what rows say about its security groups to the policy of its port, and to what
//! others know of it as a member.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    Id,
    resource::{
        l2_network::L2Network,
        l3_network::L3Network,
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
        security_group_member::{NicPolicy, VmNicSecurityGroupRef, VmNicSecurityPolicy},
        vm_nic::VmNic,
    },
    setting::{FlowLogEvents, WITHOUT_GROUP, WithoutGroup},
};
use wire::{
    object::{FlowLog, Object, Port, link_local},
    policy::{Action, LINK_LOCAL_DOMAIN, Policy, Way},
    told::Service,
};

use crate::{
    groups::{GroupId, Standing},
    members::Person,
    objects::{Ends, Net, Nic},
    settings::{self, Value},
};

/// What rows say about what guards a NIC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guard {
    /// It is in a group, which is asked at this place.
    In(u32, GroupId, Standing),
    /// What becomes of what no group decides: towards it, from it.
    Defaults(NicPolicy, NicPolicy),
    /// A group that it is in has enabled rules of this way, beside those that came with the group. Known where
    /// it matters.
    Ruled(GroupId, Way),
    /// One of its L3 networks has security groups, and closes NICs that are in none, or does not. Without any
    /// such network groups have no effect on it.
    Served(bool),
    /// The number of its network's routing domain, where it is not the network's own.
    Domain(u32),
    /// Which of its connections it tells of, as somebody says.
    Tells(Said, Telling),
}

/// Who says it: the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    ByNic,
    ByL3,
    ByAll,
}

/// Which connections are told of: of several L3 networks, the most count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Telling {
    All,
    Denied,
    Nothing,
}

impl From<FlowLogEvents> for Telling {
    fn from(events: FlowLogEvents) -> Self {
        match events {
            FlowLogEvents::None => Self::Nothing,
            FlowLogEvents::Denied => Self::Denied,
            FlowLogEvents::All => Self::All,
        }
    }
}

/// A NIC that counts, with what guards it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded<'a> {
    pub(crate) nic: &'a Nic,
    pub(crate) net: &'a Net,
    /// The ends of the tunnels where it is, and where it moves to.
    pub(crate) ends: [Option<&'a Ends>; 2],
    /// Sorted.
    pub(crate) guards: &'a [Guard],
}

/// That a NIC is in a group, and at which place.
pub(crate) fn membership(row: &VmNicSecurityGroupRef) -> (GroupId, (Id<VmNic>, u32)) {
    (row.security_group_uuid, (row.vm_nic_uuid, row.priority))
}

/// What becomes of what no group decides.
pub(crate) fn defaults(row: &VmNicSecurityPolicy) -> (Id<VmNic>, Guard) {
    (row.vm_nic_uuid, Guard::Defaults(row.ingress_policy, row.egress_policy))
}

/// The ways for which it matters whether a NIC's groups have rules.
pub(crate) fn until_ruled(row: &VmNicSecurityPolicy) -> Vec<(Id<VmNic>, Way)> {
    let of = [(row.ingress_policy, Way::Ingress), (row.egress_policy, Way::Egress)];
    let until = of.into_iter().filter(|(policy, _)| *policy == NicPolicy::AllowUntilRule);
    until.map(|(_, way)| (row.vm_nic_uuid, way)).collect()
}

/// Whether a service is what lets an L3 network close NICs.
pub(crate) fn is_service(row: &NetworkServiceL3NetworkRef) -> bool {
    row.network_service_type == NetworkServiceType::SecurityGroup
}

/// Whether an L3 network that has the service closes NICs that are in no group.
pub(crate) fn closes(own: &[Value], globals: &[Value]) -> bool {
    settings::value(&WITHOUT_GROUP, own.iter(), globals) == Some(WithoutGroup::Closed.as_str())
}

impl Guarded<'_> {
    /// The policy of its port, if it has one. What is in groups that are all disabled is not in none: its
    /// defaults decide.
    pub(crate) fn policy(&self) -> Option<Policy> {
        if self.memberships().next().is_none() {
            let closed = Policy { groups: Vec::new(), ingress: Action::Drop, egress: Action::Drop };
            return self.guards.contains(&Guard::Served(true)).then_some(closed);
        }
        let defaults = self.guards.iter().find_map(|guard| match guard {
            Guard::Defaults(ingress, egress) => Some((*ingress, *egress)),
            _ => None,
        });
        // As of a NIC that has come into its first group, where nobody has said otherwise.
        let (ingress, egress) = defaults.unwrap_or((NicPolicy::Deny, NicPolicy::Allow));
        let action = |policy: NicPolicy, way| match policy.allows(self.is_ruled(way)) {
            true => Action::Accept,
            false => Action::Drop,
        };
        Some(Policy {
            groups: self.groups().map(Id::uuid).collect(),
            ingress: action(ingress, Way::Ingress),
            egress: action(egress, Way::Egress),
        })
    }

    /// The groups that are asked, in order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.memberships().filter(|(_, standing)| standing.is_enabled).map(|(group, _)| group)
    }

    /// Number of the routing domain of its addresses.
    pub(crate) fn domain(&self) -> u32 {
        let other = self.guards.iter().find_map(|guard| match guard {
            Guard::Domain(number) => Some(*number),
            _ => None,
        });
        other.unwrap_or(self.net.number)
    }

    /// Numbers of all domains in which it has an address.
    pub(crate) fn domains(&self) -> impl Iterator<Item = u32> {
        let link_local = self.link_local().map(|_| self.link_local_domain());
        [self.domain()].into_iter().chain(link_local)
    }

    /// A port of it with what guards it. The domain is told where a group may ask for it: earlier agents hold
    /// no port that has one.
    pub(crate) fn port(&self, port: Port) -> Object {
        let (mut port, policy) = (port, self.policy());
        if policy.as_ref().is_some_and(|policy| !policy.groups.is_empty()) {
            port.addresses.iter_mut().for_each(|address| address.domain = self.domain());
        }
        Object::Port(Port { policy, flow_log: self.flow_log(), ..port })
    }

    /// Which of its connections it tells of.
    fn flow_log(&self) -> Option<FlowLog> {
        let tells = self.guards.iter().filter_map(|guard| match guard {
            Guard::Tells(said, telling) => Some((*said, *telling)),
            _ => None,
        });
        match tells.min()?.1 {
            Telling::All => Some(FlowLog::All),
            Telling::Denied => Some(FlowLog::Denied),
            Telling::Nothing => None,
        }
    }

    /// What others know of it, if it is in groups and has addresses.
    pub(crate) fn person(&self) -> Option<Person> {
        let groups: BTreeMap<_, _> =
            self.memberships().map(|(group, standing)| (group, standing.number)).collect();
        let domain = self.domain();
        let mut addresses: BTreeSet<_> = self.nic.ips().map(|ip| (ip, domain)).collect();
        addresses.extend(self.link_local().map(|ip| (ip, self.link_local_domain())));
        let addresses = addresses.into_iter().collect();
        let is_one = !groups.is_empty();
        is_one.then_some(Person { nic: self.nic.uuid, addresses, groups })
    }

    /// Its groups, if they have an effect.
    fn memberships(&self) -> impl Iterator<Item = (GroupId, Standing)> + '_ {
        let is_served = self.guards.iter().any(|guard| matches!(guard, Guard::Served(_)));
        let groups = self.guards.iter().filter_map(|guard| match guard {
            Guard::In(_, group, standing) => Some((*group, *standing)),
            _ => None,
        });
        groups.filter(move |_| is_served)
    }

    fn is_ruled(&self, way: Way) -> bool {
        self.groups().any(|group| self.guards.contains(&Guard::Ruled(group, way)))
    }

    fn link_local_domain(&self) -> u32 {
        LINK_LOCAL_DOMAIN | self.net.number
    }

    /// The address of its MAC, where its port may send from it ([`Port::ips`](wire::object::Port::ips)).
    fn link_local(&self) -> Option<IpAddr> {
        let is_open = self.net.pool().is_none()
            || self.ends.iter().flatten().any(|ends| !ends.foreign.is_empty());
        let has = is_open || self.nic.has(Service::Ipv6);
        has.then(|| link_local(self.nic.mac).into())
    }
}

/// The L3 networks that a NIC is on.
pub(crate) fn places(row: &VmNic) -> Vec<(Id<L3Network>, Id<VmNic>)> {
    let l3s: BTreeSet<_> =
        row.more_l3_network_uuids.iter().chain([&row.l3_network_uuid]).copied().collect();
    l3s.into_iter().map(|l3| (l3, row.uuid)).collect()
}

/// That a NIC is on an L2 network.
pub(crate) fn on(row: &VmNic) -> (Id<L2Network>, Id<VmNic>) {
    (row.l2_network_uuid, row.uuid)
}
