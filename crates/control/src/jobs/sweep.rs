//! Keeps the table of jobs right and small: writes successes down, forgets what is long over.
//!
//! A sweep looks at the jobs that are open and at those whose time is over, not at all of them.

use std::collections::BTreeSet;

use model::{Id, Kind, Record, Resource, Result, Timestamp, resource::job::Job};
use store::{Read, Tx};
use uuid::Uuid;

use super::{JobState, Jobs, KEEP_MAX, Look};

/// Jobs changed in one transaction, so that it stays small however many there are.
const STEP: usize = 1000;

/// When a job may be forgotten, and which.
pub(super) fn entry(job: &Job, keep: i64) -> (Timestamp, Uuid) {
    (job.create_date.plus_seconds(keep).max(job.deadline), job.uuid.uuid())
}

impl Jobs {
    /// Writes down which jobs are a success, and forgets those that are long over; says how many.
    /// Run it now and then.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<usize> {
        for step in self.unmarked().chunks(STEP) {
            self.mark(step.to_vec()).await?;
        }
        let gone = self.to_forget();
        for step in gone.chunks(STEP) {
            let delete: Vec<Uuid> = step.iter().map(|(_, uuid)| *uuid).collect();
            let forget = move |tx: &mut Tx<Record>| {
                delete.iter().for_each(|uuid| tx.delete(Kind::Job, *uuid));
                Ok(())
            };
            self.store.transact_async(forget).await?;
            let mut memory = self.lock();
            for entry in step {
                memory.open.remove(&entry.1);
                memory.kept.remove(entry);
            }
        }
        Ok(gone.len())
    }

    /// Successes that nobody has asked for yet.
    fn unmarked(&self) -> Vec<Uuid> {
        let open: Vec<Uuid> = self.lock().open.keys().copied().collect();
        let (mut acknowledged, mut oldest) = (Vec::new(), None);
        let made = |uuid| {
            let record = self.store.snapshot().get(Kind::Job, uuid)?;
            Job::of(&record).map(|job| job.create_date)
        };
        for uuid in open {
            match self.look(Id::<Job>::new(uuid)) {
                Look::Acknowledged(_) => acknowledged.push(uuid),
                // Written down already, refused, or never committed.
                Look::Over(JobState::Done(_) | JobState::Unknown) => {
                    self.lock().open.remove(&uuid);
                }
                Look::Over(_) if self.store.snapshot().get(Kind::Job, uuid).is_none() => {
                    self.lock().open.remove(&uuid);
                }
                Look::Over(_) | Look::Running | Look::Waiting(..) | Look::Settling(..) => {
                    oldest = [oldest, made(uuid)].into_iter().flatten().min();
                }
            }
        }
        self.lock().oldest = oldest;
        acknowledged
    }

    fn to_forget(&self) -> Vec<(Timestamp, Uuid)> {
        let now = self.now();
        let memory = self.lock();
        let is_open = |uuid: &Uuid| memory.open.contains_key(uuid);
        let gone = forgotten(&memory.kept, is_open, now, KEEP_MAX);
        let early = gone.iter().filter(|(until, _)| *until >= now).count();
        if early > 0 {
            tracing::warn!(
                early,
                keep = KEEP_MAX,
                "finished jobs are forgotten before their time: \
                there are too many"
            );
        }
        gone
    }
}

/// The jobs to forget: those whose time is over and, beyond `keep`, the oldest that have ended. A
/// job that has not ended is never forgotten, because its caller would be told that there is no
/// such job.
fn forgotten(
    kept: &BTreeSet<(Timestamp, Uuid)>,
    is_open: impl Fn(&Uuid) -> bool,
    now: Timestamp,
    keep: usize,
) -> Vec<(Timestamp, Uuid)> {
    let expired = kept.iter().take_while(|(until, _)| *until < now);
    let mut gone: Vec<_> = expired.copied().collect();
    let surplus = kept.len().saturating_sub(keep).saturating_sub(gone.len());
    let rest = kept.iter().skip(gone.len()).filter(|(_, uuid)| !is_open(uuid));
    gone.extend(rest.take(surplus));
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_is_forgotten() {
        let jobs = [(5, 1), (99, 2), (100, 3), (200, 4), (300, 5), (400, 6)];
        let kept: BTreeSet<_> =
            jobs.into_iter().map(|(until, at)| (Timestamp(until), Uuid::from_u128(at))).collect();
        let is_open = |uuid: &Uuid| [1, 4].contains(&uuid.as_u128());
        let forgets = |keep: usize| -> Vec<u128> {
            let gone = forgotten(&kept, is_open, Timestamp(100), keep);
            gone.iter().map(|(_, uuid)| uuid.as_u128()).collect()
        };
        assert_eq!(forgets(6), [1, 2], "one that waits has its deadline behind it then");
        assert_eq!(forgets(4), [1, 2]);
        assert_eq!(forgets(3), [1, 2, 3]);
        assert_eq!(forgets(2), [1, 2, 3, 5]);
        assert_eq!(forgets(0), [1, 2, 3, 5, 6]);
    }
}
