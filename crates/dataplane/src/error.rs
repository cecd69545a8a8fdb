//! What can go wrong with the data plane, each with what to do about it.

use std::path::PathBuf;

/// A failure of the data plane. What was done before it stays; call again to go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object does not have a part that this version needs: the build is broken.
    #[error("the eBPF object lacks {0}; rebuild it with `make ebpf`")]
    Incomplete(&'static str),
    /// The kernel refused the object or one of its programs.
    #[error("cannot load the eBPF program {program}: {cause}")]
    Load {
        /// Which program, or `maps`.
        program: String,
        /// The kernel's or the loader's words, with the verifier's log.
        cause: String,
    },
    /// A map cannot be opened, read or written.
    #[error("eBPF map {map}: cannot {action}: {cause}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What was tried.
        action: &'static str,
        /// The kernel's words.
        cause: String,
    },
    /// A table has more entries than the map was made for.
    #[error(
        "eBPF map {map} is full: {wanted} entries wanted, room for {limit}; \
         nothing was written to it"
    )]
    MapFull {
        /// Which map.
        map: &'static str,
        /// Entries wanted.
        wanted: usize,
        /// Entries that it holds at most.
        limit: usize,
    },
    /// Two entries of the tables contradict each other.
    #[error("bad table: {0}")]
    BadTable(String),
    /// There is no such interface, or it went away meanwhile.
    #[error("no interface with index {ifindex} in this network namespace")]
    NoInterface {
        /// The index.
        ifindex: u32,
    },
    /// A program cannot be attached, replaced or detached.
    #[error("interface {ifindex}: cannot {action} {hook}: {cause}")]
    Attach {
        /// The interface.
        ifindex: u32,
        /// Which hook.
        hook: &'static str,
        /// What was tried.
        action: &'static str,
        /// The kernel's words.
        cause: String,
    },
    /// Ours cannot take over from another version's data plane.
    #[error(
        "the data plane of another version goes on as it is, until this one is filled: {cause}"
    )]
    Upgrade {
        /// What is in the way.
        cause: Box<Error>,
    },
    /// Another agent works on this data plane.
    #[error(
        "another netloom agent works on the data plane in {path}; stop it first, or give this one \
         a bpf file system of its own with --bpffs"
    )]
    Held {
        /// The mount point.
        path: PathBuf,
    },
    /// Another process hears of the dropped frames.
    #[error("somebody hears of the dropped frames in {path} already; there is one at a time")]
    Watched {
        /// The mount point.
        path: PathBuf,
    },
    /// Frames cannot be sent to ports.
    #[error("cannot {action}: {cause}; the agent needs CAP_NET_RAW and CAP_NET_ADMIN")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// The kernel's words.
        cause: std::io::Error,
    },
    /// There is nothing to look at.
    #[error(
        "no data plane of this version in {path}: no agent has run here, or it was given another \
         --bpffs"
    )]
    NoDataPlane {
        /// The mount point.
        path: PathBuf,
    },
    /// The bpf file system cannot be used.
    #[error("bpf file system at {path}: cannot {action}: {cause}")]
    Bpffs {
        /// The mount point or a path below it.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's words.
        cause: std::io::Error,
    },
}

/// Why this host cannot run the data plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// The kernel is too old.
    #[error(
        "Linux {found} is too old, netloom needs 6.6 or later (TCX); on Debian 12 install \
         linux-image-amd64 from bookworm-backports and reboot"
    )]
    Kernel {
        /// The release that runs.
        found: String,
    },
    /// Missing privileges.
    #[error("missing {0}: run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    Privilege(&'static str),
    /// The kernel was built without something.
    #[error("this kernel lacks {what}: {hint}")]
    Feature {
        /// What is missing.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

/// Longest cause that an error carries.
const MAX_CAUSE_CHARS: usize = 3_000;

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat their source in their own words.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    // The verifier's log is long, and its end says what is wrong.
    match text.char_indices().rev().nth(MAX_CAUSE_CHARS) {
        Some((at, _)) => format!("... {}", &text[at..]),
        None => text,
    }
}
