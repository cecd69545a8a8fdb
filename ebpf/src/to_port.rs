//! TCX egress of the host side of a port.

use crate::skb::Skb;
use crate::verdict::execute;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use packet::Entry;

/// Lets only what netloom delivers reach the port's VM.
#[classifier]
pub fn to_port(ctx: TcContext) -> i32 {
    let skb = Skb::of(&ctx);
    let meta = skb.meta();
    let verdict = packet::to_port(skb, &meta);
    execute(skb, &meta, Entry::ToPort, &verdict)
}
