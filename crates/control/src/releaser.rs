//! Gives up the claims of deleted resources once every host that held them has let go.

use std::collections::BTreeMap;

use model::{Kind, Record, Result, resource::release::Release, status::Board};
use store::{Event, Read, Snapshot, Store, Tx, Watch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Follows the store and the board until told to stop.
pub async fn run(store: Store<Record>, mut board: watch::Receiver<Board>, stop: CancellationToken) {
    // The revision by which each release was made is at most the one at which it is first seen.
    let mut seen: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut commits = store.watch();
    loop {
        board.mark_unchanged();
        let snapshot = store.snapshot();
        let due = due(&snapshot, &board.borrow(), &mut seen);
        if !due.is_empty()
            && let Err(error) = give_up(&store, due).await
        {
            tracing::warn!(%error, "claims are kept for now");
        }
        // Each branch only waits: dropping the others loses nothing.
        let goes_on = tokio::select! {
            () = stop.cancelled() => false,
            acknowledged = board.changed() => acknowledged.is_ok(),
            deleted = host_deleted(&mut commits) => deleted,
        };
        if !goes_on {
            return;
        }
    }
}

/// Waits until a host may have been deleted, after which nothing waits for it; `false` once the
/// store is gone. Cancel safe, as [`Watch::next`] is.
async fn host_deleted(commits: &mut Watch<Record>) -> bool {
    while let Some(event) = commits.next().await {
        let Event::Commit(commit) = event else { return true };
        let changed = |kind| commit.changes.iter().any(|change| change.kind == kind);
        if changed(Kind::Host) {
            return true;
        }
    }
    false
}

/// The releases that no host stands in the way of any more. Deleted hosts do not count.
fn due(snapshot: &Snapshot<Record>, board: &Board, seen: &mut BTreeMap<Uuid, u64>) -> Vec<Release> {
    let mut open = BTreeMap::new();
    let mut due = Vec::new();
    for record in snapshot.list(Kind::Release) {
        let Record::Release(release) = &*record else { continue };
        let uuid = release.uuid.uuid();
        let revision = seen.get(&uuid).copied().unwrap_or_else(|| snapshot.revision());
        let done = release.hosts.iter().all(|host| {
            board.host(*host).acked_revision >= revision
                || snapshot.get(Kind::Host, host.uuid()).is_none()
        });
        match done {
            true => due.push(release.clone()),
            false => drop(open.insert(uuid, revision)),
        }
    }
    *seen = open;
    due
}

async fn give_up(store: &Store<Record>, due: Vec<Release>) -> Result<()> {
    let release = move |tx: &mut Tx<Record>| {
        for release in &due {
            if tx.get(Kind::Release, release.uuid.uuid()).is_some() {
                release.claims.iter().for_each(|claim| tx.release_claim(claim));
                tx.delete(Kind::Release, release.uuid.uuid());
            }
        }
        Ok(())
    };
    store.transact_async(release).await.map(|_| ())
}
