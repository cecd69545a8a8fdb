//! VM instance: what NICs are plugged into.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    cluster::{Cluster, HypervisorType},
    host::Host,
    l3_network::L3Network,
    zone::Zone,
};
use crate::{Id, Timestamp, words};

words! {
    /// What runs an instance.
    InstanceDriver {
        /// A network namespace.
        Netns = "netns",
    }
}

words! {
    /// The type of an instance.
    InstanceType {
        /// A user's.
        User = "UserVm",
    }
}

words! {
    /// What becomes of an instance once it is made.
    StartStrategy {
        /// It starts.
        Instant = "InstantStart",
    }
}

/// An instance on a host. Its `state` in the API comes from the status board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/vm-instances", name_scope = "zoneUuid")]
pub struct VmInstance {
    /// Its id.
    pub uuid: Id<VmInstance>,
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// Its cluster.
    pub cluster_uuid: Id<Cluster>,
    /// The host that it is meant to run on.
    pub host_uuid: Id<Host>,
    /// The L3 network of its default route.
    pub default_l3_network_uuid: Id<L3Network>,
    /// Always `UserVm`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// What runs the host's instances.
    pub hypervisor_type: HypervisorType,
    /// What runs this one.
    #[field(hidden)]
    pub driver: InstanceDriver,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// Makes an instance and starts it. System tags `staticIp::<l3>::<ip>` (IPv6 with `--` for `:`)
/// and `customMac::<l3>::<mac>` choose addresses.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vm-instances", creates = "VmInstance")]
pub struct CreateVmInstance {
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// One NIC for each, in this order.
    #[field(max_len = 16, required)]
    pub l3_network_uuids: Vec<Id<L3Network>>,
    /// The L3 network of its default route; needed when there are several.
    pub default_l3_network_uuid: Option<Id<L3Network>>,
    /// Where it may run.
    pub zone_uuid: Option<Id<Zone>>,
    /// Where it may run.
    pub cluster_uuid: Option<Id<Cluster>>,
    /// Where it must run.
    pub host_uuid: Option<Id<Host>>,
    /// The only type there is, if named at all.
    #[serde(rename = "type")]
    pub instance_type: Option<InstanceType>,
    /// It starts at once, whether named or not.
    pub strategy: Option<StartStrategy>,
    /// Accepted and ignored: an instance is as large as its driver makes it.
    pub instance_offering_uuid: Option<Uuid>,
    /// Accepted and ignored: an instance is what its driver makes it.
    pub image_uuid: Option<Uuid>,
    /// Accepted and ignored.
    pub cpu_num: Option<u32>,
    /// Accepted and ignored.
    pub memory_size: Option<u64>,
}

/// Ends an instance; its NICs and addresses go with it.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/vm-instances/{uuid}")]
pub struct DestroyVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
}
