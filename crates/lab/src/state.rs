//! What a lab keeps on disk: enough to take it down after a crash at any point.
//!
//! `<root>/<lab>/` holds `lab.json` (written before anything else is made), the topology as it was
//! applied, the addresses that its VMs got, and for each process `<name>/` (its data), `<name>.pid` and `<name>.log`.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{Error, names};

/// The addresses that VMs shall have, by the VMs' names.
pub(crate) type Addresses = BTreeMap<String, Vec<IpAddr>>;

const ADDRESSES: &str = "addresses.json";
/// How often a lock is asked for whose directory others remove at the same time.
const LOCK_TRIES_MAX: usize = 100;

/// A lab's place on disk.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) lab: String,
    pub(crate) root: PathBuf,
}

/// What must be known of a lab to go on with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) binary: PathBuf,
    pub(crate) topology: PathBuf,
    pub(crate) hosts: Vec<String>,
    #[serde(default)]
    pub(crate) agent_options: Vec<String>,
}

impl Place {
    /// The place of the lab of this name; nothing is made.
    pub(crate) fn new(lab: &str, root: &Path) -> Result<Self, Error> {
        names::check_lab(lab)?;
        let resolved = resolve(root);
        let root =
            resolved.map_err(|error| Error::io(format_args!("use {}", root.display()), error))?;
        Ok(Self { lab: lab.to_owned(), root })
    }

    /// The directory of the lab.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join(&self.lab)
    }

    /// A file or directory of the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Makes the directory, readable by its owner alone.
    pub(crate) fn create(&self) -> Result<(), Error> {
        make_directory(&self.dir())
    }

    /// Keeps others from making or removing labs here until the result is dropped.
    pub(crate) fn lock(&self) -> Result<Flock<File>, Error> {
        lock(&self.root)
    }

    /// The settings; `None`: there is no such lab, or not yet.
    pub(crate) fn settings(&self) -> Result<Option<Settings>, Error> {
        let path = self.path("lab.json");
        let failed = |error| Error::io(format_args!("read {}", path.display()), error);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The settings of a lab that must be there.
    pub(crate) fn existing(&self) -> Result<Settings, Error> {
        self.settings()?
            .ok_or_else(|| Error::NoLab { name: self.lab.clone(), state_root: self.root.clone() })
    }

    /// Keeps the settings.
    pub(crate) fn keep(&self, settings: &Settings) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(settings);
        let text = text.map_err(|error| Error::io("write lab.json", error))?;
        self.write("lab.json", &text)
    }

    /// Keeps the addresses that VMs shall have, by the VMs' names.
    pub(crate) fn keep_addresses(&self, addresses: &Addresses) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(addresses);
        self.write(ADDRESSES, &text.map_err(|error| Error::io("write addresses", error))?)
    }

    /// The addresses that VMs shall have; none while the lab is not up yet.
    pub(crate) fn addresses(&self) -> Result<Addresses, Error> {
        let path = self.path(ADDRESSES);
        let failed = |error| Error::io(format_args!("read {}", path.display()), error);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Addresses::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes a file of the lab; no such file is success.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Writes a file of the lab: the old one is there, or the new one, never half of it.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let (path, draft) = (self.path(name), self.path(&format!("{name}.new")));
        let write = || {
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(content)?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| Error::io(format_args!("write {}", path.display()), error))
    }
}

/// The path without symbolic links, as the kernel names mount points; what does not exist yet has
/// none. One root then has one path, whoever gives it.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for ancestor in path.ancestors() {
        let mut resolved = match fs::canonicalize(ancestor) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            done => done?,
        };
        for part in path.strip_prefix(ancestor).into_iter().flat_map(Path::components) {
            match part {
                Component::ParentDir => _ = resolved.pop(),
                part => resolved.push(part),
            }
        }
        return Ok(resolved);
    }
    Ok(path)
}

/// The names of all labs below `root`.
pub(crate) fn labs(root: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| Error::io(format_args!("read {}", root.display()), error);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if names::check_lab(&name).is_ok() {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes a directory and those above it; success when it is there.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    make(path).map_err(|error| Error::io(format_args!("make {}", path.display()), error))
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a directory, and keeps others who ask for the same from it until the result is dropped.
/// Who holds the lock may remove the directory.
pub(crate) fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let try_lock = || -> io::Result<_> {
        make(path)?;
        let directory = File::open(path)?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let (ours, now) = (lock.metadata()?, fs::metadata(path)?);
        // Whoever held the lock before may have removed the directory.
        if ours.ino() == now.ino() { Ok(lock) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    let mut last = try_lock();
    for _ in 1..LOCK_TRIES_MAX {
        match &last {
            // It went between two steps, or the one above it did.
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = try_lock(),
            _ => break,
        }
    }
    last.map_err(|error| Error::io(format_args!("lock {}", path.display()), error))
}
