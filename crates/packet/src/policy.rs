//! The policy of a port: one default stage, where later rules will sit.
//!
//! What a port sends is allowed. What it receives is allowed from its own network and otherwise
//! only as an answer, which connection tracking decides before it asks here.

use crate::kernel::Direction;

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
