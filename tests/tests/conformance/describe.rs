//! What a case says of groups, rules and NICs, and what the reference evaluator makes of it. The
//! addresses, ports and groups of rules are read here once more, without any code of the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use judge::Known;
use uuid::Uuid;
use wire::{
    object::{Member, SecurityGroup},
    policy::{self, Action, AddressSpan, MemberAddress, Policy, PortSpan, Way},
};

/// The instances, by number: the first three on one host, the others on another.
pub(crate) const NAMES: [&str; 6] = ["a1", "b1", "c1", "a2", "b2", "c2"];
pub(crate) const A1: usize = 0;
pub(crate) const B1: usize = 1;
pub(crate) const C1: usize = 2;
pub(crate) const A2: usize = 3;
pub(crate) const B2: usize = 4;
pub(crate) const C2: usize = 5;

/// The groups, by number. The rules of S and T are stateless; who is in Q says a query.
pub(crate) const GROUPS: usize = 7;
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;
pub(crate) const D: usize = 3;
pub(crate) const S: usize = 4;
pub(crate) const T: usize = 5;
pub(crate) const Q: usize = 6;

/// Number of the one routing domain.
const DOMAIN: u32 = 1;
/// Protocol numbers (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Which other ends a rule is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Remote {
    Anyone,
    Addresses(String),
    Group(usize),
    /// The case's address group.
    Listed,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub way: Way,
    pub is_v6: bool,
    pub action: Action,
    pub protocol: Option<u8>,
    pub ports: String,
    pub icmp: Option<(u8, Option<u8>)>,
    pub remote: Remote,
    pub is_enabled: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub rules: Vec<Rule>,
    pub is_enabled: bool,
    /// Its default rules count.
    pub has_defaults: bool,
}

/// What becomes of what no rule decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Otherwise {
    Allow,
    Deny,
    AllowUntilRule,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nic {
    /// The groups that were chosen for it, in their order.
    pub groups: Vec<usize>,
    pub ingress: Otherwise,
    pub egress: Otherwise,
    /// Its instance has the tag that the query of Q asks for.
    pub is_tagged: bool,
}

/// All that decides about packets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct World {
    pub groups: [Group; GROUPS],
    pub nics: [Nic; NAMES.len()],
    /// What the address group has.
    pub listed: Vec<String>,
    /// NICs in no group are closed.
    pub is_closed: bool,
}

impl Default for World {
    fn default() -> Self {
        let group = Group { rules: Vec::new(), is_enabled: true, has_defaults: true };
        Self {
            groups: std::array::from_fn(|_| group.clone()),
            nics: std::array::from_fn(|_| Nic::default()),
            listed: Vec::new(),
            is_closed: false,
        }
    }
}

impl Default for Nic {
    fn default() -> Self {
        let (ingress, egress) = (Otherwise::Deny, Otherwise::Allow);
        Self { groups: Vec::new(), ingress, egress, is_tagged: false }
    }
}

impl Nic {
    /// All of its groups, in their order.
    fn all_groups(&self) -> Vec<usize> {
        let found = self.is_tagged.then_some(Q);
        self.groups.iter().copied().chain(found).collect()
    }
}

/// The address of an instance.
pub(crate) fn address(nic: usize, is_v6: bool) -> IpAddr {
    let last = 21 + u8::try_from(nic).unwrap();
    match is_v6 {
        // 0x21 and so on.
        true => Ipv6Addr::new(0xfd06, 0, 0, 0, 0, 0, 0, u16::from(last) + 12).into(),
        false => Ipv4Addr::new(10, 6, 0, last).into(),
    }
}

impl World {
    pub(crate) fn groups(&self) -> Vec<SecurityGroup> {
        (0..GROUPS).map(|number| self.group(number)).collect()
    }

    fn group(&self, number: usize) -> SecurityGroup {
        let group = &self.groups[number];
        let mut rules = Vec::new();
        if group.is_enabled && group.has_defaults {
            for (way, is_v6) in
                [Way::Ingress, Way::Egress].map(|way| [(way, false), (way, true)]).concat()
            {
                rules
                    .push(self.judged(&Rule { remote: Remote::Group(number), ..rule(way, is_v6) }));
            }
        }
        if group.is_enabled {
            // Nobody is in a list without any address of the family.
            let has_anyone =
                |rule: &&Rule| rule.remote != Remote::Listed || !self.listed(rule.is_v6).is_empty();
            let enabled = group.rules.iter().filter(|rule| rule.is_enabled).filter(has_anyone);
            rules.extend(enabled.map(|rule| self.judged(rule)));
        }
        let is_stateless = [S, T].contains(&number);
        SecurityGroup { uuid: uuid(number), number: identity(number), rules, is_stateless }
    }

    fn listed(&self, is_v6: bool) -> Vec<AddressSpan> {
        let spans = self.listed.iter().map(|item| address_span(item));
        spans.filter(|span| span.first.is_ipv6() == is_v6).collect()
    }

    fn judged(&self, rule: &Rule) -> policy::Rule {
        let (group, addresses) = match &rule.remote {
            Remote::Anyone => (None, Vec::new()),
            Remote::Addresses(list) => (None, list.split(',').map(address_span).collect()),
            Remote::Group(number) => (Some(identity(*number)), Vec::new()),
            Remote::Listed => (None, self.listed(rule.is_v6)),
        };
        let ports = match rule.icmp {
            Some((kind, Some(code))) => {
                let shown = u16::from(kind) * 256 + u16::from(code);
                vec![PortSpan { first: shown, last: shown }]
            }
            Some((kind, None)) => {
                let first = u16::from(kind) * 256;
                vec![PortSpan { first, last: first + 255 }]
            }
            None => rule.ports.split(',').filter(|item| !item.is_empty()).map(port_span).collect(),
        };
        policy::Rule {
            uuid: Uuid::nil(),
            number: 1,
            way: rule.way,
            is_v6: rule.is_v6,
            action: rule.action,
            protocol: rule.protocol,
            ports,
            group,
            addresses,
        }
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        let member = |(number, nic): (usize, &Nic)| {
            let at = |is_v6| MemberAddress { ip: address(number, is_v6), domain: DOMAIN };
            let groups = nic.all_groups().into_iter().map(identity).collect();
            Member { uuid: uuid(number), addresses: [false, true].map(at).to_vec(), groups }
        };
        self.nics.iter().enumerate().map(member).collect()
    }

    fn policy(&self, nic: usize) -> Option<Policy> {
        let nic = &self.nics[nic];
        let groups = nic.all_groups();
        if groups.is_empty() {
            let closed = Policy { groups: Vec::new(), ingress: Action::Drop, egress: Action::Drop };
            return self.is_closed.then_some(closed);
        }
        let has_rule = |way| {
            let enabled =
                groups.iter().map(|number| &self.groups[*number]).filter(|group| group.is_enabled);
            enabled.flat_map(|group| &group.rules).any(|rule| rule.is_enabled && rule.way == way)
        };
        let action = |otherwise, way| match otherwise {
            Otherwise::Allow => Action::Accept,
            Otherwise::AllowUntilRule if !has_rule(way) => Action::Accept,
            Otherwise::Deny | Otherwise::AllowUntilRule => Action::Drop,
        };
        Some(Policy {
            ingress: action(nic.ingress, Way::Ingress),
            egress: action(nic.egress, Way::Egress),
            groups: groups.into_iter().map(uuid).collect(),
        })
    }

    /// What the reference says of these, in their order.
    pub(crate) fn judge(&self, probes: &[Probe]) -> Vec<Outcome> {
        let (groups, members) = (self.groups(), self.members());
        let known = Known { groups: &groups, members: &members };
        let policies: Vec<_> = (0..NAMES.len()).map(|nic| self.policy(nic)).collect();
        let end = |nic: usize, is_v6| judge::End {
            policy: policies[nic].as_ref(),
            known,
            address: address(nic, is_v6),
            domain: DOMAIN,
        };
        let decide = |probe: &Probe| {
            let [sender, receiver] = [probe.from, probe.to].map(|nic| end(nic, probe.is_v6));
            if probe.is_answer {
                // Both ends remember what it answers.
                return Outcome::Arrives;
            }
            let (protocol, shows) = probe.what.shown(probe.is_v6);
            let passage = judge::judge_pair(&sender, &receiver, protocol, shows);
            match passage.ingress {
                None => Outcome::DeniedBySender,
                Some(_) if passage.arrives() => Outcome::Arrives,
                Some(_) => Outcome::DeniedByReceiver,
            }
        };
        probes.iter().map(decide).collect()
    }
}

/// A packet that opens something, or that answers one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Probe {
    pub from: usize,
    pub to: usize,
    pub is_v6: bool,
    /// What it opens, or what it answers.
    pub what: What,
    pub is_answer: bool,
}

impl Probe {
    /// What answers it.
    pub(crate) fn answer(&self) -> Self {
        Self { from: self.to, to: self.from, is_answer: true, ..*self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// A SYN to a port.
    Tcp(u16),
    /// A datagram to a port.
    Udp(u16),
    /// An echo request with a code.
    Echo(u8),
    /// A packet of a protocol without ports.
    Other(u8),
}

impl What {
    /// The protocol number, and what a rule sees of it.
    pub(crate) fn shown(self, is_v6: bool) -> (u8, judge::Shows) {
        let ports = |destination| judge::Shows::Ports { source: 0, destination };
        match (self, is_v6) {
            (Self::Tcp(port), _) => (TCP, ports(port)),
            (Self::Udp(port), _) => (UDP, ports(port)),
            (Self::Echo(code), false) => (ICMP, judge::Shows::Icmp { kind: 8, code }),
            (Self::Echo(code), true) => (ICMPV6, judge::Shows::Icmp { kind: 128, code }),
            (Self::Other(number), _) => (number, judge::Shows::Nothing),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Arrives,
    DeniedBySender,
    DeniedByReceiver,
}

/// A rule that accepts everything of everyone.
pub(crate) fn rule(way: Way, is_v6: bool) -> Rule {
    Rule {
        way,
        is_v6,
        action: Action::Accept,
        protocol: None,
        ports: String::new(),
        icmp: None,
        remote: Remote::Anyone,
        is_enabled: true,
    }
}

fn uuid(number: usize) -> Uuid {
    Uuid::from_u128(u128::from(identity(number)))
}

/// A group's number in the data plane, which is not 0.
fn identity(group: usize) -> u32 {
    u32::try_from(group).unwrap() + 1
}

fn port_span(text: &str) -> PortSpan {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortSpan { first: first.parse().unwrap(), last: last.parse().unwrap() }
}

/// An address, a network, or `first-last`.
fn address_span(text: &str) -> AddressSpan {
    if let Some((network, length)) = text.split_once('/') {
        let length: u32 = length.parse().unwrap();
        return match network.parse().unwrap() {
            IpAddr::V4(ip) => {
                let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
                let last = Ipv4Addr::from_bits(ip.to_bits() | hosts);
                AddressSpan { first: ip.into(), last: last.into() }
            }
            IpAddr::V6(ip) => {
                let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
                let last = Ipv6Addr::from_bits(ip.to_bits() | hosts);
                AddressSpan { first: ip.into(), last: last.into() }
            }
        };
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    AddressSpan { first: first.parse().unwrap(), last: last.parse().unwrap() }
}
