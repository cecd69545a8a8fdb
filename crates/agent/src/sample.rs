//! Objects that tests share: one instance with a port in each of two networks, and a peer in each.

use std::net::IpAddr;

use compute::FarEnd;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{
        Attachment, Driver, Instance, Member, Moving, Network, Object, Peer, Port, PortAddress,
        Prefix, SecurityGroup, Subnet, Tunnel, Uplink,
    },
    policy::{Action, MemberAddress, Policy, PortSpan, Rule, Way},
    told::{AddressMode, AddressRange, Dhcp, Resolver, Service, Told},
};

use crate::kernel::Plug;

pub(crate) const NETWORK_A: u128 = 1;
pub(crate) const NETWORK_B: u128 = 2;
pub(crate) const PEER_A: u128 = 11;
pub(crate) const PEER_B: u128 = 12;
pub(crate) const INSTANCE: u128 = 20;
pub(crate) const PORT_A: u128 = 31;
pub(crate) const PORT_B: u128 = 32;

pub(crate) const fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// What a port is plugged into, as a VM in a namespace of its own has it.
pub(crate) fn plug(ifindex: u32) -> Plug {
    Plug { ifindex, far_end: FarEnd::Elsewhere }
}

pub(crate) fn network(number: u32, vni: u32) -> Object {
    let local_vtep = IpAddr::from([192, 0, 2, 1]);
    let attachment = Attachment::Tunnel(Tunnel {
        vni,
        local_vtep,
        foreign: Vec::new(),
        is_gre: false,
        port: None,
    });
    Object::Network(Network { uuid: uuid(number.into()), number, attachment })
}

/// A network that is an interface of the host.
pub(crate) fn uplink(number: u32) -> Object {
    let attachment = Attachment::Uplink(Uplink { interface: "eth1".to_owned(), vlan: Some(7) });
    Object::Network(Network { uuid: uuid(number.into()), number, attachment })
}

pub(crate) fn peer(at: u128, network: u128, last: u8) -> Object {
    Object::Peer(Peer {
        uuid: uuid(at),
        network: uuid(network),
        mac: [2, 0, 0, 0, 1, last],
        addresses: vec![IpAddr::from([10, 0, 0, last])],
        vtep: IpAddr::from([192, 0, 2, 2]),
        prefixes: vec![prefix(last)],
        goes: None,
        known_as: None,
    })
}

fn prefix(last: u8) -> Prefix {
    Prefix { ip: IpAddr::from([192, 168, last, 0]), bits: 24 }
}

pub(crate) fn instance(at: u128) -> Object {
    let name = format!("vm {at}");
    Object::Instance(Instance {
        uuid: uuid(at),
        name,
        driver: Driver::Netns,
        generation: 0,
        machine: None,
        goes: None,
        comes: None,
    })
}

pub(crate) fn port(at: u128, instance: u128, network: u128, last: u8) -> Object {
    let address = PortAddress {
        ip: IpAddr::from([10, 0, 0, last]),
        prefix_bits: 24,
        gateway: (network == NETWORK_A).then_some(IpAddr::from([10, 0, 0, 1])),
        subnet: None,
        domain: 0,
    };
    let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
    let v6 = PortAddress { ip: v6, prefix_bits: 64, gateway: None, subnet: None, domain: 0 };
    Object::Port(Port {
        uuid: uuid(at),
        number: u32::from(last),
        network: uuid(network),
        instance: Some(uuid(instance)),
        device_id: u32::from(network == NETWORK_B),
        mac: [2, 0, 0, 0, 0, last],
        addresses: vec![address, v6],
        mtu_bytes: 1450,
        prefixes: vec![prefix(last)],
        device: None,
        goes: None,
        comes: None,
        handover: None,
        told: None,
        policy: None,
        flow_log: None,
    })
}

/// The same port, for which everything is done; its addresses are of this L3 network.
pub(crate) fn served(object: Object, subnet: u128) -> Object {
    let Object::Port(mut port) = object else { unreachable!("a port") };
    port.addresses.iter_mut().for_each(|address| address.subnet = Some(uuid(subnet)));
    port.told = Some(Told {
        services: vec![Service::Dhcp, Service::Ipv6, Service::Metadata, Service::Dns],
        hostname: Some("vm-5".to_owned()),
        options: Vec::new(),
        is_default: true,
        may_choose: false,
        addresses: None,
    });
    Object::Port(port)
}

/// [`two_networks`], of which port 5 is served in this L3 network; both are changed.
pub(crate) fn with_served(subnet: u128, change: impl FnOnce(&mut Port, &mut Subnet)) -> Holding {
    let port = self::port(PORT_A, INSTANCE, NETWORK_A, 5);
    let Object::Port(mut port) = served(port, subnet) else { unreachable!("a port") };
    let mut subnet = self::subnet(subnet, NETWORK_A, 0);
    change(&mut port, &mut subnet);
    let mut desired = two_networks();
    desired.upsert(Object::Port(port));
    desired.upsert(Object::Subnet(subnet));
    desired
}

/// An L3 network with DHCP at 10.0.0.2 and DNS at 10.0.0.53 plus this number.
pub(crate) fn subnet(at: u128, network: u128, variant: u8) -> Subnet {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    let range =
        |ip: IpAddr, bits, mode| AddressRange { prefix: Prefix { ip, bits }, gateway: None, mode };
    let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0]);
    Subnet {
        uuid: uuid(at),
        network: uuid(network),
        domain: Some("example.org".to_owned()),
        dns: vec![ip(53)],
        routes: Vec::new(),
        ranges: vec![range(ip(0), 24, None), range(v6, 64, Some(AddressMode::Stateful))],
        dhcp: Some(Dhcp {
            server: Some(ip(2)),
            server6: None,
            lease_seconds: 86_400,
            options: Vec::new(),
            time_servers: Vec::new(),
            search: Vec::new(),
        }),
        resolver: Some(Resolver {
            addresses: vec![ip(53_u8.wrapping_add(variant))],
            forwarders: Vec::new(),
        }),
    }
}

/// A port that is plugged into a device which something else made.
pub(crate) fn external(at: u128, device: &str, last: u8) -> Object {
    let Object::Port(port) = port(at, INSTANCE, NETWORK_A, last) else { unreachable!("a port") };
    Object::Port(Port { instance: None, device: Some(device.to_owned()), ..port })
}

/// The same port, which moves to another host, or comes from there.
pub(crate) fn moving(object: Object, goes: Option<Moving>, comes: Option<Moving>) -> Object {
    match object {
        Object::Port(port) => Object::Port(Port { goes, comes, ..port }),
        Object::Peer(peer) => Object::Peer(Peer { goes, ..peer }),
        other => other,
    }
}

/// A move of a port between this host and that of the peers, or another one.
pub(crate) fn a_move(number: u32, last: u8) -> Option<Moving> {
    Some(Moving { number, vtep: IpAddr::from([192, 0, 2, last]) })
}

pub(crate) fn two_networks() -> Holding {
    let objects = [
        network(1, 101),
        network(2, 102),
        peer(PEER_A, NETWORK_A, 91),
        peer(PEER_B, NETWORK_B, 92),
        instance(INSTANCE),
        port(PORT_A, INSTANCE, NETWORK_A, 5),
        port(PORT_B, INSTANCE, NETWORK_B, 6),
    ];
    objects.into_iter().collect()
}

/// A security group with the number that its uuid is.
pub(crate) fn group(number: u32, rules: Vec<Rule>) -> Object {
    let is_stateless = false;
    Object::SecurityGroup(SecurityGroup { uuid: uuid(number.into()), number, rules, is_stateless })
}

/// A rule for IPv4 towards the port: TCP to a port, if one is named.
pub(crate) fn rule(number: u32, action: Action, port: Option<u16>) -> Rule {
    Rule {
        uuid: uuid(number.into()),
        number,
        way: Way::Ingress,
        is_v6: false,
        action,
        protocol: port.map(|_| 6),
        ports: port.map(|port| PortSpan { first: port, last: port }).into_iter().collect(),
        group: None,
        addresses: Vec::new(),
    }
}

/// The same port, in these groups; what no rule is for may leave it, and not come to it.
pub(crate) fn filtered(object: Object, groups: &[u32]) -> Object {
    let Object::Port(mut port) = object else { unreachable!("a port") };
    port.addresses.iter_mut().for_each(|address| address.domain = DOMAIN);
    let groups = groups.iter().map(|group| uuid((*group).into())).collect();
    port.policy = Some(Policy { groups, ingress: Action::Drop, egress: Action::Accept });
    Object::Port(port)
}

/// The routing domain of ports and members.
pub(crate) const DOMAIN: u32 = 40;

/// A NIC at 10.0.0.0/24 that is in these groups.
pub(crate) fn member(at: u128, last: u8, groups: &[u32]) -> Object {
    let ip = IpAddr::from([10, 0, 0, last]);
    let addresses = vec![MemberAddress { ip, domain: DOMAIN }];
    Object::Member(Member { uuid: uuid(at), addresses, groups: groups.to_vec() })
}
