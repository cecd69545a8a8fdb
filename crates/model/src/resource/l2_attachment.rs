//! An L2 network's presence in a cluster. VXLAN networks are where their pool is.

use derive::{Message, Resource};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{cluster::Cluster, l2_network::L2Network};
use crate::{Claim, Id, Message, MessageDef};

/// An L2 network's presence in a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(claims, messages)]
pub struct L2NetworkClusterRef {
    /// Its id, derived from the two others.
    pub uuid: Id<L2NetworkClusterRef>,
    /// The cluster.
    #[field(on_delete = "cascade")]
    pub cluster_uuid: Id<Cluster>,
    /// The L2 network.
    #[field(on_delete = "cascade")]
    pub l2_network_uuid: Id<L2Network>,
    /// Of a VXLAN pool: hosts of the cluster end their tunnels at their address in this network.
    pub vtep_cidr: Option<IpNet>,
    /// Of a physical network: the interface that carries it on the cluster's hosts.
    pub physical_interface: Option<String>,
    /// Of a VLAN: its tag.
    pub vlan: Option<u16>,
}

impl L2NetworkClusterRef {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &AttachL2NetworkToCluster::DEF,
        &DetachL2NetworkFromCluster::DEF,
        &GetCandidateL2NetworksForAttachingCluster::DEF,
        &GetCandidateClustersForAttachingL2Network::DEF,
    ];

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let wire = self.physical_interface.clone();
        wire.map(|interface| Claim::Wire(self.cluster_uuid, interface, self.vlan))
            .into_iter()
            .collect()
    }
}

/// Brings an L2 network into a cluster. A VXLAN pool needs the system tag
/// `l2NetworkUuid::<pool>::clusterUuid::<cluster>::cidr::{192.168.100.0/24}`.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    post = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}",
    body = "path",
    access = "admin"
)]
pub struct AttachL2NetworkToCluster {
    /// The L2 network; for VXLAN networks their pool.
    pub l2_network_uuid: Id<L2Network>,
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
}

/// Lists the L2 networks that can be attached to a cluster, 1,000 at most.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/cluster/{clusterUuid}/l2-candidates", answer = "now", access = "admin")]
pub struct GetCandidateL2NetworksForAttachingCluster {
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
}

/// Lists the clusters to which an L2 network can be attached, 1,000 at most.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    get = "/l2-networks/{l2NetworkUuid}/cluster-candidates",
    answer = "now",
    access = "admin"
)]
pub struct GetCandidateClustersForAttachingL2Network {
    /// The L2 network.
    pub l2_network_uuid: Id<L2Network>,
    /// Only clusters of these types; of every one if absent.
    #[serde(default)]
    pub cluster_types: Vec<String>,
}

/// Takes an L2 network out of a cluster in which it is not in use.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}", access = "admin")]
pub struct DetachL2NetworkFromCluster {
    /// The L2 network; for VXLAN networks their pool.
    pub l2_network_uuid: Id<L2Network>,
    /// The cluster.
    pub cluster_uuid: Id<Cluster>,
}
