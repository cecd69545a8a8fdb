//! What a driver is asked for, and what it finds.

use std::{
    collections::HashSet,
    net::IpAddr,
    path::{Component, Path},
};

use hostnet::{Kind, LinkInfo};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;

/// An instance as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceSpec {
    /// Names the instance for good.
    pub uuid: Uuid,
    /// For people; may change and is nowhere unique.
    pub name: String,
    /// How often it was made anew. One that is there with another number is removed first, or, if
    /// it is a machine, starts anew.
    pub generation: u32,
    /// The machine that it is; `None`: it is nothing but its network.
    pub machine: Option<Machine>,
    /// A machine that stands still, and goes on where it stood.
    pub is_paused: bool,
    /// Whether it is a machine that is on its way from one host to another.
    pub journey: Journey,
    /// The NICs; of those with a gateway the first carries the default route.
    pub nics: Vec<NicSpec>,
}

/// Whether a machine is on its way from one host to another.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Journey {
    /// It is here, and stays.
    #[default]
    Stays,
    /// It goes from here to another host.
    Goes,
    /// It comes from another host, and does not run here before it has its memory from there.
    Comes,
}

/// A machine with processors of its own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// Its processors, at least one.
    pub cpus: u32,
    /// Its memory, in MiB, at least one.
    pub memory_mib: u32,
    /// What it starts from: the way to a file or directory, below the directory of the host that has
    /// images.
    pub image: String,
    /// What that is.
    pub format: ImageFormat,
}

/// What a machine starts from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ImageFormat {
    /// A disk, byte by byte.
    Raw,
    /// A disk in QEMU's own format.
    Qcow2,
    /// A directory that has a kernel `vmlinuz`, its `initrd`, and `cmdline` if it has to be told more
    /// than which console it has.
    Kernel,
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
    /// Addresses with their prefix lengths. Those that the guest gets by itself are not among them.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Addresses that the guest gets by itself, by DHCP and router solicitations: one that has no software
    /// of its own needs a client for them.
    pub asks_for: Vec<IpAddr>,
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
        if let Some(machine) = &self.machine {
            machine.check(self.uuid)?;
        }
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

impl Machine {
    fn check(&self, instance: Uuid) -> Result<(), Error> {
        let invalid = |rule| Err(Error::InvalidMachine { instance, rule });
        if self.cpus == 0 || self.memory_mib == 0 {
            return invalid("it has no processor or no memory");
        }
        let mut parts = Path::new(&self.image).components();
        // Whoever may name an image must not name any other file of the host.
        if self.image.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            return invalid("its image is not below the directory of the host that has images");
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
            asks_for: Vec::new(),
            gateways: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn check(nics: Vec<NicSpec>) -> Result<(), Error> {
        spec(None, nics).check()
    }

    fn spec(machine: Option<Machine>, nics: Vec<NicSpec>) -> InstanceSpec {
        let (uuid, name) = (Uuid::new_v4(), "vm".to_owned());
        let journey = Journey::Stays;
        InstanceSpec { uuid, name, generation: 0, machine, is_paused: false, journey, nics }
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

    #[test]
    fn an_image_lies_below_the_directory_of_images() {
        let check = |image: &str| {
            let (image, format) = (image.to_owned(), ImageFormat::Raw);
            spec(Some(Machine { cpus: 1, memory_mib: 128, image, format }), Vec::new()).check()
        };
        check("debian.img").unwrap();
        check("debian/12.img").unwrap();
        for other in ["", "/etc/shadow", "../agent.key", "a/../../b", "./a"] {
            check(other).unwrap_err();
        }
    }
}
