//! The way of a packet through networks, as the stages hand it along.

use crate::net::Net;

/// From which network a packet comes and into which it goes. Filled in by `classify` and `route`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Number of the network that it was sent in: that of its port or of its tunnel, never
    /// anything in the frame.
    pub net_in: u32,
    /// What that network is.
    pub net: Net,
    /// Number of the network that it is delivered in. Another one only if it is routed.
    pub net_out: u32,
    /// Identity of whoever sent it, for policies to come. 0: none.
    pub identity: u32,
}
