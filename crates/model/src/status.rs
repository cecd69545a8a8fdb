//! What hosts report. Status is level-triggered, kept in memory, and never needed to decide config.
//!
//! `link` writes the board, `control` and `api` read it: data flows one way.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::{Id, resource::host::Host};

/// What is known of every host right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// By host; a host that never connected has no entry.
    pub hosts: BTreeMap<Id<Host>, HostStatus>,
}

/// What is known of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// Its agent's stream is open.
    pub connected: bool,
    /// The store revision up to which it has applied all that concerns it.
    pub acked_revision: u64,
    /// It holds exactly what the server compiled for it (digests agree), at `acked_revision`.
    pub agrees: bool,
    /// Instances that run, and NICs that are up.
    pub up: BTreeSet<Uuid>,
    /// Objects that it could not apply, with the reason.
    pub failed: BTreeMap<Uuid, String>,
}

/// Of a host that has never been heard of.
const UNHEARD: &HostStatus = &HostStatus {
    connected: false,
    acked_revision: 0,
    agrees: false,
    up: BTreeSet::new(),
    failed: BTreeMap::new(),
};

impl Board {
    /// What is known of `host`. A host's sets may be large: look, do not copy.
    #[must_use]
    pub fn status(&self, host: Id<Host>) -> &HostStatus {
        self.hosts.get(&host).unwrap_or(UNHEARD)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nothing_is_known_of_a_host_that_was_never_heard_of() {
        let host = Id::new(Uuid::from_u128(1));
        assert_eq!(*Board::default().status(host), HostStatus::default());
        let known = HostStatus { acked_revision: 7, ..HostStatus::default() };
        let board = Board { hosts: [(host, known.clone())].into() };
        assert_eq!(*board.status(host), known);
    }
}
