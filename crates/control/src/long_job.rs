//! Long jobs: what callers do with them. [`run`] sends their messages.

mod run;

use model::{
    Code, Error, Id, Kind, MessageDef, Record, Resource, Result,
    declare::Answer,
    resource::{
        job::Job,
        long_job::{
            CancelLongJob, DeleteLongJob, LongJob, LongJobState, RerunLongJob, SubmitLongJob,
            UpdateLongJob,
        },
        messages,
    },
};
use serde_json::{Map, Value};
use store::{Read, Tx};

use crate::{
    Reply, Request, Txn, Unknown, claim, command, jobs,
    operation::{Operation, job},
    validate,
};

pub use run::{AT_ONCE_MAX, AT_ONCE_OF_ACCOUNT_MAX, run};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(submit), job(update), job(cancel), job(rerun), job(delete)]
}

fn submit(txn: &mut Txn<'_>, message: SubmitLongJob) -> Result<Reply> {
    let def = message_of(&message.job_name)?;
    command::may_send(txn.caller(), def).map_err(|error| error.on_field("jobName"))?;
    let mut request = request(def, &message.job_data)?;
    validate::take_unknown(def, &mut request.params);
    validate::check(def, request.params).map_err(in_data)?;
    let long_job = LongJob {
        uuid: txn.new_id(),
        name: message.name.unwrap_or_else(|| message.job_name.clone()),
        description: message.description,
        api_id: None,
        job_name: message.job_name,
        job_data: message.job_data,
        job_result: None,
        state: LongJobState::Waiting,
        target_resource_uuid: message.target_resource_uuid,
        execute_time: None,
        source: txn.caller().source().to_string(),
        started: None,
        is_sent: false,
    };
    txn.insert(long_job).map(Reply::shows)
}

/// The message of this name. One about long jobs is refused: two could start each other for ever.
fn message_of(name: &str) -> Result<&'static MessageDef> {
    let refuse = |rule: String, hint: &str| Err(Error::field("jobName", rule).hint(hint));
    let bare = name.rsplit('.').next().unwrap_or_default();
    let bare = bare.strip_prefix("API").unwrap_or(bare);
    let bare = bare.strip_suffix("Msg").unwrap_or(bare);
    let Some(def) = messages().find(|def| def.name == bare) else {
        return refuse(
            format!("\"{name}\" is no message"),
            "`netloom messages` lists what there is",
        );
    };
    let is_about_long_jobs = LongJob::DEF.messages.iter().any(|own| own.name == def.name);
    match (def.answer, is_about_long_jobs) {
        (Answer::Job, false) => Ok(def),
        (Answer::Now, _) => {
            refuse(format!("{bare} is answered at once"), "send it by itself, without a long job")
        }
        (Answer::Job, true) => {
            refuse(format!("{bare} is about long jobs"), "send it by itself, without a long job")
        }
    }
}

/// What stands in the data of a long job, as a door would have understood it.
fn request(def: &'static MessageDef, data: &str) -> Result<Request> {
    let mut params: Map<String, Value> = serde_json::from_str(data).map_err(|cause| {
        let error = Error::field("jobData", format!("is not the text of a JSON object: {cause}"));
        error.hint(validate::usage(def))
    })?;
    params.retain(|_, value| !value.is_null());
    let is_own = |name: &str| def.fields.iter().any(|field| field.name == name);
    for aside in ["session", "timeout", "tagUuids", "deleteMode"] {
        if !is_own(aside) {
            params.remove(aside);
        }
    }
    let mut parsed = Request {
        message: def.name.to_owned(),
        system_tags: texts(&mut params, "systemTags", is_own("systemTags"))?,
        user_tags: texts(&mut params, "userTags", is_own("userTags"))?,
        unknown: Unknown::Name,
        ..Request::default()
    };
    if def.creates.is_some()
        && !is_own("resourceUuid")
        && let Some(wanted) = params.remove("resourceUuid")
    {
        let uuid = wanted.as_str().and_then(model::id::parse_uuid);
        let wrong = || in_data(Error::field("resourceUuid", format!("{wanted} is not a uuid")));
        parsed.resource_uuid = Some(uuid.ok_or_else(wrong)?);
    }
    Ok(Request { params, ..parsed })
}

fn texts(params: &mut Map<String, Value>, name: &str, is_own: bool) -> Result<Vec<String>> {
    let Some(value) = params.get(name).filter(|_| !is_own).cloned() else { return Ok(Vec::new()) };
    params.remove(name);
    serde_json::from_value(value)
        .map_err(|_| in_data(Error::field(name, "must be a list of texts")))
}

/// The same, blaming the field that the submitter has sent.
fn in_data(error: Error) -> Error {
    error.on_field("jobData")
}

fn update(txn: &mut Txn<'_>, message: UpdateLongJob) -> Result<Reply> {
    let mut long_job = txn.get(message.uuid)?;
    long_job.name = message.name.unwrap_or(long_job.name);
    message.description.apply(&mut long_job.description);
    txn.update(long_job)?;
    Ok(Reply::shows(message.uuid))
}

fn cancel(txn: &mut Txn<'_>, message: CancelLongJob) -> Result<Reply> {
    let long_job = txn.get(message.uuid)?;
    let state = match long_job.state {
        LongJobState::Canceled => return Ok(Reply::shows(message.uuid)),
        LongJobState::Waiting => LongJobState::Canceled,
        LongJobState::Running | LongJobState::Canceling => {
            let sent = long_job.api_id.map(Id::<Job>::new).and_then(|id| txn.find(id));
            // One that is being sent is looked at again once it is.
            if let Some(job) = sent.filter(|job| job.canceled.is_none()) {
                jobs::end_waiting(txn, job.uuid)?;
            }
            LongJobState::Canceling
        }
        over @ (LongJobState::Succeeded | LongJobState::Failed) => {
            return Err(refusal("cancel", over, "what it has done is undone by messages"));
        }
    };
    txn.update(LongJob { state, ..long_job })?;
    Ok(Reply::shows(message.uuid))
}

fn rerun(txn: &mut Txn<'_>, message: RerunLongJob) -> Result<Reply> {
    let long_job = txn.get(message.uuid)?;
    if !long_job.state.is_over() {
        return Err(refusal("rerun", long_job.state, "wait until it is over, or cancel it"));
    }
    txn.update(LongJob {
        state: LongJobState::Waiting,
        api_id: None,
        job_result: None,
        execute_time: None,
        started: None,
        is_sent: false,
        ..long_job
    })?;
    Ok(Reply::shows(message.uuid))
}

fn delete(txn: &mut Txn<'_>, message: DeleteLongJob) -> Result<Reply> {
    let long_job = txn.get(message.uuid)?;
    if !long_job.state.is_over() {
        return Err(refusal("delete", long_job.state, "wait until it is over, or cancel it"));
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

fn refusal(what: &str, state: LongJobState, hint: &str) -> Error {
    let text = format!("{what}: not for a long job in the state {}", state.as_str());
    Error::new(Code::OperationFailed, text).hint(hint)
}

/// Notes that its message is durable, in the transaction that makes it so.
pub(crate) fn sent(tx: &mut Tx<Record>, id: Id<LongJob>) -> Result<()> {
    change(tx, id, |long_job| LongJob { is_sent: true, ..long_job }).map(|_| ())
}

/// Changes a long job that is still there; gives what it is then.
fn change(
    tx: &mut Tx<Record>,
    id: Id<LongJob>,
    change: impl FnOnce(LongJob) -> LongJob,
) -> Result<Option<LongJob>> {
    let Some(record) = tx.get(Kind::LongJob, id.uuid()) else { return Ok(None) };
    let Some(long_job) = LongJob::of(&record).cloned() else { return Ok(None) };
    let changed = change(long_job);
    tx.put(Record::new(changed.clone(), record.meta)).map_err(claim::taken)?;
    Ok(Some(changed))
}
