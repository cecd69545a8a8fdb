//! Protobuf to typed values and back. What comes from outside is checked here, once: lengths of
//! uuids, MACs, addresses and digests, known enum values, nothing missing.

mod object;

use std::net::IpAddr;

use prost::Message as _;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    FAILURES_MAX, TEXT_BYTES_MAX,
    digest::{SetDigest, TableDigests},
    r#gen as pb,
    message::{AgentMessage, Delta, EnrolRequest, Hello, Report, ServerMessage, Snapshot},
    object::Object,
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
    /// Too many entries.
    #[error("{0} has too many entries")]
    TooMany(&'static str),
    /// Not protobuf at all.
    #[error("not a protobuf message: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// The bytes of a saved state: see [`decode_state`].
#[must_use]
pub fn encode_state<'a>(revision: u64, objects: impl Iterator<Item = &'a Object>) -> Vec<u8> {
    pb::SavedState { revision, objects: objects.map(pb::Object::from).collect() }.encode_to_vec()
}

/// The revision and the objects of a saved state.
///
/// # Errors
/// [`ParseError`] for bytes that [`encode_state`] did not make.
pub fn decode_state(bytes: &[u8]) -> Result<(u64, Vec<Object>), ParseError> {
    let saved = pb::SavedState::decode(bytes)?;
    Ok((saved.revision, each(saved.objects)?))
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

impl From<&AgentMessage> for pb::AgentMessage {
    fn from(message: &AgentMessage) -> Self {
        let kind = match message {
            AgentMessage::Hello(hello) => pb::agent_message::Kind::Hello(pb::Hello {
                protocol: hello.protocol,
                agent_version: hello.agent_version.clone(),
                host: bytes_of(hello.host),
                revision: hello.revision,
                digests: Some(hello.digests.into()),
            }),
            AgentMessage::Report(report) => pb::agent_message::Kind::Report(pb::Report {
                revision: report.revision,
                complete: report.complete,
                digests: Some(report.digests.into()),
                kernel: report.kernel.to_bytes().into(),
                up: report.up.iter().map(|uuid| bytes_of(*uuid)).collect(),
                failed: report.failed.iter().take(FAILURES_MAX).map(failure_to_pb).collect(),
            }),
            AgentMessage::Heartbeat => pb::agent_message::Kind::Heartbeat(pb::Heartbeat {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::AgentMessage> for AgentMessage {
    type Error = ParseError;
    fn try_from(message: pb::AgentMessage) -> Result<Self, ParseError> {
        match message.kind.ok_or(ParseError::Missing("agent message"))? {
            pb::agent_message::Kind::Hello(hello) => Ok(Self::Hello(Hello {
                protocol: hello.protocol,
                agent_version: cut(hello.agent_version),
                host: uuid("host", &hello.host)?,
                revision: hello.revision,
                digests: digests(hello.digests)?,
            })),
            pb::agent_message::Kind::Report(report) => {
                if report.failed.len() > FAILURES_MAX {
                    return Err(ParseError::TooMany("failed"));
                }
                let failure = |f: pb::Failure| Ok((uuid("failed.uuid", &f.uuid)?, cut(f.reason)));
                Ok(Self::Report(Report {
                    revision: report.revision,
                    complete: report.complete,
                    digests: digests(report.digests)?,
                    kernel: SetDigest::from_bytes(fixed("kernel", &report.kernel)?),
                    up: report.up.iter().map(|up| uuid("up", up)).collect::<Result<_, _>>()?,
                    failed: report
                        .failed
                        .into_iter()
                        .map(failure)
                        .collect::<Result<_, ParseError>>()?,
                }))
            }
            pb::agent_message::Kind::Heartbeat(_) => Ok(Self::Heartbeat),
        }
    }
}

fn failure_to_pb((uuid, reason): (&Uuid, &String)) -> pb::Failure {
    pb::Failure { uuid: bytes_of(*uuid), reason: cut(reason.clone()) }
}

/// Text for people, no longer than [`TEXT_BYTES_MAX`].
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

impl From<&ServerMessage> for pb::ServerMessage {
    fn from(message: &ServerMessage) -> Self {
        let kind = match message {
            ServerMessage::Snapshot(part) => pb::server_message::Kind::Snapshot(pb::Snapshot {
                revision: part.revision,
                objects: part.objects.iter().map(pb::Object::from).collect(),
                last: part.last.is_some(),
                digests: part.last.map(pb::Digests::from),
            }),
            ServerMessage::Delta(part) => pb::server_message::Kind::Delta(pb::Delta {
                revision: part.revision,
                upserts: part.upserts.iter().map(pb::Object::from).collect(),
                removes: part.removes.iter().map(pb::ObjectKey::from).collect(),
                last: part.last.is_some(),
                digests: part.last.map(pb::Digests::from),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::ServerMessage> for ServerMessage {
    type Error = ParseError;
    fn try_from(message: pb::ServerMessage) -> Result<Self, ParseError> {
        match message.kind.ok_or(ParseError::Missing("server message"))? {
            pb::server_message::Kind::Snapshot(part) => Ok(Self::Snapshot(Snapshot {
                revision: part.revision,
                objects: each(part.objects)?,
                last: part.last.then(|| digests(part.digests)).transpose()?,
            })),
            pb::server_message::Kind::Delta(part) => Ok(Self::Delta(Delta {
                revision: part.revision,
                upserts: each(part.upserts)?,
                removes: each(part.removes)?,
                last: part.last.then(|| digests(part.digests)).transpose()?,
            })),
        }
    }
}

impl From<TableDigests> for pb::Digests {
    fn from(digests: TableDigests) -> Self {
        Self {
            network: digests.network.to_bytes().into(),
            peer: digests.peer.to_bytes().into(),
            instance: digests.instance.to_bytes().into(),
            port: digests.port.to_bytes().into(),
        }
    }
}

fn digests(digests: Option<pb::Digests>) -> Result<TableDigests, ParseError> {
    let digests = digests.ok_or(ParseError::Missing("digests"))?;
    Ok(TableDigests {
        network: SetDigest::from_bytes(fixed("digests.network", &digests.network)?),
        peer: SetDigest::from_bytes(fixed("digests.peer", &digests.peer)?),
        instance: SetDigest::from_bytes(fixed("digests.instance", &digests.instance)?),
        port: SetDigest::from_bytes(fixed("digests.port", &digests.port)?),
    })
}

fn each<P, T: TryFrom<P>>(values: Vec<P>) -> Result<Vec<T>, T::Error> {
    values.into_iter().map(T::try_from).collect()
}

fn bytes_of(uuid: Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, ParseError> {
    fixed(field, bytes).map(Uuid::from_bytes)
}

fn ip_to_pb(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ParseError> {
    match bytes.len() {
        4 => fixed::<4>(field, bytes).map(IpAddr::from),
        _ => fixed::<16>(field, bytes).map(IpAddr::from),
    }
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ParseError> {
    bytes.try_into().map_err(|_| ParseError::Length { field, bytes: bytes.len() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::objects;

    fn there_and_back(message: &ServerMessage) -> ServerMessage {
        let bytes = pb::ServerMessage::from(message).encode_to_vec();
        pb::ServerMessage::decode(bytes.as_slice()).unwrap().try_into().unwrap()
    }

    proptest! {
        #[test]
        fn server_messages_survive_the_wire(
            objects in objects(), revision: u64, digest: [u8; 32], last: bool,
        ) {
            let peer = SetDigest::from_bytes(digest);
            let last = last.then_some(TableDigests { peer, ..TableDigests::default() });
            let removes = objects.iter().map(Object::key).collect();
            let delta = Delta { revision, upserts: objects.clone(), removes, last };
            let delta = ServerMessage::Delta(delta);
            prop_assert_eq!(&there_and_back(&delta), &delta);
            let snapshot = ServerMessage::Snapshot(Snapshot { revision, objects, last });
            prop_assert_eq!(&there_and_back(&snapshot), &snapshot);
        }

        #[test]
        fn agent_messages_survive_the_wire(
            revision: u64, complete: bool, digest: [u8; 32], ids: Vec<u128>,
        ) {
            let kernel = SetDigest::from_bytes(digest);
            let digests = TableDigests { port: kernel, ..TableDigests::default() };
            let ids = || ids.iter().copied().map(Uuid::from_u128);
            let failed = ids().map(|id| (id, format!("{id} is broken"))).collect();
            let up = ids().collect();
            let report = Report { revision, complete, digests, kernel, up, failed };
            let hello = Hello {
                protocol: 1, agent_version: "1".into(), host: Uuid::max(), revision, digests,
            };
            let all = [
                AgentMessage::Report(report), AgentMessage::Hello(hello), AgentMessage::Heartbeat,
            ];
            for message in all {
                let bytes = pb::AgentMessage::from(&message).encode_to_vec();
                let back = pb::AgentMessage::decode(bytes.as_slice()).unwrap();
                prop_assert_eq!(AgentMessage::try_from(back).unwrap(), message);
            }
        }

        #[test]
        fn a_saved_state_is_read_back(objects in objects(), revision: u64) {
            let bytes = encode_state(revision, objects.iter());
            prop_assert_eq!(decode_state(&bytes), Ok((revision, objects)));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            _ = decode_state(&bytes);
            _ = pb::AgentMessage::decode(bytes.as_slice()).map(AgentMessage::try_from);
            _ = pb::ServerMessage::decode(bytes.as_slice()).map(ServerMessage::try_from);
            _ = pb::EnrolRequest::decode(bytes.as_slice()).map(EnrolRequest::try_from);
        }

        #[test]
        fn damaged_messages_never_panic(
            objects in objects(), at: prop::sample::Index, byte: u8,
        ) {
            let mut bytes = encode_state(1, objects.iter());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            _ = decode_state(&bytes);
        }
    }

    #[test]
    fn a_wrong_length_names_its_field() {
        let network = pb::Network { uuid: vec![1; 15], ..pb::Network::default() };
        let object = pb::Object { kind: Some(pb::object::Kind::Network(network)) };
        let expected = ParseError::Length { field: "network.uuid", bytes: 15 };
        assert_eq!(Object::try_from(object), Err(expected));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let reason = "é".repeat(TEXT_BYTES_MAX);
        let cut = failure_to_pb((&Uuid::nil(), &reason)).reason;
        assert!(cut.len() <= TEXT_BYTES_MAX && reason.starts_with(&cut));
    }
}
