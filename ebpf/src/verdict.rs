//! Doing what the core decided.

use crate::flood;
use crate::maps::{ASKED, CONFIG, HANDED};
use crate::skb::Skb;
use crate::underlay;
use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC,
    bpf_tunnel_key,
};
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_redirect_peer, bpf_skb_change_type, bpf_skb_load_bytes,
    bpf_skb_set_tunnel_key, bpf_skb_set_tunnel_opt, bpf_skb_vlan_pop, bpf_skb_vlan_push,
};
use aya_ebpf::maps::RingBuf;
use core::mem::MaybeUninit;
use packet::{
    Addr, Concerned, DELIVERED_MARK, Drop, DropReason, Entry, HANDED_FRAME_BYTES, HandedOff,
    Kernel, Meta, Packet, PortKey, Question, TUNNEL_TTL, Verdict, Via,
};

/// A frame for the one who has it; `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;
/// Ethertype of a VLAN tag (IEEE 802.1Q).
pub(crate) const DOT1Q: u16 = 0x8100;

/// Executes the verdict about a port's frame; the program's return value.
#[inline(always)]
pub(crate) fn of_port(skb: &mut Skb, meta: &Meta, packet: &mut Packet) -> i32 {
    match packet.verdict {
        Verdict::Flood { net, .. } => flood::from_port(skb, meta, packet, net),
        Verdict::Strangers { net } => flood::to_strangers(skb, net),
        _ => execute(skb, meta, Entry::FromPort, &packet.verdict),
    }
}

/// The same of a frame that comes out of a tunnel.
#[inline(always)]
pub(crate) fn of_tunnel(skb: &mut Skb, meta: &Meta, packet: &mut Packet) -> i32 {
    match of_uplink(skb, meta, Entry::FromTunnel, packet) {
        // What it was copied from is for nobody else.
        TC_ACT_UNSPEC => TC_ACT_SHOT,
        done => done,
    }
}

/// The same of a frame on an uplink, which may go on.
#[inline(always)]
pub(crate) fn of_uplink(skb: &mut Skb, meta: &Meta, entry: Entry, packet: &mut Packet) -> i32 {
    match packet.verdict {
        Verdict::Flood { .. } => flood::from_elsewhere(skb, meta, packet, entry),
        Verdict::Copy { ifindex, vlan } => flood::copy(skb, PortKey::tagged(ifindex, vlan)),
        _ => execute(skb, meta, entry, &packet.verdict),
    }
}

/// What is the same for all of them.
#[inline(always)]
pub(crate) fn execute(skb: &mut Skb, meta: &Meta, entry: Entry, verdict: &Verdict) -> i32 {
    match *verdict {
        Verdict::Drop(_) => TC_ACT_SHOT,
        Verdict::DeliverLocal { ifindex, via: Via::Peer } => {
            if !set_tag(skb, meta, 0) {
                return refused(skb, meta, entry, DropReason::VlanRefused);
            }
            address_to_host(skb);
            // SAFETY: a helper with numbers as arguments.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        Verdict::DeliverLocal { ifindex, via: Via::Interface } => {
            if !set_tag(skb, meta, 0) {
                return refused(skb, meta, entry, DropReason::VlanRefused);
            }
            deliver(skb, ifindex)
        }
        Verdict::DeliverLocal { ifindex, via: Via::Tagged(vlan) } => {
            if !set_tag(skb, meta, vlan) {
                return refused(skb, meta, entry, DropReason::VlanRefused);
            }
            deliver(skb, ifindex)
        }
        Verdict::Uplink { ifindex, vlan } => {
            if !set_tag(skb, meta, vlan) {
                return refused(skb, meta, entry, DropReason::VlanRefused);
            }
            deliver(skb, ifindex)
        }
        Verdict::Host { ifindex, vlan } => {
            if !set_tag(skb, meta, vlan) {
                return refused(skb, meta, entry, DropReason::VlanRefused);
            }
            // SAFETY: the context pointer; a program may write this field.
            unsafe { (*skb.raw()).mark = DELIVERED_MARK };
            // SAFETY: a helper with numbers as arguments.
            unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 }
        }
        Verdict::Flood { .. } | Verdict::Copy { .. } | Verdict::Strangers { .. } => TC_ACT_SHOT,
        Verdict::Reflect => deliver(skb, meta.ifindex),
        Verdict::Tunnel { vni, ref vtep, ref local } => {
            if !set_tag(skb, meta, 0) {
                return refused(skb, meta, entry, DropReason::VlanRefused);
            }
            tunnel(skb, meta, entry, (vni, vtep, local))
        }
        Verdict::Underlay { vni, vtep, local, gateway, ifindex } => {
            if underlay::encapsulate(skb, vni, vtep, local) {
                return underlay::send(gateway, ifindex);
            }
            // What the VM has encapsulated itself, for one. The frame is as it was.
            let (vtep, local) = (Addr::v4_word(vtep), Addr::v4_word(local));
            tunnel(skb, meta, entry, (vni, &vtep, &local))
        }
        Verdict::HandOff { port, question } => {
            let found_room = match question {
                Question::Lease => hand_off(skb, meta, port, &HANDED),
                Question::Request => hand_off(skb, meta, port, &ASKED),
            };
            if !found_room {
                return refused(skb, meta, entry, DropReason::HandOffRefused);
            }
            TC_ACT_SHOT
        }
        Verdict::Pass => {
            // SAFETY: the context pointer; a program may write this field.
            unsafe { (*skb.raw()).mark = 0 };
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
        return refused(skb, meta, entry, DropReason::TunnelKeyRefused);
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
    if unsafe { (*skb.raw()).pkt_type } != PACKET_HOST {
        // SAFETY: the context pointer and a number. It fails for no type that a frame has here.
        unsafe { bpf_skb_change_type(skb.raw(), PACKET_HOST) };
    }
}

/// Drops what the kernel refused.
#[inline(always)]
pub(crate) fn refused(skb: &mut Skb, meta: &Meta, entry: Entry, reason: DropReason) -> i32 {
    skb.count_drop(meta, &Drop { reason, entry, port: Concerned::default(), rule: 0 });
    TC_ACT_SHOT
}

/// Gives the frame the VLAN tag that it leaves with, 0 for none, in the place of the one that it
/// came with; whether it has that now. An answer goes back with the tag of the question.
#[inline(always)]
fn set_tag(skb: &mut Skb, meta: &Meta, vlan: u16) -> bool {
    // SAFETY: the context pointer.
    if meta.vlan != 0 && unsafe { bpf_skb_vlan_pop(skb.raw()) } != 0 {
        return false;
    }
    // SAFETY: the context pointer, and numbers.
    vlan == 0 || unsafe { bpf_skb_vlan_push(skb.raw(), DOT1Q.to_be(), vlan) } == 0
}

/// Gives a copy of the frame to the agent; whether all of it found room. Inlined: the verifier must see
/// which map it is.
#[inline(always)]
fn hand_off(skb: &mut Skb, meta: &Meta, port: u32, ring: &RingBuf) -> bool {
    let length = meta.length;
    if length > HANDED_FRAME_BYTES as u32 {
        return false;
    }
    let Some(mut entry) = ring.reserve::<HandedOff>(0) else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: the memory of a record, which is written field by field: it has no room on the stack.
    unsafe {
        (&raw mut (*record).time_ns).write(meta.now_ns);
        (&raw mut (*record).ifindex).write(meta.ifindex);
        (&raw mut (*record).port).write(port);
        (&raw mut (*record).vlan).write(u32::from(meta.vlan));
        (&raw mut (*record).length).write(length);
    }
    // SAFETY: as above.
    let frame = unsafe { &raw mut (*record).frame };
    // SAFETY: at most `HANDED_FRAME_BYTES` bytes are written to an array of that size.
    let failed = unsafe { bpf_skb_load_bytes(skb.raw().cast(), 0, frame.cast(), length.max(1)) };
    if failed != 0 {
        entry.discard(0);
        return false;
    }
    entry.submit(0);
    true
}

/// Sends the frame out of an interface, with the mark that its egress hook asks for: a port's lets
/// nothing else pass, and an uplink's has nothing more to say about it.
#[inline(always)]
fn deliver(skb: &mut Skb, ifindex: u32) -> i32 {
    // SAFETY: the context pointer; a program may write this field.
    unsafe { (*skb.raw()).mark = DELIVERED_MARK };
    // SAFETY: a helper with numbers as arguments.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Tells the tunnel device where the frame goes and whence; a local address of zero means none.
///
/// Not inlined: the key would take its place on the stack of every path.
#[inline(never)]
pub(crate) fn set_tunnel_key(skb: &mut Skb, vni: u32, vtep: &Addr, local: &Addr) -> bool {
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
    if unsafe { bpf_skb_set_tunnel_key(skb.raw(), key, size, u64::from(flags)) } != 0 {
        return false;
    }
    // A policy tag of zero, which the device writes as no tag. Without it the device takes the tag
    // from memory that it has not set (`vxlan_xmit_one`, `struct vxlan_metadata _md`), and a plain
    // VXLAN device refuses the frame for the bits that RFC 7348, 5 reserves.
    let mut tag = 0_u32;
    // SAFETY: the helper reads four bytes of a value of that size, `struct vxlan_metadata`.
    unsafe { bpf_skb_set_tunnel_opt(skb.raw(), (&raw mut tag).cast(), 4) == 0 }
}
