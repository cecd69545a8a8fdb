//! Serves metadata by HTTP/1.1, within bounds: of heads, of time and of connections.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use seats::Seat;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Shared, address,
    metadata::{self, Ask, Moment, SEED_BYTES},
};

/// How long a head may take, and how long a connection may be quiet.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may take as a whole: user data at some kilobytes a second.
const WHOLE: Duration = Duration::from_mins(1);
/// Bytes of a head at most.
const HEAD_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// One connection.
pub(crate) async fn attend(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, seat: Seat) {
    let SocketAddr::V6(peer) = peer else { return };
    let port = address::port_of(*peer.ip());
    let seat = &seat;
    let answering = service_fn(|request| {
        seat.works();
        let response = answer(&shared, port, &request);
        seat.waits();
        async { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), answering);
    // What is cut is a connection that waits, or one that takes for ever.
    tokio::select! {
        ended = timeout(WHOLE, connection) => {
            if let Ok(Err(error)) = ended {
                tracing::debug!(port, %error, "a guest's connection for metadata ended");
            }
        }
        () = seat.lost() => {}
    }
}

fn answer(shared: &Shared, port: u32, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut seed = [0; SEED_BYTES];
    let mut headers = request.headers().clone();
    // What the target says of the host counts (RFC 9112, 3.2.2).
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str());
        headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("")));
    }
    let path = request.uri().path();
    let ask = Ask { port, method: request.method(), path, headers: &headers };
    if getrandom::fill(&mut seed).is_err() {
        tracing::warn!("the system has no random numbers; guests get none either");
    }
    let moment = Moment { now: shared.started.elapsed().as_secs(), seed };
    let answer = {
        let directory = shared.directory.read().unwrap_or_else(PoisonError::into_inner);
        metadata::respond(&directory, &shared.tokens, &ask, &moment)
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::SERVER, HeaderValue::from_static("netloom"));
    if let Some((name, value)) = answer.header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        headers.insert(name, value);
    }
    response
}
