//! Where a checksum will be filled in: what the kernel knows and `__sk_buff` does not show.
//!
//! The kernel's own `struct sk_buff` is read directly: the verifier turns the cast into a register
//! move, and each read into one load. `bpf_probe_read_kernel` would be a call for each.

use crate::skb::Skb;
use aya_ebpf::bindings::__sk_buff;
use core::mem::transmute;
use packet::{CAST_TO_KERNEL_SKB, SkbLayout};

/// `CHECKSUM_PARTIAL` of `linux/skbuff.h`, and the bits of the field.
const PARTIAL: u8 = 3;

/// Where the fields are in this kernel. The loader fills it in; what it says is constant for the
/// verifier, which checks each read by the kernel's types.
#[unsafe(no_mangle)]
static SKB_LAYOUT: SkbLayout =
    SkbLayout { ip_summed: 0, ip_summed_shift: 0, csum_start: 0, csum_offset: 0, head: 0, data: 0 };

/// Where a field of the layout says that the kernel's is.
#[inline(always)]
fn place(field: *const u32) -> usize {
    // SAFETY: a field of a static. Volatile: the compiler must not know its value.
    unsafe { field.read_volatile() as usize }
}

/// The end of the two bytes in the frame; 0 if nothing is to be filled in.
#[inline(always)]
pub(crate) fn end(skb: &Skb) -> u16 {
    // SAFETY: the loader replaces the number, see there. The function takes a context pointer and
    // gives the pointer to the `struct sk_buff` behind it.
    let cast: unsafe extern "C" fn(*mut __sk_buff) -> *const u8 =
        unsafe { transmute(CAST_TO_KERNEL_SKB as usize) };
    // SAFETY: the context pointer that the kernel gave the program.
    let inner = unsafe { cast(skb.raw()) };
    // SAFETY: the layout says where this field is, which is one byte.
    let summed = unsafe { inner.add(place(&raw const SKB_LAYOUT.ip_summed)).read() };
    if summed >> place(&raw const SKB_LAYOUT.ip_summed_shift) & PARTIAL != PARTIAL {
        return 0;
    }
    // SAFETY: as above, 16 bits, aligned.
    let start = unsafe { inner.add(place(&raw const SKB_LAYOUT.csum_start)).cast::<u16>().read() };
    // SAFETY: as above.
    let offset =
        unsafe { inner.add(place(&raw const SKB_LAYOUT.csum_offset)).cast::<u16>().read() };
    // SAFETY: as above, a pointer, of which only the number is wanted.
    let head = unsafe { inner.add(place(&raw const SKB_LAYOUT.head)).cast::<u64>().read() };
    // SAFETY: as above.
    let data = unsafe { inner.add(place(&raw const SKB_LAYOUT.data)).cast::<u64>().read() };
    let end = u64::from(start) + u64::from(offset) + 2;
    // Before the frame is as bad as at its start: that is refused.
    (head + end).saturating_sub(data).clamp(1, u64::from(u16::MAX)) as u16
}
