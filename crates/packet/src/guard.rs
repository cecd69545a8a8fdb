//! Stage 2, guard: a port speaks only with its own MAC and its own addresses, and a frame out of
//! a tunnel only with those of one station of its network. In an open network it may be somebody
//! whom nobody knows.
//!
//! A station may route for prefixes beside its own addresses: `prefix`.
//!
//! It runs before anything else looks at what the port says. The IPv6 link-local address derived from
//! the MAC (EUI-64) is in `addrs` where the agent tells the port of IPv6, and in an open network; elsewhere it
//! is good for neighbour discovery and nothing else. What of it comes out of a tunnel is known by its MAC.

use crate::addr::Addr;
use crate::fdb::FdbKey;
use crate::kernel::Kernel;
use crate::maps::{AddrKey, NeighKey};
use crate::moves;
use crate::parse::{Packet, UDP};
use crate::port::PortHead;
use crate::prefix::{self, End, Owner, owner};
use crate::reason::DropReason;
use crate::service::Service;
use crate::{arp, nd};

/// A frame from a port has the port's MAC and address for its source. What a service is asked is
/// guarded there.
#[inline(always)]
pub(crate) fn from_port<K: Kernel>(
    kernel: &K,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    if !packet.source_mac.same(port.mac) {
        return Err(DropReason::SpoofedMac);
    }
    match packet.service {
        Service::None => {
            source_address(kernel, port, packet)?;
            if is_dhcp_server(packet) { Err(DropReason::RogueDhcp) } else { Ok(()) }
        }
        // It is for the agent, which answers the port alone: also one whose address is not its own any
        // more, which has to hear that.
        Service::Lease => Ok(()),
        Service::Request if packet.source.is_link_local() => Ok(()),
        Service::Request => source_address(kernel, port, packet),
        Service::Arp | Service::Neighbour | Service::Dhcp => Ok(()),
    }
}

/// Whether it is what only a DHCP server sends to a client (RFC 2131, 4.1; RFC 8415, 7.2). Whoever
/// answers first would lead its neighbours where it likes.
#[inline(always)]
fn is_dhcp_server(packet: &Packet) -> bool {
    packet.protocol == UDP
        && matches!((packet.source_port, packet.destination_port), (67, 68) | (547, 546))
}

/// A frame from another host is of one station of its network that lives there. ARP and neighbour
/// discovery are about shared addresses.
#[inline(always)]
pub(crate) fn from_tunnel<K: Kernel>(
    kernel: &mut K,
    vtep: &Addr,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    match packet.service {
        Service::Arp => arp::from_host(kernel, packet)?,
        Service::Neighbour => nd::from_host(kernel, packet)?,
        _ => return neighbour(kernel, vtep, packet),
    }
    // Each host answers for what one station alone has.
    let net = packet.path.net_in;
    if !prefix::is_shared(kernel, net, &packet.source)
        && !prefix::is_shared(kernel, net, &packet.destination)
    {
        return Err(DropReason::NeighbourFromTunnel);
    }
    neighbour(kernel, vtep, packet)
}

/// The source address is one of the port's, or in a prefix that it routes for; then the packet knows the MTU of its network.
#[inline(always)]
fn source_address<K: Kernel>(
    kernel: &K,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    if let Some(source) = kernel.source(&AddrKey { port: port.number, addr: packet.source }) {
        packet.mtu = source.mtu;
        return Ok(());
    }
    if packet.source.same(&Addr::link_local(port.mac)) {
        return Err(DropReason::LinkLocal);
    }
    match owner(kernel, packet, End::Source, None) {
        Owner::Station => Ok(()),
        Owner::Nobody | Owner::Another => Err(DropReason::SpoofedAddress),
    }
}

/// The source of a frame out of a tunnel is a station of the network, with that station's address
/// or one that it routes for.
///
/// The sending host has guarded the source, but a release without `fill_in` did so before a
/// checksum was filled in, maybe over the source. Two bytes never change MAC and address together.
/// A host that guards nothing is held to the stations that live on it: it cannot speak
/// as a station of another host, nor as one of ours.
#[inline(always)]
fn neighbour<K: Kernel>(
    kernel: &mut K,
    vtep: &Addr,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    match kernel.neigh(&NeighKey { net: packet.path.net_in, addr: packet.source }) {
        Some(neigh) if neigh.mac.same(packet.source_mac) => {
            if !neigh.is_moving() && neigh.vtep.same(vtep) {
                return Ok(());
            }
            moves::from_tunnel(kernel, vtep, packet)
        }
        None if packet.source.same(&Addr::link_local(packet.source_mac)) => {
            at(kernel, vtep, packet)
        }
        None => match owner(kernel, packet, End::Source, Some(vtep)) {
            Owner::Station => Ok(()),
            Owner::Nobody => stranger(kernel, vtep, packet),
            Owner::Another => Err(DropReason::ForeignSource),
        },
        _ => Err(DropReason::ForeignSource),
    }
}

/// Somebody who has no address of a station: in an open network a station behind the same VTEP, in a
/// closed one the router there, which brings packets from other networks.
#[inline(always)]
fn stranger<K: Kernel>(kernel: &K, vtep: &Addr, packet: &Packet) -> Result<(), DropReason> {
    let net = &packet.path.net;
    if net.is_closed() && !net.is_router(packet.source_mac) {
        return Err(DropReason::ForeignSource);
    }
    at(kernel, vtep, packet)
}

/// Whether the station of the source MAC is behind the VTEP.
#[inline(always)]
fn at<K: Kernel>(kernel: &K, vtep: &Addr, packet: &Packet) -> Result<(), DropReason> {
    match kernel.fdb(&FdbKey::new(packet.path.net_in, packet.source_mac)) {
        Some(fdb) if fdb.as_local().is_none() && fdb.behind().1.same(vtep) => Ok(()),
        _ => Err(DropReason::ForeignSource),
    }
}

/// Whether the port has the address.
#[inline(always)]
pub(crate) fn allowed<K: Kernel>(kernel: &K, port: &PortHead, addr: &Addr) -> bool {
    kernel.addr_allowed(&AddrKey { port: port.number, addr: *addr })
}
