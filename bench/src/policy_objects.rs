//! A host's objects with security groups: two ports of a network, one of which has rules and the other of
//! which is a member of the group that the last of them names.

use std::net::{IpAddr, Ipv4Addr};

use agent::kernel::{Plug, Ties};
use compute::FarEnd;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{
        Attachment, Driver, Instance, Member, Network, Object, Port, PortAddress, SecurityGroup,
        Tunnel,
    },
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
};

use crate::rivals::{Size, other};

const NETWORK: Uuid = Uuid::from_u128(1);
const INSTANCE: Uuid = Uuid::from_u128(2);
/// The group of whom the rules let in, and that of whom has them: uuids and numbers.
const MEMBERS: u32 = 101;
const RULES: u32 = 102;
const DOMAIN: u32 = 40;
/// Below it are the uuids of everything else.
const FIRST_PORT: u128 = 1_000_000;
const FIRST_MEMBER: u128 = 2_000_000;
const TCP: u8 = 6;

/// A port: its number, interface, MAC and address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// Unique among ports.
    pub(crate) number: u32,
    /// The index of its interface.
    pub(crate) ifindex: u32,
    /// Its MAC.
    pub(crate) mac: [u8; 6],
    /// Its address.
    pub(crate) ip: Ipv4Addr,
}

/// Objects, and what they are tied to.
pub(crate) struct World {
    /// The objects.
    pub(crate) holding: Holding,
    /// What they are tied to.
    pub(crate) ties: Ties,
}

impl World {
    /// A network without ports.
    pub(crate) fn new() -> Self {
        let mut world = Self { holding: Holding::default(), ties: Ties::default() };
        let (local_vtep, foreign) = (IpAddr::from([192, 0, 2, 1]), Vec::new());
        let tunnel = Tunnel { vni: 100, local_vtep, foreign, is_gre: false, port: None };
        let attachment = Attachment::Tunnel(tunnel);
        world.holding.upsert(Object::Network(Network { uuid: NETWORK, number: 1, attachment }));
        world.holding.upsert(Object::Instance(Instance {
            uuid: INSTANCE,
            name: "vm".to_owned(),
            driver: Driver::Netns,
            generation: 0,
            machine: None,
            goes: None,
            comes: None,
        }));
        world
    }

    /// A client and a server in groups: rules of this size, the last of which lets in the client.
    pub(crate) fn filtered(client: At, server: At, size: Size) -> Self {
        let mut world = Self::new();
        world.port(client, &[MEMBERS]);
        world.port(server, &[RULES]);
        let mut rules: Vec<Rule> = (1..size.rules).map(address_rule).collect();
        rules.push(Rule { group: Some(MEMBERS), ..rule(size.rules) });
        world.group(MEMBERS, Vec::new());
        world.group(RULES, rules);
        world.member(client.number, client.ip, &[MEMBERS]);
        for at in 1..size.members {
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + at);
            world.member(FIRST_OTHER + at, ip, &[MEMBERS]);
        }
        world
    }

    /// A client and a server in no group.
    pub(crate) fn open(client: At, server: At) -> Self {
        let mut world = Self::new();
        world.port(client, &[]);
        world.port(server, &[]);
        world
    }

    /// A port that is in these groups; what no rule is for may leave it, and not come to it.
    pub(crate) fn port(&mut self, at: At, groups: &[u32]) {
        let uuid = Uuid::from_u128(FIRST_PORT + u128::from(at.number));
        let groups: Vec<Uuid> = groups.iter().map(|group| of_group(*group)).collect();
        let policy = Policy { groups, ingress: Action::Drop, egress: Action::Accept };
        let address = PortAddress {
            ip: at.ip.into(),
            prefix_bits: 8,
            gateway: None,
            subnet: None,
            domain: DOMAIN,
        };
        self.holding.upsert(Object::Port(Port {
            uuid,
            number: at.number,
            network: NETWORK,
            instance: Some(INSTANCE),
            device_id: at.number,
            mac: at.mac,
            addresses: vec![address],
            mtu_bytes: 1_450,
            prefixes: Vec::new(),
            device: None,
            goes: None,
            comes: None,
            handover: None,
            told: None,
            policy: (!policy.groups.is_empty()).then_some(policy),
            flow_log: None,
        }));
        self.ties.ports.insert(uuid, Plug { ifindex: at.ifindex, far_end: FarEnd::Elsewhere });
    }

    /// A group with its rules.
    pub(crate) fn group(&mut self, number: u32, rules: Vec<Rule>) {
        let (uuid, is_stateless) = (of_group(number), false);
        self.holding.upsert(Object::SecurityGroup(SecurityGroup {
            uuid,
            number,
            rules,
            is_stateless,
        }));
    }

    /// A NIC, wherever it is, that is in these groups.
    pub(crate) fn member(&mut self, number: u32, ip: Ipv4Addr, groups: &[u32]) {
        let uuid = Uuid::from_u128(FIRST_MEMBER + u128::from(number));
        let addresses = vec![MemberAddress { ip: ip.into(), domain: DOMAIN }];
        let groups = groups.to_vec();
        self.holding.upsert(Object::Member(Member { uuid, addresses, groups }));
    }
}

/// Numbers of members that are no ports.
const FIRST_OTHER: u32 = 10_000;

fn of_group(number: u32) -> Uuid {
    Uuid::from_u128(number.into())
}

/// A rule that lets in all of IPv4.
pub(crate) fn rule(number: u32) -> Rule {
    Rule {
        uuid: Uuid::from_u128(FIRST_PORT / 2 + u128::from(number)),
        number,
        way: Way::Ingress,
        is_v6: false,
        action: Action::Accept,
        protocol: None,
        ports: Vec::new(),
        group: None,
        addresses: Vec::new(),
    }
}

/// A rule about an address that nobody has.
fn address_rule(number: u32) -> Rule {
    let (ip, port) = other(number);
    let port = u16::try_from(port).unwrap_or(u16::MAX);
    Rule {
        protocol: Some(TCP),
        ports: vec![PortSpan { first: port, last: port }],
        addresses: vec![AddressSpan { first: ip.into(), last: ip.into() }],
        ..rule(number)
    }
}
