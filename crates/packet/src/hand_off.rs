//! Frames that are given to the agent, with the port that they come from: what a port asks a
//! service that is no matter of one packet.
//!
//! A port has so many in each window of time, all ports together what the ring buffer holds. Both
//! bounds are the programs' own: nothing that an agent does or leaves undone slows others down.

use crate::kernel::Kernel;
use crate::layout::plain;
use crate::maps::Port;
use crate::reason::DropReason;
use crate::sizes::{HANDED_FRAME_BYTES, HANDED_PER_WINDOW};

/// Bits of a window, in nanoseconds: about a second.
const WINDOW_BITS: u32 = 30;

plain! {
    /// Value of `budgets`, by [`Port::place`]: what a port has handed off lately. CPUs may race for
    /// it, and a few frames more get through then.
    pub struct Budget[8] {
        /// The window of time.
        pub window: u32,
        /// Frames in it.
        pub used: u32,
    }

    /// A record of the ring buffer `handed`: one frame. A checksum that the sender has left to its
    /// device is not filled in.
    pub struct HandedOff[1560] {
        /// Time, nanoseconds of the coarse monotonic clock.
        pub time_ns: u64,
        /// Interface index of the hook.
        pub ifindex: u32,
        /// Number of the port.
        pub port: u32,
        /// The VLAN of the port's tag, 0 for none.
        pub vlan: u32,
        /// Bytes of `frame` that are from the frame: all of it.
        pub length: u32,
        /// The frame.
        pub frame: [u8; HANDED_FRAME_BYTES],
    }
}

/// Whether the port may hand one more frame off.
#[inline(always)]
pub(crate) fn take<K: Kernel>(kernel: &mut K, now_ns: u64, port: &Port) -> Result<(), DropReason> {
    let window = (now_ns >> WINDOW_BITS & 0xffff_ffff) as u32;
    let Some(budget) = kernel.budget(port.place()) else { return Err(DropReason::HandOffRate) };
    if budget.window != window {
        *budget = Budget { window, used: 0 };
    }
    if budget.used >= HANDED_PER_WINDOW {
        return Err(DropReason::HandOffRate);
    }
    budget.used += 1;
    Ok(())
}
