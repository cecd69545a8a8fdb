//! Network services: what an L3 network's instances get beside a subnet, and who provides it.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::l3_network::L3Network;
use crate::{Id, Kind, Message, MessageDef, shown::Child, words};

words! {
    /// A service.
    NetworkServiceType {
        /// Addresses and more for instances that ask.
        Dhcp = "DHCP",
        /// Names.
        Dns = "DNS",
        /// One public address for all that instances begin.
        Snat = "SNAT",
        /// Ports of a public address carried to instances.
        PortForwarding = "PortForwarding",
        /// A public address carried to an instance.
        Eip = "Eip",
        /// Connections shared among instances.
        LoadBalancer = "LoadBalancer",
        /// Tunnels to other sites.
        Ipsec = "IPsec",
        /// Routes of a router.
        RouterRoute = "VRouterRoute",
        /// Rates of public addresses.
        VipQos = "VipQos",
        /// Names, answered by the router.
        CentralizedDns = "CentralizedDNS",
        /// Data for instances, asked for over HTTP.
        Userdata = "Userdata",
        /// Routes for instances.
        HostRoute = "HostRoute",
        /// Who may reach whom.
        SecurityGroup = "SecurityGroup",
    }
}

words! {
    /// Who provides services.
    ProviderType {
        /// The hosts themselves.
        Flat = "Flat",
        /// ZStack's first router.
        VirtualRouter = "VirtualRouter",
        /// ZStack's later router.
        Vrouter = "vrouter",
        /// The hosts, for security groups.
        SecurityGroup = "SecurityGroup",
    }
}

use NetworkServiceType as Type;

impl ProviderType {
    /// What it provides.
    #[must_use]
    pub const fn services(self) -> &'static [NetworkServiceType] {
        match self {
            Self::Flat => &[Type::Dhcp, Type::Userdata, Type::Eip, Type::Dns, Type::HostRoute],
            Self::VirtualRouter => &[
                Type::Dhcp,
                Type::Dns,
                Type::Snat,
                Type::PortForwarding,
                Type::Eip,
                Type::LoadBalancer,
            ],
            Self::Vrouter => &[
                Type::Dhcp,
                Type::Dns,
                Type::Snat,
                Type::PortForwarding,
                Type::Eip,
                Type::LoadBalancer,
                Type::Ipsec,
                Type::RouterRoute,
                Type::VipQos,
                Type::CentralizedDns,
            ],
            Self::SecurityGroup => &[Type::SecurityGroup],
        }
    }

    /// The uuid of the one provider of this type, the same in every installation.
    #[must_use]
    pub const fn provider(self) -> Id<NetworkServiceProvider> {
        Id::new(Uuid::from_u128(match self {
            Self::Flat => 0x6e65_746c_6f6f_6d00_0000_0000_0000_0001,
            Self::VirtualRouter => 0x6e65_746c_6f6f_6d00_0000_0000_0000_0002,
            Self::Vrouter => 0x6e65_746c_6f6f_6d00_0000_0000_0000_0003,
            Self::SecurityGroup => 0x6e65_746c_6f6f_6d00_0000_0000_0000_0004,
        }))
    }
}

/// Who provides services to L3 networks. There is one of each type, for every L2 network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/network-services/providers", children, messages)]
pub struct NetworkServiceProvider {
    /// Its id.
    pub uuid: Id<NetworkServiceProvider>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    #[field(index)]
    pub provider_type: ProviderType,
    /// What it provides.
    pub network_service_types: Vec<NetworkServiceType>,
}

impl NetworkServiceProvider {
    const MESSAGES: &'static [&'static MessageDef] = &[&GetNetworkServiceTypes::DEF];

    const CHILDREN: &'static [Child] = &[Child::unseen(
        "serviceRef",
        Kind::NetworkServiceL3NetworkRef,
        "networkServiceProviderUuid",
    )];
}

/// A service that an L3 network has, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l3-networks/network-services/refs", aliases, messages)]
pub struct NetworkServiceL3NetworkRef {
    /// Its id, derived from network and service.
    pub uuid: Id<NetworkServiceL3NetworkRef>,
    /// The L3 network.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// The provider.
    #[field(on_delete = "refuse")]
    pub network_service_provider_uuid: Id<NetworkServiceProvider>,
    /// The service.
    #[field(index)]
    pub network_service_type: NetworkServiceType,
}

impl NetworkServiceL3NetworkRef {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&AttachNetworkServiceToL3Network::DEF, &DetachNetworkServiceFromL3Network::DEF];

    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("serviceProvider", "networkServiceProvider")];

    /// The id of the row that says it of an L3 network and a service.
    #[must_use]
    pub fn id_of(l3: Id<L3Network>, service: NetworkServiceType) -> Id<Self> {
        Id::new(Uuid::new_v5(&l3.uuid(), service.as_str().as_bytes()))
    }

    /// The type of its provider.
    #[must_use]
    pub fn provider(&self) -> Option<ProviderType> {
        let is_it = |of: &ProviderType| of.provider() == self.network_service_provider_uuid;
        ProviderType::ALL.iter().copied().find(is_it)
    }

    /// Whether hosts provide it.
    #[must_use]
    pub fn is_provided(&self) -> bool {
        self.is_for_guests() || self.network_service_type == Type::SecurityGroup
    }

    /// Whether hosts provide it, and guests ask for it. DHCP they do in the place of routers, too: they
    /// know what to answer.
    #[must_use]
    pub fn is_for_guests(&self) -> bool {
        let by_hosts = self.network_service_provider_uuid == ProviderType::Flat.provider();
        match self.network_service_type {
            Type::Dhcp => true,
            Type::Userdata | Type::Dns | Type::HostRoute => by_hosts,
            _ => false,
        }
    }
}

/// Adds services to an L3 network, each by one provider.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l3-networks/{l3NetworkUuid}/network-services")]
pub struct AttachNetworkServiceToL3Network {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// For each provider, by its uuid, a list of services.
    pub network_services: Value,
}

/// Takes services away from an L3 network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/l3-networks/{l3NetworkUuid}/network-services")]
pub struct DetachNetworkServiceFromL3Network {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// For each provider, by its uuid, a list of services.
    pub network_services: Option<Value>,
    /// A service, whoever provides it.
    pub service: Option<NetworkServiceType>,
}

/// Lists the services that there are, each with the types of its providers.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/network-services/types", answer = "now")]
pub struct GetNetworkServiceTypes {}
