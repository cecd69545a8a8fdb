//! What callers do with jobs: end the waiting of one, and ask how much of one is in force.

use std::future::ready;

use model::{
    Code, Error, Id, Kind, Record, Resource, Result,
    resource::{
        host::Host,
        job::{CancelJob, GetTaskProgress, Job},
    },
    shown::View,
    status::Board,
};
use serde_json::{Value, json};
use store::{Read, Tx};

use crate::{
    Caller, Gate, Reply, Txn, claim,
    inventory::Observed,
    operation::{Operation, job, now},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(cancel), now(|gate, caller, message| ready(progress(&gate, &caller, &message)))]
}

fn cancel(txn: &mut Txn<'_>, message: CancelJob) -> Result<Reply> {
    end_waiting(txn, message.uuid)?;
    Ok(Reply::shows(message.uuid))
}

/// Ends the waiting of a job. What it did stays.
///
/// # Errors
/// [`Code::OperationFailed`] for one that waits for nothing.
pub(crate) fn end_waiting(txn: &mut Txn<'_>, id: Id<Job>) -> Result<()> {
    let job = txn.get(id)?;
    let why = match (&job.canceled, job.done || job.hosts.is_empty()) {
        _ if job.failed.is_some() => "it has failed",
        (Some(_), _) => "its waiting was ended already",
        (None, true) => "it has succeeded",
        (None, false) if txn.now() > job.deadline => "its time is over",
        (None, false) => {
            let waited = waited(txn, &job);
            txn.update(Job { canceled: Some(waited), ..job })?;
            return Ok(());
        }
    };
    let text = format!("there is nothing to cancel: {why}");
    let hint = "what a job has done is undone by a message of its own, such as a deletion";
    Err(Error::new(Code::OperationFailed, text).hint(hint))
}

/// The same outside of a call; nothing is done to a job that waits for nothing.
pub(crate) fn end_waiting_now(tx: &mut Tx<Record>, id: Id<Job>) -> Result<()> {
    let Some(record) = tx.get(Kind::Job, id.uuid()) else { return Ok(()) };
    let Some(job) = Job::of(&record).filter(|job| !job.is_over()) else { return Ok(()) };
    let waited = "it was canceled before its hosts could confirm it".to_owned();
    let ended = Job { canceled: Some(waited), ..job.clone() };
    tx.put(Record::new(ended, record.meta)).map_err(claim::taken)
}

/// What the job waits for, in words. That nothing of it is known does not make it a success: what it
/// changed may not have been compiled for hosts yet.
fn waited(txn: &Txn<'_>, job: &Job) -> String {
    let exists = |host: &&Id<Host>| txn.find(**host).is_some();
    let board: &Board = txn.board();
    let why = |host: &Id<Host>| {
        let since = board.status(*host).confirmed.then_some(board.revision);
        job.waits_for(*host, since, board)
    };
    let waits: Vec<String> = job.hosts.iter().filter(exists).filter_map(why).collect();
    match waits.is_empty() {
        true => "its hosts had not confirmed it yet".to_owned(),
        false => waits.join("; "),
    }
}

/// ZStack's list of one task. What is not there, or not the caller's, has none.
fn progress(gate: &Gate, caller: &Caller, message: &GetTaskProgress) -> Result<Value> {
    let (snapshot, board) = (gate.store().snapshot(), gate.jobs.board());
    let record = snapshot.get(Kind::Job, message.api_id);
    let record = record.filter(|record| caller.owns(record.meta.owner));
    let Some(job) = record.as_deref().and_then(Job::of) else {
        return Ok(json!({"inventories": []}));
    };
    let observed = Observed::new(&snapshot, &board).at(gate.now());
    let task = json!({
        "taskUuid": job.uuid,
        "taskName": job.message,
        "type": "Progress",
        "content": job.progress(&observed).to_string(),
        "time": observed.now().0,
        "opaque": {"state": job.state(&observed).as_str()},
    });
    Ok(json!({"inventories": [task]}))
}
