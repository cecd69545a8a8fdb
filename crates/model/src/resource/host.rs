//! Host: a machine that runs instances, and how it proves who it is.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    cluster::{Cluster, HypervisorType},
    zone::{EnableState, Zone},
};
use crate::{Id, Timestamp};

/// A machine that runs instances. Its `status` and `synced` in the API come from the status board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/hosts", name_scope = "zoneUuid")]
pub struct Host {
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// A name, unique in its zone.
    pub name: String,
    /// Its id.
    pub uuid: Id<Host>,
    /// Its cluster.
    pub cluster_uuid: Id<Cluster>,
    /// Free text.
    pub description: Option<String>,
    /// Its address on the management network.
    pub management_ip: IpAddr,
    /// What runs its instances.
    pub hypervisor_type: HypervisorType,
    /// Whether it takes new instances.
    pub state: EnableState,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// How a host's agent proves who it is. Has the host's uuid; never shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "")]
pub struct HostCredential {
    /// The host's uuid, as this record's own.
    pub uuid: Id<HostCredential>,
    /// SHA-256 of the client certificate's DER, hex; `None` until the agent has enrolled.
    pub certificate_sha256: Option<String>,
    /// SHA-256 of the one-time token, hex.
    pub token_sha256: Option<String>,
    /// SHA-256 of the public key that the token was used for, hex. It opens nothing else any more.
    pub token_key_sha256: Option<String>,
    /// When that token stops working.
    pub token_expires: Timestamp,
}

/// Adds a Linux host. `username`, `password` and `sshPort` are accepted for ZStack's clients and
/// not kept: netloom never logs in to a host, its agent enrols with a one-time token.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/hosts/kvm", creates = "Host")]
pub struct AddKVMHost {
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Its address on the management network.
    pub management_ip: IpAddr,
    /// Its cluster.
    pub cluster_uuid: Id<Cluster>,
    /// Accepted and ignored.
    pub username: Option<String>,
    /// Accepted and ignored.
    pub password: Option<String>,
    /// Accepted and ignored.
    #[field(range = "1..=65535")]
    pub ssh_port: Option<u32>,
}

/// Deletes a host without instances.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/hosts/{uuid}")]
pub struct DeleteHost {
    /// The host.
    pub uuid: Id<Host>,
}

/// Makes a one-time token with which the host's agent enrols; an older open one stops working.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/hosts/{uuid}/actions", action = "createHostEnrolment", answer = "now")]
pub struct CreateHostEnrolment {
    /// The host.
    pub uuid: Id<Host>,
}
