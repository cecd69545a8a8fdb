//! Physical networks, which the host is in by an uplink: an interface, and maybe a VLAN on it.
//! Machines that nobody has told us of live there.
//!
//! A port's frames for whoever is not on this host leave by the uplink; the host itself is one of
//! those machines, by the MAC of that interface. There is one way out, so nothing has to be
//! learned. What comes in by the uplink, or is sent out by the host's own stack, is looked at on
//! its way: what is for a port here is delivered, what is for all is copied, and everything goes
//! on as if we were not there but for what is for a port alone.
//!
//! Nobody there is taken for a station of this host: a frame with its MAC or with its address
//! reaches no port.
//!
//! Connections are tracked as everywhere. What is no part of one, ARP, neighbour discovery, and all
//! that is for several, passes beside that, within a [`crate::Budget`].

use crate::addr::Addr;
use crate::fdb::{Fdb, FdbKey};
use crate::kernel::{Concerned, Direction, Drop, Entry, Kernel, Meta, Verdict, Via};
use crate::maps::{NeighKey, Port, PortKey};
use crate::parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet};
use crate::reason::DropReason;
use crate::service::Service;
use crate::sizes::{COUNTER_PLACES, FLOODS_PER_PORT, FLOODS_PER_WIRE, MAX_NETS};
use crate::{arp, classify, egress, nd, parse, policy, route};

/// Where a frame goes whose destination is no station of this host.
#[inline(always)]
pub(crate) fn beyond(packet: &Packet) -> Fdb {
    let net = &packet.path.net;
    if net.uplink_mac.same(packet.destination_mac) {
        Fdb::host(net.uplink)
    } else {
        Fdb::uplink(net.uplink)
    }
}

/// Whether a packet of a physical network is no part of a connection.
#[inline(always)]
pub(crate) fn is_untracked(packet: &Packet) -> bool {
    packet.service != Service::None || packet.destination_mac.is_group()
}

/// Decides about a port's packet that is no part of a connection.
#[inline(never)]
pub(crate) fn untracked<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &Port,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    packet.flow.give_up();
    let (net, sender) = (port.net, port.number);
    if packet.destination_mac.is_group() {
        spend(kernel, meta, port.place(), FLOODS_PER_PORT)?;
        kernel.count(port.place(), Direction::FromPort, meta.length);
        packet.verdict = Verdict::Flood { net, sender };
        return Ok(());
    }
    route::station(kernel, packet)?;
    let Some(key) = packet.station.as_local() else {
        kernel.count(port.place(), Direction::FromPort, meta.length);
        egress::remote(kernel, meta, packet, port.place());
        return Ok(());
    };
    let receiver = route::local_port(kernel, &key, port)?;
    kernel.count(port.place(), Direction::FromPort, meta.length);
    egress::local(kernel, meta, packet, (port.place(), key), &receiver);
    Ok(())
}

/// A frame on an uplink: one that comes in ([`Entry::FromUplink`]), or one that the host's own
/// stack sends out ([`Entry::ToUplink`]). Whether its verdict is to be carried out; if not, it is
/// no matter of ours and goes on. `packet` is as for [`crate::from_port`].
#[inline(always)]
pub fn from_wire<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    entry: Entry,
    packet: &mut Packet,
) -> bool {
    let Some(wire) = kernel.wire(&PortKey::tagged(meta.ifindex, meta.vlan)) else { return false };
    packet.flow.give_up();
    let mut port = Concerned::default();
    match cross(kernel, meta, (wire.net, &mut port), packet) {
        Ok(is_ours) => {
            // The kernel has no short way to a port's other end from where frames leave.
            if entry as u8 == Entry::ToUplink as u8
                && let Verdict::DeliverLocal { ifindex, via: Via::Peer } = packet.verdict
            {
                packet.verdict = Verdict::DeliverLocal { ifindex, via: Via::Interface };
            }
            is_ours
        }
        Err(reason) => {
            kernel.count_drop(meta, &Drop { reason, entry, port });
            packet.verdict = Verdict::Drop(reason);
            // What no port gets is still for everybody else.
            !packet.destination_mac.is_group()
        }
    }
}

/// The stages of a frame on an uplink; whether it is a matter of ours. `concerned` is the port that
/// a drop is counted under.
#[inline(always)]
fn cross<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    (net, concerned): (u32, &mut Concerned),
    packet: &mut Packet,
) -> Result<bool, DropReason> {
    if parse::ethernet(kernel, packet).is_err() {
        return Ok(false);
    }
    let is_group = packet.destination_mac.is_group();
    let station = local(kernel, &FdbKey::new(net, packet.destination_mac));
    let is_known = matches!(packet.ethertype, ETHERTYPE_ARP | ETHERTYPE_IPV4 | ETHERTYPE_IPV6);
    if station.is_none() && !(is_group && is_known) {
        return Ok(false);
    }
    if local(kernel, &FdbKey::new(net, packet.source_mac)).is_some() {
        return Err(DropReason::ForeignSource);
    }
    let mentioned = headers(kernel, meta, net, packet)?;
    if is_group {
        return group(kernel, meta, mentioned == Mentioned::Station, packet).map(|()| true);
    }
    let Some(key) = station else { return Ok(false) };
    let Some(receiver) = kernel.port(&key) else { return Err(DropReason::MissingLocalPort) };
    *concerned = Concerned::of(&receiver);
    if !matches!(packet.service, Service::Arp | Service::Neighbour) {
        policy::side(kernel, meta, (&receiver, Direction::ToPort), packet)?;
    }
    egress::local(kernel, meta, packet, (0, key), &receiver);
    Ok(true)
}

/// Where a station is, if it is on this host.
#[inline(always)]
fn local<K: Kernel>(kernel: &K, key: &FdbKey) -> Option<PortKey> {
    kernel.fdb(key).and_then(|fdb| fdb.as_local())
}

/// Whom a packet asks for by an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mentioned {
    /// Nobody here.
    Nobody,
    /// A station of this host. `packet.destination` is its address.
    Station,
}

/// Reads the headers of a frame from somebody who is no station of this host, so that no station
/// has the source; and whom it asks for.
#[inline(never)]
fn headers<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    net: u32,
    packet: &mut Packet,
) -> Result<Mentioned, DropReason> {
    classify::headers(kernel, meta, net, packet)?;
    match packet.service {
        Service::Arp => {
            let asked = arp::read(kernel)?;
            packet.source = Addr::v4_word(asked.sender);
            packet.destination = Addr::v4_word(asked.target);
        }
        Service::Neighbour => {
            if let Some(target) = nd::solicited(kernel, packet) {
                packet.destination = target;
            }
        }
        Service::None | Service::Dhcp => {}
    }
    if kernel.neigh(&NeighKey { net, addr: packet.source }).is_some() {
        return Err(DropReason::ForeignSource);
    }
    let asks = matches!(packet.service, Service::Arp | Service::Neighbour);
    match asks && kernel.neigh(&NeighKey { net, addr: packet.destination }).is_some() {
        true => Ok(Mentioned::Station),
        false => Ok(Mentioned::Nobody),
    }
}

/// Decides about a frame for several that is on the uplink. Who asks for one station by its address
/// disturbs no other.
#[inline(never)]
fn group<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    is_for_one: bool,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let net = packet.path.net_in;
    if is_for_one {
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
    spend(kernel, meta, COUNTER_PLACES + net % MAX_NETS, FLOODS_PER_WIRE)?;
    packet.verdict = Verdict::Flood { net, sender: 0 };
    Ok(())
}

/// Whether one more frame may be flooded by this budget.
#[inline(always)]
fn spend<K: Kernel>(kernel: &mut K, meta: &Meta, slot: u32, most: u32) -> Result<(), DropReason> {
    let may = kernel.flood_budget(slot).is_some_and(|budget| budget.spend(meta.now_ns, most));
    if may { Ok(()) } else { Err(DropReason::FloodRate) }
}
