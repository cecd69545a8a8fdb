//! The stream to the server: takes what is wanted, reports what was achieved, comes back after
//! every loss. It knows nothing of the host.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Streaming,
    transport::{Channel, Identity as TlsIdentity},
};
use uuid::Uuid;
use wire::{
    HEARTBEAT, LEASES_MAX, MESSAGE_BYTES_MAX, PROTOCOL, PROTOCOL_MIN,
    r#gen::{self as pb, link_client::LinkClient},
    holding::Holding,
    leases::LeaseSeen,
    message::{
        AgentMessage, Device, Heartbeat, Hello, RenewRequest, Report, ServerMessage, Welcome,
    },
    parts::Assembly,
    paths::Paths,
    question::Answered,
    versions::Versions,
};

use crate::{
    Config, Error,
    backoff::Backoff,
    count::Counts,
    enrol,
    identity::{Identity, endpoint},
    questions::{ANSWERS_MAX, Inbox},
    serve::{Leases, Served},
    state::Desired,
    worker::Achieved,
};

/// How long connecting, and the answer to Hello, may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How long the server may leave an HTTP/2 ping unanswered.
const PING_WAIT: Duration = Duration::from_secs(10);

/// How long the connection may take to make room for a message.
const SEND_WAIT: Duration = Duration::from_secs(10);

/// Messages on their way to the connection; when full, the session waits.
const OUTBOUND_MESSAGES: usize = 4;

/// How often the server is asked whether it is time for another certificate.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);

/// Why a session ended, for the log.
type Ending = String;

/// What speaks to the server.
type Client = LinkClient<Channel>;

/// What there is to tell the server.
pub(crate) struct Sources {
    /// What was achieved.
    pub(crate) achieved: watch::Receiver<Option<Achieved>>,
    /// The connections of ports, and what else is counted.
    pub(crate) counted: watch::Receiver<Option<Counts>>,
    /// The host's devices.
    pub(crate) devices: watch::Receiver<Option<Vec<Device>>>,
    /// Who hears who this host is.
    pub(crate) identity: watch::Sender<Option<Identity>>,
    /// How the ways to its peers are.
    pub(crate) paths: watch::Receiver<Option<Paths>>,
    /// What guests have asked.
    pub(crate) served: watch::Receiver<Served>,
    /// The drivers that cannot run instances.
    pub(crate) lacking: watch::Receiver<Option<BTreeMap<String, String>>>,
    /// Where questions go.
    pub(crate) inbox: Inbox,
}

/// Keeps a stream to the server open until told to stop.
pub(crate) async fn keep(
    config: Config,
    desired: watch::Sender<Option<Desired>>,
    sources: Sources,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Some(identity) = enrol::obtain(&config, &stop).await? else { return Ok(()) };
    sources.identity.send_replace(Some(identity.clone()));
    let data = config.data;
    let (lineage, greeted, run) = (None, false, Uuid::new_v4());
    let told = Told::default();
    let mut session = Session { identity, data, desired, sources, told, lineage, greeted, run };
    let mut backoff = Backoff::default();
    loop {
        (session.greeted, session.lineage) = (false, None);
        let Some(ending) = stop.run_until_cancelled(session.run()).await else { return Ok(()) };
        if session.greeted {
            backoff.reset();
        }
        let wait = backoff.next();
        let server = &session.identity.server;
        tracing::warn!(server, ending, retry_ms = wait.as_millis(), "no stream to the server");
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

/// What a server has been told on a stream.
#[derive(Default)]
struct Told {
    devices: Option<Vec<Device>>,
    paths: Option<Paths>,
    lacking: Option<BTreeMap<String, String>>,
    leases: Leases,
}

/// What is to be told, unless it was told already.
fn news<T: Clone + PartialEq>(
    source: &mut watch::Receiver<Option<T>>,
    told: &mut Option<T>,
) -> Option<T> {
    let news = source.borrow_and_update().clone().filter(|new| told.as_ref() != Some(new));
    if news.is_some() {
        told.clone_from(&news);
    }
    news
}

struct Session {
    identity: Identity,
    /// Where the identity is kept.
    data: PathBuf,
    desired: watch::Sender<Option<Desired>>,
    sources: Sources,
    /// The devices that this server has been told of.
    told: Told,
    /// The server's lineage, once it has said so.
    lineage: Option<Uuid>,
    /// Drawn at this start of the agent.
    run: Uuid,
    /// The server has said at which revision the host is: reports mean something to it.
    greeted: bool,
}

impl Session {
    /// One stream, from the connection to its end.
    async fn run(&mut self) -> Ending {
        let opened = timeout(CONNECT_WAIT, self.open()).await;
        match opened {
            Err(_) => format!("no answer within {} s", CONNECT_WAIT.as_secs()),
            Ok(Err(ending)) => ending,
            Ok(Ok((client, outbound, inbound))) => self.talk(client, outbound, inbound).await,
        }
    }

    async fn open(
        &self,
    ) -> Result<(Client, mpsc::Sender<pb::AgentMessage>, Streaming<pb::ServerMessage>), Ending>
    {
        let Identity { server, ca, certificate, key, .. } = &self.identity;
        let connected = async {
            let (endpoint, tls) = endpoint(server, ca)?;
            let endpoint = endpoint
                .tls_config(tls.identity(TlsIdentity::from_pem(certificate, key)))?
                .http2_keep_alive_interval(HEARTBEAT)
                .keep_alive_timeout(PING_WAIT)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            endpoint.connect().await
        };
        let channel = connected.await.map_err(|error| enrol::chain(&error))?;
        let mut client = LinkClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbound, messages) = mpsc::channel(OUTBOUND_MESSAGES);
        let hello = AgentMessage::Hello(self.hello());
        outbound.try_send((&hello).into()).map_err(|error| error.to_string())?;
        let answer = client.sync(ReceiverStream::new(messages)).await;
        let inbound = answer.map_err(|status| refused(&status))?.into_inner();
        tracing::info!(server, "stream to the server is open");
        Ok((client, outbound, inbound))
    }

    fn hello(&self) -> Hello {
        let desired = self.desired.borrow();
        let desired = desired.as_ref();
        Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            tables: Versions::own(),
            host: self.identity.host,
            revision: desired.map_or(0, |desired| desired.revision),
            lineage: desired.and_then(|desired| desired.lineage),
            digests: desired.map(|desired| desired.holding.digests()).unwrap_or_default(),
            run: Some(self.run),
        }
    }

    async fn talk(
        &mut self,
        mut client: Client,
        outbound: mpsc::Sender<pb::AgentMessage>,
        mut inbound: Streaming<pb::ServerMessage>,
    ) -> Ending {
        let mut assembly = Assembly::default();
        // Of this stream: what was asked by another one is of no use to its server any more.
        let (reply, mut answers) = mpsc::channel(ANSWERS_MAX);
        let (mut heartbeat, mut renewal) = (interval(HEARTBEAT), interval(RENEWAL));
        // This server has not heard any.
        self.sources.counted.mark_changed();
        self.told = Told::default();
        loop {
            // Each branch is cancel safe: a stream keeps what it has read so far in itself, a
            // watch and an interval lose nothing.
            let message = tokio::select! {
                message = inbound.message() => {
                    let taken = match message {
                        Ok(Some(message)) => self.take(&mut assembly, &reply, message),
                        Ok(None) => Err("the server ended the stream".to_owned()),
                        Err(status) => Err(refused(&status)),
                    };
                    match taken {
                        Ok(()) => continue,
                        Err(ending) => return ending,
                    }
                }
                changed = self.sources.achieved.changed() => match (changed, self.report()) {
                    (Err(_), _) => return "the agent ends".to_owned(),
                    (Ok(()), None) => continue,
                    (Ok(()), Some(report)) => AgentMessage::Report(report),
                },
                Ok(()) = self.sources.devices.changed() => AgentMessage::Heartbeat(self.beat()),
                Ok(()) = self.sources.paths.changed() => AgentMessage::Heartbeat(self.beat()),
                Ok(()) = self.sources.served.changed(), if self.greeted => {
                    AgentMessage::Heartbeat(self.beat())
                }
                Ok(()) = self.sources.lacking.changed() => AgentMessage::Heartbeat(self.beat()),
                Some(answered) = answers.recv() => AgentMessage::Answered(answered),
                _ = renewal.tick() => match self.renew(&mut client).await {
                    true => return "it has another certificate from now on".to_owned(),
                    false => continue,
                },
                _ = heartbeat.tick() => AgentMessage::Heartbeat(self.beat()),
            };
            match timeout(SEND_WAIT, outbound.send((&message).into())).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return "the stream is gone".to_owned(),
                Err(_) => return "the server does not read".to_owned(),
            }
        }
    }

    /// Asks for another certificate; says whether there is one, which is on disk then. A server that
    /// does not know of this, or does not answer, is asked another time: the old one goes on working.
    async fn renew(&mut self, client: &mut Client) -> bool {
        let host = self.identity.host;
        let csr = match self.identity.request() {
            Ok(csr) => csr,
            Err(error) => {
                tracing::warn!(%error, "no other certificate can be asked for");
                return false;
            }
        };
        let request = pb::RenewRequest::from(RenewRequest { host, csr });
        let certificate = match timeout(CONNECT_WAIT, client.renew(request)).await {
            Ok(Ok(answer)) => answer.into_inner().certificate,
            Ok(Err(status)) => {
                tracing::debug!(%status, "no other certificate");
                return false;
            }
            Err(_) => return false,
        };
        if certificate.is_empty() {
            return false;
        }
        let fresh = Identity { certificate, ..self.identity.clone() };
        match tokio::task::block_in_place(|| fresh.save(&self.data)) {
            Ok(()) => {
                tracing::info!(host = %host.simple(), "the certificate is renewed");
                self.identity = fresh.clone();
                self.sources.identity.send_replace(Some(fresh));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "another certificate cannot be saved; the old one stays");
                false
            }
        }
    }

    /// Takes a part; with the last one, what is wanted changes. A question is passed on.
    fn take(
        &mut self,
        assembly: &mut Assembly,
        reply: &mpsc::Sender<Answered>,
        message: pb::ServerMessage,
    ) -> Result<(), Ending> {
        let message = ServerMessage::try_from(message).map_err(|error| error.to_string())?;
        if let ServerMessage::Welcome(welcome) = message {
            return self.welcome(welcome);
        }
        if let ServerMessage::Asked(asked) = message {
            self.sources.inbox.take(asked, reply);
            return Ok(());
        }
        let held = self.desired.borrow().as_ref().map(|desired| Arc::clone(&desired.holding));
        let held = held.unwrap_or_else(|| Arc::new(Holding::default()));
        let done = assembly.take(&held, message).map_err(|error| error.to_string())?;
        if let Some((revision, holding)) = done {
            tracing::debug!(revision, objects = holding.objects().len(), "new desired state");
            self.greeted = true;
            self.desired.send_replace(Some(Desired {
                revision,
                lineage: self.lineage,
                holding: Arc::new(holding),
            }));
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<(), Ending> {
        let Welcome { protocol, server_version, lineage } = welcome;
        if protocol < PROTOCOL_MIN {
            return Err(format!(
                "the server ({server_version}) speaks protocol {protocol}, this agent needs \
                 {PROTOCOL_MIN} or newer: upgrade the server"
            ));
        }
        tracing::debug!(server_version, %lineage, "welcome");
        self.lineage = Some(lineage);
        Ok(())
    }

    /// What there is to say now and then. Connections only after the server has said what the host
    /// holds: before, it knows no ports.
    fn beat(&mut self) -> Heartbeat {
        let Sources { counted, devices, paths, lacking, .. } = &mut self.sources;
        let is_news = self.greeted && counted.has_changed().unwrap_or(false);
        let counts = is_news.then(|| counted.borrow_and_update().clone()).flatten();
        let (connections, counters) =
            counts.map(|Counts { connections, counters }| (connections, counters)).unzip();
        let devices = news(devices, &mut self.told.devices);
        let paths = news(paths, &mut self.told.paths);
        let lacking = news(lacking, &mut self.told.lacking);
        let leases = self.leases();
        let clock_ms = clock_ms();
        Heartbeat { clock_ms, connections, devices, counters, paths, lacking, leases }
    }

    /// What guests have asked since it was told last; the rest another time. As with connections: not
    /// before the server knows the ports.
    fn leases(&mut self) -> Vec<LeaseSeen> {
        if !self.greeted {
            return Vec::new();
        }
        let leases = self.sources.served.borrow_and_update().leases.clone();
        let mut news = leases.since(&self.told.leases);
        match news.len() > LEASES_MAX {
            false => self.told.leases = leases,
            true => {
                news.truncate(LEASES_MAX);
                self.told.leases.extend(&news);
                self.sources.served.mark_changed();
            }
        }
        news
    }

    /// What was achieved, in words for the server; not before it can make sense of it.
    fn report(&mut self) -> Option<Report> {
        let achieved =
            self.sources.achieved.borrow_and_update().clone().filter(|_| self.greeted)?;
        let Achieved { revision, digests, outcome } = achieved;
        let mut failed = outcome.failed;
        if !outcome.trouble.is_empty() {
            failed.insert(self.identity.host, outcome.trouble.join("; "));
        }
        let (processed, kernel, up) = (outcome.processed, outcome.kernel, outcome.up);
        let (arrived, given_up) = (outcome.arrived, outcome.given_up);
        Some(Report { revision, processed, digests, kernel, up, failed, arrived, given_up })
    }
}

/// The wall clock, in milliseconds since 1970.
fn clock_ms() -> Option<u64> {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn refused(status: &tonic::Status) -> Ending {
    format!("{:?}: {}", status.code(), status.message())
}
