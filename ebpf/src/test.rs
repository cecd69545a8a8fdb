//! Test doors to the same core: `BPF_PROG_TEST_RUN` cannot set tunnel or VLAN metadata, so these
//! take the metadata from a map, record the verdict in another and execute nothing.
//!
//! The loader of the product never loads these programs.

use crate::maps::{Room, TEST_META, TEST_VERDICT};
use crate::skb::{self, Skb};
use crate::underlay::{put_in_gre, take_out_of_gre};
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::{DropReason, Entry, Kernel, Meta, Rewrite, Side, Verdict, VerdictRecord};

/// The frame and what the test gives.
#[inline(always)]
fn prepare(ctx: &TcContext) -> Option<(&mut Skb, &'static Meta, &'static mut Room)> {
    let (room, meta) = (skb::room()?, TEST_META.get(0)?);
    room.record = VerdictRecord::default();
    Some((Skb::of(ctx), meta, room))
}

/// Records a verdict.
#[inline(always)]
fn record(record: &mut VerdictRecord, verdict: &Verdict) -> i32 {
    verdict.write(record);
    match TEST_VERDICT.set(0, &*record, 0) {
        Ok(()) => TC_ACT_OK,
        Err(_) => TC_ACT_SHOT,
    }
}

/// [`packet::from_port`] with given metadata.
#[classifier]
pub fn test_from_port(ctx: TcContext) -> i32 {
    let Some((skb, meta, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let Room { packet, record: told, .. } = room;
    packet::from_port(skb, meta, packet);
    record(told, &packet.verdict)
}

/// [`packet::from_port`] with other ports at each run, drawn by lot: what it costs to find one of
/// many connections. The mark of the given metadata says which bits of the two ports vary.
#[classifier]
pub fn test_from_port_varied(ctx: TcContext) -> i32 {
    /// Where the ports are in a frame of IPv4 without options.
    const PORTS: u32 = 34;
    let Some((skb, meta, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let Room { packet, record: told, .. } = room;
    // SAFETY: a helper without arguments.
    let ports = unsafe { bpf_get_prandom_u32() } & meta.mark;
    skb.store(PORTS, &ports.to_be_bytes());
    packet::from_port(skb, meta, packet);
    record(told, &packet.verdict)
}

/// [`packet::from_tunnel`] with given metadata.
#[classifier]
pub fn test_from_tunnel(ctx: TcContext) -> i32 {
    let Some((skb, meta, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let Room { packet, record: told, .. } = room;
    packet::from_tunnel(skb, meta, packet);
    record(told, &packet.verdict)
}

/// [`packet::from_wire`] with given metadata, of a frame that comes in.
#[classifier]
pub fn test_from_uplink(ctx: TcContext) -> i32 {
    cross(&ctx, Entry::FromUplink)
}

/// [`packet::from_wire`] with given metadata, of a frame that leaves.
#[classifier]
pub fn test_to_uplink(ctx: TcContext) -> i32 {
    cross(&ctx, Entry::ToUplink)
}

#[inline(always)]
fn cross(ctx: &TcContext, entry: Entry) -> i32 {
    let Some((skb, meta, room)) = prepare(ctx) else { return TC_ACT_SHOT };
    let Room { packet, record: told, .. } = room;
    if !packet::from_wire(skb, meta, entry, packet) {
        packet.verdict = Verdict::Pass;
    }
    record(told, &packet.verdict)
}

/// [`packet::to_port`] with given metadata.
#[classifier]
pub fn test_to_port(ctx: TcContext) -> i32 {
    let Some((skb, meta, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let verdict = packet::to_port(skb, meta);
    record(&mut room.record, &verdict)
}

/// Puts the frame into GRE, between the VTEPs and with the key of the given metadata.
#[classifier]
pub fn test_into_gre(ctx: TcContext) -> i32 {
    let Some((skb, meta, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let (vtep, local) = (meta.vtep.words()[3], meta.local.words()[3]);
    let verdict = match put_in_gre(skb, meta.vni, vtep, local) {
        true => Verdict::Pass,
        false => Verdict::Drop(DropReason::GreRefused),
    };
    record(&mut room.record, &verdict)
}

/// [`packet::from_gre`] with given metadata; what it admits is taken out. To send it back to the VTEP stands for
/// that.
#[classifier]
pub fn test_out_of_gre(ctx: TcContext) -> i32 {
    let Some((skb, given, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let Room { meta, record: told, .. } = room;
    *meta = *given;
    let verdict = match packet::from_gre(skb, meta) {
        None => Verdict::Pass,
        Some(experienced) if take_out_of_gre(skb, experienced) => {
            Verdict::Tunnel { vni: meta.vni, vtep: meta.vtep, local: meta.local }
        }
        Some(_) => Verdict::Drop(DropReason::GreRefused),
    };
    record(told, &verdict)
}

/// [`packet::rewrite_frame`] with given metadata: its VTEP and its mark are the address and the port
/// that the source gets, or the destination if it is tunnelled.
#[classifier]
pub fn test_rewrite(ctx: TcContext) -> i32 {
    let Some((skb, meta, room)) = prepare(&ctx) else { return TC_ACT_SHOT };
    let side = if meta.tunnelled == 0 { Side::Source } else { Side::Destination };
    let rewrite = Rewrite { side, addr: meta.vtep, port: meta.mark as u16 };
    if packet::rewrite_frame(skb, meta, &mut room.packet, &rewrite) {
        TC_ACT_OK
    } else {
        TC_ACT_SHOT
    }
}
