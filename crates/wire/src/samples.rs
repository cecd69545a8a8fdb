//! What guests are told, for tests and fuzzing.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    object::{About, Prefix, Subnet},
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
