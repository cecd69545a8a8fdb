//! Empties hosts that are to be maintained: takes their instances off, some at a time, and starts
//! them on other hosts, with the addresses and MACs that they have.
//!
//! What is left to do stands in a row for each such host, which every step changes together with
//! what it does. So the work goes on where it was after a crash, and by whichever server. A step is
//! one instance; nothing waits inside of one. An instance starts elsewhere only once its host has
//! confirmed that it let go.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use model::{
    Claim, Code, Error, Id, Kind, Meta, Record, Resource, Result, Timestamp,
    resource::{
        account::{ADMIN, Account},
        evacuation::Evacuation,
        host::{Host, HostMode},
        job::Job,
        vm_instance::{Phase, VmInstance},
    },
    setting::MaintenancePolicy,
    status::Board,
};
use serde_json::json;
use store::{Event, Read, Store, Tx};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Caller, Command, Gate, Operations, Request, Txn, claim,
    command::Surroundings,
    config,
    lease::{self, Span},
    operation, realiser, vm_life, vm_migration,
};

/// Instances of one host that are on their way at a time.
pub const AT_ONCE: usize = 32;

/// Instances that are looked at for those that fit nowhere, and how many of these are named.
const LOOKED_AT_MAX: usize = 64;
const NAMED_MAX: usize = 8;

/// Jobs that wait for one evacuation at most.
const JOBS_MAX: usize = 256;

/// When what could not be done is tried again, if nothing happens before.
const RETRY: Duration = Duration::from_secs(1);

/// How long after a start nothing is given up: hosts that would take something come back meanwhile.
const COMING_BACK: Duration = Duration::from_secs(60);

/// Between two rounds, so that others have the store.
const PAUSE: Duration = Duration::from_millis(20);

/// How an instance leaves its host.
enum Way {
    /// It is moved while it runs.
    Moves,
    /// It is stopped, and started elsewhere.
    StopAndStart,
}

/// How an instance leaves its host: while it runs, if its driver can and that has not failed before.
fn way(at: &mut At<'_>, known: &Evacuation, instance: &VmInstance) -> Result<Way> {
    if known.tried.contains(&instance.uuid) {
        return Ok(Way::StopAndStart);
    }
    let moves = at.look(|txn| vm_migration::would_move(txn, instance))?;
    Ok(if moves.is_ok() { Way::Moves } else { Way::StopAndStart })
}

/// Begins to empty a host, if anything is on it.
///
/// # Errors
/// [`Code::OperationFailed`] if it is not connected: nobody could tell that it let go.
pub(crate) fn begin(txn: &mut Txn<'_>, host: &Host, before: HostMode) -> Result<bool> {
    let known = txn.find(Evacuation::id_of(host.uuid));
    let is_moving = known.as_ref().is_some_and(|known| !known.moving.is_empty());
    let on_it = txn.count(VmInstance::HOST, host.uuid);
    if on_it > 0 && !txn.status(host.uuid).connected {
        let text = format!("{on_it} instances are on host {}, which is not connected", host.uuid);
        let hint = "start its agent: they are taken off it once it answers; if the host is dead, \
                    power it off and DeleteHost with deleteMode=Enforcing";
        return Err(Error::new(Code::InUse, text).on_field("stateEvent").hint(hint));
    }
    if on_it == 0 && !is_moving {
        return Ok(false);
    }
    let (jobs, moving) = known.map_or_else(Default::default, |known| (known.jobs, known.moving));
    let before = match txn.find(host.uuid).map(|host| host.state) {
        Some(HostMode::PreMaintenance) => {
            let known = txn.find(Evacuation::id_of(host.uuid));
            known.map_or(HostMode::Enabled, |known| known.before)
        }
        _ => before,
    };
    let row = Evacuation {
        uuid: Evacuation::id_of(host.uuid),
        host_uuid: host.uuid,
        before,
        jobs,
        moving,
        tried: Vec::new(),
        obstacle: None,
        is_over: false,
    };
    put(txn.tx, row, txn.now())?;
    txn.waits_for_evacuation(host.uuid);
    Ok(true)
}

/// Takes nothing more off a host. What is on its way is started somewhere, and be it there.
pub(crate) fn end(txn: &mut Txn<'_>, host: Id<Host>, event: &str) -> Result<()> {
    let Some(known) = txn.find(Evacuation::id_of(host)) else { return Ok(()) };
    vm_migration::fail(txn.tx, &known.jobs, &format!("stateEvent={event} has ended it"))?;
    close(txn.tx, known, txn.now())
}

/// A job is a success once the evacuation of these hosts is.
pub(crate) fn is_awaited(
    tx: &mut Tx<Record>,
    hosts: &BTreeSet<Id<Host>>,
    job: Id<Job>,
) -> Result<()> {
    for host in hosts {
        let Some((mut row, meta)) = row(tx, *host) else { continue };
        if row.jobs.len() < JOBS_MAX {
            row.jobs.push(job.uuid());
            tx.put(Record::new(row, meta)).map_err(claim::taken)?;
        }
    }
    Ok(())
}

/// Empties hosts until told to stop; of several servers on a store one does.
pub async fn run(gate: Arc<Gate>, stop: CancellationToken) {
    let work = |ours| follow(Arc::clone(&gate), ours);
    lease::held(&gate, "evacuations", Span::SERVERS, stop, work).await;
}

async fn follow(gate: Arc<Gate>, stop: CancellationToken) {
    let (operations, mut commits) = (Operations::default(), gate.store().watch());
    let begin = Instant::now();
    let mut next = Some(begin);
    loop {
        if next.is_some_and(|next| next <= Instant::now()) {
            let hope = match begin.elapsed() < COMING_BACK {
                true => Hope::ComingBack,
                false => Hope::None,
            };
            let around = (gate.now(), &gate.jobs.board(), hope);
            let done = pass(gate.store(), &operations, around).await;
            let pause = match done {
                Ok(Done::All) => None,
                Ok(Done::Some) => Some(PAUSE),
                Ok(Done::Nothing) => Some(RETRY),
                Err(error) => {
                    tracing::warn!(%error, "hosts are not emptied for now");
                    Some(RETRY)
                }
            };
            next = pause.map(|pause| Instant::now() + pause);
        }
        // Each branch only waits: dropping the others loses nothing.
        let event = tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => continue,
            event = commits.next() => event,
        };
        let Some(event) = event else { return };
        if concerns(&event) {
            let soon = Instant::now() + PAUSE;
            next = Some(next.map_or(soon, |next| next.min(soon)));
        }
    }
}

/// Whether something may have changed that a host is emptied by.
fn concerns(event: &Event<Record>) -> bool {
    let kinds = [Kind::Evacuation, Kind::Release, Kind::Host, Kind::VmInstance];
    match event {
        Event::Snapshot(_) => true,
        Event::Lagged => false,
        Event::Commit(commit) => commit.changes.iter().any(|change| kinds.contains(&change.kind)),
    }
}

/// What a round over all hosts has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// No host is to be emptied.
    All,
    /// There may be more to do at once.
    Some,
    /// Nothing can be done for now.
    Nothing,
}

/// What is to be expected of hosts that are not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// The server has just started: they come back.
    ComingBack,
    /// Nothing.
    None,
}

/// What a step knows of the world outside of the store.
struct World<'a> {
    store: &'a Store<Record>,
    operations: &'a Operations,
    now: Timestamp,
    board: &'a Board,
    hope: Hope,
}

/// Does for each host that is being emptied what can be done now.
///
/// # Errors
/// The store's.
pub async fn pass(
    store: &Store<Record>,
    operations: &Operations,
    (now, board, hope): (Timestamp, &Board, Hope),
) -> Result<Done> {
    let world = World { store, operations, now, board, hope };
    let hosts: Vec<Id<Host>> =
        store.snapshot().list(Kind::Evacuation).map(|row| Id::new(row.uuid())).collect();
    if hosts.is_empty() {
        return Ok(Done::All);
    }
    let mut done = Done::Nothing;
    for host in hosts {
        if world.step(host).await? {
            done = Done::Some;
        }
    }
    Ok(done)
}

impl World<'_> {
    /// Brings to their end those that are on their way, then takes more off; says whether anything
    /// was done.
    async fn step(&self, host: Id<Host>) -> Result<bool> {
        let mut is_done = false;
        let Some((known, _)) = row(&self.store.snapshot(), host) else { return Ok(false) };
        for instance in known.moving {
            let start = self.command("StartVmInstance", ("uuid", instance))?;
            is_done |= self.transact(start, move |at| place(at, host, instance)).await?;
        }
        let snapshot = self.store.snapshot();
        let Some((known, _)) = row(&snapshot, host) else { return Ok(true) };
        let room = AT_ONCE.saturating_sub(known.moving.len());
        let field = VmInstance::HOST.field;
        let on_it = snapshot.referrers(Kind::VmInstance, field, host.uuid());
        let next: Vec<Id<VmInstance>> = match known.is_over {
            true => Vec::new(),
            false => {
                let stays = |id: &Id<VmInstance>| !known.moving.contains(id);
                on_it.map(Id::new).filter(stays).take(room).collect()
            }
        };
        for instance in next {
            let moves = self.command("MigrateVm", ("vmInstanceUuid", instance))?;
            is_done |= self.transact(moves, move |at| send_off(at, host, instance)).await?;
            let stop = self.command("StopVmInstance", ("uuid", instance))?;
            is_done |= self.transact(stop, move |at| take_off(at, host, instance)).await?;
        }
        let now = self.now;
        let finished =
            self.store.transact_async(move |tx: &mut Tx<Record>| finish(tx, host, now)).await?;
        Ok(is_done | finished.value)
    }

    /// A message of the platform about an instance.
    fn command(&self, message: &str, (field, instance): (&str, Id<VmInstance>)) -> Result<Command> {
        let (id, source) = (Id::<Account>::new(ADMIN), Ipv4Addr::LOCALHOST.into());
        let platform = Caller::Account { id, is_admin: true, session: None, source };
        let params = json!({field: instance});
        let params = params.as_object().cloned().unwrap_or_default();
        let message = message.to_owned();
        self.operations.command(platform, vec![Request { message, params, ..Request::default() }])
    }

    async fn transact(
        &self,
        command: Command,
        work: impl Fn(&mut At<'_>) -> Result<bool> + Send + 'static,
    ) -> Result<bool> {
        let (now, seed, board) = (self.now, Uuid::new_v4(), self.board.clone());
        let (surroundings, hope) = (Surroundings { now, seed, board }, self.hope);
        let run = move |tx: &mut Tx<Record>| {
            work(&mut At { tx, command: &command, surroundings: &surroundings, hope })
        };
        match self.store.transact_async(run).await {
            Ok(done) => Ok(done.value),
            Err(error) if error.code == Code::StoreUnavailable => Err(error),
            // One instance does not hold up the others.
            Err(error) => {
                // It is tried again, and by then it may be realised.
                if let Some(needed) = &error.unrealised {
                    realiser::note(self.store, needed, now).await?;
                }
                tracing::warn!(%error, "an instance stays where it is for now");
                Ok(false)
            }
        }
    }
}

/// One step in its transaction, with the message that it may send.
struct At<'a> {
    tx: &'a mut Tx<Record>,
    command: &'a Command,
    surroundings: &'a Surroundings,
    hope: Hope,
}

impl At<'_> {
    /// Sends the message.
    fn send(&mut self) -> Result<()> {
        operation::run(self.command, self.tx, self.surroundings).map(drop)
    }

    /// Looks at the store as the message's handler would.
    fn look<T>(&mut self, look: impl FnOnce(&Txn<'_>) -> T) -> Result<T> {
        let call = self.command.calls().first();
        let call = call.ok_or_else(|| Error::new(Code::Internal, "a command without a message"))?;
        let around = (self.surroundings, self.command.caller());
        Ok(look(&Txn::new(self.tx, around, call, 0)))
    }

    fn now(&self) -> Timestamp {
        self.surroundings.now
    }
}

/// Moves an instance to another host while it runs, if that can be.
fn send_off(at: &mut At<'_>, host: Id<Host>, instance: Id<VmInstance>) -> Result<bool> {
    let Some((mut known, _)) = row(at.tx, host).filter(|(known, _)| !known.is_over) else {
        return Ok(false);
    };
    let Some(found) = on_host(at.tx, host, instance) else { return Ok(false) };
    if known.moving.contains(&instance) || !matches!(way(at, &known, &found)?, Way::Moves) {
        return Ok(false);
    }
    at.send()?;
    known.moving.push(instance);
    known.tried.push(instance);
    known.obstacle = None;
    put(at.tx, known, at.now())?;
    Ok(true)
}

/// An instance, if it is on this host.
fn on_host(tx: &Tx<Record>, host: Id<Host>, instance: Id<VmInstance>) -> Option<VmInstance> {
    let record = tx.get(Kind::VmInstance, instance.uuid())?;
    VmInstance::of(&record).filter(|found| found.host_uuid == Some(host)).cloned()
}

/// Takes an instance off its host, if another one would take it or the policy wants it stopped.
fn take_off(at: &mut At<'_>, host: Id<Host>, instance: Id<VmInstance>) -> Result<bool> {
    let Some((mut known, _)) = row(at.tx, host).filter(|(known, _)| !known.is_over) else {
        return Ok(false);
    };
    let Some(found) = on_host(at.tx, host, instance) else { return Ok(false) };
    // It may be on its way by now.
    if known.moving.contains(&instance) || !matches!(way(at, &known, &found)?, Way::StopAndStart) {
        return Ok(false);
    }
    let fits = at.look(|txn| vm_life::would_fit(txn, &found))?;
    let policy = config::maintenance_policy(&*at.tx, host.uuid());
    match (fits, policy) {
        (Err(error), _) if at.hope == Hope::ComingBack => {
            let now = at.now();
            return note(at.tx, known, words(&error), now);
        }
        (Err(error), MaintenancePolicy::JustMigrate) => return give_up(at, known, &error),
        (Ok(()), _) | (Err(_), MaintenancePolicy::StopVmOnMigrationFailure) => {}
    }
    at.send()?;
    known.moving.push(instance);
    known.obstacle = None;
    put(at.tx, known, at.now())?;
    Ok(true)
}

/// Starts an instance that its host has let go of, and sees what has become of one that moves.
fn place(at: &mut At<'_>, host: Id<Host>, instance: Id<VmInstance>) -> Result<bool> {
    let Some((mut known, _)) = row(at.tx, host) else { return Ok(false) };
    let record = at.tx.get(Kind::VmInstance, instance.uuid());
    let found = record.as_deref().and_then(VmInstance::of).cloned();
    if found.as_ref().is_some_and(|found| found.moves_to().is_some()) {
        return Ok(false);
    }
    // It has moved or stayed, or somebody has started or destroyed it meanwhile.
    let waiting = found.filter(|it| it.host_uuid.is_none() && it.phase == Phase::Live);
    if let Some(found) = waiting {
        if at.tx.holder(&Claim::Running(host, instance)).is_some() {
            return Ok(false);
        }
        match at.look(|txn| vm_life::would_fit(txn, &found))? {
            Ok(()) => at.send()?,
            Err(_) if at.hope == Hope::None && stays_stopped(at.tx, &known) => {}
            Err(error) => {
                let text = format!("instance {} ({instance}): {}", found.name, words(&error));
                let now = at.now();
                return note(at.tx, known, text, now);
            }
        }
    }
    // The message may have changed nothing of the row.
    known.moving.retain(|one| *one != instance);
    known.obstacle = None;
    put(at.tx, known, at.now())?;
    Ok(true)
}

/// Whether an instance that no host takes is left stopped. One that was to go elsewhere by a policy
/// that has changed, or whose host is not emptied any more, is not.
fn stays_stopped(tx: &Tx<Record>, known: &Evacuation) -> bool {
    let policy = config::maintenance_policy(tx, known.host_uuid.uuid());
    !known.is_over && policy == MaintenancePolicy::StopVmOnMigrationFailure
}

/// Nothing more is taken off a host that cannot be emptied; those that stand in the way are named.
fn give_up(at: &mut At<'_>, known: Evacuation, example: &Error) -> Result<bool> {
    let host = known.host_uuid;
    let unfit = at.look(|txn| {
        let on_it = txn.child_ids(VmInstance::HOST, host).into_iter().take(LOOKED_AT_MAX);
        let on_it = on_it.filter_map(|id| txn.find(id));
        let unfit = on_it.filter(|instance| vm_life::would_fit(txn, instance).is_err());
        let named = unfit.map(|instance| format!("{} ({})", instance.name, instance.uuid));
        named.take(NAMED_MAX).collect::<Vec<_>>()
    })?;
    let text = format!(
        "no other host can take {}: {}; make room or stop them, or set host/maintenancePolicy to {}",
        unfit.join(", "),
        words(example),
        MaintenancePolicy::StopVmOnMigrationFailure.as_str()
    );
    tracing::warn!(%host, text, "the host is not emptied");
    vm_migration::fail(at.tx, &known.jobs, &text)?;
    set_mode(at.tx, host, known.before, at.now())?;
    let now = at.now();
    close(at.tx, known, now)?;
    Ok(true)
}

/// Ends an evacuation once nothing is left to do.
fn finish(tx: &mut Tx<Record>, host: Id<Host>, now: Timestamp) -> Result<bool> {
    let Some((known, _)) = row(tx, host).filter(|(known, _)| known.moving.is_empty()) else {
        return Ok(false);
    };
    if !known.is_over {
        if tx.referrers(Kind::VmInstance, VmInstance::HOST.field, host.uuid()).next().is_some() {
            return Ok(false);
        }
        let running = |uuid| Claim::Running(host, Id::new(uuid));
        let plugged = |uuid| Claim::Plugged(host, Id::new(uuid));
        let ends = [Uuid::nil(), Uuid::max()];
        let held = [ends.map(running), ends.map(plugged)]
            .into_iter()
            .find_map(|[first, last]| tx.first_held(&first, &last).map(|(claim, _)| claim));
        if let Some(claim) = held {
            return note(tx, known, format!("host {host} still has {claim}"), now);
        }
        // What another server puts there at the same time is put there for good.
        tx.fence(&host.uuid().simple().to_string());
        set_mode(tx, host, HostMode::Maintenance, now)?;
    }
    tx.delete(Kind::Evacuation, host.uuid());
    Ok(true)
}

/// Notes what keeps something where it is. That is nothing done.
fn note(tx: &mut Tx<Record>, known: Evacuation, text: String, now: Timestamp) -> Result<bool> {
    if known.obstacle.as_ref() != Some(&text) {
        put(tx, Evacuation { obstacle: Some(text), ..known }, now)?;
    }
    Ok(false)
}

/// Takes nothing more off a host, and forgets the evacuation once nothing is on its way.
fn close(tx: &mut Tx<Record>, known: Evacuation, now: Timestamp) -> Result<()> {
    if known.moving.is_empty() {
        tx.delete(Kind::Evacuation, known.uuid.uuid());
        return Ok(());
    }
    put(tx, Evacuation { jobs: Vec::new(), is_over: true, obstacle: None, ..known }, now)
}

fn set_mode(tx: &mut Tx<Record>, host: Id<Host>, state: HostMode, now: Timestamp) -> Result<()> {
    let Some(record) = tx.get(Kind::Host, host.uuid()) else { return Ok(()) };
    let Some(found) = Host::of(&record).cloned() else { return Ok(()) };
    let meta = Meta { changed: now, ..record.meta };
    tx.put(Record::new(Host { state, ..found }, meta)).map_err(claim::taken)
}

fn row(read: &impl Read<Record>, host: Id<Host>) -> Option<(Evacuation, Meta)> {
    let record = read.get(Kind::Evacuation, host.uuid())?;
    Some((Evacuation::of(&record)?.clone(), record.meta))
}

fn put(tx: &mut Tx<Record>, row: Evacuation, now: Timestamp) -> Result<()> {
    let before = tx.get(Kind::Evacuation, row.uuid.uuid()).map(|record| record.meta);
    let meta = before.unwrap_or(Meta { owner: None, created: now, changed: now });
    tx.put(Record::new(row, Meta { changed: now, ..meta })).map_err(claim::taken)
}

/// An error with what to do about it, in one line.
fn words(error: &Error) -> String {
    match &error.hint {
        Some(hint) => format!("{}: {hint}", error.message),
        None => error.message.clone(),
    }
}
