//! Machines that nobody has told us of: in a physical network, and behind foreign VTEPs.
//!
//! Nobody there is taken for a station: a frame with the MAC or the address of one reaches no port.
//!
//! Connections are tracked as everywhere; what is no part of one: `flood`.

use crate::addr::Addr;
use crate::fdb::FdbKey;
use crate::kernel::{Concerned, Direction, Kernel, Meta};
use crate::maps::{NeighKey, PortKey};
use crate::parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet};
use crate::port::PortHead;
use crate::reason::DropReason;
use crate::service::Service;
use crate::{arp, classify, egress, flood, flow, learned, nd, parse, policy, port};

/// The stages of a frame from a stranger; whether it is a matter of ours. `concerned` is the port
/// that a drop is counted under.
#[inline(always)]
pub(crate) fn arrive<K: Kernel>(
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
    if kernel.fdb(&FdbKey::new(net, packet.source_mac)).is_some() {
        return Err(DropReason::ForeignSource);
    }
    let mentioned = headers(kernel, meta, net, packet)?;
    if meta.tunnelled != 0 {
        learned::note(kernel, meta, packet);
    }
    if is_group {
        return flood::arrived(kernel, meta, mentioned, packet).map(|()| true);
    }
    let Some(key) = station else { return Ok(false) };
    let Some(receiver) = port::receiver(kernel, &key, packet) else {
        return Err(DropReason::MissingLocalPort);
    };
    *concerned = Concerned::of(&receiver);
    receive(kernel, meta, packet, &receiver)?;
    egress::local(kernel, meta, packet, (0, key), &receiver);
    Ok(true)
}

/// The receiver's side of a packet from elsewhere. ARP and neighbour discovery are no part of a
/// connection.
#[inline(always)]
pub(crate) fn receive<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    packet: &mut Packet,
    receiver: &PortHead,
) -> Result<(), DropReason> {
    if matches!(packet.service, Service::Arp | Service::Neighbour) {
        packet.flow.give_up();
        return Ok(());
    }
    policy::side(kernel, meta, (receiver, Direction::ToPort), packet)?;
    flow::note(packet, 0);
    flow::note(packet, 1);
    Ok(())
}

/// Where a station is, if it is on this host.
#[inline(always)]
pub(crate) fn local<K: Kernel>(kernel: &K, key: &FdbKey) -> Option<PortKey> {
    kernel.fdb(key).and_then(|fdb| fdb.as_local())
}

/// Whom a packet asks for by an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mentioned {
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
        Service::None | Service::Dhcp | Service::Lease | Service::Request => {}
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
