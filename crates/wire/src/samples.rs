//! What guests are told, and who may talk to whom, for tests and fuzzing.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    object::{About, Member, Prefix, SecurityGroup, Subnet, Timeouts},
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
    told::{
        AddressMode, AddressRange, Bytes, Dhcp, DhcpOption, GuestAddresses, Resolver, Route,
        Service, SshKey, Told,
    },
};

pub(crate) fn told(at: usize) -> Told {
    let option =
        DhcpOption { code: 66, data: Bytes(b"boot".to_vec()), is_v6: at.is_multiple_of(2) };
    Told {
        services: vec![Service::Dhcp, Service::Metadata],
        hostname: Some(format!("vm-{at}")),
        options: vec![option],
        is_default: at.is_multiple_of(2),
        may_choose: at.is_multiple_of(3),
        addresses: at.is_multiple_of(4).then_some(GuestAddresses::Left),
    }
}

pub(crate) fn subnet(uuid: Uuid, network: Uuid, own: IpAddr, at: usize) -> Subnet {
    let prefix = Prefix { ip: own, bits: 128 };
    let mode = at.is_multiple_of(2).then_some(AddressMode::Stateless);
    let range = AddressRange { prefix: prefix.clone(), gateway: Some(own), mode };
    let dhcp = Dhcp {
        server: Some(own),
        server6: None,
        lease_seconds: 86_400,
        options: told(at).options,
        time_servers: vec![own],
        search: vec!["example.org".to_owned()],
    };
    Subnet {
        uuid,
        network,
        domain: Some(format!("n{at}.example.org")),
        dns: vec![own],
        routes: vec![Route { prefix, via: own }],
        ranges: vec![range],
        dhcp: at.is_multiple_of(3).then_some(dhcp),
        resolver: Some(Resolver { addresses: vec![own], forwarders: Vec::new() }),
    }
}

pub(crate) fn about(uuid: Uuid, at: usize) -> About {
    let key = SshKey { name: "one".to_owned(), key: "ssh-ed25519 AAAA".to_owned() };
    About {
        uuid,
        name: format!("vm {at}"),
        hostname: format!("vm-{at}"),
        user_data: Some(Bytes(vec![0, 0xff])),
        vendor_data: None,
        ssh_keys: vec![key],
        account: uuid,
        zone: "zone1".to_owned(),
        offering: "small".to_owned(),
        tags: vec!["role=web".to_owned()],
        needs_token: at.is_multiple_of(2),
    }
}

pub(crate) fn policy(group: Uuid) -> Policy {
    Policy { groups: vec![group], ingress: Action::Drop, egress: Action::Accept }
}

pub(crate) fn security_group(uuid: Uuid, number: u32) -> SecurityGroup {
    let of_group = Rule {
        uuid,
        number,
        way: Way::Ingress,
        is_v6: false,
        action: Action::Accept,
        protocol: Some(6),
        ports: vec![PortSpan { first: 80, last: 90 }],
        group: Some(number),
        addresses: Vec::new(),
    };
    let [first, last] = [0, 9].map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
    let of_addresses = Rule {
        way: Way::Egress,
        is_v6: true,
        action: Action::Drop,
        protocol: None,
        ports: Vec::new(),
        group: None,
        addresses: vec![AddressSpan { first, last }],
        ..of_group.clone()
    };
    let is_stateless = number.is_multiple_of(2);
    SecurityGroup { uuid, number, rules: vec![of_group, of_addresses], is_stateless }
}

pub(crate) fn member(uuid: Uuid, ip: IpAddr, number: u32) -> Member {
    let addresses = vec![MemberAddress { ip, domain: number }];
    Member { uuid, addresses, groups: vec![number, number + 1] }
}

pub(crate) fn timeouts(uuid: Uuid) -> Timeouts {
    Timeouts {
        uuid,
        tcp_opening: 30,
        tcp_established: 7_440,
        tcp_closing: 240,
        tcp_closed: 10,
        opening: 30,
        udp_established: 120,
        icmp: 30,
        other: 600,
    }
}
