//! The eBPF programs: they read metadata, call `netloom_packet`, and do what it says.
//!
//! Nothing here decides about a packet. `unsafe` is the price of helpers and map memory; each
//! block says what makes it sound. Built by `scripts/build-ebpf`.
#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(internal_features, reason = "core offers BPF no stable atomics")]

mod checked;
mod fill_in;
mod flood;
mod from_port;
mod from_tunnel;
mod from_underlay;
mod gre;
mod maps;
mod numbers;
mod skb;
mod test;
mod to_port;
mod underlay;
mod verdict;
mod wire;

/// Never reached: the verifier would refuse a program in which it could be.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as the ring buffer's are open to programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
