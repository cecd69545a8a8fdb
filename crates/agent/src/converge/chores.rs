//! What can wait: removing what is cut off, and keeping devices ready for instances to come.
//!
//! Both keep the kernel's network lock for grace periods of RCU, in which no instance can be made.
//! So there is one chore at a time, when nobody waits for an instance; only when many remains have
//! piled up they are removed beside the other work.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Converger;
use crate::{
    jobs::Subject,
    kernel::{HostKernel, Stock},
    plan::Step,
};

/// Most instances that are cut off and still there, before they are removed beside other work.
const REMAINS_MAX: usize = 32;

/// What is to be done when there is time.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Instances that are cut off, and their interfaces.
    pub(super) remains: BTreeMap<Uuid, BTreeSet<u32>>,
    /// There are as many devices ready as there should be, as far as is known.
    pub(super) is_stocked: bool,
    /// Instances whose removal failed, until it is time to try again.
    pub(super) stuck: BTreeSet<Uuid>,
    /// The one under way.
    pub(super) running: Option<Subject>,
}

/// Whether anybody waits for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calm {
    /// Nobody does, and nobody did a moment ago.
    Still,
    /// Somebody may.
    Lively,
}

impl<K: HostKernel> Converger<K> {
    /// Whether something is to be done when there is time, and nothing of it is under way.
    pub fn has_chores(&self) -> bool {
        self.chores.running.is_none() && (!self.chores.is_stocked || self.next_remains().is_some())
    }

    /// Starts the next chore, if this is the time for it.
    pub fn start_chore(&mut self, calm: Calm) {
        let next = self.next_remains();
        let is_urgent = next.is_some() && self.chores.remains.len() > REMAINS_MAX;
        let is_time = calm == Calm::Still && self.jobs.is_empty();
        if self.chores.running.is_some() || !(is_time || (is_urgent && self.jobs.has_room())) {
            return;
        }
        if is_time && !is_urgent && !self.chores.is_stocked {
            self.jobs.stock(self.kernel.clone());
            self.chores.running = Some(Subject::Stock);
        } else if let Some(uuid) = next {
            let interfaces = self.chores.remains.remove(&uuid).unwrap_or_default();
            let step = Step::Remove { down: Vec::new(), interfaces };
            self.jobs.start(self.kernel.clone(), uuid, step, &BTreeSet::new());
            self.chores.running = Some(Subject::Instance(uuid));
        }
    }

    /// The next instance to remove: no job is about it, and it is not known to fail.
    fn next_remains(&self) -> Option<Uuid> {
        let is_free = |uuid: &&Uuid| {
            !self.chores.stuck.contains(uuid) && !self.jobs.is_about(Subject::Instance(**uuid))
        };
        self.chores.remains.keys().find(is_free).copied()
    }

    /// Takes in what became of the devices that are kept ready.
    pub(super) fn note_stock(&mut self, stock: Option<Stock>, trouble: &[String]) {
        match stock {
            Some(Stock::Made(ifindex)) => {
                self.observed.attached.insert(ifindex);
                self.observed.spares.insert(ifindex);
            }
            Some(Stock::Removed(ifindex)) => {
                self.observed.attached.remove(&ifindex);
                self.observed.spares.remove(&ifindex);
            }
            Some(Stock::Full) => self.chores.is_stocked = true,
            None => {
                // Instances are made without. Tried again when one is gone, or after an audit.
                tracing::warn!(?trouble, "no device can be kept ready for instances to come");
                self.chores.is_stocked = true;
            }
        }
    }
}
