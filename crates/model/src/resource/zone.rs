//! Zone: the outermost container, usually a datacentre.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use crate::{Id, Kind, Message, MessageDef, Update, shown::Child, words};

words! {
    /// Whether a resource may be used for new things.
    EnableState {
        /// It may.
        Enabled = "Enabled",
        /// What exists goes on; nothing new.
        Disabled = "Disabled",
    }
}

impl EnableState {
    /// The state after an event.
    #[must_use]
    pub const fn next(self, event: EnableEvent) -> Self {
        match (self, event) {
            (Self::Enabled | Self::Disabled, EnableEvent::Enable) => Self::Enabled,
            (Self::Enabled | Self::Disabled, EnableEvent::Disable) => Self::Disabled,
        }
    }
}

words! {
    /// What changes whether a resource may be used for new things: ZStack's `stateEvent`.
    EnableEvent {
        /// It may be from now on.
        Enable = "enable",
        /// Nothing new from now on.
        Disable = "disable",
    }
}

words! {
    /// How much a deletion insists. Where a message does not say otherwise, both mean the same: what
    /// is deleted along, and what refuses, is declared.
    DeleteMode {
        /// It waits for the hosts concerned.
        Permissive = "Permissive",
        /// It waits for no host that is not connected.
        Enforcing = "Enforcing",
    }
}

words! {
    /// The type of a zone.
    ZoneType {
        /// The only one there is.
        Zstack = "zstack",
    }
}

/// The outermost container: clusters and networks belong to one zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/zones", children, messages)]
pub struct Zone {
    /// Its id.
    pub uuid: Id<Zone>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether it takes new resources.
    pub state: EnableState,
    /// Always `zstack`.
    #[serde(rename = "type")]
    pub zone_type: ZoneType,
    /// Chosen when a message names no zone.
    pub is_default: bool,
}

impl Zone {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateZone::DEF, &UpdateZone::DEF, &ChangeZoneState::DEF, &DeleteZone::DEF];

    const CHILDREN: &'static [Child] = &[
        Child::unseen("cluster", Kind::Cluster, "zoneUuid"),
        Child::unseen("host", Kind::Host, "zoneUuid"),
        Child::unseen("l2Network", Kind::L2Network, "zoneUuid"),
        Child::unseen("l3Network", Kind::L3Network, "zoneUuid"),
        Child::unseen("vmInstance", Kind::VmInstance, "zoneUuid"),
    ];
}

/// Makes a zone.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/zones", creates = "Zone", access = "admin")]
pub struct CreateZone {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Chosen when a message names no zone.
    pub is_default: Option<bool>,
}

/// Renames a zone, or makes it the default.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/zones/{uuid}/actions", action = "updateZone", access = "admin")]
pub struct UpdateZone {
    /// The zone.
    pub uuid: Id<Zone>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// Whether it is chosen when a message names no zone.
    pub is_default: Option<bool>,
}

/// Enables or disables a zone, its clusters and their hosts: nothing new runs where all is disabled.
/// Hosts in maintenance stay as they are. What exists goes on.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/zones/{uuid}/actions", action = "changeZoneState", access = "admin")]
pub struct ChangeZoneState {
    /// The zone.
    pub uuid: Id<Zone>,
    /// What to do.
    pub state_event: EnableEvent,
}

/// Deletes a zone with everything in it: clusters, hosts, networks and instances.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/zones/{uuid}", access = "admin")]
pub struct DeleteZone {
    /// The zone.
    pub uuid: Id<Zone>,
}
