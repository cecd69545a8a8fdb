//! Open files: every connection is one, so their limit bounds how many there can be.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Failure;

/// Files that are open beside connections, with room to spare: the store's three, sockets, the
/// runtime's, pipes, the log.
const OWN: u64 = 64;
/// The fewest files with which the server starts: its own, and some dozens of each kind of peer.
const FEWEST: u64 = 256;

/// Raises the limit on open files to the highest that this user may have, and gives it.
pub(crate) fn raise() -> Result<u64, Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Refused where a sandbox forbids it; what there is has to do then.
    let reached = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit on open files stays as it is");
            soft
        }
    };
    Ok(reached)
}

/// How many of `wanted` REST connections fit: half of the files that the server does not need
/// itself. The other half is for agents, one connection for each host.
pub(crate) fn share(files: u64, wanted: usize) -> Result<usize, Failure> {
    if files < FEWEST {
        return Err(format!(
            "this process may open {files} files, too few to serve; allow {FEWEST} or more: \
             LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell"
        )
        .into());
    }
    let half = usize::try_from((files - OWN) / 2).unwrap_or(usize::MAX);
    Ok(wanted.clamp(1, half))
}

/// How many of `wanted` connections at the agents' door may be nobody's yet: at most half of those
/// that are for agents, so that there is room for hosts.
pub(crate) fn guests(files: u64, wanted: usize) -> usize {
    let half = usize::try_from(files.saturating_sub(OWN) / 4).unwrap_or(usize::MAX);
    wanted.clamp(1, half.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_half_of_the_agents_files_to_hosts() {
        assert_eq!([1 << 20, 1024, 256].map(|files| guests(files, 1024)), [1024, 240, 48]);
    }

    #[test]
    fn connections_never_take_the_files_of_agents_and_store() {
        assert_eq!(share(1 << 20, 4096).unwrap(), 4096);
        assert_eq!(share(1024, 4096).unwrap(), 480);
        assert_eq!(share(256, 4096).unwrap(), 96);
        assert_eq!(share(u64::MAX, 0).unwrap(), 1);
        let refused = share(255, 4096).unwrap_err().to_string();
        assert!(refused.contains("255") && refused.contains("LimitNOFILE"), "{refused}");
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
