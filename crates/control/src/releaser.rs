//! Gives up the claims of deleted resources once no host holds what was made of them.
//!
//! `link` writes to the board on which hosts each object is not settled. A release waits until its
//! objects are settled everywhere. For one that is open for more than a few seconds, the hosts that
//! it waits for are written to the store, because a server that starts later does not know them.

mod open;

use std::time::Duration;

use model::{
    Id, Kind, Record, Resource, Result,
    resource::{
        host::{Host, HostCredential},
        release::Release,
        used_ip::UsedIp,
    },
    status::Board,
};
use store::{Event, Read, Snapshot, Store, Tx, Watch};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use open::{Hosts, Open};

/// Most keys that one transaction gives up, so that it stays small however many are due. The
/// store takes ten times as many.
const STEP_KEYS: usize = 1000;

/// After how long a transaction that failed is tried again, if nothing happens before.
const RETRY: Duration = Duration::from_secs(5);

/// How long a release is open before the hosts that it waits for are written down. Most are not
/// open for so long.
const NAME_AFTER: Duration = Duration::from_secs(3);

/// How often at most hosts are written down.
const NAME_EVERY: Duration = Duration::from_secs(1);

/// Follows the store and the board until told to stop.
pub async fn run(store: Store<Record>, mut board: watch::Receiver<Board>, stop: CancellationToken) {
    let mut commits = store.watch();
    let mut open = Open::default();
    loop {
        drain(&mut commits, &mut open);
        let now = board.borrow_and_update().clone();
        let (due, named) = {
            let snapshot = store.snapshot();
            let hosts = Existing(&snapshot);
            let due = open.due(&now, &hosts);
            (due, open.to_name(&now, &hosts, Instant::now()))
        };
        let all = give_up(&store, due).await & name_hosts(&store, named).await;
        let soonest = Instant::now() + NAME_EVERY;
        let naming = open.oldest_unnamed().map(|made| soonest.max(made + NAME_AFTER));
        // Each branch only waits: dropping the others loses nothing.
        let goes_on = tokio::select! {
            () = stop.cancelled() => false,
            () = sleep(RETRY), if !all => true,
            () = sleep_until(naming.unwrap_or(soonest)), if all && naming.is_some() => true,
            reported = board.changed() => reported.is_ok(),
            event = commits.next() => match event {
                Some(event) => {
                    take(&mut open, event);
                    true
                }
                None => false,
            },
        };
        if !goes_on {
            return;
        }
    }
}

fn drain(commits: &mut Watch<Record>, open: &mut Open) {
    while let Some(event) = commits.try_next() {
        take(open, event);
    }
}

fn take(open: &mut Open, event: Event<Record>) {
    let now = Instant::now();
    match event {
        Event::Snapshot(snapshot) => {
            let rows = snapshot.list(Kind::Release).filter_map(|row| Release::of(&row).cloned());
            open.start_over(rows, snapshot.revision(), now);
        }
        Event::Commit(commit) => {
            for change in commit.changes.iter().filter(|change| change.kind == Kind::Release) {
                match change.after.as_deref().and_then(Release::of) {
                    Some(release) => open.put(release.clone(), commit.revision, now),
                    None => open.remove(change.id),
                }
            }
        }
        Event::Lagged => {}
    }
}

/// The hosts of a snapshot. Nobody waits for one that was deleted.
struct Existing<'a>(&'a Snapshot<Record>);

impl Hosts for Existing<'_> {
    fn exists(&self, host: Id<Host>) -> bool {
        self.0.get(Kind::Host, host.uuid()).is_some()
    }

    fn enrolled(&self) -> Vec<Id<Host>> {
        let credentials = self.0.list(Kind::HostCredential);
        credentials
            .filter(|record| {
                let credential = HostCredential::of(record);
                credential.is_some_and(|credential| credential.certificate_sha256.is_some())
            })
            .map(|record| Id::new(record.uuid()))
            .filter(|host| self.exists(*host))
            .collect()
    }
}

/// Deletes a release, whose claims are free then, and the addresses that were shown as resting.
pub fn forget(tx: &mut Tx<Record>, release: Uuid) {
    let shown: Vec<Uuid> = tx.referrers(Kind::UsedIp, UsedIp::USED_BY, release).collect();
    shown.into_iter().for_each(|used| tx.delete(Kind::UsedIp, used));
    tx.delete(Kind::Release, release);
}

/// Deletes the releases that are due, in several transactions. One that fails does not stop the
/// others. Gives whether all of them succeeded.
async fn give_up(store: &Store<Record>, due: Vec<Release>) -> bool {
    let mut all = true;
    for step in steps(due) {
        let release = move |tx: &mut Tx<Record>| {
            step.iter().for_each(|release| forget(tx, release.uuid.uuid()));
            Ok(())
        };
        let result: Result<_> = store.transact_async(release).await;
        if let Err(error) = result {
            tracing::warn!(%error, "claims are kept for now");
            all = false;
        }
    }
    all
}

/// Writes down which hosts releases wait for; says whether that worked.
async fn name_hosts(store: &Store<Record>, named: Vec<(Uuid, Vec<Id<Host>>)>) -> bool {
    for step in named.chunks(STEP_KEYS) {
        let step = step.to_vec();
        let write = move |tx: &mut Tx<Record>| {
            for (uuid, hosts) in &step {
                // It may have been given up meanwhile.
                let Some(record) = tx.get(Kind::Release, *uuid) else { continue };
                let Some(release) = Release::of(&record) else { continue };
                let release = Release { hosts: Some(hosts.clone()), ..release.clone() };
                tx.put(Record::new(release, record.meta)).map_err(crate::claim::taken)?;
            }
            Ok(())
        };
        let result: Result<_> = store.transact_async(write).await;
        if let Err(error) = result {
            tracing::warn!(%error, "the hosts that releases wait for are not written down yet");
            return false;
        }
    }
    true
}

/// Cuts releases into steps of [`STEP_KEYS`] keys at most, a release that has more alone.
fn steps(due: Vec<Release>) -> Vec<Vec<Release>> {
    let (mut steps, mut step, mut room) = (Vec::new(), Vec::new(), STEP_KEYS);
    for release in due {
        let keys = release.claims.len() + 1;
        if keys > room {
            steps.push(std::mem::take(&mut step));
            room = STEP_KEYS;
        }
        room = room.saturating_sub(keys);
        step.push(release);
    }
    steps.push(step);
    steps.retain(|step| !step.is_empty());
    steps
}

#[cfg(test)]
mod tests {
    use model::{Claim, Timestamp};

    use super::*;

    fn release(claims: usize) -> Release {
        Release {
            uuid: Id::new(Uuid::from_u128(7)),
            objects: Vec::new(),
            claims: (0..claims).map(|claim| Claim::AccountName(claim.to_string())).collect(),
            hosts: None,
            create_date: Timestamp(0),
        }
    }

    #[test]
    fn no_step_is_large_and_none_is_lost() {
        let sizes = |claims: &[usize]| -> Vec<usize> {
            steps(claims.iter().map(|count| release(*count)).collect())
                .iter()
                .map(|step| step.iter().map(|release| release.claims.len() + 1).sum())
                .collect()
        };
        assert_eq!(sizes(&[]), [0_usize; 0]);
        assert_eq!(sizes(&[1]), [2]);
        assert_eq!(sizes(&[499, 499, 1]), [1000, 2]);
        assert_eq!(sizes(&[5000, 1]), [5001, 2]);
    }
}
