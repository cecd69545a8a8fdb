//! Long job: a message that is sent later, in its turn, and remembered until somebody forgets it.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Id, Message, MessageDef, Timestamp, Update, words};

words! {
    /// What has become of a long job. ZStack's `Suspended` is none of them: nothing suspends one.
    LongJobState {
        /// It is not its turn yet.
        Waiting = "Waiting",
        /// Its message is being done, or waits for hosts.
        Running = "Running",
        /// Somebody wants it ended while its message is being done.
        Canceling = "Canceling",
        /// Its message is in force.
        Succeeded = "Succeeded",
        /// Its message was refused, or not in force in time.
        Failed = "Failed",
        /// It was ended before its message was done, or while that waited for hosts.
        Canceled = "Canceled",
    }
}

impl LongJobState {
    /// Whether nothing happens any more until somebody wants it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Canceling => false,
            Self::Succeeded | Self::Failed | Self::Canceled => true,
        }
    }
}

/// A message that is sent later on behalf of an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/longjobs", quota = "longJob.num", quota_default = 1000, messages)]
pub struct LongJob {
    /// Its id.
    pub uuid: Id<LongJob>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The job of its message: `GetTaskProgress` tells of it.
    pub api_id: Option<Uuid>,
    /// The message, as ZStack names it: `APIStartVmInstanceMsg`.
    pub job_name: String,
    /// The message's fields, as JSON.
    pub job_data: String,
    /// What the message was answered, as JSON; of one that failed, the error.
    pub job_result: Option<String>,
    /// What has become of it.
    #[field(index)]
    pub state: LongJobState,
    /// What it is about, for people.
    pub target_resource_uuid: Option<Uuid>,
    /// How long it ran, in seconds.
    pub execute_time: Option<i64>,
    /// From where it was submitted, for the audit.
    #[field(hidden)]
    pub source: String,
    /// When it began to run.
    #[field(hidden)]
    pub started: Option<Timestamp>,
    /// Its message is durable: written with it, so that nothing is done twice.
    #[field(hidden)]
    pub is_sent: bool,
}

impl LongJob {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &SubmitLongJob::DEF,
        &UpdateLongJob::DEF,
        &CancelLongJob::DEF,
        &RerunLongJob::DEF,
        &DeleteLongJob::DEF,
    ];
}

/// Has a message sent later: the answer does not wait for it. Any message that changes something can
/// be sent so, for the account that submits it.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/longjobs", creates = "LongJob")]
pub struct SubmitLongJob {
    /// A name; that of the message if absent.
    pub name: Option<String>,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The message, such as `APIStartVmInstanceMsg` or `StartVmInstance`.
    pub job_name: String,
    /// Its fields, as the text of a JSON object; `systemTags` and `userTags` may be among them.
    #[field(max_len = 65536)]
    pub job_data: String,
    /// What it is about, for people.
    pub target_resource_uuid: Option<Uuid>,
}

/// Renames a long job.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/longjobs/{uuid}/actions", action = "updateLongJob")]
pub struct UpdateLongJob {
    /// The long job.
    pub uuid: Id<LongJob>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Ends a long job: one that waits for its turn is not run, of one that waits for hosts the waiting
/// ends. What was done stays.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/longjobs/{uuid}/actions", action = "cancelLongJob")]
pub struct CancelLongJob {
    /// The long job.
    pub uuid: Id<LongJob>,
}

/// Sends the message of a long job that is over once more.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/longjobs/{uuid}/actions", action = "rerunLongJob")]
pub struct RerunLongJob {
    /// The long job.
    pub uuid: Id<LongJob>,
}

/// Forgets a long job that is over.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/longjobs/{uuid}")]
pub struct DeleteLongJob {
    /// The long job.
    pub uuid: Id<LongJob>,
}
