//! Instance offering: how large an instance is to be. It says what was asked for: an instance that is
//! a namespace takes what there is.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::zone::{EnableEvent, EnableState};
use crate::{Id, Message, MessageDef, Update, words};

words! {
    /// The type of an offering.
    OfferingType {
        /// Of users' instances.
        User = "UserVm",
    }
}

words! {
    /// How a host is chosen.
    AllocatorStrategy {
        /// The one with the fewest instances.
        LeastVm = "LeastVmPreferredHostAllocatorStrategy",
    }
}

/// How large an instance is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/instance-offerings", shareable, messages)]
pub struct InstanceOffering {
    /// Its id.
    pub uuid: Id<InstanceOffering>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// CPUs.
    pub cpu_num: u32,
    /// Memory, in bytes.
    pub memory_size: u64,
    /// The part of the memory that nobody else gets, in bytes.
    pub reserved_memory_size: u64,
    /// Always `UserVm`.
    #[serde(rename = "type")]
    pub offering_type: OfferingType,
    /// How a host is chosen.
    pub allocator_strategy: AllocatorStrategy,
    /// For sorting.
    pub sort_key: u32,
    /// Whether new instances may have it.
    pub state: EnableState,
}

impl InstanceOffering {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateInstanceOffering::DEF,
        &UpdateInstanceOffering::DEF,
        &DeleteInstanceOffering::DEF,
        &ChangeInstanceOfferingState::DEF,
    ];
}

/// Makes an offering.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/instance-offerings", creates = "InstanceOffering", access = "admin")]
pub struct CreateInstanceOffering {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// CPUs.
    #[field(range = "1..=1024")]
    pub cpu_num: u32,
    /// Memory, in bytes.
    #[field(range = "1..=9223372036854775807")]
    pub memory_size: u64,
    /// The part of the memory that nobody else gets, in bytes; 0 if absent.
    #[field(range = "0..=9223372036854775807")]
    pub reserved_memory_size: Option<u64>,
    /// The only way that there is, if named at all.
    pub allocator_strategy: Option<AllocatorStrategy>,
    /// For sorting; 0 if absent.
    pub sort_key: Option<u32>,
    /// The only type that there is, if named at all.
    #[serde(rename = "type")]
    pub offering_type: Option<OfferingType>,
}

/// Renames an offering.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/instance-offerings/{uuid}/actions",
    action = "updateInstanceOffering",
    access = "admin"
)]
pub struct UpdateInstanceOffering {
    /// The offering.
    pub uuid: Id<InstanceOffering>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// The only way that there is, if named at all.
    pub allocator_strategy: Option<AllocatorStrategy>,
}

/// Deletes an offering. Instances that have it stay as they are.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/instance-offerings/{uuid}", access = "admin")]
pub struct DeleteInstanceOffering {
    /// The offering.
    pub uuid: Id<InstanceOffering>,
}

/// Says whether new instances may have an offering.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/instance-offerings/{uuid}/actions",
    action = "changeInstanceOfferingState",
    access = "admin"
)]
pub struct ChangeInstanceOfferingState {
    /// The offering.
    pub uuid: Id<InstanceOffering>,
    /// What is to happen.
    pub state_event: EnableEvent,
}
