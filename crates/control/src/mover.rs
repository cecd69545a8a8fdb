//! Writes down that NICs have moved: hosts report which moves have come to an end by the first frame.
//!
//! The hosts do not wait for it. A host reports as long as it is not told that the move is over, so
//! nothing is lost if the server is not there at the moment.

use std::{sync::Arc, time::Duration};

use model::{
    Id, Kind, Record, Resource, Result,
    resource::{
        account::{ADMIN, Account},
        host::Host,
        vm_nic::VmNic,
    },
    status::Board,
};
use serde_json::json;
use store::{Key, Read, Snapshot, Store, Tx};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Caller, Command, Operations, Request, command::Surroundings, operation, steady::Steady,
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
    let source = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let id = Id::<Account>::new(ADMIN);
    let platform = Caller::Account { id, is_admin: true, session: None, source };
    let params = json!({"vmNicUuid": nic, "hostUuid": host});
    let params = params.as_object().cloned().unwrap_or_default();
    let message = "ActivateVmNicBinding".to_owned();
    let request = Request { message, params, ..Request::default() };
    operations.command(platform, vec![request]).map(Arc::new)
}
