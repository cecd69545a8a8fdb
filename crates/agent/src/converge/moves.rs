//! NICs that move here from other hosts: which of them have come. Their frames do not wait for that:
//! the programs see the first one, and the server is told. And what has become of instances on their
//! way, which others see to ([`handover`](crate::handover)).

use std::collections::BTreeSet;

use packet::PortKey;
use tokio::sync::watch;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Object, Table},
};

use super::{Converger, Outcome};
use crate::{
    handover::Told,
    kernel::HostKernel,
    plan::{self, Wanted},
};

/// Moves to this host, by number.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// All of them.
    all: BTreeSet<u32>,
    /// Those that have come to their end.
    arrived: BTreeSet<u32>,
    /// What has become of what is handed over.
    told: Option<watch::Receiver<Told>>,
}

impl<K: HostKernel> Converger<K> {
    /// The moves to this host whose NIC has not sent its first frame here, as far as is known.
    pub fn awaited_moves(&self) -> BTreeSet<u32> {
        &self.moves.all - &self.moves.arrived
    }

    /// All ports tell of their connections, so that some of them can be looked at.
    #[must_use]
    pub fn sampled(mut self, is_sampled: bool) -> Self {
        self.is_sampled = is_sampled;
        self
    }

    /// From now on it says what this channel tells of what is handed over.
    #[must_use]
    pub fn told_by(mut self, told: watch::Receiver<Told>) -> Self {
        self.moves.told = Some(told);
        self
    }

    /// Says how far instances are that move, and what did not go along.
    pub(super) fn journeys(&mut self, desired: &Holding, wanted: &Wanted, outcome: &mut Outcome) {
        let told = self.moves.told.as_mut().map(|told| told.borrow_and_update().clone());
        let told = told.unwrap_or_default();
        for object in plan::of_table(desired, Table::Instance) {
            let Object::Instance(instance) = object else { continue };
            let uuid = instance.uuid;
            if let Some(handover) = &instance.goes {
                if let Some(why) = told.given_up.get(&handover.number) {
                    outcome.given_up.insert(handover.number, why.clone());
                    outcome.failed.insert(uuid, format!("goes on here: {why}"));
                } else if let Some(text) = told.progress.get(&uuid) {
                    outcome.failed.insert(uuid, text.clone());
                }
            }
            let Some(handover) = &instance.comes else { continue };
            if told.landed.contains(&handover.number) {
                outcome.arrived.insert(handover.number);
            } else if self.is_ready(wanted, uuid) {
                outcome.awaiting.insert(uuid);
            }
        }
        outcome.trouble.extend(told.left_behind.into_values());
    }

    /// Whether an instance is as it should be, and the maps know its NICs.
    fn is_ready(&self, wanted: &Wanted, instance: Uuid) -> bool {
        let Some(spec) = wanted.instances.get(&instance) else { return false };
        self.prepared.get(&instance) == Some(spec)
            && spec.nics.iter().all(|nic| self.is_known_to_the_maps(instance, nic.uuid))
    }

    /// Whether the maps know a NIC of an instance.
    pub(super) fn is_known_to_the_maps(&self, instance: Uuid, nic: Uuid) -> bool {
        let seen = self.observed.instances.get(&instance).and_then(|nics| nics.get(&nic));
        seen.is_some_and(|seen| self.has_port(seen.ifindex))
    }

    /// Whether they know a port with this interface.
    pub(super) fn has_port(&self, ifindex: u32) -> bool {
        self.ledger.tables().ports.contains_key(&PortKey::untagged(ifindex))
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
