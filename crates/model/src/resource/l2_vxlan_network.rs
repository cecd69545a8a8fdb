//! L2 VXLAN network: one closed broadcast domain across hosts.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    l2_vxlan_pool::{L2VxlanNetworkPool, VSwitchType},
    zone::Zone,
};
use crate::{Id, Timestamp, words};

words! {
    /// The type of a VXLAN network.
    VxlanType {
        /// VXLAN.
        Vxlan = "VxlanNetwork",
    }
}

/// A closed broadcast domain: only known MACs exist in it, unknown unicast is dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/vxlan", name_scope = "zoneUuid")]
pub struct L2VxlanNetwork {
    /// Its id.
    pub uuid: Id<L2VxlanNetwork>,
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// Always `VxlanNetwork`.
    #[serde(rename = "type")]
    pub network_type: String,
    /// VXLAN network identifier, 24 bits (RFC 7348).
    pub vni: u32,
    /// The pool it was made from.
    pub pool_uuid: Id<L2VxlanNetworkPool>,
    /// Its number in the data plane; never reused.
    #[field(hidden)]
    pub number: u32,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// Makes a network from a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan", creates = "L2VxlanNetwork")]
pub struct CreateL2VxlanNetwork {
    /// A name, unique in its zone.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The pool's zone, if named at all.
    pub zone_uuid: Option<Id<Zone>>,
    /// A free VNI of the pool; the lowest free one if absent.
    #[field(range = "1..=16777214")]
    pub vni: Option<u32>,
    /// The pool.
    pub pool_uuid: Id<L2VxlanNetworkPool>,
    /// Accepted and ignored: the pool's counts.
    #[field(max_len = 1024)]
    pub physical_interface: Option<String>,
    /// The only type there is here, if named at all.
    #[serde(rename = "type")]
    pub network_type: Option<VxlanType>,
    /// ZStack's default, if named at all: what instances see of it is what netloom does.
    pub v_switch_type: Option<VSwitchType>,
    /// Not yet: `false`, if named at all.
    pub isolated: Option<bool>,
}

/// Deletes an L2 network, or a VXLAN pool, that nothing uses any more.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l2-networks/{uuid}")]
pub struct DeleteL2Network {
    /// The network or pool.
    #[field(any_uuid)]
    pub uuid: Id<L2VxlanNetwork>,
}
