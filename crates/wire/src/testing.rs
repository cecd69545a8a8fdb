//! Random objects for property tests.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use crate::{
    counters::{Counters, DropCount, MapFill, Traffic},
    leases::{CLIENT_TEXT_MAX, LeaseKind, LeaseSeen},
    object::{
        Attachment, Driver, FlowLog, Handover, ImageFormat, Instance, Machine, Moving, Network,
        Object, Peer, Port, PortAddress, Prefix, Tunnel, Uplink,
    },
    paths::{BlockedPath, Direction, Paths},
    samples::{about, member, policy, security_group, subnet, timeouts, told},
    told::KnownAs,
};

const NETWORKS: u128 = 3;

/// Up to 40 objects with distinct keys, in three networks that are mostly among them. MACs,
/// addresses and numbers are distinct, as the store's claims make them.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Object>> {
    let one = (0..9_u8, 0..NETWORKS, any::<IpAddr>(), any::<bool>());
    vec(one, 0..40).prop_map(|rows| {
        let distinct = |(at, row): (usize, _)| object(at, row);
        let mut objects: Vec<_> = rows.into_iter().enumerate().map(distinct).collect();
        objects.sort_by_key(Object::key);
        objects.dedup_by_key(|object| object.key());
        objects
    })
}

fn object(at: usize, row: (u8, u128, IpAddr, bool)) -> Object {
    let (kind, network, ip, flag) = row;
    let number = u32::try_from(at).unwrap() + 1;
    let uuid = Uuid::from_u128(1000 + u128::from(number));
    let [_, a, b, c] = number.to_be_bytes();
    let (mac, network) = ([2, 0, 0, a, b, c], Uuid::from_u128(network));
    // The low bits are the object's own: no two objects have the same address.
    let own = IpAddr::from((u128::from(number) << 64 | 1).to_be_bytes());
    let prefixes: Vec<_> = flag.then_some(Prefix { ip: own, bits: 128 }).into_iter().collect();
    let moving = |rest| {
        let vtep = IpAddr::from([192, 0, 2, 2 + u8::from(flag)]);
        (at % 3 == rest).then_some(Moving { number, vtep })
    };
    let handover = || {
        let (host, address) = (network, own);
        (number != 0).then_some(Handover { number, host, address })
    };
    match kind {
        0 => {
            let attachment = attachment(at, number, ip, flag.then_some(own));
            Object::Network(Network { uuid: network, number, attachment })
        }
        1 => Object::Instance(Instance {
            uuid,
            name: format!("vm {at}"),
            driver: if flag { Driver::Qemu } else { Driver::Netns },
            generation: 0,
            machine: flag.then(|| machine(at, number)),
            goes: handover().filter(|_| flag),
            comes: None,
        }),
        2 => {
            let vtep = IpAddr::from([192, 0, 2, u8::from(flag)]);
            let addresses = vec![own];
            let known_as = flag.then(|| KnownAs { hostname: format!("vm-{at}"), subnet: network });
            Object::Peer(Peer {
                uuid,
                network,
                mac,
                addresses,
                vtep,
                prefixes,
                goes: moving(0),
                known_as,
            })
        }
        3 => Object::Subnet(subnet(uuid, network, own, at)),
        4 => Object::About(about(uuid, at)),
        5 => Object::SecurityGroup(security_group(uuid, number)),
        6 => Object::Member(member(uuid, own, number)),
        7 => Object::Timeouts(timeouts(uuid)),
        _ => {
            let made = Port {
                mac,
                prefixes,
                goes: moving(0),
                comes: moving(1),
                ..port(at, own, flag.then_some(ip))
            };
            Object::Port(Port { uuid, network, handover: handover(), ..made })
        }
    }
}

/// One that stays where it is, of nobody's network.
fn port(at: usize, ip: IpAddr, gateway: Option<IpAddr>) -> Port {
    let number = u32::try_from(at).unwrap() + 1;
    let other = Uuid::from_u128(7);
    let subnet = gateway.map(|_| other);
    let domain = gateway.map_or(0, |_| number);
    Port {
        uuid: other,
        number,
        network: other,
        instance: Some(other),
        device_id: number,
        mac: [2; 6],
        addresses: vec![PortAddress { ip, prefix_bits: 24, gateway, subnet, domain }],
        mtu_bytes: 1450,
        prefixes: Vec::new(),
        device: None,
        goes: None,
        comes: None,
        handover: None,
        told: gateway.map(|_| told(at)),
        policy: gateway.map(|_| policy(other)),
        flow_log: gateway.map(|_| FlowLog::Denied),
    }
}

fn machine(at: usize, memory_mib: u32) -> Machine {
    let (image, format) = (format!("image {at}"), ImageFormat::Qcow2);
    Machine { cpus: 1, memory_mib, image, format, is_paused: true }
}

fn attachment(at: usize, vni: u32, local_vtep: IpAddr, foreign: Option<IpAddr>) -> Attachment {
    if at.is_multiple_of(5) {
        let vlan = foreign.map(|_| 7);
        return Attachment::Uplink(Uplink { interface: format!("eth{at}"), vlan });
    }
    let port = foreign.map(|_| 4789);
    let foreign: Vec<_> = foreign.into_iter().collect();
    Attachment::Tunnel(Tunnel { vni, local_vtep, foreign, is_gre: at % 5 > 2, port })
}

/// What a host may count.
pub(crate) fn counters(number: u64) -> Counters {
    let drop = DropCount {
        reason: "spoofed_mac".to_owned(),
        meaning: "The source MAC is not the port's.".to_owned(),
        packets: number,
    };
    let traffic = Traffic {
        from_port_packets: number,
        from_port_bytes: number / 2,
        to_port_packets: number / 3,
        to_port_bytes: number / 4,
    };
    let map = MapFill { name: "ports".to_owned(), version: 3, entries: number, capacity: number };
    Counters { drops: vec![drop], traffic, maps: vec![map] }
}

/// So many ways on which packets are lost.
pub(crate) fn paths(count: usize) -> Paths {
    let blocked = |at: usize| BlockedPath {
        own: IpAddr::from([0xff; 16]),
        peer: if at.is_multiple_of(2) { [192, 0, 2, 2].into() } else { IpAddr::from([0xfd; 16]) },
        direction: if at.is_multiple_of(3) { Direction::There } else { Direction::Back },
        port: u16::MAX,
        passes_bytes: u32::MAX,
        lost_bytes: u32::MAX,
    };
    Paths { probed: u32::MAX, blocked: (0..count).map(blocked).collect() }
}

/// What a guest may have asked.
pub(crate) fn lease(nic: Uuid) -> LeaseSeen {
    let number = nic.as_fields().0;
    let (kind, ..) = LeaseKind::ALL[usize::try_from(number % 7).unwrap_or(0)];
    let is_v6 = number.is_multiple_of(2);
    let address = if is_v6 { [0xfd; 16].into() } else { [10, 0, 0, 5].into() };
    LeaseSeen {
        nic,
        at_ms: number.into(),
        kind,
        is_v6,
        address: (!number.is_multiple_of(3)).then_some(address),
        hostname: is_v6.then(|| "h".repeat(CLIENT_TEXT_MAX)),
        client_id: vec![0xff; CLIENT_TEXT_MAX],
    }
}
