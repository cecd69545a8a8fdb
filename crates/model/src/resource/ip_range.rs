//! IP range: addresses of an L3 network that may be given out.

use std::net::IpAddr;

use derive::{Message, Resource};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{l2_network::L2Network, l3_network::L3Network};
use crate::{Claim, Id, Message, MessageDef, Update, shown::Face, words};

words! {
    /// How IPv6 instances learn their addresses. Where they make them themselves, a NIC's address is
    /// made of its MAC (RFC 4291, appendix A), as its instance does.
    AddressMode {
        /// Stateless autoconfiguration.
        Slaac = "SLAAC",
        /// Addresses from DHCPv6.
        Stateful = "Stateful-DHCP",
        /// Options from DHCPv6.
        Stateless = "Stateless-DHCP",
    }
}

words! {
    /// What a range is for.
    IpRangeType {
        /// Its addresses are given to NICs.
        Normal = "Normal",
        /// Its addresses are for VIPs alone.
        AddressPool = "AddressPool",
    }
}

/// Addresses of an L3 network that may be given out, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(claims, faces, messages)]
pub struct IpRange {
    /// Its id.
    pub uuid: Id<IpRange>,
    /// The L3 network.
    #[field(on_delete = "cascade", part)]
    pub l3_network_uuid: Id<L3Network>,
    /// The L2 network, on which no other range may have an address of it.
    #[field(hidden, on_delete = "cascade")]
    pub l2_network_uuid: Id<L2Network>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The first address.
    pub start_ip: IpAddr,
    /// The last address.
    pub end_ip: IpAddr,
    /// The subnet's mask, IPv4 only.
    pub netmask: Option<IpAddr>,
    /// The subnet's gateway.
    pub gateway: IpAddr,
    /// The subnet.
    pub network_cidr: IpNet,
    /// 4 or 6.
    pub ip_version: u8,
    /// Length of the subnet's prefix, in bits.
    pub prefix_len: u8,
    /// How IPv6 instances learn their addresses.
    pub address_mode: Option<AddressMode>,
    /// What it is for.
    #[field(index)]
    pub ip_range_type: IpRangeType,
}

impl IpRange {
    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let l2 = self.l2_network_uuid;
        let mut claims = vec![Claim::RangeEnd(l2, self.start_ip)];
        if self.start_ip != self.end_ip {
            claims.push(Claim::RangeEnd(l2, self.end_ip));
        }
        if self.ip_range_type == IpRangeType::Normal {
            claims.push(Claim::Gateway(l2, self.gateway, self.uuid));
            claims.push(Claim::Subnet(self.l3_network_uuid, self.ip_version, self.uuid));
        }
        claims
    }

    const MESSAGES: &'static [&'static MessageDef] = &[
        &AddIpRange::DEF,
        &AddIpRangeByNetworkCidr::DEF,
        &AddIpv6Range::DEF,
        &AddIpv6RangeByNetworkCidr::DEF,
        &UpdateIpRange::DEF,
        &DeleteIpRange::DEF,
    ];

    const FACES: &'static [Face] = &[
        Face { name: "IpRange", path: "/l3-networks/ip-ranges", only: None },
        Face {
            name: "AddressPool",
            path: "/l3-networks/address-pools",
            only: Some(("ipRangeType", IpRangeType::AddressPool.as_str())),
        },
    ];
}

/// Adds IPv4 addresses to an L3 network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/ip-ranges", creates = "IpRange")]
pub struct AddIpRange {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The first address.
    pub start_ip: IpAddr,
    /// The last address.
    pub end_ip: IpAddr,
    /// The subnet's mask.
    pub netmask: IpAddr,
    /// The subnet's gateway; the lowest address of the subnet if absent. A pool has none: its first
    /// address stands there.
    pub gateway: Option<IpAddr>,
    /// What it is for; `Normal` if absent.
    pub ip_range_type: Option<IpRangeType>,
}

/// Adds IPv6 addresses to an L3 network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/ipv6-ranges", creates = "IpRange")]
pub struct AddIpv6Range {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The first address.
    pub start_ip: IpAddr,
    /// The last address.
    pub end_ip: IpAddr,
    /// The subnet's gateway.
    pub gateway: IpAddr,
    /// Length of the subnet's prefix, in bits.
    #[field(range = "8..=126")]
    pub prefix_len: u8,
    /// How instances learn their addresses.
    pub address_mode: AddressMode,
    /// `Normal`, if named at all: pools are of IPv4.
    pub ip_range_type: Option<IpRangeType>,
}

/// Adds the addresses of an IPv4 network to an L3 network: all but the gateway, which cuts them in two
/// ranges if it is in the middle.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/ip-ranges/by-cidr", creates = "IpRange")]
pub struct AddIpRangeByNetworkCidr {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The network.
    pub network_cidr: IpNet,
    /// The subnet's gateway; the lowest address if absent.
    pub gateway: Option<IpAddr>,
    /// What it is for; `Normal` if absent.
    pub ip_range_type: Option<IpRangeType>,
}

/// Adds the addresses of an IPv6 network to an L3 network. The first one is the gateway.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/ipv6-ranges/by-cidr", creates = "IpRange")]
pub struct AddIpv6RangeByNetworkCidr {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The network, of 8 to 126 bits.
    pub network_cidr: IpNet,
    /// How instances learn their addresses.
    pub address_mode: AddressMode,
    /// `Normal`, if named at all: pools are of IPv4.
    pub ip_range_type: Option<IpRangeType>,
}

/// Renames a range.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l3-networks/ip-ranges/{uuid}/actions", action = "updateIpRange")]
pub struct UpdateIpRange {
    /// The range.
    pub uuid: Id<IpRange>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes a range with the NICs that have an address of it; instances stay.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l3-networks/ip-ranges/{uuid}")]
pub struct DeleteIpRange {
    /// The range.
    pub uuid: Id<IpRange>,
}
