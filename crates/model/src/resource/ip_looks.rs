//! Questions about the addresses of L3 networks: which are free, how many, who has them.

use std::net::IpAddr;

use derive::Message;
use serde::Deserialize;

use super::{
    ip_range::{IpRange, IpRangeType},
    l3_network::L3Network,
    zone::Zone,
};
use crate::{Id, words};

words! {
    /// Whose addresses.
    AddressUser {
        /// Everybody's.
        All = "ALL",
        /// VIPs'.
        Vip = "VIP",
        /// NICs'.
        Vm = "VM",
    }
}

words! {
    /// What puts addresses in order.
    AddressOrder {
        /// The addresses themselves.
        Ip = "IP",
        /// When they were taken.
        Time = "CREATE_TIME",
    }
}

words! {
    /// Which way.
    OrderDirection {
        /// The lowest or oldest first.
        Ascending = "ASC",
        /// The highest or newest first.
        Descending = "DESC",
    }
}

/// Lists addresses that could be given out, in their order.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    get = "/l3-networks/ip/free",
    also = "/l3-networks/{l3NetworkUuid}/ip/free",
    also = "/l3-networks/ip-ranges/{ipRangeUuid}/ip/free",
    answer = "now"
)]
pub struct GetFreeIp {
    /// The L3 network.
    pub l3_network_uuid: Option<Id<L3Network>>,
    /// A range; all of the network's if absent.
    pub ip_range_uuid: Option<Id<IpRange>>,
    /// Where to begin.
    pub start: Option<IpAddr>,
    /// Ranges of this type; `Normal` if absent.
    pub ip_range_type: Option<IpRangeType>,
    /// 4 or 6; the network's or range's own if absent.
    #[field(range = "4..=6")]
    pub ip_version: Option<u8>,
    /// How many: 100 if absent.
    #[field(range = "1..=1000")]
    pub limit: Option<u32>,
}

/// Says whether an address could be given out, and why not.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/l3-networks/{l3NetworkUuid}/ip/{ip}/availability", answer = "now")]
pub struct CheckIpAvailability {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The address.
    pub ip: IpAddr,
    /// Not yet: `false`, if named at all.
    pub arp_check: Option<bool>,
    /// Whether it must be in a range: `true` if absent.
    pub ip_range_check: Option<bool>,
}

/// Counts addresses: how many there are, how many are taken, how many could be given out.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/ip-capacity", answer = "now")]
pub struct GetIpAddressCapacity {
    /// All networks of these zones.
    #[serde(default)]
    pub zone_uuids: Vec<Id<Zone>>,
    /// These networks.
    #[serde(default)]
    pub l3_network_uuids: Vec<Id<L3Network>>,
    /// These ranges.
    #[serde(default)]
    pub ip_range_uuids: Vec<Id<IpRange>>,
    /// Everything that the caller may see.
    pub all: Option<bool>,
}

/// Lists the addresses of an L3 network that somebody has, or that hosts have not let go yet
/// (`ReleasePending`), page by page.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/l3-networks/{l3NetworkUuid}/ip-statistic", answer = "now")]
pub struct GetL3NetworkIpStatistic {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// Whose; everybody's if absent.
    pub resource_type: Option<AddressUser>,
    /// This address alone.
    pub ip: Option<IpAddr>,
    /// What puts them in order; the addresses themselves if absent.
    pub sort_by: Option<AddressOrder>,
    /// Which way; ascending if absent.
    pub sort_direction: Option<OrderDirection>,
    /// How many to leave out before the page.
    #[field(range = "0..=2147483647")]
    pub start: Option<u32>,
    /// How many at most: 20 if absent.
    #[field(range = "0..=10000")]
    pub limit: Option<u32>,
    /// Also says how many there are in all.
    pub reply_with_count: Option<bool>,
}
