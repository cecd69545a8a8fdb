//! Passing by the tunnel device: the outer packet is made here and goes straight to its next hop,
//! and is taken off here where it comes in.
//!
//! What leaves in VXLAN is what the device would send: IPv4, UDP without a checksum (RFC 7348, 5), VXLAN.
//! It does not pass the host's netfilter, which is why an agent can be told not to use this. GRE has no
//! other way.

use crate::maps::CONFIG;
use crate::skb::Skb;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as FibLookup, bpf_redir_neigh as Neighbour,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_redirect_neigh,
    bpf_skb_adjust_room, bpf_skb_ecn_set_ce, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    bpf_skb_vlan_push,
};
use core::mem::MaybeUninit;
use packet::{Addr, GRE, GRE_HEADER_BYTES, HEADER_BYTES, Kernel, NextHop, Outer};

/// `AF_INET` of `linux/socket.h`.
const AF_INET: u8 = 2;
/// The loopback device: a look-up from there is one for the host's own packets.
const LOOPBACK: u32 = 1;
const UDP: u8 = 17;
const ETHERNET_BYTES: u32 = 14;
/// What `bpf_skb_adjust_room` is told of a frame inside.
const AROUND_ETHERNET: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
    | (ETHERNET_BYTES as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
const ETHERTYPE_AT: u32 = 12;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Where an outer packet goes first, by the host's routes.
///
/// Not inlined: the question would take its place on the stack of every path.
#[inline(never)]
pub(crate) fn next_hop(skb: &Skb, vtep: &Addr, local: &Addr) -> Option<NextHop> {
    let mut question = MaybeUninit::<FibLookup>::zeroed();
    // SAFETY: zero bytes are a valid value.
    let question = unsafe { question.assume_init_mut() };
    question.family = AF_INET;
    question.l4_protocol = UDP;
    // Any length: the helper tells the MTU only to whoever gives one.
    question.__bindgen_anon_1.tot_len = 1;
    question.ifindex = LOOPBACK;
    question.__bindgen_anon_3.ipv4_src = local.words()[3];
    question.__bindgen_anon_4.ipv4_dst = vtep.words()[3];
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the helper reads and writes `size` bytes of a value of that size.
    let found =
        unsafe { bpf_fib_lookup(skb.raw().cast(), question, size, BPF_FIB_LOOKUP_SKIP_NEIGH) };
    if found != i64::from(BPF_FIB_LKUP_RET_SUCCESS) || question.family != AF_INET {
        return None;
    }
    // SAFETY: the helper has filled these members, as the family is IPv4.
    let (gateway, mtu) =
        unsafe { (question.__bindgen_anon_4.ipv4_dst, question.__bindgen_anon_1.mtu_result) };
    Some(NextHop { ifindex: question.ifindex, gateway, mtu: u32::from(mtu) })
}

/// Puts an outer packet around the frame; whether it worked. Else the frame is as it was.
#[inline(never)]
pub(crate) fn encapsulate(skb: &mut Skb, vni: u32, vtep: u32, local: u32) -> bool {
    const FLAGS: u64 = AROUND_ETHERNET | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64;
    if vni & GRE != 0 {
        return put_in_gre(skb, vni, vtep, local);
    }
    let Some(start) = skb.peek_words(0) else { return false };
    let port = CONFIG.get(0).map_or(0, |config| config.direct_port);
    if port == 0 {
        // The verdict is from before that was changed.
        return false;
    }
    // SAFETY: the context pointer.
    let length = unsafe { (*skb.raw()).len };
    // SAFETY: the context pointer; before the frame changes, as the device does it.
    let hash = unsafe { bpf_get_hash_recalc(skb.raw()) } as u32;
    // SAFETY: a helper without arguments.
    let identity = unsafe { bpf_get_prandom_u32() };
    let headers = Outer { vni, vtep, local, port, length, hash, identity }.headers(&start);
    // SAFETY: the context pointer, and numbers.
    if unsafe { bpf_skb_adjust_room(skb.raw(), HEADER_BYTES as i32, BPF_ADJ_ROOM_MAC, FLAGS) } != 0
    {
        return false;
    }
    // Behind the frame's Ethernet header, in whose place the next hop's will come.
    // SAFETY: the helper reads fewer bytes than there are.
    unsafe {
        bpf_skb_store_bytes(skb.raw(), ETHERNET_BYTES, headers.as_ptr().cast(), HEADER_BYTES, 0)
            == 0
    }
}

/// The same of GRE. Segments stay as long as they are: their network's MTU leaves room for what is
/// put around each.
#[inline(never)]
pub(crate) fn put_in_gre(skb: &mut Skb, vni: u32, vtep: u32, local: u32) -> bool {
    const STAYS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
    const FLAGS: u64 = AROUND_ETHERNET | BPF_F_ADJ_ROOM_ENCAP_L4_GRE as u64 | STAYS;
    /// `EALREADY` of `asm-generic/errno.h`: the kernel knows of something around the frame.
    const ENCAPSULATED: i64 = -114;
    let Some(start) = skb.load_words::<4>(0) else { return false };
    // SAFETY: the context pointer.
    let length = unsafe { (*skb.raw()).len };
    let outer = Outer { vni, vtep, local, port: 0, length, hash: 0, identity: 0 };
    let headers = outer.gre_headers(&start);
    let [type0, type1, ..] = start[3].to_ne_bytes();
    // ARP, for one.
    let is_ip = [type0, type1] == ETHERTYPE_IPV4 || [type0, type1] == ETHERTYPE_IPV6;
    if !is_ip && !(skb.store(ETHERTYPE_AT, &ETHERTYPE_IPV4) && take_type_from_frame(skb)) {
        return false;
    }
    let room = GRE_HEADER_BYTES as i32;
    // SAFETY: the context pointer, and numbers.
    let mut made = unsafe { bpf_skb_adjust_room(skb.raw(), room, BPF_ADJ_ROOM_MAC, FLAGS) };
    if made == ENCAPSULATED {
        // What has come out of GRE and goes on into it: the kernel still knows where the frame inside
        // is, and that its segments are in GRE. Or the VM has a tunnel of its own in it.
        // SAFETY: as above.
        made = unsafe { bpf_skb_adjust_room(skb.raw(), room, BPF_ADJ_ROOM_MAC, STAYS) };
    }
    if made != 0 {
        return false;
    }
    // A MAC for all would not go to a next hop.
    skb.store(0, &[0; 6])
        // SAFETY: the helper reads fewer bytes than there are.
        && unsafe {
            let headers = headers.as_ptr().cast();
            bpf_skb_store_bytes(skb.raw(), ETHERNET_BYTES, headers, GRE_HEADER_BYTES, 0) == 0
        }
}

/// Has the kernel take the frame for what its header says. `bpf_skb_adjust_room` goes by what the
/// kernel takes it for, works on IP alone, and tells it of nothing but IP. When a tag is taken out of a
/// frame the kernel looks what is behind it: so two are put in, of which the second is in the frame, and taken out.
#[inline(never)]
fn take_type_from_frame(skb: &mut Skb) -> bool {
    const DOT1Q: u16 = 0x8100_u16.to_be();
    // SAFETY: the context pointer, and numbers.
    unsafe {
        bpf_skb_vlan_push(skb.raw(), DOT1Q, 1) == 0
            && bpf_skb_vlan_push(skb.raw(), DOT1Q, 1) == 0
            && bpf_skb_vlan_pop(skb.raw()) == 0
            && bpf_skb_vlan_pop(skb.raw()) == 0
    }
}

/// Takes a frame out of GRE; whether there is a frame then. The frame inside is told of congestion that was
/// experienced on the way, if it can hear of it (RFC 6040, 4.2).
#[inline(never)]
pub(crate) fn take_out_of_gre(skb: &mut Skb, experienced: bool) -> bool {
    let Some(frame) = skb.load::<{ ETHERNET_BYTES as usize }>(GRE_HEADER_BYTES) else {
        return false;
    };
    let flags = match [frame[12], frame[13]] {
        ETHERTYPE_IPV6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        _ => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
    };
    let flags = u64::from(flags | BPF_F_ADJ_ROOM_FIXED_GSO);
    let room = -(GRE_HEADER_BYTES as i32);
    // SAFETY: the context pointer, and numbers.
    let taken = unsafe { bpf_skb_adjust_room(skb.raw(), room, BPF_ADJ_ROOM_MAC, flags) } == 0;
    if !taken || !skb.store(0, &frame) {
        return false;
    }
    if !matches!([frame[12], frame[13]], ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
        return take_type_from_frame(skb);
    }
    if experienced {
        // SAFETY: the context pointer.
        unsafe { bpf_skb_ecn_set_ce(skb.raw()) };
    }
    true
}

/// Takes the outer packet off. `None`: the kernel refuses, and the frame is as it was. `false`: it
/// is nothing that anybody could use any more.
#[inline(always)]
pub(crate) fn decapsulate(skb: &mut Skb) -> Option<bool> {
    let frame: [u8; ETHERNET_BYTES as usize] = skb.load(HEADER_BYTES)?;
    let flags = match [frame[12], frame[13]] {
        ETHERTYPE_IPV6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        _ => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
    };
    // What a card has found of the outer checksum says nothing of the inner one: without a flag
    // the helper forgets it.
    // SAFETY: the context pointer, and numbers.
    let taken = unsafe {
        bpf_skb_adjust_room(skb.raw(), -(HEADER_BYTES as i32), BPF_ADJ_ROOM_MAC, u64::from(flags))
    };
    // The outer Ethernet header has stayed.
    if taken == 0 { Some(skb.store(0, &frame)) } else { None }
}

/// Sends it to its next hop.
#[inline(never)]
pub(crate) fn send(gateway: u32, ifindex: u32) -> i32 {
    let mut neighbour = MaybeUninit::<Neighbour>::zeroed();
    // SAFETY: zero bytes are a valid value.
    let neighbour = unsafe { neighbour.assume_init_mut() };
    neighbour.nh_family = u32::from(AF_INET);
    neighbour.__bindgen_anon_1.ipv4_nh = gateway;
    let size = size_of::<Neighbour>() as i32;
    // SAFETY: the helper reads `size` bytes of a value of that size.
    unsafe { bpf_redirect_neigh(ifindex, neighbour, size, 0) as i32 }
}
