//! Leases: work that one server does at a time, where several are on one store.
//!
//! Whoever holds the lease changes its row again and again. A server that has not seen it change for
//! [`Span::patience`], by its own monotonic clock, takes it, by a transaction that finds it
//! unchanged: of two servers one gets it. A holder that could not keep it for as long ends its work
//! before another one may begin; one that was stopped half-way and goes on later learns of it with
//! its next turn. What the work writes must bear that. Where the engine has one server alone, there
//! is no row, and nobody waits.

use std::{future::Future, time::Duration};

use model::{Kind, Meta, Record, Resource, Result, resource::lease::Lease};
use store::{Read, Tx};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Gate, claim};

/// How long nothing is tried after the store has failed.
const PAUSE: Duration = Duration::from_millis(500);

/// How leases are kept and taken over.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// How often the holder shows that it lives.
    pub keep: Duration,
    /// How long the others wait for that.
    pub patience: Duration,
}

impl Span {
    /// That of servers.
    pub const SERVERS: Self =
        Self { keep: Duration::from_secs(3), patience: Duration::from_secs(15) };

    /// How long a holder goes on that cannot keep it: it ends before another one begins.
    fn grace(self) -> Duration {
        self.patience.saturating_sub(self.keep)
    }
}

/// Does the work of this name while this server holds its lease, until told to stop. What the work
/// is given tells it to end, because the server stops or because the lease is lost.
pub async fn held<F: Future<Output = ()>>(
    gate: &Gate,
    name: &str,
    span: Span,
    stop: CancellationToken,
    work: impl Fn(CancellationToken) -> F,
) {
    if !gate.store().is_shared() {
        return work(stop).await;
    }
    let own = Own { gate, id: Lease::id_of(name).uuid(), holder: Uuid::new_v4(), span };
    while stop.run_until_cancelled(own.take()).await.is_some() {
        let ours = stop.child_token();
        let keep = async {
            ours.run_until_cancelled(own.keep()).await;
            ours.cancel();
        };
        let work = async {
            work(ours.clone()).await;
            ours.cancel();
        };
        tokio::join!(keep, work);
        if stop.is_cancelled() {
            break;
        }
        tracing::warn!(name, "another server may do this work now");
    }
    own.give_up().await;
}

/// A lease, as one server wants it.
struct Own<'g> {
    gate: &'g Gate,
    id: Uuid,
    holder: Uuid,
    span: Span,
}

/// Who holds a lease, and for which time.
type Held = Option<(Uuid, u64)>;

fn of(read: &impl Read<Record>, id: Uuid) -> Held {
    let record = read.get(Kind::Lease, id)?;
    Lease::of(&record).map(|lease| (lease.holder, lease.turn))
}

impl Own<'_> {
    /// Waits until it has the lease.
    async fn take(&self) {
        let mut commits = self.gate.store().watch();
        let mut seen = of(&self.gate.store().snapshot(), self.id);
        let mut since = Instant::now();
        loop {
            let found = of(&self.gate.store().snapshot(), self.id);
            if found != seen {
                (seen, since) = (found, Instant::now());
            }
            let over = since + self.span.patience;
            if found.is_none() || over <= Instant::now() {
                match self.renew(found).await {
                    Ok(true) => return,
                    Ok(false) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "a lease cannot be taken");
                        sleep(PAUSE).await;
                    }
                }
            }
            // Each branch only waits: dropping the other loses nothing.
            tokio::select! {
                () = sleep_until(over) => {}
                event = commits.next() => if event.is_none() {
                    // The store is gone, and the server with it.
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Keeps it; returns when it is lost, or may be soon.
    async fn keep(&self) {
        let mut kept = Instant::now();
        loop {
            sleep(self.span.keep).await;
            let turn = async {
                let found = of(&self.gate.store().snapshot(), self.id);
                match found {
                    Some((holder, _)) if holder == self.holder => self.renew(found).await,
                    _ => Ok(false),
                }
            };
            let now = Instant::now();
            match timeout_at(kept + self.span.grace(), turn).await {
                Ok(Ok(true)) => kept = now,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::warn!(%error, "a lease cannot be kept"),
            }
        }
    }

    /// Changes it, if it is still as it was found; says whether it was.
    async fn renew(&self, found: Held) -> Result<bool> {
        let (id, holder, now) = (self.id, self.holder, self.gate.now());
        let renew = move |tx: &mut Tx<Record>| {
            if of(tx, id) != found {
                return Ok(false);
            }
            let turn = found.map_or(0, |(_, turn)| turn) + 1;
            let lease = Lease { uuid: model::Id::new(id), holder, turn };
            let meta = Meta { owner: None, created: now, changed: now };
            tx.put(Record::new(lease, meta)).map_err(claim::taken)?;
            Ok(true)
        };
        Ok(self.gate.store().transact_async(renew).await?.value)
    }

    /// Lets others have it at once, if it is ours.
    async fn give_up(&self) {
        let (id, holder) = (self.id, self.holder);
        let delete = move |tx: &mut Tx<Record>| {
            if of(tx, id).is_some_and(|(held_by, _)| held_by == holder) {
                tx.delete(Kind::Lease, id);
            }
            Ok(())
        };
        if let Err(error) = self.gate.store().transact_async(delete).await {
            tracing::warn!(%error, "a lease ends by itself, some seconds later");
        }
    }
}
