//! What a host counts: for people who look after it, never needed to decide anything.

use crate::{DROPS_MAX, MAPS_MAX, codec::ParseError, codec::cut, r#gen as pb};

/// What a data plane has counted since its maps were made, and how full it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were dropped, for each reason that has occurred.
    pub drops: Vec<DropCount>,
    /// What all ports that there are sent and received together.
    pub traffic: Traffic,
    /// How full each map is.
    pub maps: Vec<MapFill>,
}

/// Packets that were dropped for one reason. The words are the agent's: a server of another release
/// need not know the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropCount {
    /// The reason's name in metrics.
    pub reason: String,
    /// A sentence for the operator.
    pub meaning: String,
    /// How many.
    pub packets: u64,
}

/// What ports sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that they sent and that were let through.
    pub from_port_packets: u64,
    /// Their bytes.
    pub from_port_bytes: u64,
    /// Packets delivered to them.
    pub to_port_packets: u64,
    /// Their bytes.
    pub to_port_bytes: u64,
}

/// How full a map is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// The version of its layout.
    pub version: u32,
    /// Entries in it.
    pub entries: u64,
    /// Most that it can have.
    pub capacity: u64,
}

impl From<&Counters> for pb::Counters {
    fn from(counters: &Counters) -> Self {
        let drop = |drop: &DropCount| pb::DropCount {
            reason: cut(drop.reason.clone()),
            meaning: cut(drop.meaning.clone()),
            packets: drop.packets,
        };
        let map = |map: &MapFill| pb::MapFill {
            name: cut(map.name.clone()),
            version: map.version,
            entries: map.entries,
            capacity: map.capacity,
        };
        let Traffic { from_port_packets, from_port_bytes, to_port_packets, to_port_bytes } =
            counters.traffic;
        Self {
            drops: counters.drops.iter().take(DROPS_MAX).map(drop).collect(),
            from_port_packets,
            from_port_bytes,
            to_port_packets,
            to_port_bytes,
            maps: counters.maps.iter().take(MAPS_MAX).map(map).collect(),
        }
    }
}

impl TryFrom<pb::Counters> for Counters {
    type Error = ParseError;
    fn try_from(counters: pb::Counters) -> Result<Self, ParseError> {
        let pb::Counters {
            drops,
            from_port_packets,
            from_port_bytes,
            to_port_packets,
            to_port_bytes,
            maps,
        } = counters;
        if drops.len() > DROPS_MAX {
            return Err(ParseError::TooMany("counters.drops"));
        }
        if maps.len() > MAPS_MAX {
            return Err(ParseError::TooMany("counters.maps"));
        }
        let drop = |pb::DropCount { reason, meaning, packets }| {
            let (reason, meaning) = (cut(reason), cut(meaning));
            DropCount { reason, meaning, packets }
        };
        let map = |pb::MapFill { name, version, entries, capacity }| {
            let name = cut(name);
            MapFill { name, version, entries, capacity }
        };
        Ok(Self {
            drops: drops.into_iter().map(drop).collect(),
            traffic: Traffic { from_port_packets, from_port_bytes, to_port_packets, to_port_bytes },
            maps: maps.into_iter().map(map).collect(),
        })
    }
}
