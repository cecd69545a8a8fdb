//! The HTTP server: routes made from the tables, and what each kind of route does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequest, FromRequestParts, OriginalUri, Path, Query as QueryString,
        Request, State,
    },
    http::{HeaderMap, Method as HttpMethod, StatusCode, header, request::Parts},
    response::Response,
    routing::{MethodFilter, get, on},
};
use control::{
    Caller, Command, Gate, JobState, NOTES, RefusedCall, Terms, Unknown,
    access_key::Signed,
    command, config,
    query::{Query, Scope},
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use model::{
    Code, Error as Refusal, Id, MessageDef,
    declare::{Access, Answer, Method},
    resource::{self, faces, job::Job},
    setting::JOB_TIMEOUT,
};
use serde_json::{Map, Value};

use crate::{
    answer, headers,
    headers::{Credential, Preferences},
    metrics::Asked,
    old, openapi, query,
    request::{self, Parts as Given, Wrong},
    schema, serve, strict,
};

/// Longest body that strangers may send, in bytes: a name of 255 characters, each escaped (12 bytes
/// at most), a digest and tags fit in.
const OPEN_BODY_MAX_BYTES: usize = 8 << 10;
/// Longest body of all others, in bytes: many times the longest message, so that only mistakes and
/// mischief meet it.
const BODY_MAX_BYTES: usize = 1 << 20;

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("REST server: {0}")]
    Io(#[from] std::io::Error),
}

type Shared = Arc<Gate>;
type Pairs = Vec<(String, String)>;

/// All routes, below `/zstack/v1` and `/v1`: ZStack's clients use either.
pub fn router(gate: Arc<Gate>) -> Router {
    let routes = messages(queries(Router::new())).route("/api-jobs/{uuid}", get(poll));
    let wrong_method = || async {
        let text = "nothing here has this method; `netloom messages` lists what is, and how";
        answer::protocol(StatusCode::METHOD_NOT_ALLOWED, text)
    };
    let routes = routes.method_not_allowed_fallback(wrong_method);
    let doors = Router::new().nest("/zstack/v1", routes.clone()).nest("/v1", routes);
    let doors = doors.nest("/zstack", old::routes().method_not_allowed_fallback(wrong_method));
    let doors = doors.merge(openapi::routes());
    let doors: Router = doors.fallback(|| async { nothing() }).with_state(gate);
    let plain = TowerToHyperService::new(doors.clone());
    doors.fallback(move |request| plainly(plain.clone(), request))
}

fn nothing() -> Response {
    let text = "nothing is here; `netloom messages` lists what is, and where";
    answer::protocol(StatusCode::NOT_FOUND, text)
}

/// Asks again without slashes that separate nothing: the Go SDK writes `/v1/zones//<uuid>`.
async fn plainly(doors: TowerToHyperService<Router>, mut request: Request) -> Response {
    let uri = request.uri();
    let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let path = format!("/{}", parts.join("/"));
    if path == uri.path() {
        return nothing();
    }
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // It was one before some slashes were taken away.
    let Ok(target) = target.parse() else { return nothing() };
    *request.uri_mut() = target;
    let Ok(answer) = doors.call(request).await;
    answer
}

/// A message, and one of the paths at which it is called.
type Place = (&'static MessageDef, &'static str);

/// One route for each message; messages that share method and path share a route.
fn messages(mut router: Router<Shared>) -> Router<Shared> {
    let mut by_route: BTreeMap<(Method, String), Vec<Place>> = BTreeMap::new();
    for def in resource::messages() {
        for path in std::iter::once(&def.path).chain(def.also) {
            by_route.entry((def.method, shape(path))).or_default().push((def, path));
        }
    }
    for ((method, path), places) in by_route {
        let filter = match method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let limit = match places.iter().any(|(def, _)| def.access == Access::Open) {
            true => OPEN_BODY_MAX_BYTES,
            false => BODY_MAX_BYTES,
        };
        let handler = move |State(gate): State<Shared>,
                            Path(given): Path<BTreeMap<String, String>>,
                            QueryString(pairs): QueryString<Pairs>,
                            called: Called,
                            request: Request| {
            call(gate, places.clone(), Incoming { given, pairs, called, request })
        };
        let limit = DefaultBodyLimit::max(limit);
        router = router.route(&path, on(filter, handler).layer(limit));
    }
    router
}

/// A path with placeholders that are named by their place: messages give one and the same place
/// several names.
fn shape(path: &str) -> String {
    let placeholder = |(at, segment): (usize, &str)| match variable(segment) {
        Some(_) => format!("{{at{at}}}"),
        None => segment.to_owned(),
    };
    path.split('/').enumerate().map(placeholder).collect::<Vec<_>>().join("/")
}

/// The name of a placeholder.
fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// What stands in the places of a path, by the names that a message gives them.
fn named(path: &str, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let segments = path.split('/').enumerate();
    let named = segments.filter_map(|(at, segment)| {
        let value = given.get(&format!("at{at}"))?;
        Some((variable(segment)?.to_owned(), value.clone()))
    });
    named.collect()
}

/// Two query routes for each face of a resource: all of them, and one by its uuid.
fn queries(mut router: Router<Shared>) -> Router<Shared> {
    for (kind, face) in faces() {
        let list = move |State(gate): State<Shared>,
                         QueryString(pairs): QueryString<Pairs>,
                         called: Called| async move {
            called.asked.of(face.name);
            let parse = |scope, unknown| query::parse((kind, face), scope, (&pairs, unknown));
            find(&gate, &called, parse).await
        };
        let one = move |State(gate): State<Shared>, Path(uuid): Path<String>, called: Called| async move {
            called.asked.of(face.name);
            let parse = |scope, _| Ok((query::of_one((kind, face), scope, &uuid)?, Vec::new()));
            find(&gate, &called, parse).await
        };
        let path = face.path;
        let of_one = shape(&format!("{path}/{{uuid}}"));
        router = router.route(path, get(list)).route(&of_one, get(one));
    }
    router
}

/// A request before it is understood.
struct Incoming {
    /// What stands in the placeholders of its path, by [`shape`]'s names.
    given: BTreeMap<String, String>,
    pairs: Pairs,
    called: Called,
    request: Request,
}

/// Nothing of a stranger's body is read, unless the route is for strangers.
async fn call(gate: Shared, places: Vec<Place>, incoming: Incoming) -> Response {
    let defs: Vec<_> = places.iter().map(|(def, _)| *def).collect();
    let is_open = defs.iter().any(|def| def.access == Access::Open);
    let source = serve::source(&incoming.request);
    let caller = match (caller(&gate, &incoming.called, source), is_open) {
        (Ok(caller), _) => caller,
        (Err(_), true) => Caller::Stranger { source },
        (Err(refused), false) => return *refused,
    };
    let body = match read(incoming.request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let def = match request::choose(&defs, &body) {
        Ok(def) => def,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    incoming.called.asked.is(def.name);
    if let Err(error) = command::may_send(&caller, def) {
        gate.note_refusal(&caller, def, &error).await;
        return answer::failed(&error);
    }
    let preferences = match headers::preferences(&incoming.called.headers) {
        Ok(preferences) => preferences,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let unknown = if preferences.is_strict { Unknown::Refuse } else { Unknown::Name };
    let path = places.iter().find(|(of, _)| of.name == def.name).map_or(def.path, |(_, path)| path);
    let path = named(path, &incoming.given);
    let given = Given { path: &path, pairs: &incoming.pairs, body, unknown };
    let parsed = match request::parse(def, given) {
        Ok(parsed) => Ok(parsed),
        Err(Wrong::Message(error)) => Err(error),
        Err(Wrong::Request(text)) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let parsed = parsed.and_then(|parsed| gate.command(caller, vec![parsed]));
    let called = &incoming.called.headers;
    if def.answer == Answer::Now {
        let result = match parsed {
            Ok(command) => gate.answer(command).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            gate.note_refusal(&caller, def, error).await;
        }
        let wants_schema = headers::wants_schema(called) == Some(true);
        return result.map_or_else(
            |error| answer::failed(&error),
            |result| answer::ok(schema::beside(result, def.creates.filter(|_| wants_schema))),
        );
    }
    submit(&gate, (&caller, def), parsed, (called, preferences)).await
}

/// Reads a body, which is an object or nothing.
///
/// # Errors
/// The answer to one that is too large, broken off, or something else.
pub(crate) async fn read(request: Request) -> Result<Map<String, Value>, Response> {
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| {
        let status = rejection.status();
        let text = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than any such message",
            _ => "the body broke off, or did not arrive in time",
        };
        answer::protocol(status, text)
    })?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    strict::object(&body).map_err(|error| {
        let text = format!("the body cannot be read as a JSON object: {error}");
        answer::protocol(StatusCode::BAD_REQUEST, text)
    })
}

/// Everything wrong with a call shows on its job, as in ZStack; only a broken request is a 400.
async fn submit(
    gate: &Gate,
    (caller, def): (&Caller, &'static MessageDef),
    command: model::Result<Command>,
    (headers, preferences): (&HeaderMap, Preferences),
) -> Response {
    // Whoever sends one that cannot be called would wait for ever: it is told at once.
    let webhook = match headers::webhook(headers, &gate.reach(caller)) {
        Ok(webhook) => webhook,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    if webhook.is_some()
        && let Err(error) = gate.check_webhook_room(caller)
    {
        return answer::failed(&error);
    }
    let job = match headers::job(headers) {
        Ok(job) => job,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    tracing::Span::current().record("job", tracing::field::display(job.uuid));
    let default = config::number(&gate.store().snapshot(), &JOB_TIMEOUT);
    let timeout_seconds = match headers::timeout_seconds(headers, default) {
        Ok(seconds) => seconds,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let submitted = match command {
        Ok(command) => {
            let terms = Terms { webhook, ..Terms::of(timeout_seconds) };
            gate.jobs.submit_on(command, job, terms).await
        }
        Err(error) => {
            let refused = RefusedCall { error, message: Some(def), webhook };
            gate.jobs.refuse(caller, job, refused).await
        }
    };
    match submitted {
        Ok(()) => {}
        // No job remembers it, so it is told at once.
        Err(error) if error.code == Code::StoreUnavailable => return answer::failed(&error),
        Err(error) => return answer::protocol(StatusCode::BAD_REQUEST, error.to_string()),
    }
    if let Some(seconds) = preferences.wait_seconds {
        let state = gate.jobs.wait(caller, job.uuid, Duration::from_secs(seconds)).await;
        match state {
            JobState::Processing(_) => {}
            JobState::Failed(error) => return answer::refused(&error),
            state => return finished(gate, job.uuid, state, headers),
        }
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    answer::accepted(&format!("{}://{host}", serve::scheme(headers)), job.uuid, timeout_seconds)
}

/// Jobs are polled without a session, unless their callers chose the uuids.
async fn poll(State(gate): State<Shared>, Path(uuid): Path<String>, called: Called) -> Response {
    called.asked.is("poll");
    let Some(uuid) = model::id::parse_uuid(&uuid) else {
        let text = "that is not the uuid of a job, which is 32 hex digits";
        return answer::protocol(StatusCode::NOT_FOUND, text);
    };
    let job: Id<Job> = Id::new(uuid);
    let caller = caller(&gate, &called, UNTOLD).unwrap_or(Caller::Stranger { source: UNTOLD });
    let preferences = match headers::preferences(&called.headers) {
        Ok(preferences) => preferences,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let state = match preferences.wait_seconds {
        Some(seconds) => gate.jobs.wait(&caller, job, Duration::from_secs(seconds)).await,
        None => gate.jobs.state(&caller, job).await,
    };
    finished(&gate, job, state, &called.headers)
}

/// The answer to a job. Of one that failed it is ZStack's, also when it was waited for: it is about
/// the job, which was found.
fn finished(gate: &Gate, job: Id<Job>, state: JobState, headers: &HeaderMap) -> Response {
    match state {
        JobState::Unknown => answer::protocol(StatusCode::NOT_FOUND, "no such job, or expired"),
        JobState::Processing(reasons) => answer::processing(&reasons),
        JobState::Done(result) => {
            let wants_schema = headers::wants_schema(headers) == Some(true);
            let about = wants_schema.then(|| gate.jobs.about(job)).flatten();
            let kind = about.and_then(|about| about.subject);
            answer::ok(schema::beside(result, kind))
        }
        JobState::Failed(error) => answer::failed(&error),
    }
}

async fn find(
    gate: &Shared,
    called: &Called,
    parse: impl FnOnce(Scope, Unknown) -> Result<(Query, Vec<String>), Wrong>,
) -> Response {
    let caller = match caller(gate, called, UNTOLD) {
        Ok(caller) => caller,
        Err(refused) => return *refused,
    };
    // Whoever has a session has a scope.
    let Some(scope) = caller.scope() else { return nothing() };
    let preferences = match headers::preferences(&called.headers) {
        Ok(preferences) => preferences,
        Err(text) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let unknown = if preferences.is_strict { Unknown::Refuse } else { Unknown::Name };
    let (query, notes) = match parse(scope, unknown) {
        Ok(parsed) => parsed,
        Err(Wrong::Message(error)) => return answer::failed(&error),
        Err(Wrong::Request(text)) => return answer::protocol(StatusCode::BAD_REQUEST, text),
    };
    let kind = query.kind;
    let with_schema = headers::wants_schema(&called.headers) != Some(false);
    let write = move |found| {
        let mut found = query::answer(found);
        if !notes.is_empty() {
            found[NOTES] = notes.into();
        }
        answer::ok(schema::beside(found, with_schema.then_some(kind)))
    };
    gate.query(query, write).await.unwrap_or_else(|error| answer::failed(&error))
}

/// Where a call comes from does not matter when it only reads.
pub(crate) const UNTOLD: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Who calls, from `source`.
///
/// # Errors
/// The answer to whoever has no open session.
pub(crate) fn caller(
    gate: &Gate,
    called: &Called,
    source: IpAddr,
) -> Result<Caller, Box<Response>> {
    let refuse = |(status, text)| Box::new(answer::protocol(status, text));
    let shown = headers::credential(&called.headers);
    let known = match shown.map_err(|text| refuse((StatusCode::BAD_REQUEST, text)))? {
        Credential::Session(session) => gate.caller(session, source),
        Credential::Key(key, signature) => {
            let (method, path, headers) = (&called.method, &called.path, &called.headers);
            let text = headers::signed_text(method, path, headers, gate.now()).map_err(refuse)?;
            gate.caller_by_key(&Signed { key, signature, text: &text }, source)
        }
    };
    known.map_err(|error: Refusal| Box::new(answer::failed(&error)))
}

/// What a request says of itself before its body.
pub(crate) struct Called {
    method: HttpMethod,
    /// Told what it turns out to ask for.
    pub(crate) asked: Asked,
    /// Where it went, before any router took a part away.
    path: String,
    pub(crate) headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Called {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let original = parts.extensions.get::<OriginalUri>();
        let path = original.map_or(parts.uri.path(), |uri| uri.0.path()).to_owned();
        let asked = parts.extensions.get::<Asked>().cloned().unwrap_or_default();
        Ok(Self { asked, method: parts.method.clone(), path, headers: parts.headers.clone() })
    }
}
