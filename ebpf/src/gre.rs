//! GRE, which has no device here: a TCX ingress of the underlay's devices takes frames out of it, and a TCX
//! egress of the VXLAN device puts in what is sent there for GRE. What has its next hop already
//! (`Verdict::Underlay`) does without the latter.

use crate::fill_in;
use crate::maps::Room;
use crate::skb::{self, Skb};
use crate::underlay::{next_hop, put_in_gre, send, take_out_of_gre};
use crate::verdict::{of_tunnel, refused};
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::{DropReason, Entry, GRE, GRE_OUTER_BYTES, Kernel, Meta};

/// A frame for this host; `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// Takes frames from VTEPs that may send to us out of GRE. All else goes on to whatever else the device has,
/// and to the host's stack.
#[classifier]
pub fn from_gre(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    // SAFETY: the context pointer; a program may read this field.
    if unsafe { (*skb.raw()).pkt_type } != PACKET_HOST {
        return TC_ACT_UNSPEC;
    }
    let Some(Room { meta, packet, .. }) = skb::room() else { return TC_ACT_UNSPEC };
    *meta = Meta { checksum_end: fill_in::end(skb), ..skb.meta() };
    let Some(experienced) = packet::from_gre(skb, meta) else { return TC_ACT_UNSPEC };
    if !take_out_of_gre(skb, experienced) {
        return refused(skb, meta, Entry::FromTunnel, DropReason::GreRefused);
    }
    packet::from_tunnel(skb, meta, packet);
    of_tunnel(skb, meta, packet)
}

/// Puts a frame into GRE that has a key of it, and sends it to its next hop: it never reaches the device. A program of
/// ours may be running on this CPU that has what is in the room.
#[classifier]
pub fn to_tunnel(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    let mut meta = skb.meta();
    skb.add_tunnel(&mut meta);
    if meta.vni & GRE == 0 {
        return TC_ACT_UNSPEC;
    }
    match into_gre(skb, &meta) {
        Ok(done) => done,
        Err(reason) => refused(skb, &meta, Entry::ToTunnel, reason),
    }
}

/// Not inlined: the metadata would be on the stack twice.
#[inline(never)]
fn into_gre(skb: &mut Skb, meta: &Meta) -> Result<i32, DropReason> {
    // The helper tells of what is to leave as of what has come in: the other end is the destination.
    let (vtep, local) = (meta.local, meta.vtep);
    if skb.config().is_none_or(|config| config.direct_port == 0) {
        return Err(DropReason::GreForbidden);
    }
    if !vtep.is_v4() || !local.is_v4() {
        return Err(DropReason::GreUnreachable);
    }
    let Some(hop) = next_hop(skb, &vtep, &local) else { return Err(DropReason::GreUnreachable) };
    // The next hop's MTU is that of a packet.
    if meta.gso_size == 0 && meta.length + GRE_OUTER_BYTES > hop.mtu {
        return Err(DropReason::GreTooBig);
    }
    if !put_in_gre(skb, meta.vni, vtep.words()[3], local.words()[3]) {
        return Err(DropReason::GreRefused);
    }
    Ok(send(hop.gateway, hop.ifindex))
}
