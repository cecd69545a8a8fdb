//! Networks in GRE, and the pools that they are made from. ZStack has none: they are as those of VXLAN, with
//! the same ranges of VNIs, which are the keys, the same VTEPs, and the same ways into clusters.

use derive::Message;
use serde::Deserialize;

use super::{l2_network::L2Network, zone::Zone};
use crate::Id;

/// Makes a pool of networks in GRE.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/gre-pool", creates = "L2Network", access = "admin")]
pub struct CreateL2GreNetworkPool {
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
}

/// Makes a network from a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/gre", creates = "L2Network")]
pub struct CreateL2GreNetwork {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// A free VNI of the pool, the key of its frames; the lowest free one if absent.
    #[field(range = "1..=16777214")]
    pub vni: Option<u32>,
    /// The pool.
    pub pool_uuid: Id<L2Network>,
}
