//! The baselines' networks: namespaces of the benchmark's own, and devices in them.
//!
//! All names start with `nlb-<pid>-`; what a killed run has left goes with the next one.

use std::{net::IpAddr, path::Path, process};

use hostnet::{Arp, Namespace, VethSpec};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan, packet_route::link::LinkAttribute};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::Failure;

/// MTU of everything inside VMs: what VXLAN leaves of 1,500 bytes.
pub(crate) const MTU_BYTES: u32 = 1450;
/// MTU of the wire between hosts, as in netloom's lab.
pub(crate) const UNDERLAY_MTU_BYTES: u32 = 1600;
/// The device of a VM, as in netloom's namespaces.
pub(crate) const VM_DEVICE: &str = "eth0";

const PREFIX: &str = "nlb-";
/// The loopback is the first device of every namespace.
const LOOPBACK: u32 = 1;
const VXLAN_PORT: u16 = 4789;
const VXLAN_ID: u32 = 100;

/// A place for namespaces, which go when it is dropped.
pub(crate) struct Site {
    runtime: Runtime,
    /// Names, not handles: a handle would keep what was removed alive.
    namespaces: Vec<String>,
    macs: u8,
}

/// One end of a cable.
pub(crate) type End<'a> = (&'a Namespace, &'a str);

impl Site {
    /// An empty one.
    pub(crate) fn new() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, namespaces: Vec::new(), macs: 0 })
    }

    /// A new namespace with its loopback up.
    pub(crate) fn namespace(&mut self, name: &str) -> Result<Namespace, Failure> {
        let namespace = Namespace::create(&format!("{PREFIX}{}-{name}", process::id()))?;
        self.namespaces.push(namespace.name().to_owned());
        self.runtime.block_on(async { namespace.netlink().await?.set_up(LOOPBACK).await })?;
        Ok(namespace)
    }

    /// A veth between two namespaces, both ends up.
    pub(crate) fn cable(&mut self, one: End<'_>, other: End<'_>, mtu: u32) -> Result<(), Failure> {
        let (mac, peer_mac) = (self.mac(), self.mac());
        let spec = VethSpec {
            name: one.1,
            mac,
            arp: Arp::On,
            peer_namespace: other.0,
            peer_name: other.1,
            peer_mac,
            mtu_bytes: mtu,
        };
        self.runtime.block_on(async {
            let near = one.0.netlink().await?;
            near.set_up(near.create_veth(&spec).await?.index).await?;
            let far = other.0.netlink().await?;
            far.set_up(far.existing(other.1).await?.index).await?;
            Ok(())
        })
    }

    /// Locally administered, and never given out twice as long as a site has few devices.
    fn mac(&mut self) -> [u8; 6] {
        self.macs = self.macs.wrapping_add(1);
        [0x02, b'n', b'l', b'b', 0, self.macs]
    }

    /// A bridge with these ports.
    pub(crate) fn bridge(
        &self,
        namespace: &Namespace,
        ports: &[&str],
        mtu: u32,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let bridge = netlink.create_bridge("br0").await?;
            for port in ports {
                let port = netlink.existing(port).await?;
                netlink.set_controller(port.index, bridge.index).await?;
            }
            netlink.set_mtu(bridge.index, mtu).await?;
            Ok(netlink.set_up(bridge.index).await?)
        })
    }

    /// Gives a device an address.
    pub(crate) fn address(
        &self,
        (namespace, device): End<'_>,
        ip: impl Into<IpAddr>,
        prefix_len: u8,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let device = netlink.existing(device).await?;
            Ok(netlink.address_add(device.index, ip.into(), prefix_len).await?)
        })
    }

    /// Sends everything else to a router behind a device.
    pub(crate) fn gateway(
        &self,
        (namespace, device): End<'_>,
        gateway: impl Into<IpAddr>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let device = netlink.existing(device).await?;
            Ok(netlink.route_add_default(device.index, gateway.into(), 1).await?)
        })
    }

    /// A kernel VXLAN device `vx` with one other VTEP, up.
    pub(crate) fn vxlan(
        &self,
        namespace: &Namespace,
        local: std::net::Ipv4Addr,
        remote: std::net::Ipv4Addr,
    ) -> Result<(), Failure> {
        let device = LinkVxlan::new("vx", VXLAN_ID).local(local).remote(remote).port(VXLAN_PORT);
        let device = device.mtu(MTU_BYTES).up().build();
        netlink(namespace, async |handle| handle.link().add(device).execute().await)
    }

    /// Deletes a device at once, with its other end if it is a cable.
    pub(crate) fn delete_device(&self, (namespace, device): End<'_>) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let device = netlink.existing(device).await?;
            Ok(netlink.delete_link(device.index).await?)
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for name in &self.namespaces {
            if let Err(error) = Namespace::remove(name) {
                eprintln!("{name} stays behind: {error}");
            }
        }
    }
}

/// How many segments a VM's TCP may hand to its device at once (IFLA_GSO_MAX_SEGS): 1 turns
/// segmentation offload off, so that each packet takes the whole way by itself.
pub(crate) fn limit_gso(namespace: &Namespace, segments: u32) -> Result<(), Failure> {
    let device = LinkUnspec::new_with_name(VM_DEVICE);
    let device = device.append_extra_attribute(LinkAttribute::GsoMaxSegs(segments)).build();
    netlink(namespace, async |handle| handle.link().set(device).execute().await)
}

/// What `hostnet` has no call for, because netloom never needs it.
fn netlink(
    namespace: &Namespace,
    work: impl AsyncFnOnce(Handle) -> Result<(), rtnetlink::Error> + Send,
) -> Result<(), Failure> {
    let done = namespace.run_in(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(|error| error.to_string())?;
            let mut serving = JoinSet::new();
            serving.spawn(connection);
            work(handle).await.map_err(|error| error.to_string())
        })
    })?;
    done.map_err(Into::into)
}

/// Removes what runs that are gone have left.
pub(crate) fn sweep() -> Result<(), Failure> {
    for name in Namespace::list(PREFIX)? {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(is_gone) {
            Namespace::remove(&name)?;
        }
    }
    Ok(())
}

/// Whether there is no process of this number.
pub(crate) fn is_gone(pid: &str) -> bool {
    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
}
