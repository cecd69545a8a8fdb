//! The HTTP server: routes made from the tables, and what each kind of route does.

use std::{collections::BTreeMap, net::TcpListener, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Path, Query as QueryString, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{MethodFilter, get, on},
};
use control::{Call, JobState, Jobs, operation::Operation, sessions::Sessions};
use model::{
    Code, Id, Kind, MessageDef,
    declare::{Answer, Method},
    resource::{MESSAGES, job::Job},
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    answer,
    login::{self, Logins},
    query,
    request::{self, Parsed},
};

/// What the door needs to know.
pub struct Door {
    /// Runs calls.
    pub jobs: Jobs,
    /// Who is logged in.
    pub sessions: Sessions,
    /// What agents need to enrol.
    pub enrolment: Enrolment,
    /// Password checks that run and wait.
    pub(crate) logins: Logins,
    operations: BTreeMap<&'static str, Arc<Operation>>,
}

/// Longest body that strangers may send, in bytes: a name of 255 characters, each escaped (12 bytes
/// at most), a digest and tags fit in.
const OPEN_BODY_MAX_BYTES: usize = 8 << 10;
/// Longest body of all others, in bytes: many times the longest message, so that only mistakes and
/// mischief meet it.
const BODY_MAX_BYTES: usize = 1 << 20;

/// What agents need to enrol, besides their token.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Where agents reach the server: `address:port`.
    pub server: String,
    /// The certificate authority by which they know it, PEM.
    pub ca: String,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("REST server: {0}")]
    Io(#[from] std::io::Error),
}

impl Door {
    /// A door to `jobs`.
    #[must_use]
    pub fn new(jobs: Jobs, enrolment: Enrolment) -> Self {
        let all = control::operation::all().into_iter();
        let operations = all.map(|operation| (operation.def.name, Arc::new(operation))).collect();
        let (sessions, logins) = (Sessions::default(), Logins::default());
        Self { jobs, sessions, enrolment, logins, operations }
    }
}

/// How long requests may take to end once the server is told to stop; whatever is cut then can be
/// asked for by its job.
const DRAIN: Duration = Duration::from_secs(3);

type Shared = Arc<Door>;
type Pairs = Vec<(String, String)>;

/// Serves until `stop`; then lets requests end, for a few seconds.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    stop: CancellationToken,
) -> Result<(), Error> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = router(door);
    let drained = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        }
    };
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    // A connection that never finishes its request would keep the server alive for ever. Dropping
    // it loses nothing that was answered.
    tokio::select! {
        ended = serving => ended?,
        () = drained => tracing::info!("cut connections that did not end in time"),
    }
    Ok(())
}

/// All routes, below `/zstack/v1` and `/v1`: ZStack's clients use either.
pub fn router(door: Arc<Door>) -> Router {
    let routes = messages(queries(Router::new())).route("/api-jobs/{uuid}", get(poll));
    let nothing = || async {
        let text = "nothing is here; `netloom messages` lists what is, and where";
        answer::protocol(StatusCode::NOT_FOUND, text)
    };
    let doors = Router::new().nest("/zstack/v1", routes.clone()).nest("/v1", routes);
    doors.fallback(nothing).with_state(door)
}

/// One route for each message; messages that share method and path share a route.
fn messages(mut router: Router<Shared>) -> Router<Shared> {
    let mut by_route: BTreeMap<(Method, &str), Vec<&'static MessageDef>> = BTreeMap::new();
    for def in MESSAGES {
        by_route.entry((def.method, def.path)).or_default().push(def);
    }
    for ((method, path), defs) in by_route {
        let filter = match method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let limit = match defs.iter().any(|def| login::is_open(def)) {
            true => OPEN_BODY_MAX_BYTES,
            false => BODY_MAX_BYTES,
        };
        let handler = move |State(door): State<Shared>,
                            Path(path): Path<BTreeMap<String, String>>,
                            QueryString(pairs): QueryString<Pairs>,
                            headers: HeaderMap,
                            request: Request| {
            call(door, defs.clone(), Incoming { path, pairs, headers, request })
        };
        let limit = DefaultBodyLimit::max(limit);
        router = router.route(path, on(filter, handler).layer(limit));
    }
    router
}

/// Two query routes for each resource that has a path: all of them, and one by its uuid.
fn queries(mut router: Router<Shared>) -> Router<Shared> {
    for kind in Kind::ALL.iter().copied().filter(|kind| !kind.def().path.is_empty()) {
        let list =
            move |State(door): State<Shared>,
                  QueryString(pairs): QueryString<Pairs>,
                  headers: HeaderMap| async move { find(&door, kind, pairs, &headers) };
        let one = move |State(door): State<Shared>,
                        Path(uuid): Path<String>,
                        headers: HeaderMap| async move {
            find(&door, kind, vec![("q".to_owned(), format!("uuid={uuid}"))], &headers)
        };
        let path = kind.def().path;
        router = router.route(path, get(list)).route(&format!("{path}/{{uuid}}"), get(one));
    }
    router
}

/// A request before it is understood.
struct Incoming {
    path: BTreeMap<String, String>,
    pairs: Pairs,
    headers: HeaderMap,
    request: Request,
}

/// Nothing of a stranger's body is read, unless the route is for strangers.
async fn call(door: Shared, defs: Vec<&'static MessageDef>, incoming: Incoming) -> Response {
    let closed = defs.iter().all(|def| !login::is_open(def));
    if closed && let Some(refusal) = refusal(&door, &incoming.headers) {
        return refusal;
    }
    let body = match read(incoming.request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let def = match request::choose(&defs, &body) {
        Ok(def) => def,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    if !closed
        && !login::is_open(def)
        && let Some(refusal) = refusal(&door, &incoming.headers)
    {
        return refusal;
    }
    let parsed = request::parse(def, &incoming.path, &incoming.pairs, body);
    if def.answer == Answer::Now {
        let result = match parsed {
            Ok(parsed) => login::answer(&door, def, &parsed).await,
            Err(error) => Err(error),
        };
        return result.map_or_else(|error| answer::failed(&error), answer::ok);
    }
    submit(&door, def, parsed, &incoming.headers).await
}

/// Reads a body, which is an object or nothing.
///
/// # Errors
/// The answer to one that is too large, broken off, or something else.
async fn read(request: Request) -> Result<Map<String, Value>, Response> {
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| {
        let status = rejection.status();
        let text = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than any such message",
            _ => "the body broke off",
        };
        answer::protocol(status, text)
    })?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&body).map_err(|error| {
        let text = format!("the body is not a JSON object: {error}");
        answer::protocol(StatusCode::BAD_REQUEST, text)
    })
}

/// Everything wrong with a call shows on its job, as in ZStack; only a broken request is a 400.
async fn submit(
    door: &Door,
    def: &'static MessageDef,
    parsed: model::Result<Parsed>,
    headers: &HeaderMap,
) -> Response {
    let job = match request::job(headers) {
        Ok(job) => job,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let timeout_seconds = request::timeout_seconds(headers);
    let Some(operation) = door.operations.get(def.name) else {
        return answer::protocol(StatusCode::NOT_FOUND, format!("{} is not served", def.name));
    };
    let submitted = match parsed {
        Ok(parsed) => {
            let call = Call {
                params: parsed.params,
                system_tags: parsed.system_tags,
                resource_uuid: parsed.resource_uuid,
                now: door.jobs.now(),
                seed: Uuid::new_v4(),
                board: door.jobs.board(),
            };
            door.jobs.submit(Arc::clone(operation), call, job, timeout_seconds).await
        }
        Err(error) => door.jobs.refuse(job, error),
    };
    match submitted {
        Ok(()) => {}
        // No job remembers it, so it is told at once.
        Err(error) if error.code == Code::StoreUnavailable => return answer::failed(&error),
        Err(error) => return answer::protocol(StatusCode::BAD_REQUEST, error.to_string()),
    }
    if let Some(seconds) = request::patience_seconds(headers) {
        let state = door.jobs.wait(job, Duration::from_secs(seconds)).await;
        if state != JobState::Processing {
            return finished(state);
        }
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    answer::accepted(host, job, timeout_seconds)
}

/// Jobs are polled without a session: their uuids cannot be guessed.
async fn poll(
    State(door): State<Shared>,
    Path(uuid): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(uuid) = model::id::parse_uuid(&uuid) else { return finished(JobState::Unknown) };
    let job: Id<Job> = Id::new(uuid);
    let state = match request::patience_seconds(&headers) {
        Some(seconds) => door.jobs.wait(job, Duration::from_secs(seconds)).await,
        None => door.jobs.state(job).await,
    };
    finished(state)
}

fn finished(state: JobState) -> Response {
    match state {
        JobState::Unknown => answer::protocol(StatusCode::NOT_FOUND, "no such job, or expired"),
        JobState::Processing => answer::processing(),
        JobState::Done(result) => answer::ok(result),
        JobState::Failed(error) => answer::failed(&error),
    }
}

fn find(door: &Door, kind: Kind, pairs: Pairs, headers: &HeaderMap) -> Response {
    if let Some(refusal) = refusal(door, headers) {
        return refusal;
    }
    match query::parse(kind, &pairs) {
        Ok(query) => {
            answer::ok(query::run(&query, &door.jobs.store().snapshot(), &door.jobs.board()))
        }
        Err(error) => answer::failed(&error),
    }
}

/// The answer to whoever has no open session; `None` for those who have.
fn refusal(door: &Door, headers: &HeaderMap) -> Option<Response> {
    match request::session(headers) {
        Err(text) => Some(answer::protocol(StatusCode::BAD_REQUEST, text)),
        Ok(session) => {
            let checked = door.sessions.check(session, door.jobs.now());
            checked.err().map(|error| answer::failed(&error))
        }
    }
}
