//! Making the maps equal to the desired tables, entry by entry, in an order that opens nothing.
//!
//! Ports and their addresses that go, go first: at no moment may two ports use an address. Then
//! everything that comes is added, from the far end of a packet's way to the near: no packet
//! reaches a port whose peers are not there yet. Stations that go, go last: whoever moves from one
//! entry to another has one at any time. A port that keeps its key but becomes another port
//! (number, network or MAC) is removed and added: its old connections must not outlive it. One whose policy
//! changes while others become members is shut until both are there.

use crate::areas::Areas;
use crate::error::Error;
use crate::members::Members;
use crate::pinned::{Maps, PinnedMap};
use crate::tables::{Changes, Edits, Tables, Unsure};
use aya::Pod;
use packet::{
    Bucket, Budget, COUNTER_PLACES, Config, Plain, Port, PortKey, Traffic, Vtep, VtepKey,
};
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
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        /// Reads the tables back.
        pub(crate) fn read_back(maps: &Maps) -> Result<Tables, Error> {
            let mut tables = Tables { $($name: maps.$name.read()?,)* };
            // Which place and zone a port has is nobody's wish.
            tables.ports.values_mut().for_each(|port| *port = port.placed(0, 0));
            // Nor is which area a network has.
            tables.nets.values_mut().for_each(|net| *net = net.learning_in(0));
            // Nor are these, which follow from the ports and from the VTEPs.
            tables.flood.clear();
            tables.afar.clear();
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

/// What the map of ports holds: with places and zones.
pub(crate) type Ports = BTreeMap<PortKey, Port>;

/// The ports and the VTEPs, and what follows from them, kept in memory; and who has which area.
#[derive(Debug)]
pub(crate) struct Held {
    ports: Ports,
    members: Members<PortKey>,
    vteps: BTreeMap<VtepKey, Vtep>,
    afar: Members<VtepKey>,
    areas: Areas,
}

impl Held {
    /// What the maps hold.
    pub(crate) fn read(maps: &Maps) -> Result<Held, Error> {
        Ok(Held {
            ports: maps.ports.read()?,
            members: Members::read(maps)?,
            vteps: maps.vteps.read()?,
            afar: Members::read(maps)?,
            areas: Areas::of(&maps.nets.read()?),
        })
    }
}

/// Makes the maps hold `desired`, by reading them back and writing the difference.
pub(crate) fn reconcile(maps: &mut Maps, desired: &Tables) -> Result<Changes, Error> {
    fit(maps, desired)?;
    let mut edits = read_back(maps)?.edits_to(desired);
    let mut ports = maps.ports.read()?;
    let flooded = ports.iter().filter(|(_, port)| !port.waits());
    let members = Members::mend(maps, &flooded.map(|(key, port)| (*key, *port)).collect())?;
    let vteps = maps.vteps.read()?;
    let afar = Members::mend(maps, &vteps)?;
    let areas = Areas::of(&maps.nets.read()?);
    for key in displace(&mut ports) {
        edits.ports.entry(key).or_insert_with(|| desired.ports.get(&key).copied());
    }
    let changes = apply(maps, &mut Held { ports, members, vteps, afar, areas }, edits)?;
    log(&changes);
    Ok(changes)
}

/// Makes edits, and then a new epoch. `held` is what the maps hold, and is kept so; after an error
/// it must be read again.
pub(crate) fn apply(maps: &mut Maps, held: &mut Held, edits: Edits) -> Result<Changes, Error> {
    check(&held.ports, &edits)?;
    if edits.is_empty() {
        return Ok(Changes::default());
    }
    let are_members_others = !edits.idents.is_empty() || !edits.addrs.is_empty();
    let made = make(maps, held, edits);
    if are_members_others {
        // Before the epoch: what is decided in the new one is decided by the new members.
        maps.raise_members()?;
    }
    maps.raise_epoch()?;
    made
}

fn make(maps: &mut Maps, held: &mut Held, mut edits: Edits) -> Result<Changes, Error> {
    let mut changes = Changes::default();
    evict(maps, held, &mut edits, &mut changes)?;
    forget_vteps(maps, held, &edits)?;
    held.areas.give(&mut edits);
    let Held { ports, members, vteps, afar, .. } = held;
    remove(maps, &edits, Removed::First, &mut changes)?;
    if !changes.is_empty() {
        // What goes first must be gone, in the flow cache too, before anything comes.
        maps.raise_epoch()?;
    }
    place(maps, ports, &mut edits)?;
    begin_moves(maps, &edits)?;
    let unsure = edits.take_unsure(ports);
    bar(maps, &unsure)?;
    let added = add(maps, &edits, &mut changes);
    // Who is no member any more is none before what was said of them goes.
    let idents = std::mem::take(&mut edits.idents);
    changes.idents.removed = remove_from(&mut maps.idents, &idents)?;
    remove(maps, &edits, Removed::Last, &mut changes)?;
    edits.idents = idents;
    if added.is_err() {
        // A map that is nearly full has no room for both: by now what went has made some.
        add(maps, &edits, &mut changes)?;
    }
    unbar(maps, &unsure, &mut changes)?;
    edits.ports.extend(unsure.after);
    for (key, port) in edits.ports.iter().filter_map(|(key, port)| Some((*key, (*port)?))) {
        ports.insert(key, port);
        if !port.waits() {
            members.join(maps, key, &port)?;
        }
    }
    for (key, vtep) in edits.vteps.iter().filter_map(|(key, vtep)| Some((*key, (*vtep)?))) {
        vteps.insert(key, vtep);
        afar.join(maps, key, &vtep)?;
    }
    Ok(changes)
}

/// Lets nobody pass ports whose policy and members both become others.
fn bar(maps: &mut Maps, unsure: &Unsure) -> Result<(), Error> {
    if unsure.before.is_empty() {
        return Ok(());
    }
    add_to(&mut maps.ports, &unsure.before)?;
    maps.raise_epoch()
}

/// Gives them their new policies, which meet the new members alone.
fn unbar(maps: &mut Maps, unsure: &Unsure, changes: &mut Changes) -> Result<(), Error> {
    if unsure.after.is_empty() {
        return Ok(());
    }
    maps.raise_members()?;
    changes.ports.written += add_to(&mut maps.ports, &unsure.after)?;
    Ok(())
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

/// Whether it is the same port with perhaps another policy. `wanted` begins to wait as another one.
fn is_same_port(wanted: &Port, held: &Port) -> bool {
    let begins = wanted.waits() && !held.waits();
    !begins && wanted.number == held.number && wanted.net == held.net && wanted.mac == held.mac
}

/// Nobody has moved yet by the moves that come. Their words may be left from others with the same
/// numbers: of a database that was lost.
fn begin_moves(maps: &mut Maps, edits: &Edits) -> Result<(), Error> {
    let held = if edits.moves.is_empty() { BTreeMap::new() } else { maps.moves.read()? };
    for (station, moving) in &edits.moves {
        let Some(moving) = moving else { continue };
        if held.get(station).is_none_or(|held| held.number != moving.number) {
            maps.arrived.set(moving.place(), &0)?;
        }
    }
    Ok(())
}

/// Removes the ports that go or become other ports.
///
/// What such a port had in the common area of the connection table stays until it expires. It is
/// nobody's, as its zone never comes back.
fn evict(
    maps: &mut Maps,
    Held { ports, members, .. }: &mut Held,
    edits: &mut Edits,
    changes: &mut Changes,
) -> Result<(), Error> {
    for (key, wanted) in &edits.ports {
        let Some(port) = ports.get(key).copied() else { continue };
        if wanted.is_some_and(|wanted| is_same_port(&wanted, &port)) {
            continue;
        }
        members.leave(maps, *key, (port.net, ports))?;
        maps.ports.remove(key)?;
        ports.remove(key);
        changes.ports.removed += 1;
    }
    edits.ports.retain(|_, wanted| wanted.is_some());
    Ok(())
}

/// Floods nothing more to VTEPs that go or get another network.
fn forget_vteps(
    maps: &mut Maps,
    Held { vteps, afar, .. }: &mut Held,
    edits: &Edits,
) -> Result<(), Error> {
    for (key, wanted) in &edits.vteps {
        let Some(vtep) = vteps.get(key).copied() else { continue };
        if wanted.is_none_or(|wanted| wanted.net != vtep.net) {
            afar.leave(maps, *key, (vtep.net, vteps))?;
            vteps.remove(key);
        }
    }
    Ok(())
}

/// Takes their places from ports that share one with another port or have none, or no zone; which
/// ports these are. No agent writes such entries, but what is read back may be anybody's.
fn displace(held: &mut Ports) -> Vec<PortKey> {
    let mut taken = BTreeSet::from([0]);
    let mut displaced = Vec::new();
    for (key, port) in held {
        let place = port.place();
        if port.zone == 0 || place >= COUNTER_PLACES || !taken.insert(place) {
            *port = port.placed(0, 0);
            displaced.push(*key);
        }
    }
    displaced
}

/// Gives the ports to write a place and a zone each: those that a port has already, or a free
/// place, with its counters and its area of the connection table empty, and a zone that nobody has
/// had.
fn place(maps: &mut Maps, held: &Ports, edits: &mut Edits) -> Result<(), Error> {
    if edits.ports.is_empty() {
        return Ok(());
    }
    let mut taken: BTreeSet<u32> = held.values().map(Port::place).collect();
    for (key, wanted) in &mut edits.ports {
        let Some(port) = wanted else { continue };
        let (place, zone) = match held.get(key).map_or((0, 0), |port| (port.place(), port.zone)) {
            // None yet.
            (0, _) => {
                let free = (1..COUNTER_PLACES).find(|place| !taken.contains(place)).unwrap_or(0);
                empty_place(maps, free)?;
                (free, new_zone(maps)?)
            }
            has => has,
        };
        taken.insert(place);
        *port = port.placed(u16::try_from(place).unwrap_or(0), zone);
    }
    Ok(())
}

/// Empties the counters and the area of a place.
fn empty_place(maps: &mut Maps, place: u32) -> Result<(), Error> {
    maps.traffic.set(place, &Traffic::default())?;
    maps.crowded.set(place, &0)?;
    maps.budgets.set(place, &Budget::default())?;
    maps.requests.set(place, &Budget::default())?;
    maps.floods.set(place, &Budget::default())?;
    for bucket in maps.config()?.area(place) {
        maps.conntrack.set(bucket, &Bucket::default())?;
    }
    Ok(())
}

/// A zone that nobody has had.
fn new_zone(maps: &mut Maps) -> Result<u32, Error> {
    let config = maps.config()?;
    // Noted before it is used: if this is cut short, the zone is lost and not given twice.
    let zone = config.last_zone.wrapping_add(1).max(1);
    maps.set_config(Config { last_zone: zone, ..config })?;
    Ok(zone)
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
    tracing::debug!(written = sum.written, removed = sum.removed, "maps changed");
}
