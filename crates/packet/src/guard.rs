//! The spoof guard: a port speaks only with its own MAC and its own addresses.
//!
//! It runs before anything else looks at what the port says. IPv6 link-local addresses are not in
//! `addrs`: the one derived from the MAC (EUI-64) is good for neighbour discovery and nothing
//! else, because a closed network has nobody to talk to by link-local address.

use crate::addr::{Addr, Mac};
use crate::kernel::Kernel;
use crate::maps::{AddrKey, Port};
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

/// The source address is one of the port's.
#[inline(always)]
pub(crate) fn source_address<K: Kernel>(
    kernel: &K,
    port: &Port,
    packet: &Packet,
) -> Result<(), DropReason> {
    if allowed(kernel, port, &packet.source) {
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
