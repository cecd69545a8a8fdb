//! `GET /events`: what changes, as a stream of server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! A stream holds no queue of its own: what has happened is kept once for all
//! ([`store::Follower`]), and the next piece is made when the client has taken the one before. A client
//! that is too slow is told that it has to read anew, and one that takes nothing is cut as on any
//! connection. A connection with a stream counts as one that waits: it makes room when seats become
//! scarce, and its client comes back to where it was.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use control::{
    Caller, Gate,
    events::{Part, Proof, SHOWN_MAX, Told},
};
use futures_util::stream;
use model::{Code, Kind, Record};
use serde_json::{Value, json};
use store::{Follower, Gone};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    answer,
    door::{self, Called},
    headers::{self, Credential},
};

/// Most streams at a time.
const STREAMS_MAX: usize = 1024;
/// Most of one account.
const STREAMS_OF_ACCOUNT_MAX: usize = 64;
/// By which a client that comes back says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// What streams need.
pub(crate) struct Events {
    pub(crate) gate: Arc<Gate>,
    /// How often a stream shows that it lives.
    pub(crate) beat: Duration,
    pub(crate) stop: CancellationToken,
    pub(crate) open: Arc<Open>,
}

/// The open streams, by account.
#[derive(Debug, Default)]
pub(crate) struct Open(Mutex<HashMap<Uuid, usize>>);

/// A place among them; free again when dropped.
struct Place {
    open: Arc<Open>,
    account: Uuid,
}

pub(crate) fn routes(events: Events) -> Router {
    let events = Arc::new(events);
    let routes = Router::new().route("/events", get(follow));
    Router::new().nest("/zstack/v1", routes.clone()).nest("/v1", routes).with_state(events)
}

async fn follow(
    State(events): State<Arc<Events>>,
    Query(pairs): Query<Vec<(String, String)>>,
    called: Called,
) -> Response {
    called.asked.is("events");
    let bad = |text: String| answer::protocol(StatusCode::BAD_REQUEST, text);
    let (caller, proof) = match known(&events.gate, &called) {
        Ok(known) => known,
        Err(refused) => return *refused,
    };
    let wanted = match Wanted::read(&pairs, &called.headers) {
        Ok(wanted) => wanted,
        Err(text) => return bad(text),
    };
    let follower = match events.gate.follow_from(wanted.after) {
        Ok(follower) => follower,
        Err(gone) => return answer::protocol(StatusCode::GONE, anew(&gone)),
    };
    let Some(place) = caller.account().and_then(|id| Open::enter(&events.open, id.uuid())) else {
        let text = format!(
            "{STREAMS_OF_ACCOUNT_MAX} streams of one account and {STREAMS_MAX} in all are the most"
        );
        return answer::protocol(StatusCode::TOO_MANY_REQUESTS, text);
    };
    let mut beat = interval(events.beat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    let start = event("start", Some(follower.after()), &json!({"revision": follower.after()}));
    let streaming = Streaming {
        gate: Arc::clone(&events.gate),
        who: (caller, proof),
        kinds: wanted.kinds,
        follower,
        beat,
        stop: events.stop.clone(),
        parts: VecDeque::new(),
        ready: VecDeque::from([start]),
        ends: false,
        _place: place,
    };
    let pieces = stream::unfold(streaming, async |mut streaming| {
        let piece = streaming.next().await?;
        Some((Ok::<_, Infallible>(piece), streaming))
    });
    let no_buffers = [("cache-control", "no-store"), ("x-accel-buffering", "no")];
    (no_buffers, Sse::new(pieces)).into_response()
}

/// Who calls, and by what.
fn known(gate: &Gate, called: &Called) -> Result<(Caller, Proof), Box<Response>> {
    let caller = door::caller(gate, called, door::UNTOLD)?;
    let proof = match headers::credential(&called.headers) {
        Ok(Credential::Session(session)) => model::id::parse_uuid(session).map(Proof::Session),
        Ok(Credential::Key(key, _)) => model::id::parse_uuid(key).map(Proof::Key),
        Err(_) => None,
    };
    // What `caller` has accepted has such a form.
    let proof = proof.ok_or_else(|| Box::new(answer::protocol(StatusCode::BAD_REQUEST, "")))?;
    Ok((caller, proof))
}

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    /// From where on; nothing: from now on.
    after: Option<u64>,
    /// Of which types; none: of all.
    kinds: BTreeSet<String>,
}

impl Wanted {
    pub(crate) fn read(pairs: &[(String, String)], headers: &HeaderMap) -> Result<Self, String> {
        let number = |what: &str, text: &str| {
            let wrong = format!("{what} is a revision, a number, and not {text:?}");
            text.parse::<u64>().map_err(|_| wrong)
        };
        let mut this = Self { after: None, kinds: BTreeSet::new() };
        for (key, value) in pairs {
            match key.as_str() {
                "after" if !value.is_empty() => this.after = Some(number("after", value)?),
                "after" => {}
                "resourceType" => {
                    let mut kinds = Kind::ALL.iter().filter(|kind| kind.def().is_shown());
                    if !kinds.any(|kind| kind.def().vo() == *value) {
                        return Err(format!("resourceType: {value:?} is none, such as ZoneVO"));
                    }
                    this.kinds.insert(value.clone());
                }
                _ => return Err(format!("{key:?} is neither after nor resourceType")),
            }
        }
        // A client that comes back by itself asks for the same address again.
        if let Some(last) = headers.get(LAST_EVENT_ID) {
            let text = last.to_str().map_err(|_| format!("{LAST_EVENT_ID} is not a number"))?;
            this.after = Some(number(LAST_EVENT_ID, text)?);
        }
        Ok(this)
    }
}

/// One client's stream.
struct Streaming {
    gate: Arc<Gate>,
    who: (Caller, Proof),
    kinds: BTreeSet<String>,
    follower: Follower<Record>,
    beat: Interval,
    stop: CancellationToken,
    /// What has happened, and is not shown yet.
    parts: VecDeque<Part>,
    ready: VecDeque<Event>,
    /// Nothing comes after what is ready.
    ends: bool,
    _place: Place,
}

impl Streaming {
    /// The next event; `None`: the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ends || self.stop.is_cancelled() {
                return None;
            }
            if self.parts.is_empty() { self.wait().await? } else { self.show().await }
        }
    }

    /// Waits until something has happened.
    async fn wait(&mut self) -> Option<()> {
        // Each branch only waits: dropping the others loses nothing.
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            _ = self.beat.tick() => self.live(),
            page = self.follower.next() => match page? {
                Ok(page) => self.parts.extend(page.iter().flat_map(Part::of)),
                Err(gone) => self.end("gone", &json!({
                    "revision": gone.newest, "text": anew(&gone),
                })),
            },
        }
        Some(())
    }

    /// Shows that it lives, and up to where there was nothing for this client.
    fn live(&mut self) {
        if self.is_known() {
            self.ready.push_back(Event::default().id(self.follower.after().to_string()));
        }
    }

    /// Whether the client may still follow; the stream ends if not.
    fn is_known(&mut self) -> bool {
        let (caller, proof) = &self.who;
        let is_known = self.gate.still_knows(caller, proof);
        if !is_known {
            self.end("closed", &json!({"text": "the session or key is not valid any more"}));
        }
        is_known
    }

    /// Makes the next events.
    async fn show(&mut self) {
        if !self.is_known() {
            return;
        }
        let mut changes = 0;
        let some = self.parts.iter().take_while(|part| {
            changes += part.range.len();
            changes <= SHOWN_MAX
        });
        let some: Vec<Part> = some.take(SHOWN_MAX).cloned().collect();
        match self.gate.tell(self.who.0, some.clone()).await {
            Ok(told) => {
                self.parts.drain(..some.len());
                self.ready
                    .extend(told.into_iter().filter_map(|told| changes_of(told, &self.kinds)));
            }
            // Many want to know something: it has its turn later.
            Err(error) if error.code == Code::Overloaded => {
                self.beat.tick().await;
            }
            Err(error) => self.end("closed", &json!({"text": error.to_string()})),
        }
    }

    fn end(&mut self, name: &str, data: &Value) {
        self.ready.push_back(event(name, None, data));
        self.ends = true;
    }
}

/// The event about a part of a revision. The last one has its number: a client that comes back after
/// an earlier one is told the revision again.
fn changes_of(told: Told, kinds: &BTreeSet<String>) -> Option<Event> {
    let mut changes = told.changes;
    let is_wanted = |change: &Value| {
        kinds.is_empty() || change["resourceType"].as_str().is_some_and(|it| kinds.contains(it))
    };
    changes.retain(is_wanted);
    if changes.is_empty() {
        return None;
    }
    let id = told.is_last.then_some(told.revision);
    Some(event("changes", id, &json!({"revision": told.revision, "changes": changes})))
}

fn event(name: &str, id: Option<u64>, data: &Value) -> Event {
    let event = Event::default().event(name).data(data.to_string());
    match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

/// What a client is told that has missed something.
fn anew(gone: &Gone) -> String {
    format!("{gone}: read everything anew, and follow from revision {}", gone.newest)
}

impl Open {
    fn enter(open: &Arc<Self>, account: Uuid) -> Option<Place> {
        let mut by_account = open.lock();
        let own = by_account.get(&account).copied().unwrap_or(0);
        let all: usize = by_account.values().sum();
        if own >= STREAMS_OF_ACCOUNT_MAX || all >= STREAMS_MAX {
            return None;
        }
        by_account.insert(account, own + 1);
        Some(Place { open: Arc::clone(open), account })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        // Each change is complete, whatever panics elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_account = self.open.lock();
        if let Some(own) = by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                by_account.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let parts = text.split('&').filter(|part| !part.is_empty());
        let pair = |part: &str| part.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
        parts.filter_map(pair).collect()
    }

    #[test]
    fn a_client_says_from_where_on_and_what() {
        let read = |text: &str, last: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(last) = last.and_then(|last| last.parse().ok()) {
                headers.insert(LAST_EVENT_ID, last);
            }
            Wanted::read(&pairs(text), &headers).map(|it| (it.after, it.kinds.len()))
        };
        assert_eq!(read("", None), Ok((None, 0)));
        assert_eq!(read("after=", None), Ok((None, 0)));
        assert_eq!(
            read("after=7&resourceType=ZoneVO&resourceType=VmNicVO", None),
            Ok((Some(7), 2))
        );
        assert_eq!(read("after=7", Some("9")), Ok((Some(9), 0)), "what it has seen since");
        for wrong in ["after=x", "after=-1", "resourceType=Zone", "resourceType=HostCredentialVO"] {
            assert!(read(wrong, None).is_err(), "{wrong}");
        }
        assert!(read("colour=red", None).is_err() && read("", Some("x")).is_err());
    }

    #[test]
    fn an_account_has_some_streams_and_leaves_room_for_others() {
        let open = Arc::new(Open::default());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut own: Vec<Place> =
            (0..STREAMS_OF_ACCOUNT_MAX).map_while(|_| Open::enter(&open, one)).collect();
        assert_eq!(own.len(), STREAMS_OF_ACCOUNT_MAX);
        assert!(Open::enter(&open, one).is_none() && Open::enter(&open, other).is_some());
        own.pop();
        assert!(Open::enter(&open, one).is_some(), "a place is free again");
        drop(own);
        assert!(open.lock().is_empty());
    }
}
