//! The inside of an instance, as a guest's own start-up would set it up.
//!
//! Only what the spec names is kept in its state. All else belongs to the guest: settings are
//! given once, before a device is up for the first time, and addresses and routes that a guest
//! made by itself stay.

use std::net::IpAddr;

use hostnet::{Address, DefaultRoute, Netlink, Origin};

use super::blocking;
use crate::{Error, NicSpec};

/// The index of the loopback device, in every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// How the loopback's alias begins that says how often the instance was made anew.
const NOTE: &str = "netloom generation ";

/// Whether a namespace was made as the instance is now, not before it was last made anew. What a
/// guest wrote in the place of the note counts for nothing.
pub(super) async fn is_of(inside: &Netlink, generation: u32) -> Result<bool, Error> {
    let loopback = inside.link_by_index(LOOPBACK).await?;
    let alias = loopback.and_then(|loopback| loopback.alias).unwrap_or_default();
    let noted = alias.strip_prefix(NOTE).and_then(|noted| noted.parse::<u32>().ok());
    Ok(noted.unwrap_or(0) == generation)
}

/// Notes on a new namespace how often its instance was made anew. The first time needs no note.
pub(super) async fn note(inside: &Netlink, generation: u32) -> Result<(), Error> {
    match generation {
        0 => Ok(()),
        again => Ok(inside.set_alias(LOOPBACK, &format!("{NOTE}{again}")).await?),
    }
}

/// Sets up a new namespace; one in which the loopback is up is done.
pub(super) async fn start(inside: &Netlink) -> Result<(), Error> {
    // By its index: a guest may have renamed it.
    let Some(loopback) = inside.link_by_index(LOOPBACK).await? else { return Ok(()) };
    if loopback.is_up {
        return Ok(());
    }
    // IPv4 settings come from the host, which may well be a router.
    let settings = [("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "0")];
    let namespace = inside.namespace().clone();
    blocking(move || namespace.sysctls(&settings)).await?;
    Ok(inside.set_up(loopback.index).await?)
}

/// Gives the inside end of a NIC its addresses and routes, and puts it up.
pub(super) async fn configure(inside: &Netlink, nic: &NicSpec, metric: u32) -> Result<(), Error> {
    let link = inside.existing(&nic.device).await?;
    if !link.is_up {
        silence(inside, &nic.device).await?;
    }
    converge_addresses(inside, link.index, &nic.addresses).await?;
    if !link.is_up {
        inside.set_up(link.index).await?;
    }
    converge_routes(inside, link.index, &nic.gateways, metric).await
}

/// Keeps IPv6 from taking addresses of its own on an end that has never been up.
pub(super) async fn silence(inside: &Netlink, device: &str) -> Result<(), Error> {
    let settings = [
        (format!("net/ipv6/conf/{device}/disable_ipv6"), "0"),
        // The control plane gives each address once. With detection on, an address is not
        // usable for a second or more.
        (format!("net/ipv6/conf/{device}/accept_dad"), "0"),
        // Addresses and gateways are those of the spec.
        (format!("net/ipv6/conf/{device}/accept_ra"), "0"),
    ];
    let namespace = inside.namespace().clone();
    blocking(move || namespace.sysctls(&settings)).await
}

async fn converge_addresses(
    inside: &Netlink,
    index: u32,
    wanted: &[(IpAddr, u8)],
) -> Result<(), Error> {
    let mut found = inside.addresses(index).await?;
    let unwanted: Vec<_> = found.iter().filter(|it| is_unwanted(it, wanted)).copied().collect();
    for address in &unwanted {
        inside.address_remove(index, address.ip, address.prefix_len).await?;
    }
    if !unwanted.is_empty() {
        // With the first IPv4 address of a prefix the kernel removes the others of it.
        found = inside.addresses(index).await?;
    }
    for (ip, prefix_len) in wanted {
        if !found.iter().any(|it| (it.ip, it.prefix_len) == (*ip, *prefix_len)) {
            inside.address_add(index, *ip, *prefix_len).await?;
        }
    }
    Ok(())
}

/// Ours and no longer in the spec, or in the way of one in the spec, with another prefix.
fn is_unwanted(found: &Address, wanted: &[(IpAddr, u8)]) -> bool {
    match wanted.iter().find(|(ip, _)| *ip == found.ip) {
        Some((_, prefix_len)) => *prefix_len != found.prefix_len,
        None => found.origin == Origin::Netloom,
    }
}

async fn converge_routes(
    inside: &Netlink,
    index: u32,
    gateways: &[IpAddr],
    metric: u32,
) -> Result<(), Error> {
    let is_wanted = |it: &DefaultRoute| gateways.contains(&it.gateway) && it.metric == metric;
    let found: Vec<_> =
        inside.default_routes().await?.into_iter().filter(|it| it.index == index).collect();
    for gateway in gateways {
        if !found.iter().any(|it| it.gateway == *gateway && is_wanted(it)) {
            inside.route_add_default(index, *gateway, metric).await?;
        }
    }
    for route in found.iter().filter(|it| it.origin == Origin::Netloom && !is_wanted(it)) {
        inside.route_remove_default(index, route.gateway, route.metric).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_addresses_and_those_in_the_way_go() {
        let ip: IpAddr = "10.0.0.2".parse().unwrap();
        let of = |prefix_len, origin| Address { ip, prefix_len, origin };
        let check = |found, wanted: &[(IpAddr, u8)], expected| {
            assert_eq!(is_unwanted(&found, wanted), expected, "{found:?} {wanted:?}");
        };
        check(of(24, Origin::Netloom), &[(ip, 24)], false);
        check(of(24, Origin::Foreign), &[(ip, 24)], false);
        check(of(16, Origin::Foreign), &[(ip, 24)], true);
        check(of(24, Origin::Netloom), &[], true);
        check(of(24, Origin::Foreign), &[], false);
    }
}
