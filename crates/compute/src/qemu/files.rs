//! What a QEMU has on disk, and how a process is told from all others by it.
//!
//! Each instance has a directory: its sockets, the pid that QEMU wrote, what QEMU said, and our
//! record of how it was started. QEMU's working directory is that one, and its sockets are named
//! relative to it: the whole way would be too long for a socket's address, and the directory can be
//! renamed while QEMU runs.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

use crate::{Error, Machine};

/// QEMU's control socket.
pub(super) const QMP: &str = "qmp";
/// The guest's serial console.
pub(super) const CONSOLE: &str = "console";
/// QEMU writes its pid there.
pub(super) const PID: &str = "pid";
/// What QEMU says.
const LOG: &str = "log";
const RECORD: &str = "record.json";

/// How much of what QEMU said is told, in bytes.
const WORDS_MAX: usize = 300;

/// The files of one instance.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) instance: Uuid,
    pub(super) directory: PathBuf,
}

/// How an instance was started, and what was plugged in since.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Record {
    pub(super) generation: u32,
    pub(super) machine: Machine,
    pub(super) nics: Vec<Plugged>,
    /// It waits for its memory from another host, and has not run here.
    #[serde(default)]
    pub(super) is_coming: bool,
    /// The number of the move by which its memory is, or was last, sent to another host.
    #[serde(default)]
    pub(super) sent_by: u32,
    /// By that move it may run there: here it does so only if it is known that it does not there.
    #[serde(default)]
    pub(super) is_handed_over: bool,
}

/// A NIC that is, or is being, plugged in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Plugged {
    pub(super) uuid: Uuid,
    pub(super) mac: [u8; 6],
}

impl Files {
    /// Where a file of it is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes the directory, empty of what an earlier QEMU left, and gives what QEMU says a file.
    pub(super) fn make(&self) -> Result<File, Error> {
        self.remove()?;
        fs::create_dir_all(&self.directory).map_err(Error::file(&self.directory))?;
        let log = self.path(LOG);
        File::create(&log).map_err(Error::file(&log))
    }

    /// Removes all of them. None is success.
    pub(super) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file(&self.directory)(error))
            }
            _ => Ok(()),
        }
    }

    /// The pid of the QEMU, if it runs. The pid may be another process's by now: only QEMU's
    /// arguments tell.
    pub(super) fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path(PID)).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        is_qemu_of(pid, self.instance).then_some(Pid::from_raw(pid))
    }

    /// Connects to one of its sockets.
    pub(super) async fn connect(&self, socket: &str) -> io::Result<UnixStream> {
        let directory = File::open(&self.directory)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        UnixStream::connect(short.join(socket)).await
    }

    /// Listens at one of its sockets, which is made anew.
    pub(super) fn listen(&self, socket: &str) -> io::Result<UnixListener> {
        let directory = File::open(&self.directory)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        match fs::remove_file(self.path(socket)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(short.join(socket)),
        }
    }

    /// How it was started; `None` if that is not known.
    pub(super) fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path(RECORD)).ok()?).ok()
    }

    /// Notes how it was started: all of it, or nothing.
    pub(super) fn note(&self, record: &Record) -> Result<(), Error> {
        let (path, new) = (self.path(RECORD), self.path("record.new"));
        let text = serde_json::to_vec(record).map_err(|error| Error::file(&path)(error.into()))?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(Error::file(&path))
    }

    /// The end of what QEMU said, on one line.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(self.path(LOG)).unwrap_or_default();
        let end = &text[text.len().saturating_sub(WORDS_MAX)..];
        let text = String::from_utf8_lossy(end);
        let words: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join("; ") }
    }
}

/// Whether this process is a QEMU of this instance. One that has ended has no arguments, also when
/// nobody has waited for it.
fn is_qemu_of(pid: i32, instance: Uuid) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let uuid = instance.to_string();
    words.windows(2).any(|pair| pair == [b"-uuid".as_slice(), uuid.as_bytes()])
}

/// Ends a process at once. None is success.
pub(super) fn end(pid: Pid) -> Result<(), Error> {
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::file(&PathBuf::from(format!("/proc/{pid}")))(errno.into())),
    }
}
