//! A directory of a run's own, which goes with the run; what a killed run has left goes with the
//! next one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use crate::{Failure, site::is_gone};

const PREFIX: &str = "nlb-";

/// A directory that is removed when this is dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Makes one below `root`, for `topic`.
    pub(crate) fn new(root: &Path, topic: &str) -> Result<Self, Failure> {
        let directory = root.join(format!("{PREFIX}{}-{topic}", process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self(std::path::absolute(directory)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// Removes the directories of runs that are gone.
pub(crate) fn sweep(root: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(is_gone) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
