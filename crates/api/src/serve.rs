//! Accepts connections and speaks HTTP/1.1 on them, within bounds.
//!
//! A connection that waits costs a socket and about a kilobyte: HTTP's buffers are made when its
//! first byte is there, and given back once it has been quiet for [`LINGER`]; a TLS session is begun
//! with the first byte, too, and adds what rustls keeps for it. Every wait has an
//! end ([`Limits`]), and so has the number of connections: a newcomer who finds all seats taken
//! gets that of the connection that has waited longest, so strangers who open many cannot keep an
//! operator out (crate `seats`). Strangers cannot keep many seats at work: without a session all that
//! they get to run are logins, which have a short queue.

mod body;
mod tls;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, http::Request, response::Response};
use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Version, header},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field::Empty};
use uuid::Uuid;

use control::Gate;
use ipnet::IpNet;
use seats::{Entrance, Full, Newcomer, Seat, Seats};

use crate::{
    Error,
    events::{self, Events},
    metrics::{Asked, Requests},
    router,
    watching::{self, Watched},
};
use body::Timed;
pub use tls::Identity;
use tls::Stream;

/// What connections may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections_max: usize,
    /// Those of one address. Loopback is exempt: behind a proxy on this machine stand many.
    pub connections_per_source_max: usize,
    /// How long the head of a request may take from its first byte.
    pub head_wait: Duration,
    /// How long a body may take from the end of the head.
    pub body_wait: Duration,
    /// How long a connection may be open without a request.
    pub idle_wait: Duration,
    /// How long a client may take to acknowledge what was sent, or to make room for more.
    pub unread_wait: Duration,
    /// How often a stream of events shows that it lives when there is nothing to tell.
    pub beat: Duration,
    /// Believe what a proxy on this machine says about where its client is: the last address in
    /// `X-Forwarded-For`. Only for a proxy that appends to this header; else clients could invent
    /// sources.
    pub believe_forwarded_for: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_source_max: 256,
            head_wait: Duration::from_secs(10),
            body_wait: Duration::from_secs(30),
            idle_wait: Duration::from_secs(75),
            unread_wait: Duration::from_secs(30),
            beat: Duration::from_secs(15),
            believe_forwarded_for: false,
        }
    }
}

/// Where it is served, and how.
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
    /// What the server proves to be it with, always the newest one; without, it speaks plain HTTP.
    pub identity: Option<watch::Receiver<Identity>>,
    /// What connections may take.
    pub limits: Limits,
    /// From where figures may be asked for without a session, besides this machine.
    pub metrics_from: Vec<IpNet>,
}

/// How long requests may take to end once the server is told to stop; whatever is cut then can be
/// asked for by its job.
const DRAIN: Duration = Duration::from_secs(3);
/// How long after an answer the buffers are kept for the next request, at least; twice that at most.
const LINGER: Duration = Duration::from_secs(1);
/// By which a request is found in the log.
const REQUEST_ID: &str = "x-request-id";
/// Where a proxy says that its client is.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// How a client came: what proxies say, and [`set_scheme`] for the routes.
const SCHEME: &str = "x-forwarded-proto";
/// What a newcomer is told when every connection is at work.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Content-Type: text/plain\r\nContent-Length: 43\r\nConnection: close\r\n\r\n\
    too many connections; try again in a second";

/// What all connections share.
struct Serving {
    app: TowerToHyperService<Router>,
    requests: Arc<Requests>,
    identity: Option<watch::Receiver<Identity>>,
    limits: Limits,
    stop: CancellationToken,
}

/// Serves until `stop`; then lets requests end, for a few seconds.
///
/// # Errors
/// When the socket cannot be used at all.
pub async fn serve(door: Door, gate: Arc<Gate>, stop: CancellationToken) -> Result<(), Error> {
    let Door { listener, identity, limits, metrics_from } = door;
    // Accepted sockets inherit it. The kernel also counts a client that reads nothing
    // (tcp(7), TCP_USER_TIMEOUT).
    let unread_ms = u32::try_from(limits.unread_wait.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&listener, sockopt::TcpUserTimeout, &unread_ms).map_err(io::Error::from)?;
    let seats = Seats::new(limits.connections_max, limits.connections_per_source_max);
    let (seats, requests) = (Arc::new(seats), Arc::new(Requests::default()));
    let mut entrance = Entrance::new(listener, Arc::clone(&seats))?;
    let watched = Watched {
        gate: Arc::clone(&gate),
        seats,
        requests: Arc::clone(&requests),
        from: metrics_from,
    };
    let events = Events {
        gate: Arc::clone(&gate),
        beat: limits.beat,
        stop: stop.clone(),
        open: Arc::default(),
    };
    let routes = router(gate).merge(watching::routes(watched)).merge(events::routes(events));
    let (app, stopped) = (TowerToHyperService::new(routes), stop.clone());
    let serving = Arc::new(Serving { app, requests, identity, limits, stop });
    let mut connections = JoinSet::new();
    loop {
        // The entrance loses nobody, and a connection that has ended is only reaped.
        tokio::select! {
            () = stopped.cancelled() => break,
            Some(_) = connections.join_next() => {}
            newcomer = poll_fn(|cx| entrance.poll_next(cx)) => {
                admit(&mut connections, &serving, newcomer);
            }
        }
    }
    drop(entrance);
    let drained = async { while connections.join_next().await.is_some() {} };
    // A connection that never finishes its request would keep the server alive for ever. Dropping
    // it loses nothing that was answered.
    if time::timeout(DRAIN, drained).await.is_err() {
        tracing::info!(connections = connections.len(), "cut those that did not end in time");
    }
    Ok(())
}

/// Serves a newcomer, or tells it that there is no seat.
fn admit(connections: &mut JoinSet<()>, serving: &Arc<Serving>, newcomer: Newcomer) {
    let Newcomer { stream, peer, seat } = newcomer;
    match seat {
        Ok(seat) => {
            connections.spawn(attend(stream, peer, Arc::clone(serving), seat));
        }
        Err(Full) => {
            // The socket's buffer is empty, so this does not wait; if it fails, the client sees a
            // closed connection instead.
            let _ = stream.try_write(FULL);
        }
    }
}

/// One connection, from its first byte to its last.
async fn attend(socket: TcpStream, peer: SocketAddr, serving: Arc<Serving>, seat: Seat) {
    let seat = Arc::new(seat);
    if !arrives(&socket, &serving, &seat).await {
        return;
    }
    let stream = match &serving.identity {
        None => Stream::Plain(socket),
        Some(identity) => {
            let identity = identity.borrow().clone();
            // A stranger's handshake is not work: dropping it half done loses nothing.
            let opened = tokio::select! {
                () = serving.stop.cancelled() => None,
                () = seat.lost() => None,
                opened = time::timeout(serving.limits.head_wait, identity.open(socket)) => {
                    opened.ok().flatten()
                }
            };
            let Some(stream) = opened else { return };
            stream
        }
    };
    let mut io = Rewound { rest: Bytes::new(), stream: TokioIo::new(stream) };
    loop {
        let is_there = !io.rest.is_empty() || io.stream.inner_mut().has_read_ahead();
        if !is_there && !arrives(io.stream.inner().socket(), &serving, &seat).await {
            return;
        }
        match Box::pin(exchange(io, peer, &serving, &seat)).await {
            Some(quiet) => io = quiet,
            None => return,
        }
    }
}

/// Waits for the next byte. False if the connection ends instead.
async fn arrives(socket: &TcpStream, serving: &Serving, seat: &Seat) -> bool {
    let mut first = [0];
    let arrival = time::timeout(serving.limits.idle_wait, socket.peek(&mut first));
    // Peeking takes nothing away, so dropping any of these loses nothing.
    tokio::select! {
        () = serving.stop.cancelled() => false,
        () = seat.lost() => false,
        arrival = arrival => matches!(arrival, Ok(Ok(1))),
    }
}

/// What happens on a connection while it has buffers.
#[derive(Default)]
struct Exchanges {
    answered: AtomicUsize,
    is_open: AtomicBool,
    /// The client wants it to end after this answer.
    is_last: AtomicBool,
}

/// Answers requests until the connection ends (`None`), or is quiet: then its socket is given back
/// with what was read of the next request.
async fn exchange(
    io: Rewound,
    peer: SocketAddr,
    serving: &Arc<Serving>,
    seat: &Arc<Seat>,
) -> Option<Rewound> {
    let seen = Arc::new(Exchanges::default());
    let service = {
        let (serving, seat, seen) = (Arc::clone(serving), Arc::clone(seat), Arc::clone(&seen));
        service_fn(move |request| answer(request, peer, &serving, &seat, &seen))
    };
    let mut builder = http1::Builder::new();
    // It also runs while the buffers are kept for a next request.
    let head_wait = 2 * LINGER + serving.limits.head_wait;
    builder.timer(TokioTimer::new()).header_read_timeout(head_wait);
    let mut connection = builder.serve_connection(io, service);
    let (mut is_ending, mut is_quiet, mut answered) = (false, false, 0);
    loop {
        // Only the first branch has state, and it lives outside of it.
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => match ended {
                Ok(()) => break,
                // The client closed the connection, was too slow, or sent what is no HTTP; hyper
                // has answered if it could.
                Err(_) => return None,
            },
            () = seat.lost() => return None,
            () = serving.stop.cancelled(), if !is_ending => {
                is_ending = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = time::sleep(LINGER), if !is_ending && !is_quiet => {
                let before = std::mem::replace(&mut answered, seen.answered.load(Ordering::Relaxed));
                let rests = answered > 0 && answered == before
                    && !seen.is_open.load(Ordering::Relaxed)
                    && !seen.is_last.load(Ordering::Relaxed);
                if rests {
                    is_quiet = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }
    let parts = connection.into_parts();
    let mut io = parts.io;
    if is_quiet && !is_ending {
        // What was put back for this exchange, if any, has been read by now.
        io.rest = parts.read_buf;
        return Some(io);
    }
    // The client sees an orderly end. It may be gone, which is one too.
    let end = poll_fn(|cx| hyper::rt::Write::poll_shutdown(Pin::new(&mut io), cx));
    let _ = time::timeout(serving.limits.unread_wait, end).await;
    None
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Lets the routes answer one request. The seat is at work once the request has arrived as a whole.
fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    serving: &Arc<Serving>,
    seat: &Arc<Seat>,
    seen: &Arc<Exchanges>,
) -> Answering {
    let closes = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("close"))
    };
    let is_last = request.version() != Version::HTTP_11
        || request.headers().get_all(header::CONNECTION).iter().any(closes);
    seen.is_last.store(is_last, Ordering::Relaxed);
    seen.is_open.store(true, Ordering::Relaxed);
    let wait = serving.limits.body_wait;
    let mut request = request.map(|body| Body::new(Timed::new(body, wait, Arc::clone(seat))));
    let believes = serving.limits.believe_forwarded_for && peer.ip().is_loopback();
    let is_secure = serving.identity.is_some();
    set_scheme(request.headers_mut(), is_secure, believes);
    let named = believes.then(|| forwarded_for(request.headers())).flatten();
    request.extensions_mut().insert(Source(named.unwrap_or(peer.ip())));
    let asked = Asked::default();
    request.extensions_mut().insert(asked.clone());
    let (began, requests) = (Instant::now(), Arc::clone(&serving.requests));
    // Whatever is logged while it is answered tells which request that was; its client is told, too.
    let id = Uuid::new_v4().simple().to_string();
    let method = request.method().as_str();
    let span = tracing::info_span!("request", %id, method, call = Empty, job = Empty);
    let answering = serving.app.call(request).instrument(span);
    let (seat, seen) = (Arc::clone(seat), Arc::clone(seen));
    Box::pin(async move {
        let mut answer = answering.await;
        if let Ok(answer) = &mut answer {
            requests.count(&asked, answer, began.elapsed());
            if let Ok(id) = HeaderValue::try_from(id) {
                answer.headers_mut().insert(REQUEST_ID, id);
            }
        }
        seat.waits();
        seen.answered.fetch_add(1, Ordering::Relaxed);
        seen.is_open.store(false, Ordering::Relaxed);
        answer
    })
}

/// Where a request comes from.
#[derive(Clone, Copy)]
struct Source(IpAddr);

/// Where a request comes from; loopback when nobody has said.
pub(crate) fn source(request: &Request<Body>) -> IpAddr {
    let source = request.extensions().get::<Source>();
    source.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |source| source.0)
}

/// Whether a proxy says that its client is elsewhere.
pub(crate) fn is_relayed(request: &Request<Body>) -> bool {
    request.headers().contains_key(FORWARDED_FOR)
}

/// The address that the nearest proxy has appended: what stands before it came from the client.
pub(crate) fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// Makes `X-Forwarded-Proto` true: how the client came to the server, or to the proxy before it.
fn set_scheme(headers: &mut HeaderMap, is_secure: bool, believes: bool) {
    if is_secure {
        headers.insert(SCHEME, HeaderValue::from_static("https"));
    } else if !believes {
        headers.remove(SCHEME);
    }
}

/// The scheme of a link that the client of a request with these headers can follow.
pub(crate) fn scheme(headers: &HeaderMap) -> &'static str {
    match headers.get(SCHEME).is_some_and(|scheme| scheme == "https") {
        true => "https",
        false => "http",
    }
}

/// A socket, before it what was read from it already.
struct Rewound {
    rest: Bytes,
    stream: TokioIo<Stream>,
}

impl hyper::rt::Read for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let fits = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(fits));
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }
}
