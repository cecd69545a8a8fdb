//! Job: what became of a message. Written in the transaction that did the work.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::host::Host;
use crate::{Id, Kind, Timestamp};

/// What became of a message. It is in the store once its work is; a *success* once every host in
/// `hosts` has acknowledged that revision too, and from then on: `done` remembers it. A message
/// that was refused changed nothing and has no job here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id, chosen by the caller with `X-Job-UUID` or by the server.
    pub uuid: Id<Job>,
    /// The message's name.
    pub message: String,
    /// The kind of the resource that the answer shows.
    pub subject_kind: Option<Kind>,
    /// The resource that the answer shows.
    pub subject_uuid: Option<Uuid>,
    /// Another one of its kind that the answer shows.
    #[serde(default)]
    pub subject_also: Option<Uuid>,
    /// Hosts whose acknowledgement makes it a success.
    #[field(hidden, on_delete = "keep")]
    pub hosts: Vec<Id<Host>>,
    /// The uuids by which these know what has changed.
    #[field(hidden)]
    #[serde(default)]
    pub objects: Vec<Uuid>,
    /// Every one of them has; what they report later is about something else.
    #[field(hidden)]
    #[serde(default)]
    pub done: bool,
    /// What was passed over, a sentence each.
    #[field(hidden)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Its uuid was the caller's choice, so knowing it proves nothing.
    #[field(hidden)]
    #[serde(default)]
    pub uuid_chosen: bool,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it stops waiting for hosts.
    pub deadline: Timestamp,
}
