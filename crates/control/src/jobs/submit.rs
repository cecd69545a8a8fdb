//! How a call becomes a job, or is refused.

use std::sync::Arc;

use model::{
    Code, Error, Id, Kind, MessageDef, Meta, Record, Result, Timestamp,
    resource::{job::Job, long_job::LongJob},
    setting::JOB_EXPIRY,
};
use serde_json::{Map, Value};
use store::{Read, Tx};
use uuid::Uuid;

use super::{JobId, Jobs, REFUSALS_MAX, Refused, Since, View, lock, spans};
use crate::{
    Caller, audit,
    command::{Command, Surroundings},
    config, evacuation, long_job,
    operation::{self, Done},
    realiser, vm_migration, webhook,
};

/// How often a call waits for realisers: each time it may need one for another host.
const WAITS_MAX: usize = 8;

/// What holds for a job besides its command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it waits for hosts, in seconds.
    pub timeout_seconds: i64,
    /// Whose message it is: marked as sent in the same transaction.
    pub long_job: Option<Id<LongJob>>,
    /// Where its result is to be sent.
    pub webhook: Option<String>,
}

/// A call that was refused before it could run.
#[derive(Clone, Debug)]
pub struct RefusedCall {
    /// Why.
    pub error: Error,
    /// The message, if it is known: the audit tells of it.
    pub message: Option<&'static MessageDef>,
    /// Where its result is to be sent.
    pub webhook: Option<String>,
}

impl RefusedCall {
    /// For this reason, of nobody knows which message.
    #[must_use]
    pub const fn of(error: Error) -> Self {
        Self { error, message: None, webhook: None }
    }
}

impl Terms {
    /// It waits for so long, and nobody else is concerned.
    #[must_use]
    pub const fn of(timeout_seconds: i64) -> Self {
        Self { timeout_seconds, long_job: None, webhook: None }
    }
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

impl Jobs {
    /// Remembers that a call was refused before it could run.
    ///
    /// # Errors
    /// [`Code::Duplicate`] when the job's uuid was used before: that job stays what it is.
    /// [`Code::StoreUnavailable`] when somebody who is to be sent the result cannot be.
    pub async fn refuse(&self, caller: &Caller, job: JobId, refused: RefusedCall) -> Result<()> {
        let _running = self.take(job.uuid)?;
        if self.store.snapshot().get(Kind::Job, job.uuid.uuid()).is_some() {
            return Err(used(job.uuid));
        }
        let RefusedCall { error, message, webhook } = refused;
        let noted = message.map(|def| (def, Map::new()));
        self.note_refusal(*caller, noted, &error, webhook.map(|url| (job, url))).await?;
        self.remember(caller, job, error);
        Ok(())
    }

    fn take(&self, job: Id<Job>) -> Result<Running<'_>> {
        let mut memory = self.lock();
        if memory.refused.contains_key(&job.uuid()) || memory.running.contains_key(&job.uuid()) {
            return Err(used(job));
        }
        memory.running.insert(job.uuid(), Vec::new());
        Ok(Running { jobs: self, job })
    }

    fn remember(&self, caller: &Caller, job: JobId, error: Error) {
        let view = View { owner: caller.account(), uuid_chosen: job.is_chosen };
        let mut memory = self.lock();
        *memory.refusals.entry(error.code.as_str()).or_default() += 1;
        memory.refused.insert(job.uuid.uuid(), Refused { error, view });
        memory.refused_order.push_back(job.uuid.uuid());
        if memory.refused_order.len() > REFUSALS_MAX
            && let Some(oldest) = memory.refused_order.pop_front()
        {
            memory.refused.remove(&oldest);
        }
    }

    /// Runs the command. Afterwards the job is known: durable, or refused.
    ///
    /// # Errors
    /// [`Code::Duplicate`] when the job's uuid was used before: the call was not run again.
    /// [`Code::StoreUnavailable`]: the same call may be tried again with the same uuid.
    pub async fn submit(&self, command: Command, job: JobId, timeout_seconds: i64) -> Result<()> {
        self.submit_on(command, job, Terms::of(timeout_seconds)).await
    }

    /// The same on these terms.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_on(&self, command: Command, job: JobId, terms: Terms) -> Result<()> {
        let span = spans::begin(job.uuid, command.name());
        let submitted = self.run(command, job, terms).await;
        self.spans.answered(job.uuid, span, &submitted);
        submitted
    }

    async fn run(&self, command: Command, job: JobId, terms: Terms) -> Result<()> {
        let _running = self.take(job.uuid)?;
        let caller = *command.caller();
        let seed = Uuid::new_v4();
        let mut tried = self.attempt(&command, job, &terms, seed).await;
        // It has changed nothing, and what it lacked may be there now: so it is done as if it were
        // called then.
        for _ in 0..WAITS_MAX {
            let Err(Error { unrealised: Some(needed), .. }) = &tried else { break };
            let told = |waits| {
                self.lock().running.insert(job.uuid.uuid(), waits);
            };
            let around = (self.clock, caller.is_admin());
            tried = match realiser::ask(&self.store, needed, around, told).await {
                Ok(()) => self.attempt(&command, job, &terms, seed).await,
                Err(error) => Err(error),
            };
        }
        match tried {
            Ok(()) => Ok(()),
            Err(error) if error.code == Code::Duplicate && error.field.is_none() => Err(error),
            // The store failed, not the call, so no refusal is kept. If the commit happened all the
            // same, the job is in the store.
            Err(error) if error.code == Code::StoreUnavailable => Err(error),
            Err(error) => {
                tracing::debug!(job = %job.uuid, %error, "call refused");
                let call = command.calls().first();
                let noted = call.map(|call| (call.operation.def, call.params.clone()));
                let webhook = terms.webhook.map(|url| (job, url));
                self.note_refusal(caller, noted, &error, webhook).await?;
                self.remember(&caller, job, error);
                Ok(())
            }
        }
    }

    /// Runs the command once, in one transaction.
    async fn attempt(
        &self,
        command: &Command,
        job: JobId,
        terms: &Terms,
        seed: Uuid,
    ) -> Result<()> {
        let (command, terms, now) = (command.clone(), terms.clone(), self.now());
        let caller = *command.caller();
        let surroundings = Surroundings { now, seed, board: self.board() };
        let (memory, uuid) = (Arc::clone(&self.memory), job.uuid.uuid());
        let run = move |tx: &mut Tx<Record>| {
            if tx.get(Kind::Job, uuid).is_some() {
                return Err(used(job.uuid));
            }
            let done = operation::run(&command, tx, &surroundings)?;
            evacuation::is_awaited(tx, &done.evacuated, job.uuid)?;
            vm_migration::is_awaited(tx, &done.moved, job.uuid)?;
            let row = record(job, &command, done, (now, terms.timeout_seconds));
            if let Some(long_job) = terms.long_job {
                long_job::sent(tx, long_job)?;
            }
            // Noted here, not after the commit: the caller may go away before that. If the commit
            // fails, the note has no effect.
            let keep = config::number(&*tx, &JOB_EXPIRY);
            lock(&memory).note(&row, Since::Revision(None), keep);
            if let Some(url) = &terms.webhook {
                webhook::due(tx, (&caller, url), job, None, now)?;
            }
            let waits = !row.hosts.is_empty();
            let meta = Meta { owner: caller.account(), created: now, changed: now };
            tx.put(Record::new(row, meta)).map_err(crate::claim::taken)?;
            Ok(waits)
        };
        let committed = self.store.transact_async(run).await?;
        if committed.value {
            let since = Since::Revision(Some(committed.revision));
            self.lock().open.insert(uuid, since);
        }
        Ok(())
    }

    /// Notes a message that was refused, and who is to be sent that. It has changed nothing, so this
    /// is a transaction of its own. The refusal is told even if the store does not take the note.
    ///
    /// # Errors
    /// The store's, if somebody is to be sent it.
    pub(crate) async fn note_refusal(
        &self,
        caller: Caller,
        message: Option<(&'static MessageDef, Map<String, Value>)>,
        error: &Error,
        webhook: Option<(JobId, String)>,
    ) -> Result<()> {
        if caller.account().is_none() {
            return Ok(());
        }
        let (told, now, is_awaited) = (error.clone(), self.now(), webhook.is_some());
        let note = move |tx: &mut Tx<Record>| {
            if let Some((def, fields)) = &message {
                let (caller, subject) = (&caller, None);
                let event = audit::Event { def, caller, fields, subject, outcome: Err(&told) };
                audit::note(tx, &event, (now, Uuid::new_v4()))?;
            }
            if let Some((job, url)) = &webhook {
                webhook::due(tx, (&caller, url), *job, Some(&told), now)?;
            }
            Ok(())
        };
        match self.store.transact_async(note).await {
            Err(error) if is_awaited => Err(error),
            Err(error) => {
                tracing::warn!(%error, "a refusal is not in the audit");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

fn used(job: Id<Job>) -> Error {
    let error = Error::new(Code::Duplicate, format!("the job uuid {job} was used before"));
    error.hint("ask for that job, or choose another X-Job-UUID")
}

fn record(
    job: JobId,
    command: &Command,
    done: Done,
    (now, timeout_seconds): (Timestamp, i64),
) -> Job {
    Job {
        uuid: job.uuid,
        message: command.name().to_owned(),
        subject_kind: done.reply.subject.map(|(kind, _)| kind),
        subject_uuid: done.reply.subject.map(|(_, uuid)| uuid),
        subject_also: done.reply.also,
        hosts: done.hosts.into_iter().collect(),
        objects: done.objects.into_iter().collect(),
        done: false,
        messages: command.notes().to_vec(),
        canceled: None,
        failed: None,
        uuid_chosen: job.is_chosen,
        create_date: now,
        deadline: now.plus_seconds(timeout_seconds),
    }
}
