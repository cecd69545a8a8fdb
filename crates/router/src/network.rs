//! NICs, addresses and routes of the machine, in the network namespace of a [`Namespace`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hostnet::{Error, LinkInfo, Namespace, Netlink};
use ipnet::IpNet;
use model::Mac;

use crate::{
    announce::New,
    problems::{Problems, Service},
    state::{Desired, Nic},
};

/// Of the one default route of each family.
const METRIC: u32 = 0;

/// Of the namespace. What is forwarded keeps its way: no redirects.
const SETTINGS: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
];

/// Of each NIC. It answers for its own addresses alone (`arp_ignore` 1, `arp_announce` 2 of the kernel's
/// `Documentation/networking/ip-sysctl.rst`): a router has NICs in networks of different owners.
const OF_NIC: [(&str, &str); 7] = [
    ("ipv4", "arp_ignore=1"),
    ("ipv4", "arp_announce=2"),
    ("ipv4", "send_redirects=0"),
    ("ipv4", "accept_redirects=0"),
    ("ipv6", "accept_ra=0"),
    ("ipv6", "accept_redirects=0"),
    ("ipv6", "autoconf=0"),
];

/// The devices that are there, by MAC.
///
/// # Errors
/// What the kernel says.
pub async fn devices(netlink: &Netlink) -> Result<BTreeMap<Mac, LinkInfo>, Error> {
    let links = netlink.links().await?.into_iter().filter(|link| link.is_ethernet);
    Ok(links.map(|link| (Mac(link.mac), link)).collect())
}

/// Has the machine forward packets. Before that, the packet filter must be there.
///
/// # Errors
/// What the kernel says.
pub fn forward(namespace: &Namespace) -> Result<(), Error> {
    namespace.sysctls(&SETTINGS)
}

/// Gives devices their addresses and the machine its default routes, and takes away all others. Says what
/// of it did not work; the rest is done. Also says which addresses are new.
pub async fn apply(
    (netlink, devices): (&Netlink, &BTreeMap<Mac, LinkInfo>),
    desired: &Desired,
) -> (Problems, Vec<New>) {
    let (mut problems, mut all) = (Problems::default(), Vec::new());
    for nic in &desired.nics {
        let Some(device) = devices.get(&nic.mac) else { continue };
        match one(netlink, device, nic).await {
            Ok(new) if new.is_empty() => {}
            Ok(new) => all.push(New { device: device.name.clone(), mac: nic.mac, addresses: new }),
            Err(error) => problems.note(Service::Network, nic.mac, &error.to_string()),
        }
    }
    if let Err(error) = routes(netlink, desired, (devices, &mut problems)).await {
        problems.note(Service::Network, "default routes", &error.to_string());
    }
    (problems, all)
}

/// The addresses that are new.
async fn one(netlink: &Netlink, device: &LinkInfo, nic: &Nic) -> Result<Vec<IpAddr>, Error> {
    let name = &device.name;
    let settings = OF_NIC.iter().filter_map(|(family, setting)| {
        let (key, value) = setting.split_once('=')?;
        Some((format!("net/{family}/conf/{name}/{key}"), value))
    });
    netlink.namespace().sysctls(&settings.collect::<Vec<_>>())?;
    if device.mtu_bytes != nic.mtu_bytes {
        netlink.set_mtu(device.index, nic.mtu_bytes).await?;
    }
    let wanted = addresses(nic);
    let held = netlink.addresses(device.index).await?;
    let held: BTreeSet<_> = held.iter().map(|it| (it.ip, it.prefix_len)).collect();
    // With another prefix length the kernel takes an address of IPv6 for the one that is there.
    for (ip, bits) in held.difference(&wanted).filter(|(ip, _)| !is_link_local(*ip)) {
        netlink.address_remove(device.index, *ip, *bits).await?;
    }
    let new: Vec<_> = wanted.difference(&held).collect();
    for (ip, bits) in &new {
        netlink.address_add(device.index, *ip, *bits).await?;
    }
    if !device.is_up {
        netlink.set_up(device.index).await?;
    }
    Ok(new.into_iter().map(|(ip, _)| *ip).collect())
}

/// Addresses of a NIC, each with the length of its prefix. VIPs have none: their network is reached
/// by the NIC's own.
fn addresses(nic: &Nic) -> BTreeSet<(IpAddr, u8)> {
    let own = nic.addresses.iter().map(|own| (own.addr(), own.prefix_len()));
    let known: BTreeSet<IpAddr> = nic.addresses.iter().map(IpNet::addr).collect();
    let vips = nic.vips.iter().filter(|vip| !known.contains(*vip));
    let vips = vips.map(|vip| (*vip, if vip.is_ipv4() { 32 } else { 128 }));
    own.chain(vips).collect()
}

/// The kernel's own of each device.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

async fn routes(
    netlink: &Netlink,
    desired: &Desired,
    (devices, problems): (&BTreeMap<Mac, LinkInfo>, &mut Problems),
) -> Result<(), Error> {
    let mut wanted = BTreeSet::new();
    for gateway in &desired.gateways {
        let on = |nic: &&Nic| nic.addresses.iter().any(|own| own.contains(gateway));
        let nic = desired.nics.iter().find(on);
        match nic.and_then(|nic| devices.get(&nic.mac)) {
            Some(device) => {
                wanted.insert((device.index, *gateway));
            }
            None => problems.note(Service::Network, gateway, "this gateway is on no network"),
        }
    }
    for route in netlink.default_routes().await? {
        let is_wanted = wanted.contains(&(route.index, route.gateway)) && route.metric == METRIC;
        if !is_wanted && wanted.iter().all(|(_, by)| by.is_ipv4() != route.gateway.is_ipv4()) {
            netlink.route_remove_default(route.index, route.gateway, route.metric).await?;
        }
    }
    // Replaces the one that is there, without a moment in between.
    for (index, gateway) in wanted {
        netlink.route_add_default(index, gateway, METRIC).await?;
    }
    Ok(())
}
