//! Making the maps equal to the desired tables, by reading back and writing the difference.
//!
//! Removes go first, from the near end to the far (ports, addresses, stations, VTEPs), then adds
//! from the far end to the near. Nothing that stays is removed, so removing first costs nothing;
//! and at no moment may two ports use an address, or a packet reach a port whose peers are not
//! there yet. A port that keeps its key but becomes another port (number, network or MAC) is
//! removed and added: its old connections must not outlive it.

use crate::error::Error;
use crate::pinned::{Maps, PinnedMap, failed};
use crate::tables::{Change, Changes, Tables};
use aya::Pod;
use aya::maps::PerCpuValues;
use packet::{Bucket, COUNTER_PLACES, Config, Plain, Port, PortKey, Traffic};
use std::collections::{BTreeMap, BTreeSet};

/// Reads the tables back.
pub(crate) fn read_back(maps: &Maps) -> Result<Tables, Error> {
    let ports = maps.ports.read()?.into_iter();
    Ok(Tables {
        ports: ports.map(|(key, port)| (key, port.placed(0, 0))).collect(),
        addrs: maps.addrs.read()?.into_keys().collect(),
        fdb: maps.fdb.read()?,
        neigh: maps.neigh.read()?,
        vteps: maps.vteps.read()?,
    })
}

/// Makes the maps hold `desired`.
pub(crate) fn reconcile(maps: &mut Maps, desired: &Tables) -> Result<Changes, Error> {
    check(maps, desired)?;
    let actual = read_back(maps)?;
    let mut changes = Changes::default();
    let addrs_desired = with_ones(&desired.addrs);
    let addrs_actual = with_ones(&actual.addrs);

    let kept = |key: &PortKey, port: &Port| {
        desired.ports.get(key).is_some_and(|wanted| is_same_port(wanted, port))
    };
    for (key, _) in actual.ports.iter().filter(|(key, port)| !kept(key, port)) {
        maps.ports.remove(key)?;
        changes.ports.removed += 1;
    }
    changes.addrs.removed = remove_rest(&mut maps.addrs, &addrs_actual, &addrs_desired)?;
    changes.neigh.removed = remove_rest(&mut maps.neigh, &actual.neigh, &desired.neigh)?;
    changes.fdb.removed = remove_rest(&mut maps.fdb, &actual.fdb, &desired.fdb)?;
    changes.vteps.removed = remove_rest(&mut maps.vteps, &actual.vteps, &desired.vteps)?;

    changes.vteps.written = write(&mut maps.vteps, &actual.vteps, &desired.vteps)?;
    changes.fdb.written = write(&mut maps.fdb, &actual.fdb, &desired.fdb)?;
    changes.neigh.written = write(&mut maps.neigh, &actual.neigh, &desired.neigh)?;
    changes.addrs.written = write(&mut maps.addrs, &addrs_actual, &addrs_desired)?;
    let left = maps.ports.read()?;
    let placed = place_ports(maps, &left, &desired.ports)?;
    changes.ports.written = write(&mut maps.ports, &left, &placed)?;
    log(&changes);
    Ok(changes)
}

/// Refuses tables that do not fit or that no packet could be decided by.
fn check(maps: &Maps, desired: &Tables) -> Result<(), Error> {
    fits(&maps.ports, desired.ports.len())?;
    fits(&maps.addrs, desired.addrs.len())?;
    fits(&maps.fdb, desired.fdb.len())?;
    fits(&maps.neigh, desired.neigh.len())?;
    fits(&maps.vteps, desired.vteps.len())?;
    let mut numbers = BTreeSet::new();
    for (key, port) in &desired.ports {
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
    if let Some((key, _)) = desired.vteps.iter().find(|(_, vtep)| vtep.net == 0) {
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

/// The ports with a place and a zone each: those that a port has already, or a free place, with
/// its counters and its area of the connection table empty, and a zone that nobody has had.
///
/// What a port that is gone had in the common area stays until it expires. It is nobody's, as its
/// zone never comes back.
fn place_ports(
    maps: &mut Maps,
    left: &BTreeMap<PortKey, Port>,
    desired: &BTreeMap<PortKey, Port>,
) -> Result<BTreeMap<PortKey, Port>, Error> {
    let mut taken = BTreeSet::from([0]);
    let mut placed = BTreeMap::new();
    let mut homeless = Vec::new();
    for (key, port) in desired {
        let (place, zone) = left.get(key).map_or((0, 0), |port| (port.place(), port.zone));
        match u16::try_from(place) {
            Ok(fits) if zone != 0 && place < COUNTER_PLACES && taken.insert(fits) => {
                placed.insert(*key, port.placed(fits, zone));
            }
            _ => homeless.push((key, port)),
        }
    }
    let mut free = (1..=u16::MAX).filter(|place| !taken.contains(place));
    for (key, port) in homeless {
        let place = free.next().unwrap_or(0);
        empty_place(maps, place.into())?;
        let config = maps.config()?;
        // Noted before it is used: if this is cut short, the zone is lost and not given twice.
        let zone = config.last_zone.wrapping_add(1).max(1);
        maps.set_config(Config { last_zone: zone, ..config })?;
        placed.insert(*key, port.placed(place, zone));
    }
    Ok(placed)
}

/// Empties the counters and the area of a place.
fn empty_place(maps: &mut Maps, place: u32) -> Result<(), Error> {
    let zeroes = vec![Traffic::default().to_bytes(); cpus()?];
    let zeroes = PerCpuValues::try_from(zeroes).map_err(|cause| cpu_failure(&cause))?;
    maps.traffic.set(place, zeroes, 0).map_err(failed("traffic", "write"))?;
    for bucket in maps.config()?.area(place) {
        maps.conntrack.set(bucket, &Bucket::default())?;
    }
    Ok(())
}

fn cpus() -> Result<usize, Error> {
    aya::util::nr_cpus().map_err(|(_, cause)| cpu_failure(&cause))
}

fn cpu_failure(cause: &std::io::Error) -> Error {
    Error::Map { map: "traffic", action: "write", cause: cause.to_string() }
}

fn with_ones<K: Ord + Copy>(keys: &BTreeSet<K>) -> BTreeMap<K, u32> {
    keys.iter().map(|key| (*key, 1)).collect()
}

/// Removes what is not desired under its key.
fn remove_rest<K, V>(
    table: &mut PinnedMap<K, V>,
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> Result<usize, Error>
where
    K: Plain + Ord,
    V: Plain,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    let mut removed = 0;
    for key in actual.keys().filter(|key| !desired.contains_key(*key)) {
        table.remove(key)?;
        removed += 1;
    }
    Ok(removed)
}

/// Writes what is missing or different.
fn write<K, V>(
    table: &mut PinnedMap<K, V>,
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> Result<usize, Error>
where
    K: Plain + Ord,
    V: Plain + PartialEq,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    let mut written = 0;
    for (key, value) in desired.iter().filter(|(key, value)| actual.get(*key) != Some(*value)) {
        table.insert(key, value)?;
        written += 1;
    }
    Ok(written)
}

fn log(changes: &Changes) {
    if changes.is_empty() {
        return;
    }
    let sum = |get: fn(&Change) -> usize| {
        let all = [changes.ports, changes.addrs, changes.fdb, changes.neigh, changes.vteps];
        all.iter().map(get).sum::<usize>()
    };
    tracing::debug!(
        written = sum(|change| change.written),
        removed = sum(|change| change.removed),
        "maps changed"
    );
}
