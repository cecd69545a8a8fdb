//! What every host must hold, what was sent to it and what it has confirmed. No I/O: the shell
//! around it applies commits, pulls for the sessions and passes reports on.
//!
//! A host's changes wait in a short history. A session takes those that it lacks as one delta; one
//! that lags behind the history gets a snapshot. So nothing here waits for a slow host, and memory
//! is bounded. The work of a change grows with the number of hosts that it concerns, not with the
//! number of all hosts.
//!
//! A session gets a copy that shares its objects with the feed, so it makes messages of it without
//! holding the lock.

mod history;
mod host;
mod outgoing;
mod runs;
mod shown;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use compile::HostDelta;
use model::{Id, Timestamp, resource::host::Host, status::Board};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    holding::Holding,
    message::{Heartbeat, Hello, Report},
};

use host::{HostFeed, Session};
pub(crate) use outgoing::Outgoing;

/// Changes kept for a host; a session that lags by more gets a snapshot.
pub(crate) const HISTORY_CHANGES_MAX: usize = 64;

/// Objects kept in all changes of a host's history.
pub(crate) const HISTORY_OBJECTS_MAX: usize = 4096;

/// Most objects that may be pending on one host. Beyond that they are forgotten, and the host
/// counts as unconfirmed, as after a start of the server, until it confirms all that it holds.
pub(crate) const PENDING_MAX: usize = 65_536;

/// Most objects in the first report of a host that it is not to hold: those that an earlier server
/// told it to remove, and that it could not remove.
pub(crate) const LINGERING_MAX: usize = 1024;

/// Most states that a host was sent and has not reported about. At that number it is sent nothing
/// until it reports; what changes meanwhile becomes one delta.
const SENT_MAX: usize = 256;

/// The state of all hosts.
pub(crate) struct Feed {
    revision: u64,
    /// The revision that the server started with.
    first: u64,
    hosts: BTreeMap<Id<Host>, HostFeed>,
    /// Hosts whose status has changed since it was written to the board.
    news: BTreeSet<Id<Host>>,
    sessions: u64,
    origin: Origin,
}

/// Which store the revisions are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Of this start of the server.
    pub(crate) lineage: Uuid,
    /// Of earlier starts, each with the newest revision that it can have told.
    pub(crate) earlier: Arc<BTreeMap<Uuid, u64>>,
    /// Also tell those hosts what to hold that were told a later revision, or were told by another
    /// store.
    pub(crate) accept_older: bool,
}

/// What a heartbeat says that was not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// Counters: nothing is decided by them, so nobody who waits for something need look.
    ForPeople,
    /// Something else.
    ForAll,
}

/// A session's handle.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) host: Id<Host>,
    /// No other session of this server has it; later ones have greater ones.
    pub(crate) number: u64,
    /// The protocol of its agent, and its release.
    pub(crate) protocol: u32,
    pub(crate) release: String,
    /// Signalled when there may be something to pull.
    pub(crate) wake: Arc<Notify>,
    /// Cancelled when another session took its place or the host lost its credential.
    pub(crate) over: CancellationToken,
}

impl Feed {
    /// Of no host, before anything was read from the store.
    pub(crate) fn new(origin: Origin) -> Self {
        let (hosts, news) = (BTreeMap::new(), BTreeSet::new());
        Self { revision: 0, first: 0, hosts, news, sessions: 0, origin }
    }

    /// Takes everything that all hosts must hold: at the start, or after what was committed in
    /// between was missed.
    pub(crate) fn load(&mut self, revision: u64, mut hosts: BTreeMap<Id<Host>, Holding>) {
        if self.revision != 0 {
            for host in self.hosts.keys() {
                hosts.entry(*host).or_default();
            }
            let none = HostFeed::default();
            let difference = |(host, holding): (_, Holding)| {
                (host, self.hosts.get(&host).unwrap_or(&none).difference(&holding))
            };
            let deltas = hosts.into_iter().map(difference).collect();
            return self.apply(revision, deltas);
        }
        for (host, holding) in hosts {
            self.hosts.entry(host).or_default().load(host, revision, holding);
        }
        (self.first, self.revision) = (revision, revision);
        let waiting = self.hosts.values().filter_map(|feed| feed.session.as_ref());
        waiting.for_each(|session| session.wake.notify_one());
    }

    /// Takes a commit's effect: changes by host, only for hosts that they concern.
    pub(crate) fn apply(&mut self, revision: u64, deltas: BTreeMap<Id<Host>, HostDelta>) {
        for (host, delta) in deltas {
            self.hosts.entry(host).or_default().change(host, revision, delta);
            self.news.insert(host);
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

    /// Ends the stream of a host, which has to connect and to confirm what it holds anew.
    pub(crate) fn reconnect(&mut self, host: Id<Host>, revision: u64) {
        if let Some(feed) = self.hosts.get_mut(&host) {
            feed.reconnect(host, revision);
            self.news.insert(host);
        }
    }

    /// Forgets a host that was deleted.
    pub(crate) fn forget(&mut self, host: Id<Host>) {
        self.recertify(host, None);
        self.hosts.remove(&host);
        self.news.insert(host);
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
        (certificate, source): (String, IpAddr),
        over: CancellationToken,
    ) -> Ticket {
        let host = Id::new(hello.host);
        self.recertify(host, None);
        self.sessions += 1;
        let (number, wake) = (self.sessions, Arc::new(Notify::new()));
        let session = Session::new(number, certificate, Arc::clone(&wake), over.clone());
        self.hosts.entry(host).or_default().connect(self.revision, (hello, source), session);
        self.news.insert(host);
        wake.notify_one();
        let (protocol, release) = (hello.protocol, hello.agent_version.clone());
        Ticket { host, number, protocol, release, wake, over }
    }

    /// Closes a session, unless another one took its place.
    pub(crate) fn disconnect(&mut self, ticket: &Ticket) {
        if let Some(feed) = self.owner(ticket) {
            feed.session = None;
            feed.status.connected = false;
            self.news.insert(ticket.host);
        }
    }

    /// What a session has to send now; `None` when the host has all, or is told nothing.
    pub(crate) fn pull(&mut self, ticket: &Ticket) -> Option<Outgoing> {
        let (revision, origin) = (self.revision, self.origin.clone());
        if revision == 0 {
            // The store's first snapshot is not compiled yet. A message now would tell the host to
            // remove all that it holds.
            return None;
        }
        let feed = self.owner(ticket)?;
        if !feed.is_told_by(ticket.host, &origin) {
            self.news.insert(ticket.host);
            return None;
        }
        feed.pull(revision, origin.lineage)
    }

    /// The session has lasted: no other agent is after its place.
    pub(crate) fn lasts(&mut self, ticket: &Ticket) {
        if let Some(feed) = self.owner(ticket)
            && feed.status.doubled.take().is_some()
        {
            self.news.insert(ticket.host);
        }
    }

    /// How many objects the session's host is to hold.
    pub(crate) fn held(&mut self, ticket: &Ticket) -> usize {
        self.owner(ticket).map_or(0, |feed| feed.held())
    }

    /// Takes what a host reports.
    pub(crate) fn report(&mut self, ticket: &Ticket, report: Report) {
        if let Some(feed) = self.owner(ticket)
            && feed.report(ticket.host, report)
        {
            self.news.insert(ticket.host);
        }
    }

    /// Takes a heartbeat that came at `now`; says whether it says anything new.
    pub(crate) fn beat(&mut self, ticket: &Ticket, beat: Heartbeat, now: Timestamp) -> News {
        let news = self.owner(ticket).map_or(News::None, |feed| feed.beat(ticket.host, beat, now));
        if news != News::None {
            self.news.insert(ticket.host);
        }
        news
    }

    /// Writes what is new to the board at `now`, and says whether anything is. The work grows with
    /// what has changed.
    pub(crate) fn publish(&mut self, board: &mut Board, now: Timestamp) -> bool {
        let is_new = board.revision != self.revision || !self.news.is_empty();
        (board.revision, board.first) = (self.revision, self.first);
        for host in std::mem::take(&mut self.news) {
            match self.hosts.get_mut(&host) {
                Some(feed) => {
                    if board.status(host).connected != feed.status.connected {
                        feed.status.since = Some(now);
                    }
                    board.put(host, feed.status.clone());
                }
                None => board.remove(host),
            }
        }
        is_new
    }

    fn owner(&mut self, ticket: &Ticket) -> Option<&mut HostFeed> {
        let feed = self.hosts.get_mut(&ticket.host)?;
        let own = feed.session.as_ref().is_some_and(|session| session.number == ticket.number);
        own.then_some(feed)
    }
}

#[cfg(test)]
mod tests;
