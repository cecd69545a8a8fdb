//! Cluster: hosts of one kind that see the same networks.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::zone::{EnableEvent, EnableState, Zone};
use crate::{Id, Kind, Message, MessageDef, Update, shown::Child, words};

words! {
    /// What runs the instances of a cluster.
    HypervisorType {
        /// ZStack's word for Linux hosts; netloom's drivers run here.
        Kvm = "KVM",
    }
}

words! {
    /// The kinds of clusters.
    ClusterType {
        /// Of virtual machines' hosts.
        Zstack = "zstack",
    }
}

words! {
    /// ZStack's words for hosts' processors.
    Architecture {
        /// 64 bits, Intel's and AMD's.
        X86 = "x86_64",
        /// 64 bits, ARM's.
        Arm = "aarch64",
        /// 64 bits, MIPS'.
        Mips = "mips64el",
        /// 64 bits, Loongson's.
        Loong = "loongarch64",
    }
}

/// Hosts of one kind that see the same L2 networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/clusters", children, aliases, messages)]
pub struct Cluster {
    /// A name.
    #[field(index)]
    pub name: String,
    /// Its id.
    pub uuid: Id<Cluster>,
    /// Free text.
    pub description: Option<String>,
    /// Whether it takes new instances.
    pub state: EnableState,
    /// What runs its instances.
    pub hypervisor_type: HypervisorType,
    /// Its zone.
    #[field(on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
    /// Always `zstack`.
    #[serde(rename = "type")]
    pub cluster_type: ClusterType,
}

impl Cluster {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateCluster::DEF, &UpdateCluster::DEF, &ChangeClusterState::DEF, &DeleteCluster::DEF];

    const CHILDREN: &'static [Child] = &[
        Child::unseen("host", Kind::Host, "clusterUuid"),
        Child::unseen("vmInstance", Kind::VmInstance, "clusterUuid"),
        Child::unseen("l2NetworkRef", Kind::L2NetworkClusterRef, "clusterUuid"),
    ];

    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("l2Network", "l2NetworkRef.l2Network"), ("l2VlanNetwork", "l2NetworkRef.l2Network")];
}

/// Makes a cluster.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/clusters", creates = "Cluster", access = "admin")]
pub struct CreateCluster {
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// What runs its instances.
    pub hypervisor_type: HypervisorType,
    /// The only kind there is, if named at all.
    #[serde(rename = "type")]
    pub cluster_type: Option<ClusterType>,
    /// Accepted and ignored: to the network all are alike.
    pub architecture: Option<Architecture>,
}

/// Renames a cluster.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/clusters/{uuid}/actions", action = "updateCluster", access = "admin")]
pub struct UpdateCluster {
    /// The cluster.
    pub uuid: Id<Cluster>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Enables or disables a cluster and its hosts: nothing new runs where all is disabled. Hosts in
/// maintenance stay as they are. What exists goes on.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/clusters/{uuid}/actions", action = "changeClusterState", access = "admin")]
pub struct ChangeClusterState {
    /// The cluster.
    pub uuid: Id<Cluster>,
    /// What to do.
    pub state_event: EnableEvent,
}

/// Deletes a cluster with its hosts, and takes L2 networks out of it; instances that ran there stop.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/clusters/{uuid}", access = "admin")]
pub struct DeleteCluster {
    /// The cluster.
    pub uuid: Id<Cluster>,
}
