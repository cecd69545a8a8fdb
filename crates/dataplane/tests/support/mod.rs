//! A host and its VMs in network namespaces of their own, gone when the test process is.
//!
//! Each test thread leaves the machine's network and mount namespaces before it does anything.
//! Namespaces have no names, and the bpf file system is mounted in the private mount namespace, in
//! a directory that is there only: a killed test leaves nothing.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) use netloom_dataplane as dataplane;

pub(crate) mod ethtool;
pub(crate) mod flows;
pub(crate) mod old;
pub(crate) mod traffic;
pub(crate) mod vm;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Whether to run a test that needs root. Not being root is a failure, not a reason to skip,
/// unless NETLOOM_SKIP_ROOT_TESTS=1 asks for it.
pub(crate) fn may_run(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let skip = std::env::var("NETLOOM_SKIP_ROOT_TESTS").is_ok_and(|value| value == "1");
    assert!(skip, "{test} needs root (or NETLOOM_SKIP_ROOT_TESTS=1 to leave it out)");
    eprintln!("SKIPPED {test}: not root");
    false
}

/// Where the private mount namespace has an empty directory; the kernel's own has no files.
const BPF_DIRECTORY: &str = "/sys/fs/bpf";

/// The test thread as a host of its own.
pub(crate) struct Host;

impl Host {
    /// Moves the calling thread into new namespaces.
    pub(crate) fn enter() -> Host {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let flags = MsFlags::empty();
        mount(Some("scratch"), BPF_DIRECTORY, Some("tmpfs"), flags, nothing).unwrap();
        ip("link set lo up");
        Host
    }

    /// Where to mount the host's bpf file system.
    pub(crate) fn bpffs(&self) -> PathBuf {
        Path::new(BPF_DIRECTORY).join("host")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = netloom_dataplane::unload(&self.bpffs());
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}

/// The index of an interface of the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own: a VM's inside, or another host.
pub(crate) struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Its thread id, by which `ip` finds the namespace.
    pub(crate) tid: i32,
}

impl Namespace {
    /// Makes an empty namespace with `lo` up.
    pub(crate) fn new() -> Namespace {
        let (jobs, inbox) = channel::<Job>();
        let (ready, tid) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in inbox {
                job();
            }
        });
        let tid = tid.recv().unwrap();
        Namespace { jobs: Some(jobs), thread: Some(thread), tid }
    }

    /// Runs something inside and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || done.send(job()).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the job inside the namespace panicked")
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
