//! Jobs: runs a call in one transaction and tells what became of it.
//!
//! The caller has its answer (202) once the work and its job are durable, in the same commit. So a
//! job needs no resuming: after a crash both are there, or neither is. A restarted server waits for
//! the acknowledgements of hosts, as any server does. A success is written to disk before it is
//! told, so it stays one.

mod answer;
mod cancel;
pub mod spans;
mod submit;
mod sweep;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    Claim, Code, Error, Id, Kind, Record, Resource, Result, Timestamp,
    resource::{account::Account, host::Host, job::Job, vm_instance::VmInstance},
    setting::JOB_EXPIRY,
    status::Board,
};
use serde_json::Value;
use store::{Event, Read, Snapshot, Store, Tx, Watch};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{Caller, config, inventory::Observed, measures::JobMeasures, vm_migration};
use answer::answer;
use spans::Spans;

pub use answer::NOTES;
pub(crate) use cancel::{end_waiting, end_waiting_now, operations};
pub use submit::{RefusedCall, Terms};

/// Jobs kept at most, so that memory has an end: two minutes at 4,000 writes per second. Beyond
/// that the oldest that are over go early.
pub const KEEP_MAX: usize = 500_000;
/// Refusals kept at most: they changed nothing, so they are kept in memory only.
pub const REFUSALS_MAX: usize = 10_000;

/// What has to change before a job settles that waits for no host.
const SETTLES: &[Kind] = &[Kind::Host, Kind::Release, Kind::Evacuation, Kind::VmInstance];

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// No such job, or one that is long over.
    Unknown,
    /// It is being run, or durable and not confirmed by its hosts: these are why.
    Processing(Vec<String>),
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
    memory: Arc<Mutex<Memory>>,
    /// Wakes those who wait for a running job, when one ends.
    ended: Notify,
    spans: Spans,
}

/// What is kept in memory only.
#[derive(Default)]
struct Memory {
    refused: HashMap<Uuid, Refused>,
    refused_order: VecDeque<Uuid>,
    /// How many calls were refused, by the code that they were told.
    refusals: BTreeMap<&'static str, u64>,
    /// Jobs that are being run, with what they wait for. A second call with the same uuid is refused
    /// meanwhile.
    running: HashMap<Uuid, Vec<String>>,
    /// The jobs that may wait for hosts and are not known to be a success.
    open: HashMap<Uuid, Since>,
    /// When the oldest of these was made, as the last sweep has seen it.
    oldest: Option<Timestamp>,
    /// All jobs that are kept, by when they may be forgotten.
    kept: BTreeSet<(Timestamp, Uuid)>,
}

/// What is known about when a job was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// An earlier run of the server made it: it is not known what its hosts were told.
    EarlierRun,
    /// This run of the server made it. The revision includes it: the one that committed it or, when
    /// its caller went away before that was known, the one at which it was first seen.
    Revision(Option<u64>),
}

impl Since {
    /// A revision that includes the job, if this run of the server made it.
    fn revision(self) -> Option<u64> {
        match self {
            Since::EarlierRun => None,
            Since::Revision(revision) => Some(revision.unwrap_or_default()),
        }
    }
}

impl Memory {
    /// Notes a job that is in the store, or is about to be.
    /// It may be asked for so many seconds.
    fn note(&mut self, job: &Job, since: Since, keep: i64) {
        if !job.is_over() {
            self.open.entry(job.uuid.uuid()).or_insert(since);
        }
        self.kept.insert(sweep::entry(job, keep));
    }
}

/// A call that was refused.
struct Refused {
    error: Error,
    view: View,
}

/// Who may see a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    owner: Option<Id<Account>>,
    uuid_chosen: bool,
}

/// A job's uuid. ZStack's clients ask for their jobs without a session, so one that the server drew
/// opens its job to whoever knows it. One that the caller chose is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId {
    /// The uuid.
    pub uuid: Id<Job>,
    /// The caller chose it.
    pub is_chosen: bool,
}

/// What a job is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The message's name.
    pub message: String,
    /// The kind of what the answer shows, if it shows anything.
    pub subject: Option<Kind>,
}

impl View {
    fn allows(self, caller: &Caller) -> bool {
        !self.uuid_chosen || caller.owns(self.owner)
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
    /// It waits for hosts, until then and for these reasons.
    Waiting(Timestamp, Vec<String>),
    /// Hosts have acknowledged, and what they have let go of is not noted yet.
    Settling(Timestamp, Vec<String>),
}

impl Jobs {
    /// Jobs over `store`; `board` is what hosts report.
    #[must_use]
    pub fn new(
        store: Store<Record>,
        board: watch::Receiver<Board>,
        clock: fn() -> Timestamp,
    ) -> Self {
        let mut memory = Memory::default();
        let snapshot = store.snapshot();
        let keep = config::number(&snapshot, &JOB_EXPIRY);
        for record in snapshot.list(Kind::Job) {
            if let Some(job) = Job::of(&record) {
                memory.note(job, Since::EarlierRun, keep);
            }
        }
        let (memory, ended) = (Arc::new(Mutex::new(memory)), Notify::new());
        Self { store, board, clock, memory, ended, spans: Spans::default() }
    }

    /// The store that calls run on.
    #[must_use]
    pub fn store(&self) -> &Store<Record> {
        &self.store
    }

    /// What an operator may want to know.
    pub(crate) fn measures(&self) -> JobMeasures {
        let memory = self.lock();
        JobMeasures {
            kept: memory.kept.len(),
            running: memory.running.len(),
            waiting: memory.open.len(),
            oldest: memory.oldest.filter(|_| !memory.open.is_empty()),
            refusals: memory.refusals.clone(),
        }
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

    /// What a job is about, if it was not refused. That is no secret.
    #[must_use]
    pub fn about(&self, job: Id<Job>) -> Option<About> {
        let record = self.store.snapshot().get(Kind::Job, job.uuid())?;
        let job = Job::of(&record)?;
        Some(About { message: job.message.clone(), subject: job.subject_kind })
    }

    /// What became of a job. One that the caller may not see is unknown.
    pub async fn state(&self, caller: &Caller, job: Id<Job>) -> JobState {
        if !self.allows(caller, job) {
            return JobState::Unknown;
        }
        match self.look(job) {
            Look::Over(state) => state,
            Look::Acknowledged(state) => self.succeed(job, state).await,
            Look::Running => JobState::Processing(self.waits_while_running(job)),
            Look::Waiting(_, reasons) | Look::Settling(_, reasons) => JobState::Processing(reasons),
        }
    }

    fn waits_while_running(&self, job: Id<Job>) -> Vec<String> {
        self.lock().running.get(&job.uuid()).cloned().unwrap_or_default()
    }

    /// Whether the caller may see a job that is refused or in the store. Everybody may see that
    /// another one is running; nothing else is told of it.
    fn allows(&self, caller: &Caller, job: Id<Job>) -> bool {
        let refused = self.lock().refused.get(&job.uuid()).map(|refused| refused.view);
        let view = refused.or_else(|| {
            let record = self.store.snapshot().get(Kind::Job, job.uuid())?;
            let uuid_chosen = Job::of(&record)?.uuid_chosen;
            Some(View { owner: record.meta.owner, uuid_chosen })
        });
        view.is_none_or(|view| view.allows(caller))
    }

    fn look(&self, job: Id<Job>) -> Look {
        // Asked in this order, so that a job that ends meanwhile is not missed.
        let uncommitted = self.uncommitted(job);
        let snapshot = self.store.snapshot();
        let Some(record) = snapshot.get(Kind::Job, job.uuid()) else { return uncommitted };
        let Some(job) = Job::of(&record) else { return Look::Over(JobState::Unknown) };
        let board = self.board.borrow().clone();
        if let Some(error) = job.cancellation() {
            return Look::Over(JobState::Failed(error));
        }
        if let Some(error) = job.failure() {
            return Look::Over(JobState::Failed(error));
        }
        if job.is_over() {
            return Look::Over(JobState::Done(answer(job, record.meta.owner, &snapshot, &board)));
        }
        let since = self.since(job, snapshot.revision());
        // A host that was deleted is not waited for.
        let exists = |host: &&Id<Host>| snapshot.get(Kind::Host, host.uuid()).is_some();
        let hosts = job.hosts.iter().filter(exists);
        let (waited, waiting): (Vec<Id<Host>>, Vec<_>) = hosts
            .filter_map(|host| Some((*host, job.waits_for(*host, since.revision(), &board)?)))
            .unzip();
        let evacuates = job.evacuates(&Observed::new(&snapshot, &board));
        // It goes on by itself: what the host has confirmed of it so far does not matter.
        if let Some(reasons) = evacuates {
            if self.now() <= job.deadline {
                return Look::Settling(job.deadline, reasons);
            }
            let text = format!("{} goes on: {}", job.message, reasons.join("; "));
            let hint = "QueryHost shows when it is done; stateEvent=enable ends it";
            return Look::Over(JobState::Failed(Error::new(Code::Timeout, text).hint(hint)));
        }
        if waiting.is_empty() {
            let moves = vm_migration::waits(job, &snapshot);
            return match moves.or_else(|| kept_place(job, &snapshot)) {
                Some(reason) if self.now() <= job.deadline => {
                    Look::Settling(job.deadline, vec![reason])
                }
                _ => {
                    let owner = record.meta.owner;
                    Look::Acknowledged(JobState::Done(answer(job, owner, &snapshot, &board)))
                }
            };
        }
        let is_lost = waited.iter().all(|host| !board.status(*host).connected);
        let deadline = job.waits_until(is_lost);
        if self.now() <= deadline {
            return Look::Waiting(deadline, waiting);
        }
        let text = format!("{} is durable, but not in effect: {}", job.message, waiting.join("; "));
        let hint = match is_lost {
            true => {
                "it takes effect when the host is back; if the host is dead for good, DeleteHost \
                 with deleteMode=Enforcing ends what was on it and frees its addresses"
            }
            false => "it takes effect when the host is back; nothing needs to be repeated",
        };
        Look::Over(JobState::Failed(Error::new(Code::Timeout, text).hint(hint)))
    }

    /// Makes a success durable, then tells it: neither a restart nor a later report may take it
    /// back.
    async fn succeed(&self, job: Id<Job>, state: JobState) -> JobState {
        let marked = self.mark(vec![job.uuid()]).await;
        marked.map_or_else(
            |error| {
                tracing::warn!(%job, %error, "a success is not told yet");
                JobState::Processing(Vec::new())
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
                let Some(job) = Job::of(&record) else { continue };
                let done = Record::new(Job { done: true, ..job.clone() }, record.meta);
                tx.put(done).map_err(crate::claim::taken)?;
            }
            Ok(())
        };
        self.store.transact_async(mark).await?;
        let mut memory = self.lock();
        for job in &jobs {
            memory.open.remove(job);
        }
        Ok(())
    }

    /// What a job is if it is not in the store.
    fn uncommitted(&self, job: Id<Job>) -> Look {
        let memory = self.lock();
        match memory.refused.get(&job.uuid()) {
            Some(refused) => Look::Over(JobState::Failed(refused.error.clone())),
            None if memory.running.contains_key(&job.uuid()) => Look::Running,
            None => Look::Over(JobState::Unknown),
        }
    }

    /// What became of a job, once that is decided or `patience` is over.
    pub async fn wait(&self, caller: &Caller, job: Id<Job>, patience: Duration) -> JobState {
        let decided = tokio::time::timeout(patience, self.decided(job)).await;
        // Asked only now: while the job was running, its owner was not known.
        if !self.allows(caller, job) {
            return JobState::Unknown;
        }
        match decided {
            Ok(state) => state,
            Err(_) => self.state(caller, job).await,
        }
    }

    async fn decided(&self, job: Id<Job>) -> JobState {
        match self.settled(job).await {
            Some(Look::Over(state)) => state,
            Some(Look::Acknowledged(state)) => self.succeed(job, state).await,
            _ => JobState::Processing(Vec::new()),
        }
    }

    /// What is found of a job once nothing is waited for; `None`: the server is shutting down.
    async fn settled(&self, job: Id<Job>) -> Option<Look> {
        // Most jobs wait for nothing: they need not be watched.
        if let found @ (Look::Over(_) | Look::Acknowledged(_)) = self.look(job) {
            return Some(found);
        }
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
                found @ (Look::Over(_) | Look::Acknowledged(_)) => return Some(found),
                Look::Running => {
                    ended.await;
                    true
                }
                Look::Waiting(deadline, _) => tokio::select! {
                    reported = board.changed() => reported.is_ok(),
                    decides = changed(&mut commits, (job, &[Kind::Host])) => decides,
                    () = tokio::time::sleep(self.just_after(deadline)) => true,
                },
                Look::Settling(deadline, _) => tokio::select! {
                    reported = board.changed() => reported.is_ok(),
                    decides = changed(&mut commits, (job, SETTLES)) => decides,
                    () = tokio::time::sleep(self.just_after(deadline)) => true,
                },
            };
            // The board or the store has ended.
            if !goes_on {
                return None;
            }
        }
    }

    /// From now until a deadline is over.
    fn just_after(&self, deadline: Timestamp) -> Duration {
        let left = deadline.0.saturating_sub(self.now().0).saturating_add(1);
        Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1))
    }

    /// What is known about when a job was made. If nothing is yet, `now` is a revision that
    /// includes it.
    fn since(&self, job: &Job, now: u64) -> Since {
        let mut memory = self.lock();
        let since = memory.open.entry(job.uuid.uuid()).or_insert(Since::Revision(None));
        if *since == Since::Revision(None) {
            *since = Since::Revision(Some(now));
        }
        *since
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    // Every change is a few calls that cannot panic in between.
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instance that the job took off its host, and whose place there is still kept: whoever is told of
/// a success starts it elsewhere at once.
fn kept_place(job: &Job, snapshot: &Snapshot<Record>) -> Option<String> {
    job.objects.iter().find_map(|object| {
        let record = snapshot.get(Kind::VmInstance, *object)?;
        let instance = VmInstance::of(&record).filter(|instance| instance.host_uuid.is_none())?;
        let place = Claim::Running(instance.last_host_uuid?, instance.uuid);
        let (kind, _) = snapshot.holder(&place)?;
        let reason = || format!("{place} is being let go of by its host");
        (kind == Kind::Release).then(reason)
    })
}

/// Waits until the job, or something of these kinds, may have changed: a host that is deleted is
/// waited for no more. `false` once the store is gone. Cancel safe, as [`Watch::next`] is.
async fn changed(commits: &mut Watch<Record>, (job, kinds): (Id<Job>, &[Kind])) -> bool {
    while let Some(event) = commits.next().await {
        let Event::Commit(commit) = event else { return true };
        let is_job = |kind: Kind, id: Uuid| kind == Kind::Job && id == job.uuid();
        if commit.changes.iter().any(|c| kinds.contains(&c.kind) || is_job(c.kind, c.id)) {
            return true;
        }
    }
    false
}
