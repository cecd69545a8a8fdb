//! Objects and their keys to protobuf and back.

use super::{ParseError, bytes_of, fixed, ip, ip_to_pb, uuid};
use crate::{
    r#gen as pb,
    object::{Driver, Instance, Network, Object, ObjectKey, Peer, Port, PortAddress, Table},
};

impl From<&ObjectKey> for pb::ObjectKey {
    fn from(key: &ObjectKey) -> Self {
        let table = match key.table {
            Table::Network => pb::Table::Network,
            Table::Peer => pb::Table::Peer,
            Table::Instance => pb::Table::Instance,
            Table::Port => pb::Table::Port,
        };
        Self { table: table.into(), uuid: bytes_of(key.uuid) }
    }
}

impl TryFrom<pb::ObjectKey> for ObjectKey {
    type Error = ParseError;
    fn try_from(key: pb::ObjectKey) -> Result<Self, ParseError> {
        let table = match key.table() {
            pb::Table::Unspecified => return Err(ParseError::Missing("key.table")),
            pb::Table::Network => Table::Network,
            pb::Table::Peer => Table::Peer,
            pb::Table::Instance => Table::Instance,
            pb::Table::Port => Table::Port,
        };
        Ok(Self { table, uuid: uuid("key.uuid", &key.uuid)? })
    }
}

impl From<&Object> for pb::Object {
    fn from(object: &Object) -> Self {
        let kind = match object {
            Object::Network(o) => pb::object::Kind::Network(pb::Network {
                uuid: bytes_of(o.uuid),
                number: o.number,
                vni: o.vni,
                local_vtep: ip_to_pb(o.local_vtep),
            }),
            Object::Peer(o) => pb::object::Kind::Peer(pb::Peer {
                uuid: bytes_of(o.uuid),
                network: bytes_of(o.network),
                mac: o.mac.into(),
                addresses: o.addresses.iter().copied().map(ip_to_pb).collect(),
                vtep: ip_to_pb(o.vtep),
            }),
            Object::Instance(o) => pb::object::Kind::Instance(pb::Instance {
                uuid: bytes_of(o.uuid),
                name: o.name.clone(),
                driver: match o.driver {
                    Driver::Netns => pb::Driver::Netns.into(),
                },
            }),
            Object::Port(o) => pb::object::Kind::Port(pb::Port {
                uuid: bytes_of(o.uuid),
                number: o.number,
                network: bytes_of(o.network),
                instance: bytes_of(o.instance),
                device_id: o.device_id,
                mac: o.mac.into(),
                addresses: o.addresses.iter().map(address_to_pb).collect(),
                mtu_bytes: o.mtu_bytes,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Object> for Object {
    type Error = ParseError;
    fn try_from(object: pb::Object) -> Result<Self, ParseError> {
        match object.kind.ok_or(ParseError::Missing("object"))? {
            pb::object::Kind::Network(o) => Ok(Self::Network(Network {
                uuid: uuid("network.uuid", &o.uuid)?,
                number: o.number,
                vni: vni(o.vni)?,
                local_vtep: ip("network.local_vtep", &o.local_vtep)?,
            })),
            pb::object::Kind::Peer(o) => Ok(Self::Peer(Peer {
                uuid: uuid("peer.uuid", &o.uuid)?,
                network: uuid("peer.network", &o.network)?,
                mac: fixed("peer.mac", &o.mac)?,
                addresses: o
                    .addresses
                    .iter()
                    .map(|a| ip("peer.addresses", a))
                    .collect::<Result<_, _>>()?,
                vtep: ip("peer.vtep", &o.vtep)?,
            })),
            pb::object::Kind::Instance(o) => {
                let driver = match o.driver() {
                    pb::Driver::Unspecified => return Err(ParseError::Missing("instance.driver")),
                    pb::Driver::Netns => Driver::Netns,
                };
                Ok(Self::Instance(Instance {
                    uuid: uuid("instance.uuid", &o.uuid)?,
                    name: o.name,
                    driver,
                }))
            }
            pb::object::Kind::Port(o) => Ok(Self::Port(Port {
                uuid: uuid("port.uuid", &o.uuid)?,
                number: o.number,
                network: uuid("port.network", &o.network)?,
                instance: uuid("port.instance", &o.instance)?,
                device_id: o.device_id,
                mac: fixed("port.mac", &o.mac)?,
                addresses: o.addresses.iter().map(address).collect::<Result<_, _>>()?,
                mtu_bytes: o.mtu_bytes,
            })),
        }
    }
}

fn address_to_pb(address: &PortAddress) -> pb::PortAddress {
    pb::PortAddress {
        ip: ip_to_pb(address.ip),
        prefix_bits: address.prefix_bits.into(),
        gateway: address.gateway.map(ip_to_pb).unwrap_or_default(),
    }
}

fn address(address: &pb::PortAddress) -> Result<PortAddress, ParseError> {
    let (field, value) = ("port.prefix_bits", address.prefix_bits);
    let own = ip("port.ip", &address.ip)?;
    let bits_max = if own.is_ipv4() { 32 } else { 128 };
    let prefix_bits = u8::try_from(value)
        .ok()
        .filter(|bits| *bits <= bits_max)
        .ok_or(ParseError::Range { field, value })?;
    let gateway = match address.gateway.as_slice() {
        [] => None,
        bytes => Some(ip("port.gateway", bytes)?),
    };
    Ok(PortAddress { ip: own, prefix_bits, gateway })
}

/// RFC 7348: 24 bits.
fn vni(value: u32) -> Result<u32, ParseError> {
    if value >> 24 == 0 {
        Ok(value)
    } else {
        Err(ParseError::Range { field: "network.vni", value })
    }
}
