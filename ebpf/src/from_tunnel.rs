//! TCX ingress of the VXLAN device.

use crate::fill_in;
use crate::maps::Room;
use crate::skb::{self, Skb};
use crate::verdict::of_tunnel;
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::Meta;

/// Decides about a frame that came out of the tunnel.
#[classifier]
pub fn from_tunnel(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    let Some(Room { meta, packet, .. }) = skb::room() else { return TC_ACT_SHOT };
    *meta = Meta { checksum_end: fill_in::end(skb), ..skb.meta() };
    skb.add_tunnel(meta);
    packet::from_tunnel(skb, meta, packet);
    of_tunnel(skb, meta, packet)
}
