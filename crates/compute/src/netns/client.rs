//! The DHCP client of an instance that has no software of its own: dhcpcd, which asks for addresses of
//! both families, by DHCP and router solicitations, and keeps them.
//!
//! It is one process with its helpers, nobody's child: a restart of the agent finds it again by what was
//! noted of it, its pid and the namespace that it is in. What it writes goes to file systems of its own, which go with it:
//! it never touches the host's `resolv.conf`, and two of them never meet.
//!
//! Considered: a client of our own in the agent (a restart would be felt, and nothing would be proven
//! about real ones), busybox's udhcpc (no IPv6), dhclient (unmaintained since 2022).

use std::{
    fs, io,
    net::IpAddr,
    os::linux::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{Error, NicSpec};

/// The directory among the agent's data that has what is noted.
const CLIENTS: &str = "clients";

/// The program.
const DHCPCD: &str = "dhcpcd";

/// How long it may take until the program runs: file systems are mounted before.
const START_LIMIT: Duration = Duration::from_secs(10);
const START_PAUSE: Duration = Duration::from_millis(2);

/// What it writes would be on the host's file systems. `/sys` is that of the namespace already.
const APART: &str = "mount -t tmpfs own /run && mkdir -p /var/lib/dhcpcd && \
    mount -t tmpfs own /var/lib/dhcpcd && exec \"$@\"";

/// It stays in the foreground, knows the whole state by its arguments, and does not make up addresses
/// that nobody gave it. No ARP probes: the control plane gives each address once.
const OPTIONS: [&str; 10] = [
    "--nobackground",
    "--nodelay",
    "--noarp",
    "--noipv4ll",
    "--timeout",
    "0",
    "--config",
    "/dev/null",
    "--script",
    "/bin/true",
];

/// What is noted of a client.
#[derive(Deserialize, Serialize)]
struct Noted {
    pid: u32,
    /// The inode of its network namespace.
    inside: u64,
    asked: Asked,
}

/// What a client asks for.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
struct Asked {
    devices: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// The clients of the instances of a host.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Where is noted which run.
    directory: PathBuf,
}

impl Clients {
    /// Those of the host whose agent keeps its data there.
    pub(super) fn below(data: &Path) -> Self {
        Self { directory: data.join(CLIENTS) }
    }

    /// Ends all of them; how many there were.
    pub(super) fn end_all(&self) -> Result<usize, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(Error::file(&self.directory))?,
        };
        let of_instance = |entry: fs::DirEntry| {
            let instance = Uuid::try_parse(entry.path().file_stem()?.to_str()?).ok()?;
            self.running(instance).map(|_| instance)
        };
        let running: Vec<_> = entries.flatten().filter_map(of_instance).collect();
        running.iter().try_for_each(|instance| self.end(*instance))?;
        Ok(running.len())
    }

    /// Sees that the client of an instance asks for the addresses of these NICs, and for no others; for
    /// none it ends. One whose addresses have changed asks anew: it would learn of it by itself only
    /// after half of its lease.
    pub(super) async fn ensure(
        &self,
        (instance, namespace): (Uuid, &str),
        nics: &[NicSpec],
    ) -> Result<(), Error> {
        let asking = nics.iter().filter(|nic| !nic.asks_for.is_empty());
        let wanted = Asked {
            devices: asking.clone().map(|nic| nic.device.clone()).collect(),
            addresses: asking.flat_map(|nic| nic.asks_for.clone()).collect(),
        };
        match self.running(instance) {
            Some((_, asked)) if asked == wanted => return Ok(()),
            Some((pid, asked)) if asked.devices == wanted.devices => {
                self.note(instance, pid, &wanted)?;
                // It asks for what it has, is refused, and gets what it should have.
                return signal(pid, Signal::SIGHUP).map_err(Error::file(&self.note_file(instance)));
            }
            Some(_) => self.end(instance)?,
            None => {}
        }
        if wanted.devices.is_empty() {
            return Ok(());
        }
        self.start((instance, namespace), &wanted).await
    }

    /// Ends the client of an instance, with its helpers. None is success.
    pub(super) fn end(&self, instance: Uuid) -> Result<(), Error> {
        if let Some((pid, _)) = self.running(instance) {
            end_group(pid).map_err(Error::file(&self.note_file(instance)))?;
        }
        for file in [self.note_file(instance), self.log_file(instance)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file(&file)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn start(&self, (instance, namespace): (Uuid, &str), asked: &Asked) -> Result<(), Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|directory| directory.join(DHCPCD).is_file()) {
            return Err(Error::NoClient(DHCPCD));
        }
        fs::create_dir_all(&self.directory).map_err(Error::file(&self.directory))?;
        let (file, log) = (self.note_file(instance), self.log_file(instance));
        let said = fs::File::create(&log).map_err(Error::file(&log))?;
        let mut command = Command::new("setsid");
        command.args(["ip", "netns", "exec", namespace, "sh", "-c", APART, DHCPCD, DHCPCD]);
        command.args(OPTIONS).args(&asked.devices);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        // Each of them becomes the next one: it is one process, which tokio waits for when it has ended.
        let child = tokio::process::Command::from(command).spawn();
        let mut child = child.map_err(Error::file(Path::new("setsid")))?;
        let Some(pid) = child.id() else { return Err(not_started(&log)) };
        let limit = Instant::now() + START_LIMIT;
        // Before that its mounts are not made, and it is known as something else.
        while !is_client(pid) {
            let ended = child.try_wait().map_err(Error::file(&file))?;
            if ended.is_some() || Instant::now() > limit {
                end_group(pid).map_err(Error::file(&file))?;
                return Err(not_started(&log));
            }
            sleep(START_PAUSE).await;
        }
        self.note(instance, pid, asked)
    }

    fn note(&self, instance: Uuid, pid: u32, asked: &Asked) -> Result<(), Error> {
        let file = self.note_file(instance);
        let inside = namespace_of(pid).unwrap_or_default();
        let noted = serde_json::to_vec(&Noted { pid, inside, asked: asked.clone() });
        let noted = noted.map_err(|error| Error::file(&file)(error.into()))?;
        fs::write(&file, noted).map_err(Error::file(&file))
    }

    /// The client of an instance, and what it asks for, if it runs. The pid may be another process's by now;
    /// that is in another namespace, or is no client.
    fn running(&self, instance: Uuid) -> Option<(u32, Asked)> {
        let text = fs::read(self.note_file(instance)).ok()?;
        let noted: Noted = serde_json::from_slice(&text).ok()?;
        let is_it = is_client(noted.pid) && namespace_of(noted.pid) == Some(noted.inside);
        is_it.then_some((noted.pid, noted.asked))
    }

    fn note_file(&self, instance: Uuid) -> PathBuf {
        self.directory.join(format!("{}.client", instance.simple()))
    }

    fn log_file(&self, instance: Uuid) -> PathBuf {
        self.directory.join(format!("{}.log", instance.simple()))
    }
}

/// Whether this process is a client. It changes its arguments, but not its name.
fn is_client(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim_end() == DHCPCD)
}

fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(nix::sys::signal::kill(Pid::from_raw(pid), signal)?)
}

/// Ends a client and its helpers, at once: it leads a process group of its own.
fn end_group(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    match killpg(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The network namespace that a process is in, by its inode.
fn namespace_of(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|metadata| metadata.st_ino())
}

fn not_started(log: &Path) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Error::ClientNotStarted { words: last.unwrap_or("nothing").to_owned() }
}
