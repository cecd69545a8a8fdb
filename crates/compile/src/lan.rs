//! What the guests of an L3 network are told: from the rows about it to the [`Subnet`] that hosts hold,
//! and to what it means for the NICs there.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use model::{
    Id, Kind, Record, dhcp,
    resource::{
        Body,
        dhcp_option::DhcpOption,
        ip_range::{AddressMode, IpRange, IpRangeType},
        l2_network::L2Network,
        l3_network::L3Network,
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
    },
    setting::{self, NetnsAddresses, Setting, SlaacAddresses},
};
use wire::{
    object::{Object, Prefix, Subnet},
    shared::Shared,
    told::{self, AddressRange, Bytes, Dhcp, GuestAddresses, Resolver, Route, Service},
};

use crate::settings::{self, Value};

/// Where metadata is read (EC2's address). DHCP and DNS that have no address of their own are there, too.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The same of IPv6, as OpenStack has it.
const METADATA6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe));

/// An L3 network, without what other rows say of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct L3 {
    pub(crate) uuid: Id<L3Network>,
    l2: Id<L2Network>,
    domain: Option<String>,
    dns: Vec<IpAddr>,
    gives_addresses: bool,
}

/// What another row says of an L3 network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// It has a service that hosts provide.
    Service(NetworkServiceType),
    /// It has a subnet with this gateway, whose addresses come to guests in one way.
    Range((IpAddr, u8), IpAddr, Option<AddressMode>),
    /// Its guests are told of a route.
    Route((IpAddr, u8), IpAddr),
    /// DHCP has this address of its own.
    Server(IpAddr),
    /// A setting has a value of its own.
    Setting(Value),
    /// DHCP says something else, too.
    Option(Choice),
}

/// An option of DHCP that somebody has chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choice {
    version: u8,
    code: u16,
    value: String,
}

impl Choice {
    pub(crate) fn of(row: &DhcpOption) -> Self {
        Self { version: row.ip_version, code: row.code, value: row.value.clone() }
    }

    /// Hosts know what it means, and say it in IPv6, too. Bytes they do not look into.
    fn is_known(&self) -> bool {
        let is_known = [dhcp::TIME_SERVERS, dhcp::SEARCH].contains(&self.code);
        self.version == 4 && is_known && !self.value.starts_with("hex:")
    }

    /// As it stands in the message. It was checked when it was chosen.
    pub(crate) fn option(&self) -> Option<told::DhcpOption> {
        let data = dhcp::encode(self.code, self.version, &self.value).ok()?;
        Some(told::DhcpOption { code: self.code, data: Bytes(data), is_v6: self.version == 6 })
    }
}

/// What an L3 network means for a NIC that has addresses of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Brief {
    pub(crate) uuid: Id<L3Network>,
    /// What hosts do for the NIC, sorted.
    pub(crate) services: Vec<Service>,
    /// The domain of its name.
    pub(crate) domain: Option<String>,
    /// It may use any address where it makes its own.
    pub(crate) may_choose: bool,
    /// How it comes to its addresses, if it has no software of its own that asks.
    pub(crate) addresses: Option<GuestAddresses>,
}

/// An L3 network of whose guests hosts take care.
#[derive(Clone, Debug)]
pub(crate) struct Lan {
    l3: L3,
    facts: Vec<Fact>,
    globals: Vec<Value>,
    /// Made of these: one object for all hosts.
    pub(crate) subnet: Shared,
}

impl L3 {
    pub(crate) fn of(row: &L3Network) -> Self {
        Self {
            uuid: row.uuid,
            l2: row.l2_network_uuid,
            domain: row.dns_domain.clone(),
            dns: row.dns.clone(),
            gives_addresses: row.enable_ipam,
        }
    }
}

/// The tables whose rows say something of L3 networks. Of addresses it is those of DHCP alone, which are
/// few of many.
pub(crate) const KINDS: [Kind; 5] = [
    Kind::NetworkServiceL3NetworkRef,
    Kind::IpRange,
    Kind::L3NetworkHostRoute,
    Kind::ResourceConfig,
    Kind::DhcpOption,
];

/// What a row says of an L3 network.
pub(crate) fn fact(row: &Record) -> Option<(Id<L3Network>, Fact)> {
    match &row.body {
        Body::NetworkServiceL3NetworkRef(row) => service(row),
        Body::IpRange(row) => range(row),
        Body::L3NetworkHostRoute(row) => {
            let net = (row.prefix.network(), row.prefix.prefix_len());
            Some((row.l3_network_uuid, Fact::Route(net, row.nexthop)))
        }
        Body::UsedIp(row) if row.used_by.kind == Kind::DhcpServer => {
            Some((row.l3_network_uuid, Fact::Server(row.ip)))
        }
        Body::ResourceConfig(row) => Some((row.resource.id()?, Fact::Setting(settings::own(row)?))),
        Body::DhcpOption(row) => Some((row.resource.id()?, Fact::Option(Choice::of(row)))),
        _ => None,
    }
}

/// A service, if hosts provide it.
fn service(row: &NetworkServiceL3NetworkRef) -> Option<(Id<L3Network>, Fact)> {
    let fact = Fact::Service(row.network_service_type);
    row.is_for_guests().then_some((row.l3_network_uuid, fact))
}

/// A subnet, if NICs have addresses of it.
fn range(row: &IpRange) -> Option<(Id<L3Network>, Fact)> {
    let net = (row.network_cidr.network(), row.network_cidr.prefix_len());
    let fact = Fact::Range(net, row.gateway, row.address_mode);
    (row.ip_range_type == IpRangeType::Normal).then_some((row.l3_network_uuid, fact))
}

impl Lan {
    /// `None`: hosts do nothing for its guests. `facts` are sorted.
    pub(crate) fn of(l3: &L3, facts: &[Fact], globals: &[Value]) -> Option<Self> {
        let (l3, facts, globals) = (l3.clone(), facts.to_vec(), globals.to_vec());
        let seen = View { l3: &l3, facts: &facts, globals: &globals };
        if seen.services().is_empty() {
            return None;
        }
        let subnet = Object::Subnet(seen.subnet()).into();
        Some(Self { l3, facts, globals, subnet })
    }

    pub(crate) fn uuid(&self) -> Id<L3Network> {
        self.l3.uuid
    }

    /// What it means for a NIC.
    pub(crate) fn brief(&self) -> Brief {
        let (services, domain) = (self.seen().services(), self.l3.domain.clone());
        let seen = self.seen();
        let addresses = seen.setting(&setting::DHCP_SLAAC_ADDRESSES);
        let may_choose = addresses == Some(SlaacAddresses::Any.as_str());
        let addresses = match seen.setting(&setting::DHCP_NETNS_ADDRESSES) {
            Some(word) if word == NetnsAddresses::Injected.as_str() => {
                Some(GuestAddresses::Injected)
            }
            Some(word) if word == NetnsAddresses::None.as_str() => Some(GuestAddresses::Left),
            _ => None,
        };
        Brief { uuid: self.l3.uuid, services, domain, may_choose, addresses }
    }

    fn seen(&self) -> View<'_> {
        View { l3: &self.l3, facts: &self.facts, globals: &self.globals }
    }
}

/// What is known of an L3 network.
struct View<'a> {
    l3: &'a L3,
    facts: &'a [Fact],
    globals: &'a [Value],
}

impl View<'_> {
    fn has(&self, service: NetworkServiceType) -> bool {
        self.facts.contains(&Fact::Service(service))
    }

    fn has_dhcp(&self) -> bool {
        self.has(NetworkServiceType::Dhcp) && self.l3.gives_addresses
    }

    fn has_subnet(&self, is_v4: bool) -> bool {
        self.ranges().any(|(ip, ..)| ip.is_ipv4() == is_v4)
    }

    fn ranges(&self) -> impl Iterator<Item = (IpAddr, u8, IpAddr, Option<AddressMode>)> + '_ {
        self.facts.iter().filter_map(|fact| match fact {
            Fact::Range((ip, bits), gateway, mode) => Some((*ip, *bits, *gateway, *mode)),
            _ => None,
        })
    }

    /// The address that DHCP has of its own.
    fn server(&self, is_v4: bool) -> Option<IpAddr> {
        self.facts.iter().find_map(|fact| match fact {
            Fact::Server(ip) if ip.is_ipv4() == is_v4 => Some(*ip),
            _ => None,
        })
    }

    /// What hosts do for a NIC, sorted.
    fn services(&self) -> Vec<Service> {
        let all = [
            (Service::Dhcp, self.has_dhcp() && self.has_subnet(true)),
            (Service::Ipv6, self.has_dhcp() && self.has_subnet(false)),
            (Service::Metadata, self.has(NetworkServiceType::Userdata)),
            (Service::Dns, self.has(NetworkServiceType::Dns)),
        ];
        all.into_iter().filter_map(|(service, is_there)| is_there.then_some(service)).collect()
    }

    fn subnet(&self) -> Subnet {
        let resolver = self.has(NetworkServiceType::Dns).then(|| self.resolver());
        let asked = resolver.as_ref().map_or(&self.l3.dns, |resolver| &resolver.addresses);
        let routes = self.facts.iter().filter_map(|fact| match fact {
            Fact::Route((ip, bits), via) => {
                Some(Route { prefix: Prefix { ip: *ip, bits: *bits }, via: *via })
            }
            _ => None,
        });
        let ranges = self.ranges().map(|(ip, bits, gateway, mode)| AddressRange {
            prefix: Prefix { ip, bits },
            gateway: Some(gateway),
            mode: mode.map(|mode| match mode {
                AddressMode::Slaac => told::AddressMode::Slaac,
                AddressMode::Stateful => told::AddressMode::Stateful,
                AddressMode::Stateless => told::AddressMode::Stateless,
            }),
        });
        Subnet {
            uuid: self.l3.uuid.uuid(),
            network: self.l3.l2.uuid(),
            domain: self.l3.domain.clone(),
            dns: asked.clone(),
            routes: routes.collect(),
            ranges: ranges.collect(),
            dhcp: self.has_dhcp().then(|| self.dhcp()),
            resolver,
        }
    }

    /// Without an address of its own the server of IPv4 is known by the gateway's: a client sends there
    /// what it renews, and any host's answer is as good. That of IPv6 is known by no address.
    fn dhcp(&self) -> Dhcp {
        let gateway = || self.ranges().find(|(ip, ..)| ip.is_ipv4()).map(|(_, _, ip, _)| ip);
        let server = self.server(true).or_else(gateway).unwrap_or(METADATA);
        Dhcp {
            server: self.has_subnet(true).then_some(server),
            server6: self.server(false),
            lease_seconds: self.number(&setting::DHCP_LEASE_TIME),
            options: self
                .choices()
                .filter(|it| !it.is_known())
                .filter_map(Choice::option)
                .collect(),
            time_servers: self
                .listed(dhcp::TIME_SERVERS)
                .filter_map(|ip| ip.parse().ok())
                .collect(),
            search: self.listed(dhcp::SEARCH).map(str::to_owned).collect(),
        }
    }

    /// At the addresses of DHCP; without one of its own, at that of metadata: at the gateway's there may
    /// be a resolver of the router's own.
    fn resolver(&self) -> Resolver {
        let at = |is_v4, otherwise| {
            self.has_subnet(is_v4).then(|| self.server(is_v4).unwrap_or(otherwise))
        };
        Resolver {
            addresses: [at(true, METADATA), at(false, METADATA6)].into_iter().flatten().collect(),
            forwarders: self.l3.dns.clone(),
        }
    }

    fn number(&self, setting: &Setting) -> u32 {
        u32::try_from(setting.number(self.setting(setting))).unwrap_or(u32::MAX)
    }

    /// What a setting is for this network.
    fn setting(&self, setting: &Setting) -> Option<&str> {
        let own = self.facts.iter().filter_map(|fact| match fact {
            Fact::Setting(value) => Some(value),
            _ => None,
        });
        settings::value(setting, own, self.globals)
    }

    fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.facts.iter().filter_map(|fact| match fact {
            Fact::Option(choice) => Some(choice),
            _ => None,
        })
    }

    /// The parts of the list that an option of IPv4 is.
    fn listed(&self, code: u16) -> impl Iterator<Item = &str> {
        let choice = self.choices().find(|it| it.code == code && it.is_known());
        choice.into_iter().flat_map(|choice| dhcp::items(&choice.value))
    }
}

impl Ord for Lan {
    fn cmp(&self, other: &Self) -> Ordering {
        let of = |lan: &'_ Self| (lan.l3.clone(), lan.facts.clone(), lan.globals.clone());
        of(self).cmp(&of(other))
    }
}

impl PartialOrd for Lan {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Lan {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Lan {}
