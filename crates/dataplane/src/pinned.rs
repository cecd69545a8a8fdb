//! The pinned maps with their types: bytes in, structs out.
//!
//! The layouts come from `packet`; a map is only ever opened below the directory of its layout
//! version, so its sizes are right. Every error names the map.

use crate::error::Error;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use packet::{
    AddrKey, Config, CtKey, CtSlot, Fdb, FdbKey, Neigh, NeighKey, Plain, Port, PortKey, Traffic,
    Vtep, VtepKey,
};
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A hash map of the data plane.
pub(crate) struct Table<K: Plain, V: Plain>
where
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    name: &'static str,
    limit: u32,
    map: HashMap<MapData, K::Bytes, V::Bytes>,
}

impl<K, V> Table<K, V>
where
    K: Plain + Ord,
    V: Plain,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let data = take(object, name, |map| match map {
            Map::HashMap(data) => Some(data),
            _ => None,
        })?;
        let limit = limit(name, &data)?;
        let map = HashMap::try_from(Map::HashMap(data)).map_err(failed(name, "open"))?;
        Ok(Table { name, limit, map })
    }

    /// The name of the map.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Most entries that it holds.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Everything in it.
    pub(crate) fn read(&self) -> Result<BTreeMap<K, V>, Error> {
        let mut entries = BTreeMap::new();
        for entry in self.map.iter() {
            let (key, value) = entry.map_err(failed(self.name, "read"))?;
            entries.insert(K::from_bytes(&key), V::from_bytes(&value));
        }
        Ok(entries)
    }

    /// The keys in it, without the values.
    pub(crate) fn keys(&self) -> Result<Vec<K>, Error> {
        let keys = self.map.keys().map(|key| key.map(|key| K::from_bytes(&key)));
        keys.collect::<Result<_, _>>().map_err(failed(self.name, "read"))
    }

    /// One value.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        match self.map.get(&key.to_bytes(), 0) {
            Ok(value) => Ok(Some(V::from_bytes(&value))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(cause) => Err(failed(self.name, "read")(cause)),
        }
    }

    /// Adds or overwrites.
    pub(crate) fn insert(&mut self, key: &K, value: &V) -> Result<(), Error> {
        self.map.insert(key.to_bytes(), value.to_bytes(), 0).map_err(failed(self.name, "write"))
    }

    /// Removes; absent already is fine.
    pub(crate) fn remove(&mut self, key: &K) -> Result<(), Error> {
        match self.map.remove(&key.to_bytes()) {
            Ok(()) => Ok(()),
            Err(cause) if is_absent(&cause) => Ok(()),
            Err(cause) => Err(failed(self.name, "remove from")(cause)),
        }
    }
}

/// An array map of the data plane.
pub(crate) struct Slots<V: Plain>
where
    V::Bytes: Pod,
{
    name: &'static str,
    limit: u32,
    map: Array<MapData, V::Bytes>,
    value: PhantomData<V>,
}

impl<V> Slots<V>
where
    V: Plain,
    V::Bytes: Pod,
{
    pub(crate) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let data = take(object, name, |map| match map {
            Map::Array(data) => Some(data),
            _ => None,
        })?;
        let limit = limit(name, &data)?;
        let map = Array::try_from(Map::Array(data)).map_err(failed(name, "open"))?;
        Ok(Slots { name, limit, map, value: PhantomData })
    }

    /// Entries that it has.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// One entry.
    pub(crate) fn get(&self, index: u32) -> Result<V, Error> {
        let bytes = self.map.get(&index, 0).map_err(failed(self.name, "read"))?;
        Ok(V::from_bytes(&bytes))
    }

    /// Overwrites one entry.
    pub(crate) fn set(&mut self, index: u32, value: &V) -> Result<(), Error> {
        self.map.set(index, value.to_bytes(), 0).map_err(failed(self.name, "write"))
    }
}

/// All maps that user space works with.
pub(crate) struct Maps {
    pub(crate) ports: Table<PortKey, Port>,
    pub(crate) addrs: Table<AddrKey, u32>,
    pub(crate) fdb: Table<FdbKey, Fdb>,
    pub(crate) neigh: Table<NeighKey, Neigh>,
    pub(crate) vteps: Table<VtepKey, Vtep>,
    pub(crate) config: Slots<Config>,
    pub(crate) ct: Table<CtKey, u32>,
    pub(crate) ct_slots: Slots<CtSlot>,
    pub(crate) ct_used: Table<u32, i64>,
    pub(crate) traffic: PerCpuArray<MapData, <Traffic as Plain>::Bytes>,
    pub(crate) drops: PerCpuArray<MapData, u64>,
    pub(crate) events_lost: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Maps, Error> {
        let other = |name| failed(name, "open");
        let mut any = |name| object.take_map(name).ok_or(Error::Incomplete(name));
        let traffic = PerCpuArray::try_from(any("traffic")?).map_err(other("traffic"))?;
        let drops = PerCpuArray::try_from(any("drops")?).map_err(other("drops"))?;
        let events_lost =
            PerCpuArray::try_from(any("events_lost")?).map_err(other("events_lost"))?;
        Ok(Maps {
            ports: Table::take(object, "ports")?,
            addrs: Table::take(object, "addrs")?,
            fdb: Table::take(object, "fdb")?,
            neigh: Table::take(object, "neigh")?,
            vteps: Table::take(object, "vteps")?,
            config: Slots::take(object, "config")?,
            ct: Table::take(object, "ct")?,
            ct_slots: Slots::take(object, "ct_slots")?,
            ct_used: Table::take(object, "ct_used")?,
            traffic,
            drops,
            events_lost,
        })
    }

    /// The configuration.
    pub(crate) fn config(&self) -> Result<Config, Error> {
        self.config.get(0)
    }

    /// Changes the configuration if it differs.
    pub(crate) fn set_config(&mut self, config: Config) -> Result<(), Error> {
        if self.config()? == config { Ok(()) } else { self.config.set(0, &config) }
    }
}

/// Takes a map of a certain kind.
fn take(
    object: &mut Ebpf,
    name: &'static str,
    kind: impl FnOnce(Map) -> Option<MapData>,
) -> Result<MapData, Error> {
    object.take_map(name).and_then(kind).ok_or(Error::Incomplete(name))
}

/// The size that the map has in the kernel, which is not the object's if it was pinned before.
fn limit(name: &'static str, data: &MapData) -> Result<u32, Error> {
    Ok(data.info().map_err(failed(name, "open"))?.max_entries())
}

/// An error about a map.
pub(crate) fn failed(map: &'static str, action: &'static str) -> impl Fn(MapError) -> Error {
    move |cause| Error::Map { map, action, cause: crate::error::chain(&cause) }
}

/// Whether a remove failed because the key was not there.
pub(crate) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
