//! The pinned maps with their types: bytes in, structs out.
//!
//! The layouts come from `packet`; a map is only ever opened by a name that has the version of its
//! layout, so its sizes are right. Every error names the map.

use crate::error::Error;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use aya::{Ebpf, Pod};
use packet::{Config, Plain, Timeouts};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;

/// A filled map of the data plane, of either shape. To look up a key of a trie that is in it gives
/// the entry of that key, so that a trie is read and written as a hash map is.
pub(crate) struct PinnedMap<K: Plain, V: Plain>
where
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    name: &'static str,
    limit: u32,
    map: HashMap<MapData, K::Bytes, V::Bytes>,
}

impl<K, V> PinnedMap<K, V>
where
    K: Plain + Ord,
    V: Plain,
    K::Bytes: Pod,
    V::Bytes: Pod,
{
    fn new(name: &'static str, map: Map) -> Result<Self, Error> {
        let (Map::HashMap(data) | Map::LpmTrie(data)) = map else {
            return Err(Error::Incomplete(name));
        };
        let limit = limit(name, &data)?;
        let map = HashMap::try_from(Map::HashMap(data)).map_err(failed(name, "open"))?;
        Ok(PinnedMap { name, limit, map })
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

    /// One entry; of a trie that of the longest prefix that the key is in.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        match self.map.get(&key.to_bytes(), 0) {
            Ok(value) => Ok(Some(V::from_bytes(&value))),
            Err(cause) if is_absent(&cause) => Ok(None),
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
    fn new(name: &'static str, map: Map) -> Result<Self, Error> {
        let Map::Array(data) = map else { return Err(Error::Incomplete(name)) };
        let limit = limit(name, &data)?;
        let map = Array::try_from(Map::Array(data)).map_err(failed(name, "open"))?;
        Ok(Slots { name, limit, map, value: PhantomData })
    }

    /// Takes it out of a loaded object.
    #[cfg(feature = "test-run")]
    pub(crate) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        Self::new(name, object.take_map(name).ok_or(Error::Incomplete(name))?)
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

/// A per-CPU array of the data plane.
pub(crate) struct PerCpu<V: Plain>
where
    V::Bytes: Pod,
{
    name: &'static str,
    map: PerCpuArray<MapData, V::Bytes>,
    value: PhantomData<V>,
}

impl<V> PerCpu<V>
where
    V: Plain,
    V::Bytes: Pod,
{
    fn new(name: &'static str, map: Map) -> Result<Self, Error> {
        let map = PerCpuArray::try_from(map).map_err(failed(name, "open"))?;
        Ok(PerCpu { name, map, value: PhantomData })
    }

    /// An entry, as every CPU has it.
    pub(crate) fn get(&self, index: u32) -> Result<Vec<V>, Error> {
        let values = self.map.get(&index, 0).map_err(failed(self.name, "read"))?;
        Ok(values.iter().map(V::from_bytes).collect())
    }

    /// Overwrites an entry on every CPU.
    pub(crate) fn set(&mut self, index: u32, value: &V) -> Result<(), Error> {
        let wrong = |cause: std::io::Error| Error::Map {
            map: self.name,
            action: "write",
            cause: cause.to_string(),
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, cause)| wrong(cause))?;
        let values = PerCpuValues::try_from(vec![value.to_bytes(); cpus]).map_err(wrong)?;
        self.map.set(index, values, 0).map_err(failed(self.name, "write"))
    }
}

/// The ring buffer of the data plane.
pub(crate) struct Ring(pub(crate) RingBuf<MapData>);

impl Ring {
    fn new(name: &'static str, map: Map) -> Result<Self, Error> {
        RingBuf::try_from(map).map(Ring).map_err(failed(name, "open"))
    }
}

/// The type of a kept map.
macro_rules! kept {
    (array $value:ty) => { Slots<$value> };
    (paged $value:ty) => { Slots<$value> };
    (per_cpu $value:ty) => { PerCpu<$value> };
    (ring $value:ty) => { Ring };
}

/// Every map of the table, open.
macro_rules! open {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept {$(
            $(#[$kept_doc:meta])*
            $kept:ident $kept_constant:ident $kept_version:literal:
                $kind:ident $held:ty, $size:expr;
        )*}
    ) => {
        /// All maps that user space works with.
        #[allow(dead_code, reason = "the desk opens its own ring buffers, tests read the rest")]
        pub(crate) struct Maps {
            $($(#[$doc])* pub(crate) $name: PinnedMap<$key, $value>,)*
            $($(#[$kept_doc])* pub(crate) $kept: kept!($kind $held),)*
        }

        impl Maps {
            fn new(mut find: impl FnMut(&'static str) -> Result<Map, Error>) -> Result<Maps, Error> {
                Ok(Maps {
                    $($name: PinnedMap::new(
                        stringify!($name),
                        find(concat!(stringify!($name), "_", $version))?,
                    )?,)*
                    $($kept: <kept!($kind $held)>::new(
                        stringify!($kept),
                        find(concat!(stringify!($kept), "_", $kept_version))?,
                    )?,)*
                })
            }
        }
    };
}
packet::maps!(open);

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Maps, Error> {
        Self::new(|name| object.take_map(name).ok_or(Error::Incomplete(name)))
    }

    /// Opens the maps that are pinned in this directory.
    pub(crate) fn open(directory: &Path) -> Result<Maps, Error> {
        Self::new(|name| {
            let data = MapData::from_pin(directory.join(name)).map_err(failed(name, "open"))?;
            Map::from_map_data(data).map_err(failed(name, "open"))
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

    /// What the programs have decided before holds no longer.
    pub(crate) fn raise_epoch(&mut self) -> Result<(), Error> {
        let config = self.config()?;
        self.set_config(Config { epoch: config.epoch.wrapping_add(1), ..config })
    }

    /// What is remembered of connections holds no longer, where a policy names groups: others may be in
    /// them.
    pub(crate) fn raise_members(&mut self) -> Result<(), Error> {
        let config = self.config()?;
        self.set_config(Config { members: config.members.wrapping_add(1), ..config })
    }

    /// Sets how long connections live that are idle; whether that is another time for any.
    pub(crate) fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<bool, Error> {
        let mut changes = false;
        for (number, ticks) in (0..).zip(timeouts.ticks()) {
            if self.timeouts.get(number)? != ticks {
                self.timeouts.set(number, &ticks)?;
                changes = true;
            }
        }
        Ok(changes)
    }
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
