//! What a driver is asked for, and what it finds.

use std::{collections::HashSet, net::IpAddr};

use hostnet::{Kind, LinkInfo};
use uuid::Uuid;

use crate::Error;

/// An instance as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceSpec {
    /// Names the instance for good.
    pub uuid: Uuid,
    /// For people; may change and is nowhere unique.
    pub name: String,
    /// How often it was made anew. One that is there with another number is removed first.
    pub generation: u32,
    /// The NICs; of those with a gateway the first carries the default route.
    pub nics: Vec<NicSpec>,
}

/// A NIC of an instance as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NicSpec {
    /// Names the NIC for good.
    pub uuid: Uuid,
    /// The device inside the instance, such as `eth0`; 1 to 15 bytes, unique in the instance.
    pub device: String,
    /// The hardware address inside the instance.
    pub mac: [u8; 6],
    /// The MTU, in bytes without the Ethernet header.
    pub mtu_bytes: u32,
    /// Addresses with their prefix lengths. Empty where the guest gets its own, by DHCP.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default gateways, at most one per address family; they may lie outside of every prefix.
    pub gateways: Vec<IpAddr>,
}

/// Where the other end of a NIC's host device is, and so how frames get there.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FarEnd {
    /// In another network namespace, as that of a veth: frames may be put there at once.
    Elsewhere,
    /// In the host's own, or in no namespace, as with a tap: frames leave through the host's device.
    #[default]
    Here,
}

impl FarEnd {
    /// That of a link of the host.
    #[must_use]
    pub fn of(link: &LinkInfo) -> Self {
        match (&link.kind, link.peer_namespace_id) {
            (Kind::Veth, Some(_)) => Self::Elsewhere,
            _ => Self::Here,
        }
    }
}

/// The host's side of a NIC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prepared {
    /// The NIC.
    pub nic: Uuid,
    /// The index of the host's device. A NIC that had to be made anew has another one.
    pub host_ifindex: u32,
    /// The name of the host's device.
    pub host_device: String,
    /// Where its other end is.
    pub far_end: FarEnd,
}

/// An instance that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The instance.
    pub instance: Uuid,
    /// Its NICs, sorted. A NIC that a crash left half made is missing until the next `prepare`.
    pub nics: Vec<FoundNic>,
}

/// A NIC of an instance that runs.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FoundNic {
    /// The NIC.
    pub nic: Uuid,
    /// The index of the host's device.
    pub host_ifindex: u32,
    /// Whether the host's side is up.
    pub up: bool,
    /// Where its other end is.
    pub far_end: FarEnd,
}

impl InstanceSpec {
    /// Checks what the kernel would refuse half way through, or what would be ambiguous.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`], naming the NIC and the rule.
    pub fn check(&self) -> Result<(), Error> {
        let (mut uuids, mut devices) = (HashSet::new(), HashSet::new());
        for nic in &self.nics {
            let invalid =
                |rule| Err(Error::InvalidSpec { instance: self.uuid, nic: nic.uuid, rule });
            if !uuids.insert(nic.uuid) {
                return invalid("its uuid is there twice");
            }
            if !devices.insert(nic.device.as_str()) {
                return invalid("its device name is there twice");
            }
            if !is_device_name(&nic.device) {
                return invalid("its device name is not 1 to 15 bytes without '/', ':' and spaces");
            }
            if nic.mac[0] & 1 != 0 || nic.mac == [0; 6] {
                return invalid("its MAC is zero or a multicast address");
            }
            if nic.addresses.iter().any(|(ip, prefix_len)| *prefix_len > bits(*ip)) {
                return invalid("a prefix is longer than its address");
            }
            let v4_gateways = nic.gateways.iter().filter(|ip| ip.is_ipv4()).count();
            if v4_gateways > 1 || nic.gateways.len() - v4_gateways > 1 {
                return invalid("it has more than one gateway per address family");
            }
        }
        Ok(())
    }
}

fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// As `dev_valid_name` of the kernel; `lo` is never ours.
fn is_device_name(name: &str) -> bool {
    let is_plain = |byte: u8| !byte.is_ascii_whitespace() && byte != b'/' && byte != b':';
    (1..=15).contains(&name.len())
        && !matches!(name, "." | ".." | "lo")
        && !name.contains('\0')
        && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(device: &str) -> NicSpec {
        NicSpec {
            uuid: Uuid::new_v4(),
            device: device.to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1450,
            addresses: vec![("10.0.0.2".parse().unwrap(), 24)],
            gateways: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn check(nics: Vec<NicSpec>) -> Result<(), Error> {
        InstanceSpec { uuid: Uuid::new_v4(), name: "vm".to_owned(), generation: 0, nics }.check()
    }

    #[test]
    fn a_sound_spec_passes() {
        check(vec![nic("eth0"), nic("eth1")]).unwrap();
    }

    #[test]
    fn a_bad_spec_is_refused_by_rule() {
        check(vec![nic("eth0"), nic("eth0")]).unwrap_err();
        check(vec![nic("a-very-long-name")]).unwrap_err();
        check(vec![nic("lo")]).unwrap_err();
        check(vec![NicSpec { mac: [1, 0, 0, 0, 0, 1], ..nic("eth0") }]).unwrap_err();
        let address = ("10.0.0.2".parse().unwrap(), 33);
        check(vec![NicSpec { addresses: vec![address], ..nic("eth0") }]).unwrap_err();
        let gateways = vec!["10.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap()];
        check(vec![NicSpec { gateways, ..nic("eth0") }]).unwrap_err();
    }
}
