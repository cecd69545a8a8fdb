//! Copies of a frame. Each is sent before the program goes on, so what it runs into must not use
//! the room of this CPU: a port's egress hook does not, an uplink's does not for such a frame, and
//! the tunnel device's never does.

use crate::maps::{AFAR, CONFIG, FLOOD, NETS};
use crate::numbers::each;
use crate::skb::Skb;
use crate::verdict::{DOT1Q, set_tunnel_key};
use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push,
};
use packet::{
    DELIVERED_MARK, Direction, Entry, FLOOD_TARGETS, FLOOD_VTEPS, FloodKey, Kernel, Meta, Packet,
    PortKey, Verdict, receives,
};

/// Gives each port of the network but the sender a copy, and so each VTEP of the network; or the
/// frame leaves by the uplink, and the host gets a copy. A function of its own, for the sake of the
/// stack.
#[inline(never)]
pub(crate) fn from_port(skb: &mut Skb, meta: &Meta, packet: &mut Packet, net: u32) -> i32 {
    take_tag(skb);
    set_mark(skb, DELIVERED_MARK);
    copy_to_ports(skb, meta, packet, Entry::FromPort);
    // SAFETY: the maps are preallocated; a value that the agent replaces is read word by word.
    let Some(uplink) = unsafe { NETS.get(&net) }.map(|net| net.uplink) else { return TC_ACT_SHOT };
    if uplink.ifindex == 0 {
        return to_vteps(skb, net, 0);
    }
    if !push(skb, u32::from(uplink.vlan)) {
        return TC_ACT_SHOT;
    }
    // SAFETY: the context pointer, and numbers.
    unsafe {
        bpf_clone_redirect(skb.raw(), uplink.ifindex, u64::from(BPF_F_INGRESS));
        bpf_redirect(uplink.ifindex, 0) as i32
    }
}

/// Sends the frame to each VTEP of the network that is no host's.
#[inline(always)]
pub(crate) fn to_strangers(skb: &mut Skb, net: u32) -> i32 {
    take_tag(skb);
    to_vteps(skb, net, 1)
}

/// Gives each port of the network a copy of a frame that is from elsewhere, which goes on as it was.
#[inline(never)]
pub(crate) fn from_elsewhere(skb: &mut Skb, meta: &Meta, packet: &mut Packet, entry: Entry) -> i32 {
    let tag = take_tag(skb);
    let mark = set_mark(skb, DELIVERED_MARK);
    copy_to_ports(skb, meta, packet, entry);
    go_on(skb, mark, tag)
}

/// Gives the port a copy; the frame goes on as it was.
#[inline(always)]
pub(crate) fn copy(skb: &mut Skb, key: PortKey) -> i32 {
    let tag = take_tag(skb);
    let mark = set_mark(skb, DELIVERED_MARK);
    copy_to(skb, key);
    go_on(skb, mark, tag)
}

/// Sends a copy to each VTEP of the network whose `is_foreign` is at least this; the frame itself
/// ends here.
#[inline(never)]
fn to_vteps(skb: &mut Skb, net: u32, is_foreign: u32) -> i32 {
    let ifindex = CONFIG.get(0).map_or(0, |config| config.tunnel_ifindex);
    // The host routes the outer packet by the mark.
    set_mark(skb, 0);
    each(if ifindex == 0 { 0 } else { FLOOD_VTEPS }, |index| {
        // SAFETY: as above.
        let Some(afar) = (unsafe { AFAR.get(&FloodKey { net, index }) }) else { return false };
        if afar.is_foreign >= is_foreign && set_tunnel_key(skb, afar.vni, &afar.vtep, &afar.local) {
            // SAFETY: the context pointer, and numbers.
            unsafe { bpf_clone_redirect(skb.raw(), ifindex, 0) };
        }
        true
    });
    TC_ACT_SHOT
}

#[inline(always)]
fn copy_to_ports(skb: &mut Skb, meta: &Meta, packet: &mut Packet, entry: Entry) {
    let Verdict::Flood { net, sender } = packet.verdict else { return };
    each(FLOOD_TARGETS, |index| {
        // SAFETY: as above.
        let Some(target) = (unsafe { FLOOD.get(&FloodKey { net, index }) }) else { return false };
        if target.number != sender && receives(skb, meta, entry, packet, &target.key) {
            skb.count(target.place, Direction::ToPort, meta.length);
            copy_to(skb, target.key);
        }
        true
    });
}

#[inline(always)]
fn copy_to(skb: &mut Skb, key: PortKey) {
    let is_tagged = push(skb, u32::from(key.vlan));
    if is_tagged {
        // SAFETY: the context pointer, and numbers. A device that is down takes none.
        unsafe { bpf_clone_redirect(skb.raw(), key.ifindex, 0) };
    }
    if is_tagged && key.vlan != 0 {
        // SAFETY: the context pointer.
        unsafe { bpf_skb_vlan_pop(skb.raw()) };
    }
}

/// Takes the tag off, if there is one: all of it, with its priority; 0 if there is none.
#[inline(always)]
fn take_tag(skb: &mut Skb) -> u32 {
    // SAFETY: the context pointer; a program may read these fields.
    let (is_tagged, tag) = unsafe { ((*skb.raw()).vlan_present, (*skb.raw()).vlan_tci) };
    if is_tagged == 0 {
        return 0;
    }
    // SAFETY: the context pointer.
    unsafe { bpf_skb_vlan_pop(skb.raw()) };
    tag & 0xffff
}

/// Puts a tag on, if it is not 0; whether it has that now.
#[inline(always)]
fn push(skb: &mut Skb, tag: u32) -> bool {
    // SAFETY: the context pointer, and numbers.
    tag == 0 || unsafe { bpf_skb_vlan_push(skb.raw(), DOT1Q.to_be(), (tag & 0xffff) as u16) } == 0
}

/// Sets the mark; what it was.
#[inline(always)]
fn set_mark(skb: &mut Skb, mark: u32) -> u32 {
    // SAFETY: the context pointer; a program may read and write this field.
    unsafe {
        let before = (*skb.raw()).mark;
        (*skb.raw()).mark = mark;
        before
    }
}

#[inline(always)]
fn go_on(skb: &mut Skb, mark: u32, tag: u32) -> i32 {
    set_mark(skb, mark);
    if push(skb, tag) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}
