//! Which rule decides, found by reading one after the other.

use std::net::IpAddr;

use uuid::Uuid;
use wire::policy::{Action, Rule};

use crate::{
    prefixes::Family,
    rule_set::{Said, has_ports, tree},
};

/// A connection that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe<'a> {
    /// The other end: its address.
    pub remote: IpAddr,
    /// The numbers of the groups that it is known to be in.
    pub groups: &'a [u32],
    /// IP protocol number.
    pub protocol: u8,
    /// The port of the destination; of ICMP, type * 256 + code.
    pub port: u16,
}

/// What decides, as people know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The number of the rule; 0 if it is the policy of the port.
    pub number: u32,
    /// The rule, unless it is the policy of the port.
    pub rule: Option<Uuid>,
    /// Its group.
    pub group: Option<Uuid>,
    /// What is decided.
    pub action: Action,
    /// It is decided about a single packet.
    pub is_stateless: bool,
}

/// The first rule that matches.
#[must_use]
pub fn first_match(said: &Said<'_>, probe: &Probe<'_>) -> Named {
    for group in said.groups {
        let rules = group.rules.iter().filter(|rule| rule.way == said.way);
        if let Some(rule) = rules.into_iter().find(|rule| matches(rule, probe)) {
            return Named {
                number: rule.number,
                rule: Some(rule.uuid),
                group: Some(group.uuid),
                action: rule.action,
                is_stateless: group.is_stateless,
            };
        }
    }
    let action = said.default;
    Named { number: 0, rule: None, group: None, action, is_stateless: false }
}

fn matches(rule: &Rule, probe: &Probe<'_>) -> bool {
    let family = Family::of(probe.remote.is_ipv6());
    rule.is_v6 == family.is_v6()
        && rule.protocol.is_none_or(|protocol| protocol == probe.protocol)
        && (rule.ports.is_empty() || has_port(rule, family, probe))
        && match rule.group {
            Some(group) => probe.groups.contains(&group),
            None => rule.addresses.is_empty() || has_address(rule, probe.remote),
        }
}

fn has_port(rule: &Rule, family: Family, probe: &Probe<'_>) -> bool {
    let has = rule.ports.iter().any(|span| (span.first..=span.last).contains(&probe.port));
    rule.protocol.is_some() && has_ports(tree(family, probe.protocol)) && has
}

fn has_address(rule: &Rule, ip: IpAddr) -> bool {
    let spans = rule
        .addresses
        .iter()
        .filter(|span| [span.first, span.last].iter().all(|end| end.is_ipv6() == ip.is_ipv6()));
    spans.into_iter().any(|span| (span.first..=span.last).contains(&ip))
}
