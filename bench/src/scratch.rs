//! A directory of a run's own, which goes with the run; what a killed run has left goes with the
//! next one, the process that worked in it included.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Failure, site::is_gone};

const PREFIX: &str = "nlb-";
/// The file with the number of the process that works in a directory.
const PID: &str = "pid";

/// A directory that is removed when this is dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Makes one below `root`, for `topic`.
    pub(crate) fn new(root: &Path, topic: &str) -> Result<Self, Failure> {
        let directory = root.join(format!("{PREFIX}{}-{topic}", process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self(std::path::absolute(directory)?))
    }

    /// Remembers a process that has the directory in its command line, so that it can be ended if
    /// this run is killed.
    pub(crate) fn belongs_to(&self, pid: u32) -> Result<(), Failure> {
        Ok(fs::write(self.0.join(PID), pid.to_string())?)
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
            end(&std::path::absolute(entry.path())?)?;
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Ends the process that works in a directory, unless its number belongs to another one by now.
fn end(directory: &Path) -> Result<(), Failure> {
    let Ok(pid) = fs::read_to_string(directory.join(PID)) else { return Ok(()) };
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let (own, line) = (directory.to_string_lossy(), String::from_utf8_lossy(&line));
    if line.contains(&*own) {
        kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL)?;
    }
    Ok(())
}
