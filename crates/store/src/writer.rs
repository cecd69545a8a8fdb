//! The writer thread: the only one that runs transactions and talks to the engine.
//!
//! Why one thread: closures that run one after the other on the newest state never conflict within
//! a server, so that a hot counter costs no retry; and while one batch waits for the disk the next
//! one gathers, so that one `fsync` serves many callers (group commit). Nobody is answered, with
//! success or refusal, before everything that the answer rests on is durable.
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
    time::Instant,
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
}

impl<R: Row> Writer<R> {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        durable: Snapshot<R>,
        (shared, gauges): (Arc<Shared<R>>, Arc<Gauges>),
        jobs: Receiver<Job<R>>,
    ) -> Self {
        Self { engine, durable, shared, gauges, jobs }
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

    /// Does `first` and what else waits by now.
    fn serve(&mut self, first: Job<R>) {
        let (mut works, mut followers) = (Vec::new(), Vec::new());
        let more = std::iter::from_fn(|| self.jobs.try_recv().ok());
        for job in std::iter::once(first).chain(more).take(BATCH_MAX) {
            match job {
                Job::Transact(work) => works.push(work),
                Job::Follow(answer) => followers.push(answer),
            }
        }
        self.gauges.taken(works.len() + followers.len());
        let caught_up = self.catch_up().map(|_| ());
        for follower in followers {
            // An error says that nobody waits for it any more.
            let _ = follower.send(caught_up.clone().map(|()| self.durable.revision()));
        }
        match caught_up {
            Ok(()) => self.transact(works),
            Err(error) => works.into_iter().for_each(|work| self.refuse(work, &error)),
        }
    }

    fn transact(&mut self, works: Vec<Box<dyn Work<R>>>) {
        let mut batch: Vec<Slot<R>> = Vec::with_capacity(works.len());
        for work in works {
            let head = batch.last().map_or(&*self.durable.0, |slot| &slot.after);
            let slot = Slot::run(work, head);
            batch.push(slot);
        }
        let (begun, transactions) = (Instant::now(), batch.len());
        let committed = self.commit(&mut batch);
        self.gauges.committed(transactions, begun.elapsed());
        match committed {
            Ok(()) => self.publish(batch),
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

    /// Makes a batch durable, moving it as often as needed.
    fn commit(&mut self, batch: &mut Vec<Slot<R>>) -> Result<()> {
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
                    *batch = rebase(std::mem::take(batch), &self.durable.0, dirty);
                }
                Err(CommitError::Failed(error)) => return Err(unknown(error)),
            }
        }
        let message =
            format!("other servers were faster {COMMIT_TRIES} times; nothing was changed");
        Err(Error::new(Code::StoreUnavailable, message).hint("try again"))
    }

    fn publish(&mut self, batch: Vec<Slot<R>>) {
        for slot in batch {
            let revision = slot.after.revision;
            if slot.record.is_some() {
                self.advance(slot.after, slot.changes);
            }
            slot.work.answer(revision);
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
                self.advance(after, changes);
            }
        }
    }

    /// Starts anew from the engine's state, when the log does not reach back to ours.
    fn reload(&mut self) -> Result<Dirty<R>> {
        self.durable = Snapshot(Arc::new(load(self.engine.as_mut())?));
        self.shared.reset(self.durable.clone());
        Ok(Dirty::Everything)
    }

    /// One more revision is durable.
    fn advance(&mut self, after: State<R>, changes: Arc<[crate::Change<R>]>) {
        let revision = after.revision;
        self.durable = Snapshot(Arc::new(after));
        self.shared.publish(Commit { revision, changes, after: self.durable.clone() });
        if revision.is_multiple_of(COMPACT_EVERY)
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
    fn a_failed_commit_passes_on_what_the_engine_advises() {
        let full = Error::new(Code::StoreUnavailable, "the disk is full").hint("free some space");
        let told = unknown(full);
        assert_eq!(told.hint.as_deref(), Some("free some space; look before you try again"));
        let told = unknown(Error::new(Code::StoreUnavailable, "it is cut off"));
        assert_eq!(told.hint.as_deref(), Some("look before you try again"));
    }
}
