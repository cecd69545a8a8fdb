//! A host's end of the stream from the server, and nothing behind it: with a certificate of its
//! own it connects, says what it holds, and counts what comes. It stores nothing and decodes next
//! to nothing, so that the server's work is what is measured and not the hosts'.

use std::{net::SocketAddr, time::Instant};

use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstEncoder;
use uuid::Uuid;
use wire::{
    PROTOCOL, PROTOCOL_MIN, SERVER_NAME,
    r#gen::{self as pb, agent_message::Kind, link_client::LinkClient},
    message::{AgentMessage, Hello},
    versions::Versions,
};

use crate::Failure;

/// The call, as `link.proto` names it.
const SYNC: &str = "/netloom.link.v1.Link/Sync";

/// A host.
pub(crate) struct Host {
    server: SocketAddr,
    tls: ClientTlsConfig,
    uuid: Uuid,
    /// Digests of what the server wants it to hold, as the server said them last.
    digests: Vec<pb::TableDigest>,
}

/// What a host is about to do.
pub(crate) struct Attempt {
    endpoint: Endpoint,
    hello: pb::AgentMessage,
}

/// What came to a host, and the stream, which stays open as long as this is kept.
pub(crate) struct Taken {
    /// When the last part of it was there.
    pub(crate) at: Instant,
    /// Bytes of the messages, without what TLS and HTTP/2 add.
    pub(crate) bytes: usize,
    /// It was everything, not what is new.
    pub(crate) is_snapshot: bool,
    digests: Vec<pb::TableDigest>,
    _outbound: mpsc::Sender<pb::AgentMessage>,
    _inbound: Streaming<Part>,
}

impl Host {
    /// Trades a token for the certificate of a host.
    pub(crate) async fn enrol(
        server: SocketAddr,
        ca: &str,
        uuid: Uuid,
        token: &str,
    ) -> Result<Self, Failure> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        let host = uuid.as_bytes().to_vec();
        let ca = Certificate::from_pem(ca);
        let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(SERVER_NAME);
        let channel = endpoint(server, tls.clone())?.connect().await?;
        let request = pb::EnrolRequest { host, token: token.to_owned(), csr };
        let certificate = LinkClient::new(channel).enrol(request).await?.into_inner().certificate;
        let tls = tls.identity(Identity::from_pem(certificate, key.serialize_pem()));
        Ok(Self { server, tls, uuid, digests: Vec::new() })
    }

    /// Prepares a connection, as a host that holds all that the server wants, or nothing. Each is
    /// prepared anew: a restarted server resumes no TLS session.
    pub(crate) fn attempt(&self, holds_all: bool) -> Result<Attempt, Failure> {
        let hello = AgentMessage::Hello(Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            agent_version: "benchmark".to_owned(),
            tables: Versions::own(),
            host: self.uuid,
            revision: 0,
            lineage: None,
            digests: Default::default(),
            run: Some(Uuid::new_v4()),
        });
        let mut hello = pb::AgentMessage::from(&hello);
        if let Some(Kind::Hello(hello)) = &mut hello.kind
            && holds_all
        {
            hello.digests = self.digests.clone();
        }
        Ok(Attempt { endpoint: endpoint(self.server, self.tls.clone())?, hello })
    }

    /// Remembers what the server wants it to hold.
    pub(crate) fn remember(&mut self, taken: &Taken) {
        self.digests = taken.digests.clone();
    }
}

impl Attempt {
    /// Connects, and takes what comes until there is no more.
    pub(crate) async fn run(self) -> Result<Taken, Status> {
        let channel = self.endpoint.connect().await;
        let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let (outbound, messages) = mpsc::channel(1);
        // There is room for one.
        let _ = outbound.try_send(self.hello);
        let mut inbound = sync(channel, messages).await?;
        let (mut bytes, mut is_snapshot) = (0, false);
        while let Some(part) = inbound.message().await? {
            bytes += part.bytes;
            is_snapshot |= part.is_snapshot;
            if let Some(digests) = part.last {
                let (at, _outbound, _inbound) = (Instant::now(), outbound, inbound);
                return Ok(Taken { at, bytes, is_snapshot, digests, _outbound, _inbound });
            }
        }
        Err(Status::aborted("the server ended the stream before the last part"))
    }
}

fn endpoint(server: SocketAddr, tls: ClientTlsConfig) -> Result<Endpoint, Failure> {
    Ok(Endpoint::from_shared(format!("https://{server}"))?.tls_config(tls)?)
}

/// What the generated client does, with a codec that counts.
async fn sync(
    channel: Channel,
    messages: mpsc::Receiver<pb::AgentMessage>,
) -> Result<Streaming<Part>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = Request::new(ReceiverStream::new(messages));
    let path = PathAndQuery::from_static(SYNC);
    Ok(grpc.streaming(request, path, Counting).await?.into_inner())
}

/// A message of the server.
struct Part {
    bytes: usize,
    is_snapshot: bool,
    /// Of the last part, the digests.
    last: Option<Vec<pb::TableDigest>>,
}

/// Sends messages whole, and of those that come reads only what [`Part`] has.
struct Counting;

impl Codec for Counting {
    type Encode = pb::AgentMessage;
    type Decode = Part;
    type Encoder = ProstEncoder<pb::AgentMessage>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Counting {
    type Item = Part;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Part>, Status> {
        let bytes = prost::bytes::Buf::remaining(buffer);
        let glance = Glance::decode(buffer);
        let Glance { snapshot, delta } =
            glance.map_err(|error| Status::internal(error.to_string()))?;
        let is_snapshot = snapshot.is_some();
        let whole = snapshot.filter(|end| end.last).map(|end| end.digests);
        let last = delta.filter(|end| end.last).map(|end| end.digests).or(whole);
        Ok(Some(Part { bytes, is_snapshot, last }))
    }
}

/// `ServerMessage` in `link.proto`, without what may be skipped: above all objects.
#[derive(Clone, PartialEq, Message)]
struct Glance {
    #[prost(message, optional, tag = "1")]
    snapshot: Option<SnapshotEnd>,
    #[prost(message, optional, tag = "2")]
    delta: Option<DeltaEnd>,
}

/// The end of `Snapshot` there.
#[derive(Clone, PartialEq, Message)]
struct SnapshotEnd {
    #[prost(bool, tag = "3")]
    last: bool,
    #[prost(message, repeated, tag = "5")]
    digests: Vec<pb::TableDigest>,
}

/// The end of `Delta` there.
#[derive(Clone, PartialEq, Message)]
struct DeltaEnd {
    #[prost(bool, tag = "4")]
    last: bool,
    #[prost(message, repeated, tag = "6")]
    digests: Vec<pb::TableDigest>,
}
