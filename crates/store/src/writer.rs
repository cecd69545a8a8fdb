//! The writer thread: the only one that runs transactions and talks to the engine.
//!
//! Why one thread: closures that run one after the other on the newest state never conflict within
//! a server, so that a hot counter costs no retry; and while one batch waits for the disk the next
//! one gathers, so that one `fsync` serves many callers (group commit). Where syncs are slow a batch
//! waits for a moment for more ([`Last::patience`]). Nobody is answered, with success or refusal,
//! before everything that the answer rests on is durable.
//!
//! A batch goes: catch up with other servers, run, commit; on a conflict catch up, move the batch
//! (see [`rebase`]), commit again. After a failed commit the log decides what happened: the thread
//! reads it before it runs anything else, and what turns out to have happened reaches watchers as
//! any other revision.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use model::{Code, Error, Result};

use crate::{
    Commit, CommitError, Engine, LogError, LogRecord, Row, Snapshot,
    batch::{Dirty, Slot, Work, rebase},
    log::Writes,
    measures::Gauges,
    state::{State, Unsound},
    watch::Shared,
};

/// Most transactions that one engine commit makes durable.
const BATCH_MAX: usize = 256;
/// A batch waits for more when the last commit took as long as this: else a sync of its own costs less.
const GATHER_FROM: Duration = Duration::from_micros(500);
/// It waits for as long as the last commit took, and no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(10);
/// How often a batch is moved out of other servers' way before it is given up. With three servers
/// that never pause each try is lost with 2/3: 16 tries would fail once in 650 commits, 100 never.
const COMMIT_TRIES: u32 = 100;
/// Most records read from the log at once.
const LOG_PAGE: usize = 256;
/// How many revisions the log keeps for other servers that follow.
pub(crate) const LOG_KEEP: u64 = 10_000;
/// The log is cut once in so many revisions.
const COMPACT_EVERY: u64 = 1_000;

/// What the thread is asked to do.
pub(crate) enum Job<R: Row> {
    Transact(Box<dyn Work<R>>),
    Follow(SyncSender<Result<u64>>),
}

/// The thread's own.
pub(crate) struct Writer<R: Row> {
    engine: Box<dyn Engine>,
    durable: Snapshot<R>,
    shared: Arc<Shared<R>>,
    gauges: Arc<Gauges>,
    jobs: Receiver<Job<R>>,
    last: Last,
}

/// The last commit.
#[derive(Default)]
struct Last {
    transactions: usize,
    took: Duration,
}

impl Last {
    /// How much longer a batch of so many, begun so long ago, waits for more.
    ///
    /// Callers who were answered together come again one by one. Without waiting for them, the first
    /// one back would have a slow sync to itself, and the others would share the next one.
    fn patience(&self, taken: usize, waited: Duration) -> Option<Duration> {
        let is_worth_it = self.took >= GATHER_FROM && taken < self.transactions;
        self.took.min(GATHER_MAX).checked_sub(waited).filter(|_| is_worth_it)
    }
}

impl<R: Row> Writer<R> {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        durable: Snapshot<R>,
        (shared, gauges): (Arc<Shared<R>>, Arc<Gauges>),
        jobs: Receiver<Job<R>>,
    ) -> Self {
        Self { engine, durable, shared, gauges, jobs, last: Last::default() }
    }

    /// Works until the last handle of the store is gone.
    pub(crate) fn run(mut self) {
        loop {
            match self.wait() {
                Ok(first) => self.serve(first),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.catch_up() {
                        tracing::warn!(%error, "cannot follow the other servers");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.shared.end();
    }

    fn wait(&self) -> Result<Job<R>, RecvTimeoutError> {
        match self.engine.follow_every() {
            Some(period) => self.jobs.recv_timeout(period),
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Runs `first`, what else waits and what comes meanwhile; then makes all of it durable.
    fn serve(&mut self, first: Job<R>) {
        let caught_up = self.catch_up();
        let (begun, mut head) = (Instant::now(), State::clone(&self.durable.0));
        let (mut batch, mut followers) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next {
            self.gauges.taken(1);
            match (job, &caught_up) {
                (Job::Follow(answer), _) => followers.push(answer),
                (Job::Transact(work), Ok(_)) => batch.push(Slot::run(work, &mut head)),
                (Job::Transact(work), Err(error)) => self.refuse(work, error),
            }
            next = self.next(batch.len() + followers.len(), begun);
        }
        if !batch.is_empty() {
            self.transact(batch, head);
        }
        if !followers.is_empty() {
            // They may have come after the batch was begun.
            let reached = self.catch_up().map(|_| self.durable.revision());
            // An error says that nobody waits for it any more.
            followers.into_iter().for_each(|follower| drop(follower.send(reached.clone())));
        }
    }

    /// One more for a batch that has so many.
    fn next(&self, taken: usize, begun: Instant) -> Option<Job<R>> {
        if taken >= BATCH_MAX {
            return None;
        }
        if let Ok(job) = self.jobs.try_recv() {
            return Some(job);
        }
        let patience = self.last.patience(taken, begun.elapsed())?;
        self.jobs.recv_timeout(patience).ok()
    }

    fn transact(&mut self, mut batch: Vec<Slot<R>>, mut head: State<R>) {
        let (begun, transactions) = (Instant::now(), batch.len());
        let committed = self.commit(&mut batch, &mut head);
        self.last = Last { transactions, took: begun.elapsed() };
        self.gauges.committed(transactions, self.last.took);
        match committed {
            Ok(()) => self.publish(batch, head),
            Err(error) => {
                tracing::warn!(%error, transactions = batch.len(), "a commit failed");
                // Whoever looks after the answer shall see what did happen.
                if let Err(error) = self.catch_up() {
                    tracing::warn!(%error, "the store's state is behind until its log is readable");
                }
                batch.into_iter().for_each(|slot| self.refuse(slot.work, &error));
            }
        }
    }

    /// Makes a batch durable, moving it as often as needed. `head` is the state that it leaves.
    fn commit(&mut self, batch: &mut Vec<Slot<R>>, head: &mut State<R>) -> Result<()> {
        for _ in 0..COMMIT_TRIES {
            let records: Vec<LogRecord> =
                batch.iter().filter_map(|slot| slot.record.clone()).collect();
            if records.is_empty() {
                return Ok(());
            }
            match self.engine.commit(self.durable.revision(), &records) {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {
                    let dirty = self.catch_up()?;
                    *head = State::clone(&self.durable.0);
                    *batch = rebase(std::mem::take(batch), head, dirty);
                }
                Err(CommitError::Failed(error)) => return Err(unknown(error)),
            }
        }
        let message =
            format!("other servers were faster {COMMIT_TRIES} times; nothing was changed");
        Err(Error::new(Code::StoreUnavailable, message).hint("try again"))
    }

    fn publish(&mut self, batch: Vec<Slot<R>>, head: State<R>) {
        let wrote = batch.iter().filter(|slot| slot.record.is_some());
        let commit =
            |slot: &Slot<R>| Commit { revision: slot.revision, changes: Arc::clone(&slot.changes) };
        self.advance(head, wrote.map(commit).collect());
        for slot in batch {
            slot.work.answer(slot.revision);
        }
    }

    fn refuse(&self, mut work: Box<dyn Work<R>>, error: &Error) {
        work.fail(error.clone());
        work.answer(self.durable.revision());
    }

    /// Takes in what other servers have committed; gives what they have written.
    fn catch_up(&mut self) -> Result<Dirty<R>> {
        let mut dirty = Dirty::nothing();
        loop {
            let records = match self.engine.read_log(self.durable.revision(), LOG_PAGE) {
                Ok(records) => records,
                Err(LogError::Compacted) => return self.reload(),
                Err(LogError::Failed(error)) => return Err(error),
            };
            if records.is_empty() {
                return Ok(dirty);
            }
            for record in records {
                if record.revision != self.durable.revision() + 1 {
                    return self.reload();
                }
                let writes = Writes::decode(&record).map_err(undecodable)?;
                let mut after = State::clone(&self.durable.0);
                let changes = after.apply(&writes).map_err(damaged)?;
                dirty.add(writes.marks(&changes));
                self.advance(after, vec![Commit { revision: record.revision, changes }]);
            }
        }
    }

    /// Starts anew from the engine's state, when the log does not reach back to ours.
    fn reload(&mut self) -> Result<Dirty<R>> {
        self.durable = Snapshot(Arc::new(load(self.engine.as_mut())?));
        self.shared.reset(self.durable.clone());
        Ok(Dirty::Everything)
    }

    /// These revisions are durable, and lead to `after`.
    fn advance(&mut self, after: State<R>, commits: Vec<Commit<R>>) {
        let (before, revision) = (self.durable.revision(), after.revision);
        self.durable = Snapshot(Arc::new(after));
        self.shared.publish(self.durable.clone(), commits);
        if revision / COMPACT_EVERY > before / COMPACT_EVERY
            && revision > LOG_KEEP
            && let Err(error) = self.engine.compact(revision - LOG_KEEP)
        {
            tracing::warn!(%error, "the store's log could not be cut; it will be later");
        }
    }
}

/// The state at the engine's head.
pub(crate) fn load<R: Row>(engine: &mut dyn Engine) -> Result<State<R>> {
    let mut state = State::new();
    let loaded = engine.load(&mut |row| {
        state.load(&row.kind, row.id, &row.json).map_err(|unsound| match unsound {
            Unsound::Undecodable { .. } => undecodable(unsound),
            Unsound::Misplaced { .. } | Unsound::ClaimedTwice { .. } => damaged(unsound),
        })
    })?;
    state.revision = loaded.head;
    state.counters = loaded.counters.into_iter().map(|(name, n)| (Arc::from(name), n)).collect();
    Ok(state)
}

/// The hint of the engine comes first: it is the one that helps the caller.
fn unknown(error: Error) -> Error {
    let message = format!("{}; the change may have happened nevertheless", error.message);
    let look = "look before you try again";
    let hint = error.hint.as_ref().map_or(look.to_owned(), |hint| format!("{hint}; {look}"));
    Error { message, ..error }.hint(hint)
}

/// Rows of another version of netloom.
fn undecodable(cause: impl std::fmt::Display) -> Error {
    Error::new(Code::StoreUnavailable, "the store holds something that this version cannot read")
        .hint("start the version of netloom that wrote it, or restore a backup")
        .cause(cause)
}

/// Rows that cannot have been written like this.
fn damaged(cause: impl std::fmt::Display) -> Error {
    Error::new(Code::StoreUnavailable, format!("the store is damaged: {cause}"))
        .hint("restore a backup")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_those_who_shared_the_last_slow_commit_and_for_no_longer_than_it_took() {
        let ms = Duration::from_millis;
        let after = |took, taken, waited| Last { transactions: 8, took }.patience(taken, waited);
        assert_eq!(after(ms(2), 1, ms(0)), Some(ms(2)));
        assert_eq!(after(ms(2), 7, ms(1)), Some(ms(1)));
        assert_eq!(after(ms(2), 8, ms(1)), None, "all are there");
        assert_eq!(after(ms(2), 1, ms(3)), None, "they do not come");
        assert_eq!(after(Duration::from_micros(50), 1, ms(0)), None, "a sync costs less");
        assert_eq!(after(ms(900), 1, ms(0)), Some(GATHER_MAX));
        assert_eq!(Last::default().patience(1, ms(0)), None);
    }

    #[test]
    fn a_failed_commit_passes_on_what_the_engine_advises() {
        let full = Error::new(Code::StoreUnavailable, "the disk is full").hint("free some space");
        let told = unknown(full);
        assert_eq!(told.hint.as_deref(), Some("free some space; look before you try again"));
        let told = unknown(Error::new(Code::StoreUnavailable, "it is cut off"));
        assert_eq!(told.hint.as_deref(), Some("look before you try again"));
    }
}
