//! Connections that are no host's, and hosts that send too much: real TLS, spoken by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use std::{
    convert::Infallible,
    fs,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use netloom_link::Limits;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use uuid::Uuid;
use wire::{
    PROTOCOL, PROTOCOL_MIN, SERVER_NAME, UP_MAX,
    digest::TableDigests,
    r#gen::{self as pb, link_client::LinkClient},
    message::{AgentMessage, Hello, Report},
    versions::Versions,
};
use world::{
    World,
    records::{host_id, instance, network},
};

const WAIT: Duration = Duration::from_secs(20);
/// Longer than a guest may wait in these tests, far shorter than a call may take.
const SOON: Duration = Duration::from_secs(8);
const GUEST_WAIT: Duration = Duration::from_secs(2);

fn few() -> Limits {
    Limits { guests_max: 16, guest_wait: GUEST_WAIT, ..Limits::default() }
}

/// Waits until the server has closed a connection on which nothing is said.
async fn closed(stream: &mut TcpStream) {
    let read = timeout(SOON, stream.read(&mut [0; 64])).await.expect("still open");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

async fn channel(world: &World, address: SocketAddr, own: Option<&Value>) -> Channel {
    let ca = Certificate::from_pem(world.ca());
    let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(SERVER_NAME);
    if let Some(own) = own {
        let text = |name: &str| own[name].as_str().unwrap();
        tls = tls.identity(Identity::from_pem(text("certificate"), text("key")));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

/// The identity of a host that has enrolled and is off now.
async fn identity(world: &mut World, number: u32) -> Value {
    let mut host = world.host(number);
    world.status(number, "connected", |status| status.connected).await;
    host.stop().await;
    world.status(number, "gone", |status| !status.connected).await;
    serde_json::from_slice(&fs::read(host.data.join("identity.json")).unwrap()).unwrap()
}

fn hello(host: u32) -> AgentMessage {
    AgentMessage::Hello(Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        agent_version: "test".to_owned(),
        tables: Versions::own(),
        host: host_id(host).uuid(),
        revision: 0,
        lineage: None,
        run: None,
        digests: TableDigests::default(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_strangers_make_room_for_an_agent() {
    let mut world = World::with(Limits { guest_wait: WAIT, ..few() });
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let _one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    // All but as many as there are seats.
    for stream in &mut silent[..184] {
        closed(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_say_who_it_is_in_time_is_cut_and_a_host_is_not() {
    let mut world = World::with(few());
    let one = identity(&mut world, 1).await;
    let _two = world.host(2);
    world.status(2, "connected", |status| status.connected).await;
    let mut board = world.board.clone();
    let mut lost = JoinSet::new();
    lost.spawn(async move {
        board.wait_for(|board| !board.status(host_id(2)).connected).await.unwrap();
    });
    let started = Instant::now();
    closed(&mut TcpStream::connect(world.address).await.unwrap()).await;
    // Strangers and hosts that have shaken hands, and call nothing.
    for own in [None, Some(&one)] {
        let (relay, mut ended) = Relay::start(world.address).await;
        let _silent = channel(&world, relay.address, own).await;
        timeout(SOON, ended.recv()).await.expect("still open");
    }
    assert!(started.elapsed() >= 2 * GUEST_WAIT, "each had its time");
    assert!(lost.try_join_next().is_none(), "the host was cut too");
}

/// Passes bytes on between one client and the server, and says when the server has closed.
struct Relay {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Relay {
    async fn start(server: SocketAddr) -> (Self, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(server).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
            drop(end);
        });
        (Self { address, _task: task }, ended)
    }
}

/// A message of which the first bytes come, and then nothing.
struct Unfinished(Option<Bytes>);

impl Unfinished {
    fn of(bytes: u32) -> Body {
        let begun = [&[0][..], &bytes.to_be_bytes(), &[0; 64]].concat();
        Body::new(Self(Some(Bytes::from(begun))))
    }
}

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

/// What a call with such a body is answered.
async fn answer(mut channel: Channel, method: &str, body: Body) -> Status {
    poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let request =
        http::Request::post(format!("https://{SERVER_NAME}/netloom.link.v1.Link/{method}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap();
    let response = timeout(SOON, channel.call(request)).await.expect("no answer").unwrap();
    Status::from_header_map(response.headers()).expect("refused at once")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_megabytes_is_refused_before_it_has_come() {
    let mut world = World::with(Limits { guest_wait: WAIT, ..few() });
    let one = identity(&mut world, 1).await;
    for (method, own, bytes) in
        [("Enrol", None, 4 << 20), ("Enrol", Some(&one), 20_000), ("Sync", Some(&one), 20_000)]
    {
        let channel = channel(&world, world.address, own).await;
        let status = answer(channel, method, Unfinished::of(bytes)).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{method}: {status}");
        assert!(status.message().contains(&bytes.to_string()), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_no_longer_than_what_the_host_holds_can_take() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let open = async |up: usize| {
        let (outbound, messages) = mpsc::channel(2);
        outbound.try_send((&hello(1)).into()).unwrap();
        let channel = channel(&world, world.address, Some(&one)).await;
        let sync = LinkClient::new(channel).sync(ReceiverStream::new(messages)).await.unwrap();
        let up = (0..up).map(|at| Uuid::from_u128(at as u128)).collect();
        let report = AgentMessage::Report(Report { up, ..Report::default() });
        outbound.try_send(pb::AgentMessage::from(&report)).unwrap();
        (outbound, sync.into_inner())
    };
    let (_outbound, mut stream) = open(UP_MAX).await;
    let status = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status = timeout(SOON, status).await.expect("the stream goes on");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // What a host with nothing may say of remains that the server does not know of.
    let (_outbound, mut stream) = open(10_000).await;
    let end = async { while stream.message().await.is_ok() {} };
    assert!(timeout(Duration::from_secs(1), end).await.is_err(), "the stream has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_reports_without_pause_is_read_at_a_pace() {
    const REPORTS: u32 = 40;
    let mut world = World::new();
    let (one, _two) = (identity(&mut world, 1).await, world.host(2));
    let (outbound, messages) = mpsc::channel(1);
    outbound.try_send((&hello(1)).into()).unwrap();
    let channel = channel(&world, world.address, Some(&one)).await;
    let sync = LinkClient::new(channel).sync(ReceiverStream::new(messages)).await.unwrap();
    let up = (0..20_000).map(Uuid::from_u128).collect();
    let report = pb::AgentMessage::from(&AgentMessage::Report(Report { up, ..Report::default() }));
    let started = Instant::now();
    for _ in 0..REPORTS {
        timeout(SOON, outbound.send(report.clone())).await.expect("it is read").unwrap();
    }
    // The last ones are on their way.
    let pauses = Duration::from_millis(60) * (REPORTS - 4);
    assert!(started.elapsed() >= pauses, "as fast as it can: {:?}", started.elapsed());
    world.put([network(1)]);
    let revision = world.put(instance(10, 2, 1));
    world.settled(2, revision).await;
    drop(sync);
}
