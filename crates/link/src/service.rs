//! The gRPC door: parses what comes in, checks who it is, answers errors with their code.

use std::{
    net::IpAddr,
    sync::{Arc, MutexGuard, PoisonError},
};

use model::{Code, Id};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::{
    PROTOCOL, PROTOCOL_MIN, r#gen as pb,
    message::{AgentMessage, EnrolRequest, Hello, RenewRequest},
};

use crate::{
    Link, enrol,
    feed::{Feed, Ticket},
    follow::{certificate, later_certificate},
    guest::{ConnectionInfo, Guest},
    pki::sha256_hex,
    session::{self, HELLO_WAIT},
};

/// The door.
pub(crate) struct Service(pub(crate) Arc<Link>);

#[tonic::async_trait]
impl pb::link_server::Link for Service {
    type SyncStream = ReceiverStream<Result<pb::ServerMessage, Status>>;

    async fn enrol(
        &self,
        request: Request<pb::EnrolRequest>,
    ) -> Result<Response<pb::EnrolResponse>, Status> {
        let request = EnrolRequest::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match enrol::enrol(&self.0, request).await {
            Ok(certificate) => Ok(Response::new(pb::EnrolResponse { certificate })),
            Err(error) => {
                tracing::warn!(?error, "enrolment refused");
                Err(status(&error))
            }
        }
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewResponse>, Status> {
        let (_, presented) = connection(&request)?;
        let request = RenewRequest::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match enrol::renew(&self.0, request, presented).await {
            Ok(certificate) => {
                let certificate = certificate.unwrap_or_default();
                Ok(Response::new(pb::RenewResponse { certificate }))
            }
            Err(error) => {
                tracing::warn!(?error, "renewal refused");
                Err(status(&error))
            }
        }
    }

    async fn sync(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (guest, certificate) = connection(&request)?;
        let mut inbound = request.into_inner();
        let first = timeout(HELLO_WAIT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(AgentMessage::Hello(hello)) = first.map(parse).transpose()? else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        let ticket = self.0.admit(&hello, (certificate.clone(), guest.source()))?;
        let later = later_certificate(&self.0.store.snapshot(), ticket.host);
        if later.is_some_and(|later| later == certificate)
            && let Err(error) = enrol::replace(&self.0, hello.host, certificate).await
        {
            // Both stay good until the next stream.
            tracing::warn!(?error, "the old certificate of the host is not taken back yet");
        }
        let outbound = session::start(&self.0, (ticket, guest), inbound);
        Ok(Response::new(outbound))
    }
}

impl Link {
    pub(crate) fn feed(&self) -> MutexGuard<'_, Feed> {
        // Every change is a few calls that cannot panic in between.
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody know what is new in the feed.
    pub(crate) fn publish(&self, feed: &mut Feed) {
        let now = (self.clock)();
        self.board.send_if_modified(|board| feed.publish(board, now));
    }

    /// The same, and whoever waits for a change is not told.
    pub(crate) fn publish_quietly(&self, feed: &mut Feed) {
        let now = (self.clock)();
        self.board.send_if_modified(|board| {
            feed.publish(board, now);
            false
        });
    }

    /// Opens a session for the host that `hello` names, if the certificate is that host's.
    fn admit(
        &self,
        hello: &Hello,
        (presented, source): (String, IpAddr),
    ) -> Result<Ticket, Status> {
        let host = Id::new(hello.host);
        understand(hello)?;
        // Under the feed's lock: what is committed after this snapshot comes to the feed later.
        let mut feed = self.feed();
        let snapshot = self.store.snapshot();
        let good = [certificate(&snapshot, host), later_certificate(&snapshot, host)];
        if !good.into_iter().flatten().any(|good| good == presented) {
            drop(feed);
            tracing::warn!(%host, certificate = presented, "stream refused: not the host's certificate");
            let text = format!(
                "this certificate is not that of host {host}: the host was deleted or has enrolled \
                 again elsewhere"
            );
            return Err(Status::permission_denied(text));
        }
        let ticket = feed.connect(hello, (presented, source), self.stop.child_token());
        self.publish(&mut feed);
        drop(feed);
        tracing::info!(%host, version = hello.agent_version, revision = hello.revision, "agent connected");
        Ok(ticket)
    }
}

/// Refuses an agent that is too old for this server, or too new.
fn understand(hello: &Hello) -> Result<(), Status> {
    let Hello { protocol, protocol_min, agent_version, .. } = hello;
    let what = match (*protocol < PROTOCOL_MIN, *protocol_min > PROTOCOL) {
        (false, false) => return Ok(()),
        (true, _) => format!("the server needs {PROTOCOL_MIN} or newer: upgrade the agent"),
        (_, true) => format!(
            "the agent needs {protocol_min} or newer, the server speaks {PROTOCOL}: upgrade the server"
        ),
    };
    let host: Id<model::resource::host::Host> = Id::new(hello.host);
    let text =
        format!("host {host}: the agent ({agent_version}) speaks protocol {protocol}, {what}");
    Err(Status::failed_precondition(text))
}

/// The connection of a call, and the SHA-256 of the client's certificate, hex.
fn connection<T>(request: &Request<T>) -> Result<(Arc<Guest>, String), Status> {
    let known = request.extensions().get::<ConnectionInfo>();
    let certificates = known.and_then(ConnectionInfo::peer_certs);
    let certificate = certificates.as_ref().and_then(|chain| chain.first());
    match (known, certificate) {
        (Some(known), Some(own)) => Ok((Arc::clone(known.get_ref()), sha256_hex(own))),
        _ => Err(Status::unauthenticated("a client certificate is needed; enrol first")),
    }
}

pub(crate) fn parse(message: pb::AgentMessage) -> Result<AgentMessage, Status> {
    message.try_into().map_err(|error: wire::codec::ParseError| {
        Status::invalid_argument(format!("agent message: {error}"))
    })
}

fn status(error: &model::Error) -> Status {
    let code = match error.code {
        Code::EnrolmentRefused | Code::AccessDenied => tonic::Code::PermissionDenied,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::StoreUnavailable => tonic::Code::Unavailable,
        _ => tonic::Code::Internal,
    };
    Status::new(code, error.to_string())
}
