//! L3 network: a subnet on an L2 network.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    ip_looks::{CheckIpAvailability, GetFreeIp, GetIpAddressCapacity, GetL3NetworkIpStatistic},
    l2_network::L2Network,
    l3_options::{
        AddDnsToL3Network, GetL3NetworkMtu, GetL3NetworkRouterInterfaceIp, RemoveDnsFromL3Network,
        SetL3NetworkMtu, SetL3NetworkRouterInterfaceIp,
    },
    network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
    zone::{EnableEvent, EnableState, Zone},
};
use crate::{
    Claim, FieldDef, Id, Kind, Message, MessageDef, Plain, Resource, Update,
    shown::{Child, Derived, Shown, View},
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

words! {
    /// Which of its free addresses a NIC gets, if it asks for none: ZStack's words.
    IpAllocatorStrategy {
        /// One at random, so that a freed one is not soon used again.
        Random = "RandomIpAllocatorStrategy",
        /// The lowest.
        First = "FirstAvailableIpAllocatorStrategy",
        /// The next one after the one that was given last; freed ones come last.
        AscDelayRecycle = "AscDelayRecycleIpAllocatorStrategy",
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
    aliases,
    claims,
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
    /// Name servers for its instances, in the order in which these ask them.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// MTU of its NICs in bytes; what its L2 network leaves, if nothing.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The address that a router has on it; the gateway, if nothing.
    #[serde(default)]
    pub router_interface_ip: Option<IpAddr>,
    /// Which of its free addresses a NIC gets, if it asks for none.
    pub ip_allocator_strategy: IpAllocatorStrategy,
}

impl L3Network {
    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let router = |ip| Claim::Router(self.l2_network_uuid, ip);
        self.router_interface_ip.map(router).into_iter().collect()
    }

    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateL3Network::DEF,
        &UpdateL3Network::DEF,
        &ChangeL3NetworkState::DEF,
        &DeleteL3Network::DEF,
        &GetL3NetworkTypes::DEF,
        &AddDnsToL3Network::DEF,
        &RemoveDnsFromL3Network::DEF,
        &SetL3NetworkMtu::DEF,
        &GetL3NetworkMtu::DEF,
        &SetL3NetworkRouterInterfaceIp::DEF,
        &GetL3NetworkRouterInterfaceIp::DEF,
        &GetFreeIp::DEF,
        &CheckIpAvailability::DEF,
        &GetIpAddressCapacity::DEF,
        &GetL3NetworkIpStatistic::DEF,
    ];

    const CHILDREN: &'static [Child] = &[
        Child {
            name: "ipRanges",
            kind: Kind::IpRange,
            by: "l3NetworkUuid",
            order: Some("startIp"),
            shown: Shown::Fields,
            only: &[],
        },
        Child {
            name: "hostRoute",
            kind: Kind::L3NetworkHostRoute,
            by: "l3NetworkUuid",
            order: Some("prefix"),
            shown: Shown::Fields,
            only: &[],
        },
        Child {
            name: "reservedIpRanges",
            kind: Kind::ReservedIpRange,
            by: "l3NetworkUuid",
            order: Some("startIp"),
            shown: Shown::Fields,
            only: &[],
        },
        Child {
            name: "networkServices",
            kind: Kind::NetworkServiceL3NetworkRef,
            by: "l3NetworkUuid",
            order: Some("networkServiceType"),
            shown: Shown::Fields,
            only: &[],
        },
        Child {
            name: "dhcpOptions",
            kind: Kind::DhcpOption,
            by: "resourceUuid",
            order: Some("code"),
            shown: Shown::Fields,
            only: &[],
        },
        Child::unseen("vmNic", Kind::VmNic, "l3NetworkUuid"),
        Child::unseen("usedIp", Kind::UsedIp, "l3NetworkUuid"),
    ];
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("serviceProvider", "networkServices.networkServiceProvider"),
        ("serviceProviderRef", "networkServices"),
    ];

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<Option<String>>(
            "notInEffect",
            "What of it has no effect on instances yet, and why.",
        ),
        read: |record, view| {
            let missing = L3Network::of(record).map(|l3| not_in_effect(l3, view));
            let missing = missing.filter(|missing| !missing.is_empty());
            missing.map_or(Plain::Null, |missing| Plain::Text(missing.join("; ").into()))
        },
        found_by: &[],
        only: &[],
    }];
}

/// Most services of a network that are looked at; there are fewer.
const SERVICES_MAX: usize = 64;

/// What a network lacks for what is said of it, and what this release does.
fn not_in_effect(l3: &L3Network, view: &dyn View) -> Vec<String> {
    let has = |kind: Kind| !view.pointing(kind, "l3NetworkUuid", l3.uuid.uuid(), 1).is_empty();
    let kind = Kind::NetworkServiceL3NetworkRef;
    let services = view.pointing(kind, "l3NetworkUuid", l3.uuid.uuid(), SERVICES_MAX);
    let services: Vec<_> =
        services.iter().filter_map(|row| NetworkServiceL3NetworkRef::of(row)).collect();
    let has_dhcp = services.iter().any(|it| it.network_service_type == NetworkServiceType::Dhcp);
    let nobody_tells = "nothing tells instances; AttachNetworkServiceToL3Network with DHCP does";
    let mut missing = Vec::new();
    if (!l3.dns.is_empty() || l3.dns_domain.is_some()) && !has_dhcp {
        missing.push(format!("dns and dnsDomain: {nobody_tells}"));
    }
    if has(Kind::L3NetworkHostRoute) && !has_dhcp {
        missing.push(format!("hostRoute: {nobody_tells}"));
    }
    let idle: Vec<_> = services.iter().filter(|service| !service.is_provided()).collect();
    if !idle.is_empty() {
        let names: Vec<_> = idle.iter().map(|it| it.network_service_type.as_str()).collect();
        missing.push(format!("networkServices: nobody provides {} yet", names.join(", ")));
    }
    if l3.router_interface_ip.is_some() {
        missing.push("routerInterfaceIp: there are no routers yet".to_owned());
    }
    missing
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
    /// Which of its free addresses a NIC gets; one at random if absent.
    pub ip_allocator_strategy: Option<IpAllocatorStrategy>,
}

/// Changes an L3 network's names, what it is for, or how its addresses are given.
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
    /// What it is for from now on.
    pub category: Option<L3Category>,
    /// Whether it is the platform's own from now on; must agree with the category.
    pub system: Option<bool>,
    /// Which of its free addresses a NIC gets from now on.
    pub ip_allocator_strategy: Option<IpAllocatorStrategy>,
}

/// Enables or disables an L3 network: a disabled one takes no new NICs, and keeps those it has.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l3-networks/{uuid}/actions", action = "changeL3NetworkState")]
pub struct ChangeL3NetworkState {
    /// The L3 network.
    pub uuid: Id<L3Network>,
    /// What to do.
    pub state_event: EnableEvent,
}

/// Lists the types of L3 networks.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/l3-networks/types", answer = "now")]
pub struct GetL3NetworkTypes {}

/// Deletes an L3 network with its ranges and NICs; instances stay.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l3-networks/{uuid}")]
pub struct DeleteL3Network {
    /// The L3 network.
    pub uuid: Id<L3Network>,
}
