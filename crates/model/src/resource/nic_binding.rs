//! The messages that move a NIC without an instance from one host to another. It has at most one
//! active binding, where it is, and one pending binding, where it will be.

use derive::Message;
use serde::Deserialize;

use super::{host::Host, vm_nic::VmNic};
use crate::{Id, Message, MessageDef};

/// The messages of this file.
pub(super) const MESSAGES: [&MessageDef; 3] =
    [&BindVmNic::DEF, &UnbindVmNic::DEF, &ActivateVmNicBinding::DEF];

/// Prepares the move of a NIC that is plugged into a device to a device of another host. That one is
/// guarded and waits: nothing reaches it, and nothing passes from it. Its first frame that comes from
/// the NIC's own MAC moves the NIC, with its addresses, and takes the first device out; the hosts see
/// to that among themselves, and the server follows.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "bindVmNic", access = "admin")]
pub struct BindVmNic {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The host that it is to move to.
    pub host_uuid: Id<Host>,
    /// The name of the device in that host's network namespace, such as `vnet0`: 1 to 15 bytes.
    #[field(max_len = 15)]
    pub device: String,
}

/// Gives up a move that is prepared: the NIC stays where it is. One that is not being moved is left as
/// it is.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "unbindVmNic", access = "admin")]
pub struct UnbindVmNic {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
}

/// Moves a NIC to the device that it was bound to, without waiting for its first frame there. One that
/// is there already is left as it is.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/vm-instances/nics/{vmNicUuid}/actions",
    action = "activateVmNicBinding",
    access = "admin"
)]
pub struct ActivateVmNicBinding {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The host of the pending binding.
    pub host_uuid: Id<Host>,
}
