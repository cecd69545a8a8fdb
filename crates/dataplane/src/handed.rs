//! Connections of a port that go along with it to another host.
//!
//! They are written by user space into the port's own area and nowhere else: what a port brings costs
//! no other one anything, and what finds no room there is left behind. While the port waits for its
//! first frame here no program works on that area. Afterwards only what the programs do not know is
//! added; a program that writes the same bucket at that very moment may lose a step of one connection
//! of this port, which the next packet makes up for.
//!
//! The other host is not believed more than needed: of each connection the policy here is asked with
//! its next packet.

use crate::counters::monotonic_ns;
use crate::error::Error;
use crate::pinned::Maps;
use packet::{
    Addr, Config, CtSlot, CtState, CtWord, Direction, Homes, Port, TIMEOUTS_COUNT, WAYS, WAYS_EACH,
    homes, tick, ticks,
};

/// A connection as its port sees it, without what is another thing on each host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandedConnection {
    /// The port's address.
    pub local: Addr,
    /// The other end's.
    pub remote: Addr,
    /// The port's L4 port.
    pub local_port: u16,
    /// The other end's.
    pub remote_port: u16,
    /// The protocol's number.
    pub protocol: u8,
    /// The number of a [`CtState`].
    pub state: u8,
    /// Whether the other end opened it.
    pub by_other: bool,
    /// Whether its opening was not seen.
    pub picked_up: bool,
    /// How long it lives without another packet.
    pub seconds_left: u32,
    /// The network that its opening packet came from.
    pub source_net: u32,
}

/// Where the connections of a port are, also when the port has just left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortArea {
    zone: u32,
    place: u32,
}

/// What became of connections that were taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Those that are there now.
    pub taken: u32,
    /// Those that found no room, or made no sense.
    pub lost: u32,
}

/// Whether the programs work on the connections of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The port waits: what comes later is newer.
    Waits,
    /// It is in use: the programs know better.
    Live,
}

/// Where the connections of the port with this number are, if it is there.
pub(crate) fn area(maps: &Maps, number: u32) -> Result<Option<PortArea>, Error> {
    let port = port(maps, number)?;
    Ok(port.map(|port| PortArea { zone: port.zone, place: port.place() }))
}

fn port(maps: &Maps, number: u32) -> Result<Option<Port>, Error> {
    let found = maps.ports.read()?.into_values().find(|port| port.number == number);
    Ok(found.filter(|port| port.place() != 0))
}

/// The connections that are there, in the port's own area and, if some were put there, in the common
/// one.
pub(crate) fn read(maps: &Maps, area: PortArea) -> Result<Vec<HandedConnection>, Error> {
    let (config, now) = (maps.config()?, tick(monotonic_ns()));
    let mut found = Vec::new();
    let mut note = |number: u32| {
        let bucket = maps.conntrack.get(number)?;
        for (word, slot) in bucket.words.iter().map(|word| CtWord(*word)).zip(&bucket.slots) {
            let is_ours = slot.zone == area.zone && slot.allowed == CtSlot::ALLOWED;
            if is_ours && word.is_live(now) {
                found.push(handed(slot, word, now));
            }
        }
        Ok::<_, Error>(bucket.spilled_until >= now)
    };
    let mut has_spilled = false;
    for number in config.area(area.place) {
        has_spilled |= note(number)?;
    }
    if has_spilled {
        for number in 0..config.common_buckets {
            note(number)?;
        }
    }
    Ok(found)
}

fn handed(slot: &CtSlot, word: CtWord, now: u64) -> HandedConnection {
    HandedConnection {
        local: slot.local,
        remote: slot.remote,
        local_port: slot.local_port,
        remote_port: slot.remote_port,
        protocol: slot.protocol,
        state: word.state(),
        by_other: word.initiator() == Direction::ToPort,
        picked_up: word.picked_up(),
        seconds_left: u32::try_from(word.seconds_left(now)).unwrap_or(u32::MAX),
        source_net: slot.source_net,
    }
}

/// Puts connections into the area of the port with this number.
pub(crate) fn take(
    maps: &mut Maps,
    (number, usage): (u32, Use),
    connections: &[HandedConnection],
) -> Result<TakenOver, Error> {
    let mut done = TakenOver::default();
    let Some(port) = port(maps, number)? else {
        done.lost = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        return Ok(done);
    };
    let config = maps.config()?;
    // Whatever the other host says, none lives longer than one that is used here.
    let times = (0..TIMEOUTS_COUNT).map(|number| maps.timeouts.get(number));
    let longest = times.collect::<Result<Vec<u32>, Error>>()?.into_iter().max().unwrap_or(0);
    for connection in connections {
        match put(maps, (&config, &port, usage, longest), connection)? {
            true => done.taken += 1,
            false => done.lost += 1,
        }
    }
    Ok(done)
}

fn put(
    maps: &mut Maps,
    (config, port, usage, longest): (&Config, &Port, Use, u32),
    connection: &HandedConnection,
) -> Result<bool, Error> {
    let now = tick(monotonic_ns());
    let (slot, Some(word)) = (slot(port, connection), word(connection, now, longest)) else {
        return Ok(false);
    };
    let Some(Homes { own, by_peer, .. }) = homes(config, &slot.key(), port.place()) else {
        return Ok(false);
    };
    let word = by_peer.0 | word.0;
    let [first, second] = own;
    let buckets = if first == second { &own[..1] } else { &own[..] };
    let is_here = |at: usize, bucket: &packet::Bucket| {
        CtWord(bucket.words[at]).is_live(now) && bucket.slots[at].has(&slot.key())
    };
    for number in buckets {
        let mut bucket = maps.conntrack.get(*number)?;
        let Some(way) = (0..WAYS).find(|way| is_here(*way, &bucket)) else { continue };
        if usage == Use::Waits {
            (bucket.words[way], bucket.slots[way]) = (word, slot);
            maps.conntrack.set(*number, &bucket)?;
        }
        return Ok(true);
    }
    // As the programs do it: each side from its own end.
    let each = usize::try_from(WAYS_EACH).unwrap_or(WAYS);
    let ways: Vec<usize> = match connection.by_other {
        false => (WAYS - each..WAYS).rev().collect(),
        true => (0..each).collect(),
    };
    for number in buckets {
        let mut bucket = maps.conntrack.get(*number)?;
        let is_free = |way: &&usize| CtWord(bucket.words[**way]).is_over(now);
        let Some(way) = ways.iter().find(is_free).copied() else { continue };
        (bucket.words[way], bucket.slots[way]) = (word, slot);
        maps.conntrack.set(*number, &bucket)?;
        return Ok(true);
    }
    Ok(false)
}

fn slot(port: &Port, connection: &HandedConnection) -> CtSlot {
    CtSlot {
        local: connection.local,
        remote: connection.remote,
        zone: port.zone,
        local_port: connection.local_port,
        remote_port: connection.remote_port,
        protocol: connection.protocol,
        allowed: CtSlot::ALLOWED,
        // None that the port has: its next packet asks the policy anew.
        generation: port.generation.wrapping_sub(1),
        // Nor one that anybody has: the lowest bits of an identity are zero.
        identity: !port.generation,
        source_net: connection.source_net,
        ..CtSlot::default()
    }
}

/// Its word, as far as it does not depend on where it is; `None` if it makes no sense.
fn word(connection: &HandedConnection, now: u64, longest: u32) -> Option<CtWord> {
    let state = CtState::from_number(connection.state)?;
    if matches!(state, CtState::Free | CtState::Taken) {
        return None;
    }
    let opener = if connection.by_other { Direction::ToPort } else { Direction::FromPort };
    let left = ticks(connection.seconds_left.into()).min(longest.into());
    let word = CtWord(0).with_state(state).opened(opener).until(now + left);
    Some(if connection.picked_up { word.with_picked_up() } else { word })
}
