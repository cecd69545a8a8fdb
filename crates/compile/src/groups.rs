//! Security groups: from the rows about them to the [`SecurityGroup`](object::SecurityGroup) that hosts hold.
//!
//! What is disabled is left out. So is a rule that names something that has nothing of its family in it: without
//! addresses it would be about everybody.

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use model::{
    Id,
    resource::{
        address_group::AddressGroup,
        security_group::SecurityGroup,
        security_group_rule::{Remote, RuleAction, RuleType, SecurityGroupRule},
        zone::EnableState,
    },
};
use wire::{
    object::{self, Object},
    policy::{self, Action, AddressSpan, PortSpan, Way},
    shared::Shared,
};

/// A group's id.
pub(crate) type GroupId = Id<SecurityGroup>;

/// The first and the last of some addresses.
type Span = (IpAddr, IpAddr);

/// A group that is enabled, without its rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    uuid: GroupId,
    number: u32,
    is_stateless: bool,
}

/// What a group is for NICs that are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    pub(crate) number: u32,
    /// One that is not is passed over, and has its members all the same.
    pub(crate) is_enabled: bool,
}

/// A rule that is enabled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    /// Its priority and its number, which decide when it is asked.
    place: (u32, u32),
    uuid: Id<SecurityGroupRule>,
    way: Way,
    is_v6: bool,
    action: Action,
    protocol: Option<u8>,
    ports: Vec<(u16, u16)>,
    far: Far,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Far {
    Anybody,
    /// Who has one of these addresses.
    Addresses(Vec<Span>),
    /// The members of the group with this number.
    Members(u32),
}

/// A rule as its row has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub(crate) group: GroupId,
    pub(crate) rule: Arc<Rule>,
    pub(crate) names: Names,
}

/// What a rule names for its other end that other rows know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Names {
    /// Nothing: it says itself who it is.
    Nothing,
    /// A group.
    Group(GroupId),
    /// A group of addresses.
    Addresses(Id<AddressGroup>),
}

/// The addresses of a group of addresses: IPv4, IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Addresses([Vec<Span>; 2]);

/// What hosts hold for a group.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    group: Group,
    rules: Vec<Arc<Rule>>,
    /// Made of these: one object for all hosts.
    pub(crate) object: Shared,
}

/// A group, if it is enabled.
pub(crate) fn group(row: &SecurityGroup) -> Option<(GroupId, Group)> {
    let (uuid, number, is_stateless) = (row.uuid, row.number, row.is_stateless);
    let group = Group { uuid, number, is_stateless };
    (row.state == EnableState::Enabled).then_some((uuid, group))
}

/// What a group is for its members.
pub(crate) fn standing(row: &SecurityGroup) -> (GroupId, Standing) {
    let is_enabled = row.state == EnableState::Enabled;
    (row.uuid, Standing { number: row.number, is_enabled })
}

/// A rule, if it is enabled.
pub(crate) fn rule(row: &SecurityGroupRule) -> Option<Written> {
    let (names, far) = match row.remote() {
        Remote::Any => (Names::Nothing, Far::Anybody),
        Remote::Addresses(spans) if spans.is_empty() => return None,
        Remote::Addresses(spans) => (Names::Nothing, Far::Addresses(spans)),
        Remote::Group(group) => (Names::Group(group), Far::Anybody),
        Remote::AddressGroup(group) => (Names::Addresses(group), Far::Anybody),
    };
    let ports = row.ports();
    let names_ports = row.dst_port_range.is_some() || row.icmp_type.is_some();
    if row.state != EnableState::Enabled || ports.is_empty() && names_ports {
        return None;
    }
    let rule = Rule {
        place: (row.priority, row.number),
        uuid: row.uuid,
        way: way(row.rule_type),
        is_v6: row.ip_version == 6,
        action: match row.action {
            RuleAction::Accept => Action::Accept,
            RuleAction::Drop => Action::Drop,
        },
        protocol: row.protocol_number(),
        ports,
        far,
    };
    Some(Written { group: row.security_group_uuid, rule: Arc::new(rule), names })
}

fn way(rule_type: RuleType) -> Way {
    match rule_type {
        RuleType::Ingress => Way::Ingress,
        RuleType::Egress => Way::Egress,
    }
}

/// The addresses of a group of addresses.
pub(crate) fn addresses(row: &AddressGroup) -> (Id<AddressGroup>, Arc<Addresses>) {
    (row.uuid, Arc::new(Addresses([row.spans(4), row.spans(6)])))
}

impl Rule {
    /// The same rule about the members of a group.
    pub(crate) fn of_members(&self, number: u32) -> Arc<Self> {
        Arc::new(Self { far: Far::Members(number), ..self.clone() })
    }

    /// The same rule about these addresses; `None`: they have none of its family.
    pub(crate) fn of_addresses(&self, addresses: &Addresses) -> Option<Arc<Self>> {
        let spans = addresses.0[usize::from(self.is_v6)].clone();
        let rule = |spans| Arc::new(Self { far: Far::Addresses(spans), ..self.clone() });
        (!spans.is_empty()).then(|| rule(spans))
    }

    /// Its way, if it did not come with its group.
    pub(crate) fn chosen_way(&self) -> Option<Way> {
        (self.place.0 > 0).then_some(self.way)
    }

    fn object(&self) -> policy::Rule {
        let ports = self.ports.iter().map(|&(first, last)| PortSpan { first, last });
        let (group, addresses) = match &self.far {
            Far::Anybody => (None, &[][..]),
            Far::Members(number) => (Some(*number), &[][..]),
            Far::Addresses(spans) => (None, &spans[..]),
        };
        let addresses = addresses.iter().map(|&(first, last)| AddressSpan { first, last });
        policy::Rule {
            uuid: self.uuid.uuid(),
            number: self.place.1,
            way: self.way,
            is_v6: self.is_v6,
            action: self.action,
            protocol: self.protocol,
            ports: ports.collect(),
            group,
            addresses: addresses.collect(),
        }
    }
}

impl Held {
    /// `rules` are sorted.
    pub(crate) fn new(group: &Group, rules: &[Arc<Rule>]) -> Self {
        let object = Object::SecurityGroup(object::SecurityGroup {
            uuid: group.uuid.uuid(),
            number: group.number,
            rules: rules.iter().map(|rule| rule.object()).collect(),
            is_stateless: group.is_stateless,
        });
        Self { group: group.clone(), rules: rules.to_vec(), object: object.into() }
    }

    pub(crate) fn uuid(&self) -> GroupId {
        self.group.uuid
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.group, &self.rules).cmp(&(&other.group, &other.rules))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}
