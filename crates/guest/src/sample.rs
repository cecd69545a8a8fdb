//! Objects of a small host, for tests.

use std::net::IpAddr;

use uuid::Uuid;
use wire::{
    object::{About, Object, Peer, Port, PortAddress, Prefix, Subnet},
    shared::Shared,
    told::{AddressMode, AddressRange, Dhcp, KnownAs, Resolver, Route, Service, SshKey, Told},
};

use crate::directory::Directory;

pub(crate) const SUBNET: Uuid = Uuid::from_u128(7);
pub(crate) const NETWORK: Uuid = Uuid::from_u128(1);
pub(crate) const INSTANCE: Uuid = Uuid::from_u128(0x10);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An L3 network with both families.
pub(crate) fn subnet() -> Subnet {
    let range = |text: &str, bits, gateway, mode| AddressRange {
        prefix: Prefix { ip: ip(text), bits },
        gateway: Some(ip(gateway)),
        mode,
    };
    Subnet {
        uuid: SUBNET,
        network: NETWORK,
        domain: Some("example.internal".to_owned()),
        dns: vec![ip("10.0.0.3"), ip("192.0.2.53")],
        routes: vec![Route {
            prefix: Prefix { ip: ip("172.16.0.0"), bits: 12 },
            via: ip("10.0.0.9"),
        }],
        ranges: vec![
            range("10.0.0.0", 24, "10.0.0.1", None),
            range("fd00:1::", 64, "fd00:1::1", Some(AddressMode::Stateful)),
        ],
        dhcp: Some(Dhcp {
            server: Some(ip("10.0.0.2")),
            server6: None,
            lease_seconds: 86400,
            options: Vec::new(),
            time_servers: Vec::new(),
            search: Vec::new(),
        }),
        resolver: Some(Resolver {
            addresses: vec![ip("10.0.0.3"), ip("fd00:1::3")],
            forwarders: vec![ip("192.0.2.53")],
        }),
    }
}

/// A NIC of [`subnet`] here.
pub(crate) fn port(number: u32, instance: Uuid, hostname: &str, ips: &[&str]) -> Port {
    let addresses = ips.iter().map(|text| PortAddress {
        ip: ip(text),
        prefix_bits: if text.contains(':') { 64 } else { 24 },
        gateway: Some(ip(if text.contains(':') { "fd00:1::1" } else { "10.0.0.1" })),
        subnet: Some(SUBNET),
        domain: 0,
    });
    let [_, a, b, c] = number.to_be_bytes();
    Port {
        uuid: Uuid::from_u128(0x100 + u128::from(number)),
        number,
        network: NETWORK,
        instance: Some(instance),
        device_id: 0,
        mac: [0xfa, 0, 0, a, b, c],
        addresses: addresses.collect(),
        mtu_bytes: 1450,
        prefixes: Vec::new(),
        device: None,
        goes: None,
        comes: None,
        handover: None,
        told: Some(Told {
            services: vec![Service::Dhcp, Service::Ipv6, Service::Metadata, Service::Dns],
            hostname: Some(hostname.to_owned()),
            options: Vec::new(),
            is_default: true,
            may_choose: false,
            addresses: None,
        }),
        policy: None,
        flow_log: None,
    }
}

/// A NIC of [`subnet`] elsewhere.
pub(crate) fn peer(uuid: u128, hostname: &str, ips: &[&str]) -> Peer {
    Peer {
        uuid: Uuid::from_u128(uuid),
        network: NETWORK,
        mac: [0xfa, 1, 0, 0, 0, 1],
        addresses: ips.iter().map(|text| ip(text)).collect(),
        vtep: ip("192.0.2.2"),
        prefixes: Vec::new(),
        goes: None,
        known_as: Some(KnownAs { hostname: hostname.to_owned(), subnet: SUBNET }),
    }
}

/// What [`INSTANCE`] may read.
pub(crate) fn about() -> About {
    About {
        uuid: INSTANCE,
        name: "Red, the first".to_owned(),
        hostname: "red-1.example.internal".to_owned(),
        user_data: Some(wire::told::Bytes(b"#!/bin/sh\necho hello\n".to_vec())),
        vendor_data: Some(wire::told::Bytes(b"#cloud-config\n{}\n".to_vec())),
        ssh_keys: vec![SshKey { name: "mine".to_owned(), key: "ssh-ed25519 AAAA me".to_owned() }],
        account: Uuid::from_u128(0x20),
        zone: "zone-1".to_owned(),
        offering: "small".to_owned(),
        tags: vec!["role::web".to_owned(), "plain".to_owned()],
        needs_token: false,
    }
}

/// Puts objects in.
pub(crate) fn put(directory: &mut Directory, objects: impl IntoIterator<Item = Object>) {
    for object in objects {
        let object = Shared::from(object);
        directory.set(object.key(), Some(&object));
    }
}

/// [`subnet`] with an instance here and one elsewhere.
pub(crate) fn network() -> (Directory, Subnet) {
    let mut directory = Directory::default();
    put(
        &mut directory,
        [
            Object::Peer(peer(0x30, "Red-2", &["10.0.0.6", "192.0.2.99"])),
            Object::Port(port(1, INSTANCE, "red-1", &["10.0.0.5", "fd00:1::5"])),
            Object::Subnet(subnet()),
            Object::About(about()),
        ],
    );
    (directory, subnet())
}
