//! What every host must hold, what was sent to it and what it has acknowledged. No I/O: the shell
//! around it applies commits, pulls messages for the sessions and passes reports on.
//!
//! A host's changes wait in a short history. A session pulls what it lacks, all of it as one delta;
//! one that lags behind the history gets a snapshot. So nothing here waits for a slow host, and
//! memory is bounded. A change costs work for the hosts that it concerns; the others only have
//! their watermark moved, in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use compile::HostDelta;
use model::{
    Id,
    resource::host::Host,
    status::{Board, HostStatus},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{
    digest::{SetDigest, TableDigests},
    holding::Holding,
    message::{Hello, Report, ServerMessage},
    object::{Object, ObjectKey, Table},
    parts,
};

/// Changes kept for a host; a session that lags by more gets a snapshot.
pub(crate) const HISTORY_CHANGES_MAX: usize = 64;

/// Objects kept in all changes of a host's history.
pub(crate) const HISTORY_OBJECTS_MAX: usize = 4096;

/// States that a host was sent and has not acknowledged. Then it is sent nothing until it reports:
/// what changes meanwhile becomes one delta, and no report is about a state that was forgotten.
const SENT_MAX: usize = 256;

/// The state of all hosts.
#[derive(Default)]
pub(crate) struct Feed {
    revision: u64,
    hosts: BTreeMap<Id<Host>, HostFeed>,
    sessions: u64,
}

#[derive(Default)]
struct HostFeed {
    holding: Holding,
    /// The last revision that changed what the host must hold.
    concern: u64,
    history: History,
    /// What the host acknowledged; its revision is not moved by changes that do not concern it.
    status: HostStatus,
    /// `status` has news besides the watermark.
    dirty: bool,
    session: Option<Session>,
}

/// The newest changes of a host, numbered from 0 since the start of the server.
#[derive(Default)]
struct History {
    changes: VecDeque<Entry>,
    /// The number of the next change.
    end: u64,
    objects: usize,
}

struct Entry {
    /// The digests that the change starts from.
    before: TableDigests,
    delta: HostDelta,
}

/// A host's open stream. At most one for each host.
struct Session {
    number: u64,
    /// The first change that was not sent. `None`: the host needs a snapshot.
    next: Option<u64>,
    /// Something was sent, so the agent knows at which revision it is.
    greeted: bool,
    /// A snapshot was sent because the host held other objects than those that it was sent.
    mended: bool,
    sent: VecDeque<Sent>,
    /// SHA-256 of the client certificate, hex.
    certificate: String,
    wake: Arc<Notify>,
    over: CancellationToken,
}

/// A state that the host was brought to, or is on the way to.
struct Sent {
    revision: u64,
    digests: TableDigests,
    kernel: SetDigest,
}

/// A session's handle.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) host: Id<Host>,
    number: u64,
    /// Signalled when there may be something to pull.
    pub(crate) wake: Arc<Notify>,
    /// Cancelled when another session took its place or the host lost its credential.
    pub(crate) over: CancellationToken,
}

impl Feed {
    /// Takes a commit's effect: changes by host, only for hosts that they concern.
    pub(crate) fn apply(&mut self, revision: u64, deltas: BTreeMap<Id<Host>, HostDelta>) {
        for (host, delta) in deltas {
            self.hosts.entry(host).or_default().change(self.revision, revision, delta);
        }
        if self.revision == 0 {
            let waiting = self.hosts.values().filter_map(|feed| feed.session.as_ref());
            waiting.for_each(|session| session.wake.notify_one());
        }
        self.revision = revision;
    }

    /// Ends a host's session unless it was opened with this certificate, the only one that is
    /// good from now on.
    pub(crate) fn recertify(&mut self, host: Id<Host>, certificate: Option<&str>) {
        let session = self.hosts.get(&host).and_then(|feed| feed.session.as_ref());
        if let Some(session) = session.filter(|open| certificate != Some(&open.certificate)) {
            session.over.cancel();
        }
    }

    /// Forgets a host that was deleted.
    pub(crate) fn forget(&mut self, host: Id<Host>) {
        self.recertify(host, None);
        self.hosts.remove(&host);
    }

    /// Forgets all hosts but these.
    pub(crate) fn retain(&mut self, exists: impl Fn(Id<Host>) -> bool) {
        let gone: Vec<_> = self.hosts.keys().copied().filter(|host| !exists(*host)).collect();
        gone.into_iter().for_each(|host| self.forget(host));
    }

    /// Opens a session. One that is open for the host already is over then.
    pub(crate) fn connect(
        &mut self,
        hello: &Hello,
        certificate: String,
        over: CancellationToken,
    ) -> Ticket {
        let host = Id::new(hello.host);
        self.recertify(host, None);
        self.sessions += 1;
        let (number, wake) = (self.sessions, Arc::new(Notify::new()));
        let feed = self.hosts.entry(host).or_default();
        feed.session = Some(Session {
            number,
            next: feed.find(hello.digests),
            greeted: false,
            mended: false,
            sent: VecDeque::new(),
            certificate,
            wake: Arc::clone(&wake),
            over: over.clone(),
        });
        feed.status.connected = true;
        // Its machine may have started anew: only what it says from now on counts.
        feed.status.agrees = false;
        feed.dirty = true;
        wake.notify_one();
        Ticket { host, number, wake, over }
    }

    /// Closes a session, unless another one took its place.
    pub(crate) fn disconnect(&mut self, ticket: &Ticket) {
        if let Some(feed) = self.owner(ticket) {
            feed.session = None;
            feed.status.connected = false;
            feed.dirty = true;
        }
    }

    /// What a session has to send now; empty when the host has all.
    pub(crate) fn pull(&mut self, ticket: &Ticket) -> Vec<ServerMessage> {
        let revision = self.revision;
        if revision == 0 {
            // Not even the store's first snapshot was compiled: a host must not be told that it is
            // to hold nothing.
            return Vec::new();
        }
        self.owner(ticket).map(|feed| feed.pull(revision)).unwrap_or_default()
    }

    /// Takes what a host reports.
    pub(crate) fn report(&mut self, ticket: &Ticket, report: Report) {
        if let Some(feed) = self.owner(ticket) {
            feed.report(ticket.host, report);
        }
    }

    /// Writes what is known of all hosts that ever connected to the board. Moves the watermark of
    /// every host that has acknowledged the last change that concerned it.
    pub(crate) fn publish(&mut self, board: &mut Board) {
        board.hosts.retain(|host, _| self.hosts.contains_key(host));
        for (host, feed) in &mut self.hosts {
            feed.publish(self.revision, *host, board);
        }
    }

    /// Writes what is known of one host to the board.
    pub(crate) fn publish_host(&mut self, host: Id<Host>, board: &mut Board) {
        if let Some(feed) = self.hosts.get_mut(&host) {
            feed.publish(self.revision, host, board);
        }
    }

    fn owner(&mut self, ticket: &Ticket) -> Option<&mut HostFeed> {
        let feed = self.hosts.get_mut(&ticket.host)?;
        let own = feed.session.as_ref().is_some_and(|session| session.number == ticket.number);
        own.then_some(feed)
    }
}

impl HostFeed {
    /// Takes a change that `revision` makes; nothing up to `before` concerned the host any more.
    fn change(&mut self, before: u64, revision: u64, delta: HostDelta) {
        if delta == HostDelta::default() {
            return;
        }
        self.status.acked_revision = self.watermark(before);
        self.concern = revision;
        let before = self.holding.digests();
        delta.removes.iter().for_each(|key| self.holding.remove(key));
        delta.upserts.iter().for_each(|object| self.holding.upsert(object.clone()));
        self.history.push(Entry { before, delta });
        if let Some(session) = &self.session {
            session.wake.notify_one();
        }
    }

    /// The change that comes next for a host that holds what these digests are of.
    fn find(&self, held: TableDigests) -> Option<u64> {
        if held == self.holding.digests() {
            return Some(self.history.end);
        }
        let at = self.history.changes.iter().rposition(|entry| entry.before == held)?;
        Some(self.history.start() + at as u64)
    }

    fn pull(&mut self, revision: u64) -> Vec<ServerMessage> {
        let Some(session) = &mut self.session else { return Vec::new() };
        let (end, digests) = (self.history.end, self.holding.digests());
        if session.next == Some(end) && session.greeted || session.sent.len() == SENT_MAX {
            return Vec::new();
        }
        let messages = match session.next.and_then(|next| self.history.since(next)) {
            Some(HostDelta { upserts, removes }) => {
                parts::delta(revision, upserts, removes, digests)
            }
            None => {
                let objects = self.holding.objects().values().cloned();
                parts::snapshot(revision, objects, digests)
            }
        };
        (session.next, session.greeted) = (Some(end), true);
        session.sent.push_back(Sent { revision, digests, kernel: self.holding.kernel_digest() });
        messages
    }

    fn report(&mut self, host: Id<Host>, report: Report) {
        let Some(session) = &mut self.session else { return };
        let Some(at) = session.sent.iter().rposition(|sent| sent.revision == report.revision)
        else {
            tracing::debug!(%host, revision = report.revision, "report about another stream's state");
            return;
        };
        session.sent.drain(..at);
        // There may be room again.
        session.wake.notify_one();
        let Some(sent) = session.sent.front() else { return };
        if sent.digests != report.digests {
            tracing::warn!(%host, revision = report.revision, "host holds other objects");
            if session.mended {
                // Snapshots cost the server more than reports cost an agent that lies.
                session.over.cancel();
            } else if session.sent.len() == 1 {
                (session.next, session.mended) = (None, true);
            }
            self.status.agrees = false;
            self.dirty = true;
            return;
        }
        session.mended = false;
        let agrees = report.complete && sent.kernel == report.kernel;
        if !agrees && report.failed.is_empty() {
            tracing::warn!(%host, revision = report.revision, "data plane holds other facts");
        }
        // A host speaks for what it was given, and for nothing else.
        let own = |uuid| {
            let key = |table| ObjectKey { table, uuid };
            [Table::Instance, Table::Port].map(key).iter().any(|key| self.holds(key))
        };
        let up = report.up.into_iter().filter(|uuid| own(*uuid)).collect();
        let applied = if report.complete { report.revision } else { 0 };
        let acked_revision = applied.max(self.status.acked_revision);
        let failed = report.failed;
        let status = HostStatus { connected: true, acked_revision, agrees, up, failed };
        self.dirty |= self.status != status;
        self.status = status;
    }

    fn holds(&self, key: &ObjectKey) -> bool {
        self.holding.objects().contains_key(key)
    }

    fn publish(&mut self, revision: u64, host: Id<Host>, board: &mut Board) {
        if !self.dirty && !board.hosts.contains_key(&host) {
            return;
        }
        let status = board.hosts.entry(host).or_default();
        if std::mem::take(&mut self.dirty) {
            status.clone_from(&self.status);
        }
        status.acked_revision = self.watermark(revision);
    }

    /// Up to where the host has all that concerns it, when the store is at `revision`.
    fn watermark(&self, revision: u64) -> u64 {
        let acked = self.status.acked_revision;
        if acked > 0 && acked >= self.concern { revision.max(acked) } else { acked }
    }
}

impl History {
    fn start(&self) -> u64 {
        self.end - self.changes.len() as u64
    }

    fn push(&mut self, entry: Entry) {
        self.objects += len(&entry.delta);
        self.end += 1;
        self.changes.push_back(entry);
        while self.changes.len() > HISTORY_CHANGES_MAX || self.objects > HISTORY_OBJECTS_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.objects -= len(&oldest.delta);
        }
    }

    /// All changes from this one on as one. `None` if it is not kept any more.
    fn since(&self, first: u64) -> Option<HostDelta> {
        let skip = usize::try_from(first.checked_sub(self.start())?).ok()?;
        let mut last: BTreeMap<ObjectKey, Option<&Object>> = BTreeMap::new();
        for Entry { delta, .. } in self.changes.iter().skip(skip) {
            last.extend(delta.removes.iter().map(|key| (*key, None)));
            last.extend(delta.upserts.iter().map(|object| (object.key(), Some(object))));
        }
        let mut whole = HostDelta::default();
        for (key, object) in last {
            match object {
                Some(object) => whole.upserts.push(object.clone()),
                None => whole.removes.push(key),
            }
        }
        Some(whole)
    }
}

fn len(delta: &HostDelta) -> usize {
    delta.upserts.len() + delta.removes.len()
}

#[cfg(test)]
mod tests;
