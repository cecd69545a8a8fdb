//! Sends the results of calls to whoever wants them (`X-Web-Hook`).
//!
//! That somebody is to be told is written in the transaction of the call, and taken away once they
//! are: after a crash they are told, perhaps twice. What was tried in vain stays for a while, so that
//! its account can see why.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use model::{
    Code, Error, Id, Kind, Meta, Record, Resource, Result, Timestamp,
    record::OWNER,
    resource::{
        account::{ADMIN, Account, AccountType},
        job::Job,
        webhook::{Webhook, WebhookCall, WebhookCallState},
    },
    setting::{JOB_EXPIRY, WEB_HOOK_NETWORKS},
};
use serde_json::json;
use store::{Event, Key, Read, Snapshot, Tx};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Reach;
use crate::{Caller, Gate, JobId, JobState, claim, config, turns::Turns};

/// Calls that are sent at a time.
pub const AT_ONCE_MAX: usize = 32;
/// Those of one account: whoever listens slowly keeps only their own waiting.
pub const AT_ONCE_OF_ACCOUNT_MAX: usize = 4;
/// How often a call is tried.
pub const TRIES: u32 = 5;
/// Calls of one account that may be due, those that failed included.
pub const OPEN_MAX: u64 = 2_000;
/// Calls of one account beyond which one that fails is not kept.
pub const FAILED_MAX: u64 = 1_000;
/// How long it takes until a call is tried again; after each further failure five times as long.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked which jobs are decided, at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looking takes this part of the time at most.
const LOOK_SHARE: u32 = 10;
/// Longest reason that is kept, in characters.
pub(super) const REASON_MAX: usize = 255;
/// Rows deleted in one transaction, so that it stays small.
const STEP: usize = 1000;

/// What is to be sent, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Post {
    /// Where.
    pub url: String,
    /// Where it may go at all.
    pub reach: Reach,
    /// What it tells of.
    pub about: About,
    /// A JSON object; of a job, the same as its result.
    pub body: String,
}

/// What somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// What has become of a call.
    Result {
        /// The job.
        job: Id<Job>,
        /// Whether the call succeeded.
        is_success: bool,
    },
    /// What has changed.
    Changes {
        /// The webhook that is told.
        webhook: Id<Webhook>,
        /// The last revision of which it tells.
        revision: u64,
    },
}

/// Why something was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent {
    /// In words.
    pub why: String,
    /// Whether it may be better later.
    pub is_tried_again: bool,
}

/// What sends. It may take some seconds, and is called where blocking is allowed.
pub type Sends = dyn Fn(&Post) -> std::result::Result<(), NotSent> + Send + Sync;

type Turn = (Id<Account>, Id<WebhookCall>);

impl Gate {
    /// Where the results of an account's calls may be sent.
    #[must_use]
    pub fn reach(&self, caller: &Caller) -> Reach {
        match caller.is_admin() {
            true => Reach::Everywhere,
            false => Reach::Public(config::networks(&self.store().snapshot(), &WEB_HOOK_NETWORKS)),
        }
    }

    /// Refuses a further call with a webhook of an account for which too many are due.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub fn check_webhook_room(&self, caller: &Caller) -> Result<()> {
        let account = caller.account().map_or(ADMIN, Id::uuid);
        let due = self.store().snapshot().count(Kind::WebhookCall, OWNER, &Key::Uuid(account));
        if due < OPEN_MAX {
            return Ok(());
        }
        let text = format!("{OPEN_MAX} results of the account are to be sent already");
        let hint = "leave X-Web-Hook out and ask for the job; QueryWebhookCall shows what is due \
                    and why it failed";
        Err(Error::new(Code::Overloaded, text).hint(hint))
    }
}

/// Writes down that the result of a job is to be sent; `refusal` is the error of one that was
/// refused.
pub(crate) fn due(
    tx: &mut Tx<Record>,
    (caller, url): (&Caller, &str),
    job: JobId,
    refusal: Option<&Error>,
    now: Timestamp,
) -> Result<()> {
    let call = WebhookCall {
        uuid: Id::new(Uuid::new_v5(&job.uuid.uuid(), b"webhook")),
        job_uuid: job.uuid.uuid(),
        url: url.to_owned(),
        state: WebhookCallState::Waiting,
        tries: 0,
        error: None,
        refusal: refusal.map(|error| json!({"error": error.describe()}).to_string()),
    };
    let owner = caller.account().or(Some(Id::new(ADMIN)));
    let meta = Meta { owner, created: now, changed: now };
    tx.put(Record::new(call, meta)).map_err(claim::taken)
}

/// Whose call it is, and the job that it waits for; none for a call that was refused.
type Awaited = (Id<Account>, Option<Id<Job>>);

/// What is due.
struct Due {
    /// Whose job is not decided.
    undecided: HashMap<Id<WebhookCall>, Awaited>,
    turns: Turns<Id<WebhookCall>>,
    /// What is tried again, and when.
    later: BTreeSet<(Instant, Turn)>,
    /// When it is looked again which jobs are decided.
    look: Instant,
}

impl Due {
    fn take(&mut self, record: &Record) {
        if let Some(call) = WebhookCall::of(record)
            && call.state == WebhookCallState::Waiting
        {
            let job = call.refusal.is_none().then(|| Id::new(call.job_uuid));
            self.undecided.insert(call.uuid, (owner(record), job));
            self.look = self.look.min(Instant::now());
        }
    }

    /// Those whose jobs are decided are sent when it is their turn.
    async fn decide(&mut self, gate: &Gate) {
        let start = Instant::now();
        let calls: Vec<_> = self.undecided.iter().map(|(id, entry)| (*id, *entry)).collect();
        for (id, (account, job)) in calls {
            let is_decided = match job {
                None => true,
                Some(job) => {
                    let state = gate.jobs.state(&owner_of(account), job).await;
                    !matches!(state, JobState::Processing(_))
                }
            };
            if is_decided {
                self.undecided.remove(&id);
                self.turns.add((account, id));
            }
        }
        let now = Instant::now();
        self.look = now + LOOK_EVERY.max((now - start) * LOOK_SHARE);
    }

    /// When something is to be done without anybody saying so.
    fn next(&self) -> Option<Instant> {
        let look = (!self.undecided.is_empty()).then_some(self.look);
        let again = self.later.first().map(|(at, _)| *at);
        look.into_iter().chain(again).min()
    }
}

fn owner(record: &Record) -> Id<Account> {
    record.meta.owner.unwrap_or(Id::new(ADMIN))
}

/// The account itself, as it asks for what has become of its job.
fn owner_of(account: Id<Account>) -> Caller {
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    Caller::Account { id: account, is_admin: false, session: None, source }
}

/// Sends what is due by `post`, until told to stop.
pub(super) async fn run(gate: Arc<Gate>, stop: CancellationToken, post: Arc<Sends>) {
    let mut commits = gate.store().watch();
    let mut due = Due {
        undecided: HashMap::new(),
        turns: Turns::new(AT_ONCE_MAX, AT_ONCE_OF_ACCOUNT_MAX),
        later: BTreeSet::new(),
        look: Instant::now(),
    };
    let mut posts: JoinSet<(Turn, Option<Duration>)> = JoinSet::new();
    loop {
        let now = Instant::now();
        while due.later.first().is_some_and(|(at, _)| *at <= now) {
            due.later.pop_first().into_iter().for_each(|(_, turn)| due.turns.add(turn));
        }
        if !due.undecided.is_empty() && due.look <= now {
            due.decide(&gate).await;
        }
        while let Some(turn) = due.turns.next() {
            let (gate, post) = (Arc::clone(&gate), Arc::clone(&post));
            posts.spawn(async move { (turn, send(&gate, turn, post).await) });
        }
        let next = due.next();
        // Each branch only waits: dropping the others loses nothing.
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            Some(ended) = posts.join_next() => match ended {
                Ok((turn, again)) => {
                    due.turns.ended(turn);
                    if let Some(again) = again {
                        due.later.insert((Instant::now() + again, turn));
                    }
                }
                Err(error) => tracing::error!(%error, "a webhook's call has ended unexpectedly"),
            },
            event = commits.next() => match event {
                None => break,
                Some(Event::Lagged) => {}
                Some(Event::Snapshot(snapshot)) => {
                    let key = Key::Text(WebhookCallState::Waiting.as_str().into());
                    let ids: Vec<_> = snapshot.find(Kind::WebhookCall, "state", &key).collect();
                    let rows = ids.into_iter().filter_map(|id| snapshot.get(Kind::WebhookCall, id));
                    rows.for_each(|row| due.take(&row));
                }
                Some(Event::Commit(commit)) => {
                    let own = commit.changes.iter().filter(|c| c.kind == Kind::WebhookCall);
                    let new = own.filter(|c| c.before.is_none());
                    new.filter_map(|c| c.after.as_ref()).for_each(|row| due.take(row));
                }
            },
        }
    }
    super::end(&mut posts).await;
}

/// Sends a call once; gives how long it takes until it is tried again, if it is.
async fn send(gate: &Gate, (account, id): Turn, post: Arc<Sends>) -> Option<Duration> {
    let sent = match prepare(gate, account, id).await? {
        Ok(what) => {
            let trying = spawn_blocking(move || post(&what)).await;
            trying.unwrap_or_else(|cause| {
                Err(NotSent { why: cause.to_string(), is_tried_again: true })
            })
        }
        Err(why) => Err(NotSent { why, is_tried_again: false }),
    };
    settle(gate, id, sent).await.unwrap_or_else(|error| {
        tracing::warn!(%error, call = %id, "what came of a webhook's call is not noted");
        Some(AGAIN)
    })
}

/// What is to be sent, or why it cannot be; `None` if it need not be.
async fn prepare(
    gate: &Gate,
    account: Id<Account>,
    id: Id<WebhookCall>,
) -> Option<std::result::Result<Post, String>> {
    let snapshot = gate.store().snapshot();
    let record = snapshot.get(Kind::WebhookCall, id.uuid())?;
    let call = WebhookCall::of(&record).filter(|c| c.state == WebhookCallState::Waiting)?;
    let job = Id::<Job>::new(call.job_uuid);
    let (is_success, body) = match &call.refusal {
        Some(refusal) => (false, refusal.clone()),
        None => match gate.jobs.state(&owner_of(account), job).await {
            JobState::Done(answer) => (true, answer.to_string()),
            JobState::Failed(error) => (false, json!({"error": error.describe()}).to_string()),
            JobState::Processing(_) | JobState::Unknown => {
                return Some(Err("its job is forgotten".to_owned()));
            }
        },
    };
    let reach = reach_of(&snapshot, account)?;
    let about = About::Result { job, is_success };
    Some(Ok(Post { url: call.url.clone(), reach, about, body }))
}

/// Where what an account is told may be sent. `None`: it is gone.
pub(super) fn reach_of(snapshot: &Snapshot<Record>, account: Id<Account>) -> Option<Reach> {
    let owner = snapshot.get(Kind::Account, account.uuid())?;
    Some(match Account::of(&owner)?.account_type {
        AccountType::Admin => Reach::Everywhere,
        AccountType::Normal => Reach::Public(config::networks(snapshot, &WEB_HOOK_NETWORKS)),
    })
}

/// Writes down what has come of a try.
async fn settle(
    gate: &Gate,
    id: Id<WebhookCall>,
    sent: std::result::Result<(), NotSent>,
) -> Result<Option<Duration>> {
    let now = gate.now();
    let settle = move |tx: &mut Tx<Record>| {
        let Some(record) = tx.get(Kind::WebhookCall, id.uuid()) else { return Ok(None) };
        let (Some(call), Err(failed)) = (WebhookCall::of(&record), &sent) else {
            tx.delete(Kind::WebhookCall, id.uuid());
            return Ok(None);
        };
        let tries = call.tries.saturating_add(1);
        let is_over = tries >= TRIES || !failed.is_tried_again;
        let of_account = Key::Uuid(owner(&record).uuid());
        if is_over && tx.count(Kind::WebhookCall, OWNER, &of_account) > FAILED_MAX {
            tx.delete(Kind::WebhookCall, id.uuid());
            return Ok(None);
        }
        let state = if is_over { WebhookCallState::Failed } else { WebhookCallState::Waiting };
        let error = Some(failed.why.chars().take(REASON_MAX).collect());
        let tried = WebhookCall { state, tries, error, ..call.clone() };
        let meta = Meta { changed: now, ..record.meta };
        tx.put(Record::new(tried, meta)).map_err(claim::taken)?;
        Ok((!is_over).then(|| AGAIN * 5_u32.saturating_pow(tries - 1)))
    };
    Ok(gate.store().transact_async(settle).await?.value)
}

/// Forgets the calls that failed some time ago, as long as jobs are kept; says how many. Run it now
/// and then.
///
/// # Errors
/// The store's.
pub async fn sweep(store: &store::Store<Record>, now: Timestamp) -> Result<usize> {
    let snapshot = store.snapshot();
    let oldest = now.plus_seconds(-config::number(&snapshot, &JOB_EXPIRY));
    let key = Key::Text(WebhookCallState::Failed.as_str().into());
    let failed = snapshot.find(Kind::WebhookCall, "state", &key);
    let is_old = |id: &Uuid| {
        let row = snapshot.get(Kind::WebhookCall, *id);
        row.is_some_and(|row| row.meta.changed < oldest)
    };
    let gone: Vec<Uuid> = failed.filter(is_old).collect();
    for step in gone.chunks(STEP) {
        let step = step.to_vec();
        let delete = move |tx: &mut Tx<Record>| {
            step.iter().for_each(|id| tx.delete(Kind::WebhookCall, *id));
            Ok(())
        };
        store.transact_async(delete).await?;
    }
    Ok(gone.len())
}
