//! The resolvers of all networks: questions by UDP come as datagrams, those by TCP through connections.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::op::Message;
use seats::Seat;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use wire::told::Service;

use crate::{
    Shared,
    address::{self, End},
    budget::Turn,
    names::{self, Decision},
};

/// How long a connection may be quiet (RFC 7766, 6.2.3), and how long a message or an answer may take.
const QUIET: Duration = Duration::from_secs(10);
/// Bytes of a question at most: none needs more.
const QUESTION_MAX: usize = 4096;

/// What becomes of a question.
pub(crate) enum Step {
    /// It is answered.
    Done(Option<Vec<u8>>),
    /// Others are asked.
    Wait(Box<Pending>),
    /// There is no such resolver at the port.
    NotHere,
    /// The port asks more than it may.
    TooMuch,
}

/// A question that others are asked about.
pub(crate) struct Pending {
    subnet: uuid::Uuid,
    servers: Vec<IpAddr>,
    query: hickory_proto::op::Query,
    answer: Message,
    bytes_max: usize,
    _turn: Turn,
}

/// A question that a port has asked at one of the addresses.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) port: u32,
    pub(crate) asked: IpAddr,
    pub(crate) bytes: &'a [u8],
    pub(crate) is_tcp: bool,
}

/// Answers at once what can be answered at once.
pub(crate) fn begin(shared: &Shared, question: &Question<'_>) -> Step {
    let directory = shared.directory.read().unwrap_or_else(PoisonError::into_inner);
    let Some(port) = directory.served(question.port, Service::Dns) else { return Step::NotHere };
    let Some(subnet) = directory.resolver_at(port, question.asked) else { return Step::NotHere };
    if !shared.rate().take(question.port, Instant::now()) {
        return Step::TooMuch;
    }
    let bytes_max = match question.is_tcp {
        true => usize::from(u16::MAX),
        false => names::payload_max(question.bytes, port.mtu_bytes),
    };
    match names::decide(&directory, subnet, question.bytes) {
        Decision::Drop => Step::Done(None),
        Decision::Answer(answer) => Step::Done(names::encode(&answer, bytes_max)),
        Decision::Forward(query, answer) => {
            let Some(turn) = shared.turns.take(question.port) else { return Step::TooMuch };
            let servers = subnet.resolver.as_ref().map(|it| it.forwarders.clone());
            Step::Wait(Box::new(Pending {
                subnet: subnet.uuid,
                servers: servers.unwrap_or_default(),
                query,
                answer,
                bytes_max,
                _turn: turn,
            }))
        }
    }
}

impl Pending {
    /// Asks others.
    pub(crate) async fn finish(self, shared: &Shared) -> Option<Vec<u8>> {
        let Self { subnet, servers, query, answer, bytes_max, _turn } = self;
        let answer = shared.forwarders.ask(subnet, &servers, &query, answer).await;
        names::encode(&answer, bytes_max)
    }
}

/// Answers on a connection, one question after the other (RFC 7766).
pub(crate) async fn attend(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    seat: Seat,
) {
    let Some((port, asked)) = ends(&shared, &stream, peer) else { return };
    let exchange = async {
        loop {
            match timeout(QUIET, question(&mut stream)).await {
                Ok(Ok(Some(bytes))) => {
                    seat.works();
                    let question = Question { port, asked, bytes: &bytes, is_tcp: true };
                    let answer = match begin(&shared, &question) {
                        Step::Done(answer) => answer,
                        Step::Wait(pending) => pending.finish(&shared).await,
                        Step::NotHere | Step::TooMuch => return,
                    };
                    let Some(answer) = answer else { return };
                    if !matches!(timeout(QUIET, reply(&mut stream, &answer)).await, Ok(Ok(()))) {
                        return;
                    }
                    seat.waits();
                }
                _ => return,
            }
        }
    };
    // What is cut is a connection that waits, and others need its seat.
    tokio::select! {
        () = exchange => {}
        () = seat.lost() => {}
    }
}

/// Who asks, and at which address.
fn ends(shared: &Shared, stream: &TcpStream, peer: SocketAddr) -> Option<(u32, IpAddr)> {
    let (SocketAddr::V6(peer), SocketAddr::V6(own)) = (peer, stream.local_addr().ok()?) else {
        return None;
    };
    let asked = shared.ways().outer(*own.ip()).filter(|of| of.end == End::Asked)?;
    let port = address::port_of(*peer.ip());
    (port == asked.port).then_some((port, asked.ip))
}

/// The next question; none if it is the end, or too long.
async fn question(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUESTION_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

async fn reply(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
    stream.write_all(&[&length.to_be_bytes()[..], answer].concat()).await
}
