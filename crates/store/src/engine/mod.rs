//! Engines: where revisions become durable. They keep bytes and know nothing of rows.

pub mod memory;
pub mod sqlite;

use std::time::Duration;

use model::Error;
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use crate::{Backlog, LogRecord};

/// A durable log of revisions with the state that it leads to.
///
/// Commits are compare-and-set of the head, because several servers may share an engine. All
/// methods block; only the store's writer thread calls them.
pub trait Engine: Send {
    /// The state at the head. Hands each row to `take`, once and in no order, so that the rows
    /// need not be in memory twice.
    ///
    /// # Errors
    /// `StoreUnavailable`, when it cannot be read; those of `take`.
    fn load(
        &mut self,
        take: &mut dyn FnMut(StoredRow) -> Result<(), Error>,
    ) -> Result<Loaded, Error>;

    /// Makes the revisions after `expected_head` durable, all or none, if that is the head. They
    /// survive a power loss once this has returned.
    ///
    /// # Errors
    /// See [`CommitError`].
    fn commit(&mut self, expected_head: u64, records: &[LogRecord]) -> Result<(), CommitError>;

    /// Up to `limit` records after revision `after`, consecutive. May lag behind the head, but
    /// once a commit of this very engine has met [`CommitError::Conflict`] it shows that head.
    ///
    /// # Errors
    /// See [`LogError`].
    fn read_log(&mut self, after: u64, limit: usize) -> Result<Vec<LogRecord>, LogError>;

    /// Forgets the log up to and including `revision`; the state stays.
    ///
    /// # Errors
    /// `StoreUnavailable`, when it cannot be written; the log is longer than it need be then.
    fn compact(&mut self, revision: u64) -> Result<(), Error>;

    /// What tells how far its tables are behind its log; nothing, if they never are.
    fn backlog(&self) -> Backlog {
        Box::new(|| 0)
    }

    /// How often an idle store should look for other servers' revisions; `None`: there are none.
    fn follow_every(&self) -> Option<Duration> {
        None
    }
}

/// A row as it is stored.
#[derive(Debug)]
pub struct StoredRow {
    /// Its table's name.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// Its durable form.
    pub json: Box<RawValue>,
}

/// The state at the head, apart from the rows.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The head: the last revision.
    pub head: u64,
    /// Every counter and the last number it has given out.
    pub counters: Vec<(String, u64)>,
}

/// Why a commit did not happen.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Another server was faster; nothing was written.
    #[error("the head is at revision {head}")]
    Conflict {
        /// Where the head is.
        head: u64,
    },
    /// It failed, or it is not known whether it happened: the log tells.
    #[error(transparent)]
    Failed(Error),
}

/// Why the log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// It does not reach back that far any more; load the state.
    #[error("the log no longer reaches back that far")]
    Compacted,
    /// It cannot be read now.
    #[error(transparent)]
    Failed(Error),
}

/// Refuses records that do not follow the head one by one: the log must not get a gap.
fn must_follow(head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
    if (head + 1..).zip(records).all(|(next, record)| record.revision == next) {
        return Ok(());
    }
    let message = format!("revisions that do not follow revision {head} cannot be committed");
    Err(CommitError::Failed(Error::new(model::Code::Internal, message)))
}
