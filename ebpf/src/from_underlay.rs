//! TCX ingress of a device of the underlay.

use crate::fill_in;
use crate::maps::Room;
use crate::skb::{self, Skb};
use crate::underlay;
use crate::verdict::of_tunnel;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::{Meta, Opened};

/// A frame for this host; `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// Takes frames from VTEPs that may send to us out of their outer packets. What is foreign goes on to
/// whatever else the device has, and to the host's stack.
#[classifier]
pub fn from_underlay(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    // SAFETY: the context pointer; a program may read these fields.
    let (kind, gso) = unsafe { ((*skb.raw()).pkt_type, (*skb.raw()).gso_size) };
    if kind != PACKET_HOST || gso != 0 {
        return TC_ACT_UNSPEC;
    }
    let Some(Room { meta, packet, .. }) = skb::room() else { return TC_ACT_UNSPEC };
    *meta = Meta { checksum_end: fill_in::end(skb), ..skb.meta() };
    let opened = packet::from_underlay(skb, meta, packet);
    if opened == Opened::Foreign {
        return TC_ACT_UNSPEC;
    }
    match underlay::decapsulate(skb) {
        // The frame is as it was: the tunnel device may know better.
        None => return TC_ACT_UNSPEC,
        Some(false) => return TC_ACT_SHOT,
        Some(true) => {}
    }
    if opened == Opened::Admitted {
        packet::from_opened(skb, meta, packet);
    }
    of_tunnel(skb, meta, packet)
}
