//! Looking at a data plane without touching it: by its pins, whether or not an agent runs, from
//! any network namespace.

use std::collections::BTreeMap;
use std::path::Path;

use crate::areas;
use crate::bpffs::Paths;
use crate::counters::{self, Connection, Counters};
use crate::error::Error;
use crate::handed::{self, HandedConnection, PortArea, TakenOver, Use};
use crate::object;
use crate::pinned::Maps;
use crate::reconcile;
use crate::tables::Tables;
use packet::{Config, ConntrackSize, Fdb, Learned, Move, PortKey};

/// What a data plane holds and has counted. Every call reads the kernel's maps as they are now.
pub struct View {
    pub(crate) maps: Maps,
}

impl View {
    /// Of the data plane that is pinned below this mount point.
    ///
    /// # Errors
    /// [`Error::NoDataPlane`] when there is none, or one that another version made;
    /// [`Error::Map`].
    pub fn open(bpffs: &Path) -> Result<View, Error> {
        let maps = Paths::new(bpffs, "").maps();
        if !maps.join(object::full_name("ports")).exists() {
            return Err(Error::NoDataPlane { path: bpffs.to_owned() });
        }
        Ok(View { maps: Maps::open(&maps)? })
    }

    /// What the maps hold now.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn tables(&self) -> Result<Tables, Error> {
        reconcile::read_back(&self.maps)
    }

    /// Drops by reason; traffic by port.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counters, Error> {
        counters::counters(&self.maps)
    }

    /// All drops that have been counted.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn dropped_in_all(&self) -> Result<u64, Error> {
        counters::dropped(&self.maps)
    }

    /// Whether the move with this number has come to its end.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn has_arrived(&self, number: u32) -> Result<bool, Error> {
        let place = Move::new(number, Fdb::local(PortKey::untagged(0))).place();
        let word = self.maps.arrived.get(place)?;
        Ok(word & u64::from(u32::MAX) == u64::from(number))
    }

    /// Ports that there is room for, and connections that each side of each is sure of.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn room(&self) -> Result<ConntrackSize, Error> {
        let Config { common_buckets, port_buckets, .. } = self.maps.config()?;
        let ports = u32::try_from(self.maps.ports.limit()).unwrap_or(u32::MAX);
        Ok(ConntrackSize { ports, port_buckets, common_buckets })
    }

    /// What was drawn by lot when the maps were made, and is known to nobody else.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn salt(&self) -> Result<u64, Error> {
        Ok(self.maps.config()?.seed)
    }

    /// The strangers that were heard of behind foreign VTEPs, some of them long ago. Takes a system
    /// call for each that a network with such VTEPs may have.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn learned(&self) -> Result<Vec<Learned>, Error> {
        areas::learned(&self.maps)
    }

    /// How many connections each port has, by its number; far less work than to list them.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn connection_counts(&self) -> Result<BTreeMap<u32, u32>, Error> {
        counters::connection_counts(&self.maps)
    }

    /// Where the connections of the port with this number are, if it is there.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn port_area(&self, number: u32) -> Result<Option<PortArea>, Error> {
        handed::area(&self.maps, number)
    }

    /// The connections of a port, to be handed to another host. Takes a system call for each bucket of
    /// its area; where that was full, also for each of the common one.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn hand_over(&self, area: PortArea) -> Result<Vec<HandedConnection>, Error> {
        handed::read(&self.maps, area)
    }

    /// Puts connections that another host has handed over into the area of the port with this number,
    /// as far as there is room.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn take_over(
        &mut self,
        port: (u32, Use),
        connections: &[HandedConnection],
    ) -> Result<TakenOver, Error> {
        handed::take(&mut self.maps, port, connections)
    }

    /// The connections of all ports. Takes a system call for each bucket of the ports' areas and
    /// of the common one.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn connections(&self) -> Result<Vec<Connection>, Error> {
        counters::conntrack(&self.maps)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}
