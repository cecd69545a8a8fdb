//! The engine for tests: it keeps everything in memory, lets several servers share one state, and
//! can fail in every way that an engine may.
//!
//! Nothing survives the process. Tests and the simulator run on it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Code, Error};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::must_follow;
use crate::{CommitError, Engine, Loaded, LogError, LogRecord, StoredRow};

/// An engine in memory. A clone is another server's engine on the same state.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
    /// This server's log shows at least up to here.
    shown: u64,
    period: Option<Duration>,
}

/// What happens to a later commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and was not applied.
    FailBefore,
    /// It is applied, but its caller is told that it failed.
    FailAfter,
    /// It meets a conflict, as if another server had been faster and then had taken it back.
    Conflict,
}

#[derive(Debug, Default)]
struct Disk {
    head: u64,
    rows: BTreeMap<(String, Uuid), Box<RawValue>>,
    counters: BTreeMap<String, u64>,
    log: VecDeque<LogRecord>,
    faults: VecDeque<Fault>,
    unreachable: bool,
    /// The log is shown up to here only.
    hidden_after: Option<u64>,
}

impl Memory {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A server on this engine looks for other servers' revisions so often, even when idle.
    #[must_use]
    pub fn following_every(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// Adds a fault; each one befalls one commit, in this order.
    pub fn inject(&self, fault: Fault) {
        self.disk().faults.push_back(fault);
    }

    /// Nothing can be read or written from now on.
    pub fn cut(&self) {
        self.disk().unreachable = true;
    }

    /// Undoes [`cut`](Self::cut).
    pub fn mend(&self) {
        self.disk().unreachable = false;
    }

    /// Later revisions stay out of sight of the servers until one of them meets a conflict.
    pub fn delay_log(&self) {
        let mut disk = self.disk();
        disk.hidden_after = Some(disk.head);
    }

    /// Undoes [`delay_log`](Self::delay_log).
    pub fn show_log(&self) {
        self.disk().hidden_after = None;
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, Disk>, Error> {
        let disk = self.disk();
        if disk.unreachable { Err(unavailable("it is cut off")) } else { Ok(disk) }
    }
}

impl Engine for Memory {
    fn load(
        &mut self,
        take: &mut dyn FnMut(StoredRow) -> Result<(), Error>,
    ) -> Result<Loaded, Error> {
        let disk = self.reach()?;
        for ((kind, id), json) in &disk.rows {
            take(StoredRow { kind: kind.clone(), id: *id, json: json.clone() })?;
        }
        let counters = disk.counters.iter().map(|(name, n)| (name.clone(), *n)).collect();
        Ok(Loaded { head: disk.head, counters })
    }

    fn commit(&mut self, expected_head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
        let (head, outcome) = {
            let mut disk = self.reach().map_err(CommitError::Failed)?;
            (disk.head, disk.commit(expected_head, records))
        };
        if matches!(outcome, Err(CommitError::Conflict { .. })) {
            self.shown = head;
        }
        outcome
    }

    fn read_log(&mut self, after: u64, limit: usize) -> Result<Vec<LogRecord>, LogError> {
        let disk = self.reach().map_err(LogError::Failed)?;
        let end = disk.hidden_after.map_or(disk.head, |hidden| hidden.max(self.shown));
        if disk.log.front().map_or(disk.head, |oldest| oldest.revision - 1) > after {
            return Err(LogError::Compacted);
        }
        let records = disk.log.iter().filter(|r| r.revision > after && r.revision <= end);
        Ok(records.take(limit).cloned().collect())
    }

    fn compact(&mut self, revision: u64) -> Result<(), Error> {
        self.reach()?.log.retain(|record| record.revision > revision);
        Ok(())
    }

    fn follow_every(&self) -> Option<Duration> {
        self.period
    }
}

impl Disk {
    fn commit(&mut self, expected_head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
        let fault = self.faults.pop_front();
        if fault == Some(Fault::FailBefore) {
            return Err(CommitError::Failed(unavailable("it failed before it was applied")));
        }
        if self.head != expected_head || fault == Some(Fault::Conflict) {
            return Err(CommitError::Conflict { head: self.head });
        }
        must_follow(self.head, records)?;
        for record in records {
            self.apply(record);
        }
        match fault {
            Some(_) => Err(CommitError::Failed(unavailable("it failed after it was applied"))),
            None => Ok(()),
        }
    }

    fn apply(&mut self, record: &LogRecord) {
        for row in &record.rows {
            let key = (row.kind.clone(), row.id);
            match &row.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
        self.counters.extend(record.counters.iter().cloned());
        self.head = record.revision;
        self.log.push_back(record.clone());
    }
}

fn unavailable(why: &str) -> Error {
    Error::new(Code::StoreUnavailable, format!("the store in memory did not commit: {why}"))
}
