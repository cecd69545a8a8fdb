//! The veth of a NIC, and its end on the host.
//!
//! The host's own stack must not talk on that end: no ARP, no IPv6, no address.

use hostnet::{Arp, Error as HostError, Kind, LinkInfo, Netlink, VethSpec};
use uuid::Uuid;

use super::{blocking, host_device_name, nic_of};
use crate::{Error, NicSpec};

/// Deletes each NIC of the instance that is not in `wanted`, or is there under another device.
///
/// Also finds ends that a crash left without alias. A veth that a guest made is left alone.
pub(super) async fn remove_unwanted(
    host: &Netlink,
    inside: &Netlink,
    wanted: &[NicSpec],
) -> Result<(), Error> {
    for link in inside.links().await? {
        let Some(end) = inside.veth_peer(&link, host).await? else { continue };
        let is_wanted = wanted
            .iter()
            .any(|nic| nic.device == link.name && host_device_name(nic.uuid) == end.name);
        if !is_wanted && is_host_end(&end) {
            host.delete_link(end.index).await?;
        }
    }
    Ok(())
}

/// Makes the veth of a NIC, with the host's end down, or completes the one that is there.
pub(super) async fn ensure(
    host: &Netlink,
    inside: &Netlink,
    nic: &NicSpec,
) -> Result<LinkInfo, Error> {
    let name = host_device_name(nic.uuid);
    let spec = VethSpec {
        name: &name,
        mac: host_mac(nic.uuid),
        arp: Arp::Off,
        peer_namespace: inside.namespace(),
        peer_name: &nic.device,
        peer_mac: nic.mac,
        mtu_bytes: nic.mtu_bytes,
    };
    if let Some(found) = host.link_by_name(&name).await? {
        check_owner(&found, nic.uuid)?;
    }
    let link = match host.create_veth(&spec).await {
        Err(HostError::Mismatch { .. }) => {
            // It is ours by name and alias, but has another MAC, or its peer is elsewhere.
            let found = host.existing(&name).await?;
            tracing::info!(nic = %nic.uuid, device = name, "nic is made anew");
            host.delete_link(found.index).await?;
            host.create_veth(&spec).await?
        }
        done => done?,
    };
    silence(host, &link).await?;
    if nic_of(&link).is_none() {
        // Comes last: it says that the end is complete.
        host.set_alias(link.index, &nic.uuid.to_string()).await?;
    }
    Ok(link)
}

fn check_owner(link: &LinkInfo, nic: Uuid) -> Result<(), Error> {
    let is_ours = link.kind == Kind::Veth
        && link.alias.as_deref().is_none_or(|alias| Uuid::try_parse(alias) == Ok(nic));
    if is_ours {
        return Ok(());
    }
    let owner = link.alias.clone().unwrap_or_else(|| format!("a device of {}", link.kind));
    Err(Error::Taken { nic, device: link.name.clone(), owner })
}

/// Keeps the host's stack off the end, before it is ever up.
pub(crate) async fn silence(host: &Netlink, link: &LinkInfo) -> Result<(), Error> {
    if !link.is_addr_gen_none {
        host.set_addr_gen_mode_none(link.index).await?;
    }
    let settings = [
        // With ARP off these two say it again: 8 answers for no address at all, 2 asks only with
        // an address of the link, and it has none.
        (format!("net/ipv4/conf/{}/arp_ignore", link.name), "8"),
        (format!("net/ipv4/conf/{}/arp_announce", link.name), "2"),
        (format!("net/ipv6/conf/{}/disable_ipv6", link.name), "1"),
    ];
    let namespace = host.namespace().clone();
    blocking(move || namespace.sysctls(&settings)).await
}

/// The host's end needs an address that is no VM's: locally administered, derived from the NIC.
pub(super) fn host_mac(nic: Uuid) -> [u8; 6] {
    let [.., b, c, d, e, f] = *nic.as_bytes();
    [0xfe, b, c, d, e, f]
}

/// Whether a device is a host's end: complete or not, also one that somebody has renamed.
pub(super) fn is_host_end(link: &LinkInfo) -> bool {
    let has_our_alias = link.alias.as_deref().is_some_and(|alias| Uuid::try_parse(alias).is_ok());
    link.kind == Kind::Veth && (is_host_device_name(&link.name) || has_our_alias)
}

/// Whether a device is named like one that the driver makes, for a NIC or for a spare.
pub(crate) fn is_host_device_name(name: &str) -> bool {
    name.strip_prefix("nl").is_some_and(|rest| are_digits(rest.strip_prefix('s').unwrap_or(rest)))
}

/// Whether this is how names end: twelve lower-case hexadecimal digits.
pub(super) fn are_digits(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 12 && text.bytes().all(is_digit)
}
