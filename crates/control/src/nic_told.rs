//! What the guest behind a NIC is told, in words: made of what its host holds, or would hold.

use std::net::IpAddr;

use compile::Guest;
use model::{
    Result, dhcp,
    resource::{nic_settings::GetVmNicTold, vm_nic::VmNic},
    setting,
    status::LeaseSeen,
};
use serde_json::{Value, json};
use wire::{
    object::{PortAddress, Subnet},
    told::{AddressMode, DhcpOption, Service},
};

use crate::{
    Look,
    operation::{Operation, look},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![look(told)]
}

fn told(look: &Look<'_>, message: GetVmNicTold) -> Result<Value> {
    let nic = look.get(message.vm_nic_uuid)?;
    let Some(guest) = compile::guest(look.snapshot(), &nic) else {
        let why = "the NIC is disabled, or plugged into neither an instance nor a device";
        return Ok(json!({"services": [], "why": why}));
    };
    let Some(told) = &guest.port.told else {
        let why = "none of its L3 networks has the services DHCP, Userdata or DNS: its addresses are \
                   set by what runs it, or by hand";
        return Ok(json!({"services": [], "why": why}));
    };
    // As a client has it: name servers and the default route are those of its default NIC alone.
    let subnets = || guest.subnets.iter().filter(|_| told.is_default);
    let domain = guest.subnets.iter().find_map(|subnet| subnet.domain.clone());
    let dns: Vec<_> = subnets().flat_map(|subnet| subnet.dns.clone()).collect();
    let search: Vec<_> =
        subnets().flat_map(|it| it.dhcp.iter().flat_map(|it| &it.search)).collect();
    let routes = guest.subnets.iter().flat_map(|subnet| &subnet.routes);
    let routes = routes.map(|route| {
        let prefix = format!("{}/{}", route.prefix.ip, route.prefix.bits);
        json!({"prefix": prefix, "nexthop": route.via})
    });
    let of_networks = guest.subnets.iter().flat_map(|it| &it.dhcp).flat_map(|it| &it.options);
    let replaced = |option: &&DhcpOption| {
        let same = |own: &DhcpOption| (own.code, own.is_v6) == (option.code, option.is_v6);
        !told.options.iter().any(same)
    };
    let options = told.options.iter().chain(of_networks.filter(replaced)).map(option);
    Ok(json!({
        "services": told.services.iter().map(|service| word(*service)).collect::<Vec<_>>(),
        "hostname": told.hostname,
        "domain": domain,
        "isDefault": told.is_default,
        "mtu": guest.port.mtu_bytes,
        "addresses": guest.port.addresses.iter().map(|it| address(&guest, it)).collect::<Vec<_>>(),
        "dns": dns,
        "search": search,
        "routes": routes.collect::<Vec<_>>(),
        "options": options.collect::<Vec<_>>(),
        "servers": guest.subnets.iter().filter_map(server).collect::<Vec<_>>(),
        "slaacAddresses": match told.may_choose {
            true => setting::SlaacAddresses::Any.as_str(),
            false => setting::SlaacAddresses::Assigned.as_str(),
        },
        "notInEffect": told.may_choose.then_some(
            "dhcp/slaacAddresses: hosts do not let addresses of the guest's own choice pass yet; have it \
             make EUI-64 addresses",
        ),
        "asked": asked(look, &nic, 1),
        "events": asked(look, &nic, LeaseSeen::KEPT),
    }))
}

/// What the guest has asked for its addresses, as its host has told: of each version of IP so many, the
/// newest last.
fn asked(look: &Look<'_>, nic: &VmNic, most: usize) -> Vec<Value> {
    let Some(host) = nic.host_uuid else { return Vec::new() };
    let leases = &look.status(host).leases;
    let mut all = Vec::new();
    for (version, is_v6) in [(4, false), (6, true)] {
        let seen = leases.get(&(nic.uuid.uuid(), is_v6)).map_or(&[][..], |seen| seen);
        let last = seen.iter().skip(seen.len().saturating_sub(most));
        all.extend(last.map(|seen| (version, seen)));
    }
    all.sort_by_key(|(_, seen)| seen.at);
    let shown = |(version, seen): (u8, &LeaseSeen)| {
        let LeaseSeen { at, kind, address, hostname, client_id } = seen;
        json!({
            "ipVersion": version,
            "date": at.to_string(),
            "outcome": kind,
            "ip": address,
            "hostname": hostname,
            "clientId": hex(client_id),
        })
    };
    all.into_iter().map(shown).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// ZStack's word for a service, as far as it has one.
const fn word(service: Service) -> &'static str {
    match service {
        Service::Dhcp => "DHCP",
        Service::Ipv6 => "DHCPv6",
        Service::Metadata => "Userdata",
        Service::Dns => "DNS",
    }
}

/// An address, and how it comes to the guest.
fn address(guest: &Guest, address: &PortAddress) -> Value {
    let subnet = guest.subnets.iter().find(|subnet| Some(subnet.uuid) == address.subnet);
    json!({
        "ip": address.ip,
        "prefixLen": address.prefix_bits,
        "gateway": address.gateway,
        "l3NetworkUuid": subnet.map(|subnet| subnet.uuid.simple().to_string()),
        "by": subnet.and_then(|subnet| way(subnet, address.ip)),
    })
}

/// How an address comes to the guest, if the network tells it.
fn way(subnet: &Subnet, ip: IpAddr) -> Option<&'static str> {
    subnet.dhcp.as_ref()?;
    let mode = subnet.ranges.iter().find_map(|range| range.mode);
    match (ip, mode) {
        (IpAddr::V4(_), _) => Some("DHCP"),
        (IpAddr::V6(_), Some(AddressMode::Stateful)) => Some("DHCPv6"),
        (IpAddr::V6(_), Some(AddressMode::Slaac | AddressMode::Stateless)) => Some("SLAAC"),
        (IpAddr::V6(_), None) => None,
    }
}

fn server(subnet: &Subnet) -> Option<Value> {
    let dhcp = subnet.dhcp.as_ref()?;
    Some(json!({
        "l3NetworkUuid": subnet.uuid.simple().to_string(),
        "ip": dhcp.server,
        "ip6": dhcp.server6,
        "leaseSeconds": dhcp.lease_seconds,
        "timeServers": dhcp.time_servers,
    }))
}

fn option(option: &DhcpOption) -> Value {
    let version = if option.is_v6 { 6 } else { 4 };
    json!({
        "code": option.code,
        "name": dhcp::name(option.code, version),
        "ipVersion": version,
        "bytes": hex(&option.data.0),
    })
}
