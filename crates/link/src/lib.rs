//! The server's end of the agent stream.
//!
//! [`pki`] vouches for both ends, [`enrol`] gives agents their certificates, [`service`] is the
//! gRPC door, [`guest`] and [`bounded`] what may come through it, [`session`] one host's open stream,
//! [`questions`] what hosts are asked on it,
//! [`follow`] turns commits into changes for hosts, and [`feed`], the core without I/O, knows what
//! every host must hold and has confirmed.
//!
//! It never decides what a host must hold (`compile` does), and never waits for a host: a slow one
//! gets a snapshot later.

mod bounded;
mod enrol;
mod feed;
mod follow;
mod guest;
mod pki;
mod questions;
mod service;
mod session;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{Record, Timestamp, status::Board};
use store::Store;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use uuid::Uuid;
use wire::{HEARTBEAT, MESSAGE_BYTES_MAX, r#gen::link_server::LinkServer};

use bounded::Bounded;
use feed::{Feed, Origin};
use guest::Guests;
pub use guest::Limits;
pub use pki::{KeyedCertificate, Pki};
pub use questions::Questions;

/// How long a TLS handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// How long a peer may leave an HTTP/2 ping unanswered.
const PING_WAIT: Duration = Duration::from_secs(10);

/// How long open connections may take to end when the server stops.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// How long a call may take to be answered; for a stream, until it is open.
const CALL_WAIT: Duration = Duration::from_secs(30);

/// Messages of snapshots that are cut at the same time: one thread's work.
const CUTS_MAX: usize = 1;

/// Calls that one connection may have open at once; an agent needs one.
const CALLS_MAX: u32 = 2;

/// What a call may send before the server has read it. A few messages of an agent fit.
const CALL_WINDOW_BYTES: u32 = 64 * 1024;

/// What all calls of a connection may send before the server has read it.
const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;

/// What the headers of a call may take; those of an agent take half a kilobyte.
const HEADER_BYTES_MAX: u32 = 4 * 1024;

/// Calls that a peer may have cancelled before the server has looked at them, and calls in error
/// that the server remembers. A peer that goes on beyond that loses its connection.
const CANCELLED_MAX: usize = 16;

/// What the server's end needs.
pub struct Config {
    /// Where it listens. Bound by the caller, who may have done so in another network namespace.
    pub listener: TcpListener,
    /// Who vouches for both ends.
    pub pki: Pki,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Drawn at random for this start of the server.
    pub lineage: Uuid,
    /// The lineages of its earlier starts, as this store knows them: with each the newest revision
    /// that hosts can have been told in it.
    pub earlier: BTreeMap<Uuid, u64>,
    /// Make hosts hold what this store has, also those that were told a later revision, or were
    /// told by another store. What was made there since is destroyed, so only an operator may set
    /// this.
    pub accept_older: bool,
    /// What connections may take.
    pub limits: Limits,
    /// By what others ask hosts.
    pub questions: Questions,
}

/// Why the server's end cannot start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The certificate authority's file cannot be used.
    #[error(
        "certificate authority {path}: {cause}; restore this file from a backup. Only if there is \
         none: move it away, start once with --new-ca, and enrol every host again"
    )]
    Pki {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make the server's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The listening socket cannot be used.
    #[error("cannot use the agents' listening socket: {0}")]
    Listen(#[from] std::io::Error),
    /// gRPC over TLS cannot be served.
    #[error("cannot serve agents: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// What hosts must hold could not be computed.
    #[error("cannot compute what hosts must hold: {0}; this is a fault of the server")]
    Load(#[source] tokio::task::JoinError),
    /// The store has ended.
    #[error("the store has ended, agents get no more changes")]
    StoreEnded,
}

/// What all parts share.
pub(crate) struct Link {
    pub(crate) feed: Mutex<Feed>,
    pub(crate) board: watch::Sender<Board>,
    pub(crate) store: Store<Record>,
    pub(crate) pki: Pki,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) questions: Questions,
    pub(crate) cutting: Semaphore,
    pub(crate) sessions: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Serves agents until `stop` is cancelled, and writes to `board` what they report.
///
/// # Errors
/// [`Error::Certificate`], [`Error::Listen`], [`Error::Serve`]; [`Error::StoreEnded`] when the store
/// is dropped meanwhile.
pub async fn serve(
    config: Config,
    store: Store<Record>,
    board: watch::Sender<Board>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Config { listener, pki, clock, lineage, earlier, accept_older, limits, questions } = config;
    let server = pki.server()?;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(server.certificate, server.key))
        .client_ca_root(Certificate::from_pem(pki.certificate()))
        // An agent that enrols has none yet.
        .client_auth_optional(true)
        .timeout(HANDSHAKE_WAIT);
    let incoming = Guests::new(listener, limits)?;

    let stop = stop.child_token();
    let feed = Mutex::new(Feed::new(Origin { lineage, earlier: earlier.into(), accept_older }));
    let (cutting, sessions) = (Semaphore::new(CUTS_MAX), TaskTracker::new());
    let stopped = stop.clone();
    let link = Link { feed, board, store, pki, clock, questions, cutting, sessions, stop: stopped };
    let link = Arc::new(link);
    let service = LinkServer::new(service::Service(Arc::clone(&link)))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let serving = Server::builder()
        .tls_config(tls)?
        .http2_keepalive_interval(Some(HEARTBEAT))
        .http2_keepalive_timeout(Some(PING_WAIT))
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_MAX))
        .http2_max_local_error_reset_streams(Some(CANCELLED_MAX))
        .timeout(CALL_WAIT)
        .add_service(Bounded(service))
        .serve_with_incoming_shutdown(incoming, stop.cancelled());

    let following = follow::follow(&link);
    tokio::pin!(serving);
    let ended = tokio::select! {
        served = &mut serving => served.map_err(Error::from),
        // Polled to its end only once it is told to stop.
        followed = following => {
            stop.cancel();
            let _ = timeout(SHUTDOWN_WAIT, &mut serving).await;
            followed
        }
    };
    stop.cancel();
    link.sessions.close();
    if timeout(SHUTDOWN_WAIT, link.sessions.wait()).await.is_err() {
        tracing::warn!("agent streams did not end in time");
    }
    ended
}
