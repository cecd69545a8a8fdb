//! How a call waits for realisers out of process: what it needs is noted in rows, and it is done once
//! they are realised. Whoever realises them may be another server.

use std::time::Duration;

use model::{
    Id, Kind, Meta, Record, Resource, Result, Timestamp,
    resource::l2_realiser::{L2Realisation, RealisationState},
};
use store::{Event, Read, Store, Tx};
use tokio::time::{Instant, timeout_at};

use super::{holds, refusal};
use crate::claim;

/// How long a call waits for realisers.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what was asked for stays wanted, in seconds, though nothing is there yet: so long that
/// whoever waits has had it, or calls again.
const ASKED_SECONDS: i64 = 60;

/// Notes that these are needed, so that realisers are asked. Once more for one that has said no.
///
/// # Errors
/// The store's.
pub(crate) async fn note(
    store: &Store<Record>,
    needed: &[L2Realisation],
    now: Timestamp,
) -> Result<()> {
    let needed = needed.to_vec();
    let note = move |tx: &mut Tx<Record>| {
        for row in &needed {
            let before = tx.get(Kind::L2Realisation, row.uuid.uuid());
            let known = before.as_deref().and_then(L2Realisation::of).unwrap_or(row);
            if tx.get(Kind::L2Realiser, row.realiser_uuid.uuid()).is_none() {
                continue;
            }
            let asked = L2Realisation {
                state: RealisationState::Realising,
                error: None,
                asked_until: now.plus_seconds(ASKED_SECONDS),
                ..known.clone()
            };
            let meta =
                before.as_ref().map_or(Meta { owner: None, created: now, changed: now }, |r| {
                    Meta { changed: now, ..r.meta }
                });
            tx.put(Record::new(asked, meta)).map_err(claim::taken)?;
        }
        Ok(())
    };
    store.transact_async(note).await.map(drop)
}

/// Waits until these are realised, after they were noted; `told` is told what is waited for.
///
/// # Errors
/// [`model::Code::NotRealised`] once one is refused, or not realised in time; then nobody asks for
/// them any more. The store's.
pub(crate) async fn ask(
    store: &Store<Record>,
    needed: &[L2Realisation],
    (now, is_admin): (fn() -> Timestamp, bool),
    told: impl Fn(Vec<String>),
) -> Result<()> {
    note(store, needed, now()).await?;
    let ids: Vec<Id<L2Realisation>> = needed.iter().map(|row| row.uuid).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut commits = store.watch();
    // The snapshot with which each watch begins.
    commits.try_next();
    loop {
        let snapshot = store.snapshot();
        let rows = ids.iter().filter_map(|id| snapshot.get(Kind::L2Realisation, id.uuid()));
        let rows: Vec<L2Realisation> =
            rows.filter_map(|row| L2Realisation::of(&row).cloned()).collect();
        // A realiser that is gone is not waited for.
        let open: Vec<&L2Realisation> = rows.iter().filter(|row| !holds(row)).collect();
        if open.is_empty() {
            return Ok(());
        }
        told(open.iter().map(|row| refusal(&snapshot, row, is_admin).message).collect());
        let is_refused = open.iter().find(|row| row.state == RealisationState::Refused);
        let refused = match is_refused {
            Some(row) => Some(*row),
            None => match timeout_at(deadline, changed(&mut commits)).await {
                Ok(true) => None,
                Ok(false) | Err(_) => open.first().copied(),
            },
        };
        if let Some(row) = refused {
            let error = refusal(&store.snapshot(), row, is_admin);
            give_up(store, ids, now()).await?;
            return Err(error);
        }
    }
}

/// Waits until a realisation or a realiser has changed; `false` once the store is gone.
async fn changed(commits: &mut store::Watch<Record>) -> bool {
    while let Some(event) = commits.next().await {
        let Event::Commit(commit) = event else { return true };
        let kinds = [Kind::L2Realisation, Kind::L2Realiser];
        if commit.changes.iter().any(|change| kinds.contains(&change.kind)) {
            return true;
        }
    }
    false
}

/// Nobody asks for these any more: what was realised of them in vain is taken away.
async fn give_up(store: &Store<Record>, ids: Vec<Id<L2Realisation>>, now: Timestamp) -> Result<()> {
    let give_up = move |tx: &mut Tx<Record>| {
        for id in &ids {
            let Some(record) = tx.get(Kind::L2Realisation, id.uuid()) else { continue };
            let Some(row) = L2Realisation::of(&record).cloned() else { continue };
            let meta = Meta { changed: now, ..record.meta };
            let row = L2Realisation { asked_until: Timestamp(0), ..row };
            tx.put(Record::new(row, meta)).map_err(claim::taken)?;
        }
        Ok(())
    };
    store.transact_async(give_up).await.map(drop)
}
