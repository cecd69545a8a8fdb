//! Expunges instances that were destroyed some time ago, as the settings of the category `vm` say.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    Id, Kind, Plain, Record, Resource, Result, Timestamp,
    resource::{
        account::{ADMIN, Account},
        vm_instance::VmInstance,
    },
    setting::{DeletionPolicy, VM_EXPUNGE_INTERVAL, VM_EXPUNGE_PERIOD},
    status::Board,
};
use serde_json::json;
use store::{Event, Read, Store, Tx};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Caller, Command, Operations, Request, command::Surroundings, config, operation, steady::Steady,
};

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
        while let Some(event) = commits.try_next() {
            if destroyed.take(event) {
                next = Instant::now();
            }
        }
        if Instant::now() >= next {
            let snapshot = store.snapshot();
            let due = destroyed.due(&snapshot, clock.now());
            let pause = if due.len() < STEP { interval(&snapshot) } else { PAUSE };
            for uuid in due {
                let now = (clock.now(), board.borrow().clone());
                if let Err(error) = expunge(&store, &operations, uuid, now).await {
                    tracing::warn!(%error, instance = %uuid.simple(), "is not expunged yet");
                }
            }
            next = Instant::now() + pause;
        }
        // Each branch only waits: dropping the others loses nothing.
        let event = tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next) => continue,
            event = commits.next() => event,
        };
        let Some(event) = event else { return };
        if destroyed.take(event) {
            next = Instant::now();
        }
    }
}

fn interval(read: &impl Read<Record>) -> Duration {
    let seconds = config::number(read, &VM_EXPUNGE_INTERVAL);
    Duration::from_secs(seconds.try_into().unwrap_or_default())
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
        let destroyed = record.as_deref().and_then(destroyed);
        if destroyed.is_none_or(|destroyed| !is_due(tx, (destroyed, uuid), now)) {
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

/// When an instance was destroyed, if it is.
fn destroyed(record: &Record) -> Option<Timestamp> {
    VmInstance::of(record)?.destroyed
}

/// Whether an instance that was destroyed then is to go, by the settings of now.
fn is_due(read: &impl Read<Record>, (destroyed, uuid): (Timestamp, Uuid), now: Timestamp) -> bool {
    let period = config::number_for(read, &VM_EXPUNGE_PERIOD, uuid);
    config::deletion_policy(read, uuid) != DeletionPolicy::Never
        && destroyed.plus_seconds(period) <= now
}

/// The destroyed instances, those first that were destroyed first.
#[derive(Default)]
struct Destroyed(BTreeSet<(Timestamp, Uuid)>);

impl Destroyed {
    /// Gives whether a setting changed by which they are due.
    fn take(&mut self, event: Event<Record>) -> bool {
        match event {
            Event::Snapshot(snapshot) => {
                let rows = snapshot.list(Kind::VmInstance);
                self.0 = rows.filter_map(|row| Some((destroyed(&row)?, row.uuid()))).collect();
                true
            }
            Event::Commit(commit) => {
                let mine = commit.changes.iter().filter(|it| it.kind == Kind::VmInstance);
                for change in mine {
                    let destroyed = |row: &Option<Arc<Record>>| row.as_deref().and_then(destroyed);
                    if let Some(before) = destroyed(&change.before) {
                        self.0.remove(&(before, change.id));
                    }
                    self.0.extend(destroyed(&change.after).map(|after| (after, change.id)));
                }
                commit.changes.iter().flat_map(|it| it.before.iter().chain(&it.after)).any(|row| {
                    let is_config = matches!(row.kind(), Kind::GlobalConfig | Kind::ResourceConfig);
                    is_config && matches!(row.field("category"), Plain::Text(it) if it == VM_EXPUNGE_PERIOD.category)
                })
            }
            Event::Lagged => false,
        }
    }

    fn due(&self, read: &impl Read<Record>, now: Timestamp) -> Vec<Uuid> {
        let due = self.0.iter().filter(|it| is_due(read, **it, now));
        due.take(STEP).map(|(_, uuid)| *uuid).collect()
    }
}
