//! Who may talk to whom: security groups, their rules and their members. Parts of the objects
//! [`SecurityGroup`](crate::object::SecurityGroup), [`Member`](crate::object::Member) and
//! [`Port`](crate::object::Port).

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    codec::ParseError,
    declare::{message, words},
};

words! {
    /// The way that a connection is opened, as its port sees it.
    Way {
        /// Towards the port.
        1 => Ingress,
        /// From the port.
        2 => Egress,
    }
}

words! {
    /// What becomes of it.
    Action {
        /// It may be.
        1 => Accept,
        /// It may not.
        2 => Drop,
    }
}

message! {
    /// The policy of a port: the groups decide in order, then what stands here.
    Policy {
        /// The security groups that the port is in, in the order in which they are asked.
        1 => groups: Vec<Uuid>,
        /// What becomes of what is opened towards the port and no group has a rule for.
        2 => ingress: Action,
        /// The same of what the port opens.
        3 => egress: Action,
    }
}

message! {
    /// A rule of a security group.
    Rule checked by check_rule {
        /// The rule's uuid.
        1 => uuid: Uuid,
        /// Its number in the data plane: unique in the installation, never reused, not 0.
        2 => number: u32,
        /// Which connections it is for.
        3 => way: Way,
        /// It is for IPv6, else for IPv4.
        4 => is_v6: bool,
        /// What becomes of what it is for.
        5 => action: Action,
        /// IP protocol number; any if absent.
        6 => protocol: Option<u8>,
        /// Ports of the destination, of TCP and UDP. Of ICMP and ICMPv6: type * 256 + code. Any if there are none.
        7 => ports: Vec<PortSpan>,
        /// Number of the security group of whose members the other end is one.
        8 => group: Option<u32>,
        /// Where the other end is; anywhere if there are none.
        9 => addresses: Vec<AddressSpan>,
    }
}

message! {
    /// Ports, from the first to the last.
    PortSpan checked by check_ports {
        /// The first one.
        1 => first: u16,
        /// The last one.
        2 => last: u16,
    }
}

message! {
    /// Addresses of one family, from the first to the last.
    AddressSpan checked by check_addresses {
        /// The first one.
        1 => first: IpAddr,
        /// The last one.
        2 => last: IpAddr,
    }
}

/// Set in the number of the routing domain of link-local addresses, which are one L2 network's. The rest
/// is that network's number.
pub const LINK_LOCAL_DOMAIN: u32 = 1 << 31;

message! {
    /// An address of a member.
    MemberAddress {
        /// The address.
        1 => ip: IpAddr,
        /// Number of the routing domain in which nobody else has it.
        2 => domain: u32,
    }
}

/// ICMP (RFC 792), TCP (RFC 9293), UDP (RFC 768), ICMPv6 (RFC 4443): what has ports, or types.
const WITH_PORTS: [u8; 4] = [1, 6, 17, 58];

fn check_rule(rule: &Rule) -> Result<(), ParseError> {
    if rule.number == 0 {
        return Err(ParseError::Range { field: "Rule.number", value: 0 });
    }
    if rule.group.is_some() && !rule.addresses.is_empty() {
        return Err(ParseError::Both("Rule.group", "Rule.addresses"));
    }
    if !rule.ports.is_empty() && !rule.protocol.is_some_and(|known| WITH_PORTS.contains(&known)) {
        return Err(ParseError::Both("Rule.ports", "Rule.protocol"));
    }
    match rule.addresses.iter().find(|span| span.first.is_ipv6() != rule.is_v6) {
        Some(_) => Err(ParseError::Both("Rule.addresses", "Rule.is_v6")),
        None => Ok(()),
    }
}

fn check_ports(span: &PortSpan) -> Result<(), ParseError> {
    let wrong = ParseError::Range { field: "PortSpan.last", value: span.last.into() };
    (span.first <= span.last).then_some(()).ok_or(wrong)
}

fn check_addresses(span: &AddressSpan) -> Result<(), ParseError> {
    let is_right = span.first.is_ipv4() == span.last.is_ipv4() && span.first <= span.last;
    is_right.then_some(()).ok_or(ParseError::Both("AddressSpan.first", "AddressSpan.last"))
}
