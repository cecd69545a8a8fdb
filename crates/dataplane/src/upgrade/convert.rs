//! What maps of other versions say, in the words of ours: one line for each version that can be
//! converted. Whatever is not listed is lost: there is no way back from a version that this one
//! does not know.
//!
//! Filled maps need none: the agent knows what they hold. But of a port only its map knows the
//! place and the zone.
//!
//! Version 3 is that of the connection table with an index (`ct`, `ct_slots`), where a port's zone
//! was its number and each connection had the time of its last packet.

use super::Untold;
use crate::error::Error;
use crate::pinned::failed;
use crate::reconcile::Ports;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use packet::{Addr, Config, CtSlot, CtState, CtWord, Direction, Mac, Plain, Port, PortKey, tick};
use std::path::{Path, PathBuf};

/// The ports of a version.
pub(super) fn ports(version: u32, pin: &Path) -> Result<Ports, Untold> {
    match version {
        3 => Ok(entries(pin)?
            .map(|(key, port)| (PortKey::from_bytes(&key), port_3(&port)))
            .collect()),
        // In 4 none of them moves.
        4 | 7 => Ok(entries(pin)?
            .map(|(key, port)| (PortKey::from_bytes(&key), port_4(&port)))
            .collect()),
        _ => Err(unknown("ports", version)),
    }
}

/// The configuration of a version. Without areas, if the table is another one.
pub(super) fn config(version: u32, pin: &Path) -> Result<Config, Untold> {
    match version {
        3 => Ok(config_3(&single(pin)?)),
        4 => Ok(config_4(&single(pin)?)),
        5 => Ok(config_5(&single(pin)?)),
        _ => Err(unknown("config", version)),
    }
}

/// The configuration of this version.
pub(super) fn current_config(pin: &Path) -> Result<Config, Error> {
    Ok(Config::from_bytes(&single(pin)?))
}

/// The connection table of a version.
pub(super) struct Connections {
    pin: PathBuf,
}

impl Connections {
    /// Where a version has it.
    pub(super) fn of(version: u32, pin: &Path) -> Result<Connections, Untold> {
        match version {
            3 => Ok(Connections { pin: pin.to_owned() }),
            _ => Err(unknown("conntrack", version)),
        }
    }

    /// Every connection that is live now, in nanoseconds of the monotonic clock; the word says
    /// nothing of where it is.
    pub(super) fn each(
        &self,
        now_ns: u64,
        mut with: impl FnMut(CtSlot, CtWord),
    ) -> Result<(), Error> {
        let table = array::<[u8; 64]>(&self.pin)?;
        for number in 0..table.len() {
            let bytes = table.get(&number, 0).map_err(failed(NAME, "read"))?;
            if let Some((slot, word)) = connection_3(&bytes, now_ns) {
                with(slot, word);
            }
        }
        Ok(())
    }
}

fn unknown(map: &str, version: u32) -> Untold {
    Untold::Lost(format!("version {version} of the map {map} is not known here"))
}

/// What errors call a map of another version.
const NAME: &str = "of another version";

fn open(pin: &Path) -> Result<Map, Error> {
    Map::from_map_data(MapData::from_pin(pin).map_err(failed(NAME, "open"))?)
        .map_err(failed(NAME, "open"))
}

fn array<V: Pod>(pin: &Path) -> Result<Array<MapData, V>, Error> {
    Array::try_from(open(pin)?).map_err(failed(NAME, "open"))
}

fn single<const N: usize>(pin: &Path) -> Result<[u8; N], Error>
where
    [u8; N]: Pod,
{
    array(pin)?.get(&0, 0).map_err(failed(NAME, "read"))
}

fn entries<K: Pod, V: Pod>(pin: &Path) -> Result<impl Iterator<Item = (K, V)>, Error> {
    let map: HashMap<MapData, K, V> =
        HashMap::try_from(open(pin)?).map_err(failed(NAME, "open"))?;
    let all: Result<Vec<(K, V)>, _> = map.iter().collect();
    Ok(all.map_err(failed(NAME, "read"))?.into_iter())
}

/// The name that a map of a data plane from before maps had versions would have now.
pub(super) fn base(name: &str) -> &str {
    if name == "ct_slots" { "conntrack" } else { name }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// number, net, generation, budget: 4 bytes each; MAC: 6; flags and place, as they are: 2.
fn port_3(bytes: &[u8; 24]) -> Port {
    let number = u32_at(bytes, 0);
    Port {
        number,
        net: u32_at(bytes, 4),
        generation: u32_at(bytes, 8),
        zone: number,
        mac: Mac(piece(bytes, 16)),
        flags: u16_at(bytes, 22),
        ..Port::default()
    }
}

/// number, net, generation, zone: 4 bytes each; MAC: 6; flags and place, as they are: 2.
fn port_4(bytes: &[u8; 24]) -> Port {
    // That version had a zone in the place of the budget, and nothing else that was new.
    Port { zone: u32_at(bytes, 12), ..port_3(bytes) }
}

/// Interface of the tunnel device, connections: 4 bytes each.
fn config_3(bytes: &[u8; 8]) -> Config {
    Config { tunnel_ifindex: u32_at(bytes, 0), ..Config::default() }
}

/// Interface of the tunnel device, last zone, common buckets, buckets of a port: 4 bytes each;
/// seed: 8.
fn config_4(bytes: &[u8; 24]) -> Config {
    Config {
        tunnel_ifindex: u32_at(bytes, 0),
        last_zone: u32_at(bytes, 4),
        common_buckets: u32_at(bytes, 8),
        port_buckets: u32_at(bytes, 12),
        seed: u64::from_ne_bytes(piece(bytes, 16)),
        ..Config::default()
    }
}

/// As version 4; then epoch, port of direct frames: 4 bytes each.
fn config_5(bytes: &[u8; 32]) -> Config {
    let mut before = [0; 24];
    before.copy_from_slice(&bytes[..24]);
    let (epoch, direct_port) = (u32_at(bytes, 24), u32_at(bytes, 28));
    Config { epoch, direct_port, ..config_4(&before) }
}

/// Time of the last packet in nanoseconds: 8; port: 4; own address, the other end's: 16 each; own
/// L4 port, the other end's: 2 each; protocol: 1, padding: 3; state, who opened it, allowed, turn:
/// 1 each; generation, network of whoever opened it: 4 each.
fn connection_3(bytes: &[u8; 64], now_ns: u64) -> Option<(CtSlot, CtWord)> {
    let [protocol, state, initiator, allowed] = [48, 52, 53, 54].map(|at| bytes[at]);
    // What that version called it, and how many seconds it lived without another packet.
    let (state, seconds) = match (state, protocol) {
        (1, TCP) => (CtState::Opening, 120),
        (2, TCP) => (CtState::Established, 7_440),
        (3, TCP) => (CtState::Closing, 240),
        (4, TCP) => (CtState::Ending, 240),
        (5, TCP) => (CtState::Closed, 10),
        (1, UDP) => (CtState::Opening, 30),
        (2, UDP) => (CtState::Established, 120),
        (1, _) => (CtState::Opening, 30),
        (2, _) => (CtState::Established, 30),
        _ => return None,
    };
    let until = u64::from_ne_bytes(piece(bytes, 0)).saturating_add(seconds * 1_000_000_000);
    if allowed != 1 || until < now_ns {
        return None;
    }
    let opened = match initiator {
        2 => Direction::ToPort,
        _ => Direction::FromPort,
    };
    let mut slot = CtSlot {
        local: Addr::v6(piece(bytes, 12)),
        remote: Addr::v6(piece(bytes, 28)),
        zone: u32_at(bytes, 8),
        local_port: u16_at(bytes, 44),
        remote_port: u16_at(bytes, 46),
        protocol,
        allowed,
        generation: u32_at(bytes, 56),
        source_net: u32_at(bytes, 60),
        ..CtSlot::default()
    };
    if protocol == ICMP || protocol == ICMPV6 {
        // It had the identifier as the port of both ends; now whoever asks has it.
        match opened {
            Direction::FromPort => slot.remote_port = 0,
            Direction::ToPort => slot.local_port = 0,
        }
    }
    Some((slot, CtWord(0).with_state(state).opened(opened).until(tick(until))))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(piece(bytes, at))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(piece(bytes, at))
}

fn piece<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut piece = [0; N];
    piece.copy_from_slice(&bytes[at..at + N]);
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_keeps_areas_seed_and_zones() {
        let now = Config {
            tunnel_ifindex: 1,
            last_zone: 2,
            common_buckets: 3,
            port_buckets: 4,
            seed: 5,
            ..Config::default()
        };
        let mut bytes = [0; 24];
        bytes.copy_from_slice(&now.to_bytes()[..24]);
        assert_eq!(config_4(&bytes), now, "version 5 has added fields behind");
        let now = Config { epoch: 6, direct_port: 7, ..now };
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&now.to_bytes()[..32]);
        assert_eq!(config_5(&bytes), now, "version 8 has added more of them");
    }

    const NOW: u64 = 10_000_000_000_000;

    /// Seen `seconds` ago: protocol, state, who opened it, allowed or not.
    fn connection(seconds: u64, [protocol, state, initiator, allowed]: [u8; 4]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&(NOW - seconds * 1_000_000_000).to_ne_bytes());
        bytes[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[44..46].copy_from_slice(&51_u16.to_ne_bytes());
        bytes[46..48].copy_from_slice(&52_u16.to_ne_bytes());
        (bytes[48], bytes[52], bytes[53], bytes[54]) = (protocol, state, initiator, allowed);
        bytes
    }

    #[test]
    fn connections_of_version_3_keep_state_opener_and_age() {
        use CtState::{Closed, Ending, Established, Opening};
        let to_port = Direction::ToPort;
        let from_port = Direction::FromPort;
        let cases = [
            (100, [TCP, 2, 1, 1], Some((Established, from_port, (51, 52)))),
            (7_441, [TCP, 2, 1, 1], None),
            (9, [TCP, 5, 2, 1], Some((Closed, to_port, (51, 52)))),
            (1, [TCP, 4, 1, 1], Some((Ending, from_port, (51, 52)))),
            (1, [TCP, 6, 1, 1], None),
            (1, [TCP, 2, 1, 0], None),
            (31, [UDP, 1, 2, 1], None),
            (29, [UDP, 1, 2, 1], Some((Opening, to_port, (51, 52)))),
            (1, [ICMP, 2, 1, 1], Some((Established, from_port, (51, 0)))),
            (1, [ICMPV6, 2, 2, 1], Some((Established, to_port, (0, 52)))),
        ];
        for (seconds, what, expected) in cases {
            let found = connection_3(&connection(seconds, what), NOW).map(|(slot, word)| {
                assert!(word.is_live(tick(NOW)), "{what:?}");
                assert_eq!(slot.zone, 7);
                let state = CtState::from_number(word.state()).unwrap();
                (state, word.initiator(), (slot.local_port, slot.remote_port))
            });
            assert_eq!(found, expected, "{seconds} {what:?}");
        }
    }

    #[test]
    fn a_port_of_version_3_keeps_its_place_and_has_its_number_as_zone() {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&9_u32.to_ne_bytes());
        bytes[22..].copy_from_slice(&(5_u16 << 1 | Port::PEER).to_ne_bytes());
        let port = port_3(&bytes);
        assert_eq!((port.number, port.zone, port.place()), (9, 9, 5));
        assert_eq!(port.flags & Port::PEER, Port::PEER);
    }

    #[test]
    fn a_port_of_version_7_keeps_place_and_zone_and_has_no_policy() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let now =
            Port { number: 9, net: 2, generation: 3, mac, flags: Port::MOVES, ..Port::default() };
        let now = now.placed(5, 7);
        let mut bytes = [0; 24];
        bytes.copy_from_slice(&now.to_bytes()[..24]);
        assert_eq!(port_4(&bytes), now);
    }
}
