//! The door of a router's agent: HTTPS on the management address, for the router's host alone.
//!
//! | | |
//! | --- | --- |
//! | `GET /v1/status` | what was applied, and what of it does not work |
//! | `PUT /v1/state` | a whole [`Desired`]; the answer is the status then |
//!
//! Who is not the host gets as far as a TLS handshake: it has a seat, which it loses to whoever comes
//! when all are taken, and a few seconds. Nothing of what it sends is read as HTTP.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use seats::{Entrance, Newcomer, Seat, Seats};
use serde::{Deserialize, Serialize};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::TcpStream,
    sync::Mutex as Turn,
    task::JoinSet,
    time::{self, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    apply::{Machine, Status},
    state::Desired,
};

/// Connections at a time: the host's, and strangers.
const CONNECTIONS_MAX: usize = 64;
/// How long a handshake may take, how long the head of a request, and how long a body.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// See [`HANDSHAKE_WAIT`].
const HEAD_WAIT: Duration = Duration::from_secs(60);
/// See [`HANDSHAKE_WAIT`].
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Longest state: 100,000 EIPs have about 20 MB.
const STATE_BYTES_MAX: usize = 64 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// What the agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Drawn at its start: another one has applied nothing yet.
    pub run: Uuid,
    /// Its release.
    pub version: String,
    /// What has become of the state that was applied last; nothing was, if absent.
    pub status: Option<Status>,
    /// Packets that were dropped, by reason, see [`Machine::drops`].
    pub drops: BTreeMap<String, u64>,
}

/// A router's agent.
pub struct Agent {
    router: Uuid,
    run: Uuid,
    /// One state is applied at a time.
    machine: Turn<Machine>,
    status: Mutex<Option<Status>>,
}

/// A listening socket at an address that need not be there yet.
///
/// # Errors
/// The kernel's, such as that somebody listens there.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Agent {
    /// The agent of this router, on this machine.
    #[must_use]
    pub fn new(router: Uuid, machine: Machine) -> Self {
        let (run, machine) = (Uuid::new_v4(), Turn::new(machine));
        Self { router, run, machine, status: Mutex::new(None) }
    }

    /// Serves until told to stop. What was applied stays.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let seats = Arc::new(Seats::new(CONNECTIONS_MAX, CONNECTIONS_MAX));
        let mut entrance = Entrance::new(listener, seats)?;
        let (acceptor, mut connections) = (TlsAcceptor::from(tls), JoinSet::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = connections.join_next() => {}
                newcomer = poll_fn(|cx| entrance.poll_next(cx)) => {
                    let Newcomer { stream, seat, .. } = newcomer;
                    let Ok(seat) = seat else { continue };
                    connections.spawn(Arc::clone(&self).attend(stream, acceptor.clone(), seat));
                }
            }
        }
    }

    async fn attend(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor, seat: Seat) {
        let shaken = tokio::select! {
            () = seat.lost() => return,
            shaken = timeout(HANDSHAKE_WAIT, acceptor.accept(stream)) => shaken,
        };
        let Ok(Ok(stream)) = shaken else {
            tracing::debug!("somebody who is not this router's host has come");
            return;
        };
        // It is the host.
        seat.works();
        let service = service_fn(|request| {
            let agent = Arc::clone(&self);
            async move { Ok::<_, Infallible>(agent.answer(request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection has ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/status") => self.report().await,
            (&Method::PUT, "/v1/state") => match state(request.into_body()).await {
                Ok(desired) => match self.apply(desired).await {
                    Ok(()) => self.report().await,
                    Err(why) => refusal(StatusCode::CONFLICT, &why),
                },
                Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
            },
            _ => refusal(StatusCode::NOT_FOUND, "there are GET /v1/status and PUT /v1/state"),
        }
    }

    async fn report(&self) -> Response<Full<Bytes>> {
        let drops = self.machine.lock().await.drops();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let report = Report { run: self.run, version, status: self.status(), drops };
        response(StatusCode::OK, &json!(report))
    }

    fn status(&self) -> Option<Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies a state, unless it is another router's, or older than the one that was applied last.
    async fn apply(&self, desired: Desired) -> Result<(), String> {
        if desired.router != self.router {
            return Err(format!("this is router {}", self.router.simple()));
        }
        let mut machine = self.machine.lock().await;
        let last = self.status().map_or(0, |status| status.generation);
        if desired.generation < last {
            return Err(format!("generation {last} was applied already"));
        }
        let status = machine.apply(&desired).await;
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        Ok(())
    }
}

async fn state(body: Incoming) -> Result<Desired, String> {
    let body = time::timeout(BODY_WAIT, Limited::new(body, STATE_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| "the body did not come in time".to_owned())?;
    let bytes = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn refusal(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    response(status, &json!({"error": why}))
}

fn response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
