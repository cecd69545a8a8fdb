//! L2 networks that are physical ones, with or without a tag.

use derive::Message;
use serde::Deserialize;

use super::{
    l2_network::{L2Network, VSwitchType},
    zone::Zone,
};
use crate::{Id, words};

words! {
    /// The type that a message about untagged networks may name.
    NoVlanType {
        /// Untagged.
        NoVlan = "L2NoVlanNetwork",
    }
}

words! {
    /// The type that a message about VLANs may name.
    VlanType {
        /// Tagged.
        Vlan = "L2VlanNetwork",
    }
}

words! {
    /// What a physical network may become.
    PhysicalType {
        /// Untagged.
        NoVlan = "L2NoVlanNetwork",
        /// Tagged.
        Vlan = "L2VlanNetwork",
    }
}

/// Makes an L2 network of a physical one, untagged.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/no-vlan", creates = "L2Network", access = "admin")]
pub struct CreateL2NoVlanNetwork {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// The interface of hosts that carries it.
    #[field(max_len = 1024)]
    pub physical_interface: String,
    /// The only type there is here, if named at all.
    #[serde(rename = "type")]
    pub network_type: Option<NoVlanType>,
    /// ZStack's default, if named at all: what instances see of it is what netloom does.
    pub v_switch_type: Option<VSwitchType>,
    /// Not yet: `false`, if named at all.
    pub isolated: Option<bool>,
}

/// Makes an L2 network of a physical one with an IEEE 802.1Q tag.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vlan", creates = "L2Network", access = "admin")]
pub struct CreateL2VlanNetwork {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Its zone.
    pub zone_uuid: Id<Zone>,
    /// The interface of hosts that carries it.
    #[field(max_len = 1024)]
    pub physical_interface: String,
    /// The tag.
    #[field(range = "1..=4094")]
    pub vlan: u16,
    /// The only type there is here, if named at all.
    #[serde(rename = "type")]
    pub network_type: Option<VlanType>,
    /// ZStack's default, if named at all: what instances see of it is what netloom does.
    pub v_switch_type: Option<VSwitchType>,
    /// Not yet: `false`, if named at all.
    pub isolated: Option<bool>,
}

/// Gives a physical network another tag, one, or none; all hosts of its clusters must be connected.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l2-networks/{uuid}/actions", action = "changeL2NetworkVlanId", access = "admin")]
pub struct ChangeL2NetworkVlanId {
    /// The network.
    pub uuid: Id<L2Network>,
    /// The tag, unless it is to have none.
    #[field(range = "1..=4094")]
    pub vlan: Option<u16>,
    /// What it becomes; what it is, if absent.
    #[serde(rename = "type")]
    pub network_type: Option<PhysicalType>,
}
