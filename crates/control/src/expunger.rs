//! Expunges instances that were destroyed some time ago.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    Id, Kind, Record, Resource, Result, Timestamp,
    resource::{
        account::{ADMIN, Account},
        vm_instance::VmInstance,
    },
    status::Board,
};
use serde_json::json;
use store::{Event, Read, Store, Tx, Watch};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Caller, Command, Operations, Request, command::Surroundings, operation, steady::Steady,
};

/// How long a destroyed instance can be recovered, in seconds. A setting in ZStack, with this value
/// (`vm/expungePeriod`; `vm/deletionPolicy` is `Delay`).
pub const PERIOD_SECONDS: i64 = 86_400;

/// How often it is looked which are due: a day may be a little longer.
const EVERY: Duration = Duration::from_secs(60);

/// Most instances that are expunged at a time; each takes a transaction of its own.
const STEP: usize = 100;

/// How long others have the store after so many, if there are more.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the store until told to stop.
pub async fn run(
    store: Store<Record>,
    board: watch::Receiver<Board>,
    clock: Steady,
    stop: CancellationToken,
) {
    let operations = Operations::default();
    let (mut commits, mut destroyed) = (store.watch(), Destroyed::default());
    let mut next = Instant::now();
    loop {
        drain(&mut commits, &mut destroyed);
        if Instant::now() >= next {
            let due = destroyed.due(clock.now());
            let pause = if due.len() < STEP { EVERY } else { PAUSE };
            for uuid in due {
                let now = (clock.now(), board.borrow().clone());
                if let Err(error) = expunge(&store, &operations, uuid, now).await {
                    tracing::warn!(%error, instance = %uuid.simple(), "is not expunged yet");
                }
            }
            next = Instant::now() + pause;
        }
        // Each branch only waits: dropping the others loses nothing.
        let goes_on = tokio::select! {
            () = stop.cancelled() => false,
            () = sleep_until(next) => true,
            event = commits.next() => event.map(|event| destroyed.take(event)).is_some(),
        };
        if !goes_on {
            return;
        }
    }
}

fn drain(commits: &mut Watch<Record>, destroyed: &mut Destroyed) {
    while let Some(event) = commits.try_next() {
        destroyed.take(event);
    }
}

/// Expunges an instance, unless it was recovered meanwhile.
async fn expunge(
    store: &Store<Record>,
    operations: &Operations,
    uuid: Uuid,
    (now, board): (Timestamp, Board),
) -> Result<()> {
    let command = Arc::new(command(operations, uuid)?);
    let surroundings = Surroundings { now, seed: Uuid::new_v4(), board };
    let run = move |tx: &mut Tx<Record>| {
        let record = tx.get(Kind::VmInstance, uuid);
        if record.as_deref().and_then(due).is_none_or(|due| due > now) {
            return Ok(());
        }
        operation::run(&command, tx, &surroundings).map(drop)
    };
    store.transact_async(run).await.map(drop)
}

fn command(operations: &Operations, uuid: Uuid) -> Result<Command> {
    let source = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let id = Id::<Account>::new(ADMIN);
    let platform = Caller::Account { id, is_admin: true, session: None, source };
    let params = json!({"uuid": uuid.simple().to_string()});
    let params = params.as_object().cloned().unwrap_or_default();
    let request = Request { message: "ExpungeVmInstance".to_owned(), params, ..Request::default() };
    operations.command(platform, vec![request])
}

/// When an instance is due, if it is destroyed.
fn due(record: &Record) -> Option<Timestamp> {
    VmInstance::of(record)?.destroyed.map(|destroyed| destroyed.plus_seconds(PERIOD_SECONDS))
}

/// The destroyed instances, by when they are due.
#[derive(Default)]
struct Destroyed(BTreeSet<(Timestamp, Uuid)>);

impl Destroyed {
    fn take(&mut self, event: Event<Record>) {
        match event {
            Event::Snapshot(snapshot) => {
                let rows = snapshot.list(Kind::VmInstance);
                self.0 = rows.filter_map(|row| Some((due(&row)?, row.uuid()))).collect();
            }
            Event::Commit(commit) => {
                let mine = commit.changes.iter().filter(|it| it.kind == Kind::VmInstance);
                for change in mine {
                    let due = |row: &Option<Arc<Record>>| row.as_deref().and_then(due);
                    if let Some(before) = due(&change.before) {
                        self.0.remove(&(before, change.id));
                    }
                    self.0.extend(due(&change.after).map(|after| (after, change.id)));
                }
            }
            Event::Lagged => {}
        }
    }

    fn due(&self, now: Timestamp) -> Vec<Uuid> {
        let due = self.0.iter().take_while(|(due, _)| *due <= now);
        due.take(STEP).map(|(_, uuid)| *uuid).collect()
    }
}
