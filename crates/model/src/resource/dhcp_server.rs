//! DHCP server: an address that DHCP has on an L3 network, if it is to have one of its own.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::l3_network::L3Network;
use crate::{Id, Message, MessageDef};

/// Who has an address for DHCP on an L3 network, one for each address family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(messages)]
pub struct DhcpServer {
    /// Its id, derived from network and family.
    pub uuid: Id<DhcpServer>,
    /// The L3 network.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// 4 or 6.
    pub ip_version: u8,
}

impl DhcpServer {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&GetL3NetworkDhcpIpAddress::DEF, &ChangeL3NetworkDhcpIpAddress::DEF];
}

/// Shows the addresses that DHCP has on an L3 network, if it has some of its own.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/l3-networks/{l3NetworkUuid}/dhcp-ip", answer = "now")]
pub struct GetL3NetworkDhcpIpAddress {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
}

/// Gives DHCP on an L3 network addresses of its own, in the place of those that it has.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l3-networks/{l3NetworkUuid}/dhcp-ip", action = "changeL3NetworkDhcpIpAddress")]
pub struct ChangeL3NetworkDhcpIpAddress {
    /// The L3 network, which has the service DHCP.
    pub l3_network_uuid: Id<L3Network>,
    /// A free IPv4 address of its ranges.
    pub dhcp_server_ip: Option<IpAddr>,
    /// A free IPv6 address of its ranges.
    #[serde(rename = "dhcpv6ServerIp")]
    pub dhcpv6_server_ip: Option<IpAddr>,
}
