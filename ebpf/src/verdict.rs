//! Doing what the core decided.

use crate::maps::CONFIG;
use crate::skb::Skb;
use crate::underlay;
use aya_ebpf::bindings::{
    BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_OK, TC_ACT_SHOT, bpf_tunnel_key,
};
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_redirect_peer, bpf_skb_change_type, bpf_skb_set_tunnel_key,
    bpf_skb_set_tunnel_opt,
};
use core::mem::MaybeUninit;
use packet::{
    Addr, Concerned, DELIVERED_MARK, Drop, DropReason, Entry, Kernel, Meta, TUNNEL_TTL, Verdict,
    Via,
};

/// A frame for the one who has it; `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// Executes a verdict; the program's return value.
#[inline(always)]
pub(crate) fn execute(skb: &mut Skb, meta: &Meta, entry: Entry, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Drop(_) => TC_ACT_SHOT,
        Verdict::DeliverLocal { ifindex, via: Via::Peer } => {
            address_to_host(skb);
            // SAFETY: a helper with numbers as arguments.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        Verdict::DeliverLocal { ifindex, via: Via::Interface } => deliver(skb, ifindex),
        Verdict::Reflect => deliver(skb, meta.ifindex),
        Verdict::Tunnel { vni, vtep, local } => tunnel(skb, meta, entry, (vni, &vtep, &local)),
        Verdict::Underlay { vni, vtep, local, gateway, ifindex } => {
            if underlay::encapsulate(skb, vni, vtep, local) {
                return underlay::send(gateway, ifindex);
            }
            // What the VM has encapsulated itself, for one. The frame is as it was.
            let (vtep, local) = (Addr::v4_word(vtep), Addr::v4_word(local));
            tunnel(skb, meta, entry, (vni, &vtep, &local))
        }
        Verdict::Pass => {
            // SAFETY: the context pointer; a program may write this field.
            unsafe { (*skb.0).mark = 0 };
            TC_ACT_OK
        }
    }
}

/// Sends the frame through the tunnel device.
#[inline(never)]
fn tunnel(
    skb: &mut Skb,
    meta: &Meta,
    entry: Entry,
    (vni, vtep, local): (u32, &Addr, &Addr),
) -> i32 {
    if !set_tunnel_key(skb, vni, vtep, local) {
        let reason = DropReason::TunnelKeyRefused;
        let drop = Drop { reason, entry, port: Concerned::default() };
        skb.count_drop(meta, &drop);
        return TC_ACT_SHOT;
    }
    let ifindex = CONFIG.get(0).map_or(0, |config| config.tunnel_ifindex);
    // SAFETY: a helper with numbers as arguments.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Says that the frame is for whoever gets it. Its MAC is the station's and not that of the device
/// on which it came in, so the kernel took it for somebody else's, and the station's IP layer would
/// drop it for that. From Linux 6.15 on (commit c4327229948879814229b46aa26a750718888503)
/// `bpf_redirect_peer` does it by itself.
#[inline(always)]
fn address_to_host(skb: &mut Skb) {
    // SAFETY: the context pointer; a program may read this field.
    if unsafe { (*skb.0).pkt_type } != PACKET_HOST {
        // SAFETY: the context pointer and a number. It fails for no type that a frame has here.
        unsafe { bpf_skb_change_type(skb.0, PACKET_HOST) };
    }
}

/// Sends the frame out of a port's interface, with the mark that its egress hook asks for.
#[inline(always)]
fn deliver(skb: &mut Skb, ifindex: u32) -> i32 {
    // SAFETY: the context pointer; a program may write this field.
    unsafe { (*skb.0).mark = DELIVERED_MARK };
    // SAFETY: a helper with numbers as arguments.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Tells the tunnel device where the frame goes and whence; a local address of zero means none.
///
/// Not inlined: the key would take its place on the stack of every path.
#[inline(never)]
fn set_tunnel_key(skb: &mut Skb, vni: u32, vtep: &Addr, local: &Addr) -> bool {
    let mut key = MaybeUninit::<bpf_tunnel_key>::zeroed();
    // SAFETY: zero bytes are a valid value.
    let key = unsafe { key.assume_init_mut() };
    key.tunnel_id = vni;
    key.tunnel_ttl = TUNNEL_TTL;
    let flags = match vtep.as_v4() {
        Some(octets) => {
            // The helper takes IPv4 in host order. RFC 7348, 5: the outer checksum should be 0.
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(octets);
            let local = local.as_v4().map_or(0, u32::from_be_bytes);
            key.__bindgen_anon_3.local_ipv4 = local;
            BPF_F_ZERO_CSUM_TX
        }
        None => {
            key.__bindgen_anon_1.remote_ipv6 = vtep.words();
            key.__bindgen_anon_3.local_ipv6 = local.words();
            BPF_F_TUNINFO_IPV6
        }
    };
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the helper reads `size` bytes of a value of that size.
    if unsafe { bpf_skb_set_tunnel_key(skb.0, key, size, u64::from(flags)) } != 0 {
        return false;
    }
    // A policy tag of zero, which the device writes as no tag. Without it the device takes the tag
    // from memory that it has not set (`vxlan_xmit_one`, `struct vxlan_metadata _md`), and a plain
    // VXLAN device refuses the frame for the bits that RFC 7348, 5 reserves.
    let mut tag = 0_u32;
    // SAFETY: the helper reads four bytes of a value of that size, `struct vxlan_metadata`.
    unsafe { bpf_skb_set_tunnel_opt(skb.0, (&raw mut tag).cast(), 4) == 0 }
}
