//! Stage 7, egress: counts the packet, keeps what was decided in the flow cache, and gives the
//! verdict.

use crate::flow;
use crate::kernel::{Direction, Kernel, Meta, Verdict, Via};
use crate::maps::{Fdb, Port};
use crate::parse::Packet;

/// Out of a port of this host, whose interface this is. The sender is a place, or 0.
#[inline(always)]
pub(crate) fn local<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    packet: &mut Packet,
    (sender, ifindex): (u32, u32),
    receiver: &Port,
) -> Verdict {
    kernel.count(receiver.place(), Direction::ToPort, meta.length);
    flow::keep_local(kernel, packet, (sender, ifindex), receiver);
    let via = if receiver.flags & Port::PEER != 0 { Via::Peer } else { Via::Interface };
    Verdict::DeliverLocal { ifindex, via }
}

/// To a station of another host. The sender is a place.
#[inline(always)]
pub(crate) fn remote<K: Kernel>(
    kernel: &mut K,
    packet: &mut Packet,
    sender: u32,
    station: &Fdb,
) -> Verdict {
    flow::keep_remote(kernel, packet, sender, station);
    station.tunnel()
}
