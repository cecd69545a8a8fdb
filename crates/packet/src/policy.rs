//! Stage 5, policy: connection tracking on one side of a port, and the policy of the port: one
//! default, where later rules will sit.
//!
//! What a port sends is allowed. What it receives is allowed from its own network and otherwise
//! only as an answer, which connection tracking decides before it asks here.

use crate::conntrack::{self, CtZone};
use crate::kernel::{Direction, Kernel, Meta};
use crate::parse::Packet;
use crate::port::PortHead;
use crate::reason::DropReason;

/// Whether the packet may pass this side of the port.
#[inline(always)]
pub(crate) fn side<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    (port, direction): (&PortHead, Direction),
    packet: &mut Packet,
) -> Result<(), DropReason> {
    packet.zone = CtZone {
        now_ns: meta.now_ns,
        port: port.number,
        zone: port.zone,
        place: port.place(),
        net: port.net,
        source_net: packet.path.net_in,
        generation: port.generation,
        direction,
    };
    conntrack::decide(kernel, packet)
}

/// An opening packet, as the policy of one port sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Which way the connection is opened.
    pub(crate) direction: Direction,
    /// Network of the port that is asked.
    pub(crate) net: u32,
    /// Network that the opening packet came from.
    pub(crate) source_net: u32,
}

/// Whether the connection may be opened.
#[inline(always)]
pub(crate) fn allows(question: Question) -> bool {
    match question.direction {
        Direction::FromPort => true,
        Direction::ToPort => question.source_net == question.net,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_network_may_open_towards_a_port() {
        let ask = |direction, source_net| allows(Question { direction, net: 1, source_net });
        assert!(ask(Direction::ToPort, 1));
        assert!(!ask(Direction::ToPort, 2));
        assert!(ask(Direction::FromPort, 1));
    }
}
