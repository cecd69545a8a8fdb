//! The NICs of a machine: a virtio device inside, and a tap of the host that QEMU makes.

use std::collections::BTreeMap;

use hostnet::{Arp, LinkInfo, Netlink};
use serde_json::json;
use uuid::Uuid;

use super::{
    files::{Files, Plugged, Record},
    is_tap,
    qmp::Qmp,
};
use crate::{Error, NicSpec, host_device_name, netns};

/// The slots on the machine's PCI bus that are free for NICs: those below are the chipset's and the
/// disk's.
const SLOTS: std::ops::RangeInclusive<u32> = 4..=31;

/// Where QEMU lists what was plugged in.
const PERIPHERAL: &str = "/machine/peripheral";
/// What the names of NICs there start with.
const NIC: &str = "nic-";

/// Gives a machine the NICs that it is to have, and no others. Their taps, in the order of `wanted`;
/// new ones are down.
pub(super) async fn plug(
    host: &Netlink,
    qmp: &mut Qmp,
    (files, mut record): (&Files, Record),
    wanted: &[NicSpec],
) -> Result<Vec<LinkInfo>, Error> {
    let is_wanted = |plugged: &Plugged| {
        wanted.iter().any(|nic| nic.uuid == plugged.uuid && nic.mac == plugged.mac)
    };
    let (stay, go): (Vec<_>, Vec<_>) = record.nics.iter().copied().partition(is_wanted);
    for plugged in &go {
        unplug(qmp, plugged.uuid).await?;
    }
    record.nics = stay;
    for nic in wanted {
        if record.nics.iter().all(|plugged| plugged.uuid != nic.uuid) {
            record.nics.push(Plugged { uuid: nic.uuid, mac: nic.mac });
        }
    }
    // Before anything is plugged in: after a crash it is known whose each tap is.
    files.note(&record)?;
    let mut devices = devices(qmp).await?;
    let mut links = Vec::with_capacity(wanted.len());
    for nic in wanted {
        let found = host.link_by_name(&host_device_name(nic.uuid)).await?;
        if let Some(link) = &found {
            check_owner(link, nic.uuid)?;
        }
        if found.is_none() || !devices.contains_key(&device_id(nic.uuid)) {
            // What a crash left half done.
            unplug(qmp, nic.uuid).await?;
            // One that was taken out keeps its slot until the guest has let go of it.
            let is_free = |slot: &u32| devices.values().all(|taken| taken != slot);
            let slot = own_slot(nic).filter(is_free).or_else(|| SLOTS.into_iter().find(is_free));
            let slot = slot.ok_or(Error::NoSlot { nic: nic.uuid, max: SLOTS.count() })?;
            add(qmp, nic, slot).await?;
            devices.insert(device_id(nic.uuid), slot);
        }
        links.push(complete(host, nic).await?);
    }
    Ok(links)
}

/// The slot that a NIC gets if nobody has it, so that a machine looks the same on every host.
fn own_slot(nic: &NicSpec) -> Option<u32> {
    let position: u32 = nic.device.strip_prefix("eth")?.parse().ok()?;
    SLOTS.start().checked_add(position).filter(|slot| SLOTS.contains(slot))
}

/// The slots that a machine's NICs have.
pub(super) async fn slots(qmp: &mut Qmp) -> Result<BTreeMap<Uuid, u32>, Error> {
    let nic = |name: &str| Uuid::try_parse(name.strip_prefix(NIC)?).ok();
    let devices = devices(qmp).await?.into_iter();
    Ok(devices.filter_map(|(name, slot)| Some((nic(&name)?, slot))).collect())
}

/// The NICs that a machine has, by the names that they have there, and their slots.
async fn devices(qmp: &mut Qmp) -> Result<BTreeMap<String, u32>, Error> {
    let found = qmp.call("qom-list", json!({"path": PERIPHERAL})).await?;
    let names = found.as_array().into_iter().flatten().filter_map(|found| found["name"].as_str());
    let mut devices = BTreeMap::new();
    for name in names.filter(|name| name.starts_with(NIC)) {
        let path = format!("{PERIPHERAL}/{name}");
        let addr = qmp.call("qom-get", json!({"path": path, "property": "addr"})).await?;
        // The slot, and three bits for the function.
        let slot = addr.as_u64().and_then(|addr| u32::try_from(addr >> 3).ok());
        devices.insert(name.to_owned(), slot.unwrap_or_default());
    }
    Ok(devices)
}

async fn add(qmp: &mut Qmp, nic: &NicSpec, slot: u32) -> Result<(), Error> {
    let [a, b, c, d, e, f] = nic.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    // `vnet_hdr` is on unless it is refused: packets of any size and without checksums pass.
    let tap = json!({"type": "tap", "id": net_id(nic.uuid), "ifname": host_device_name(nic.uuid),
        "script": "no", "downscript": "no", "vnet_hdr": true});
    qmp.call("netdev_add", tap).await?;
    let device = json!({"driver": "virtio-net-pci", "id": device_id(nic.uuid),
        "netdev": net_id(nic.uuid), "mac": mac, "host_mtu": nic.mtu_bytes,
        "addr": format!("{slot:#x}"), "romfile": ""});
    qmp.call("device_add", device).await?;
    Ok(())
}

/// Takes a NIC out. The tap is gone at once; the guest lets go of the device when it gets to it.
pub(super) async fn unplug(qmp: &mut Qmp, nic: Uuid) -> Result<(), Error> {
    let device = qmp.call("device_del", json!({"id": device_id(nic)})).await;
    let tap = qmp.call("netdev_del", json!({"id": net_id(nic)})).await;
    if let (Err(no_device), Err(no_tap)) = (&device, &tap) {
        tracing::debug!(%nic, %no_device, %no_tap, "was not plugged in");
    }
    Ok(())
}

/// Makes a tap what the host's side of a NIC must be, before it is ever up.
async fn complete(host: &Netlink, nic: &NicSpec) -> Result<LinkInfo, Error> {
    let link = host.existing(&host_device_name(nic.uuid)).await?;
    if link.mtu_bytes != nic.mtu_bytes {
        host.set_mtu(link.index, nic.mtu_bytes).await?;
    }
    if !link.is_noarp {
        host.set_arp(link.index, Arp::Off).await?;
    }
    netns::silence(host, &link).await?;
    if link.alias.is_none() {
        // Comes last: it says that the tap is complete.
        host.set_alias(link.index, &nic.uuid.to_string()).await?;
    }
    Ok(link)
}

fn check_owner(link: &LinkInfo, nic: Uuid) -> Result<(), Error> {
    let of_nic = |alias: &str| Uuid::try_parse(alias) == Ok(nic);
    if is_tap(link) && link.alias.as_deref().is_none_or(of_nic) {
        return Ok(());
    }
    let owner = link.alias.clone().unwrap_or_else(|| format!("a device of {}", link.kind));
    Err(Error::Taken { nic, device: link.name.clone(), owner })
}

fn net_id(nic: Uuid) -> String {
    format!("net-{}", nic.simple())
}

fn device_id(nic: Uuid) -> String {
    format!("{NIC}{}", nic.simple())
}
