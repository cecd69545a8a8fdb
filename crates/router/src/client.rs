//! The other end of a router's door: how its host speaks to it.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{bootstrap, serve::Report, state::Desired};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a router does not answer.
#[derive(Debug, Error)]
pub enum Error {
    /// It is not there, or is somebody else.
    #[error("the router's agent cannot be reached: {0}")]
    Unreachable(String),
    /// It refuses.
    #[error("the router's agent refuses: {0}")]
    Refused(String),
}

/// Has a router apply a state, on a connection to its management address; its report then.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Refused`].
pub async fn apply(
    stream: TcpStream,
    tls: Arc<ClientConfig>,
    desired: &Desired,
) -> Result<Report, Error> {
    let body = serde_json::to_vec(desired).map_err(|error| Error::Refused(error.to_string()))?;
    call(stream, tls, (Method::PUT, "/v1/state"), body).await
}

/// Asks a router how it is.
///
/// # Errors
/// As [`apply`].
pub async fn status(stream: TcpStream, tls: Arc<ClientConfig>) -> Result<Report, Error> {
    call(stream, tls, (Method::GET, "/v1/status"), Vec::new()).await
}

async fn call(
    stream: TcpStream,
    tls: Arc<ClientConfig>,
    (method, path): (Method, &str),
    body: Vec<u8>,
) -> Result<Report, Error> {
    let called = timeout(PATIENCE, exchange(stream, tls, (method, path), body)).await;
    called.map_err(|_| Error::Unreachable("it does not answer".to_owned()))?
}

async fn exchange(
    stream: TcpStream,
    tls: Arc<ClientConfig>,
    (method, path): (Method, &str),
    body: Vec<u8>,
) -> Result<Report, Error> {
    let unreachable = |error: &dyn std::error::Error| Error::Unreachable(error.to_string());
    let stream = TlsConnector::from(tls).connect(bootstrap::name(), stream).await;
    let stream = stream.map_err(|error| unreachable(&error))?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| unreachable(&error))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, bootstrap::NAME)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreachable(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        let is_good = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| Error::Unreachable(error.to_string()))?.to_bytes();
        match is_good {
            true => serde_json::from_slice(&bytes).map_err(|error| unreachable(&error)),
            false => Err(Error::Refused(String::from_utf8_lossy(&bytes).into_owned())),
        }
    };
    tokio::select! {
        answered = answered => answered,
        ended = connection => Err(match ended {
            Ok(()) => Error::Unreachable("it has ended the connection".to_owned()),
            Err(error) => unreachable(&error),
        }),
    }
}
