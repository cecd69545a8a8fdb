//! The recent past: what each of the last revisions changed, for those who saw an earlier one and
//! want to know what has happened since.
//!
//! It is kept in memory, once for all who follow, so that a slow reader costs what a fast one costs:
//! its place. Whoever is further behind than it reaches is told so, and starts from a snapshot.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use thiserror::Error;
use tokio::sync::watch;

use crate::{Change, Row, watch::Shared};

/// Most revisions that are kept.
pub const HISTORY_REVISIONS: usize = 10_000;
/// Most changes of rows that are kept in all of them; the last revision is kept whatever it has.
pub const HISTORY_CHANGES: usize = 50_000;
/// Most revisions that a follower is told at once.
const PAGE: usize = 64;
/// Nothing is added to what it is told when that has so many changes.
const PAGE_CHANGES: usize = 1_000;

/// What one revision changed.
#[derive(Clone, Debug)]
pub struct Past<R: Row> {
    /// The revision.
    pub revision: u64,
    /// The rows that it changed.
    pub changes: Arc<[Change<R>]>,
}

/// What followed a revision is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("what followed revision {asked} is not known; it is for revisions {oldest} to {newest}")]
pub struct Gone {
    /// The revision.
    pub asked: u64,
    /// The first revision of which it is known.
    pub oldest: u64,
    /// The last revision there is.
    pub newest: u64,
}

/// Tells what each revision changed, one after the other, from some revision on.
pub struct Follower<R: Row> {
    shared: Arc<Shared<R>>,
    after: u64,
    newest: watch::Receiver<u64>,
}

/// The last revisions, without a gap.
pub(crate) struct History<R: Row> {
    /// The revision before the first one.
    start: u64,
    past: VecDeque<Past<R>>,
    changes: usize,
}

impl<R: Row> History<R> {
    /// Nothing is known of what led to `revision`.
    pub(crate) const fn new(revision: u64) -> Self {
        Self { start: revision, past: VecDeque::new(), changes: 0 }
    }

    /// Adds the next revision; gives those that had to make room, for the caller to drop where
    /// nobody waits for it.
    pub(crate) fn push(&mut self, revision: u64, changes: Arc<[Change<R>]>) -> Vec<Past<R>> {
        debug_assert_eq!(revision, self.newest() + 1, "a revision follows the one before");
        self.changes += changes.len();
        self.past.push_back(Past { revision, changes });
        let mut dropped = Vec::new();
        let is_over =
            |this: &Self| this.past.len() > HISTORY_REVISIONS || this.changes > HISTORY_CHANGES;
        while self.past.len() > 1 && is_over(self) {
            let Some(oldest) = self.past.pop_front() else { break };
            self.start = oldest.revision;
            self.changes -= oldest.changes.len();
            dropped.push(oldest);
        }
        dropped
    }

    /// The first revisions after this one.
    fn after(&self, revision: u64) -> Result<Vec<Past<R>>, Gone> {
        let newest = self.newest();
        if !(self.start..=newest).contains(&revision) {
            return Err(Gone { asked: revision, oldest: self.start, newest });
        }
        // More than there are on any machine: none.
        let skipped = usize::try_from(revision - self.start).unwrap_or(usize::MAX);
        let mut changes = 0;
        let fits = |past: &&Past<R>| {
            let has_room = changes < PAGE_CHANGES;
            changes += past.changes.len();
            has_room
        };
        Ok(self.past.iter().skip(skipped).take(PAGE).take_while(fits).cloned().collect())
    }

    fn newest(&self) -> u64 {
        self.past.back().map_or(self.start, |past| past.revision)
    }
}

impl<R: Row> Follower<R> {
    /// From `after` on, of which it must be known what followed.
    pub(crate) fn new(
        shared: Arc<Shared<R>>,
        after: u64,
        newest: watch::Receiver<u64>,
    ) -> Result<Self, Gone> {
        let this = Self { shared, after, newest };
        this.page().map(|_| this)
    }

    /// The last revision that it has told.
    #[must_use]
    pub const fn after(&self) -> u64 {
        self.after
    }

    /// The next revisions, as soon as there are some; `None` once the store is gone. Cancel safe:
    /// dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Gone`]: it was too slow, or the store had to load its state anew.
    pub async fn next(&mut self) -> Option<Result<Vec<Past<R>>, Gone>> {
        loop {
            self.newest.mark_unchanged();
            let page = self.try_next();
            if page.as_ref().is_err() || page.as_ref().is_ok_and(|page| !page.is_empty()) {
                return Some(page);
            }
            self.newest.changed().await.ok()?;
        }
    }

    /// The next revisions that are there already; none, if there are none.
    ///
    /// # Errors
    /// [`Gone`], as [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Vec<Past<R>>, Gone> {
        let page = self.page()?;
        self.after = page.last().map_or(self.after, |past| past.revision);
        Ok(page)
    }

    fn page(&self) -> Result<Vec<Past<R>>, Gone> {
        let published = self.shared.published.read().unwrap_or_else(PoisonError::into_inner);
        published.history.after(self.after)
    }
}
