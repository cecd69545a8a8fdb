//! Keeps the table of jobs right and small: writes successes down, forgets what is long over.

use model::{Id, Kind, Record, Result, Timestamp, resource::job::Job};
use store::{Read, Tx};
use uuid::Uuid;

use super::{Jobs, KEEP_MAX, KEEP_SECONDS, Look};

/// Jobs changed in one transaction, so that it stays small however many there are.
const STEP: usize = 1000;

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
        let gone = forgotten(self.all(), self.now(), KEEP_MAX);
        for step in gone.chunks(STEP) {
            let delete = step.to_vec();
            let forget = move |tx: &mut Tx<Record>| {
                delete.iter().for_each(|uuid| tx.delete(Kind::Job, *uuid));
                Ok(())
            };
            self.store.transact_async(forget).await?;
            let mut memory = self.lock();
            for job in step {
                memory.revisions.remove(job);
            }
        }
        Ok(gone.len())
    }

    /// Successes that nobody has asked for yet.
    fn unmarked(&self) -> Vec<Uuid> {
        let open = self.all().into_iter().filter(|job| job.waits).map(|job| job.uuid);
        open.filter(|uuid| matches!(self.look(Id::<Job>::new(*uuid)), Look::Acknowledged(_)))
            .collect()
    }

    fn all(&self) -> Vec<Brief> {
        let snapshot = self.store.snapshot();
        let brief = |record: std::sync::Arc<Record>| match &*record {
            Record::Job(job) => Some(Brief {
                created: job.create_date,
                deadline: job.deadline,
                uuid: job.uuid.uuid(),
                waits: !job.done && !job.hosts.is_empty(),
            }),
            _ => None,
        };
        snapshot.list(Kind::Job).filter_map(brief).collect()
    }
}

/// What decides whether a job is kept; the oldest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Brief {
    created: Timestamp,
    deadline: Timestamp,
    uuid: Uuid,
    /// It is no success yet; whether it is over is up to its deadline.
    waits: bool,
}

/// The jobs to forget: those that are long over, and beyond `keep` the oldest that are over at all.
/// One that is not is never forgotten, its caller would be told that it never was.
fn forgotten(mut jobs: Vec<Brief>, now: Timestamp, keep: usize) -> Vec<Uuid> {
    jobs.sort_unstable();
    let mut surplus = jobs.len().saturating_sub(keep);
    let mut gone = Vec::new();
    for job in jobs.iter().filter(|job| !job.waits || job.deadline < now) {
        let expired = job.created.plus_seconds(KEEP_SECONDS) < now && job.deadline < now;
        if expired || surplus > 0 {
            surplus = surplus.saturating_sub(1);
            gone.push(job.uuid);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_is_forgotten() {
        let job = |number: u128, created: i64, deadline: i64, waits: bool| Brief {
            created: Timestamp(created),
            deadline: Timestamp(deadline),
            uuid: Uuid::from_u128(number),
            waits,
        };
        let long_ago = -KEEP_SECONDS * 1000;
        let jobs = || {
            vec![
                job(1, long_ago - 1, 5000, true),
                job(2, long_ago - 1, 5, true),
                job(3, long_ago, 5, false),
                job(4, 1, 5000, false),
                job(5, 2, 5000, true),
                job(6, 3, 5000, false),
            ]
        };
        let kept_of = |keep: usize| -> Vec<u128> {
            let gone = forgotten(jobs(), Timestamp(100), keep);
            gone.iter().map(Uuid::as_u128).collect()
        };
        assert_eq!(kept_of(6), [2, 3]);
        assert_eq!(kept_of(4), [2, 3]);
        assert_eq!(kept_of(3), [2, 3, 4]);
        assert_eq!(kept_of(0), [2, 3, 4, 6]);
    }
}
