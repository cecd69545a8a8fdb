//! Stage 4, route: the L2 lookup in the packet's network, and what a destination needs to be
//! reachable.
//!
//! A frame never goes back where it came from. Routing between networks has its place here: it
//! gives the path another `net_out`, in which the lookup is then made.

use crate::fdb::{Fdb, FdbKey};
use crate::flood;
use crate::kernel::{Kernel, Meta};
use crate::learned;
use crate::maps::{NeighKey, PortKey};
use crate::moves;
use crate::parse::Packet;
use crate::port;
use crate::port::PortHead;
use crate::prefix;
use crate::reason::DropReason;
use crate::sizes::SERVICE_MAC;
use crate::uplink;

/// Where the frame goes: the station of its destination MAC; or else, in a physical network, out of
/// the uplink, and in any other one to the stranger who has that MAC, or to the station of its
/// address, which is then written into the frame. Where there are strangers, it may be one who has
/// not been heard of.
///
/// The last is for an address that has passed to another NIC, or to a prefix of one. Nothing
/// announces that to the guests: their neighbour caches keep the former owner's MAC, for as long as
/// they like.
///
/// It is left in the packet's room: see [`Packet`] on what the verifier makes of it.
#[inline(never)]
pub(crate) fn station<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    if find(kernel, packet) {
        return Ok(());
    }
    let is_ours = packet.destination_mac.same(SERVICE_MAC);
    if packet.path.net.is_physical() && !is_ours {
        packet.station = uplink::beyond(packet);
        return Ok(());
    }
    let has_strangers = packet.path.net.has_foreign_vteps() && !is_ours;
    if has_strangers && learned::find(kernel, meta, packet) {
        return Ok(());
    }
    readdress(kernel, packet);
    if find(kernel, packet) {
        return Ok(());
    }
    if !has_strangers {
        return Err(DropReason::UnknownDestination);
    }
    flood::of_port(kernel, meta, port.place())?;
    packet.station = Fdb::stranger();
    Ok(())
}

/// Gives the frame the MAC of the station that its address belongs to, or that routes for it, if
/// there is one.
#[inline(never)]
fn readdress<K: Kernel>(kernel: &mut K, packet: &mut Packet) {
    let key = NeighKey { net: packet.path.net_out, addr: packet.destination };
    let mac = match kernel.neigh(&key) {
        Some(neigh) => neigh.mac,
        None => match prefix::router(kernel, &key) {
            Some(mac) => mac,
            None => return,
        },
    };
    if kernel.store(0, &mac.0) {
        packet.destination_mac = mac;
        packet.flow.give_up();
    }
}

/// Leaves in the packet's room where the destination MAC is in the network, if it is anywhere.
#[inline(always)]
pub(crate) fn find<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    let Some(fdb) = kernel.fdb(&FdbKey::new(packet.path.net_out, packet.destination_mac)) else {
        return false;
    };
    packet.station = fdb;
    if fdb.is_moving() { moves::settle(kernel, packet) } else { fdb.is_known() }
}

/// The local port that the station is. It is never the sender itself.
#[inline(always)]
pub(crate) fn local_port<K: Kernel>(
    kernel: &K,
    packet: &mut Packet,
    key: &PortKey,
    sender: &PortHead,
) -> Result<PortHead, DropReason> {
    let Some(port) = port::receiver(kernel, key, packet) else {
        return Err(DropReason::MissingLocalPort);
    };
    if port.number == sender.number { Err(DropReason::Hairpin) } else { Ok(port) }
}

/// Refuses a station of another host while there is no tunnel device. The port that it gives is
/// none.
#[inline(always)]
pub(crate) fn way_out<K: Kernel>(kernel: &K, packet: &Packet) -> Result<PortHead, DropReason> {
    // One question for both ways: the verifier walks all later stages once for each branch here.
    match kernel.config() {
        Some(config) if config.tunnel_ifindex | packet.station.uplink_ifindex() != 0 => {
            Ok(PortHead::default())
        }
        _ => Err(DropReason::NoTunnelDevice),
    }
}
