//! Calls realisers out of process: what is wanted is realised, what is not is taken away.
//!
//! It goes by the rows and by what is there, not by events: these only say where to look. What is to
//! be called is noted before, and what came of it after; so after a crash a realiser is called again,
//! perhaps twice with the same. One that does not answer is called again later and later, and keeps no
//! other waiting.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use model::{
    Id, Kind, Meta, Record, Resource, Result, Timestamp,
    resource::l2_realiser::{L2Realisation, L2Realiser, RealisationState},
};
use store::{Event, Read, Tx};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    describe,
    wanted::{Place, concerned, of_realiser},
};
use crate::{
    Gate, claim,
    lease::{self, Span},
    turns::Turns,
};

/// Calls at a time, and those of one realiser: one that is slow keeps only its own waiting.
const AT_ONCE_MAX: usize = 32;
const AT_ONCE_OF_REALISER_MAX: usize = 4;
/// How long it takes until a realiser is called again that has not done what it was to; after each
/// further failure twice as long.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// Longest reason that is kept, in characters.
const REASON_MAX: usize = 255;
/// How long calls are waited for when no more are made.
const LAST_MAX: Duration = Duration::from_secs(2);

/// What a realiser is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where.
    pub url: String,
    /// HMAC-SHA256 (RFC 2104) of the body with the realiser's secret, hex.
    pub signature: String,
    /// A JSON object.
    pub body: String,
}

/// Why a realiser has not done what it was to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In words: its answer, if it has given one.
    pub why: String,
    /// It has said no: it is not asked again at once.
    pub is_final: bool,
}

/// What calls. It may take some seconds, and is called where blocking is allowed.
pub type Calls = dyn Fn(&Call) -> std::result::Result<(), Refusal> + Send + Sync;

/// Calls by `calls` until told to stop; of several servers on a store one does.
pub async fn run(gate: Arc<Gate>, stop: CancellationToken, calls: Arc<Calls>) {
    let work = |ours| Caller::new(&gate, &calls).serve(ours);
    lease::held(&gate, "realisers", Span::SERVERS, stop, work).await;
}

/// What has come of a look at a place.
enum Outcome {
    /// Nothing is to be done there.
    Settled,
    /// It is to be looked at again at this time.
    At(Duration),
    /// The realiser has failed.
    Failed,
}

/// Whose turn it is, and who comes later.
struct Caller {
    gate: Arc<Gate>,
    calls: Arc<Calls>,
    turns: Turns<Place, Id<L2Realiser>>,
    later: BTreeSet<(Instant, Place)>,
    /// Places that are being looked at; those that may have changed meanwhile.
    busy: HashSet<Place>,
    again: HashSet<Place>,
    failures: HashMap<Place, u32>,
}

impl Caller {
    fn new(gate: &Arc<Gate>, calls: &Arc<Calls>) -> Self {
        Self {
            gate: Arc::clone(gate),
            calls: Arc::clone(calls),
            turns: Turns::new(AT_ONCE_MAX, AT_ONCE_OF_REALISER_MAX),
            later: BTreeSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    async fn serve(mut self, stop: CancellationToken) {
        let mut commits = self.gate.store().watch();
        let mut running: JoinSet<(Place, Outcome)> = JoinSet::new();
        loop {
            let now = Instant::now();
            while self.later.first().is_some_and(|(at, _)| *at <= now) {
                self.later.pop_first().into_iter().for_each(|(_, place)| self.add(place));
            }
            while let Some((_, place)) = self.turns.next() {
                self.busy.insert(place);
                let (gate, calls) = (Arc::clone(&self.gate), Arc::clone(&self.calls));
                running.spawn(async move { (place, look(&gate, place, calls).await) });
            }
            let next = self.later.first().map(|(at, _)| *at);
            // Each branch only waits: dropping the others loses nothing.
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                Some(ended) = running.join_next() => match ended {
                    Ok((place, outcome)) => self.ended(place, &outcome),
                    Err(error) => tracing::error!(%error, "a realiser's call has ended unexpectedly"),
                },
                event = commits.next() => match event {
                    None => break,
                    Some(Event::Lagged) => {}
                    Some(Event::Snapshot(snapshot)) => {
                        let realisers = snapshot.list(Kind::L2Realiser);
                        let places = realisers.filter_map(|row| {
                            L2Realiser::of(&row).map(|realiser| of_realiser(&snapshot, realiser))
                        });
                        places.flatten().for_each(|place| self.add(place));
                    }
                    Some(Event::Commit(commit)) => {
                        let snapshot = self.gate.store().snapshot();
                        let places = concerned(&snapshot, &commit.changes);
                        places.into_iter().for_each(|place| self.add(place));
                    }
                },
            }
        }
        let ended = async { while running.join_next().await.is_some() {} };
        if timeout(LAST_MAX, ended).await.is_err() {
            tracing::info!("what a realiser has not answered yet it is asked again later");
        }
        running.shutdown().await;
    }

    /// A place is to be looked at, at once.
    fn add(&mut self, place: Place) {
        self.later.retain(|(_, later)| *later != place);
        match self.busy.contains(&place) {
            true => drop(self.again.insert(place)),
            false => self.turns.add((place.realiser, place)),
        }
    }

    fn ended(&mut self, place: Place, outcome: &Outcome) {
        self.turns.ended((place.realiser, place));
        self.busy.remove(&place);
        let failures = match outcome {
            Outcome::Failed => self.failures.remove(&place).unwrap_or(0) + 1,
            Outcome::Settled | Outcome::At(_) => 0,
        };
        if failures > 0 {
            self.failures.insert(place, failures);
        } else {
            self.failures.remove(&place);
        }
        let pause = match outcome {
            Outcome::Settled => None,
            Outcome::At(pause) => Some(*pause),
            Outcome::Failed => {
                Some(AGAIN_MAX.min(AGAIN * 2_u32.saturating_pow((failures - 1).min(9))))
            }
        };
        if self.again.remove(&place) {
            self.add(place);
        } else if let Some(pause) = pause {
            self.later.insert((Instant::now() + pause, place));
        }
    }
}

/// Makes a place what it is to be, as far as that takes one call.
async fn look(gate: &Gate, place: Place, calls: Arc<Calls>) -> Outcome {
    let looked = match is_wanted(gate, &place) {
        true => realise(gate, place, calls).await,
        false => release(gate, place, calls).await,
    };
    looked.unwrap_or_else(|error| {
        tracing::warn!(%error, "what a realiser is to do is not noted");
        Outcome::Failed
    })
}

fn row_of(read: &impl Read<Record>, place: &Place) -> Option<(L2Realisation, Meta)> {
    let record = read.get(Kind::L2Realisation, place.row().uuid.uuid())?;
    Some((L2Realisation::of(&record)?.clone(), record.meta))
}

fn is_wanted(gate: &Gate, place: &Place) -> bool {
    let snapshot = gate.store().snapshot();
    let row = row_of(&snapshot, place);
    let realiser = snapshot.get(Kind::L2Realiser, place.realiser.uuid());
    let l2 = snapshot.get(Kind::L2Network, place.l2.uuid());
    let is_its = match (realiser.as_deref(), l2.as_deref()) {
        (Some(realiser), Some(l2)) => {
            let (realiser, l2) =
                (L2Realiser::of(realiser), model::resource::l2_network::L2Network::of(l2));
            realiser.zip(l2).is_some_and(|(realiser, l2)| realiser.realises(l2))
        }
        _ => false,
    };
    is_its && place.is_wanted(&snapshot, row.as_ref().map(|(row, _)| row), gate.now())
}

/// Has the realiser realise a place as it is now.
async fn realise(gate: &Gate, place: Place, calls: Arc<Calls>) -> Result<Outcome> {
    let snapshot = gate.store().snapshot();
    let (Some(whole), Some(about)) =
        (describe::whole(&snapshot, &place), describe::about(&snapshot, &place))
    else {
        return Ok(Outcome::Settled);
    };
    let hash = describe::hash(&whole);
    let known = row_of(&snapshot, &place).map(|(row, _)| row);
    let is_done = known.as_ref().is_some_and(|row| {
        row.state == RealisationState::Realised && row.told_sha256.as_ref() == Some(&hash)
    });
    if let Some(row) = known.filter(|_| is_done) {
        if place.is_there(&snapshot) && row.asked_until.0 > 0 {
            // From now on it is wanted as long as that is there.
            change(gate, place, |row| Some(L2Realisation { asked_until: Timestamp(0), ..row }))
                .await?;
            return Ok(Outcome::Settled);
        }
        // Nobody may come after all: then it is taken away.
        let left = row.asked_until.0.saturating_sub(gate.now().0);
        let left = u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis);
        return Ok(match (place.is_there(&snapshot), left) {
            (false, Some(left)) => Outcome::At(left + Duration::from_millis(1)),
            (true, _) | (false, None) => Outcome::Settled,
        });
    }
    let about = serde_json::Value::Object(about).to_string();
    change(gate, place, move |row| {
        let state = match row.state {
            RealisationState::Releasing => RealisationState::Realising,
            other => other,
        };
        Some(L2Realisation { about: Some(about.clone()), state, ..row })
    })
    .await?;
    let body = describe::body(whole, "realise", snapshot.revision());
    let Some(answer) = call(gate, &place, body, calls).await else { return Ok(Outcome::Settled) };
    let outcome = if answer.is_ok() { Outcome::At(Duration::ZERO) } else { Outcome::Failed };
    change(gate, place, move |row| {
        Some(match answer.clone() {
            Ok(()) => L2Realisation {
                state: RealisationState::Realised,
                error: None,
                told_sha256: Some(hash.clone()),
                ..row
            },
            Err(refusal) => {
                let state = match refusal.is_final {
                    true => RealisationState::Refused,
                    false => RealisationState::Realising,
                };
                L2Realisation { state, error: Some(cut(&refusal.why)), ..row }
            }
        })
    })
    .await?;
    Ok(outcome)
}

/// Has the realiser take away what nobody needs there, and forgets the place.
async fn release(gate: &Gate, place: Place, calls: Arc<Calls>) -> Result<Outcome> {
    let (now, fence) = (gate.now(), place.fence());
    let begin = move |tx: &mut Tx<Record>| {
        let Some((row, meta)) = row_of(tx, &place) else { return Ok(None) };
        // What another server puts there at the same time is put there for good, or not at all.
        tx.fence(&fence);
        let is_gone = tx.get(Kind::L2Network, place.l2.uuid()).is_none();
        if place.is_wanted(tx, Some(&row), now) && !is_gone {
            return Ok(None);
        }
        if row.about.is_none() {
            tx.delete(Kind::L2Realisation, row.uuid.uuid());
            return Ok(None);
        }
        let state = RealisationState::Releasing;
        let row = L2Realisation { state, told_sha256: None, ..row };
        if row_of(tx, &place).is_none_or(|(before, _)| before != row) {
            tx.put(Record::new(row.clone(), Meta { changed: now, ..meta }))
                .map_err(claim::taken)?;
        }
        Ok(Some(row))
    };
    let begun = gate.store().transact_async(begin).await?;
    let Some(row) = begun.value else { return Ok(Outcome::Settled) };
    let body = describe::body(describe::last_told(&row), "release", begun.revision);
    let Some(answer) = call(gate, &place, body, calls).await else { return Ok(Outcome::Settled) };
    let outcome = if answer.is_ok() { Outcome::At(Duration::ZERO) } else { Outcome::Failed };
    change(gate, place, move |row| match (&answer, row.state) {
        (Ok(()), RealisationState::Releasing) => None,
        (Ok(()), _) => Some(row),
        (Err(refusal), _) => Some(L2Realisation { error: Some(cut(&refusal.why)), ..row }),
    })
    .await?;
    Ok(outcome)
}

fn cut(text: &str) -> String {
    text.chars().take(REASON_MAX).collect()
}

/// Calls the realiser, once. `None`: it is gone.
async fn call(
    gate: &Gate,
    place: &Place,
    body: String,
    calls: Arc<Calls>,
) -> Option<std::result::Result<(), Refusal>> {
    let record = gate.store().snapshot().get(Kind::L2Realiser, place.realiser.uuid())?;
    let L2Realiser { url, secret, .. } = L2Realiser::of(&record)?.clone();
    let what = Call { url, signature: describe::sign(&secret, &body), body };
    let answer = spawn_blocking(move || calls(&what)).await;
    Some(answer.unwrap_or_else(|cause| Err(Refusal { why: cause.to_string(), is_final: false })))
}

/// Changes the row of a place, or makes one; with `None` deletes it.
async fn change(
    gate: &Gate,
    place: Place,
    change: impl Fn(L2Realisation) -> Option<L2Realisation> + Send + 'static,
) -> Result<()> {
    let now = gate.now();
    let change = move |tx: &mut Tx<Record>| {
        // Nothing is left of a realiser that is gone.
        if tx.get(Kind::L2Realiser, place.realiser.uuid()).is_none() {
            return Ok(());
        }
        let found = row_of(tx, &place);
        let (before, meta) = match found {
            Some((row, meta)) => (row, Meta { changed: now, ..meta }),
            None => (place.row(), Meta { owner: None, created: now, changed: now }),
        };
        match change(before) {
            Some(row) => tx.put(Record::new(row, meta)).map_err(claim::taken),
            None => {
                tx.delete(Kind::L2Realisation, place.row().uuid.uuid());
                Ok(())
            }
        }
    };
    gate.store().transact_async(change).await.map(drop)
}
