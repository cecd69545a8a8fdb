//! What the writer and the keeper know of each other, and where they wait for each other.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::tables;

/// How far the rows may be behind the log before commits wait for them. A start has to read so much
/// more.
pub(super) const BACKLOG_MAX_BYTES: u64 = 64 << 20;
/// How long one commit waits then.
pub(super) const BACKLOG_WAIT: Duration = Duration::from_millis(20);
/// How long after a failure the keeper tries again.
const RETRY: Duration = Duration::from_secs(1);

/// What the writer and the keeper know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Held by whichever of the two writes: SQLite would refuse the other one.
    turn: Mutex<()>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// How long the WAL is.
    wal_pages: Arc<AtomicU64>,
}

/// Where each of the two is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) head: u64,
    /// Up to where the rows have followed.
    pub(super) kept: u64,
    /// What lies between the two.
    pub(super) backlog_bytes: u64,
    /// The log is not needed up to here.
    pub(super) dispensable: u64,
    /// Up to where it is cut.
    pub(super) cut: u64,
    pub(super) failing: bool,
    pub(super) stop: bool,
}

impl Progress {
    /// Up to where the log may be cut.
    pub(super) fn may_cut(&self) -> u64 {
        self.dispensable.min(self.kept)
    }

    pub(super) fn idle(&self) -> bool {
        self.kept >= self.head && self.cut >= self.may_cut()
    }

    pub(super) fn too_far_behind(&self) -> bool {
        self.backlog_bytes > BACKLOG_MAX_BYTES && !self.failing
    }
}

impl Shared {
    /// Waits until it is one's turn to write.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a file begins that has been opened.
    pub(super) fn begin(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let (head, kept) = (tables::head(connection)?, tables::kept(connection)?);
        let backlog_bytes = tables::bytes_after(connection, kept)?;
        let cut = tables::oldest(connection)?.map_or(head, |oldest| oldest.saturating_sub(1));
        *self.progress() = Progress { head, kept, backlog_bytes, cut, ..Progress::default() };
        Ok(head)
    }

    /// Learns how long the WAL is from every commit on this connection.
    pub(super) fn measure_wal(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.wal_pages);
        connection.wal_hook(Some(move |_: &mut _, now: i32| {
            pages.store(u64::try_from(now).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// The writer has added to the log.
    pub(super) fn added(&self, head: u64, bytes: u64) {
        let mut progress = self.progress();
        let idle = progress.idle();
        progress.head = head;
        progress.backlog_bytes += bytes;
        if idle {
            self.changed.notify_all();
        }
    }

    /// How far the rows are behind the log.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.progress().backlog_bytes
    }

    /// Nobody needs the log up to here.
    pub(super) fn dispense(&self, revision: u64) {
        let mut progress = self.progress();
        progress.dispensable = progress.dispensable.max(revision);
        self.changed.notify_all();
    }

    /// Keeps a writer that is too fast from running away.
    pub(super) fn wait_for_keeper(&self) {
        let progress = self.progress();
        let behind = |progress: &mut Progress| progress.too_far_behind();
        drop(self.changed.wait_timeout_while(progress, BACKLOG_WAIT, behind));
    }

    /// The keeper has brought the rows up to here, over so many bytes of the log.
    pub(super) fn moved(&self, kept: u64, bytes: u64) {
        let mut progress = self.progress();
        progress.kept = kept;
        progress.backlog_bytes = progress.backlog_bytes.saturating_sub(bytes);
        self.changed.notify_all();
    }

    /// How many pages the WAL has.
    pub(super) fn wal_pages(&self) -> u64 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// The keeper shall end.
    pub(super) fn stop(&self) {
        self.progress().stop = true;
        self.changed.notify_all();
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while this holds, unless the keeper shall end; says whether it shall.
    pub(super) fn wait_while(&self, mut wait: impl FnMut(&Progress) -> bool) -> bool {
        let progress = self.progress();
        let wait = |progress: &mut Progress| !progress.stop && wait(progress);
        self.changed.wait_while(progress, wait).unwrap_or_else(PoisonError::into_inner).stop
    }

    /// Waits for so long, unless the keeper shall end or must hurry; says whether it shall end.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let progress = self.progress();
        let wait = |progress: &mut Progress| !progress.stop && !progress.too_far_behind();
        let waited = self.changed.wait_timeout_while(progress, time, wait);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Waits after a failure, unless the keeper shall end; says whether it shall.
    pub(super) fn wait_for_retry(&self) -> bool {
        let progress = self.progress();
        let wait = |progress: &mut Progress| !progress.stop;
        let waited = self.changed.wait_timeout_while(progress, RETRY, wait);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}
