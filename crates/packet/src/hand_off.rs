//! Frames that are given to the agent, with the port that they come from: what a port asks a
//! service that is no matter of one packet.
//!
//! A port has so many in each window of time ([`crate::Budget`]), all ports together what the ring
//! buffer holds.

use crate::kernel::Kernel;
use crate::layout::plain;
use crate::maps::Port;
use crate::reason::DropReason;
use crate::sizes::{HANDED_FRAME_BYTES, HANDED_PER_WINDOW};

plain! {
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
    let budget = kernel.budget(port.place());
    let may = budget.is_some_and(|budget| budget.spend(now_ns, HANDED_PER_WINDOW));
    if may { Ok(()) } else { Err(DropReason::HandOffRate) }
}
