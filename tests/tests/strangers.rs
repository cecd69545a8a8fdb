//! Strangers at the agents' door: connections without number and messages without end, from a
//! host's own address, while agents and operators go on. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    convert::Infallible,
    fs,
    future::poll_fn,
    net::{SocketAddr, TcpStream},
    pin::Pin,
    sync::mpsc::{self, RecvTimeoutError},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, process, root_or_skip, uuid};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{runtime, task::JoinSet, time::timeout};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use wire::SERVER_NAME;

const SILENT: usize = 2_000;
/// The time between two that come back.
const PACE: Duration = Duration::from_millis(5);
/// What one address may have at the agents' door, and what else the server has open.
const FILES_MAX: usize = 256 + 64;
/// Connections that send messages, two at a time on each.
const SENDERS: usize = 60;
const MESSAGE_BYTES: u32 = 4 << 20;
const GROWTH_KIB_MAX: u64 = 48 * 1024;

#[test]
fn two_thousand_silent_connections_keep_neither_their_neighbour_nor_an_operator_out() {
    if !root_or_skip() {
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let lab = TestLab::up();
    let (door, server) = (Door::of(&lab), process::of(&lab, "server"));
    lab.kill(&["h1"]);
    let flood = lab.namespace("h1").run_in(|| {
        (0..SILENT).map(|_| TcpStream::connect(door.address).unwrap()).collect::<Vec<_>>()
    });
    let mut flood = flood.unwrap();
    assert!(
        wait::holds(LIMIT, || process::files(&server) <= FILES_MAX),
        "{} files",
        process::files(&server)
    );
    let (done, goes_on) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            // They come back, as long as the agent is at it.
            let again = lab.namespace("h1").run_in(move || {
                for at in (0..SILENT).cycle().take(100 * SILENT) {
                    if goes_on.recv_timeout(PACE) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                    flood[at] = TcpStream::connect(door.address).unwrap();
                }
            });
            again.unwrap();
        });
        // Dropped at the end, whatever happens.
        let _done = done;
        lab.start(&["h1"]);
        lab.settle(&["h1", "h2"]);
    });
    assert!(process::files(&server) <= FILES_MAX, "{} files", process::files(&server));
    let rest = lab.rest();
    let zone = rest.all("/zones")[0]["uuid"].clone();
    let cluster = rest.post(
        "/clusters",
        &json!({"name": "c", "zoneUuid": zone,
        "hypervisorType": "KVM", "resourceUuid": uuid()}),
    );
    assert_eq!(cluster.status, 200, "{cluster:?}");
    let log = fs::read_to_string(lab.data("server").with_extension("log")).unwrap();
    let told = log.lines().filter(|line| line.contains("one source has all")).count();
    assert!((1..=3).contains(&told), "told {told} times");
}

#[test]
fn messages_without_end_take_no_memory() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (door, server) = (Door::of(&lab), process::of(&lab, "server"));
    let before = process::resident_kib(&server);
    let peak = lab.namespace("h1").run_in(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut calls = JoinSet::new();
            let mut channels = Vec::new();
            for _ in 0..SENDERS {
                let channel = door.connect().await;
                calls.spawn(enrol(channel.clone()));
                calls.spawn(enrol(channel.clone()));
                channels.push(channel);
            }
            let mut peak = 0;
            while let Some(status) = calls.join_next().await {
                peak = peak.max(process::resident_kib(&server));
                let status = status.unwrap();
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            }
            peak
        })
    });
    let growth = peak.unwrap().saturating_sub(before);
    println!("{before} KiB before, {growth} KiB more with {SENDERS} senders");
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB");
    lab.settle(&["h1", "h2"]);
}

/// Sends all but the last bytes of a message; gives the answer.
async fn enrol(mut channel: Channel) -> Status {
    poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let path = format!("https://{SERVER_NAME}/netloom.link.v1.Link/Enrol");
    let request = http::Request::post(path)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Body::new(Endless { begun: false, left: MESSAGE_BYTES - 100 }))
        .unwrap();
    match timeout(LIMIT, channel.call(request))
        .await
        .expect("an answer")
        .map(|answer| Status::from_header_map(answer.headers()).expect("refused at once"))
    {
        Ok(status) => status,
        Err(error) => Status::unknown(error.to_string()),
    }
}

struct Endless {
    begun: bool,
    left: u32,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if !std::mem::replace(&mut self.begun, true) {
            let prefix = [&[0][..], &MESSAGE_BYTES.to_be_bytes()].concat();
            return Poll::Ready(Some(Ok(http_body::Frame::data(prefix.into()))));
        }
        let piece = self.left.min(16 * 1024);
        self.left -= piece;
        match piece {
            0 => Poll::Pending,
            _ => {
                let bytes = Bytes::from(vec![7; piece as usize]);
                Poll::Ready(Some(Ok(http_body::Frame::data(bytes))))
            }
        }
    }
}

/// Where agents connect.
struct Door {
    address: SocketAddr,
    ca: String,
}

impl Door {
    fn of(lab: &TestLab) -> Self {
        let identity = fs::read(lab.data("h1").join("identity.json")).unwrap();
        let identity: Value = serde_json::from_slice(&identity).unwrap();
        let text = |name: &str| identity[name].as_str().unwrap().to_owned();
        Self { address: text("server").parse().unwrap(), ca: text("ca") }
    }

    /// A connection without a certificate.
    async fn connect(&self) -> Channel {
        let ca = Certificate::from_pem(&self.ca);
        let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(SERVER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }
}
