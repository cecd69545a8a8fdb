//! Namespaces that live as long as a value, for tests that need root.
//!
//! All names start with `nlt-<pid>.<start>-`, so that leftovers of a killed run are known and go
//! with the next one, also when its pid is another process's by then. Devices made inside need no
//! further care: they go with their namespace.

use std::{
    env, fs,
    io::{self, Write},
    ops::Deref,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{Error, Namespace};

const PREFIX: &str = "nlt-";
/// Made by the kernel where it has bpf.
const BPF_DIRECTORY: &str = "/sys/fs/bpf";

/// A namespace that is removed when dropped.
#[derive(Debug)]
pub struct Scratch(Namespace);

impl Scratch {
    /// Makes an empty namespace of which `topic` tells people what it is for.
    ///
    /// # Errors
    /// As [`Namespace::create`].
    pub fn new(topic: &str) -> Result<Self, Error> {
        sweep();
        Ok(Self(Namespace::create(&name(topic))?))
    }
}

impl Deref for Scratch {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = Namespace::remove(self.0.name()) {
            tracing::warn!(namespace = self.0.name(), %error, "scratch namespace stays behind");
        }
    }
}

/// A name that no other test of this or another process has.
pub fn name(topic: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = process::id();
    format!("{PREFIX}{pid}.{}-{number}-{topic}", started(pid).unwrap_or_default())
}

/// Gives the calling thread, and those that it starts from now on, an empty directory in which bpf
/// file systems may be mounted. Nobody else sees it, and the kernel takes it down with the last of
/// these threads, however they end. Other mounts stay shared: namespaces keep their names.
///
/// # Errors
/// What the kernel says.
pub fn bpf_directory() -> io::Result<&'static Path> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let (nothing, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
    mount(nothing, "/sys", nothing, private, nothing)?;
    mount(Some("scratch"), BPF_DIRECTORY, Some("tmpfs"), MsFlags::empty(), nothing)?;
    Ok(Path::new(BPF_DIRECTORY))
}

/// Whether a test that needs root may run: `false` when the caller's environment says
/// `NETLOOM_SKIP_ROOT_TESTS=1`.
///
/// # Panics
/// Without root and without that variable: a test that checks nothing must not look passed.
pub fn root_or_skip() -> bool {
    if env::var_os("NETLOOM_SKIP_ROOT_TESTS").is_some_and(|value| value == "1") {
        // Not `eprintln!`, whose text is shown for failed tests only. Nobody to tell: no harm.
        let _ = writeln!(io::stderr(), "SKIPPED: NETLOOM_SKIP_ROOT_TESTS=1");
        return false;
    }
    let is_root = nix::unistd::geteuid().is_root();
    assert!(is_root, "this test needs root; NETLOOM_SKIP_ROOT_TESTS=1 skips it");
    true
}

/// Removes what processes that are gone have left.
fn sweep() {
    for name in Namespace::list(PREFIX).unwrap_or_default() {
        if is_leftover(&name)
            && let Err(error) = Namespace::remove(&name)
        {
            tracing::warn!(namespace = name, %error, "leftover of a dead test stays behind");
        }
    }
}

/// Whether a name is one of [`name`], made by a process that is gone.
fn is_leftover(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.split_once('.'));
    let owner = owner.and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    owner.is_some_and(|(pid, start)| started(pid) != Some(start))
}

/// When a process was started, in clock ticks since boot: field 22 of /proc/<pid>/stat
/// (proc_pid_stat(5)). The second field is a command's name, which may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_is_known_though_its_pid_is_another_process_s_by_now() {
        let pid = process::id();
        let start = started(pid).unwrap();
        assert!(name("a").starts_with(&format!("{PREFIX}{pid}.{start}-")));
        assert!(!is_leftover(&name("a-b")));
        assert!(is_leftover(&format!("{PREFIX}{pid}.{}-0-a", start - 1)));
        // Above every pid (proc_sys_kernel(5), pid_max).
        assert!(is_leftover(&format!("{PREFIX}4194305.{start}-0-a")));
        for other in ["nl-demo-h1", "nlt-x.1-0-a", "nlt-", "nlt-1-0-a"] {
            assert!(!is_leftover(other), "{other} is not of this form");
        }
    }
}
