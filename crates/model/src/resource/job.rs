//! Job: what became of a message. Written in the transaction that did the work.

use derive::Resource;
use serde::{Deserialize, Serialize};

use super::host::Host;
use crate::{Id, Timestamp};

/// What became of a message. *Done* when every host in `hosts` has acknowledged `revision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "")]
pub struct Job {
    /// Its id, chosen by the caller with `X-Job-UUID` or by the server.
    pub uuid: Id<Job>,
    /// The message's name.
    pub message: String,
    /// The answer once it is done.
    pub result: serde_json::Value,
    /// Hosts whose acknowledgement makes it a success.
    #[field(hidden)]
    pub hosts: Vec<Id<Host>>,
    /// The revision that they must have acknowledged.
    pub revision: u64,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it stops waiting.
    pub deadline: Timestamp,
}
