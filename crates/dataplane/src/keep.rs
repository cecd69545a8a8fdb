//! Keeping a data plane whole while an agent has it open.
//!
//! Pins are files: anybody who is root can remove one, or unmount them all. What the agent has
//! open outlives its pin, and is pinned again before anything is lost. Only an agent that does not
//! run keeps nothing: what has no pin then is gone at once.

use crate::bpffs::{Paths, remove_pin};
use crate::error::{Error, chain};
use crate::links::{Hook, Pin};
use crate::object::{MAPS, MapName};
use crate::pinned;
use aya::maps::{MapData, MapInfo};
use aya::programs::SchedClassifier;
use aya::programs::links::FdLink;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What must be pinned.
pub(crate) struct Kept {
    /// Ids of the maps.
    maps: BTreeMap<&'static str, u32>,
    /// The links. Two files for each port.
    links: BTreeMap<(u32, Hook), FdLink>,
    /// Devices that are somebody else's: they are marked.
    borrowed: BTreeSet<u32>,
}

impl Kept {
    /// The maps and marks that are there now, and no links yet.
    ///
    /// # Errors
    /// [`Error::Map`] when one is not pinned, [`Error::Bpffs`].
    pub(crate) fn maps_of(paths: &Paths) -> Result<Kept, Error> {
        let directory = paths.maps();
        let id = |map: &MapName| {
            let info = MapInfo::from_pin(directory.join(map.full));
            Ok((map.full, info.map_err(pinned::failed(map.full, "inspect"))?.id()))
        };
        let maps = MAPS.iter().map(id).collect::<Result<_, Error>>()?;
        Ok(Kept { maps, links: BTreeMap::new(), borrowed: paths.borrowed()? })
    }

    /// Keeps the link of a pin open.
    pub(crate) fn put(&mut self, ifindex: u32, hook: Hook, link: FdLink) {
        self.links.insert((ifindex, hook), link);
    }

    /// Lets go of a link. Without a pin the kernel takes its program off a little later.
    pub(crate) fn let_go(&mut self, ifindex: u32, hook: Hook) {
        self.links.remove(&(ifindex, hook));
    }

    /// Devices that are somebody else's.
    pub(crate) fn borrowed(&self) -> &BTreeSet<u32> {
        &self.borrowed
    }

    /// Marks a device as somebody else's.
    pub(crate) fn borrow(&mut self, paths: &Paths, ifindex: u32) -> Result<(), Error> {
        paths.mark_borrowed(ifindex)?;
        self.borrowed.insert(ifindex);
        Ok(())
    }

    /// Forgets a device that is somebody else's.
    pub(crate) fn forget(&mut self, paths: &Paths, ifindex: u32) -> Result<(), Error> {
        paths.unmark_borrowed(ifindex)?;
        self.borrowed.remove(&ifindex);
        Ok(())
    }

    /// Pins each map and each link again whose pin is gone, and maps also where another one is
    /// pinned in their place; how many these were.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Bpffs`] or [`Error::Attach`].
    pub(crate) fn mend(&mut self, paths: &Paths) -> Result<usize, Error> {
        let directory = paths.maps();
        let mut mended = 0;
        for (name, id) in &self.maps {
            mended += usize::from(mend_map(name, *id, &directory.join(name))?);
        }
        let directory = paths.links();
        let links: Vec<_> = self.links.keys().copied().collect();
        for (ifindex, hook) in links {
            let pin = Pin { ifindex, hook, path: hook.pin(&directory, ifindex) };
            mended += usize::from(self.mend_link(&pin)?);
        }
        for ifindex in &self.borrowed {
            mended += usize::from(paths.mark_borrowed(*ifindex)?);
        }
        Ok(mended)
    }

    /// Whether a link is open whose pin is gone.
    pub(crate) fn misses(&self, pin: &Pin) -> bool {
        self.links.contains_key(&(pin.ifindex, pin.hook)) && !pin.path.exists()
    }

    /// Pins a link again whose pin is gone, if it is open; whether that was so.
    ///
    /// # Errors
    /// [`Error::Attach`].
    pub(crate) fn mend_link(&mut self, pin: &Pin) -> Result<bool, Error> {
        if !self.misses(pin) {
            return Ok(false);
        }
        let Some(link) = self.links.remove(&(pin.ifindex, pin.hook)) else { return Ok(false) };
        // A link that cannot be pinned is lost with this: the port is guarded anew.
        let link = link.pin(&pin.path).map_err(|error| pin.failed("pin", chain(&error)))?;
        self.put(pin.ifindex, pin.hook, link.into());
        Ok(true)
    }
}

/// Pins a map unless its pin is there; whether that was needed.
fn mend_map(name: &'static str, id: u32, pin: &Path) -> Result<bool, Error> {
    if MapInfo::from_pin(pin).is_ok_and(|info| info.id() == id) {
        return Ok(false);
    }
    remove_pin(pin)?;
    let map = MapData::from_id(id).map_err(pinned::failed(name, "find"))?;
    let pinned = map.pin(pin);
    pinned.map_err(|error| Error::Map { map: name, action: "pin", cause: chain(&error) })?;
    Ok(true)
}

/// Pins a program unless its pin is there; whether that was needed.
pub(crate) fn mend_program(
    program: &mut SchedClassifier,
    name: &str,
    pin: &Path,
) -> Result<bool, Error> {
    let failed = |cause: &dyn std::error::Error| Error::Load {
        program: name.to_owned(),
        cause: chain(cause),
    };
    let id = program.info().map_err(|cause| failed(&cause))?.id();
    let pinned = SchedClassifier::from_pin(pin).and_then(|pinned| pinned.info());
    if pinned.is_ok_and(|info| info.id() == id) {
        return Ok(false);
    }
    remove_pin(pin)?;
    program.pin(pin).map_err(|cause| failed(&cause))?;
    Ok(true)
}
