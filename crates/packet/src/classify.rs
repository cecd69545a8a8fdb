//! Stage 1, classify: who sent the frame, into which network, and what its headers say.

use crate::kernel::{Concerned, Kernel, Meta};
use crate::maps::{PortKey, Vtep, VtepKey};
use crate::parse::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet};
use crate::path::Path;
use crate::port::{PortHead, sender};
use crate::reason::DropReason;
use crate::service::Service;

/// The port that the frame comes from, or why there is none and the port that this concerns.
#[inline(always)]
pub(crate) fn port<K: Kernel>(
    kernel: &K,
    meta: &Meta,
    packet: &mut Packet,
) -> Result<PortHead, (Concerned, DropReason)> {
    let key = PortKey::tagged(meta.ifindex, meta.vlan);
    if let Some(port) = sender(kernel, &key, packet) {
        return Ok(port);
    }
    match sender(kernel, &PortKey::untagged(meta.ifindex), packet) {
        Some(trunk) => Err((Concerned::of(&trunk), DropReason::VlanTagged)),
        None => Err((Concerned::default(), DropReason::UnknownPort)),
    }
}

/// The VTEP that the frame comes from. One lookup admits it and gives the network.
#[inline(always)]
pub(crate) fn vtep<K: Kernel>(kernel: &K, meta: &Meta) -> Result<Vtep, DropReason> {
    if meta.tunnelled == 0 {
        return Err(DropReason::NotTunnelled);
    }
    let Some(vtep) = kernel.vtep(&VtepKey { vni: meta.vni, addr: meta.vtep }) else {
        return Err(DropReason::UnknownVtep);
    };
    // What comes to a broadcast or multicast address may come from anybody's replay.
    if !vtep.local.same(&meta.local) {
        return Err(DropReason::NotForThisVtep);
    }
    if meta.vlan != 0 {
        return Err(DropReason::VlanTagged);
    }
    Ok(vtep)
}

/// Reads the headers of a frame that was sent in this network, of which it has to know.
#[inline(always)]
pub(crate) fn headers<K: Kernel>(
    kernel: &K,
    meta: &Meta,
    net: u32,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    match kernel.net(net) {
        Some(found) if found.kind().is_some() => {
            packet.path = Path { net_in: net, net: found, net_out: net, identity: 0 };
        }
        _ => return Err(DropReason::UnknownNetwork),
    }
    parse::ethernet(kernel, packet)?;
    match packet.ethertype {
        ETHERTYPE_ARP => {}
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => parse::network(kernel, meta, packet)?,
        _ => return Err(DropReason::UnknownEthertype),
    }
    packet.service = Service::of(packet);
    Ok(())
}
