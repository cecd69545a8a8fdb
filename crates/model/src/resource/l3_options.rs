//! What instances of an L3 network are told beside their addresses.

use std::net::IpAddr;

use derive::Message;
use serde::Deserialize;

use super::l3_network::L3Network;
use crate::Id;

/// Adds a name server for the instances of an L3 network, after those that are there.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/dns")]
pub struct AddDnsToL3Network {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The name server's address.
    pub dns: IpAddr,
}

/// Takes a name server away from the instances of an L3 network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/l3-networks/{l3NetworkUuid}/dns/{dns}")]
pub struct RemoveDnsFromL3Network {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The name server's address.
    pub dns: IpAddr,
}

/// Sets the MTU of an L3 network: NICs that are made from now on have it.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/mtu")]
pub struct SetL3NetworkMtu {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The MTU in bytes.
    #[field(range = "68..=9216")]
    pub mtu: u32,
}

/// Shows the MTU of an L3 network, in bytes.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/l3-networks/{l3NetworkUuid}/mtu", answer = "now")]
pub struct GetL3NetworkMtu {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
}

/// Sets the address that a router has on an L3 network; without, it is the gateway.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/router-interface-ip")]
pub struct SetL3NetworkRouterInterfaceIp {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// An IPv4 address of the subnet, in none of its ranges.
    pub router_interface_ip: IpAddr,
}

/// Shows the address that a router has on an L3 network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/l3-networks/{l3NetworkUuid}/router-interface-ip", answer = "now")]
pub struct GetL3NetworkRouterInterfaceIp {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
}
