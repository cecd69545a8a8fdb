//! Passing by the tunnel device: the outer packet is made here and goes straight to its next hop,
//! and is taken off here where it comes in.
//!
//! What leaves is what the device would send: IPv4, UDP without a checksum (RFC 7348, 5), VXLAN.
//! It does not pass the host's netfilter, which is why an agent can be told not to use this.

use crate::maps::CONFIG;
use crate::skb::Skb;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as FibLookup,
    bpf_redir_neigh as Neighbour,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_redirect_neigh,
    bpf_skb_adjust_room, bpf_skb_store_bytes,
};
use core::mem::MaybeUninit;
use packet::{Addr, HEADER_BYTES, Kernel, NextHop, Outer};

/// `AF_INET` of `linux/socket.h`.
const AF_INET: u8 = 2;
/// The loopback device: a look-up from there is one for the host's own packets.
const LOOPBACK: u32 = 1;
const UDP: u8 = 17;
const ETHERNET_BYTES: u32 = 14;

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
    let found = unsafe { bpf_fib_lookup(skb.0.cast(), question, size, BPF_FIB_LOOKUP_SKIP_NEIGH) };
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
    const FLAGS: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
        | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
        | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
        | (ETHERNET_BYTES as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
    let Some(start) = skb.peek_words(0) else { return false };
    let port = CONFIG.get(0).map_or(0, |config| config.direct_port);
    if port == 0 {
        // The verdict is from before that was changed.
        return false;
    }
    // SAFETY: the context pointer.
    let length = unsafe { (*skb.0).len };
    // SAFETY: the context pointer; before the frame changes, as the device does it.
    let hash = unsafe { bpf_get_hash_recalc(skb.0) } as u32;
    // SAFETY: a helper without arguments.
    let identity = unsafe { bpf_get_prandom_u32() };
    let headers = Outer { vni, vtep, local, port, length, hash, identity }.headers(&start);
    // SAFETY: the context pointer, and numbers.
    if unsafe { bpf_skb_adjust_room(skb.0, HEADER_BYTES as i32, BPF_ADJ_ROOM_MAC, FLAGS) } != 0 {
        return false;
    }
    // Behind the frame's Ethernet header, in whose place the next hop's will come.
    // SAFETY: the helper reads fewer bytes than there are.
    unsafe {
        bpf_skb_store_bytes(skb.0, ETHERNET_BYTES, headers.as_ptr().cast(), HEADER_BYTES, 0) == 0
    }
}

/// Takes the outer packet off. `None`: the kernel refuses, and the frame is as it was. `false`: it
/// is nothing that anybody could use any more.
#[inline(always)]
pub(crate) fn decapsulate(skb: &mut Skb) -> Option<bool> {
    const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
    let frame: [u8; ETHERNET_BYTES as usize] = skb.load(HEADER_BYTES)?;
    let flags = match [frame[12], frame[13]] {
        ETHERTYPE_IPV6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        _ => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
    };
    // What a card has found of the outer checksum says nothing of the inner one: without a flag
    // the helper forgets it.
    // SAFETY: the context pointer, and numbers.
    let taken = unsafe {
        bpf_skb_adjust_room(skb.0, -(HEADER_BYTES as i32), BPF_ADJ_ROOM_MAC, u64::from(flags))
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
