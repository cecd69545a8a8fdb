//! L2 VXLAN network pool: the VNIs that networks are made from, and where the tunnels end.

use derive::{Message, Resource};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{cluster::Cluster, zone::Zone};
use crate::{Id, Timestamp, words};

words! {
    /// The type of a pool.
    PoolType {
        /// Of VXLAN networks.
        Pool = "VxlanNetworkPool",
    }
}

words! {
    /// What joins the ports on a host.
    VSwitchType {
        /// ZStack's default; netloom's data plane stands in for it.
        Bridge = "LinuxBridge",
    }
}

/// Largest VNI that ZStack lets a user choose: 2^24 - 2.
pub const VNI_MAX: u32 = 16_777_214;

/// A stock of VNIs. VXLAN networks made from it exist in every cluster it is attached to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/vxlan-pool", name_scope = "zoneUuid")]
pub struct L2VxlanNetworkPool {
    /// Its id.
    pub uuid: Id<L2VxlanNetworkPool>,
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// The interface that carries the tunnels, for people.
    pub physical_interface: Option<String>,
    /// Always `VxlanNetworkPool`.
    #[serde(rename = "type")]
    pub network_type: String,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// A range of VNIs of a pool, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/vxlan-pool/vni-range", name_scope = "l2NetworkUuid")]
pub struct VniRange {
    /// Its id.
    pub uuid: Id<VniRange>,
    /// A name, unique in its pool.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The first VNI.
    pub start_vni: u32,
    /// The last VNI.
    pub end_vni: u32,
    /// The pool.
    pub l2_network_uuid: Id<L2VxlanNetworkPool>,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// A pool's presence in a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "")]
pub struct L2NetworkClusterRef {
    /// Its id, derived from the two others.
    pub uuid: Id<L2NetworkClusterRef>,
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
    /// The pool.
    pub l2_network_uuid: Id<L2VxlanNetworkPool>,
    /// Hosts of the cluster end their tunnels at their address in this network.
    pub vtep_cidr: IpNet,
}

/// Makes a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan-pool", creates = "L2VxlanNetworkPool")]
pub struct CreateL2VxlanNetworkPool {
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// The interface that carries the tunnels, for people.
    #[field(max_len = 1024)]
    pub physical_interface: Option<String>,
    /// The only type there is here, if named at all.
    #[serde(rename = "type")]
    pub network_type: Option<PoolType>,
    /// ZStack's default, if named at all: what instances see of it is what netloom does.
    pub v_switch_type: Option<VSwitchType>,
    /// Not yet: `false`, if named at all.
    pub isolated: Option<bool>,
}

/// Adds VNIs to a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan-pool/{l2NetworkUuid}/vni-ranges", creates = "VniRange")]
pub struct CreateVniRange {
    /// A name, unique in its pool.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The first VNI.
    #[field(range = "1..=16777214")]
    pub start_vni: u32,
    /// The last VNI.
    #[field(range = "1..=16777214")]
    pub end_vni: u32,
    /// The pool.
    pub l2_network_uuid: Id<L2VxlanNetworkPool>,
}

/// Deletes a range none of whose VNIs is in use.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l2-networks/vxlan-pool/vni-ranges/{uuid}")]
pub struct DeleteVniRange {
    /// The range.
    pub uuid: Id<VniRange>,
}

/// Brings a pool into a cluster. Needs the system tag
/// `l2NetworkUuid::<pool>::clusterUuid::<cluster>::cidr::{192.168.100.0/24}`.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}", body = "path")]
pub struct AttachL2NetworkToCluster {
    /// The pool.
    pub l2_network_uuid: Id<L2VxlanNetworkPool>,
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
}

/// Takes a pool out of a cluster in which none of its networks is in use.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}")]
pub struct DetachL2NetworkFromCluster {
    /// The pool.
    pub l2_network_uuid: Id<L2VxlanNetworkPool>,
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
}
