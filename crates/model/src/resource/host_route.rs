//! Host route: a route that instances on an L3 network are told of.

use std::net::IpAddr;

use derive::{Message, Resource};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::l3_network::L3Network;
use crate::{Id, Message, MessageDef};

/// A route that instances on an L3 network are told of, by DHCP's option 121.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(messages)]
pub struct L3NetworkHostRoute {
    /// Its id, derived from network and prefix.
    pub uuid: Id<L3NetworkHostRoute>,
    /// The L3 network.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// Where it leads.
    pub prefix: IpNet,
    /// By way of whom.
    pub nexthop: IpAddr,
}

impl L3NetworkHostRoute {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&AddHostRouteToL3Network::DEF, &RemoveHostRouteFromL3Network::DEF];
}

/// Adds a route for the instances of an L3 network, one for each prefix.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/hostroute")]
pub struct AddHostRouteToL3Network {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// Where it leads: an IPv4 network.
    pub prefix: IpNet,
    /// By way of whom: an IPv4 address.
    pub nexthop: IpAddr,
}

/// Takes a route away from the instances of an L3 network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/l3-networks/{l3NetworkUuid}/hostroute")]
pub struct RemoveHostRouteFromL3Network {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// Where it leads.
    pub prefix: IpNet,
}
