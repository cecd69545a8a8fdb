//! What an operator may want to know: figures of the whole server, none of a tenant. Nothing here
//! walks over rows of the store.

use std::{collections::BTreeMap, time::Instant};

use model::{Kind, Timestamp};
use store::Read;

use crate::Gate;

/// The figures at one moment. Counts begin with the process.
#[derive(Clone, Debug)]
pub struct Measures {
    /// The store's own.
    pub store: store::Measures,
    /// The newest revision.
    pub revision: u64,
    /// The revision up to which changes have been compiled for hosts.
    pub compiled: u64,
    /// Rows of each kind.
    pub rows: Vec<(Kind, u64)>,
    /// Jobs.
    pub jobs: JobMeasures,
    /// Hosts.
    pub hosts: HostMeasures,
    /// Claims of deleted resources that hosts have not let go yet.
    pub releases_open: u64,
    /// Open sessions.
    pub sessions: usize,
    /// Queries that run.
    pub queries_running: usize,
    /// Queries that wait for their turn.
    pub queries_waiting: usize,
    /// Now.
    pub now: Timestamp,
}

/// What there is of jobs.
#[derive(Clone, Debug, Default)]
pub struct JobMeasures {
    /// All that can still be asked for.
    pub kept: usize,
    /// Those in whose transaction the server is.
    pub running: usize,
    /// Those that are durable, and not known to be in effect on their hosts.
    pub waiting: usize,
    /// When the oldest of these was made; up to a minute old.
    pub oldest: Option<Timestamp>,
    /// Calls that were refused, by code.
    pub refusals: BTreeMap<&'static str, u64>,
}

/// What there is of hosts.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostMeasures {
    /// All that were added.
    pub added: u64,
    /// Those whose agent is connected.
    pub connected: usize,
    /// Those of them on which all that they were told is in effect.
    pub in_force: usize,
    /// Objects that hosts have not confirmed, over all hosts.
    pub pending: usize,
    /// Objects that are not as they must be, over all hosts.
    pub failed: usize,
}

impl Gate {
    /// What an operator may want to know. Costs some look-ups, and a walk over hosts and sessions.
    #[must_use]
    pub fn measures(&self) -> Measures {
        let (snapshot, board) = (self.store().snapshot(), self.jobs.board());
        let added = snapshot.total(Kind::Host);
        let mut hosts = HostMeasures { added, ..HostMeasures::default() };
        for status in board.hosts() {
            let (pending, failed) = (status.pending.len(), status.failed.len());
            let in_force = status.connected && status.agrees && pending + failed == 0;
            hosts.connected += usize::from(status.connected);
            hosts.in_force += usize::from(in_force);
            hosts.pending += pending;
            hosts.failed += failed;
        }
        let (queries_running, queries_waiting) = self.readers.load();
        Measures {
            store: self.store().measures(),
            revision: snapshot.revision(),
            compiled: board.revision,
            rows: Kind::ALL.iter().map(|&kind| (kind, snapshot.total(kind))).collect(),
            jobs: self.jobs.measures(),
            hosts,
            releases_open: snapshot.total(Kind::Release),
            sessions: self.sessions.count(Instant::now()),
            queries_running,
            queries_waiting,
            now: self.now(),
        }
    }
}
