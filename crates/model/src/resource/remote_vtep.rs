//! Remote VTEP: a tunnel end that is no host's, such as that of a switch.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{cluster::Cluster, l2_network::L2Network};
use crate::{Id, Message, MessageDef, words};

words! {
    /// What a remote VTEP is.
    RemoteVtepType {
        /// A machine's that netloom does not manage.
        Remote = "REMOTE_VTEP",
    }
}

/// The address of a tunnel end that is no host's: that of a switch, or of a machine that netloom does
/// not manage. What is behind it is in the pool's networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/remote-vteps", aliases, messages)]
pub struct RemoteVtep {
    /// Its id, derived from pool, cluster and address.
    pub uuid: Id<RemoteVtep>,
    /// The cluster whose hosts are to reach it.
    #[field(on_delete = "cascade")]
    pub cluster_uuid: Id<Cluster>,
    /// The address.
    #[field(index)]
    pub vtep_ip: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Always `REMOTE_VTEP`.
    #[serde(rename = "type")]
    pub vtep_type: RemoteVtepType,
    /// The pool.
    #[field(on_delete = "cascade")]
    pub pool_uuid: Id<L2Network>,
}

impl RemoteVtep {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateVxlanPoolRemoteVtep::DEF, &DeleteVxlanPoolRemoteVtep::DEF];

    const ALIASES: &'static [(&'static str, &'static str)] = &[("vxlanPool", "pool")];
}

/// Adds a tunnel end that is no host's to a pool in a cluster.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    post = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}/remote-vtep-ip",
    access = "admin"
)]
pub struct CreateVxlanPoolRemoteVtep {
    /// The pool.
    pub l2_network_uuid: Id<L2Network>,
    /// The cluster, which has the pool.
    pub cluster_uuid: Id<Cluster>,
    /// The address, of the family of the pool's other tunnel ends.
    pub remote_vtep_ip: IpAddr,
}

/// Takes a tunnel end that is no host's out of a pool in a cluster.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    delete = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}/delete/remote-vtep-ip",
    access = "admin"
)]
pub struct DeleteVxlanPoolRemoteVtep {
    /// The pool.
    pub l2_network_uuid: Id<L2Network>,
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
    /// The address.
    pub remote_vtep_ip: IpAddr,
}
