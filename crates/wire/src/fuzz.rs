//! The bytes of the agent protocol, for property tests and fuzzing: whatever comes, nothing panics,
//! and what is kept is written as it was read.

use std::net::IpAddr;

use damage::Target;
use prost::Message;
use uuid::Uuid;

use crate::{
    codec::{Saved, decode_state, encode_state},
    counters::{Counters, DropCount, MapFill},
    digest::TableDigests,
    r#gen as pb,
    message::{
        AgentMessage, Connections, Delta, Device, EnrolRequest, Heartbeat, Hello, Report,
        ServerMessage, Snapshot, Welcome,
    },
    object::{
        Attachment, Driver, FlowLog, Instance, Network, Object, Peer, Port, PortAddress, Tunnel,
        Uplink,
    },
    samples,
    shared::Shared,
    told::KnownAs,
    versions::Versions,
};

/// All of them.
pub const TARGETS: &[Target] = &[SERVER, AGENT, ENROL, STATE];

/// What a server sends.
pub const SERVER: Target = Target {
    name: "wire_server",
    read: |bytes| read::<pb::ServerMessage, ServerMessage>(bytes),
    samples: server,
};

/// What an agent sends.
pub const AGENT: Target = Target {
    name: "wire_agent",
    read: |bytes| read::<pb::AgentMessage, AgentMessage>(bytes),
    samples: agent,
};

/// What a host without a certificate sends.
pub const ENROL: Target = Target {
    name: "wire_enrol",
    read: |bytes| read::<pb::EnrolRequest, EnrolRequest>(bytes),
    samples: enrol,
};

/// What an agent keeps.
pub const STATE: Target = Target { name: "wire_state", read: state, samples: states };

fn read<P: Message + Default, T: TryFrom<P>>(bytes: &[u8]) -> bool {
    P::decode(bytes).is_ok_and(|message| T::try_from(message).is_ok())
}

fn state(bytes: &[u8]) -> bool {
    let Ok(saved) = decode_state(bytes) else { return false };
    assert_eq!(decode_state(&encode_state(&saved)), Ok(saved));
    true
}

fn server() -> Vec<Vec<u8>> {
    let last = Some(TableDigests::default());
    let (revision, removes) = (7, objects().iter().map(|object| object.key()).collect());
    let welcome = Welcome { protocol: 2, server_version: "1.0".into(), lineage: Uuid::max() };
    let all = [
        ServerMessage::Welcome(welcome),
        ServerMessage::Snapshot(Snapshot { revision, objects: objects(), last }),
        ServerMessage::Delta(Delta { revision, upserts: objects(), removes, last: None }),
    ];
    let asked = samples::questions().into_iter().map(ServerMessage::Asked);
    let all = all.into_iter().chain(asked);
    all.map(|message| pb::ServerMessage::from(&message).encode_to_vec()).collect()
}

fn agent() -> Vec<Vec<u8>> {
    let (uuid, digests) = (Uuid::from_u128(9), TableDigests::default());
    let hello = Hello {
        protocol: 2,
        protocol_min: 2,
        agent_version: "1.0".into(),
        tables: Versions::own(),
        host: uuid,
        revision: 7,
        lineage: Some(Uuid::max()),
        digests,
        run: Some(uuid),
    };
    let report = Report {
        processed: true,
        up: [uuid].into(),
        failed: [(uuid, "no such device".to_owned())].into(),
        ..Report::default()
    };
    let connections = Some(Connections { sure: 512, ports: [(uuid, 3)].into() });
    let device = Device {
        name: "eth0".to_owned(),
        mtu_bytes: 1500,
        addresses: vec![[192, 0, 2, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        ..Device::default()
    };
    let counters = Counters {
        drops: vec![DropCount { reason: "hairpin".into(), meaning: "Back.".into(), packets: 1 }],
        maps: vec![MapFill { name: "ports".into(), version: 4, entries: 1, capacity: 2 }],
        ..Counters::default()
    };
    let (devices, counters) = (Some(vec![device]), Some(counters));
    let paths = Some(crate::paths::Paths { probed: 3, blocked: Vec::new() });
    let lacking = Some([("qemu".to_owned(), "no QEMU".to_owned())].into());
    let leases = vec![crate::leases::LeaseSeen {
        nic: uuid,
        at_ms: 1,
        kind: crate::leases::LeaseKind::Leased,
        is_v6: false,
        address: Some([10, 0, 0, 5].into()),
        hostname: Some("vm".to_owned()),
        client_id: vec![1, 2],
    }];
    let clock_ms = Some(1);
    let beat = Heartbeat { clock_ms, connections, devices, counters, paths, lacking, leases };
    let all =
        [AgentMessage::Hello(hello), AgentMessage::Report(report), AgentMessage::Heartbeat(beat)];
    let answered = samples::answers().into_iter().map(AgentMessage::Answered);
    let all = all.into_iter().chain(answered);
    all.map(|message| pb::AgentMessage::from(&message).encode_to_vec()).collect()
}

fn enrol() -> Vec<Vec<u8>> {
    let request = EnrolRequest { host: Uuid::max(), token: "token".into(), csr: vec![0x30, 0] };
    vec![pb::EnrolRequest::from(request).encode_to_vec()]
}

fn states() -> Vec<Vec<u8>> {
    let all =
        [Saved::default(), Saved { revision: 7, lineage: Some(Uuid::max()), objects: objects() }];
    all.iter().map(encode_state).collect()
}

/// One of each kind.
fn objects() -> Vec<Shared> {
    let uuid = Uuid::from_u128;
    let (v4, v6) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]));
    let tunnel = Tunnel {
        vni: 100,
        local_vtep: IpAddr::from([192, 0, 2, 1]),
        foreign: Vec::new(),
        is_gre: true,
        port: Some(4789),
    };
    let uplink = Uplink { interface: "eth1".into(), vlan: Some(7) };
    let network = |uuid, attachment| Object::Network(Network { uuid, number: 1, attachment });
    let port = port(v4, v6);
    let all = [
        network(uuid(1), Attachment::Tunnel(tunnel)),
        network(uuid(2), Attachment::Uplink(uplink)),
        Object::Peer(Peer {
            uuid: uuid(3),
            network: uuid(1),
            mac: [2, 0, 0, 0, 0, 1],
            addresses: vec![v4, v6],
            vtep: IpAddr::from([192, 0, 2, 2]),
            prefixes: Vec::new(),
            goes: None,
            known_as: Some(KnownAs { hostname: "vm".into(), subnet: uuid(7) }),
        }),
        Object::Instance(Instance {
            uuid: uuid(4),
            name: "vm".into(),
            driver: Driver::Netns,
            generation: 1,
            machine: None,
            goes: None,
            comes: None,
        }),
        Object::Port(port.clone()),
        Object::Port(Port {
            uuid: uuid(6),
            number: 2,
            instance: None,
            mac: [2, 0, 0, 0, 0, 3],
            device: Some("vnet0".to_owned()),
            told: None,
            ..port.clone()
        }),
        Object::Subnet(samples::subnet(uuid(7), uuid(1), v6, 0)),
        Object::About(samples::about(uuid(4), 1)),
        Object::SecurityGroup(samples::security_group(uuid(8), 1)),
        Object::Member(samples::member(uuid(5), v4, 1)),
        Object::Timeouts(samples::timeouts(uuid(9))),
    ];
    all.into_iter().map(Shared::from).collect()
}

fn port(v4: IpAddr, v6: IpAddr) -> Port {
    let uuid = Uuid::from_u128;
    let address = |ip| PortAddress {
        ip,
        prefix_bits: 24,
        gateway: Some(v4),
        subnet: Some(uuid(7)),
        domain: 1,
    };
    Port {
        uuid: uuid(5),
        number: 1,
        network: uuid(1),
        instance: Some(uuid(4)),
        device_id: 0,
        mac: [2, 0, 0, 0, 0, 2],
        addresses: vec![address(v4), address(v6)],
        mtu_bytes: 1450,
        prefixes: Vec::new(),
        device: None,
        goes: None,
        comes: None,
        handover: None,
        told: Some(samples::told(1)),
        policy: Some(samples::policy(uuid(8))),
        flow_log: Some(FlowLog::All),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
