//! The end of a machine. It is cut off at once; its guest is asked to end and has some time for that.
//!
//! Nobody waits for it: its directory is set aside, under a name that no instance has, and whoever
//! finds it there goes on with it.

use std::{
    fs, io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use super::{
    INSTANCES, QemuOptions,
    files::{self, Files},
    plug,
    qmp::Qmp,
};
use crate::Error;

/// What the names of directories that are set aside start with; the instance and the pid follow.
const ASIDE: &str = "leaving-";

/// How long the kernel may take to end a process, and how often that is looked at.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// The machines that are to end.
#[derive(Default)]
pub(super) struct Leaving {
    tasks: Mutex<JoinSet<()>>,
    has_resumed: AtomicBool,
}

impl Leaving {
    /// Cuts a machine off, asks its guest to end, and has it end by force after `patience`.
    pub(super) async fn send_off(
        &self,
        files: &Files,
        pid: Pid,
        patience: Duration,
    ) -> Result<(), Error> {
        let is_asked = match cut(files).await {
            Ok(is_running) => is_running,
            Err(error) => {
                tracing::warn!(instance = %files.instance, %error, "its QEMU is killed");
                false
            }
        };
        let name = format!("{ASIDE}{}-{pid}", files.instance.simple());
        let aside = Files { directory: files.directory.with_file_name(name), ..files.clone() };
        fs::rename(&files.directory, &aside.directory).map_err(Error::file(&files.directory))?;
        if is_asked {
            self.follow(aside, patience);
            return Ok(());
        }
        files::end(pid)?;
        until_gone(&aside).await?;
        aside.remove()
    }

    /// Goes on, once, with what an earlier process has set aside.
    pub(super) fn resume(&self, options: &QemuOptions) -> Result<(), Error> {
        if !self.has_resumed.swap(true, Ordering::Relaxed) {
            aside(&options.directory)?
                .into_iter()
                .for_each(|files| self.follow(files, options.patience));
        }
        Ok(())
    }

    fn follow(&self, files: Files, patience: Duration) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            if let Err(error) = wait(&files, patience).await {
                tracing::warn!(instance = %files.instance, %error, "its QEMU stays behind");
            }
        });
    }
}

/// Takes a machine's NICs out; whether there is a guest that can be asked to end.
async fn cut(files: &Files) -> Result<bool, Error> {
    let mut qmp = Qmp::connect(files).await?;
    for plugged in files.record().into_iter().flat_map(|record| record.nics) {
        plug::unplug(&mut qmp, plugged.uuid).await?;
    }
    Ok(qmp.status().await? == "running")
}

async fn wait(files: &Files, patience: Duration) -> Result<(), Error> {
    let limit = Instant::now() + patience;
    let asked = async { Qmp::connect(files).await?.call("system_powerdown", json!({})).await };
    if let Err(error) = asked.await {
        tracing::debug!(instance = %files.instance, %error, "its guest cannot be asked to end");
    }
    while let Some(pid) = files.pid() {
        if Instant::now() > limit {
            tracing::info!(instance = %files.instance, "its guest does not end; it is killed");
            files::end(pid)?;
            until_gone(files).await?;
        }
        sleep(PAUSE).await;
    }
    files.remove()
}

/// Waits until a QEMU that was killed is gone.
pub(super) async fn until_gone(files: &Files) -> Result<(), Error> {
    let limit = Instant::now() + KILL_LIMIT;
    while files.pid().is_some() {
        if Instant::now() > limit {
            return Err(Error::file(&files.directory)(io::ErrorKind::TimedOut.into()));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// What is set aside in a directory.
fn aside(directory: &Path) -> Result<Vec<Files>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file(directory))?,
    };
    let files = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let instance = name.strip_prefix(ASIDE)?.split('-').next()?;
        let instance = Uuid::try_parse(instance).ok()?;
        Some(Files { instance, directory: entry.path() })
    };
    Ok(entries.flatten().filter_map(files).collect())
}

/// Kills every QEMU of a host whose agent kept its data there and does not run any more; how many
/// there were. They may still be there for a moment.
///
/// # Errors
/// What the kernel says.
pub(crate) fn end_all(data: &Path) -> Result<usize, Error> {
    let directory = data.join(INSTANCES);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(Error::file(&directory))?,
    };
    let of_instance = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let instance = name.strip_prefix(ASIDE).unwrap_or(&name).split('-').next()?;
        let instance = Uuid::try_parse(instance).ok()?;
        Files { instance, directory: entry.path() }.pid()
    };
    let pids: Vec<_> = entries.flatten().filter_map(of_instance).collect();
    pids.iter().try_for_each(|pid| files::end(*pid))?;
    Ok(pids.len())
}
