//! What a host says of the ways from its VTEPs to those of its peers.

use std::net::IpAddr;

use crate::{BLOCKED_PATHS_MAX, codec::ParseError, field::fixed, r#gen as pb};

/// The ways that it has asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// How many.
    pub probed: u32,
    /// Those on which packets are lost.
    pub blocked: Vec<BlockedPath>,
}

/// On which way they are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the peer.
    There,
    /// From the peer, or nothing is known of the way there.
    Back,
}

/// A way on which packets are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedPath {
    /// The host's VTEP.
    pub own: IpAddr,
    /// The peer's.
    pub peer: IpAddr,
    /// Where they are lost.
    pub direction: Direction,
    /// UDP port of the tunnels.
    pub port: u16,
    /// IP packets of so many bytes get through; 0 if none do.
    pub passes_bytes: u32,
    /// Those of so many are lost.
    pub lost_bytes: u32,
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, ParseError> {
    match bytes.len() {
        4 => fixed::<4>("paths.address", bytes).map(IpAddr::from),
        _ => fixed::<16>("paths.address", bytes).map(IpAddr::from),
    }
}

impl From<&Paths> for pb::Paths {
    fn from(paths: &Paths) -> Self {
        let path = |path: &BlockedPath| pb::BlockedPath {
            own: octets(path.own),
            peer: octets(path.peer),
            there: path.direction == Direction::There,
            port: path.port.into(),
            passes_bytes: path.passes_bytes,
            lost_bytes: path.lost_bytes,
        };
        let blocked = paths.blocked.iter().take(BLOCKED_PATHS_MAX).map(path).collect();
        Self { probed: paths.probed, blocked }
    }
}

impl TryFrom<pb::Paths> for Paths {
    type Error = ParseError;
    fn try_from(paths: pb::Paths) -> Result<Self, ParseError> {
        if paths.blocked.len() > BLOCKED_PATHS_MAX {
            return Err(ParseError::TooMany("paths"));
        }
        let path = |path: pb::BlockedPath| {
            Ok(BlockedPath {
                own: address(&path.own)?,
                peer: address(&path.peer)?,
                direction: if path.there { Direction::There } else { Direction::Back },
                port: u16::try_from(path.port).unwrap_or(0),
                passes_bytes: path.passes_bytes,
                lost_bytes: path.lost_bytes,
            })
        };
        let blocked = paths.blocked.into_iter().map(path).collect::<Result<_, ParseError>>()?;
        Ok(Self { probed: paths.probed, blocked })
    }
}
