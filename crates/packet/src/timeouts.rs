//! How long connections are remembered that are idle: the one table of it.
//!
//! The programs read a time by its number, in ticks, from the map `timeouts`, which the loader fills.

use crate::ct_word::{CtState, ticks};
use crate::kernel::Kernel;
use crate::parse::{ICMP, ICMPV6, TCP, UDP};

/// Declares each time once: its name, its number, its default in seconds, and why.
macro_rules! timeouts {
    ($($(#[$doc:meta])* $field:ident $variant:ident = $number:literal, $seconds:literal;)*) => {
        /// Which time.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Timeout { $($(#[$doc])* $variant = $number,)* }

        /// Each time, in seconds, from 1 to [`Timeouts::MAX_SECONDS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Timeouts { $($(#[$doc])* pub $field: u32,)* }

        impl Default for Timeouts {
            fn default() -> Timeouts {
                Timeouts { $($field: $seconds,)* }
            }
        }

        impl Timeouts {
            /// Each time with its name, by number.
            #[must_use]
            pub fn named(&self) -> [(&'static str, u32); TIMEOUTS_COUNT as usize] {
                [$((stringify!($field), self.$field),)*]
            }
        }

        /// How many there are.
        pub const TIMEOUTS_COUNT: u32 = 0 $(+ { let _ = $number; 1 })*;
    };
}

timeouts! {
    /// TCP before the opener's ACK. A SYN+ACK that is sent again does not prolong it. Shorter than
    /// Linux's `nf_conntrack_tcp_timeout_syn_recv` (60 s): it costs nothing to open again.
    tcp_opening TcpOpening = 0, 30;
    /// TCP, idle. RFC 5382, REQ-5: not less than 2 hours 4 minutes.
    tcp_established TcpEstablished = 1, 7_440;
    /// TCP being closed. RFC 5382, REQ-5: transitory, not less than 4 minutes.
    tcp_closing TcpClosing = 2, 240;
    /// TCP closed from both ends, or aborted. Linux: `nf_conntrack_tcp_timeout_close`.
    tcp_closed TcpClosed = 3, 10;
    /// UDP, and whatever else has no end, without an answer or with one. Linux:
    /// `nf_conntrack_udp_timeout`.
    opening Opening = 4, 30;
    /// UDP that goes on. RFC 4787, REQ-5: not less than 2 minutes.
    udp_established UdpEstablished = 5, 120;
    /// ICMP echo. Linux: `nf_conntrack_icmp_timeout`.
    icmp Icmp = 6, 30;
    /// Any other protocol that goes on. Linux: `nf_conntrack_generic_timeout`.
    other Other = 7, 600;
}

impl Timeouts {
    /// The longest. The word of a connection has a deadline of few bits (`ct_word`).
    pub const MAX_SECONDS: u32 = 14_400;

    /// Each in ticks, by number.
    #[must_use]
    pub fn ticks(&self) -> [u32; TIMEOUTS_COUNT as usize] {
        self.named().map(|(_, seconds)| (ticks(seconds as u64) & 0xffff_ffff) as u32)
    }
}

impl Timeout {
    /// That of a connection of this protocol in the state with this number.
    #[inline(always)]
    pub(crate) const fn of(protocol: u8, state: u8) -> Timeout {
        let half_open = state <= CtState::Answered as u8;
        match protocol {
            TCP if half_open => Timeout::TcpOpening,
            TCP if state == CtState::Closed as u8 => Timeout::TcpClosed,
            TCP if state >= CtState::Closing as u8 => Timeout::TcpClosing,
            TCP => Timeout::TcpEstablished,
            ICMP | ICMPV6 => Timeout::Icmp,
            _ if half_open => Timeout::Opening,
            UDP => Timeout::UdpEstablished,
            _ => Timeout::Other,
        }
    }
}

/// The last tick at which a connection lives that had a packet now.
#[inline(always)]
pub(crate) fn deadline<K: Kernel>(kernel: &K, now: u64, protocol: u8, state: u8) -> u64 {
    now + u64::from(kernel.timeout(Timeout::of(protocol, state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ct_word::FURTHEST;

    #[test]
    fn each_time_is_at_its_number() {
        let times = Timeouts::default();
        let of =
            |protocol, state: CtState| times.ticks()[Timeout::of(protocol, state as u8) as usize];
        let in_ticks = |seconds| u32::try_from(ticks(seconds)).unwrap();
        assert_eq!(of(TCP, CtState::Answered), in_ticks(30));
        assert_eq!(of(TCP, CtState::Established), in_ticks(7_440));
        assert_eq!(of(TCP, CtState::Ending), in_ticks(240));
        assert_eq!(of(TCP, CtState::Closed), in_ticks(10));
        assert_eq!(of(UDP, CtState::Answered), in_ticks(30));
        assert_eq!(of(UDP, CtState::Established), in_ticks(120));
        assert_eq!(of(ICMPV6, CtState::Established), in_ticks(30));
        assert_eq!(of(132, CtState::Established), in_ticks(600));
    }

    #[test]
    fn the_longest_time_fits_a_deadline_with_room_for_clocks_that_differ() {
        assert!(ticks(u64::from(Timeouts::MAX_SECONDS)) + 1_000 < FURTHEST);
        assert!(Timeouts::default().named().iter().all(|(_, s)| *s <= Timeouts::MAX_SECONDS));
    }
}
