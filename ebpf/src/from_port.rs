//! TCX ingress of the host side of a port.

use crate::fill_in;
use crate::maps::Room;
use crate::skb::{self, Skb};
use crate::verdict::of_port;
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::Meta;

/// Decides about a frame from the port's VM.
#[classifier]
pub fn from_port(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    let Some(Room { meta, packet, .. }) = skb::room() else { return TC_ACT_SHOT };
    *meta = Meta { checksum_end: fill_in::end(skb), ..skb.meta() };
    packet::from_port(skb, meta, packet);
    of_port(skb, meta, packet)
}
