//! Jobs: runs a call in one transaction and tells what became of it.
//!
//! The caller has its answer (202) once the work and its job are durable, in the same commit. So
//! a job needs no resuming: after a crash it is either there with its work, or neither is. What a
//! restarted server waits for is what every server waits for: acknowledgements of hosts. Once a job
//! has been told to be a success it stays one: that is durable before it is told.

mod sweep;

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
use store::{Event, Read, Snapshot, Store, Tx, Watch};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{Call, Reply, inventory, operation::Operation};

/// How long a finished job can be asked for, in seconds (ZStack: `rest/completedApi.expiredPeriod`).
pub const KEEP_SECONDS: i64 = 10_800;
/// Finished jobs kept at most; beyond that the oldest go early.
pub const KEEP_MAX: usize = 50_000;
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
    /// Wakes whoever waits for a job that is being run: it is not any more.
    ended: Notify,
    /// The last copy that was made of the board, and what tells whether it is still like it.
    copied: Mutex<(watch::Receiver<Board>, Arc<Board>)>,
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
        self.jobs.ended.notify_waiters();
    }
}

/// What a look at a job finds.
enum Look {
    /// It is over.
    Over(JobState),
    /// Every host has acknowledged, for the first time that anyone looks.
    Acknowledged(JobState),
    /// It is being run.
    Running,
    /// It waits for hosts, until then.
    Waiting(Timestamp),
}

impl Jobs {
    /// Jobs over `store`; `board` is what hosts report.
    #[must_use]
    pub fn new(
        store: Store<Record>,
        board: watch::Receiver<Board>,
        clock: fn() -> Timestamp,
    ) -> Self {
        let copied = Mutex::new((board.clone(), Arc::new(board.borrow().clone())));
        let (memory, ended) = (Mutex::default(), Notify::new());
        Self { store, board, clock, memory, ended, copied }
    }

    /// The store that calls run on.
    #[must_use]
    pub fn store(&self) -> &Store<Record> {
        &self.store
    }

    /// What hosts report now. Copied once for each change, not for each call.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        // Both fields change together, and nothing in between panics.
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        // An error says that no host will report any more: the copy is the last word.
        if copied.0.has_changed().unwrap_or(false) {
            let board = copied.0.borrow_and_update().clone();
            copied.1 = Arc::new(board);
        }
        Arc::clone(&copied.1)
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
    /// [`Code::StoreUnavailable`]: the same call may be tried again with the same uuid.
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
            // Says nothing about the call. Should it have happened nevertheless, the job tells.
            Err(error) if error.code == Code::StoreUnavailable => Err(error),
            Err(error) => {
                tracing::debug!(%job, %error, "call refused");
                self.remember(job, error);
                Ok(())
            }
        }
    }

    /// What became of a job.
    pub async fn state(&self, job: Id<Job>) -> JobState {
        match self.look(job) {
            Look::Over(state) => state,
            Look::Acknowledged(state) => self.succeed(job, state).await,
            Look::Running | Look::Waiting(_) => JobState::Processing,
        }
    }

    fn look(&self, job: Id<Job>) -> Look {
        // Asked in this order, so that a job that ends meanwhile is not missed.
        let uncommitted = self.uncommitted(job);
        let snapshot = self.store.snapshot();
        let Some(record) = snapshot.get(Kind::Job, job.uuid()) else { return uncommitted };
        let Record::Job(job) = &*record else { return Look::Over(JobState::Unknown) };
        let board = self.board.borrow();
        if job.done || job.hosts.is_empty() {
            return Look::Over(JobState::Done(answer(job, &snapshot, &board)));
        }
        let hosts = job.hosts.iter();
        let waiting: Vec<String> =
            hosts.filter_map(|host| self.waits_for(*host, job, &snapshot, &board)).collect();
        if waiting.is_empty() {
            return Look::Acknowledged(JobState::Done(answer(job, &snapshot, &board)));
        }
        if self.now() <= job.deadline {
            return Look::Waiting(job.deadline);
        }
        let text = format!("{} is durable, but not in effect: {}", job.message, waiting.join("; "));
        let hint = "it takes effect when the host is back; nothing needs to be repeated";
        Look::Over(JobState::Failed(Error::new(Code::Timeout, text).hint(hint)))
    }

    /// Makes a success durable, then tells it: a restart, or what hosts report later, must not take
    /// it back.
    async fn succeed(&self, job: Id<Job>, state: JobState) -> JobState {
        let marked = self.mark(vec![job.uuid()]).await;
        marked.map_or_else(
            |error| {
                tracing::warn!(%job, %error, "a success is not told yet");
                JobState::Processing
            },
            |()| state,
        )
    }

    /// Writes down that these jobs are a success.
    async fn mark(&self, jobs: Vec<Uuid>) -> Result<()> {
        let marking = jobs.clone();
        let mark = move |tx: &mut Tx<Record>| {
            for uuid in &marking {
                // It may have been forgotten meanwhile.
                let Some(record) = tx.get(Kind::Job, *uuid) else { continue };
                if let Record::Job(job) = &*record {
                    tx.put(Record::Job(Job { done: true, ..job.clone() }));
                }
            }
            Ok(())
        };
        self.store.transact_async(mark).await?;
        let mut memory = self.lock();
        for job in &jobs {
            memory.revisions.remove(job);
        }
        Ok(())
    }

    /// What a job is if it is not in the store.
    fn uncommitted(&self, job: Id<Job>) -> Look {
        let memory = self.lock();
        match memory.refused.get(&job.uuid()) {
            Some(error) => Look::Over(JobState::Failed(error.clone())),
            None if memory.running.contains(&job.uuid()) => Look::Running,
            None => Look::Over(JobState::Unknown),
        }
    }

    /// What became of a job, once that is decided or `patience` is over.
    pub async fn wait(&self, job: Id<Job>, patience: Duration) -> JobState {
        let decided = self.decided(job);
        tokio::time::timeout(patience, decided).await.unwrap_or(JobState::Processing)
    }

    async fn decided(&self, job: Id<Job>) -> JobState {
        let (mut board, mut commits) = (self.board.clone(), self.store.watch());
        // The snapshot that each watch begins with.
        commits.try_next();
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on nothing that happens after the look is missed.
            ended.as_mut().enable();
            board.mark_unchanged();
            // Each branch only waits: dropping the others loses nothing.
            let goes_on = match self.look(job) {
                Look::Over(state) => return state,
                Look::Acknowledged(state) => return self.succeed(job, state).await,
                Look::Running => {
                    ended.await;
                    true
                }
                Look::Waiting(deadline) => tokio::select! {
                    reported = board.changed() => reported.is_ok(),
                    decides = host_changed(&mut commits) => decides,
                    () = tokio::time::sleep(self.just_after(deadline)) => true,
                },
            };
            // The board and the store outlive the server's last answer: this is the shutdown.
            if !goes_on {
                return JobState::Processing;
            }
        }
    }

    /// From now until a deadline is over.
    fn just_after(&self, deadline: Timestamp) -> Duration {
        let left = deadline.0.saturating_sub(self.now().0).saturating_add(1);
        Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1))
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
        let status = board.status(host);
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

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Every change is a few calls that cannot panic in between.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a host may have been deleted, which nobody waits for any more; `false` once the store
/// is gone. Cancel safe, as [`Watch::next`] is.
pub(crate) async fn host_changed(commits: &mut Watch<Record>) -> bool {
    while let Some(event) = commits.next().await {
        let Event::Commit(commit) = event else { return true };
        if commit.changes.iter().any(|change| change.kind == Kind::Host) {
            return true;
        }
    }
    false
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
        done: false,
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
