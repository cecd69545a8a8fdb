//! L3 network: a subnet on an L2 network.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    l2_network::L2Network,
    zone::{EnableState, Zone},
};
use crate::{
    Id, Kind, Message, MessageDef, Update,
    shown::{Child, Derived, Shown},
    words,
};

words! {
    /// What an L3 network is for.
    L3Category {
        /// Reachable from outside.
        Public = "Public",
        /// A tenant's own.
        Private = "Private",
        /// The platform's own.
        System = "System",
    }
}

words! {
    /// The type of an L3 network.
    L3Type {
        /// A subnet.
        Basic = "L3BasicNetwork",
    }
}

/// A subnet on an L2 network: at most one prefix per address family, in one or more ranges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/l3-networks",
    shareable,
    quota = "l3.num",
    quota_default = 20,
    children,
    derived,
    messages
)]
pub struct L3Network {
    /// Its id.
    pub uuid: Id<L3Network>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Always `L3BasicNetwork`.
    #[serde(rename = "type")]
    pub network_type: L3Type,
    /// Its zone.
    #[field(on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
    /// The L2 network that carries it.
    #[field(on_delete = "cascade")]
    pub l2_network_uuid: Id<L2Network>,
    /// Whether it takes new NICs.
    pub state: EnableState,
    /// Domain name for its instances.
    pub dns_domain: Option<String>,
    /// The platform's own.
    pub system: bool,
    /// What it is for.
    pub category: L3Category,
    /// 4 or 6: the family of its first address on a NIC.
    pub ip_version: u8,
    /// netloom hands out its addresses.
    #[serde(rename = "enableIPAM")]
    pub enable_ipam: bool,
}

impl L3Network {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateL3Network::DEF, &UpdateL3Network::DEF, &DeleteL3Network::DEF];

    const CHILDREN: &'static [Child] = &[
        Child {
            name: "ipRanges",
            kind: Kind::IpRange,
            by: "l3NetworkUuid",
            order: Some("startIp"),
            shown: Shown::Fields,
            only: None,
        },
        Child::unseen("vmNic", Kind::VmNic, "l3NetworkUuid"),
        Child::unseen("usedIp", Kind::UsedIp, "l3NetworkUuid"),
    ];
    const DERIVED: &'static [Derived] = &[
        Derived::nothing("dns", "Name servers: none can be set yet."),
        Derived::nothing("networkServices", "Services: none can be attached yet."),
        Derived::nothing("hostRoute", "Routes for instances: none can be set yet."),
    ];
}

/// Makes an L3 network. It has no addresses until ranges are added.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks", creates = "L3Network")]
pub struct CreateL3Network {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The L2 network that carries it.
    pub l2_network_uuid: Id<L2Network>,
    /// What it is for.
    pub category: Option<L3Category>,
    /// 4 or 6.
    #[field(range = "4..=6")]
    pub ip_version: Option<u8>,
    /// Domain name for its instances.
    pub dns_domain: Option<String>,
    /// The only type there is, if named at all.
    #[serde(rename = "type")]
    pub network_type: Option<L3Type>,
    /// Whether it is the platform's own; must agree with `category`.
    pub system: Option<bool>,
    /// Whether netloom hands out its addresses: `true`, if named at all.
    #[serde(rename = "enableIPAM")]
    pub enable_ipam: Option<bool>,
}

/// Changes an L3 network's names.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l3-networks/{uuid}/actions", action = "updateL3Network")]
pub struct UpdateL3Network {
    /// The L3 network.
    pub uuid: Id<L3Network>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// A new domain name for its instances, or none.
    #[serde(default)]
    pub dns_domain: Update<String>,
}

/// Deletes an L3 network with its ranges and NICs; instances stay.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l3-networks/{uuid}")]
pub struct DeleteL3Network {
    /// The L3 network.
    pub uuid: Id<L3Network>,
}
