//! The processes of a lab: started detached, known by pid and start time, ended by that pid only.
//!
//! Pid, start time and boot tell a process from every other one, also from one that was given its
//! pid later; the pid file holds all three. When `up` was killed before it could write that file,
//! the command line tells, since nobody else's names our data directory.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use hostnet::Namespace;
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, names,
    state::{Place, Settings, make_directory},
    underlay, wait,
};

/// The name of the server among the processes; the others are named like their hosts.
pub(crate) const SERVER: &str = "server";
/// How long a process may take to end by itself; an agent closes its stream, the server its store.
const TERM_LIMIT: Duration = Duration::from_secs(5);
/// How long the kernel may take to end a process.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How much of a log is shown, in lines.
const LOG_LINES: usize = 12;

/// A process of a lab, running or not.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    place: Place,
    pub(crate) name: String,
}

/// What tells a process from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    /// Since boot, in clock ticks.
    start_ticks: u64,
    /// The uuid of that boot (random(4)).
    boot: String,
}

impl Process {
    /// The server of a lab.
    pub(crate) fn server(place: &Place) -> Self {
        Self { place: place.clone(), name: SERVER.to_owned() }
    }

    /// The agent of a host.
    pub(crate) fn agent(place: &Place, host: &str) -> Self {
        Self { place: place.clone(), name: host.to_owned() }
    }

    /// All processes of a lab; the server comes first.
    pub(crate) fn all(place: &Place, hosts: &[String]) -> Vec<Self> {
        let agents = hosts.iter().map(|host| Self::agent(place, host));
        std::iter::once(Self::server(place)).chain(agents).collect()
    }

    /// Where it keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.place.path(&self.name)
    }

    /// Its pid, if it runs.
    pub(crate) fn pid(&self) -> Result<Option<i32>, Error> {
        Ok(self.identity()?.map(|identity| identity.pid))
    }

    /// Forgets a process that has ended.
    pub(crate) fn forget_if_ended(&self) -> Result<(), Error> {
        if self.pid()?.is_some() {
            return Ok(());
        }
        self.place.remove(&self.pid_file())
    }

    /// Whether it was started and not forgotten since: then it should run.
    pub(crate) fn was_started(&self) -> bool {
        self.place.path(&self.pid_file()).exists()
    }

    /// Starts it unless it runs, and returns its pid. It needs its namespaces.
    pub(crate) fn start(&self, settings: &Settings) -> Result<i32, Error> {
        if let Some(pid) = self.pid()? {
            return Ok(pid);
        }
        make_directory(&self.data())?;
        let failed = |error| Error::io(format_args!("start {}", self.name), error);
        // A pid file of an earlier process would hide a new one that has none yet.
        self.place.remove(&self.pid_file())?;
        let log = File::options().append(true).create(true).open(self.log()).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let mut command = Command::new(&settings.binary);
        command.args(self.arguments(settings)).stdin(Stdio::null()).stdout(log).stderr(errors);
        // No terminal's signals reach a process group of its own.
        command.process_group(0).current_dir("/").env("NO_COLOR", "1");
        let child = match self.is_server() {
            true => command.spawn(),
            // A child starts in the namespace of the thread that started it.
            false => Namespace::open(&names::namespace(&self.place.lab, &self.name))?
                .run_in(|| command.spawn())?,
        };
        let pid = child.map_err(failed)?.id().cast_signed();
        // One that ended at once is remembered too, as one that should run.
        let identity =
            identify(pid).unwrap_or(Identity { pid, start_ticks: 0, boot: String::new() });
        let text = serde_json::to_vec(&identity).map_err(|error| failed(error.into()))?;
        self.place.write(&self.pid_file(), &text)?;
        Ok(pid)
    }

    /// Asks it to end, and makes it end. Success when it does not run.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.signal(Signal::SIGTERM)?;
        if !self.ends_within(TERM_LIMIT)? {
            tracing::warn!(process = self.name, "does not end by SIGTERM; killing it");
        }
        self.kill()
    }

    /// Ends it at once, as a crash would. Success when it does not run.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        self.signal(Signal::SIGKILL)?;
        if self.ends_within(KILL_LIMIT)? {
            return Ok(());
        }
        let pid = self.pid()?.unwrap_or_default();
        Err(Error::Unkillable { lab: self.place.lab.clone(), process: self.name.clone(), pid })
    }

    /// Sends it a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(identity) = self.identity()? else { return Ok(()) };
        match kill(Pid::from_raw(identity.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::io(format_args!("send {signal} to {}", self.name), errno)),
        }
    }

    /// The error that tells that it ended, with the end of its log.
    pub(crate) fn ended(&self) -> Error {
        let (lab, process) = (self.place.lab.clone(), self.name.clone());
        Error::Ended { lab, process, log: self.log_end() }
    }

    /// The last lines that it wrote.
    pub(crate) fn log_end(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn ends_within(&self, limit: Duration) -> Result<bool, Error> {
        let ended = wait::until(limit, || match self.pid() {
            Ok(pid) => Ok(pid.is_none().then_some(())),
            Err(error) => Err(error),
        })?;
        Ok(ended.is_some())
    }

    fn is_server(&self) -> bool {
        self.name == SERVER
    }

    fn pid_file(&self) -> String {
        format!("{}.pid", self.name)
    }

    fn log(&self) -> PathBuf {
        self.place.path(&format!("{}.log", self.name))
    }

    fn arguments(&self, settings: &Settings) -> Vec<String> {
        let (lab, data) = (&self.place.lab, self.data());
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments: Vec<(&str, String)> = vec![("--data", text(data.clone()))];
        if self.is_server() {
            arguments.push(("--listen", settings.listen.to_string()));
            arguments.push(("--link-listen", underlay::server().to_string()));
            arguments.push(("--link-netns", names::namespace(lab, names::FABRIC)));
        } else {
            arguments.push(("--bpffs", text(data.join("bpf"))));
            arguments.push(("--prefix", names::namespace(lab, &self.name)));
            arguments.push(("--enrol", text(data.join("bundle.json"))));
            arguments.extend(share(settings.hosts.len()));
        }
        let verb = if self.is_server() { "server" } else { "agent" };
        let pairs = arguments.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
        let others = settings.agent_options.iter().filter(|_| !self.is_server()).cloned();
        std::iter::once(verb.to_owned()).chain(pairs).chain(others).collect()
    }

    /// The live process, by its pid file, else by its command line.
    fn identity(&self) -> Result<Option<Identity>, Error> {
        let recorded = match fs::read(self.place.path(&self.pid_file())) {
            Ok(bytes) => serde_json::from_slice::<Identity>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(format_args!("read {}", self.pid_file()), error)),
        };
        match recorded {
            Some(recorded) => Ok(identify(recorded.pid).filter(|found| *found == recorded)),
            None => self.find(),
        }
    }

    fn find(&self) -> Result<Option<Identity>, Error> {
        let entries = fs::read_dir("/proc").map_err(|error| Error::io("read /proc", error))?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut ours = pids.filter(|pid| self.is_ours(*pid));
        Ok(ours.find_map(identify))
    }

    /// Whether the command line of a process is that of this one. Data directories belong to one
    /// process each, so nobody else's line looks like it.
    fn is_ours(&self, pid: i32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let verb = if self.is_server() { "server" } else { "agent" };
        let data = self.data();
        let data = data.as_os_str().as_encoded_bytes();
        words.get(1).is_some_and(|word| *word == verb.as_bytes())
            && words.windows(2).any(|pair| pair == [b"--data".as_slice(), data])
    }
}

/// Hosts of a lab that take as much of the machine as hosts of their own would.
const FULL_HOSTS: usize = 8;

/// What keeps the hosts of a large lab from taking all of the machine that they share: together they
/// have as much memory for connections as [`FULL_HOSTS`] would, and hardly anything made ready.
fn share(hosts: usize) -> Vec<(&'static str, String)> {
    if hosts <= FULL_HOSTS {
        return Vec::new();
    }
    let memory_bytes = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    // An agent takes a 256th by itself.
    let mib = (memory_bytes >> 28) * FULL_HOSTS as u64 / hosts as u64;
    vec![("--connection-mib", mib.max(1).to_string()), ("--spares", "1".to_owned())]
}

/// Who a pid is now; `None` when it is free, or dead and not yet waited for.
fn identify(pid: i32) -> Option<Identity> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let Stat { state, threads, start_ticks } = parse_stat(&stat)?;
    // A killed process looks dead as soon as its first thread is; the others still hold its files
    // and ports until they are gone too.
    if matches!(state, 'Z' | 'X') && threads <= 1 {
        // Reaps a child of this process; those of others are reaped by their parents.
        waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok();
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(Identity { pid, start_ticks, boot: boot.trim_end().to_owned() })
}

/// What we need of /proc/<pid>/stat (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u64,
    start_ticks: u64,
}

/// Fields 3, 20 and 22. The second one is a command's name, which may hold anything.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    let state = fields.first()?.chars().next()?;
    Some(Stat { state, threads: number(17)?, start_ticks: number(19)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_hide_the_start_time() {
        let stat = "7 (a) b)) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 9 0 4711 9 9";
        let expected = Stat { state: 'S', threads: 9, start_ticks: 4711 };
        assert_eq!(parse_stat(stat), Some(expected));
    }

    #[test]
    fn a_process_is_found_by_its_data_directory_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new("unit", root.path()).unwrap();
        place.create().unwrap();
        fs::write(place.path("agent"), "read line").unwrap();
        let run = |data: PathBuf| {
            let mut command = Command::new("sh");
            command.args(["agent", "--data"]).arg(data).current_dir(place.dir());
            command.stdin(Stdio::piped()).spawn().unwrap()
        };
        let agent = Process::agent(&place, "h1");
        let mut other = run(place.path("h11"));
        assert_eq!(agent.pid().unwrap(), None, "another host's data");
        let mut own = run(agent.data());
        // For a moment after its start, a process has no command line yet.
        let is_found = || agent.pid().unwrap() == Some(own.id().cast_signed());
        assert!(wait::holds(KILL_LIMIT, is_found));
        agent.stop().unwrap();
        assert!(own.try_wait().is_err() || !own.wait().unwrap().success(), "it was ended");
        assert_eq!(other.try_wait().unwrap(), None, "the other one goes on");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
