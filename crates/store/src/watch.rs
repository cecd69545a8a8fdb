//! Watching: every committed transaction, in order, once.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    watch,
};

use crate::{
    Change, Follower, Gone, Row, Snapshot,
    history::{History, Past},
};

/// How many transactions a watcher may be behind before it has lagged.
pub const WATCH_CAPACITY: usize = 1024;

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum Event<R: Row> {
    /// Where it starts, or starts again: forget everything older.
    Snapshot(Snapshot<R>),
    /// The next transaction.
    Commit(Commit<R>),
    /// It was too slow, or the store had to load its state anew. A [`Event::Snapshot`] follows.
    Lagged,
}

/// A committed transaction. The store's snapshots show it, and maybe later ones.
///
/// It does not bring the state along that it left: a thousand of these wait for watchers, and each
/// state would keep what the next one has replaced.
#[derive(Clone, Debug)]
pub struct Commit<R: Row> {
    /// The revision that it made.
    pub revision: u64,
    /// The rows that it changed; none, when it only wrote counters or fences.
    pub changes: Arc<[Change<R>]>,
}

/// A bounded stream of [`Event`]s, beginning with a snapshot. Ends when the store is dropped.
pub struct Watch<R: Row> {
    shared: Arc<Shared<R>>,
    feed: Option<broadcast::Receiver<Notice<R>>>,
    start: Option<Snapshot<R>>,
}

/// What the writer thread shows to everybody else.
pub(crate) struct Shared<R: Row> {
    pub(crate) published: RwLock<Published<R>>,
}

pub(crate) struct Published<R: Row> {
    snapshot: Snapshot<R>,
    /// `None` once the writer has ended.
    feed: Option<Feed<R>>,
    pub(crate) history: History<R>,
}

/// By which those who wait learn of a revision.
struct Feed<R: Row> {
    notices: broadcast::Sender<Notice<R>>,
    newest: watch::Sender<u64>,
}

#[derive(Clone)]
enum Notice<R: Row> {
    Commit(Commit<R>),
    Reset,
}

impl<R: Row> Watch<R> {
    pub(crate) fn new(shared: Arc<Shared<R>>) -> Self {
        let mut watch = Self { shared, feed: None, start: None };
        watch.begin();
        watch
    }

    /// The next event; `None` once the store is gone. Cancel safe: dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Event<R>> {
        if let Some(snapshot) = self.start.take() {
            return Some(Event::Snapshot(snapshot));
        }
        let received = self.feed.as_mut()?.recv().await;
        self.event(received)
    }

    /// The next event, for threads outside of an async runtime, where it blocks.
    pub fn next_blocking(&mut self) -> Option<Event<R>> {
        if let Some(snapshot) = self.start.take() {
            return Some(Event::Snapshot(snapshot));
        }
        let received = self.feed.as_mut()?.blocking_recv();
        self.event(received)
    }

    /// The next event if it is there already; `None` also once the store is gone.
    pub fn try_next(&mut self) -> Option<Event<R>> {
        if let Some(snapshot) = self.start.take() {
            return Some(Event::Snapshot(snapshot));
        }
        let received = match self.feed.as_mut()?.try_recv() {
            Ok(notice) => Ok(notice),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
        };
        self.event(received)
    }

    fn event(&mut self, received: Result<Notice<R>, RecvError>) -> Option<Event<R>> {
        match received {
            Ok(Notice::Commit(commit)) => Some(Event::Commit(commit)),
            Ok(Notice::Reset) | Err(RecvError::Lagged(_)) => {
                self.begin();
                Some(Event::Lagged)
            }
            Err(RecvError::Closed) => None,
        }
    }

    /// Snapshot and subscription are taken under one lock: no transaction is lost between them,
    /// none comes twice.
    fn begin(&mut self) {
        let published = self.shared.published.read().unwrap_or_else(PoisonError::into_inner);
        self.feed = published.feed.as_ref().map(|feed| feed.notices.subscribe());
        self.start = Some(published.snapshot.clone());
    }
}

impl<R: Row> Shared<R> {
    pub(crate) fn new(snapshot: Snapshot<R>) -> Self {
        let (notices, revision) = (broadcast::Sender::new(WATCH_CAPACITY), snapshot.revision());
        let feed = Some(Feed { notices, newest: watch::Sender::new(revision) });
        let history = History::new(revision);
        Self { published: RwLock::new(Published { snapshot, feed, history }) }
    }

    pub(crate) fn snapshot(&self) -> Snapshot<R> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).snapshot.clone()
    }

    /// Tells what follows revision `after`.
    pub(crate) fn follow(self: &Arc<Self>, after: u64) -> Result<Follower<R>, Gone> {
        let newest = {
            let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
            // Of a store whose writer has ended nothing new comes: such a receiver says so.
            published.feed.as_ref().map_or_else(|| watch::channel(0).1, |it| it.newest.subscribe())
        };
        Follower::new(Arc::clone(self), after, newest)
    }

    /// These transactions, which lead to `snapshot`, are durable.
    pub(crate) fn publish(&self, snapshot: Snapshot<R>, commits: Vec<Commit<R>>) {
        let keep = |history: &mut History<R>| {
            let changes = |it: &Commit<R>| (it.revision, Arc::clone(&it.changes));
            commits.iter().map(changes).flat_map(|(at, it)| history.push(at, it)).collect()
        };
        let notices = commits.iter().cloned().map(Notice::Commit).collect();
        self.show(snapshot, keep, notices);
    }

    /// The state has jumped: watchers start again.
    pub(crate) fn reset(&self, snapshot: Snapshot<R>) {
        let revision = snapshot.revision();
        let forget = |history: &mut History<R>| {
            *history = History::new(revision);
            Vec::new()
        };
        self.show(snapshot, forget, vec![Notice::Reset]);
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.published.write().unwrap_or_else(PoisonError::into_inner).feed = None;
    }

    fn show(
        &self,
        snapshot: Snapshot<R>,
        note: impl FnOnce(&mut History<R>) -> Vec<Past<R>>,
        notices: Vec<Notice<R>>,
    ) {
        let revision = snapshot.revision();
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut published.snapshot, snapshot);
        let forgotten = note(&mut published.history);
        if let Some(feed) = &published.feed {
            for notice in notices {
                // An error says that nobody watches.
                let _ = feed.notices.send(notice);
            }
            feed.newest.send_replace(revision);
        }
        drop(published);
        // Thousands of rows, sometimes: readers need not wait for it.
        drop((before, forgotten));
    }
}
