//! Frames that are given to the agent, with the port that they come from: what a port asks a
//! service that is no matter of one packet.
//!
//! There are two kinds, each with a ring buffer of its own: a port that floods the agent with requests
//! must not keep others from getting addresses. Of each kind a port has so many in each window of time
//! ([`crate::Budget`]), all ports together what the ring buffer holds.

use crate::budget::WINDOW_BITS;
use crate::kernel::Kernel;
use crate::layout::plain;
use crate::port::PortHead;
use crate::reason::DropReason;
use crate::sizes::{ASKED_PER_WINDOW, ASKED_WINDOW_BITS, HANDED_FRAME_BYTES, HANDED_PER_WINDOW};

plain! {
    /// Value of `serving`: what netloom itself does for a port at an address. The key's address is `::`
    /// for what is asked of nobody in particular.
    pub struct Serving[4] {
        /// [`Serving::DHCP`] and what follows it there, some of them.
        pub what: u32,
    }

    /// A record of the ring buffers `handed` and `asked`: one frame. A checksum that the sender has left to its
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

impl Serving {
    /// DHCP (RFC 2131). At `::`.
    pub const DHCP: u32 = 1;
    /// DHCPv6 (RFC 8415) and router advertisements (RFC 4861). At `::`.
    pub const IPV6: u32 = 2;
    /// Metadata, over HTTP.
    pub const METADATA: u32 = 4;
    /// Names.
    pub const DNS: u32 = 8;
    /// DHCP, asked by a relay at the server's address.
    pub const RELAY: u32 = 32;
    /// ARP and neighbour discovery tell [`crate::SERVICE_MAC`] for the address, if no station has it.
    pub const ADDRESS: u32 = 16;
}

/// What a port asks the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// For addresses: DHCP, DHCPv6, router solicitations.
    Lease,
    /// Anything else: metadata, names.
    Request,
}

/// Whether the port may hand one more frame off.
#[inline(always)]
pub(crate) fn take<K: Kernel>(
    kernel: &mut K,
    now_ns: u64,
    port: &PortHead,
    question: Question,
) -> Result<(), DropReason> {
    let (budget, bits, most) = match question {
        Question::Lease => (kernel.budget(port.place()), WINDOW_BITS, HANDED_PER_WINDOW),
        Question::Request => (kernel.requests(port.place()), ASKED_WINDOW_BITS, ASKED_PER_WINDOW),
    };
    let may = budget.is_some_and(|budget| budget.spend_in(now_ns, bits, most));
    if may { Ok(()) } else { Err(DropReason::HandOffRate) }
}
