//! The messages that start, stop and end instances.

use derive::Message;
use serde::Deserialize;

use super::{cluster::Cluster, host::Host, vm_instance::VmInstance, zone::DeleteMode};
use crate::{Id, Message, MessageDef, words};

/// The messages of this file.
pub(super) const MESSAGES: [&MessageDef; 9] = [
    &StartVmInstance::DEF,
    &StopVmInstance::DEF,
    &RebootVmInstance::DEF,
    &DestroyVmInstance::DEF,
    &RecoverVmInstance::DEF,
    &ExpungeVmInstance::DEF,
    &PauseVmInstance::DEF,
    &ResumeVmInstance::DEF,
    &MigrateVm::DEF,
];

words! {
    /// How an instance is stopped.
    StopType {
        /// It is asked to end, and has a minute; one that is a namespace has nobody to ask.
        Grace = "grace",
        /// It ends at once.
        Cold = "cold",
    }
}

words! {
    /// Whether what keeps an instance running by itself lets it stop. Nothing does.
    StopHa {
        /// It does.
        True = "true",
    }
}

/// Starts an instance that is stopped: on the host that had it last, if that one fits, else where
/// there is room. It keeps its addresses and MACs. It is never on two hosts: another host than the
/// last one gets it once that one has confirmed that it let go, or was deleted as dead.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{uuid}/actions", action = "startVmInstance")]
pub struct StartVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// Where it may run.
    pub cluster_uuid: Option<Id<Cluster>>,
    /// Where it must run.
    pub host_uuid: Option<Id<Host>>,
}

/// Stops an instance. It keeps its NICs, addresses and MACs, and is on no host. If its host is not
/// connected, the instance ends there when the host is back.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{uuid}/actions", action = "stopVmInstance")]
pub struct StopVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// Both do the same: a machine is asked to end, an instance that is a namespace has nobody to ask.
    #[serde(rename = "type")]
    pub stop_type: Option<StopType>,
    /// Accepted and ignored: nothing starts an instance by itself.
    #[serde(rename = "stopHA")]
    pub stop_ha: Option<StopHa>,
}

/// Makes an instance anew on its host, with the same NICs, addresses and MACs. A machine is reset.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/vm-instances/{uuid}/actions", action = "rebootVmInstance")]
pub struct RebootVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Ends an instance. Its addresses are given back: they rest while its host is not connected, until
/// the host is back or is deleted. The instance and its NICs stay as `Destroyed` for a day, in which
/// `RecoverVmInstance` brings them back; then they are expunged.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/vm-instances/{uuid}")]
pub struct DestroyVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// `Enforcing`: do not wait for a host that is not connected.
    pub delete_mode: Option<DeleteMode>,
}

/// Brings a destroyed instance back, stopped. Its NICs keep their MACs and get addresses: those that
/// were chosen for them, else free ones.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/vm-instances/{uuid}/actions", action = "recoverVmInstance")]
pub struct RecoverVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Forgets a destroyed instance and its NICs for good.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/vm-instances/{uuid}/actions", action = "expungeVmInstance")]
pub struct ExpungeVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Lets a machine stand still. An instance that is a namespace cannot: it has no processes of its own.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/vm-instances/{uuid}/actions", action = "pauseVmInstance")]
pub struct PauseVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Lets a machine that stands still go on.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/vm-instances/{uuid}/actions", action = "resumeVmInstance")]
pub struct ResumeVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Moves a running instance of driver `qemu` to another host, with its memory, addresses, MACs and
/// connections; success is that it runs there. If it cannot be moved it goes on where it is, and the
/// job says why. What runs in a namespace cannot be moved: `StopVmInstance`, then `StartVmInstance`
/// with `hostUuid`, keeps addresses and MACs.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{vmInstanceUuid}/actions", action = "migrateVm")]
pub struct MigrateVm {
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
    /// Where to; a host of its cluster with few instances if absent.
    pub host_uuid: Option<Id<Host>>,
    /// Accepted and ignored: both hosts do.
    pub migrate_from_destination: Option<bool>,
    /// Accepted and ignored: one whose host cannot be asked cannot be moved.
    pub allow_unknown: Option<bool>,
}
