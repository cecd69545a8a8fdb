//! The L2 lookup, and what a destination needs to be reachable.
//!
//! The network of a frame is the network of its port or of its tunnel, never anything in the
//! frame. A frame never goes back where it came from.

use crate::conntrack::CtZone;
use crate::kernel::{Direction, Kernel, Meta, Verdict, Via};
use crate::maps::{Fdb, FdbKey, NeighKey, Port, PortKey};
use crate::parse::Packet;
use crate::reason::DropReason;

/// Where the frame goes: the station of its destination MAC, or else that of its address, which
/// is then written into the frame.
///
/// The second is for an address that has passed to another NIC. Nothing announces that to the
/// guests: their neighbour caches keep the former owner's MAC, for as long as they like.
#[inline(always)]
pub(crate) fn station<K: Kernel>(
    kernel: &mut K,
    net: u32,
    packet: &mut Packet,
) -> Result<Fdb, DropReason> {
    if let Ok(fdb) = lookup(kernel, net, packet) {
        return Ok(fdb);
    }
    readdress(kernel, net, packet);
    lookup(kernel, net, packet)
}

/// Gives the frame the MAC of the station that its address belongs to, if there is one.
#[inline(never)]
fn readdress<K: Kernel>(kernel: &mut K, net: u32, packet: &mut Packet) {
    let key = NeighKey { net, addr: packet.destination };
    if let Some(neigh) = kernel.neigh(&key)
        && kernel.store(0, &neigh.mac.0)
    {
        packet.destination_mac = neigh.mac;
        packet.flow.give_up();
    }
}

/// Where the destination MAC is in the network.
#[inline(always)]
pub(crate) fn lookup<K: Kernel>(kernel: &K, net: u32, packet: &Packet) -> Result<Fdb, DropReason> {
    match kernel.fdb(&FdbKey::new(net, packet.destination_mac)) {
        Some(fdb) if fdb.is_known() => Ok(fdb),
        _ => Err(DropReason::UnknownDestination),
    }
}

/// The local port that the station is. It is never the sender itself.
#[inline(always)]
pub(crate) fn local_port<K: Kernel>(
    kernel: &K,
    key: &PortKey,
    sender: &Port,
) -> Result<Port, DropReason> {
    let Some(port) = kernel.port(key) else { return Err(DropReason::MissingLocalPort) };
    if port.number == sender.number { Err(DropReason::Hairpin) } else { Ok(port) }
}

/// Refuses a remote station while there is no tunnel device. The port that it gives is none.
#[inline(always)]
pub(crate) fn tunnel<K: Kernel>(kernel: &K) -> Result<Port, DropReason> {
    match kernel.config() {
        Some(config) if config.tunnel_ifindex != 0 => Ok(Port::default()),
        _ => Err(DropReason::NoTunnelDevice),
    }
}

/// The side of `port` on which a packet from `source_net` is decided.
#[inline(always)]
pub(crate) fn zone(meta: &Meta, port: &Port, direction: Direction, source_net: u32) -> CtZone {
    CtZone {
        now_ns: meta.now_ns,
        port: port.number,
        zone: port.zone,
        place: port.place(),
        net: port.net,
        source_net,
        generation: port.generation,
        direction,
    }
}

/// The verdict for a local port that took the packet.
#[inline(always)]
pub(crate) fn deliver(ifindex: u32, flags: u16) -> Verdict {
    let via = if flags & Port::PEER != 0 { Via::Peer } else { Via::Interface };
    Verdict::DeliverLocal { ifindex, via }
}
