//! Zone: the outermost container, usually a datacentre.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use crate::{Id, Timestamp, words};

words! {
    /// Whether a resource may be used for new things.
    EnableState {
        /// It may.
        Enabled = "Enabled",
        /// What exists goes on; nothing new.
        Disabled = "Disabled",
    }
}

/// The outermost container: clusters and networks belong to one zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/zones", unique_name)]
pub struct Zone {
    /// Its id.
    pub uuid: Id<Zone>,
    /// A name, unique among zones.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether it takes new resources.
    pub state: EnableState,
    /// Always `zstack`.
    #[serde(rename = "type")]
    pub zone_type: String,
    /// Chosen when a message names no zone.
    pub is_default: bool,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// Makes a zone.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/zones", creates = "Zone")]
pub struct CreateZone {
    /// A name, unique among zones.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Chosen when a message names no zone.
    pub is_default: Option<bool>,
}

/// Deletes a zone that holds nothing any more.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/zones/{uuid}")]
pub struct DeleteZone {
    /// The zone.
    pub uuid: Id<Zone>,
}
