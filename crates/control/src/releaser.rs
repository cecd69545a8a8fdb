//! Gives up the claims of deleted resources once every host that held them has let go.

use std::{collections::BTreeMap, time::Duration};

use model::{Kind, Record, Result, resource::release::Release, status::Board};
use store::{Read, Snapshot, Store, Tx};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{jobs::host_changed, l2_vxlan_network, vm_nic};

/// Most keys that one transaction gives up, so that it stays small however many are due. The
/// store takes ten times as many.
const STEP_KEYS: usize = 1000;

/// After how long what the store refused is tried again, if no host reports before.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the store and the board until told to stop.
pub async fn run(store: Store<Record>, mut board: watch::Receiver<Board>, stop: CancellationToken) {
    // The revision by which each release was made is at most the one at which it is first seen.
    let mut seen: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut commits = store.watch();
    loop {
        board.mark_unchanged();
        let snapshot = store.snapshot();
        let due = due(&snapshot, &board.borrow(), &mut seen);
        let all = give_up(&store, due).await;
        // Each branch only waits: dropping the others loses nothing.
        let goes_on = tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(RETRY), if !all => true,
            acknowledged = board.changed() => acknowledged.is_ok(),
            deleted = host_changed(&mut commits) => deleted,
        };
        if !goes_on {
            return;
        }
    }
}

/// The releases that no host stands in the way of any more. `seen` has the revision at which each
/// of the others was first seen.
fn due(snapshot: &Snapshot<Record>, board: &Board, seen: &mut BTreeMap<Uuid, u64>) -> Vec<Release> {
    let mut open = BTreeMap::new();
    let mut due = Vec::new();
    for record in snapshot.list(Kind::Release) {
        let Record::Release(release) = &*record else { continue };
        let uuid = release.uuid.uuid();
        let revision = seen.get(&uuid).copied().unwrap_or_else(|| snapshot.revision());
        // Kept for those that are due, too: a transaction may fail, and is tried again.
        open.insert(uuid, revision);
        let exists = |host: Uuid| snapshot.get(Kind::Host, host).is_some();
        if is_due(release, revision, board, exists) {
            due.push(release.clone());
        }
    }
    *seen = open;
    due
}

/// Whether every host of a release has applied `revision`, or is gone: nobody waits for a host
/// that was deleted.
fn is_due(release: &Release, revision: u64, board: &Board, exists: impl Fn(Uuid) -> bool) -> bool {
    let acknowledged = |host| board.status(host).acked_revision >= revision;
    release.hosts.iter().all(|host| acknowledged(*host) || !exists(host.uuid()))
}

/// Gives up what is due, in steps, a step that fails holding up no other; says whether all went.
async fn give_up(store: &Store<Record>, due: Vec<Release>) -> bool {
    let mut all = true;
    for step in steps(due) {
        let release = move |tx: &mut Tx<Record>| {
            step.iter().for_each(|release| release_one(tx, release));
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

fn release_one(tx: &mut Tx<Record>, release: &Release) {
    if tx.get(Kind::Release, release.uuid.uuid()).is_none() {
        return;
    }
    for claim in &release.claims {
        if !is_held(tx, claim) {
            tx.release_claim(claim);
        }
    }
    tx.delete(Kind::Release, release.uuid.uuid());
}

/// Whether a resource that exists holds the claim. Claims that rest are not given out, so this is
/// the second lock on the same door: what lives must never lose what keeps it unique.
fn is_held(tx: &Tx<Record>, claim: &str) -> bool {
    let Some(owner) = tx.claim_owner(claim) else { return false };
    let held_by = |kind| {
        tx.get(kind, owner).is_some_and(|record| match &*record {
            Record::L2VxlanNetwork(network) => l2_vxlan_network::holds(network, claim),
            Record::VmNic(nic) => vm_nic::claims(nic).iter().any(|own| own == claim),
            _ => false,
        })
    };
    [Kind::L2VxlanNetwork, Kind::VmNic].into_iter().any(held_by)
}

#[cfg(test)]
mod tests {
    use model::{Id, Timestamp, resource::host::Host, status::HostStatus};

    use super::*;

    fn host(number: u128) -> Id<Host> {
        Id::new(Uuid::from_u128(number))
    }

    fn release(claims: usize) -> Release {
        Release {
            uuid: Id::new(Uuid::from_u128(7)),
            l2_network_uuid: Id::new(Uuid::from_u128(8)),
            claims: (0..claims).map(|claim| claim.to_string()).collect(),
            hosts: vec![host(1), host(2)],
            create_date: Timestamp(0),
        }
    }

    #[test]
    fn due_is_what_every_host_that_exists_has_acknowledged() {
        let both: &[u128] = &[1, 2];
        // Revisions that the hosts 1 and 2 have acknowledged, the hosts that exist, and whether
        // what was released by revision 5 is due.
        let cases = [
            ((None, None), both, false),
            ((Some(5), None), both, false),
            ((None, Some(5)), both, false),
            ((Some(5), Some(4)), both, false),
            ((Some(5), Some(5)), both, true),
            ((Some(9), Some(6)), both, true),
            ((Some(5), None), &[1], true),
            ((None, None), &[1], false),
            ((None, None), &[], true),
        ];
        for ((first, second), exist, expected) in cases {
            let mut board = Board::default();
            for (number, acked) in [(1, first), (2, second)] {
                let status = |acked_revision| HostStatus { acked_revision, ..Default::default() };
                board.hosts.extend(acked.map(|revision| (host(number), status(revision))));
            }
            let exists = |host: Uuid| exist.contains(&host.as_u128());
            let seen = is_due(&release(1), 5, &board, exists);
            assert_eq!(seen, expected, "{first:?} {second:?}, {exist:?} exist");
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
