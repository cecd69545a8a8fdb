//! What agents say to each other: frames of a kind, a length and a body.
//!
//! An end that does not know a kind, or hears one where it makes no sense, ends the connection. Later
//! releases say what they speak in `version` of [`Hello`].

use std::{collections::BTreeMap, io, time::Duration};

use dataplane::HandedConnection;
use packet::Addr;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use uuid::Uuid;

/// What this release speaks.
pub(super) const VERSION: u32 = 1;

/// Longest body before the other end is known to be admitted, and afterwards.
pub(super) const SHORT_MAX: usize = 8 << 10;
pub(super) const LONG_MAX: usize = 512 << 10;

/// How much memory one frame has at most.
pub(super) const MEMORY_MAX: usize = 256 << 10;

/// How many connections one frame has at most.
pub(super) const CONNECTIONS_MAX: usize = 4096;

/// How long the other end may take to read or to go on, while nothing else is waited for.
pub(super) const STALL: Duration = Duration::from_secs(30);

const HELLO: u8 = 1;
const ANSWER: u8 = 2;
const MEMORY: u8 = 3;
const MEMORY_END: u8 = 4;
const CONNECTIONS: u8 = 5;
const GO: u8 = 6;

/// A connection on the wire, in bytes.
const CONNECTION_BYTES: usize = 48;

/// One thing that is said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// First: what the connection is for.
    Hello(Hello),
    /// What became of it.
    Answer(Answer),
    /// A part of a machine's memory.
    Memory(Vec<u8>),
    /// That was all of it.
    MemoryEnd,
    /// Connections of a NIC.
    Connections(Uuid, Vec<HandedConnection>),
    /// The machine does not run any more where it was: it is to run.
    Go,
}

/// What a connection is for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) what: What,
    /// The instance or NIC.
    pub(super) uuid: Uuid,
    /// The number of its move.
    pub(super) number: u32,
    /// What has to be the same for a machine.
    #[serde(default)]
    pub(super) processor: String,
    #[serde(default)]
    pub(super) slots: BTreeMap<Uuid, u32>,
}

/// What is handed over.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum What {
    /// The memory of a machine.
    Machine,
    /// Nothing more of a machine: it is asked whether it runs, and is to run if it can.
    Question,
    /// The connections of a port.
    Port,
}

/// What became of what was said.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Answer {
    /// Why it is not done, if so.
    #[serde(default)]
    pub(super) refused: Option<String>,
    /// It may be done later.
    #[serde(default)]
    pub(super) may_be_later: bool,
    /// Connections that are there now, and those that are not.
    #[serde(default)]
    pub(super) taken: u32,
    #[serde(default)]
    pub(super) lost: u32,
}

impl Answer {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..Self::default() }
    }

    pub(super) fn later(why: impl Into<String>) -> Self {
        Self { may_be_later: true, ..Self::refused(why) }
    }
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Answer(_) => ANSWER,
            Self::Memory(_) => MEMORY,
            Self::MemoryEnd => MEMORY_END,
            Self::Connections(..) => CONNECTIONS,
            Self::Go => GO,
        }
    }

    fn body(self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Hello(hello) => serde_json::to_vec(&hello)?,
            Self::Answer(answer) => serde_json::to_vec(&answer)?,
            Self::Memory(bytes) => bytes,
            Self::MemoryEnd | Self::Go => Vec::new(),
            Self::Connections(nic, connections) => {
                let mut bytes = nic.as_bytes().to_vec();
                connections.iter().for_each(|connection| bytes.extend(encode(connection)));
                bytes
            }
        })
    }

    /// What a frame of this kind with this body says.
    pub(super) fn read(kind: u8, body: Vec<u8>) -> io::Result<Self> {
        Ok(match kind {
            HELLO => Self::Hello(json(&body)?),
            ANSWER => Self::Answer(json(&body)?),
            MEMORY => Self::Memory(body),
            MEMORY_END if body.is_empty() => Self::MemoryEnd,
            GO if body.is_empty() => Self::Go,
            CONNECTIONS => {
                let (nic, rest) = body.split_first_chunk::<16>().ok_or_else(|| odd("no NIC"))?;
                let (whole, rest) = rest.as_chunks::<CONNECTION_BYTES>();
                if !rest.is_empty() || whole.len() > CONNECTIONS_MAX {
                    return Err(odd("too many connections, or a part of one"));
                }
                let nic = Uuid::from_bytes(*nic);
                Self::Connections(nic, whole.iter().map(decode).collect())
            }
            _ => return Err(odd("a kind that is not known")),
        })
    }
}

/// Sends a frame, and waits until it is on its way.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), frame: Frame) -> io::Result<()> {
    let kind = frame.kind();
    let body = frame.body()?;
    let length = u32::try_from(body.len()).map_err(|_| odd("it is too long"))?;
    let [a, b, c, d] = length.to_be_bytes();
    let sending = async {
        to.write_all(&[kind, a, b, c, d]).await?;
        to.write_all(&body).await?;
        to.flush().await
    };
    timeout(STALL, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Waits for a frame that is no longer than that. Not to be dropped and called again.
pub(super) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    longest: usize,
    patience: Duration,
) -> io::Result<Frame> {
    let receiving = async {
        let [kind, a, b, c, d] = {
            let mut head = [0; 5];
            from.read_exact(&mut head).await?;
            head
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > longest {
            return Err(odd("a frame that is too long"));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        Frame::read(kind, body)
    };
    timeout(patience, receiving).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub(super) fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other agent sends {what}"))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|_| odd("what cannot be read"))
}

const BY_OTHER: u8 = 1;
const PICKED_UP: u8 = 2;

/// Own address and the other end's: 16 bytes each; L4 ports: 2 each; protocol, state, flags, zero: 1
/// each; seconds left, network: 4 each. In network byte order.
fn encode(connection: &HandedConnection) -> [u8; CONNECTION_BYTES] {
    let mut bytes = [0; CONNECTION_BYTES];
    let by_other = if connection.by_other { BY_OTHER } else { 0 };
    let picked_up = if connection.picked_up { PICKED_UP } else { 0 };
    bytes[..16].copy_from_slice(&connection.local.octets());
    bytes[16..32].copy_from_slice(&connection.remote.octets());
    bytes[32..34].copy_from_slice(&connection.local_port.to_be_bytes());
    bytes[34..36].copy_from_slice(&connection.remote_port.to_be_bytes());
    bytes[36] = connection.protocol;
    bytes[37] = connection.state;
    bytes[38] = by_other | picked_up;
    bytes[40..44].copy_from_slice(&connection.seconds_left.to_be_bytes());
    bytes[44..].copy_from_slice(&connection.source_net.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; CONNECTION_BYTES]) -> HandedConnection {
    let piece = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let address = |at: usize| {
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[at..at + 16]);
        Addr::v6(address)
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    HandedConnection {
        local: address(0),
        remote: address(16),
        local_port: port(32),
        remote_port: port(34),
        protocol: bytes[36],
        state: bytes[37],
        by_other: bytes[38] & BY_OTHER != 0,
        picked_up: bytes[38] & PICKED_UP != 0,
        seconds_left: u32::from_be_bytes(piece(40)),
        source_net: u32::from_be_bytes(piece(44)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> HandedConnection {
        HandedConnection {
            local: Addr::v4([10, 0, 0, 1]),
            remote: Addr::v4([10, 0, 0, 2]),
            local_port: 7001,
            remote_port: 40_000,
            protocol: 6,
            state: 3,
            by_other: true,
            picked_up: false,
            seconds_left: 7440,
            source_net: 9,
        }
    }

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let hello = || Hello {
            version: VERSION,
            what: What::Machine,
            uuid: Uuid::from_u128(7),
            number: 3,
            processor: "tcg".to_owned(),
            slots: [(Uuid::from_u128(8), 4)].into(),
        };
        let all = || {
            [
                Frame::Hello(hello()),
                Frame::Answer(Answer::later("it is being made")),
                Frame::Memory(vec![7; 1000]),
                Frame::MemoryEnd,
                Frame::Connections(Uuid::from_u128(1), vec![connection(); 3]),
                Frame::Go,
            ]
        };
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        for frame in all() {
            send(&mut near, frame).await.unwrap();
        }
        for frame in all() {
            assert_eq!(receive(&mut far, LONG_MAX, STALL).await.unwrap(), frame);
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_makes_no_sense_is_refused_before_it_is_kept() {
        for bytes in [
            vec![HELLO, 0xff, 0xff, 0xff, 0xff],
            vec![9, 0, 0, 0, 0],
            vec![GO, 0, 0, 0, 1, 7],
            vec![CONNECTIONS, 0, 0, 0, 3, 1, 2, 3],
            [vec![CONNECTIONS, 0, 0, 0, 17], vec![0; 17]].concat(),
            [vec![HELLO, 0, 0, 0, 2], b"{}".to_vec()].concat(),
        ] {
            let mut from = bytes.as_slice();
            let error = receive(&mut from, SHORT_MAX, STALL).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
