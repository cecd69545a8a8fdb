//! VIP: an address of an L3 network that is given to services rather than to a NIC. What uses it says
//! so itself; all that a VIP shows of its uses is derived from them.

use std::{collections::BTreeSet, net::IpAddr};

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    ip_range::IpRange,
    l3_network::{IpAllocatorStrategy, L3Network},
    network_service::{NetworkServiceL3NetworkRef, NetworkServiceType, ProviderType},
    used_ip::UsedIp,
    zone::{EnableEvent, EnableState},
};
use crate::{
    Claim, FieldDef, Id, Kind, Message, MessageDef, Plain, Record, Resource, Update,
    shown::{Child, Derived, LIST_MAX, View},
    words,
};

words! {
    /// A protocol with ports.
    PortProtocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

impl PortProtocol {
    /// Its number in IP headers (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// What may use VIPs, and how it goes together with other uses.
#[derive(Debug)]
pub struct VipUse {
    /// ZStack's word for it.
    pub service: NetworkServiceType,
    /// What uses a VIP: its field [`VipUse::FIELD`] names it.
    pub kind: Kind,
    /// It takes the whole VIP: nothing else uses it, and no second one. Others share one by ports.
    pub is_exclusive: bool,
}

impl VipUse {
    /// The field that names the VIP.
    pub const FIELD: &str = "vipUuid";

    /// Every use that there is.
    pub const ALL: &[Self] = &[
        Self { service: NetworkServiceType::Eip, kind: Kind::Eip, is_exclusive: true },
        Self {
            service: NetworkServiceType::PortForwarding,
            kind: Kind::PortForwardingRule,
            is_exclusive: false,
        },
    ];

    /// The use that this service makes of VIPs.
    #[must_use]
    pub fn of(service: NetworkServiceType) -> Option<&'static Self> {
        Self::ALL.iter().find(|it| it.service == service)
    }
}

/// An address of an L3 network for services: EIPs, forwarded ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/vips",
    quota = "vip.num",
    quota_default = 20,
    children,
    derived,
    shareable,
    messages
)]
pub struct Vip {
    /// Its id.
    pub uuid: Id<Vip>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The L3 network of its address.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// Its address, with its range and subnet.
    #[field(on_delete = "cascade")]
    pub used_ip_uuid: Id<UsedIp>,
    /// One that is disabled gets no new uses; those that it has stay.
    pub state: EnableState,
    /// It is a router's own: it is neither deleted by hand nor given to an EIP.
    pub system: bool,
}

impl Vip {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateVip::DEF,
        &UpdateVip::DEF,
        &DeleteVip::DEF,
        &ChangeVipState::DEF,
        &CheckVipPortAvailability::DEF,
        &GetVipAvailablePort::DEF,
        &GetVipUsedPorts::DEF,
    ];

    const CHILDREN: &'static [Child] = &[
        Child::unseen("eip", Kind::Eip, VipUse::FIELD),
        Child::unseen("portForwarding", Kind::PortForwardingRule, VipUse::FIELD),
    ];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<IpAddr>("ip", "Its address."),
            read: |vip, view| address(vip, view, |used| Plain::Ip(used.ip)),
            found_by: &["usedIp.ip"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Id<IpRange>>("ipRangeUuid", "The range of its address."),
            read: |vip, view| address(vip, view, |used| Plain::Uuid(used.ip_range_uuid.uuid())),
            found_by: &["usedIp.ipRangeUuid"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<IpAddr>>("netmask", "The mask of its subnet, IPv4 only."),
            read: |vip, view| {
                address(vip, view, |used| used.netmask.map_or(Plain::Null, Plain::Ip))
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<u8>("prefixLen", "Length of its subnet's prefix, in bits."),
            read: |vip, view| address(vip, view, |used| Plain::Integer(used.prefix_len.into())),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<IpAddr>("gateway", "The gateway of its subnet."),
            read: |vip, view| address(vip, view, |used| Plain::Ip(used.gateway)),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>(
                "useFor",
                "The services that use it, with commas between them.",
            ),
            read: |vip, view| {
                let names: Vec<_> = uses(vip, view).map(|it| it.service.as_str()).collect();
                if names.is_empty() { Plain::Null } else { Plain::Text(names.join(",").into()) }
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Vec<Value>>("servicesRefs", "What uses it, one by one."),
            read: services_refs,
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Vec<Id<L3Network>>>(
                "peerL3NetworkUuids",
                "The L3 networks of the NICs that it leads to.",
            ),
            read: |vip, view| {
                let l3s = peers(vip, view).into_iter();
                Plain::List(l3s.map(|(l3, _)| Plain::Uuid(l3.uuid())).collect())
            },
            found_by: &["eip.guestL3NetworkUuid", "portForwarding.guestL3NetworkUuid"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>(
                "serviceProvider",
                "Who provides its services to the L3 networks of those NICs.",
            ),
            read: |vip, view| {
                let services = peers(vip, view);
                let provider = services.into_iter().find_map(|(l3, service)| {
                    service_of(view, l3, service)?.provider().map(ProviderType::as_str)
                });
                provider.map_or(Plain::Null, Plain::word)
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>(
                "notInEffect",
                "Why something that it leads to is not reached by it yet.",
            ),
            read: |vip, view| {
                let mut peers = peers(vip, view).into_iter();
                let why = peers.find_map(|(l3, service)| why_not(view, l3, service));
                why.map_or(Plain::Null, |why| Plain::Text(why.into()))
            },
            found_by: &[],
            only: &[],
        },
    ];
}

/// Something about a VIP's address.
fn address(
    record: &Record,
    view: &dyn View,
    of: impl FnOnce(&UsedIp) -> Plain<'static>,
) -> Plain<'static> {
    let used = Vip::of(record).and_then(|vip| view.get(Kind::UsedIp, vip.used_ip_uuid.uuid()));
    used.as_deref().and_then(UsedIp::of).map_or(Plain::Null, of)
}

/// The services that use a VIP.
fn uses<'a>(vip: &Record, view: &'a dyn View) -> impl Iterator<Item = &'static VipUse> + use<'a> {
    let vip = vip.uuid();
    let is_there = move |it: &&VipUse| !view.pointing(it.kind, VipUse::FIELD, vip, 1).is_empty();
    VipUse::ALL.iter().filter(is_there)
}

fn services_refs(vip: &Record, view: &dyn View) -> Plain<'static> {
    let refs = VipUse::ALL.iter().flat_map(|it| {
        let rows = view.hanging(it.kind, VipUse::FIELD, vip.uuid(), LIST_MAX).into_iter();
        rows.map(|row| {
            json!({
                "uuid": row.uuid().simple().to_string(),
                "serviceType": it.service.as_str(),
                "vipUuid": vip.uuid().simple().to_string(),
            })
        })
    });
    Plain::List(refs.take(LIST_MAX).map(Plain::Object).collect())
}

/// The L3 networks of the NICs that a VIP leads to, each with a service that does; as many as a list
/// shows. One look for each, however many NICs there are.
fn peers(vip: &Record, view: &dyn View) -> Vec<(Id<L3Network>, NetworkServiceType)> {
    let (vip, mut found, mut seen) = (Id::new(vip.uuid()), Vec::new(), BTreeSet::new());
    let mut from = Some(Uuid::nil());
    while let Some(l3) = from.filter(|_| found.len() < LIST_MAX) {
        let (low, high) = Claim::peers(vip, Id::new(l3));
        let Some((Claim::Peer(_, l3, _), (kind, _))) = view.first_held(&low, &high) else { break };
        let used = VipUse::ALL.iter().find(|it| it.kind == kind);
        if seen.insert(l3) {
            found.extend(used.map(|it| (l3, it.service)));
        }
        from = l3.uuid().as_u128().checked_add(1).map(Uuid::from_u128);
    }
    found
}

fn service_of(
    view: &dyn View,
    l3: Id<L3Network>,
    service: NetworkServiceType,
) -> Option<NetworkServiceL3NetworkRef> {
    let id = NetworkServiceL3NetworkRef::id_of(l3, service).uuid();
    let row = view.get(Kind::NetworkServiceL3NetworkRef, id)?;
    NetworkServiceL3NetworkRef::of(&row).cloned()
}

/// Why a service does nothing for the NICs of an L3 network, if it does not.
pub(crate) fn why_not(
    view: &dyn View,
    l3: Id<L3Network>,
    service: NetworkServiceType,
) -> Option<String> {
    let name = service.as_str();
    match service_of(view, l3, service) {
        None => Some(format!("L3 network {l3} has no service {name}")),
        Some(row) if !row.is_provided() => {
            Some(format!("nobody provides {name} to L3 network {l3} yet"))
        }
        Some(_) => None,
    }
}

/// Most addresses of a NIC that are looked at; it has one of each family.
const ADDRESSES_MAX: usize = 8;

/// The address of one family that a NIC has.
pub(crate) fn guest_ip(view: &dyn View, nic: Uuid, ip_version: u8) -> Option<IpAddr> {
    let rows = view.pointing(Kind::UsedIp, UsedIp::USED_BY, nic, ADDRESSES_MAX);
    let used = rows.iter().filter_map(|row| UsedIp::of(row));
    used.filter(|used| used.ip_version == ip_version).map(|used| used.ip).next()
}

/// The address of the VIP that a resource names.
pub(crate) fn vip_ip(view: &dyn View, vip: Id<Vip>) -> Plain<'static> {
    let vip = view.get(Kind::Vip, vip.uuid());
    vip.map_or(Plain::Null, |vip| address(&vip, view, |used| Plain::Ip(used.ip)))
}

/// Takes an address of an L3 network for services.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vips", creates = "Vip")]
pub struct CreateVip {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The range to take it from; an address pool of the network if absent, else any of its ranges.
    pub ip_range_uuid: Option<Id<IpRange>>,
    /// The address; a free one if absent.
    pub required_ip: Option<IpAddr>,
    /// Which of the free addresses; as the network's strategy says if absent.
    pub allocator_strategy: Option<IpAllocatorStrategy>,
    /// 4 or 6; of a network that has both, 4 if absent.
    #[field(range = "4..=6")]
    pub ip_version: Option<u8>,
}

/// Changes what a VIP is called.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vips/{uuid}/actions", action = "updateVip")]
pub struct UpdateVip {
    /// The VIP.
    pub uuid: Id<Vip>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes a VIP with what uses it, and gives its address back.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/vips/{uuid}")]
pub struct DeleteVip {
    /// The VIP.
    pub uuid: Id<Vip>,
}

/// Enables or disables a VIP: a disabled one gets no new uses, and keeps those it has.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vips/{uuid}/actions", action = "changeVipState")]
pub struct ChangeVipState {
    /// The VIP.
    pub uuid: Id<Vip>,
    /// What is to happen.
    pub state_event: EnableEvent,
}

/// Says whether a port of a VIP is free.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vips/{vipUuid}/check-port-availability", answer = "now")]
pub struct CheckVipPortAvailability {
    /// The VIP.
    pub vip_uuid: Id<Vip>,
    /// The port.
    #[field(range = "1..=65535")]
    pub port: u16,
    /// TCP or UDP.
    pub protocol_type: PortProtocol,
}

/// Lists free ports of a VIP, the lowest first: 1,000 at most.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vips/{vipUuid}/get-port-availability", answer = "now")]
pub struct GetVipAvailablePort {
    /// The VIP.
    pub vip_uuid: Id<Vip>,
    /// TCP or UDP.
    pub protocol_type: PortProtocol,
}

/// Lists the ports of a VIP that are taken, as ranges.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/vips/{uuid}/usedports", answer = "now")]
pub struct GetVipUsedPorts {
    /// The VIP.
    pub uuid: Id<Vip>,
    /// TCP or UDP.
    pub protocol: PortProtocol,
}
