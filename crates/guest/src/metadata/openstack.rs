//! OpenStack's files: one directory for each version, all with the same in them.
//!
//! Source: nova's `api/metadata/base.py` and `virt/netutils.py`, and its schema of `network_data.json`.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use wire::{
    object::{Port, PortAddress, Subnet},
    told::{AddressMode, Service},
};

use super::{BYTES, JSON, TEXT, View, mac};

const VERSIONS: [&str; 10] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "latest",
];

/// What is at a path below `/openstack`: its kind and its bytes.
pub(super) fn find(view: &View<'_>, path: &[&str], seed: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let json = |value: &Value| Some((JSON, serde_json::to_vec(value).ok()?));
    let list = |lines: &[&str]| Some((TEXT, lines.join("\n").into_bytes()));
    let user_data = &view.about.user_data;
    match path {
        [] => list(&VERSIONS),
        [version, rest @ ..] if VERSIONS.contains(version) => match rest {
            [] => {
                let mut files = vec!["meta_data.json", "network_data.json"];
                files.extend(user_data.is_some().then_some("user_data"));
                files.extend(["vendor_data.json", "vendor_data2.json"]);
                list(&files)
            }
            ["meta_data.json"] => json(&meta_data(view, seed)),
            ["network_data.json"] => json(&network_data(view)),
            ["user_data"] => user_data.as_ref().map(|bytes| (BYTES, bytes.0.clone())),
            ["vendor_data.json"] => json(&vendor_data(view)),
            ["vendor_data2.json"] => json(&match &view.about.vendor_data {
                Some(_) => json!({ "static": vendor_data(view) }),
                None => json!({}),
            }),
            _ => None,
        },
        _ => None,
    }
}

fn meta_data(view: &View<'_>, seed: &[u8]) -> Value {
    let about = view.about;
    let keys: Vec<_> = about.ssh_keys.iter().map(|key| (&key.name, key.key.trim_end())).collect();
    let mut meta = json!({
        "uuid": about.uuid.to_string(),
        "name": about.name,
        "hostname": about.hostname,
        "availability_zone": about.zone,
        "project_id": about.account.simple().to_string(),
        "launch_index": 0,
        "random_seed": STANDARD.encode(seed),
        "devices": [],
        "dedicated_cpus": [],
        "meta": about.tags.iter().map(|tag| {
            let (name, value) = pair(tag);
            (name.to_owned(), Value::from(value))
        }).collect::<Map<_, _>>(),
    });
    if !keys.is_empty() {
        meta["public_keys"] =
            keys.iter().map(|(name, key)| ((*name).clone(), Value::from(*key))).collect();
        let listed =
            keys.iter().map(|(name, key)| json!({"name": name, "type": "ssh", "data": key}));
        meta["keys"] = listed.collect();
    }
    meta
}

/// A tag as a name and a value: `role::web`, or `role=web`.
pub(super) fn pair(tag: &str) -> (&str, &str) {
    tag.split_once("::").or_else(|| tag.split_once('=')).unwrap_or((tag, ""))
}

/// What is an object already is told as it is; anything else is what cloud-init shall read.
fn vendor_data(view: &View<'_>) -> Value {
    let Some(bytes) = &view.about.vendor_data else { return json!({}) };
    match serde_json::from_slice(&bytes.0) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => json!({ "cloud-init": String::from_utf8_lossy(&bytes.0) }),
    }
}

fn network_data(view: &View<'_>) -> Value {
    let mut networks = Vec::new();
    for nic in &view.nics {
        for address in &nic.addresses {
            networks.push(network(view, nic, address, networks.len()));
        }
    }
    let links = view.nics.iter().map(|nic| {
        json!({
            "id": link_id(nic),
            "vif_id": nic.uuid.to_string(),
            "type": "phy",
            "mtu": nic.mtu_bytes,
            "ethernet_mac_address": mac(nic.mac),
        })
    });
    let mut servers = Vec::new();
    for subnet in view.main_nic().into_iter().flat_map(|nic| subnets(view, nic)) {
        servers.extend(subnet.dns.iter().filter(|ip| !servers.contains(ip)).collect::<Vec<_>>());
    }
    let services: Vec<_> = servers.into_iter().map(service).collect();
    json!({ "links": links.collect::<Vec<_>>(), "networks": networks, "services": services })
}

fn link_id(nic: &Port) -> String {
    format!("nic{}", nic.device_id)
}

fn service(server: &IpAddr) -> Value {
    json!({ "type": "dns", "address": server.to_string() })
}

/// Each once, in the order of the NIC's addresses.
fn subnets<'a>(view: &'a View<'_>, nic: &'a Port) -> Vec<&'a Subnet> {
    let mut found: Vec<&Subnet> = Vec::new();
    for uuid in nic.addresses.iter().filter_map(|address| address.subnet) {
        if !found.iter().any(|subnet| subnet.uuid == uuid) {
            found.extend(view.directory.subnet(uuid));
        }
    }
    found
}

fn network(view: &View<'_>, nic: &Port, address: &PortAddress, number: usize) -> Value {
    let subnet = address.subnet.and_then(|uuid| view.directory.subnet(uuid));
    let kind = kind(nic, address, subnet);
    let mut network = json!({
        "id": format!("network{number}"),
        "type": kind,
        "link": link_id(nic),
        "network_id": address.subnet.map(|uuid| uuid.to_string()),
    });
    if kind == "ipv4" || kind == "ipv6" {
        network["ip_address"] = address.ip.to_string().into();
        network["netmask"] = mask(address.ip, address.prefix_bits).to_string().into();
        network["routes"] = routes(address, subnet);
        let servers = subnet.into_iter().flat_map(|subnet| &subnet.dns);
        let servers = servers.filter(|ip| ip.is_ipv4() == address.ip.is_ipv4());
        network["services"] = servers.map(service).collect();
    }
    network
}

/// How the guest gets the address: as nova says it.
fn kind(nic: &Port, address: &PortAddress, subnet: Option<&Subnet>) -> &'static str {
    let does = |service| nic.told.as_ref().is_some_and(|told| told.services.contains(&service));
    let Some(subnet) = subnet else { return if address.ip.is_ipv4() { "ipv4" } else { "ipv6" } };
    if address.ip.is_ipv4() {
        let is_leased = does(Service::Dhcp) && subnet.dhcp.is_some();
        return if is_leased { "ipv4_dhcp" } else { "ipv4" };
    }
    let range =
        subnet.ranges.iter().find(|range| crate::directory::contains(&range.prefix, address.ip));
    match range.and_then(|range| range.mode).filter(|_| does(Service::Ipv6)) {
        Some(AddressMode::Slaac) => "ipv6_slaac",
        Some(AddressMode::Stateful) => "ipv6_dhcpv6-stateful",
        Some(AddressMode::Stateless) => "ipv6_dhcpv6-stateless",
        None => "ipv6",
    }
}

fn routes(address: &PortAddress, subnet: Option<&Subnet>) -> Value {
    let is_ipv4 = address.ip.is_ipv4();
    let unspecified: IpAddr = if is_ipv4 { [0; 4].into() } else { [0_u8; 16].into() };
    let route = |to: IpAddr, bits, via: IpAddr| {
        json!({
            "network": to.to_string(),
            "netmask": mask(to, bits).to_string(),
            "gateway": via.to_string(),
        })
    };
    let default = address.gateway.map(|via| route(unspecified, 0, via));
    let others = subnet.into_iter().flat_map(|subnet| &subnet.routes);
    let others = others.filter(|it| it.prefix.ip.is_ipv4() == is_ipv4);
    let others = others.map(|it| route(it.prefix.ip, it.prefix.bits, it.via));
    default.into_iter().chain(others).collect()
}

/// As many bits set, in the family of an address.
fn mask(of: IpAddr, bits: u8) -> IpAddr {
    let all: IpAddr = if of.is_ipv4() { [0xff; 4].into() } else { [0xff_u8; 16].into() };
    super::ec2::network(all, bits)
}
