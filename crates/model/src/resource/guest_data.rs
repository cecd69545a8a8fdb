//! Guest data: what the owner of an instance gives it to read as it starts: user data and a key.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::vm_instance::VmInstance;
use crate::{Id, Message, MessageDef};

/// What the owner of an instance gives it to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(messages)]
pub struct GuestData {
    /// Its id, derived from that of the instance.
    pub uuid: Id<GuestData>,
    /// The instance.
    #[field(on_delete = "cascade", part)]
    pub vm_instance_uuid: Id<VmInstance>,
    /// User data, in base64.
    pub user_data: Option<String>,
    /// A key, as a line of `authorized_keys`.
    pub ssh_key: Option<String>,
}

impl GuestData {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &SetVmUserdata::DEF,
        &GetVmUserdata::DEF,
        &DeleteVmUserdata::DEF,
        &SetVmSshKey::DEF,
        &GetVmSshKey::DEF,
        &DeleteVmSshKey::DEF,
    ];
}

/// Gives an instance user data, which it reads where its L3 networks have the service Userdata. What it
/// has read already it reads again when its software asks again.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{uuid}/actions", action = "setVmUserdata")]
pub struct SetVmUserdata {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// User data, in base64: 65,536 bytes at most before that.
    #[field(secret, max_len = 131_072)]
    pub userdata: String,
}

/// An instance's user data, in base64.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/vm-instances/{uuid}/userdata", answer = "now")]
pub struct GetVmUserdata {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Takes an instance's user data away.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/vm-instances/{uuid}/userdata")]
pub struct DeleteVmUserdata {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Gives an instance the public key of its owner, which it reads where its L3 networks have the service
/// Userdata.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/vm-instances/{uuid}/actions", action = "setVmSshKey")]
pub struct SetVmSshKey {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// The key, as a line of `authorized_keys`.
    #[serde(rename = "SshKey")]
    #[field(max_len = 2048)]
    pub ssh_key: String,
}

/// The key of an instance's owner.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/vm-instances/{uuid}/ssh-keys", answer = "now")]
pub struct GetVmSshKey {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// Takes the key of an instance's owner away.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/vm-instances/{uuid}/ssh-keys")]
pub struct DeleteVmSshKey {
    /// The instance.
    pub uuid: Id<VmInstance>,
}
