//! Sends the messages of long jobs, each in its turn, and writes down what has come of them.
//!
//! What is sent has a job with a uuid that was written down before, and the transaction that does
//! the work notes it on the long job. So a crash anywhere means neither that a message is lost nor
//! that it is done twice.

use std::{sync::Arc, time::Duration};

use model::{
    Code, Error, Id, Kind, Record, Resource, Result,
    resource::{
        account::{ADMIN, Account},
        job::Job,
        long_job::{LongJob, LongJobState},
    },
    setting::JOB_TIMEOUT,
};
use serde_json::{Value, json};
use store::{Event, Read, Snapshot, Tx};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{change, message_of, request};
use crate::{
    Caller, Gate, JobId, JobState, Terms, config, jobs,
    lease::{self, Span},
    turns::Turns,
};

/// Long jobs that run at a time, those that wait for hosts among them.
pub const AT_ONCE_MAX: usize = 256;
/// Those of one account: nobody's keep all others waiting.
pub const AT_ONCE_OF_ACCOUNT_MAX: usize = 16;
/// How long nothing is tried after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a job is waited for at a time.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Longest result that is kept, in bytes.
const RESULT_MAX: usize = 65_536;

/// Whose long job, and which.
type Turn = (Id<Account>, Id<LongJob>);

/// What this record adds.
fn take(turns: &mut Turns<Id<LongJob>>, record: &Record) {
    if let Some(long_job) = LongJob::of(record)
        && !long_job.state.is_over()
    {
        turns.add((record.meta.owner.unwrap_or(Id::new(ADMIN)), long_job.uuid));
    }
}

/// All that are not over, the oldest first.
fn take_all(turns: &mut Turns<Id<LongJob>>, snapshot: &Snapshot<Record>) {
    let states = LongJobState::ALL.iter().filter(|state| !state.is_over());
    let ids = states.flat_map(|state| {
        let key = store::Key::Text(state.as_str().into());
        snapshot.find(Kind::LongJob, "state", &key).collect::<Vec<_>>()
    });
    let mut rows: Vec<_> = ids.filter_map(|id| snapshot.get(Kind::LongJob, id)).collect();
    rows.sort_by_key(|row| (row.meta.created, row.uuid()));
    rows.iter().for_each(|row| take(turns, row));
}

/// Sends what is submitted until told to stop; of several servers on a store one does.
pub async fn run(gate: Arc<Gate>, stop: CancellationToken) {
    let work = |ours| send_all(Arc::clone(&gate), ours);
    lease::held(&gate, "long jobs", Span::SERVERS, stop, work).await;
}

async fn send_all(gate: Arc<Gate>, stop: CancellationToken) {
    let mut commits = gate.store().watch();
    let mut turns = Turns::new(AT_ONCE_MAX, AT_ONCE_OF_ACCOUNT_MAX);
    let mut running: JoinSet<Turn> = JoinSet::new();
    loop {
        while let Some(turn) = turns.next() {
            let (gate, stop) = (Arc::clone(&gate), stop.clone());
            running.spawn(async move {
                // What is dropped half-way is taken up at the next start.
                stop.run_until_cancelled(persist(&gate, turn.1)).await;
                turn
            });
        }
        // Each branch only waits: dropping the others loses nothing.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => match ended {
                Ok(turn) => {
                    turns.ended(turn);
                    // It may have been submitted anew before it was known to be over.
                    let row = gate.store().snapshot().get(Kind::LongJob, turn.1.uuid());
                    row.iter().for_each(|row| take(&mut turns, row));
                }
                Err(error) => tracing::error!(%error, "a long job has ended unexpectedly"),
            },
            event = commits.next() => match event {
                None => break,
                Some(Event::Lagged) => {}
                Some(Event::Snapshot(snapshot)) => take_all(&mut turns, &snapshot),
                Some(Event::Commit(commit)) => {
                    let own = commit.changes.iter().filter(|c| c.kind == Kind::LongJob);
                    own.filter_map(|c| c.after.as_ref()).for_each(|row| take(&mut turns, row));
                }
            },
        }
    }
    running.shutdown().await;
}

/// Does what is to be done for a long job, however often the store fails.
async fn persist(gate: &Gate, id: Id<LongJob>) {
    while let Err(error) = process(gate, id).await {
        tracing::warn!(%error, long_job = %id, "is tried again");
        time::sleep(PAUSE).await;
    }
}

async fn process(gate: &Gate, id: Id<LongJob>) -> Result<()> {
    let Some((long_job, owner)) = begin(gate, id).await? else { return Ok(()) };
    let Some(api) = long_job.api_id.map(Id::<Job>::new) else { return Ok(()) };
    let outcome = match caller(gate, owner, &long_job) {
        Ok(caller) => match send(gate, &caller, &long_job, api).await {
            Ok(()) => follow(gate, &caller, id, api).await?,
            // Nobody knows its job's uuid but who runs it: another server has just sent it.
            Err(error) if error.code == Code::Duplicate && error.field.is_none() => {
                follow(gate, &caller, id, api).await?
            }
            Err(error) if error.code == Code::StoreUnavailable => return Err(error),
            Err(error) => JobState::Failed(error),
        },
        Err(error) => JobState::Failed(error),
    };
    end(gate, (id, api), outcome).await
}

/// Who sends it: its owner, as that one is now.
fn caller(gate: &Gate, owner: Id<Account>, long_job: &LongJob) -> Result<Caller> {
    let source = long_job.source.parse().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    gate.caller_of(owner, None, source)
}

/// Takes it up: its state is `Running`, and the uuid of its job is written down. `None` if it is
/// over or gone.
async fn begin(gate: &Gate, id: Id<LongJob>) -> Result<Option<(LongJob, Id<Account>)>> {
    let (drawn, now) = (Uuid::new_v4(), gate.now());
    let begin = move |tx: &mut Tx<Record>| {
        let Some(record) = tx.get(Kind::LongJob, id.uuid()) else { return Ok(None) };
        let owner = record.meta.owner.unwrap_or(Id::new(ADMIN));
        let Some(long_job) = LongJob::of(&record).filter(|long_job| !long_job.state.is_over())
        else {
            return Ok(None);
        };
        if long_job.state != LongJobState::Waiting {
            return Ok(Some((long_job.clone(), owner)));
        }
        let begun = change(tx, id, |long_job| LongJob {
            state: LongJobState::Running,
            api_id: Some(drawn),
            started: Some(now),
            ..long_job
        })?;
        Ok(begun.map(|begun| (begun, owner)))
    };
    Ok(gate.store().transact_async(begin).await?.value)
}

/// Sends its message, unless that was done before a crash.
async fn send(gate: &Gate, caller: &Caller, long_job: &LongJob, api: Id<Job>) -> Result<()> {
    if long_job.is_sent {
        return Ok(());
    }
    if long_job.state == LongJobState::Canceling {
        return Err(Error::new(Code::Canceled, "it was canceled before it was sent"));
    }
    let request = request(message_of(&long_job.job_name)?, &long_job.job_data)?;
    let command = gate.command(*caller, vec![request])?;
    let timeout_seconds = config::number(&gate.store().snapshot(), &JOB_TIMEOUT);
    let terms = Terms { long_job: Some(long_job.uuid), ..Terms::of(timeout_seconds) };
    let job = JobId { uuid: api, is_chosen: false };
    gate.jobs.submit_on(command, job, terms).await
}

/// What becomes of its job. One that was to be canceled while it was being sent waits no longer.
async fn follow(gate: &Gate, caller: &Caller, id: Id<LongJob>, api: Id<Job>) -> Result<JobState> {
    let stop_waiting = move |tx: &mut Tx<Record>| {
        let record = tx.get(Kind::LongJob, id.uuid());
        let is_canceling = record.as_deref().and_then(LongJob::of);
        if is_canceling.is_some_and(|long_job| long_job.state == LongJobState::Canceling) {
            jobs::end_waiting_now(tx, api)?;
        }
        Ok(())
    };
    gate.store().transact_async(stop_waiting).await?;
    loop {
        match gate.jobs.wait(caller, api, PATIENCE).await {
            JobState::Processing(_) => {}
            state => return Ok(state),
        }
    }
}

/// Writes down what has come of it.
async fn end(gate: &Gate, (id, api): (Id<LongJob>, Id<Job>), outcome: JobState) -> Result<()> {
    let (state, result) = match outcome {
        JobState::Done(answer) => (LongJobState::Succeeded, answer),
        JobState::Failed(error) if error.code == Code::Canceled => {
            (LongJobState::Canceled, json!({"error": error.describe()}))
        }
        JobState::Failed(error) => (LongJobState::Failed, json!({"error": error.describe()})),
        JobState::Processing(_) | JobState::Unknown => {
            let text = "what it did is durable, but its job was forgotten before it was known \
                        whether it is in force";
            (LongJobState::Failed, json!({"error": Error::new(Code::Timeout, text).describe()}))
        }
    };
    let (result, now) = (kept(&result), gate.now());
    let end = move |tx: &mut Tx<Record>| {
        let result = result.clone();
        change(tx, id, |long_job| match long_job.api_id == Some(api.uuid()) {
            // It was submitted anew meanwhile.
            false => long_job,
            true => LongJob {
                state,
                job_result: Some(result),
                execute_time: long_job.started.map(|start| now.0.saturating_sub(start.0) / 1000),
                ..long_job
            },
        })
        .map(|_| ())
    };
    gate.store().transact_async(end).await.map(|_| ())
}

/// The answer as text; of a very long one only what it is about.
fn kept(answer: &Value) -> String {
    let text = answer.to_string();
    match text.len() > RESULT_MAX {
        true => json!({"inventory": {"uuid": answer["inventory"]["uuid"]}}).to_string(),
        false => text,
    }
}
