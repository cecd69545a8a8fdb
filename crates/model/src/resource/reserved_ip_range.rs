//! Reserved IP range: addresses of an L3 network that are not given out.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::l3_network::L3Network;
use crate::{Id, Message, MessageDef};

/// Addresses of an L3 network that are not given out, both ends included. Who has one keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l3-networks/reserved-ip-ranges", messages)]
pub struct ReservedIpRange {
    /// Its id.
    pub uuid: Id<ReservedIpRange>,
    /// The L3 network.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// The first address.
    pub start_ip: IpAddr,
    /// The last address.
    pub end_ip: IpAddr,
    /// 4 or 6.
    pub ip_version: u8,
}

impl ReservedIpRange {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&AddReservedIpRange::DEF, &DeleteReservedIpRange::DEF];
}

/// Keeps addresses of an L3 network from being given out.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/reserved-ip-ranges", creates = "ReservedIpRange")]
pub struct AddReservedIpRange {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The first address.
    pub start_ip: IpAddr,
    /// The last address.
    pub end_ip: IpAddr,
}

/// Lets addresses be given out again.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l3-networks/reserved-ip-ranges/{uuid}")]
pub struct DeleteReservedIpRange {
    /// The reserved range.
    pub uuid: Id<ReservedIpRange>,
}
