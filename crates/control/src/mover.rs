//! Writes down that NICs and instances have moved: hosts report which moves have come to an end, by a
//! NIC's first frame or as an instance runs at its new place, and which moves of instances have failed.
//!
//! The hosts do not wait for it. A host reports as long as it is not told that the move is over, so
//! nothing is lost if the server is not there at the moment.

use std::{sync::Arc, time::Duration};

use model::{
    Id, Kind, Record, Resource, Result,
    resource::{
        account::{ADMIN, Account},
        host::Host,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
    status::Board,
};
use serde_json::{Value, json};
use store::{Key, Read, Snapshot, Store, Tx};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Caller, Command, Operations, Request, Txn, command::Surroundings, operation, steady::Steady,
    vm_migration,
};

/// After how long what failed is tried again, if nothing happens before.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the board until told to stop.
pub async fn run(
    store: Store<Record>,
    mut board: watch::Receiver<Board>,
    clock: Steady,
    stop: CancellationToken,
) {
    let operations = Operations::default();
    loop {
        let now = board.borrow_and_update().clone();
        let due = arrived(&store.snapshot(), &now);
        let mut all = true;
        for arrival in due {
            let surroundings =
                Surroundings { now: clock.now(), seed: Uuid::new_v4(), board: now.clone() };
            if let Err(error) = activate(&store, &operations, arrival, surroundings).await {
                tracing::warn!(%error, nic = %arrival.nic, "has moved, and that is not written down yet");
                all = false;
            }
        }
        for end in ends(&store.snapshot(), &now) {
            let surroundings =
                Surroundings { now: clock.now(), seed: Uuid::new_v4(), board: now.clone() };
            let instance = end.instance;
            if let Err(error) = settle(&store, &operations, end, surroundings).await {
                tracing::warn!(%error, %instance, "its move is over, and that is not written down yet");
                all = false;
            }
        }
        // Each branch only waits: dropping the others loses nothing.
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY), if !all => {}
            changed = board.changed() => if changed.is_err() { return },
        }
    }
}

/// A NIC that has sent its first frame where it moves to.
#[derive(Clone, Copy)]
struct Arrival {
    nic: Id<VmNic>,
    host: Id<Host>,
    number: u32,
}

impl Arrival {
    /// Where a NIC moves to, and which move it is.
    fn of(nic: &VmNic) -> Option<Self> {
        let (host, _) = nic.pending()?;
        Some(Self { nic: nic.uuid, host, number: nic.move_number })
    }
}

fn arrived(snapshot: &Snapshot<Record>, board: &Board) -> Vec<Arrival> {
    let mut found = Vec::new();
    for (host, numbers) in board.arrivals() {
        let key = Key::Uuid(host.uuid());
        let waiting = snapshot.find(Kind::VmNic, VmNic::PENDING_HOST.field, &key);
        let waiting = waiting.filter_map(|id| snapshot.get(Kind::VmNic, id));
        let waiting = waiting.filter_map(|row| VmNic::of(&row).and_then(Arrival::of));
        found.extend(waiting.filter(|arrival| numbers.contains(&arrival.number)));
    }
    found
}

/// What has become of the move of an instance.
struct End {
    instance: Id<VmInstance>,
    number: u32,
    /// Why it has failed, if it has.
    given_up: Option<Arc<str>>,
}

fn ends(snapshot: &Snapshot<Record>, board: &Board) -> Vec<End> {
    let at = |field, host: Id<Host>| {
        let key = Key::Uuid(host.uuid());
        let found = snapshot.find(Kind::VmInstance, field, &key);
        let rows = found.filter_map(|id| snapshot.get(Kind::VmInstance, id));
        let moves =
            |row: &Arc<Record>| VmInstance::of(row).filter(|it| it.moves_to().is_some()).cloned();
        rows.filter_map(|row| moves(&row)).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (host, numbers) in board.arrivals() {
        for VmInstance { uuid: instance, move_number: number, .. } in
            at(VmInstance::PENDING_HOST.field, host)
        {
            if numbers.contains(&number) {
                found.push(End { instance, number, given_up: None });
            }
        }
    }
    for (host, numbers) in board.given_up() {
        for VmInstance { uuid: instance, move_number: number, .. } in
            at(VmInstance::HOST.field, host)
        {
            if let Some(why) = numbers.get(&number) {
                found.push(End { instance, number, given_up: Some(Arc::clone(why)) });
            }
        }
    }
    found
}

/// Writes down what has become of the move of an instance, unless that is done or another one is
/// under way.
async fn settle(
    store: &Store<Record>,
    operations: &Operations,
    end: End,
    surroundings: Surroundings,
) -> Result<()> {
    let params = json!({"vmInstanceUuid": end.instance});
    let command = of_platform(operations, "MigrateVm", &params)?;
    let run = move |tx: &mut Tx<Record>| {
        let record = tx.get(Kind::VmInstance, end.instance.uuid());
        let found = record.as_deref().and_then(VmInstance::of);
        let Some(instance) = found.filter(|it| it.move_number == end.number).cloned() else {
            return Ok(());
        };
        let Some(call) = command.calls().first() else { return Ok(()) };
        let mut txn = Txn::new(tx, (&surroundings, command.caller()), call, 0);
        match &end.given_up {
            None => vm_migration::arrive(&mut txn, instance),
            Some(why) => vm_migration::give_up(&mut txn, instance, why),
        }
    };
    store.transact_async(run).await.map(drop)
}

/// Writes a move down, unless that was given up or done meanwhile.
async fn activate(
    store: &Store<Record>,
    operations: &Operations,
    arrival: Arrival,
    surroundings: Surroundings,
) -> Result<()> {
    let command = command(operations, arrival)?;
    let run = move |tx: &mut Tx<Record>| {
        let record = tx.get(Kind::VmNic, arrival.nic.uuid());
        let now = record.as_deref().and_then(VmNic::of).and_then(Arrival::of);
        if now.is_none_or(|now| (now.host, now.number) != (arrival.host, arrival.number)) {
            return Ok(());
        }
        operation::run(&command, tx, &surroundings).map(drop)
    };
    store.transact_async(run).await.map(drop)
}

fn command(operations: &Operations, arrival: Arrival) -> Result<Arc<Command>> {
    let Arrival { nic, host, .. } = arrival;
    let params = json!({"vmNicUuid": nic, "hostUuid": host});
    of_platform(operations, "ActivateVmNicBinding", &params)
}

/// A message of the platform's own.
fn of_platform(operations: &Operations, message: &str, params: &Value) -> Result<Arc<Command>> {
    let source = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let id = Id::<Account>::new(ADMIN);
    let platform = Caller::Account { id, is_admin: true, session: None, source };
    let params = params.as_object().cloned().unwrap_or_default();
    let request = Request { message: message.to_owned(), params, ..Request::default() };
    operations.command(platform, vec![request]).map(Arc::new)
}
