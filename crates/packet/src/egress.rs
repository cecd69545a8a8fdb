//! Stage 7, egress: counts the packet, keeps what was decided in the flow cache, and gives the
//! verdict.

use crate::flow;
use crate::kernel::{Direction, Kernel, Meta, Verdict, Via};
use crate::maps::{Port, PortKey};
use crate::parse::Packet;
use crate::port::PortHead;

/// Out of a port of this host. The sender is a place, or 0.
#[inline(always)]
pub(crate) fn local<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    packet: &mut Packet,
    (sender, key): (u32, PortKey),
    receiver: &PortHead,
) {
    kernel.count(receiver.place(), Direction::ToPort, meta.length);
    flow::keep_local(kernel, packet, (sender, key), receiver);
    let ifindex = key.ifindex;
    match key.vlan {
        0 if receiver.flags & Port::PEER != 0 => {
            packet.verdict = Verdict::DeliverLocal { ifindex, via: Via::Peer };
        }
        0 => packet.verdict = Verdict::DeliverLocal { ifindex, via: Via::Interface },
        vlan => packet.verdict = Verdict::DeliverLocal { ifindex, via: Via::Tagged(vlan) },
    }
}

/// To a station of another host, or behind an uplink, to the host itself, or to a stranger. The
/// sender is a place.
#[inline(always)]
pub(crate) fn remote<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet, sender: u32) {
    if packet.station.is_stranger() {
        // The next one may know where.
        packet.flow.give_up();
        packet.verdict = Verdict::Strangers { net: packet.path.net_out };
        return;
    }
    flow::keep_remote(kernel, packet, sender);
    let station = &packet.station;
    // Each written for itself: see `Packet::verdict`.
    if let Some(way) = station.as_host() {
        packet.verdict = Verdict::Host { ifindex: way.ifindex, vlan: way.vlan };
        return;
    }
    match (station.as_uplink(), packet.flow.direct(meta)) {
        (Some(way), _) => {
            packet.verdict = Verdict::Uplink { ifindex: way.ifindex, vlan: way.vlan };
        }
        (None, Some(direct)) => packet.verdict = direct,
        (None, None) => packet.verdict = station.tunnel(),
    }
}
