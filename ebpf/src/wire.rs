//! TCX ingress and egress of an uplink: the frames that it brings, and those that the host's own
//! stack sends out by it.

use crate::fill_in;
use crate::maps::Room;
use crate::skb::{self, Skb};
use crate::verdict::of_uplink;
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::{DELIVERED_MARK, Entry, Meta};

/// Decides about a frame that comes in.
#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    cross(Skb::of(&ctx), Entry::FromUplink)
}

/// Decides about a frame that leaves.
#[classifier]
pub fn to_uplink(ctx: TcContext) -> i32 {
    cross(Skb::of(&ctx), Entry::ToUplink)
}

/// What is none of ours goes on to whatever else the device has, and to where it goes without us;
/// so does what a program of ours sends by this way. That is asked first: such a frame may come from
/// a program that is still running on this CPU, and has what is in the room.
#[inline(always)]
fn cross(skb: &mut Skb, entry: Entry) -> i32 {
    // SAFETY: the context pointer; a program may read and write this field.
    unsafe {
        if (*skb.raw()).mark == DELIVERED_MARK {
            (*skb.raw()).mark = 0;
            return TC_ACT_UNSPEC;
        }
    }
    let Some(Room { meta, packet, .. }) = skb::room() else { return TC_ACT_UNSPEC };
    *meta = Meta { checksum_end: fill_in::end(skb), ..skb.meta() };
    if !packet::from_wire(skb, meta, entry, packet) {
        return TC_ACT_UNSPEC;
    }
    of_uplink(skb, meta, entry, packet)
}
