//! From the data plane of another version to ours, under traffic.
//!
//! The one that runs goes on with its own maps until ours are full:
//! 1. When a data plane is opened, programs and maps are made beside those that run. A map whose
//!    version is the same is the same map. Ports keep places and zones, so that connections stay
//!    theirs: what another version's maps say is converted ([`convert`]).
//! 2. The agent fills the maps, by its first reconcile.
//! 3. The connections are converted, if their table is another one. Then the set of programs is
//!    marked complete, each link gets its new program in one step of the kernel's
//!    (`BPF_LINK_UPDATE`), and what is old is removed.
//!
//! A kill before the mark leaves the old data plane as it was; what was made beside it is made
//! anew. A kill after it leaves two that are complete; the next start goes on with the links.
//!
//! What remains: a connection opened while the others are being converted is not taken along. TCP
//! is picked up again; of anything else an answer may be lost. A table of the same version is
//! shared, and then there is nothing that could be lost.

mod connections;
mod convert;

use crate::bpffs::{Paths, entries, remove_pin};
use crate::error::{Error, chain};
use crate::links::Found;
use crate::object::{self, MAPS};
use crate::pinned::Maps;
use crate::reconcile::Ports;
use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, loaded_programs};
use convert::Connections;
use packet::{Config, ConntrackSize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A map of another version that programs work on.
struct Source {
    version: u32,
    pin: PathBuf,
}

/// What runs when a data plane is opened.
#[derive(Default)]
pub(crate) struct Running {
    /// Ids of the maps that programs of other sets work on, where links run any of the set.
    maps: BTreeSet<u32>,
    /// The maps of other versions among them, by name.
    sources: BTreeMap<String, Source>,
}

impl Running {
    /// Looks at what the links run, and removes what an upgrade left that was cut short.
    pub(crate) fn prepare<'a>(
        paths: &Paths,
        links: impl Iterator<Item = &'a Found>,
    ) -> Result<Running, Error> {
        adopt(paths)?;
        if !programs_fit(paths)? {
            tracing::warn!("our programs work on maps that are gone; they are made anew");
            paths.remove_programs()?;
        }
        let maps = foreign_maps(paths, links.map(Found::program).collect())?;
        if maps.is_empty() {
            return Ok(Running::default());
        }
        if !paths.is_complete() {
            let mut cut_short = false;
            for map in MAPS {
                let pin = paths.maps().join(map.full);
                if MapInfo::from_pin(&pin).is_ok_and(|info| !maps.contains(&info.id())) {
                    remove_pin(&pin)?;
                    cut_short = true;
                }
            }
            if cut_short {
                paths.remove_programs()?;
            }
        }
        let sources = sources(paths, &maps)?;
        Ok(Running { maps, sources })
    }

    /// Whether other programs run than ours, on maps that are not all of ours.
    fn differs(&self, paths: &Paths) -> bool {
        let runs = |full| {
            let info = MapInfo::from_pin(paths.maps().join(full));
            info.is_ok_and(|info| self.maps.contains(&info.id()))
        };
        !self.maps.is_empty() && !MAPS.iter().all(|map| runs(map.full))
    }
}

/// An upgrade that is under way: ours is not filled yet.
pub(crate) struct Upgrade {
    /// What was converted; `None` is a map that is kept.
    config: Option<Config>,
    ports: Option<Ports>,
    connections: Option<Connections>,
    /// Ports and buckets, if those of the old table stay.
    size: Option<ConntrackSize>,
    /// Why no connection can be taken along.
    pub(crate) lost: Option<String>,
}

impl Upgrade {
    /// Plans it, before any map is made; `None` if there is nothing to fill.
    pub(crate) fn plan(paths: &Paths, running: &Running) -> Result<Option<Upgrade>, Error> {
        if paths.is_complete() || !running.differs(paths) {
            return Ok(None);
        }
        let mut upgrade =
            Upgrade { config: None, ports: None, connections: None, size: None, lost: None };
        match upgrade.take_along(paths, running) {
            Ok(()) => {}
            Err(Untold::Lost(reason)) => upgrade.begin_anew(paths, reason)?,
            Err(Untold::Failed(error)) => return Err(error),
        }
        upgrade.tell(running);
        Ok(Some(upgrade))
    }

    /// Finds out how ports keep their places, and connections their ports.
    fn take_along(&mut self, paths: &Paths, running: &Running) -> Result<(), Untold> {
        if let Some(source) = missing(paths, running, "config")? {
            self.config = Some(convert::config(source.version, &source.pin)?);
        }
        if let Some(source) = missing(paths, running, "ports")? {
            self.ports = Some(convert::ports(source.version, &source.pin)?);
        }
        if let Some(source) = missing(paths, running, "conntrack")? {
            self.connections = Some(Connections::of(source.version, &source.pin)?);
        }
        let config = match self.config {
            Some(config) => config,
            None => convert::current_config(&paths.maps().join(object::full_name("config")))?,
        };
        let ports = running.sources.get("ports").map(|source| source.pin.clone());
        let ports = ports.unwrap_or_else(|| paths.maps().join(object::full_name("ports")));
        let ports = MapInfo::from_pin(ports).map_or(0, |info| info.max_entries());
        let Config { common_buckets, port_buckets, .. } = config;
        self.size =
            (port_buckets != 0).then_some(ConntrackSize { ports, port_buckets, common_buckets });
        Ok(())
    }

    /// Makes do without the connections. A table, and where its areas are, belong together.
    fn begin_anew(&mut self, paths: &Paths, reason: String) -> Result<(), Error> {
        let pin = |map| paths.maps().join(object::full_name(map));
        let before = self.config.or_else(|| convert::current_config(&pin("config")).ok());
        let tunnel_ifindex = before.map_or(0, |config| config.tunnel_ifindex);
        self.config = Some(Config { tunnel_ifindex, ..Config::default() });
        self.connections = None;
        self.lost = Some(reason);
        remove_pin(&pin("config"))?;
        remove_pin(&pin("conntrack"))
    }

    /// The size that the new maps need for what is taken along.
    pub(crate) fn size(&self) -> Option<ConntrackSize> {
        self.size
    }

    /// Puts what was converted into the new maps.
    pub(crate) fn seed(&self, maps: &mut Maps) -> Result<(), Error> {
        if let Some(config) = self.config {
            maps.set_config(config)?;
        }
        for (key, port) in self.ports.iter().flatten().take(maps.ports.limit()) {
            let is_in_the_table = u32::try_from(maps.ports.limit()).unwrap_or(0) >= port.place();
            let port = if is_in_the_table { *port } else { port.placed(0, 0) };
            maps.ports.insert(key, &port)?;
        }
        let highest = maps.ports.read()?.values().map(|port| port.zone).max().unwrap_or(0);
        let config = maps.config()?;
        // No zone is ever given twice, also when it is not known any more which was the last.
        maps.set_config(Config { last_zone: config.last_zone.max(highest), ..config })
    }

    /// Takes the connections along, into a table that no program works on yet.
    pub(crate) fn carry(&self, maps: &mut Maps) -> Result<(), Error> {
        let Some(connections) = &self.connections else { return Ok(()) };
        let (carried, lost) = connections::carry(maps, connections)?;
        tracing::info!(carried, lost, "upgrade: connections are converted");
        Ok(())
    }

    fn tell(&self, running: &Running) {
        let old: Vec<String> = running
            .sources
            .iter()
            .map(|(name, source)| format!("{name}_{}", source.version))
            .collect();
        let replaced = old.join(" ");
        tracing::info!(
            replaced,
            "upgrade: another version's data plane goes on until ours is filled"
        );
        if let Some(reason) = &self.lost {
            tracing::warn!(reason, "no connection can be taken along; TCP is picked up again");
        }
    }
}

/// Why something is not known.
enum Untold {
    /// Nobody can tell.
    Lost(String),
    /// It failed this time.
    Failed(Error),
}

impl From<Error> for Untold {
    fn from(error: Error) -> Untold {
        Untold::Failed(error)
    }
}

/// The map of another version that stands for ours; `None` if ours is the one that runs.
fn missing<'a>(
    paths: &Paths,
    running: &'a Running,
    base: &'static str,
) -> Result<Option<&'a Source>, Untold> {
    let pin = paths.maps().join(object::full_name(base));
    if MapInfo::from_pin(pin).is_ok() {
        return Ok(None);
    }
    match running.sources.get(base) {
        Some(source) => Ok(Some(source)),
        None => Err(Untold::Lost(format!("the map {base} of the data plane that runs is gone"))),
    }
}

/// Gives the pins of data planes from before maps had versions of their own the names that they
/// would have now.
fn adopt(paths: &Paths) -> Result<(), Error> {
    for (version, pin) in paths.unversioned()? {
        let known = MAPS.iter().find(|map| pin.ends_with(map.base));
        // A map that was the same for longer than this.
        let Some(map) = known.filter(|map| map.version <= version) else { continue };
        Paths::link(&pin, &paths.maps().join(map.full))?;
    }
    Ok(())
}

/// Whether our programs, if they are pinned, work on all maps that are pinned now: what is written
/// into these would have no effect on others. Names say nothing: a map keeps its first one.
fn programs_fit(paths: &Paths) -> Result<bool, Error> {
    let programs = set(&paths.programs())?;
    let mut used = BTreeSet::new();
    for program in &programs {
        used.extend(maps_of(program)?);
    }
    let is_used = |full| {
        let info = MapInfo::from_pin(paths.maps().join(full));
        info.is_ok_and(|info| used.contains(&info.id()))
    };
    Ok(programs.is_empty() || MAPS.iter().all(|map| is_used(map.full)))
}

/// The programs of a set.
fn set(directory: &Path) -> Result<Vec<ProgramInfo>, Error> {
    let pins = entries(directory)?.into_iter();
    Ok(pins.filter_map(|pin| ProgramInfo::from_pin(pin).ok()).collect())
}

/// Ids of the maps that other programs than ours work on, if links run any of their set.
fn foreign_maps(paths: &Paths, running: BTreeSet<u32>) -> Result<BTreeSet<u32>, Error> {
    let mut unpinned = running.clone();
    let mut maps = BTreeSet::new();
    for directory in paths.program_sets()? {
        let programs = set(&directory)?;
        let ids: BTreeSet<u32> = programs.iter().map(ProgramInfo::id).collect();
        unpinned.retain(|id| !ids.contains(id));
        if directory != paths.programs() && !ids.is_disjoint(&running) {
            for program in &programs {
                maps.extend(maps_of(program)?);
            }
        }
    }
    if unpinned.is_empty() {
        return Ok(maps);
    }
    for program in loaded_programs().flatten().filter(|program| unpinned.contains(&program.id())) {
        maps.extend(maps_of(&program)?);
    }
    Ok(maps)
}

fn maps_of(program: &ProgramInfo) -> Result<Vec<u32>, Error> {
    let failed = |cause: &dyn std::error::Error| Error::Load {
        program: program.name_as_str().unwrap_or_default().to_owned(),
        cause: chain(cause),
    };
    Ok(program.map_ids().map_err(|cause| failed(&cause))?.unwrap_or_default())
}

/// The pins of these maps that are not ours.
fn sources(paths: &Paths, maps: &BTreeSet<u32>) -> Result<BTreeMap<String, Source>, Error> {
    let mut sources = BTreeMap::new();
    let named = entries(&paths.maps())?.into_iter().filter_map(|pin| {
        let (base, version) = pin.file_name()?.to_str()?.rsplit_once('_')?;
        Some((base.to_owned(), Source { version: version.parse().ok()?, pin: pin.clone() }))
    });
    let unversioned = paths.unversioned()?.into_iter().filter_map(|(version, pin)| {
        Some((convert::base(pin.file_name()?.to_str()?).to_owned(), Source { version, pin }))
    });
    for (base, source) in unversioned.chain(named) {
        let is_ours = MAPS.iter().any(|map| source.pin.ends_with(map.full));
        let info = MapInfo::from_pin(&source.pin);
        if !is_ours && info.is_ok_and(|info| maps.contains(&info.id())) {
            sources.insert(base, source);
        }
    }
    Ok(sources)
}
