//! The three entry points: the order of the stages at each hook, and the counting.
//!
//! Every path ends in a [`Verdict`]; every drop is counted here, in one place, under the port
//! that it concerns.

use crate::conntrack;
use crate::forward;
use crate::kernel::{Concerned, Direction, Drop, Entry, Kernel, Meta, Verdict};
use crate::maps::{Port, PortKey, VtepKey};
use crate::parse::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet};
use crate::reason::DropReason;
use crate::sizes::DELIVERED_MARK;
use crate::{arp, flow, guard, nd, too_big};

/// A frame from a port's VM. `packet` is room for the parsed headers, see [`Packet`].
#[inline(always)]
pub fn from_port<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) -> Verdict {
    if let Some(verdict) = flow::hit(kernel, meta, packet) {
        return verdict;
    }
    let Some(port) = kernel.port(&PortKey::untagged(meta.ifindex)) else {
        return drop(
            kernel,
            meta,
            Entry::FromPort,
            (Concerned::default(), DropReason::UnknownPort),
        );
    };
    let mut concerned = Concerned::of(&port);
    match port_stages(kernel, meta, (&port, &mut concerned), packet) {
        Ok(verdict) => verdict,
        Err(reason) => drop(kernel, meta, Entry::FromPort, (concerned, reason)),
    }
}

/// A frame out of the tunnel device. `packet` is room for the parsed headers, see [`Packet`].
#[inline(always)]
pub fn from_tunnel<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) -> Verdict {
    if let Some(verdict) = flow::hit(kernel, meta, packet) {
        return verdict;
    }
    let mut concerned = Concerned::default();
    match tunnel_stages(kernel, meta, &mut concerned, packet) {
        Ok(verdict) => verdict,
        Err(reason) => drop(kernel, meta, Entry::FromTunnel, (concerned, reason)),
    }
}

/// A frame that is about to leave the host side of a port, towards its VM.
///
/// The shim clears the mark of what passes, so that it means nothing beyond this hook.
#[inline(always)]
pub fn to_port<K: Kernel>(kernel: &mut K, meta: &Meta) -> Verdict {
    if meta.mark == DELIVERED_MARK {
        return Verdict::Pass;
    }
    let port = kernel.port(&PortKey::untagged(meta.ifindex));
    let port = port.map_or(Concerned::default(), |port| Concerned::of(&port));
    drop(kernel, meta, Entry::ToPort, (port, DropReason::HostToPort))
}

/// `concerned` is the port that a drop is counted under: the sender, then the receiver.
#[inline(always)]
fn port_stages<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    (port, concerned): (&Port, &mut Concerned),
    packet: &mut Packet,
) -> Result<Verdict, DropReason> {
    match admit(kernel, meta, port, packet) {
        Admission::Refused(reason) => return Err(reason),
        Admission::Answered => {
            kernel.count(port.place(), Direction::FromPort, meta.length);
            return Ok(Verdict::Reflect);
        }
        Admission::Forward => {}
    }
    // The lookup comes first: a packet that has nowhere to go takes no place in the table.
    let station = forward::station(kernel, port.net, packet)?;
    let receiver = match station.as_local() {
        Some(key) => forward::local_port(kernel, &key, port)?,
        None => forward::tunnel(kernel)?,
    };
    packet.zone = forward::zone(meta, port, Direction::FromPort, port.net);
    conntrack::decide(kernel, packet)?;
    flow::note(packet, 0);
    flow::note(packet, 1);
    if !too_big::fits(kernel, meta, port, packet)? {
        return Ok(Verdict::Reflect);
    }
    kernel.count(port.place(), Direction::FromPort, meta.length);
    let Some(key) = station.as_local() else {
        flow::keep_remote(kernel, packet, port.place(), &station);
        return Ok(station.tunnel());
    };
    *concerned = Concerned::of(&receiver);
    packet.zone = forward::zone(meta, &receiver, Direction::ToPort, port.net);
    conntrack::decide(kernel, packet)?;
    flow::note(packet, 1);
    kernel.count(receiver.place(), Direction::ToPort, meta.length);
    flow::keep_local(kernel, packet, (port.place(), key.ifindex), &receiver);
    Ok(forward::deliver(key.ifindex, receiver.flags))
}

/// What becomes of a frame from a port before any destination is looked up. One byte, because a
/// BPF function returns no more than a register.
enum Admission {
    /// It goes on.
    Forward,
    /// It has been turned into its own answer.
    Answered,
    /// It ends here.
    Refused(DropReason),
}

/// Parses a frame from a port, answers ARP and ND, and guards the source addresses.
#[inline(never)]
fn admit<K: Kernel>(kernel: &mut K, meta: &Meta, port: &Port, packet: &mut Packet) -> Admission {
    match admit_stages(kernel, meta, port, packet) {
        Ok(admission) => admission,
        Err(reason) => Admission::Refused(reason),
    }
}

#[inline(always)]
fn admit_stages<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &Port,
    packet: &mut Packet,
) -> Result<Admission, DropReason> {
    parse::ethernet(kernel, meta, packet)?;
    guard::source_mac(port, packet)?;
    match packet.ethertype {
        ETHERTYPE_ARP => {
            arp::answer(kernel, port)?;
            return Ok(Admission::Answered);
        }
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => parse::network(kernel, meta, packet)?,
        _ => return Err(DropReason::UnknownEthertype),
    }
    if nd::is_signalling(packet) {
        nd::answer(kernel, port, packet)?;
        return Ok(Admission::Answered);
    }
    guard::source_address(kernel, port, packet)?;
    guard::unicast_only(packet)?;
    Ok(Admission::Forward)
}

#[inline(always)]
fn tunnel_stages<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    concerned: &mut Concerned,
    packet: &mut Packet,
) -> Result<Verdict, DropReason> {
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
    parse::ethernet(kernel, meta, packet)?;
    match packet.ethertype {
        ETHERTYPE_ARP => return Err(DropReason::NeighbourFromTunnel),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => parse::network(kernel, meta, packet)?,
        _ => return Err(DropReason::UnknownEthertype),
    }
    if nd::is_signalling(packet) {
        return Err(DropReason::NeighbourFromTunnel);
    }
    if packet.destination_mac.is_group() {
        return Err(DropReason::FloodFromTunnel);
    }
    guard::neighbour(kernel, vtep.net, &meta.vtep, packet)?;
    let Some(key) = forward::lookup(kernel, vtep.net, packet)?.as_local() else {
        return Err(DropReason::TunnelToTunnel);
    };
    let Some(receiver) = kernel.port(&key) else { return Err(DropReason::MissingLocalPort) };
    *concerned = Concerned::of(&receiver);
    packet.zone = forward::zone(meta, &receiver, Direction::ToPort, vtep.net);
    conntrack::decide(kernel, packet)?;
    flow::note(packet, 0);
    flow::note(packet, 1);
    kernel.count(receiver.place(), Direction::ToPort, meta.length);
    flow::keep_local(kernel, packet, (0, key.ifindex), &receiver);
    Ok(forward::deliver(key.ifindex, receiver.flags))
}

/// The one way out for a drop.
#[inline(always)]
fn drop<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    entry: Entry,
    (port, reason): (Concerned, DropReason),
) -> Verdict {
    kernel.count_drop(meta, &Drop { reason, entry, port });
    Verdict::Drop(reason)
}
