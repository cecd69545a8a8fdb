//! The newest changes of a host, so that one that was away for a moment gets what it lacks only.

use std::{collections::VecDeque, sync::Arc};

use compile::HostDelta;
use wire::digest::TableDigests;

use super::{HISTORY_CHANGES_MAX, HISTORY_OBJECTS_MAX};

/// The newest changes of a host, numbered from 0 since the start of the server.
#[derive(Default)]
pub(super) struct History {
    changes: VecDeque<Arc<Entry>>,
    /// The number of the next change.
    pub(super) end: u64,
    pub(super) objects: usize,
}

/// A change.
pub(super) struct Entry {
    /// The digests that it starts from.
    pub(super) before: TableDigests,
    pub(super) delta: HostDelta,
}

impl History {
    fn start(&self) -> u64 {
        self.end - self.changes.len() as u64
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.objects += len(&entry.delta);
        self.end += 1;
        self.changes.push_back(Arc::new(entry));
        while self.changes.len() > HISTORY_CHANGES_MAX || self.objects > HISTORY_OBJECTS_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.objects -= len(&oldest.delta);
        }
    }

    /// Forgets all changes, because what a host must hold was changed in a way that they do not
    /// describe.
    pub(super) fn clear(&mut self) {
        (self.changes, self.objects) = (VecDeque::new(), 0);
        // A session that has all changes up to now lacks this one.
        self.end += 1;
    }

    /// The change that comes next for a host that holds what these digests are of.
    pub(super) fn find(&self, held: TableDigests) -> Option<u64> {
        let at = self.changes.iter().rposition(|entry| entry.before == held)?;
        Some(self.start() + at as u64)
    }

    /// All changes from this one on. `None` if it is not kept any more.
    pub(super) fn since(&self, first: u64) -> Option<Vec<Arc<Entry>>> {
        let skip = usize::try_from(first.checked_sub(self.start())?).ok()?;
        Some(self.changes.iter().skip(skip).cloned().collect())
    }
}

fn len(delta: &HostDelta) -> usize {
    delta.upserts.len() + delta.removes.len()
}
