//! VXLAN networks and the pools that they are made from.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    l2_network::{L2Network, VSwitchType},
    zone::Zone,
};
use crate::{Id, Message, MessageDef, Update, words};

words! {
    /// The type that a message about VXLAN networks may name.
    VxlanType {
        /// VXLAN.
        Vxlan = "VxlanNetwork",
    }
}

words! {
    /// The type that a message about pools may name.
    PoolType {
        /// Of VXLAN networks.
        Pool = "VxlanNetworkPool",
    }
}

/// Largest VNI that ZStack lets a user choose: 2^24 - 2, as the smallest is 1. RFC 7348 reserves none.
pub const VNI_MAX: u32 = 16_777_214;

/// A range of VNIs of a pool, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/vxlan-pool/vni-range", aliases, messages)]
pub struct VniRange {
    /// Its id.
    pub uuid: Id<VniRange>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The first VNI.
    pub start_vni: u32,
    /// The last VNI.
    pub end_vni: u32,
    /// The pool.
    #[field(on_delete = "cascade", part)]
    pub l2_network_uuid: Id<L2Network>,
    /// The pool's zone, in which pools with the same VNIs share no VTEP.
    #[field(hidden, on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
}

impl VniRange {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateVniRange::DEF, &UpdateVniRange::DEF, &DeleteVniRange::DEF];

    const ALIASES: &'static [(&'static str, &'static str)] = &[("vxlanPool", "l2Network")];
}

/// Makes a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan-pool", creates = "L2Network", access = "admin")]
pub struct CreateL2VxlanNetworkPool {
    /// A name.
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
#[message(
    post = "/l2-networks/vxlan-pool/{l2NetworkUuid}/vni-ranges",
    creates = "VniRange",
    access = "admin"
)]
pub struct CreateVniRange {
    /// A name.
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
    pub l2_network_uuid: Id<L2Network>,
}

/// Renames a range.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/l2-networks/vxlan-pool/vni-ranges/{uuid}",
    action = "updateVniRange",
    access = "admin"
)]
pub struct UpdateVniRange {
    /// The range.
    pub uuid: Id<VniRange>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes a range none of whose VNIs is in use.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l2-networks/vxlan-pool/vni-ranges/{uuid}", access = "admin")]
pub struct DeleteVniRange {
    /// The range.
    pub uuid: Id<VniRange>,
}

/// Makes a network from a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan", creates = "L2Network")]
pub struct CreateL2VxlanNetwork {
    /// A name.
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
    pub pool_uuid: Id<L2Network>,
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
