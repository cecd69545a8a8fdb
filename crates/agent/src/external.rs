//! Ports that are plugged into devices of the host that something else makes: which of the devices
//! can be used, and why others cannot.
//!
//! Such a device stays its owner's. Netloom neither makes nor deletes it, and changes neither its
//! name nor its MTU nor whether it is up: it only puts programs on it, and takes them off again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use compute::FarEnd;
use hostnet::Netlink;
use uuid::Uuid;

use crate::{
    host,
    kernel::{Candidate, Plug},
};

/// What a port is to be plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name of the device.
    pub device: String,
    /// The largest packet that the port gets, in bytes.
    pub mtu_bytes: u32,
}

/// What can be plugged in, and what cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// By port.
    pub plugs: BTreeMap<Uuid, Plug>,
    /// Ports whose device cannot be used, with the reason and the remedy.
    pub refused: BTreeMap<Uuid, String>,
}

/// Says which ports can be plugged in. `ways` are devices by which
/// tunnels leave or that lead into physical networks.
#[must_use]
pub fn judge(
    wanted: &BTreeMap<Uuid, Wanted>,
    seen: &BTreeMap<String, Candidate>,
    ways: &BTreeSet<u32>,
) -> Judged {
    let mut judged = Judged::default();
    for (port, wanted) in wanted {
        match usable(wanted, seen.get(&wanted.device), ways) {
            Ok(plug) => _ = judged.plugs.insert(*port, plug),
            Err(reason) => _ = judged.refused.insert(*port, reason),
        }
    }
    judged
}

fn usable(
    wanted: &Wanted,
    device: Option<&Candidate>,
    ways: &BTreeSet<u32>,
) -> Result<Plug, String> {
    let name = &wanted.device;
    let Some(device) = device else {
        return Err(format!(
            "the host has no device {name}: its owner has to make it (`ip tuntap add {name} mode tap`, \
             a container runtime, libvirt), or UnplugVmNic and PlugVmNic with one that there is"
        ));
    };
    let why = if device.is_ours {
        "is netloom's own: UnplugVmNic, and PlugVmNic with a device that something else made".into()
    } else if ways.contains(&device.plug.ifindex) {
        "leads to other hosts: UnplugVmNic, and PlugVmNic with a device of its own".into()
    } else if let Some(controller) = &device.controller {
        format!("belongs to {controller}: take it out (`ip link set {name} nomaster`)")
    } else if let Some(address) = device.addresses.first() {
        format!("has address {address} of the host: take it away (`ip address flush dev {name}`)")
    } else if !device.is_ethernet {
        "is no Ethernet device: UnplugVmNic, and PlugVmNic with one that is (a tap, not a tun)"
            .into()
    } else if device.mtu_bytes < wanted.mtu_bytes {
        format!(
            "has an MTU of {} bytes, and packets to it have up to {mtu}: `ip link set {name} mtu {mtu}`",
            device.mtu_bytes,
            mtu = wanted.mtu_bytes
        )
    } else {
        return Ok(device.plug);
    };
    Err(format!("device {name} {why}"))
}

/// Looks for devices of these names, in the network namespace of this process.
pub(crate) async fn find(
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Candidate>, hostnet::Error> {
    let mut found = BTreeMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    let netlink = Netlink::current().await?;
    let mut addresses = netlink.addresses_by_link().await?;
    for name in names {
        let Some(link) = netlink.link_by_name(name).await? else { continue };
        let controller = match link.controller {
            Some(index) => netlink.link_by_index(index).await?.map(|controller| controller.name),
            None => None,
        };
        let addresses = addresses.remove(&link.index).unwrap_or_default();
        let addresses = addresses.into_iter().filter(|ip| !is_automatic(*ip)).collect();
        let device = Candidate {
            plug: Plug { ifindex: link.index, far_end: FarEnd::of(&link) },
            mtu_bytes: link.mtu_bytes,
            is_ethernet: link.is_ethernet,
            is_ours: host::is_ours(&link.name),
            controller,
            addresses,
        };
        // An alternative name is not the device's: it would be there twice.
        if link.name == *name {
            found.insert(link.name, device);
        }
    }
    Ok(found)
}

/// Whether the kernel gives each device such an address, of which nobody makes use.
fn is_automatic(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::uuid;

    fn tap() -> Candidate {
        Candidate {
            plug: Plug { ifindex: 7, far_end: FarEnd::Here },
            mtu_bytes: 1450,
            is_ethernet: true,
            is_ours: false,
            controller: None,
            addresses: Vec::new(),
        }
    }

    /// What becomes of a port that is to be plugged into `vnet0`.
    fn told(device: Option<Candidate>) -> Result<Plug, String> {
        let wanted = Wanted { device: "vnet0".to_owned(), mtu_bytes: 1450 };
        let seen = device.map(|device| ("vnet0".to_owned(), device)).into_iter().collect();
        let mut judged = judge(&[(uuid(1), wanted)].into(), &seen, &[3].into());
        match (judged.plugs.remove(&uuid(1)), judged.refused.remove(&uuid(1))) {
            (Some(plug), None) => Ok(plug),
            (None, Some(reason)) => Err(reason),
            both => panic!("{both:?}"),
        }
    }

    #[test]
    fn a_device_of_somebody_else_is_used_as_it_is() {
        assert_eq!(told(Some(tap())), Ok(tap().plug));
        assert_eq!(told(Some(Candidate { mtu_bytes: 9000, ..tap() })), Ok(tap().plug));
        assert!(
            is_automatic("fe80::1".parse().unwrap()) && !is_automatic("fd00::1".parse().unwrap())
        );
    }

    #[test]
    fn a_device_that_cannot_be_used_is_told_with_the_remedy() {
        let says = |device: Option<Candidate>, what: &str| {
            let reason = told(device).unwrap_err();
            assert!(reason.contains(what) && reason.contains("vnet0"), "{reason}");
        };
        says(None, "ip tuntap add vnet0 mode tap");
        says(Some(Candidate { is_ours: true, ..tap() }), "is netloom's own");
        let plug = Plug { ifindex: 3, ..tap().plug };
        says(Some(Candidate { plug, ..tap() }), "leads to other hosts");
        let controller = Some("br0".to_owned());
        says(
            Some(Candidate { controller, ..tap() }),
            "belongs to br0: take it out (`ip link set vnet0",
        );
        let addresses = vec![[192, 0, 2, 1].into()];
        says(Some(Candidate { addresses, ..tap() }), "has address 192.0.2.1");
        says(Some(Candidate { is_ethernet: false, ..tap() }), "is no Ethernet device");
        says(Some(Candidate { mtu_bytes: 1400, ..tap() }), "ip link set vnet0 mtu 1450");
    }
}
