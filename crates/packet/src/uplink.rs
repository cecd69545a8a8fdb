//! Physical networks, which the host is in by an uplink: an interface, and maybe a VLAN on it.
//! Machines that nobody has told us of live there, see `strangers`.
//!
//! A port's frames for whoever is not on this host leave by the uplink; the host itself is one of
//! those machines, by the MAC of that interface. There is one way out, so nothing has to be
//! learned. What comes in by the uplink, or is sent out by the host's own stack, is looked at on
//! its way: what is for a port here is delivered, what is for all is copied, and everything goes
//! on as if we were not there but for what is for a port alone.

use crate::fdb::Fdb;
use crate::kernel::{Concerned, Drop, Entry, Kernel, Meta, Verdict, Via};
use crate::maps::PortKey;
use crate::parse::Packet;
use crate::strangers;

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
    match strangers::arrive(kernel, meta, (wire.net, &mut port), packet) {
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
            kernel.count_drop(meta, &Drop { reason, entry, port, rule: packet.zone.rule });
            packet.verdict = Verdict::Drop(reason);
            // What no port gets is still for everybody else.
            !packet.destination_mac.is_group()
        }
    }
}
