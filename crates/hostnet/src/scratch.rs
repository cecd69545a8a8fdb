//! Namespaces that live as long as a value, for tests that need root.
//!
//! All names start with `nlt-<pid>-`, so that leftovers of a killed run are known and go with the
//! next one. Devices made inside need no further care: they go with their namespace.

use std::{
    env,
    io::{self, Write},
    ops::Deref,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Error, Namespace};

const PREFIX: &str = "nlt-";

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

/// A name that no other test of this or another living process has.
pub fn name(topic: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}-{topic}", process::id())
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
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_dead = pid.is_some_and(|pid| {
            pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
        });
        if is_dead && let Err(error) = Namespace::remove(&name) {
            tracing::warn!(namespace = name, %error, "leftover of a dead test stays behind");
        }
    }
}
