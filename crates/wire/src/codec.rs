//! Protobuf to typed values and back. What comes from outside is checked here, once: lengths of
//! uuids, MACs, addresses and digests, known enum values, nothing missing.

use std::net::IpAddr;

use prost::Message as _;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    ARRIVED_MAX, DEVICE_ADDRESSES_MAX, DEVICES_MAX, FAILURES_MAX, LEASES_MAX, REASONS_MAX,
    TEXT_BYTES_MAX, UP_MAX,
    counters::Counters,
    digest::{SetDigest, TableDigests},
    field::fixed,
    r#gen as pb, leases,
    message::{
        AgentMessage, Connections, Delta, Device, EnrolRequest, Heartbeat, Hello, RenewRequest,
        Report, ServerMessage, Snapshot, Welcome,
    },
    object::{Object, ObjectKey, Table},
    paths::{self, Paths},
    question::{Answered, Asked},
    shared::Shared,
    versions::Versions,
};

/// What is wrong with a message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// A field of bytes has a length that its type does not have.
    #[error("{field} has {bytes} bytes")]
    Length {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A field that must be there is not, or has a value that this version does not know.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    /// A number is outside of its range.
    #[error("{field} is {value}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// Two fields of which a value has one.
    #[error("{0} and {1} are both there")]
    Both(&'static str, &'static str),
    /// Too many entries.
    #[error("{0} has too many entries")]
    TooMany(&'static str),
    /// Not protobuf at all.
    #[error("not a protobuf message: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// What an agent keeps on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The store's revision.
    pub revision: u64,
    /// The lineage of the server that told it so, if the agent knows it.
    pub lineage: Option<Uuid>,
    /// What the host must hold.
    pub objects: Vec<Shared>,
}

/// The bytes of a saved state: see [`decode_state`].
#[must_use]
pub fn encode_state(saved: &Saved) -> Vec<u8> {
    let objects = saved.objects.iter().map(object_to_pb).collect();
    let lineage = saved.lineage.map(bytes_of).unwrap_or_default();
    pb::SavedState { revision: saved.revision, objects, lineage }.encode_to_vec()
}

/// A saved state.
///
/// # Errors
/// [`ParseError`] for bytes that [`encode_state`] did not make.
pub fn decode_state(bytes: &[u8]) -> Result<Saved, ParseError> {
    let pb::SavedState { revision, objects, lineage } = pb::SavedState::decode(bytes)?;
    Ok(Saved { revision, lineage: optional("lineage", &lineage)?, objects: each(objects, object)? })
}

impl From<EnrolRequest> for pb::EnrolRequest {
    fn from(request: EnrolRequest) -> Self {
        let EnrolRequest { host, token, csr } = request;
        Self { host: bytes_of(host), token, csr }
    }
}

impl TryFrom<pb::EnrolRequest> for EnrolRequest {
    type Error = ParseError;
    fn try_from(request: pb::EnrolRequest) -> Result<Self, ParseError> {
        let pb::EnrolRequest { host, token, csr } = request;
        Ok(Self { host: uuid("host", &host)?, token, csr })
    }
}

impl From<RenewRequest> for pb::RenewRequest {
    fn from(request: RenewRequest) -> Self {
        let RenewRequest { host, csr } = request;
        Self { host: bytes_of(host), csr }
    }
}

impl TryFrom<pb::RenewRequest> for RenewRequest {
    type Error = ParseError;
    fn try_from(request: pb::RenewRequest) -> Result<Self, ParseError> {
        let pb::RenewRequest { host, csr } = request;
        Ok(Self { host: uuid("host", &host)?, csr })
    }
}

impl From<&AgentMessage> for pb::AgentMessage {
    fn from(message: &AgentMessage) -> Self {
        let kind = match message {
            AgentMessage::Hello(hello) => pb::agent_message::Kind::Hello(hello.into()),
            AgentMessage::Report(report) => pb::agent_message::Kind::Report(report.into()),
            AgentMessage::Heartbeat(beat) => pb::agent_message::Kind::Heartbeat(beat.into()),
            AgentMessage::Answered(answered) => pb::agent_message::Kind::Answer(answered.encode()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::AgentMessage> for AgentMessage {
    type Error = ParseError;
    fn try_from(message: pb::AgentMessage) -> Result<Self, ParseError> {
        match message.kind.ok_or(ParseError::Missing("agent message"))? {
            pb::agent_message::Kind::Hello(hello) => hello.try_into().map(Self::Hello),
            pb::agent_message::Kind::Report(report) => report.try_into().map(Self::Report),
            pb::agent_message::Kind::Heartbeat(beat) => beat.try_into().map(Self::Heartbeat),
            pb::agent_message::Kind::Answer(body) => Answered::decode(&body).map(Self::Answered),
        }
    }
}

impl From<&Heartbeat> for pb::Heartbeat {
    fn from(beat: &Heartbeat) -> Self {
        let port = |(uuid, count): (&Uuid, &u32)| pb::PortConnections {
            uuid: bytes_of(*uuid),
            count: *count,
        };
        let connections = beat.connections.as_ref().map(|connections| pb::Connections {
            sure: connections.sure,
            ports: connections.ports.iter().take(UP_MAX).map(port).collect(),
        });
        let devices = beat.devices.as_ref().map(|devices| pb::Devices {
            devices: devices.iter().take(DEVICES_MAX).map(pb::Device::from).collect(),
        });
        let counters = beat.counters.as_ref().map(pb::Counters::from);
        let paths = beat.paths.as_ref().map(pb::Paths::from);
        let clock_ms = beat.clock_ms.unwrap_or_default();
        let drivers = beat.lacking.as_ref().map(pb::Drivers::from);
        let leases = beat.leases.iter().take(LEASES_MAX).map(pb::LeaseSeen::from).collect();
        Self { clock_ms, connections, devices, counters, paths, drivers, leases }
    }
}

impl From<&Device> for pb::Device {
    fn from(device: &Device) -> Self {
        let octets = |ip: &IpAddr| paths::octets(*ip);
        Self {
            name: cut(device.name.clone()),
            mtu_bytes: device.mtu_bytes,
            is_up: device.is_up,
            is_ethernet: device.is_ethernet,
            is_owned: device.is_owned,
            addresses: device.addresses.iter().take(DEVICE_ADDRESSES_MAX).map(octets).collect(),
        }
    }
}

impl TryFrom<pb::Device> for Device {
    type Error = ParseError;
    fn try_from(device: pb::Device) -> Result<Self, ParseError> {
        let pb::Device { name, mtu_bytes, is_up, is_ethernet, is_owned, addresses } = device;
        if addresses.len() > DEVICE_ADDRESSES_MAX {
            return Err(ParseError::TooMany("device.addresses"));
        }
        let address = |bytes: Vec<u8>| paths::address("device.addresses", &bytes);
        let addresses = addresses.into_iter().map(address).collect::<Result<_, _>>()?;
        Ok(Self { name: cut(name), mtu_bytes, is_up, is_ethernet, is_owned, addresses })
    }
}

impl TryFrom<pb::Heartbeat> for Heartbeat {
    type Error = ParseError;
    fn try_from(beat: pb::Heartbeat) -> Result<Self, ParseError> {
        let connections = |connections: pb::Connections| {
            if connections.ports.len() > UP_MAX {
                return Err(ParseError::TooMany("connections"));
            }
            let port = |p: pb::PortConnections| Ok((uuid("connections.uuid", &p.uuid)?, p.count));
            let ports =
                connections.ports.into_iter().map(port).collect::<Result<_, ParseError>>()?;
            Ok(Connections { sure: connections.sure, ports })
        };
        let devices = |devices: pb::Devices| {
            if devices.devices.len() > DEVICES_MAX {
                return Err(ParseError::TooMany("devices"));
            }
            devices.devices.into_iter().map(Device::try_from).collect()
        };
        Ok(Self {
            clock_ms: (beat.clock_ms > 0).then_some(beat.clock_ms),
            connections: beat.connections.map(connections).transpose()?,
            devices: beat.devices.map(devices).transpose()?,
            counters: beat.counters.map(Counters::try_from).transpose()?,
            paths: beat.paths.map(Paths::try_from).transpose()?,
            lacking: beat.drivers.map(paths::lacking).transpose()?,
            leases: leases::seen(beat.leases)?,
        })
    }
}

impl From<&Hello> for pb::Hello {
    fn from(hello: &Hello) -> Self {
        let version = |(table, version)| pb::TableVersion { table, version };
        Self {
            protocol: hello.protocol,
            protocol_min: hello.protocol_min,
            agent_version: hello.agent_version.clone(),
            tables: hello.tables.numbered().map(version).collect(),
            host: bytes_of(hello.host),
            revision: hello.revision,
            lineage: hello.lineage.map(bytes_of).unwrap_or_default(),
            digests: digests_to_pb(hello.digests),
            run: hello.run.map(bytes_of).unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::Hello> for Hello {
    type Error = ParseError;
    fn try_from(hello: pb::Hello) -> Result<Self, ParseError> {
        let mut tables = Versions::NONE;
        hello.tables.iter().for_each(|known| tables.note(known.table, known.version));
        Ok(Self {
            protocol: hello.protocol,
            protocol_min: hello.protocol_min,
            agent_version: cut(hello.agent_version),
            tables,
            host: uuid("host", &hello.host)?,
            revision: hello.revision,
            lineage: optional("lineage", &hello.lineage)?,
            digests: digests(&hello.digests)?,
            run: optional("run", &hello.run)?,
        })
    }
}

impl From<&Report> for pb::Report {
    fn from(report: &Report) -> Self {
        let given_up = |(number, reason): (&u32, &String)| pb::GivenUp {
            number: *number,
            reason: cut(reason.clone()),
        };
        let failed = report.failed.iter().take(FAILURES_MAX).enumerate();
        let failure = |(at, (uuid, reason)): (usize, (&Uuid, &String))| pb::Failure {
            uuid: bytes_of(*uuid),
            reason: if at < REASONS_MAX { cut(reason.clone()) } else { String::new() },
        };
        Self {
            revision: report.revision,
            processed: report.processed && report.failed.len() <= FAILURES_MAX,
            digests: digests_to_pb(report.digests),
            kernel: report.kernel.to_bytes().into(),
            up: report.up.iter().take(UP_MAX).map(|uuid| bytes_of(*uuid)).collect(),
            failed: failed.map(failure).collect(),
            arrived: report.arrived.iter().copied().take(ARRIVED_MAX).collect(),
            given_up: report.given_up.iter().take(ARRIVED_MAX).map(given_up).collect(),
        }
    }
}

impl TryFrom<pb::Report> for Report {
    type Error = ParseError;
    fn try_from(report: pb::Report) -> Result<Self, ParseError> {
        if report.failed.len() > FAILURES_MAX {
            return Err(ParseError::TooMany("failed"));
        }
        if report.up.len() > UP_MAX {
            return Err(ParseError::TooMany("up"));
        }
        if report.arrived.len() > ARRIVED_MAX {
            return Err(ParseError::TooMany("arrived"));
        }
        if report.given_up.len() > ARRIVED_MAX {
            return Err(ParseError::TooMany("given_up"));
        }
        let failure = |f: pb::Failure| Ok((uuid("failed.uuid", &f.uuid)?, cut(f.reason)));
        Ok(Self {
            revision: report.revision,
            processed: report.processed,
            digests: digests(&report.digests)?,
            kernel: SetDigest::from_bytes(fixed("kernel", &report.kernel)?),
            up: report.up.iter().map(|up| uuid("up", up)).collect::<Result<_, _>>()?,
            failed: report.failed.into_iter().map(failure).collect::<Result<_, ParseError>>()?,
            arrived: report.arrived.into_iter().collect(),
            given_up: report.given_up.into_iter().map(|up| (up.number, cut(up.reason))).collect(),
        })
    }
}

/// Text for people, no longer than [`TEXT_BYTES_MAX`].
pub(crate) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

impl From<&ServerMessage> for pb::ServerMessage {
    fn from(message: &ServerMessage) -> Self {
        let objects = |of: &[Shared]| of.iter().map(object_to_pb).collect();
        let kind = match message {
            ServerMessage::Welcome(welcome) => pb::server_message::Kind::Welcome(pb::Welcome {
                protocol: welcome.protocol,
                server_version: welcome.server_version.clone(),
                lineage: bytes_of(welcome.lineage),
            }),
            ServerMessage::Snapshot(part) => pb::server_message::Kind::Snapshot(pb::Snapshot {
                revision: part.revision,
                objects: objects(&part.objects),
                last: part.last.is_some(),
                digests: part.last.map(digests_to_pb).unwrap_or_default(),
            }),
            ServerMessage::Delta(part) => pb::server_message::Kind::Delta(pb::Delta {
                revision: part.revision,
                upserts: objects(&part.upserts),
                removes: part.removes.iter().map(key_to_pb).collect(),
                last: part.last.is_some(),
                digests: part.last.map(digests_to_pb).unwrap_or_default(),
            }),
            ServerMessage::Asked(asked) => pb::server_message::Kind::Question(asked.encode()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::ServerMessage> for ServerMessage {
    type Error = ParseError;
    fn try_from(message: pb::ServerMessage) -> Result<Self, ParseError> {
        match message.kind.ok_or(ParseError::Missing("server message"))? {
            pb::server_message::Kind::Welcome(welcome) => Ok(Self::Welcome(Welcome {
                protocol: welcome.protocol,
                server_version: cut(welcome.server_version),
                lineage: uuid("lineage", &welcome.lineage)?,
            })),
            pb::server_message::Kind::Snapshot(part) => Ok(Self::Snapshot(Snapshot {
                revision: part.revision,
                objects: each(part.objects, object)?,
                last: part.last.then(|| digests(&part.digests)).transpose()?,
            })),
            pb::server_message::Kind::Delta(part) => Ok(Self::Delta(Delta {
                revision: part.revision,
                upserts: each(part.upserts, object)?,
                removes: each(part.removes, key)?,
                last: part.last.then(|| digests(&part.digests)).transpose()?,
            })),
            pb::server_message::Kind::Question(body) => Asked::decode(&body).map(Self::Asked),
        }
    }
}

fn digests_to_pb(digests: TableDigests) -> Vec<pb::TableDigest> {
    let digest = |(table, digest): (u32, SetDigest)| pb::TableDigest {
        table,
        digest: digest.to_bytes().into(),
    };
    digests.numbered().map(digest).collect()
}

fn digests(digests: &[pb::TableDigest]) -> Result<TableDigests, ParseError> {
    let mut all = TableDigests::default();
    for pb::TableDigest { table, digest } in digests {
        all.note(*table, SetDigest::from_bytes(fixed("digests.digest", digest)?));
    }
    Ok(all)
}

fn object_to_pb(object: &Shared) -> pb::Object {
    pb::Object { table: object.key().table.number(), body: object.encoded().to_vec() }
}

fn object(object: pb::Object) -> Result<Shared, ParseError> {
    Object::decode(table(object.table)?, &object.body).map(Shared::from)
}

fn key_to_pb(key: &ObjectKey) -> pb::ObjectKey {
    pb::ObjectKey { table: key.table.number(), uuid: bytes_of(key.uuid) }
}

fn key(key: pb::ObjectKey) -> Result<ObjectKey, ParseError> {
    Ok(ObjectKey { table: table(key.table)?, uuid: uuid("key.uuid", &key.uuid)? })
}

fn table(number: u32) -> Result<Table, ParseError> {
    Table::from_number(number).ok_or(ParseError::Missing("table"))
}

fn each<P, T>(
    values: Vec<P>,
    parse: impl Fn(P) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    values.into_iter().map(parse).collect()
}

/// Empty: not known.
fn optional(field: &'static str, bytes: &[u8]) -> Result<Option<Uuid>, ParseError> {
    (!bytes.is_empty()).then(|| uuid(field, bytes)).transpose()
}

pub(crate) fn bytes_of(uuid: Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

pub(crate) fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, ParseError> {
    fixed(field, bytes).map(Uuid::from_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{DROPS_MAX, counters::DropCount, testing::objects};

    fn saved(revision: u64, objects: Vec<Object>) -> Saved {
        let lineage = revision.is_multiple_of(2).then(Uuid::max);
        Saved { revision, lineage, objects: objects.into_iter().map(Shared::from).collect() }
    }

    fn there_and_back(message: &ServerMessage) -> ServerMessage {
        let bytes = pb::ServerMessage::from(message).encode_to_vec();
        pb::ServerMessage::decode(bytes.as_slice()).unwrap().try_into().unwrap()
    }

    proptest! {
        #[test]
        fn server_messages_survive_the_wire(
            objects in objects(), revision: u64, digest: [u8; 32], last: bool,
        ) {
            let mut digests = TableDigests::default();
            digests.note(Table::Peer.number(), SetDigest::from_bytes(digest));
            let last = last.then_some(digests);
            let removes = objects.iter().map(Object::key).collect();
            let objects: Vec<_> = objects.into_iter().map(Shared::from).collect();
            let delta = Delta { revision, upserts: objects.clone(), removes, last };
            let lineage = Uuid::from_u128(revision.into());
            let welcome = Welcome { protocol: 2, server_version: "2".to_owned(), lineage };
            let all = [
                ServerMessage::Delta(delta),
                ServerMessage::Snapshot(Snapshot { revision, objects, last }),
                ServerMessage::Welcome(welcome),
            ];
            for message in all {
                prop_assert_eq!(&there_and_back(&message), &message);
            }
        }

        #[test]
        fn agent_messages_survive_the_wire(
            revision: u64, processed: bool, digest: [u8; 32], ids: Vec<u128>,
        ) {
            let kernel = SetDigest::from_bytes(digest);
            let mut digests = TableDigests::default();
            digests.note(Table::Port.number(), kernel);
            let ids = || ids.iter().copied().map(Uuid::from_u128);
            let failed = ids().map(|id| (id, format!("{id} is broken"))).collect();
            let up = ids().collect();
            let arrived = ids().map(|id| id.as_fields().0).collect();
            let given_up = ids().map(|id| (id.as_fields().0, "it is full".to_owned())).collect();
            let report =
                Report { revision, processed, digests, kernel, up, failed, arrived, given_up };
            let ports = ids().map(|id| (id, id.as_fields().0)).collect();
            let connections = processed.then_some(Connections { sure: 512, ports });
            let clock_ms = (revision > 0).then_some(revision);
            let device = |id: Uuid| Device {
                name: format!("{:.15}", id.simple()),
                mtu_bytes: id.as_fields().0,
                is_up: processed,
                is_ethernet: revision % 2 == 0,
                is_owned: !processed,
                addresses: vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from(digest[..16].first_chunk().copied().unwrap_or([0; 16]))],
            };
            let devices = processed.then(|| ids().take(DEVICES_MAX).map(device).collect());
            let counters = processed.then(|| crate::testing::counters(revision));
            let paths = processed.then(|| crate::testing::paths(ids().count()));
            let lacking = processed.then(|| [("qemu".to_owned(), "none".to_owned())].into());
            let leases = ids().take(2).map(crate::testing::lease).collect();
            let beat =
                Heartbeat { clock_ms, connections, devices, counters, paths, lacking, leases };
            let hello = Hello {
                protocol: 2, protocol_min: 1, agent_version: "1".into(), tables: Versions::own(),
                host: Uuid::max(), revision, lineage: processed.then(Uuid::max), digests,
                run: processed.then(Uuid::max),
            };
            let all = [
                AgentMessage::Report(report), AgentMessage::Hello(hello),
                AgentMessage::Heartbeat(Heartbeat::default()), AgentMessage::Heartbeat(beat),
            ];
            for message in all {
                let bytes = pb::AgentMessage::from(&message).encode_to_vec();
                let back = pb::AgentMessage::decode(bytes.as_slice()).unwrap();
                prop_assert_eq!(AgentMessage::try_from(back).unwrap(), message);
            }
        }

        #[test]
        fn a_saved_state_is_read_back(objects in objects(), revision: u64) {
            let saved = saved(revision, objects);
            prop_assert_eq!(decode_state(&encode_state(&saved)), Ok(saved));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            _ = decode_state(&bytes);
            _ = pb::AgentMessage::decode(bytes.as_slice()).map(AgentMessage::try_from);
            _ = pb::ServerMessage::decode(bytes.as_slice()).map(ServerMessage::try_from);
            _ = pb::EnrolRequest::decode(bytes.as_slice()).map(EnrolRequest::try_from);
            _ = pb::RenewRequest::decode(bytes.as_slice()).map(RenewRequest::try_from);
        }

        #[test]
        fn damaged_messages_never_panic(
            objects in objects(), at: prop::sample::Index, byte: u8,
        ) {
            let mut bytes = encode_state(&saved(1, objects));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            _ = decode_state(&bytes);
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let reason = "é".repeat(TEXT_BYTES_MAX);
        let cut = cut(reason.clone());
        assert!(cut.len() <= TEXT_BYTES_MAX && reason.starts_with(&cut));
    }

    #[test]
    fn the_largest_report_fits_into_a_message() {
        let uuid = |at: usize| Uuid::from_u128(at as u128);
        let reason = "r".repeat(TEXT_BYTES_MAX);
        let failed = (0..=FAILURES_MAX).map(|at| (uuid(at), reason.clone())).collect();
        let up = (0..=UP_MAX).map(uuid).collect();
        let report = Report { processed: true, up, failed, ..Report::default() };
        let report = pb::AgentMessage::from(&AgentMessage::Report(report));
        assert!(report.encoded_len() < crate::MESSAGE_BYTES_MAX, "{}", report.encoded_len());
        let AgentMessage::Report(back) = report.try_into().unwrap() else { panic!("a report") };
        assert!(!back.processed, "what is cut off must not count as done");
    }

    #[test]
    fn the_largest_heartbeat_fits_into_a_message_and_an_empty_one_says_nothing() {
        let ports = (0..=UP_MAX).map(|at| (Uuid::from_u128(at as u128), u32::MAX)).collect();
        let connections = Some(Connections { sure: u32::MAX, ports });
        let device = Device {
            name: "n".repeat(15),
            mtu_bytes: u32::MAX,
            addresses: vec![IpAddr::from([0xff; 16]); DEVICE_ADDRESSES_MAX + 1],
            ..Device::default()
        };
        let devices = Some(vec![device; DEVICES_MAX + 1]);
        let drop = DropCount {
            reason: "r".repeat(64),
            meaning: "m".repeat(2 * TEXT_BYTES_MAX),
            packets: u64::MAX,
        };
        let drops = vec![drop; DROPS_MAX + 1];
        let counters = Some(Counters { drops, ..crate::testing::counters(u64::MAX) });
        let paths = Some(crate::testing::paths(crate::BLOCKED_PATHS_MAX + 1));
        let lacking = (0..=crate::DRIVERS_MAX).map(|at| (at.to_string(), "w".repeat(1000)));
        let lacking = Some(lacking.collect());
        let clock_ms = Some(u64::MAX);
        let leases = vec![crate::testing::lease(Uuid::max()); LEASES_MAX + 1];
        let beat = Heartbeat { clock_ms, connections, devices, counters, paths, lacking, leases };
        let beat = pb::AgentMessage::from(&AgentMessage::Heartbeat(beat));
        assert!(beat.encoded_len() < crate::MESSAGE_BYTES_MAX, "{}", beat.encoded_len());
        assert!(AgentMessage::try_from(beat).is_ok());
        // As agents of earlier releases send it.
        let empty = Heartbeat::try_from(pb::Heartbeat::default());
        assert_eq!(empty, Ok(Heartbeat::default()));
    }

    #[test]
    fn the_hello_of_the_first_release_is_read_as_far_as_its_protocol() {
        let old = pb::Hello { protocol: 1, host: vec![1; 16], ..pb::Hello::default() };
        assert_eq!(Hello::try_from(old).unwrap().protocol, 1);
    }
}
