//! What the agent's heap keeps of what was freed.
//!
//! glibc keeps up to twice the largest block that was ever freed, in an arena of each thread
//! (mallopt(3)). aya reads the kernel's types when an object is loaded, whatever it is told: 14 MiB
//! that would stay with every agent for good. glibc can be told by the environment alone, before a
//! process starts; by `mallopt` it would need `unsafe`. Considered: mimalloc and jemalloc, which kept
//! 16 and 19 MiB where this leaves 10 and plain glibc 25.

use std::{env, io, os::unix::process::CommandExt, process::Command};

/// What glibc is told: one arena, and no more than 128 KiB at its end.
const SETTINGS: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Starts this process's program anew with the settings, unless somebody has made such settings.
///
/// # Errors
/// Why it could not be started anew: it goes on as it is.
pub(crate) fn settle() -> io::Result<()> {
    if SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    // Not by `/proc/self/exe`, which would be the process's name then.
    let mut command = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).envs(SETTINGS).exec())
}
