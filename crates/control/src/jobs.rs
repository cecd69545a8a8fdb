//! Jobs: runs a call in one transaction and tells what became of it.
//!
//! The caller has its answer (202) once the work and its job are durable, in the same commit. So
//! a job needs no resuming: after a crash it is either there with its work, or neither is. What a
//! restarted server waits for is what every server waits for: acknowledgements of hosts.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    Code, Error, Id, Kind, Record, Result, Timestamp,
    resource::{host::Host, job::Job},
    status::Board,
};
use serde_json::{Value, json};
use store::{Read, Snapshot, Store, Tx};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Call, Reply, inventory, operation::Operation};

/// How long a finished job can be asked for, in seconds (ZStack: `rest/completedApi.expiredPeriod`).
pub const KEEP_SECONDS: i64 = 10_800;
/// Finished jobs kept at most; beyond that the oldest go early.
pub const KEEP_MAX: usize = 50_000;
/// Jobs forgotten in one transaction, so that it stays small however many are over.
const SWEEP_STEP: usize = 1000;
/// Refusals kept at most: they changed nothing, so they are kept in memory only.
pub const REFUSALS_MAX: usize = 10_000;
/// How long a job waits for hosts when the caller names no time, in seconds (ZStack's default).
pub const TIMEOUT_SECONDS: i64 = 1800;

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// No such job, or one that is long over.
    Unknown,
    /// Durable; hosts have not all acknowledged yet.
    Processing,
    /// Done, with the answer.
    Done(Value),
    /// Refused, or not done in time.
    Failed(Error),
}

/// Runs calls and keeps their jobs.
pub struct Jobs {
    store: Store<Record>,
    board: watch::Receiver<Board>,
    clock: fn() -> Timestamp,
    memory: Mutex<Memory>,
}

/// What is not worth a disk write.
#[derive(Default)]
struct Memory {
    refused: HashMap<Uuid, Error>,
    refused_order: VecDeque<Uuid>,
    /// Being run. Two calls with one uuid must not both run and tell different stories.
    running: HashSet<Uuid>,
    /// For each job that waits for hosts, a revision that includes it: its own, or the one at which
    /// it was first seen (its caller went away, or it is of an earlier life of the server).
    revisions: HashMap<Uuid, u64>,
}

/// A job uuid taken by one call; given back when dropped, also by a caller who goes away.
struct Running<'a> {
    jobs: &'a Jobs,
    job: Id<Job>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.jobs.lock().running.remove(&self.job.uuid());
    }
}

impl Jobs {
    /// Jobs over `store`; `board` is what hosts report.
    #[must_use]
    pub fn new(
        store: Store<Record>,
        board: watch::Receiver<Board>,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self { store, board, clock, memory: Mutex::default() }
    }

    /// The store that calls run on.
    #[must_use]
    pub fn store(&self) -> &Store<Record> {
        &self.store
    }

    /// What hosts report now.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.borrow().clone()
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Remembers that a call was refused before it could run.
    ///
    /// # Errors
    /// [`Code::Duplicate`] when the job's uuid was used before: that job stays what it is.
    pub fn refuse(&self, job: Id<Job>, error: Error) -> Result<()> {
        let _running = self.take(job)?;
        if self.store.snapshot().get(Kind::Job, job.uuid()).is_some() {
            return Err(used(job));
        }
        self.remember(job, error);
        Ok(())
    }

    fn take(&self, job: Id<Job>) -> Result<Running<'_>> {
        let mut memory = self.lock();
        if memory.refused.contains_key(&job.uuid()) || !memory.running.insert(job.uuid()) {
            return Err(used(job));
        }
        Ok(Running { jobs: self, job })
    }

    fn remember(&self, job: Id<Job>, error: Error) {
        let mut memory = self.lock();
        memory.refused.insert(job.uuid(), error);
        memory.refused_order.push_back(job.uuid());
        if memory.refused_order.len() > REFUSALS_MAX
            && let Some(oldest) = memory.refused_order.pop_front()
        {
            memory.refused.remove(&oldest);
        }
    }

    /// Runs the call. Afterwards the job is known: durable, or refused.
    ///
    /// # Errors
    /// [`Code::Duplicate`] when the job's uuid was used before: the call was not run again.
    pub async fn submit(
        &self,
        operation: Arc<Operation>,
        call: Call,
        job: Id<Job>,
        timeout_seconds: i64,
    ) -> Result<()> {
        let _running = self.take(job)?;
        let run = move |tx: &mut Tx<Record>| {
            if tx.get(Kind::Job, job.uuid()).is_some() {
                return Err(used(job));
            }
            let reply = operation.run(tx, &call)?;
            tx.put(Record::Job(record(job, &operation, &reply, (call.now, timeout_seconds))));
            Ok(reply)
        };
        match self.store.transact_async(run).await {
            Ok(committed) => {
                if !committed.value.hosts.is_empty() {
                    self.lock().revisions.insert(job.uuid(), committed.revision);
                }
                Ok(())
            }
            Err(error) if error.code == Code::Duplicate && error.field.is_none() => Err(error),
            Err(error) => {
                tracing::debug!(%job, %error, "call refused");
                self.remember(job, error);
                Ok(())
            }
        }
    }

    /// What became of a job.
    #[must_use]
    pub fn state(&self, job: Id<Job>) -> JobState {
        // Asked in this order, so that a job that ends meanwhile is not missed.
        let uncommitted = self.uncommitted(job);
        let snapshot = self.store.snapshot();
        let Some(record) = snapshot.get(Kind::Job, job.uuid()) else { return uncommitted };
        let Record::Job(job) = &*record else { return JobState::Unknown };
        let board = self.board.borrow();
        let waiting: Vec<String> = job
            .hosts
            .iter()
            .filter_map(|host| self.waits_for(*host, job, &snapshot, &board))
            .collect();
        match (waiting.is_empty(), self.now() > job.deadline) {
            (true, _) => JobState::Done(answer(job, &snapshot, &board)),
            (false, false) => JobState::Processing,
            (false, true) => {
                let text = format!(
                    "{} is durable, but not in effect: {}",
                    job.message,
                    waiting.join("; ")
                );
                let hint = "it takes effect when the host is back; nothing needs to be repeated";
                JobState::Failed(Error::new(Code::Timeout, text).hint(hint))
            }
        }
    }

    /// What a job is if it is not in the store.
    fn uncommitted(&self, job: Id<Job>) -> JobState {
        let memory = self.lock();
        match memory.refused.get(&job.uuid()) {
            Some(error) => JobState::Failed(error.clone()),
            None if memory.running.contains(&job.uuid()) => JobState::Processing,
            None => JobState::Unknown,
        }
    }

    /// What became of a job, once that is decided or `patience` is over.
    pub async fn wait(&self, job: Id<Job>, patience: Duration) -> JobState {
        let mut board = self.board.clone();
        let decided = async {
            loop {
                board.mark_unchanged();
                let state = self.state(job);
                // The board outlives the server's last answer, so an error means shutdown.
                if state != JobState::Processing || board.changed().await.is_err() {
                    return state;
                }
            }
        };
        tokio::time::timeout(patience, decided).await.unwrap_or(JobState::Processing)
    }

    /// Why a job still waits for a host, if it does. A host that was deleted is not waited for.
    fn waits_for(
        &self,
        host: Id<Host>,
        job: &Job,
        snapshot: &Snapshot<Record>,
        board: &Board,
    ) -> Option<String> {
        snapshot.get(Kind::Host, host.uuid())?;
        let status = board.host(host);
        let mut memory = self.lock();
        let seen = memory.revisions.entry(job.uuid.uuid()).or_insert_with(|| snapshot.revision());
        let revision = *seen;
        drop(memory);
        if status.acked_revision < revision {
            let how = if status.connected { "has not acknowledged yet" } else { "is disconnected" };
            return Some(format!("host {host} {how}"));
        }
        let subject = job.subject_uuid?;
        let nics = snapshot.referrers(Kind::VmNic, "vmInstanceUuid", subject);
        let parts: Vec<Uuid> = nics.chain([subject]).collect();
        parts.iter().find_map(|part| {
            status
                .failed
                .get(part)
                .map(|why| format!("host {host} cannot apply {}: {why}", part.simple()))
        })
    }

    /// Forgets jobs that are long over. Run it now and then.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<usize> {
        let (snapshot, now) = (self.store.snapshot(), self.now());
        let mut jobs: Vec<(Timestamp, Timestamp, Uuid)> = snapshot
            .list(Kind::Job)
            .filter_map(|record| match &*record {
                Record::Job(job) => Some((job.create_date, job.deadline, job.uuid.uuid())),
                _ => None,
            })
            .collect();
        jobs.sort_unstable();
        let surplus = jobs.len().saturating_sub(KEEP_MAX);
        let over = |index: usize, created: Timestamp, deadline: Timestamp| {
            index < surplus || (created.plus_seconds(KEEP_SECONDS) < now && deadline < now)
        };
        let gone: Vec<Uuid> = (0..)
            .zip(jobs)
            .filter(|(index, (created, deadline, _))| over(*index, *created, *deadline))
            .map(|(_, (_, _, uuid))| uuid)
            .collect();
        for step in gone.chunks(SWEEP_STEP) {
            let delete = step.to_vec();
            let forget = move |tx: &mut Tx<Record>| {
                delete.iter().for_each(|uuid| tx.delete(Kind::Job, *uuid));
                Ok(())
            };
            self.store.transact_async(forget).await?;
            let mut memory = self.lock();
            for job in step {
                memory.revisions.remove(job);
            }
        }
        Ok(gone.len())
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Every change is a few calls that cannot panic in between.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn used(job: Id<Job>) -> Error {
    let error = Error::new(Code::Duplicate, format!("the job uuid {job} was used before"));
    error.hint("ask for that job, or choose another X-Job-UUID")
}

fn record(
    job: Id<Job>,
    operation: &Operation,
    reply: &Reply,
    (now, timeout_seconds): (Timestamp, i64),
) -> Job {
    Job {
        uuid: job,
        message: operation.def.name.to_owned(),
        subject_kind: reply.subject.map(|(kind, _)| kind),
        subject_uuid: reply.subject.map(|(_, uuid)| uuid),
        hosts: reply.hosts.iter().copied().collect(),
        create_date: now,
        deadline: now.plus_seconds(timeout_seconds),
    }
}

/// `{"inventory": ..}`, or `{}` for what shows nothing. A resource that was deleted since shows
/// its uuid.
fn answer(job: &Job, snapshot: &Snapshot<Record>, board: &Board) -> Value {
    let (Some(kind), Some(uuid)) = (job.subject_kind, job.subject_uuid) else { return json!({}) };
    match snapshot.get(kind, uuid) {
        Some(record) => json!({"inventory": inventory::show(&record, snapshot, board)}),
        None => json!({"inventory": {"uuid": uuid.simple().to_string()}}),
    }
}
