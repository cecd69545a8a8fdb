//! How often something may be done in a window of time, for one port or one network. The bound is
//! the programs' own: nothing that an agent does or leaves undone slows others down.

use crate::layout::{Zero, plain};

/// Bits of a window, in nanoseconds: about a second.
pub(crate) const WINDOW_BITS: u32 = 30;

plain! {
    /// What has been used lately. CPUs may race for it, and a few more get through then.
    pub struct Budget[8] {
        /// The window of time.
        pub window: u32,
        /// How often in it.
        pub used: u32,
    }
}

impl Zero for Budget {
    const ZERO: Budget = Budget { window: 0, used: 0 };
}

impl Budget {
    /// Whether it may be done once more, of at most so many times in a window.
    #[inline(always)]
    pub(crate) fn spend(&mut self, now_ns: u64, most: u32) -> bool {
        self.spend_in(now_ns, WINDOW_BITS, most)
    }

    /// The same in a window of so many bits, in nanoseconds.
    #[inline(always)]
    pub(crate) fn spend_in(&mut self, now_ns: u64, window_bits: u32, most: u32) -> bool {
        let window = (now_ns >> window_bits & 0xffff_ffff) as u32;
        if self.window != window {
            *self = Budget { window, used: 0 };
        }
        if self.used >= most {
            return false;
        }
        self.used += 1;
        true
    }
}
