//! Which agents have connected as a host: whether two use its identity at the same time.
//!
//! An agent draws an id at each start. A restart brings a new one, and an old one never returns,
//! unless the agent that has it was only replaced, and lives.

use std::{collections::VecDeque, net::IpAddr};

use uuid::Uuid;

/// Agents that are remembered after another one has taken their place.
const REPLACED_MAX: usize = 8;

/// The agents of one host.
#[derive(Debug, Default)]
pub(super) struct Runs {
    last: Option<(Uuid, IpAddr)>,
    replaced: VecDeque<Uuid>,
}

impl Runs {
    /// Notes who has connected, from where. Gives where the last two are if both must live. An agent
    /// of an older release has no id.
    pub(super) fn connect(&mut self, run: Option<Uuid>, source: IpAddr) -> Option<[IpAddr; 2]> {
        let run = run?;
        let (before, there) = self.last.replace((run, source)).filter(|(id, _)| *id != run)?;
        let is_back = self.replaced.contains(&run);
        self.replaced.retain(|replaced| *replaced != before);
        self.replaced.push_back(before);
        if self.replaced.len() > REPLACED_MAX {
            self.replaced.pop_front();
        }
        is_back.then_some([there, source])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_that_was_replaced_and_is_back_shows_that_two_live() {
        let at = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut runs = Runs::default();
        // Restarts and reconnects, also from other addresses.
        for (run, source) in [(1, 1), (1, 2), (2, 1), (2, 1), (3, 1)] {
            assert_eq!(runs.connect(Some(Uuid::from_u128(run)), at(source)), None, "{run}");
        }
        assert_eq!(runs.connect(None, at(9)), None, "an older agent");
        assert_eq!(runs.connect(Some(Uuid::from_u128(2)), at(7)), Some([at(1), at(7)]));
        assert_eq!(runs.connect(Some(Uuid::from_u128(3)), at(1)), Some([at(7), at(1)]));
        for run in 10..99 {
            assert_eq!(runs.connect(Some(Uuid::from_u128(run)), at(1)), None);
        }
        assert_eq!(runs.replaced.len(), REPLACED_MAX);
    }
}
