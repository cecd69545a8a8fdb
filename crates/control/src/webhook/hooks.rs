//! Sends webhooks what changes: what the account of each may see, of the kinds that it names.
//!
//! Each webhook has a place in the sequence of revisions, its cursor, which is written down once what
//! is before it has been taken; so what changes is sent in order, and after a crash perhaps twice.
//! Nothing is queued: what has happened is kept once for all who follow ([`store::Follower`]). A
//! webhook that is further behind than that reaches says so in its `notInEffect`, and goes on from
//! now. One whose receiver does not answer is tried again later and later, and keeps no other waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use model::{
    Id, Kind, Meta, Record, Resource, Result,
    resource::{
        account::{ADMIN, Account},
        webhook::{Wanted, Webhook, WebhookCursor},
    },
};
use serde_json::{Value, json};
use store::{Event, Follower, Read, Tx};
use tokio::{
    sync::{Notify, Semaphore},
    task::{AbortHandle, JoinError, JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    About, Post, Sends,
    calls::{AGAIN, AT_ONCE_MAX, AT_ONCE_OF_ACCOUNT_MAX, NotSent, REASON_MAX, reach_of},
};
use crate::{
    Gate, claim,
    events::{Part, SHOWN_MAX},
};

/// Longest time until what nobody has taken is tried again.
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// How long nothing is tried after the store, or what reads from it, had no room.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the places of webhooks that had nothing to send are written down.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Places that are written in one transaction, so that it stays small.
const STEP: usize = 1000;

/// What all webhooks share.
struct Hooks {
    gate: Arc<Gate>,
    post: Arc<Sends>,
    /// Whoever sends has one of these, and one of its account's.
    places: Arc<Semaphore>,
    of_accounts: Mutex<HashMap<Uuid, Weak<Semaphore>>>,
    /// How far each has got.
    reached: Mutex<HashMap<Uuid, u64>>,
    /// Nothing more is begun after it.
    stop: CancellationToken,
}

/// The task of one webhook.
struct Running {
    task: AbortHandle,
    changed: Arc<Notify>,
}

/// Sends what changes by `post`, until told to stop.
pub(super) async fn run(gate: Arc<Gate>, stop: CancellationToken, post: Arc<Sends>) {
    let mut commits = gate.store().watch();
    let hooks = Arc::new(Hooks {
        gate,
        post,
        places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
        of_accounts: Mutex::default(),
        reached: Mutex::default(),
        stop: stop.clone(),
    });
    let mut tasks = JoinSet::new();
    let mut running: HashMap<Uuid, Running> = HashMap::new();
    let (mut tick, mut noted) = (interval(NOTE_EVERY), 0);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Each branch only waits, but for the notes, which nothing else waits for: dropping the
        // others loses nothing.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = tasks.join_next() => if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a webhook has ended unexpectedly");
            },
            _ = tick.tick() => noted = hooks.note_all(noted).await,
            event = commits.next() => match event {
                None => break,
                Some(Event::Lagged) => {}
                Some(Event::Snapshot(snapshot)) => {
                    let rows: Vec<Uuid> = snapshot.ids(Kind::Webhook).collect();
                    let gone = running.keys().filter(|id| rows.binary_search(id).is_err());
                    for id in gone.copied().collect::<Vec<_>>() {
                        hooks.end(&mut running, id);
                    }
                    rows.into_iter().for_each(|id| hooks.begin(&mut tasks, &mut running, id));
                }
                Some(Event::Commit(commit)) => {
                    for change in commit.changes.iter().filter(|it| it.kind == Kind::Webhook) {
                        match change.after {
                            Some(_) => hooks.begin(&mut tasks, &mut running, change.id),
                            None => hooks.end(&mut running, change.id),
                        }
                    }
                }
            },
        }
    }
    super::end(&mut tasks).await;
    hooks.note_all(0).await;
}

impl Hooks {
    /// A webhook is there, or has changed.
    fn begin(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        running: &mut HashMap<Uuid, Running>,
        id: Uuid,
    ) {
        if let Some(running) = running.get(&id) {
            running.changed.notify_one();
            return;
        }
        let changed = Arc::new(Notify::new());
        let (hooks, notified) = (Arc::clone(self), Arc::clone(&changed));
        let task = tasks.spawn(async move { hooks.serve(Id::new(id), &notified).await });
        running.insert(id, Running { task, changed });
    }

    /// A webhook is gone: nothing more is sent there.
    fn end(&self, running: &mut HashMap<Uuid, Running>, id: Uuid) {
        if let Some(running) = running.remove(&id) {
            running.task.abort();
        }
        lock(&self.reached).remove(&id);
    }

    /// Sends a webhook what changes, for as long as it is there, until told to stop.
    async fn serve(&self, id: Id<Webhook>, changed: &Notify) {
        let after = self.cursor(id).map(|cursor| cursor.revision);
        let mut follower = match self.gate.follow_from(after) {
            Ok(follower) => follower,
            Err(gone) => self.skip(id, gone.asked, gone.newest).await,
        };
        lock(&self.reached).insert(id.uuid(), follower.after());
        while let Some(Some(page)) = self.stop.run_until_cancelled(follower.next()).await {
            match page {
                Ok(page) => {
                    let parts = page.iter().flat_map(Part::of).collect();
                    let Some(sent) = self.send_all(id, parts, changed).await else { return };
                    let reached = follower.after();
                    lock(&self.reached).insert(id.uuid(), reached);
                    if sent {
                        self.note_one(id, reached).await;
                    }
                }
                Err(gone) => follower = self.skip(id, gone.asked, gone.newest).await,
            }
        }
    }

    /// Goes on from now, after what it did not tell: what has changed since is not known any more.
    async fn skip(&self, id: Id<Webhook>, after: u64, newest: u64) -> Follower<Record> {
        let mut newest = newest;
        loop {
            let missed = format!(
                "what the revisions {} to {newest} changed was not sent: it is not kept any more, \
                 as the server was started again or the receiver was too slow",
                after + 1
            );
            let noted = self
                .change(id, move |cursor| WebhookCursor {
                    revision: newest,
                    missed: Some(missed.clone()),
                    ..cursor
                })
                .await;
            match (noted, self.gate.follow_from(Some(newest))) {
                (true, Ok(follower)) => return follower,
                (true, Err(gone)) => newest = gone.newest,
                (false, _) => sleep(PAUSE).await,
            }
        }
    }

    /// Sends what is to be told of these; says whether anything was. `None`: the webhook is gone,
    /// or nothing more is to be sent.
    async fn send_all(
        &self,
        id: Id<Webhook>,
        mut parts: VecDeque<Part>,
        changed: &Notify,
    ) -> Option<bool> {
        let mut sent = false;
        while !parts.is_empty() {
            let mut changes = 0;
            let fits = parts.iter().take_while(|part| {
                changes += part.range.len();
                changes <= SHOWN_MAX
            });
            let some = fits.count().max(1);
            let some: Vec<Part> = parts.drain(..some).collect();
            let (last, is_whole) = some.last().map(|part| (part.past.revision, part.is_last()))?;
            let events = self.told(id, some).await?;
            if !events.is_empty() {
                self.deliver(id, (&events, last), changed).await?;
                if is_whole {
                    lock(&self.reached).insert(id.uuid(), last);
                }
                sent = true;
            }
        }
        Some(sent)
    }

    /// What a webhook is told of these. `None`: it is gone, or nothing more is to be sent.
    async fn told(&self, id: Id<Webhook>, parts: Vec<Part>) -> Option<Vec<Value>> {
        while !self.stop.is_cancelled() {
            let (hook, owner) = self.row(id)?;
            let Some(wanted) = hook.wanted() else { return Some(Vec::new()) };
            let concerns = |part: &Part| {
                let changes = &part.past.changes[part.range.clone()];
                changes.iter().any(|change| wanted.includes(change.kind))
            };
            let parts: Vec<Part> = parts.iter().filter(|part| concerns(part)).cloned().collect();
            if parts.is_empty() {
                return Some(Vec::new());
            }
            let here = std::net::Ipv4Addr::LOCALHOST.into();
            let caller = self.gate.caller_of(owner, None, here).ok()?;
            match self.gate.tell(caller, parts).await {
                Ok(told) => {
                    let events = told.into_iter().filter_map(|told| {
                        let is_it = |change: &Value| is_of(wanted, change);
                        let changes: Vec<Value> = told.changes.into_iter().filter(is_it).collect();
                        let event = || json!({"revision": told.revision, "changes": changes});
                        (!changes.is_empty()).then(event)
                    });
                    return Some(events.collect());
                }
                // Many want to know something: it has its turn later.
                Err(_) => sleep(PAUSE).await,
            }
        }
        None
    }

    /// Sends events until they are taken. `None`: the webhook is gone, or nothing more is to be sent.
    async fn deliver(
        &self,
        id: Id<Webhook>,
        (events, revision): (&[Value], u64),
        changed: &Notify,
    ) -> Option<()> {
        let mut again = AGAIN;
        loop {
            let (hook, owner) = self.row(id)?;
            let about = json!({
                "uuid": id, "name": hook.name, "type": hook.hook_type, "opaque": hook.opaque,
            });
            let what = Post {
                url: hook.url,
                reach: reach_of(&self.gate.store().snapshot(), owner)?,
                about: About::Changes { webhook: id, revision },
                body: json!({"webhook": about, "events": events}).to_string(),
            };
            let Err(failed) = self.try_once(owner, what).await? else { break };
            let why: String = failed.why.chars().take(REASON_MAX).collect();
            self.change(id, move |cursor| WebhookCursor { error: Some(why.clone()), ..cursor })
                .await;
            let pause = if failed.is_tried_again { again } else { AGAIN_MAX };
            again = AGAIN_MAX.min(again * 5);
            // It may have another address by now.
            tokio::select! {
                () = sleep(pause) => {}
                () = changed.notified() => {}
                () = self.stop.cancelled() => return None,
            }
        }
        Some(())
    }

    /// Sends once, which nothing interrupts. `None`: nothing more is to be sent.
    async fn try_once(
        &self,
        owner: Id<Account>,
        what: Post,
    ) -> Option<std::result::Result<(), NotSent>> {
        let of_account = self.places_of(owner);
        // Nobody closes them.
        let places = async { (of_account.acquire().await, self.places.acquire().await) };
        let _places = self.stop.run_until_cancelled(places).await?;
        let post = Arc::clone(&self.post);
        let trying = spawn_blocking(move || post(&what)).await;
        let failed = |cause: JoinError| NotSent { why: cause.to_string(), is_tried_again: true };
        Some(trying.unwrap_or_else(|cause| Err(failed(cause))))
    }

    fn places_of(&self, account: Id<Account>) -> Arc<Semaphore> {
        let mut all = lock(&self.of_accounts);
        if let Some(places) = all.get(&account.uuid()).and_then(Weak::upgrade) {
            return places;
        }
        all.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(AT_ONCE_OF_ACCOUNT_MAX));
        all.insert(account.uuid(), Arc::downgrade(&places));
        places
    }

    fn row(&self, id: Id<Webhook>) -> Option<(Webhook, Id<Account>)> {
        let record = self.gate.store().snapshot().get(Kind::Webhook, id.uuid())?;
        let owner = record.meta.owner.unwrap_or(Id::new(ADMIN));
        Some((Webhook::of(&record)?.clone(), owner))
    }

    fn cursor(&self, id: Id<Webhook>) -> Option<WebhookCursor> {
        let record = self.gate.store().snapshot();
        let record = record.get(Kind::WebhookCursor, WebhookCursor::id_of(id).uuid())?;
        WebhookCursor::of(&record).cloned()
    }

    /// Changes a cursor; says whether the store has taken it.
    async fn change(
        &self,
        id: Id<Webhook>,
        change: impl Fn(WebhookCursor) -> WebhookCursor + Send + 'static,
    ) -> bool {
        let change = move |tx: &mut Tx<Record>| put(tx, id, &change);
        let changed = self.gate.store().transact_async(change).await;
        if let Err(error) = &changed {
            tracing::warn!(%error, webhook = %id, "the place of a webhook is not written down");
        }
        changed.is_ok()
    }

    /// Writes down that what is before it was taken.
    async fn note_one(&self, id: Id<Webhook>, reached: u64) {
        let note = move |tx: &mut Tx<Record>| note(tx, id, reached, true);
        if let Err(error) = self.gate.store().transact_async(note).await {
            tracing::warn!(%error, webhook = %id, "a webhook may be told again what it was told");
        }
    }

    /// Up to where nothing has changed after a revision that anybody sees.
    fn quiet_after(&self, revision: u64) -> u64 {
        let mut reached = revision;
        let Ok(mut follower) = self.gate.follow_from(Some(revision)) else { return reached };
        while let Ok(page) = follower.try_next() {
            let mut changes = page.iter().flat_map(|past| &*past.changes);
            if page.is_empty() || changes.any(|change| change.kind.def().is_shown()) {
                break;
            }
            reached = follower.after();
        }
        reached
    }

    /// Writes down how far all have got, unless nothing has happened since the last time, at
    /// `noted`; gives the revision at which it has.
    async fn note_all(&self, noted: u64) -> u64 {
        let snapshot = self.gate.store().snapshot();
        let mut last = snapshot.revision();
        if last == noted {
            return noted;
        }
        let all: Vec<(Uuid, u64)> =
            lock(&self.reached).iter().map(|(id, reached)| (*id, *reached)).collect();
        for step in all.chunks(STEP) {
            let quiet = step.iter().map(|(id, reached)| (*id, self.quiet_after(*reached)));
            let step: Vec<_> = quiet.collect();
            let write = move |tx: &mut Tx<Record>| {
                step.iter().try_for_each(|(id, reached)| note(tx, Id::new(*id), *reached, false))
            };
            match self.gate.store().transact_async(write).await {
                Ok(committed) => last = committed.revision,
                Err(error) => tracing::warn!(%error, "places of webhooks are not written down"),
            }
        }
        last
    }
}

/// Whether a change that is told is one of what is wanted.
fn is_of(wanted: Wanted, change: &Value) -> bool {
    match wanted {
        Wanted::Everything => true,
        Wanted::Kind(kind) => change["resourceType"] == kind.def().vo(),
    }
}

/// Writes a place down. If nothing but this is new, the place is behind this: after a start nothing
/// seems to be missed.
fn note(tx: &mut Tx<Record>, id: Id<Webhook>, reached: u64, is_taken: bool) -> Result<()> {
    let base = tx.revision();
    let revision = if reached == base { base + 1 } else { reached };
    put(tx, id, &move |cursor: WebhookCursor| WebhookCursor {
        revision: revision.max(cursor.revision),
        error: cursor.error.filter(|_| !is_taken),
        ..cursor
    })
}

/// Changes the cursor of a webhook that is there.
fn put(
    tx: &mut Tx<Record>,
    webhook: Id<Webhook>,
    change: &dyn Fn(WebhookCursor) -> WebhookCursor,
) -> Result<()> {
    let Some(row) = tx.get(Kind::Webhook, webhook.uuid()) else { return Ok(()) };
    let found = tx.get(Kind::WebhookCursor, WebhookCursor::id_of(webhook).uuid());
    let meta = found.as_ref().map_or(Meta { owner: None, ..row.meta }, |record| record.meta);
    let cursor = found.as_deref().and_then(WebhookCursor::of).cloned();
    let cursor = cursor.unwrap_or_else(|| WebhookCursor::at(webhook, tx.revision()));
    tx.put(Record::new(change(cursor), meta)).map_err(claim::taken)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave it half changed: each change is one call.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
