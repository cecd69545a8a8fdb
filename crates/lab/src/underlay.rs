//! The underlay: a namespace with a bridge, and one namespace for each host, joined by veths.
//!
//! Every lab uses the same addresses: their underlays are apart. The server's REST port is not on
//! the underlay, only the port that agents connect to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hostnet::{Arp, Namespace, Netlink, VethSpec};

use crate::{Error, names};

/// The network of every underlay.
pub(crate) const CIDR: &str = "172.31.255.0/24";
const PREFIX_LEN: u8 = 24;
/// The server's address in it.
const SERVER: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 1);
/// Where agents connect to the server.
const LINK_PORT: u16 = 7481;
/// The first host's last octet.
const FIRST_HOST: u8 = 11;
/// Hosts of a lab at most.
pub(crate) const HOSTS_MAX: usize = 128;
/// VXLAN over IPv4 adds 50 bytes: packets of 1,500 bytes would still fit.
const MTU_BYTES: u32 = 1600;
const BRIDGE: &str = "br0";
/// The underlay's device in each host.
const UPLINK: &str = "eth0";
/// The loopback is the first device of every namespace.
const LOOPBACK: u32 = 1;

/// Where agents reach the server.
pub(crate) fn server() -> SocketAddr {
    SocketAddr::from((SERVER, LINK_PORT))
}

/// The address of the host at this place of the list, counted from 0.
pub(crate) fn host_ip(index: usize) -> IpAddr {
    let offset = u8::try_from(index.min(HOSTS_MAX)).unwrap_or(u8::MAX - FIRST_HOST);
    IpAddr::V4(Ipv4Addr::new(172, 31, 255, FIRST_HOST + offset))
}

/// Makes what is missing; what is right is not touched.
pub(crate) fn ensure(lab: &str, hosts: &[String]) -> Result<(), Error> {
    runtime()?.block_on(async {
        let fabric = Namespace::create(&names::namespace(lab, names::FABRIC))?;
        let fabric = fabric.netlink().await?;
        let bridge = fabric.create_bridge(BRIDGE).await?;
        if bridge.mtu_bytes != MTU_BYTES {
            fabric.set_mtu(bridge.index, MTU_BYTES).await?;
        }
        fabric.address_add(bridge.index, SERVER.into(), PREFIX_LEN).await?;
        fabric.set_up(LOOPBACK).await?;
        fabric.set_up(bridge.index).await?;
        for (index, host) in hosts.iter().enumerate() {
            let namespace = Namespace::create(&names::namespace(lab, host))?;
            join(&fabric, bridge.index, &namespace, (host, index)).await?;
        }
        Ok(())
    })
}

async fn join(
    fabric: &Netlink,
    bridge: u32,
    namespace: &Namespace,
    (host, index): (&str, usize),
) -> Result<(), Error> {
    // Locally administered; the last byte is the host's.
    let mac = |side| [0x02, b'n', b'l', 0, side, u8::try_from(index).unwrap_or(u8::MAX)];
    let port = VethSpec {
        name: &format!("p-{host}"),
        mac: mac(0),
        arp: Arp::On,
        peer_namespace: namespace,
        peer_name: UPLINK,
        peer_mac: mac(1),
        mtu_bytes: MTU_BYTES,
    };
    let port = fabric.create_veth(&port).await?;
    if port.controller != Some(bridge) {
        fabric.set_controller(port.index, bridge).await?;
    }
    let inside = namespace.netlink().await?;
    let uplink = inside.existing(UPLINK).await?;
    inside.address_add(uplink.index, host_ip(index), PREFIX_LEN).await?;
    inside.set_up(LOOPBACK).await?;
    inside.set_up(uplink.index).await?;
    Ok(fabric.set_up(port.index).await?)
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::io("start a runtime", error))
}
