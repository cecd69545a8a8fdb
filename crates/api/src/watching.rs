//! What watches the server itself: figures, whether it lives, whether it works.
//!
//! These need no session, because monitors have none. They name no tenant and nothing of theirs;
//! figures and readiness are for this machine and for whom the operator has named.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use control::Gate;
use ipnet::IpNet;
use seats::Seats;
use tokio::time;

use crate::{
    answer,
    metrics::{self, Requests},
    serve,
};

/// How long the store's writer may take to answer before the server counts as not ready.
const READY_WAIT: Duration = Duration::from_secs(2);

/// What watchers look at.
pub(crate) struct Watched {
    pub(crate) gate: Arc<Gate>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) requests: Arc<Requests>,
    /// From where they may look, besides this machine.
    pub(crate) from: Vec<IpNet>,
}

pub(crate) fn routes(watched: Watched) -> Router {
    Router::new()
        .route("/metrics", get(figures))
        .route("/readyz", get(readiness))
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(watched))
}

async fn figures(State(watched): State<Arc<Watched>>, request: Request) -> Response {
    if let Some(refused) = refusal(&watched.from, &request) {
        return refused;
    }
    let measures = watched.gate.measures();
    let page = metrics::page(&watched.requests, watched.seats.occupancy(), &measures);
    let form = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], page).into_response()
}

/// Ready is a server whose store takes transactions: the writer thread answers one that writes
/// nothing.
async fn readiness(State(watched): State<Arc<Watched>>, request: Request) -> Response {
    if let Some(refused) = refusal(&watched.from, &request) {
        return refused;
    }
    let nothing = watched.gate.store().transact_async(|_| Ok(()));
    let (status, text) = match time::timeout(READY_WAIT, nothing).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
        Err(_) => {
            let text = format!("not ready: the store has not answered for {READY_WAIT:?}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    };
    (status, text).into_response()
}

fn refusal(from: &[IpNet], request: &Request) -> Option<Response> {
    let source = serve::source(request);
    // Whoever comes through a proxy that is not believed is somewhere, but not on this machine.
    let is_near = source.is_loopback() && !serve::is_relayed(request);
    if is_near || from.iter().any(|prefix| prefix.contains(&source)) {
        return None;
    }
    let text =
        "this is for monitors on the server's machine, and for those that --metrics-from names";
    Some(answer::protocol(StatusCode::FORBIDDEN, text))
}
