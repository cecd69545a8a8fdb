//! What is for several: broadcast, multicast, and, where strangers are, what nobody knows the place
//! of. Each frame is copied to a bounded number of ports and VTEPs (`sizes`), and each port and
//! each network has a [`crate::Budget`] of such frames.
//!
//! A port's frame goes to the other ports of its network here, and to all its VTEPs or into the
//! physical network. What comes from there goes to the ports here: a frame never goes back where it
//! came from. Who asks for one station by its address, disturbs no other.
//!
//! It is no part of a connection, and passes beside that; so does in an open network what ARP and
//! neighbour discovery have to say to strangers. The policies of its sender and of each receiver here
//! are asked about it as about a single packet.

use crate::kernel::{Direction, Kernel, Meta, Verdict};
use crate::maps::NeighKey;
use crate::parse::Packet;
use crate::port::PortHead;
use crate::reason::DropReason;
use crate::service::Service;
use crate::sizes::{COUNTER_PLACES, FLOODS_PER_NET, FLOODS_PER_PORT, MAX_NETS};
use crate::strangers::{Mentioned, local};
use crate::{FdbKey, egress, policy, route};

/// Whether a packet that nobody here answers is no part of a connection.
#[inline(always)]
pub(crate) fn is_untracked(packet: &Packet) -> bool {
    packet.service != Service::None || packet.destination_mac.is_group()
}

/// Decides about a port's packet that is no part of a connection; whether it is about an address that
/// stations share. A drop concerns the port in the packet's zone.
#[inline(never)]
pub(crate) fn untracked<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
    is_shared: bool,
) -> Result<(), DropReason> {
    packet.flow.give_up();
    policy::untracked(kernel, meta, (port, Direction::FromPort), packet)?;
    let (net, sender) = (port.net, port.number);
    if packet.destination_mac.is_group() {
        of_port(kernel, meta, port.place())?;
        kernel.count(port.place(), Direction::FromPort, meta.length);
        let is_service = packet.service != Service::None && !is_shared;
        // What a station is asked for has been answered here.
        packet.verdict = match is_service && packet.path.net.has_foreign_vteps() {
            true => Verdict::Strangers { net },
            false => Verdict::Flood { net, sender },
        };
        return Ok(());
    }
    route::station(kernel, meta, port, packet)?;
    let Some(key) = packet.station.as_local() else {
        kernel.count(port.place(), Direction::FromPort, meta.length);
        egress::remote(kernel, meta, packet, port.place());
        return Ok(());
    };
    let receiver = route::local_port(kernel, packet, &key, port)?;
    kernel.count(port.place(), Direction::FromPort, meta.length);
    policy::untracked(kernel, meta, (&receiver, Direction::ToPort), packet)?;
    egress::local(kernel, meta, packet, (port.place(), key), &receiver);
    Ok(())
}

/// Whether the port at this place may have one more frame flooded.
#[inline(always)]
pub(crate) fn of_port<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    place: u32,
) -> Result<(), DropReason> {
    spend(kernel, meta, place, FLOODS_PER_PORT)
}

/// Decides about a frame for several that comes from elsewhere.
#[inline(never)]
pub(crate) fn arrived<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    mentioned: Mentioned,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    packet.flow.give_up();
    let net = packet.path.net_in;
    if mentioned == Mentioned::Station {
        let key = NeighKey { net, addr: packet.destination };
        let Some(neigh) = kernel.neigh(&key) else { return Err(DropReason::UnknownNeighbour) };
        let Some(at) = local(kernel, &FdbKey::new(net, neigh.mac)) else {
            return Err(DropReason::UnknownDestination);
        };
        let Some(port) = kernel.port(&at) else { return Err(DropReason::MissingLocalPort) };
        kernel.count(port.place(), Direction::ToPort, meta.length);
        packet.verdict = Verdict::Copy { ifindex: at.ifindex, vlan: at.vlan };
        return Ok(());
    }
    spend(kernel, meta, COUNTER_PLACES + net % MAX_NETS, FLOODS_PER_NET)?;
    packet.verdict = Verdict::Flood { net, sender: 0 };
    Ok(())
}

/// Whether one more frame may be flooded by this budget.
#[inline(always)]
fn spend<K: Kernel>(kernel: &mut K, meta: &Meta, slot: u32, most: u32) -> Result<(), DropReason> {
    let may = kernel.flood_budget(slot).is_some_and(|budget| budget.spend(meta.now_ns, most));
    if may { Ok(()) } else { Err(DropReason::FloodRate) }
}
