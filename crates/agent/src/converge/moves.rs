//! NICs that move here from other hosts: which of them have come. Their frames do not wait for that:
//! the programs see the first one, and the server is told.

use std::collections::BTreeSet;

use wire::holding::Holding;

use super::{Converger, Outcome};
use crate::{kernel::HostKernel, plan};

/// Moves to this host, by number.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// All of them.
    all: BTreeSet<u32>,
    /// Those that have come to their end.
    arrived: BTreeSet<u32>,
}

impl<K: HostKernel> Converger<K> {
    /// The moves to this host whose NIC has not sent its first frame here, as far as is known.
    pub fn awaited_moves(&self) -> BTreeSet<u32> {
        &self.moves.all - &self.moves.arrived
    }

    /// Says which NICs that move here have come.
    pub(super) async fn arrivals(&mut self, desired: &Holding, outcome: &mut Outcome) {
        let coming = plan::ports(desired).filter_map(|port| port.comes.as_ref());
        self.moves.all = coming.map(|moving| moving.number).collect();
        self.moves.arrived.retain(|number| self.moves.all.contains(number));
        let awaited = self.awaited_moves();
        if !awaited.is_empty() {
            match self.kernel.arrived(&awaited).await {
                Ok(arrived) => self.moves.arrived.extend(arrived),
                Err(refusal) => tracing::warn!(%refusal, "cannot see whether NICs have come"),
            }
        }
        outcome.arrived.clone_from(&self.moves.arrived);
    }
}
