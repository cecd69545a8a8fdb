//! Rules that tests and fuzzers share.

use std::net::IpAddr;

use uuid::Uuid;
use wire::{
    object::SecurityGroup,
    policy::{Action, AddressSpan, PortSpan, Rule, Way},
};

/// A rule that matches everything of its family and way.
pub(crate) fn rule(number: u32, way: Way, action: Action) -> Rule {
    Rule {
        uuid: Uuid::from_u128(number.into()),
        number,
        way,
        is_v6: false,
        action,
        protocol: None,
        ports: Vec::new(),
        group: None,
        addresses: Vec::new(),
    }
}

/// One for connections of TCP towards the port, to these ports.
pub(crate) fn tcp(number: u32, action: Action, ports: &[(u16, u16)]) -> Rule {
    let ports = ports.iter().map(|(first, last)| PortSpan { first: *first, last: *last });
    Rule { protocol: Some(6), ports: ports.collect(), ..rule(number, Way::Ingress, action) }
}

pub(crate) fn span(first: &str, last: &str) -> AddressSpan {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    AddressSpan { first: parse(first), last: parse(last) }
}

/// The same rule for those who have these addresses.
pub(crate) fn of(rule: Rule, addresses: &[(&str, &str)]) -> Rule {
    let addresses = addresses.iter().map(|(first, last)| span(first, last)).collect();
    Rule { addresses, ..rule }
}

pub(crate) fn group(number: u32, rules: Vec<Rule>) -> SecurityGroup {
    SecurityGroup { uuid: Uuid::from_u128(number.into()), number, rules, is_stateless: false }
}
