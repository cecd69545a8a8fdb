//! The spoof guard: a port speaks only with its own MAC and its own addresses, and a frame out of
//! a tunnel only with those of one station of its network.
//!
//! It runs before anything else looks at what the port says. IPv6 link-local addresses are not in
//! `addrs`: the one derived from the MAC (EUI-64) is good for neighbour discovery and nothing
//! else, because a closed network has nobody to talk to by link-local address.

use crate::addr::{Addr, Mac};
use crate::kernel::Kernel;
use crate::maps::{AddrKey, NeighKey, Port};
use crate::parse::{Packet, UDP};
use crate::reason::DropReason;

/// UDP ports of a DHCP client and server (RFC 2131, 4.1).
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// The source MAC is the port's.
#[inline(always)]
pub(crate) fn source_mac(port: &Port, packet: &Packet) -> Result<(), DropReason> {
    if packet.source_mac.same(port.mac) { Ok(()) } else { Err(DropReason::SpoofedMac) }
}

/// The source address is one of the port's; then the packet knows the MTU of its network.
#[inline(always)]
pub(crate) fn source_address<K: Kernel>(
    kernel: &K,
    port: &Port,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    if let Some(source) = kernel.source(&AddrKey { port: port.number, addr: packet.source }) {
        packet.mtu = source.mtu;
        return Ok(());
    }
    let dhcp = packet.protocol == UDP
        && packet.source_port == DHCP_CLIENT
        && packet.destination_port == DHCP_SERVER;
    if dhcp && packet.source.is_unspecified() {
        return Err(DropReason::Dhcp);
    }
    if packet.source.same(&Addr::link_local(port.mac)) {
        return Err(DropReason::LinkLocal);
    }
    Err(DropReason::SpoofedAddress)
}

/// The source of a frame out of a tunnel is a station of the network, with that station's address.
///
/// The sending host has guarded the source, but a release without `fill_in` did so before a
/// checksum was filled in, maybe over the source. Two bytes never change MAC and address together.
/// A host that guards nothing is held to the stations that live on it: it cannot speak
/// as a station of another host, nor as one of ours.
#[inline(always)]
pub(crate) fn neighbour<K: Kernel>(
    kernel: &K,
    net: u32,
    vtep: &Addr,
    packet: &Packet,
) -> Result<(), DropReason> {
    match kernel.neigh(&NeighKey { net, addr: packet.source }) {
        Some(neigh) if neigh.mac.same(packet.source_mac) && neigh.vtep.same(vtep) => Ok(()),
        _ => Err(DropReason::ForeignSource),
    }
}

/// Nothing is flooded in a closed network: there is a reason for each kind of group address.
#[inline(always)]
pub(crate) fn unicast_only(packet: &Packet) -> Result<(), DropReason> {
    if packet.destination_mac.same(Mac::BROADCAST) {
        return Err(DropReason::Broadcast);
    }
    if packet.destination_mac.is_group() {
        return Err(DropReason::Multicast);
    }
    Ok(())
}

/// Whether the port has the address.
#[inline(always)]
pub(crate) fn allowed<K: Kernel>(kernel: &K, port: &Port, addr: &Addr) -> bool {
    kernel.addr_allowed(&AddrKey { port: port.number, addr: *addr })
}
