//! What a host says of the ways from its VTEPs to those of its peers, and of what cannot run on it.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    BLOCKED_PATHS_MAX, DRIVERS_MAX,
    codec::{ParseError, cut},
    field::fixed,
    r#gen as pb,
};

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

/// An address as bytes: 4 or 16.
pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An address of so many bytes.
pub(crate) fn address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ParseError> {
    match bytes.len() {
        4 => fixed::<4>(field, bytes).map(IpAddr::from),
        _ => fixed::<16>(field, bytes).map(IpAddr::from),
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
                own: address("paths.address", &path.own)?,
                peer: address("paths.address", &path.peer)?,
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

impl From<&BTreeMap<String, String>> for pb::Drivers {
    fn from(lacking: &BTreeMap<String, String>) -> Self {
        let one = |(driver, why): (&String, &String)| pb::LackingDriver {
            driver: cut(driver.clone()),
            why: cut(why.clone()),
        };
        Self { lacking: lacking.iter().take(DRIVERS_MAX).map(one).collect() }
    }
}

/// The drivers that cannot run instances on a host, each with what it lacks.
pub(crate) fn lacking(drivers: pb::Drivers) -> Result<BTreeMap<String, String>, ParseError> {
    if drivers.lacking.len() > DRIVERS_MAX {
        return Err(ParseError::TooMany("drivers"));
    }
    let one = |it: pb::LackingDriver| (cut(it.driver), cut(it.why));
    Ok(drivers.lacking.into_iter().map(one).collect())
}
