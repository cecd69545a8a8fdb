//! Making the maps equal to the desired tables, entry by entry, in an order that opens nothing.
//!
//! Ports and their addresses that go, go first: at no moment may two ports use an address. Then
//! everything that comes is added, from the far end of a packet's way to the near: no packet
//! reaches a port whose peers are not there yet. Stations that go, go last: whoever moves from one
//! entry to another has one at any time. A port that keeps its key but becomes another port
//! (number, network or MAC) is removed and added: its old connections must not outlive it.

use crate::error::Error;
use crate::pinned::{Maps, PinnedMap};
use crate::tables::{Changes, Edits, Tables};
use aya::Pod;
use packet::{COUNTER_PLACES, CtSlot, CtState, Plain, Port, PortKey, Traffic};
use std::collections::{BTreeMap, BTreeSet};

/// When entries that go are removed: before others are added, or after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removed {
    First,
    Last,
}

/// What is done with each filled map.
macro_rules! each {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident: $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        /// Reads the tables back.
        pub(crate) fn read_back(maps: &Maps) -> Result<Tables, Error> {
            let mut tables = Tables { $($name: maps.$name.read()?,)* };
            // Where a port's counters are is nobody's wish.
            tables.ports.values_mut().for_each(|port| *port = port.placed(0));
            Ok(tables)
        }

        /// Whether the maps have room for these tables.
        fn fit(maps: &Maps, desired: &Tables) -> Result<(), Error> {
            $(fits(&maps.$name, desired.$name.len())?;)*
            Ok(())
        }

        /// Adds and overwrites.
        fn add(maps: &mut Maps, edits: &Edits, changes: &mut Changes) -> Result<(), Error> {
            $(changes.$name.written = add_to(&mut maps.$name, &edits.$name)?;)*
            Ok(())
        }

        /// Removes from the maps whose turn it is.
        fn remove(
            maps: &mut Maps,
            edits: &Edits,
            when: Removed,
            changes: &mut Changes,
        ) -> Result<(), Error> {
            $(if when == Removed::$when {
                changes.$name.removed += remove_from(&mut maps.$name, &edits.$name)?;
            })*
            Ok(())
        }
    };
}
packet::maps!(each);

/// What the map of ports holds, kept in memory: with the places of the counters.
pub(crate) type Ports = BTreeMap<PortKey, Port>;

/// Makes the maps hold `desired`, by reading them back and writing the difference.
pub(crate) fn reconcile(maps: &mut Maps, desired: &Tables) -> Result<Changes, Error> {
    fit(maps, desired)?;
    let edits = read_back(maps)?.edits_to(desired);
    let mut ports = maps.ports.read()?;
    let mut changes = apply(maps, &mut ports, edits)?;
    // Counts without a port tell of a change that was cut short.
    let numbers: BTreeSet<u32> = desired.ports.values().map(|port| port.number).collect();
    let left = maps.ct_used.keys()?.into_iter().filter(|number| !numbers.contains(number));
    changes.connections_purged += forget(maps, &left.collect())?;
    for number in numbers {
        prepare_port(maps, number)?;
    }
    log(&changes);
    Ok(changes)
}

/// Makes edits. `ports` is what the map of ports holds, and is kept so; after an error it must be
/// read again.
pub(crate) fn apply(
    maps: &mut Maps,
    ports: &mut Ports,
    mut edits: Edits,
) -> Result<Changes, Error> {
    check(ports, &edits)?;
    let mut changes = Changes::default();
    changes.connections_purged = evict(maps, ports, &mut edits, &mut changes)?;
    remove(maps, &edits, Removed::First, &mut changes)?;
    place(maps, ports, &mut edits)?;
    let added = add(maps, &edits, &mut changes);
    remove(maps, &edits, Removed::Last, &mut changes)?;
    if added.is_err() {
        // A map that is nearly full has no room for both: by now what went has made some.
        add(maps, &edits, &mut changes)?;
    }
    ports.extend(edits.ports.iter().filter_map(|(key, port)| Some((*key, (*port)?))));
    Ok(changes)
}

/// Refuses what no packet could be decided by.
fn check(held: &Ports, edits: &Edits) -> Result<(), Error> {
    let mut numbers = BTreeSet::new();
    let stay = held.iter().filter(|(key, _)| !edits.ports.contains_key(key));
    numbers.extend(stay.map(|(_, port)| port.number));
    for (key, port) in &edits.ports {
        let Some(port) = port else { continue };
        if key.ifindex == 0 || port.number == 0 || port.net == 0 {
            return Err(Error::BadTable(format!(
                "port {} on interface {} in network {}: none of these may be 0",
                port.number, key.ifindex, port.net
            )));
        }
        if !numbers.insert(port.number) {
            return Err(Error::BadTable(format!("two ports have the number {}", port.number)));
        }
    }
    let nowhere = |vtep: &Option<packet::Vtep>| vtep.is_some_and(|vtep| vtep.net == 0);
    if let Some((key, _)) = edits.vteps.iter().find(|(_, vtep)| nowhere(vtep)) {
        return Err(Error::BadTable(format!("VNI {} leads to network 0", key.vni)));
    }
    Ok(())
}

fn fits<K, V>(table: &PinnedMap<K, V>, wanted: usize) -> Result<(), Error>
where
    K: Plain + Ord,
    V: Plain,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    if wanted <= table.limit() {
        return Ok(());
    }
    Err(Error::MapFull { map: table.name(), wanted, limit: table.limit() })
}

/// Whether it is the same port with perhaps another policy.
fn is_same_port(a: &Port, b: &Port) -> bool {
    a.number == b.number && a.net == b.net && a.mac == b.mac
}

/// Removes the ports that go or become other ports, with their connections; how many of those.
fn evict(
    maps: &mut Maps,
    held: &mut Ports,
    edits: &mut Edits,
    changes: &mut Changes,
) -> Result<usize, Error> {
    let mut gone = BTreeSet::new();
    for (key, wanted) in &edits.ports {
        let Some(port) = held.get(key).copied() else { continue };
        if wanted.is_some_and(|wanted| is_same_port(&wanted, &port)) {
            continue;
        }
        maps.ports.remove(key)?;
        held.remove(key);
        changes.ports.removed += 1;
        gone.insert(port.number);
    }
    edits.ports.retain(|_, wanted| wanted.is_some());
    forget(maps, &gone)
}

/// Drops the connections and counters of ports that are not there any more.
fn forget(maps: &mut Maps, gone: &BTreeSet<u32>) -> Result<usize, Error> {
    if gone.is_empty() {
        return Ok(0);
    }
    let mut purged = 0;
    for (key, slot) in maps.ct.read()?.iter().filter(|(key, _)| gone.contains(&key.port)) {
        maps.ct.remove(key)?;
        // The slot too, while the port still has its count: a port of the same number may come
        // back, with a count of 0 that a left slot would later take below.
        if maps.ct_slots.get(*slot)?.key == *key {
            maps.ct_slots.set(*slot, &CtSlot::default())?;
        }
        purged += 1;
    }
    for number in gone {
        maps.ct_used.remove(number)?;
    }
    Ok(purged)
}

/// Writes how many slots each port really holds, where the count says otherwise. A count that
/// moves meanwhile is left for another time: its changes would be lost.
pub(crate) fn recount(maps: &mut Maps) -> Result<(), Error> {
    let before = maps.ct_used.read()?;
    let mut used: BTreeMap<u32, i64> = BTreeMap::new();
    for number in 0..maps.ct_slots.limit() {
        let slot = maps.ct_slots.get(number)?;
        if slot.state != CtState::Free as u8 {
            *used.entry(slot.key.port).or_default() += 1;
        }
    }
    for (port, counted) in maps.ct_used.read()? {
        let real = used.get(&port).copied().unwrap_or_default();
        if counted != real && before.get(&port) == Some(&counted) {
            maps.ct_used.insert(&port, &real)?;
        }
    }
    Ok(())
}

/// Gives the ports to write a place for their counters each: the one that a port has already, or
/// a free one, set to zero.
fn place(maps: &mut Maps, held: &Ports, edits: &mut Edits) -> Result<(), Error> {
    if edits.ports.is_empty() {
        return Ok(());
    }
    let mut taken: BTreeSet<u32> = held.values().map(Port::place).collect();
    for (key, wanted) in &mut edits.ports {
        let Some(port) = wanted else { continue };
        prepare_port(maps, port.number)?;
        let free = || (1..COUNTER_PLACES).find(|place| !taken.contains(place)).unwrap_or(0);
        let place = match held.get(key).map_or(0, Port::place) {
            // None yet.
            0 => {
                let place = free();
                maps.traffic.set(place, &Traffic::default())?;
                place
            }
            place => place,
        };
        taken.insert(place);
        *port = port.placed(u16::try_from(place).unwrap_or(0));
    }
    Ok(())
}

/// Makes the count of a port's connections, unless it is there. No connection opens without it.
pub(crate) fn prepare_port(maps: &mut Maps, number: u32) -> Result<(), Error> {
    if maps.ct_used.get(&number)?.is_some() {
        return Ok(());
    }
    maps.ct_used.insert(&number, &0)
}

fn add_to<K, V>(table: &mut PinnedMap<K, V>, edits: &BTreeMap<K, Option<V>>) -> Result<usize, Error>
where
    K: Plain + Ord,
    V: Plain,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    let mut written = 0;
    for (key, value) in edits.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        table.insert(key, value)?;
        written += 1;
    }
    Ok(written)
}

fn remove_from<K, V>(
    table: &mut PinnedMap<K, V>,
    edits: &BTreeMap<K, Option<V>>,
) -> Result<usize, Error>
where
    K: Plain + Ord,
    V: Plain,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    let mut removed = 0;
    for (key, _) in edits.iter().filter(|(_, value)| value.is_none()) {
        table.remove(key)?;
        removed += 1;
    }
    Ok(removed)
}

fn log(changes: &Changes) {
    if changes.is_empty() {
        return;
    }
    let sum = changes.sum();
    tracing::debug!(
        written = sum.written,
        removed = sum.removed,
        connections_purged = changes.connections_purged,
        "maps changed"
    );
}
