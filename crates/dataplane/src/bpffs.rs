//! The bpf file system of a host: where it is mounted and what lies where in it.
//!
//! ```text
//! links/<ifindex>-borrowed  a directory: the port's device is somebody else's, and given back
//! links/<ifindex>-<hook>  one per attached program; kept over upgrades, replaced in place
//! maps/<map>_<version>    a map with another layout is another map, beside the old one
//! programs-<hash>/<hook>  the programs of the object with this hash: a set
//! programs-<hash>/complete  a directory: the maps of this set are full
//! ```
//! bpffs allows no dots in names.

use crate::error::Error;
use crate::object::MAPS;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mark of a set whose maps are full.
const COMPLETE: &str = "complete";

/// What the marks of borrowed devices end with.
const BORROWED: &str = "-borrowed";

/// Paths below the mount point.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    program_set: String,
}

impl Paths {
    /// The paths for the object with this hash.
    pub(crate) fn new(root: &Path, object_hash: &str) -> Paths {
        let short = object_hash.get(..16).unwrap_or(object_hash);
        Paths { root: root.to_owned(), program_set: format!("programs-{short}") }
    }

    /// Where the maps are.
    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Where our programs are.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join(&self.program_set)
    }

    /// Where the links are.
    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The marked devices.
    pub(crate) fn borrowed(&self) -> Result<BTreeSet<u32>, Error> {
        let ifindex =
            |path: &PathBuf| path.file_name()?.to_str()?.strip_suffix(BORROWED)?.parse().ok();
        Ok(entries(&self.links())?.iter().filter_map(ifindex).collect())
    }

    /// Marks a device as borrowed; whether it was not.
    pub(crate) fn mark_borrowed(&self, ifindex: u32) -> Result<bool, Error> {
        let mark = self.links().join(format!("{ifindex}{BORROWED}"));
        match fs::create_dir(&mark) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true).map_err(failed(&mark, "create")),
        }
    }

    /// Removes the mark of a device.
    pub(crate) fn unmark_borrowed(&self, ifindex: u32) -> Result<(), Error> {
        let mark = self.links().join(format!("{ifindex}{BORROWED}"));
        match fs::remove_dir(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&mark, "remove")(error))
            }
            _ => Ok(()),
        }
    }

    /// The directories of all sets of programs.
    pub(crate) fn program_sets(&self) -> Result<Vec<PathBuf>, Error> {
        let mut sets = entries(&self.root)?;
        sets.retain(|path| is_named(path, "programs-"));
        Ok(sets)
    }

    /// Whether the maps of our set were full once, and no other set has been since.
    pub(crate) fn is_complete(&self) -> bool {
        self.programs().join(COMPLETE).exists()
    }

    /// Notes that the maps of our set are full. From now on those of other sets are not kept up.
    pub(crate) fn mark_complete(&self) -> Result<(), Error> {
        for set in self.program_sets()?.into_iter().filter(|set| *set != self.programs()) {
            let mark = set.join(COMPLETE);
            match fs::remove_dir(&mark) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&mark, "remove")(error));
                }
                _ => {}
            }
        }
        let mark = self.programs().join(COMPLETE);
        fs::create_dir_all(&mark).map_err(failed(&mark, "create"))
    }

    /// Removes our set, with its mark. Links go on with the programs that they run.
    pub(crate) fn remove_programs(&self) -> Result<(), Error> {
        let set = self.programs();
        fs::remove_dir_all(&set).map_err(failed(&set, "remove"))?;
        fs::create_dir(&set).map_err(failed(&set, "create"))
    }

    /// The pins of data planes from before maps had versions of their own, and the one version of
    /// all maps there: `maps-<version>/<map>`.
    pub(crate) fn unversioned(&self) -> Result<Vec<(u32, PathBuf)>, Error> {
        let mut pins = Vec::new();
        for directory in entries(&self.root)? {
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            let version = name.strip_prefix("maps-").and_then(|version| version.parse().ok());
            if let Some(version) = version {
                pins.extend(entries(&directory)?.into_iter().map(|pin| (version, pin)));
            }
        }
        Ok(pins)
    }

    /// Gives a pin another name as well, unless there is something with that name.
    pub(crate) fn link(pin: &Path, name: &Path) -> Result<(), Error> {
        match fs::hard_link(pin, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed(name, "create")(error))
            }
            _ => Ok(()),
        }
    }

    /// Mounts the file system if it is not, and makes the directories.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        mount(&self.root)?;
        for directory in [self.maps(), self.programs(), self.links()] {
            fs::create_dir_all(&directory).map_err(failed(&directory, "create"))?;
        }
        Ok(())
    }

    /// Removes the programs of other objects and the maps of other layouts; the links no longer
    /// use them.
    pub(crate) fn remove_others(&self) -> Result<(), Error> {
        for entry in entries(&self.root)? {
            let is_set = is_named(&entry, "programs-") || is_named(&entry, "maps-");
            if is_set && entry != self.programs() {
                fs::remove_dir_all(&entry).map_err(failed(&entry, "remove"))?;
            }
        }
        for pin in entries(&self.maps())? {
            if !MAPS.iter().any(|map| pin.ends_with(map.full)) {
                remove_pin(&pin)?;
            }
        }
        Ok(())
    }
}

/// A host's data plane, held by one agent; given back when dropped, or when the process dies.
#[derive(Debug)]
pub struct Hold([File; 2]);

impl Hold {
    /// Mounts the bpf file system if it is not, and takes the data plane in it for this agent.
    /// Two that write different tables would undo each other's work for ever.
    ///
    /// # Errors
    /// [`Error::Held`] when another process has it, [`Error::Bpffs`] when it cannot be used.
    pub fn take(root: &Path) -> Result<Hold, Error> {
        fs::create_dir_all(root).map_err(failed(root, "create"))?;
        // The directory below the mount too: two that start at once would each mount their own.
        let below = lock(root)?;
        let mounted = is_bpffs(root)?;
        mount(root)?;
        let above = match mounted {
            // The same directory again; a lock is the file's, not the directory's.
            true => below.try_clone().map_err(failed(root, "lock"))?,
            false => lock(root)?,
        };
        Ok(Hold([below, above]))
    }

    /// Mounts the file system again if somebody has taken it away, and takes the one that is there
    /// now for this agent.
    ///
    /// # Errors
    /// [`Error::Held`] when another agent has it by now, [`Error::Bpffs`] when it cannot be used.
    pub fn renew(&mut self, root: &Path) -> Result<(), Error> {
        mount(root)?;
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let Hold([_, above]) = self;
        let held = above.metadata().map(place).map_err(failed(root, "inspect"))?;
        if fs::metadata(root).map(place).map_err(failed(root, "inspect"))? != held {
            *above = lock(root)?;
        }
        Ok(())
    }
}

pub(crate) fn lock(root: &Path) -> Result<File, Error> {
    let directory = File::open(root).map_err(failed(root, "open"))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(Error::Held { path: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(root, "lock")(error)),
    }
}

/// The same, once whoever has it lets go.
pub(crate) fn wait_for(root: &Path) -> Result<File, Error> {
    let directory = File::open(root).map_err(failed(root, "open"))?;
    directory.lock().map_err(failed(root, "lock"))?;
    Ok(directory)
}

/// Mounts the file system if it is not.
fn mount(root: &Path) -> Result<(), Error> {
    fs::create_dir_all(root).map_err(failed(root, "create"))?;
    if is_bpffs(root)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("netloom"), root, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| failed(root, "mount")(errno.into()))
}

/// The paths in a directory; none if it does not exist.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, "list")(error)),
    };
    let paths: io::Result<Vec<PathBuf>> = listed.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(failed(directory, "list"))?;
    paths.sort();
    Ok(paths)
}

/// Removes a pin; one that is gone already is fine.
pub(crate) fn remove_pin(pin: &Path) -> Result<(), Error> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(pin, "remove")(error)),
        _ => Ok(()),
    }
}

/// Removes every pin and unmounts. Links go first: nothing is forwarded by half a data plane.
pub(crate) fn unload(root: &Path) -> Result<(), Error> {
    if !root.exists() {
        return Ok(());
    }
    if is_bpffs(root)? {
        let mut failure = None;
        // Linux puts files of its own (`maps.debug`) into a bpf file system; they go with it.
        let directories: Vec<PathBuf> =
            entries(root)?.into_iter().filter(|path| path.is_dir()).collect();
        let is_links = |path: &&PathBuf| path.ends_with("links");
        let first = directories.iter().filter(is_links);
        for directory in first.chain(directories.iter().filter(|path| !is_links(path))) {
            if let Err(error) = fs::remove_dir_all(directory) {
                failure.get_or_insert(failed(directory, "remove")(error));
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        match nix::mount::umount2(root, MntFlags::MNT_DETACH) {
            // Not a mount point: a directory in a file system that somebody else mounted.
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(errno) => return Err(failed(root, "unmount")(errno.into())),
        }
    }
    match fs::remove_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // The directory may have been there before, with other things in it.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) => Err(failed(root, "remove")(error)),
        Ok(()) => Ok(()),
    }
}

fn is_named(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

fn is_bpffs(path: &Path) -> Result<bool, Error> {
    let found = statfs(path).map_err(|errno| failed(path, "inspect")(errno.into()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Bpffs { path: path.clone(), action, cause }
}
