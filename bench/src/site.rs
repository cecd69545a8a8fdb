//! The baselines' networks: namespaces of the benchmark's own, and devices in them.
//!
//! All names start with `nlb-<pid>-`; what a killed run has left goes with the next one.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    path::Path,
    process::{self, Child, Command, Stdio},
};

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
/// What bridges are called.
pub(crate) const BRIDGE: &str = "br0";
/// Copies frames between a tap of a host and one of a guest, as a hypervisor does.
const RELAY: &str = include_str!("../../tests/src/relay.py");
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
    relays: Vec<Child>,
}

/// One end of a cable.
pub(crate) type End<'a> = (&'a Namespace, &'a str);

impl Site {
    /// An empty one.
    pub(crate) fn new() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, namespaces: Vec::new(), macs: 0, relays: Vec::new() })
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

    /// A tap of a host with a guest behind it, both up; as long as the site is there.
    pub(crate) fn tap(&mut self, host: End<'_>, guest: &Namespace) -> Result<(), Failure> {
        let mut command = Command::new("python3");
        command.args(["-c", RELAY, host.1, &format!("/run/netns/{}", guest.name()), VM_DEVICE]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut relay = host.0.run_in(|| command.spawn())??;
        let said = relay.stdout.take().map(BufReader::new);
        self.relays.push(relay);
        let mut line = String::new();
        said.ok_or("a relay without output")?.read_line(&mut line)?;
        if line != "ready\n" {
            return Err(format!("the relay of {} did not start", host.1).into());
        }
        for end in [host, (guest, VM_DEVICE)] {
            self.mtu(end, MTU_BYTES)?;
            self.up(end)?;
        }
        Ok(())
    }

    /// Sets a device's MTU.
    pub(crate) fn mtu(&self, (namespace, device): End<'_>, mtu: u32) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let device = netlink.existing(device).await?;
            Ok(netlink.set_mtu(device.index, mtu).await?)
        })
    }

    /// Puts a device up.
    pub(crate) fn up(&self, (namespace, device): End<'_>) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let device = netlink.existing(device).await?;
            Ok(netlink.set_up(device.index).await?)
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
            let bridge = netlink.create_bridge(BRIDGE).await?;
            for port in ports {
                let port = netlink.existing(port).await?;
                netlink.set_controller(port.index, bridge.index).await?;
            }
            netlink.set_mtu(bridge.index, mtu).await?;
            Ok(netlink.set_up(bridge.index).await?)
        })
    }

    /// Makes a device a port of the bridge.
    pub(crate) fn join_bridge(&self, (namespace, port): End<'_>) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let (port, bridge) = (netlink.existing(port).await?, netlink.existing(BRIDGE).await?);
            Ok(netlink.set_controller(port.index, bridge.index).await?)
        })
    }

    /// Takes a device off the bridge.
    pub(crate) fn leave_bridge(&self, (namespace, port): End<'_>) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let netlink = namespace.netlink().await?;
            let port = netlink.existing(port).await?;
            Ok(netlink.set_controller(port.index, 0).await?)
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
        for relay in &mut self.relays {
            // It ends when its input does, and takes its taps along.
            drop(relay.stdin.take());
            if let Err(error) = relay.wait() {
                eprintln!("a relay stays behind: {error}");
            }
        }
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

/// Gives a device a MAC, written with colons.
pub(crate) fn set_mac((namespace, device): End<'_>, mac: &str) -> Result<(), Failure> {
    let bytes: Result<Vec<u8>, _> =
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let device = LinkUnspec::new_with_name(device).address(bytes?).build();
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
