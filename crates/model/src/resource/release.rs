//! Release: what may not be given out again yet.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::host::Host;
use crate::{Claim, Id, Timestamp};

/// Claims of a deleted resource that some host may still act on. They are given up when each host
/// that was told of its objects has confirmed that these are gone, or is deleted itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(claims)]
pub struct Release {
    /// Its id.
    pub uuid: Id<Release>,
    /// The objects by which hosts know the holder: of NICs and networks, their uuids.
    pub objects: Vec<Uuid>,
    /// What is still held.
    #[field(flatten)]
    pub claims: Vec<Claim>,
    /// Hosts that have to confirm; `None` until somebody wrote it down.
    #[field(hidden, on_delete = "keep")]
    pub hosts: Option<Vec<Id<Host>>>,
    /// When that was.
    pub create_date: Timestamp,
}

impl Release {
    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        self.claims.clone()
    }
}
