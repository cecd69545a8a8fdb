//! Lease: that one of the servers on a store does what only one of them may do at a time.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Id;

/// That one of the servers on a store does some work. It keeps its lease by changing it again and
/// again; another server takes it over once it has not seen it change for some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource()]
pub struct Lease {
    /// Its id, derived from the name of the work.
    pub uuid: Id<Lease>,
    /// Who has it: drawn by each server that wants it.
    pub holder: Uuid,
    /// How often it was taken or kept.
    pub turn: u64,
}

impl Lease {
    /// The id of the lease of some work.
    #[must_use]
    pub fn id_of(work: &str) -> Id<Self> {
        Id::new(Uuid::new_v5(&Uuid::NAMESPACE_OID, work.as_bytes()))
    }
}
