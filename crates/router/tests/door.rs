//! The door of a router's agent: who gets in, and what is refused there. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream as StdStream},
    sync::Arc,
    time::Duration,
};

use hostnet::scratch::{Scratch, root_or_skip};
use netloom_router::{
    Desired, Machine,
    bootstrap::{self, Bootstrap},
    client::{self, Error},
    serve::{self, Agent},
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ROUTER: Uuid = Uuid::from_u128(1);

/// A certificate that is its own authority, and its key.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec![bootstrap::NAME.to_owned()]).unwrap();
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What both ends are given.
fn ends(listen: SocketAddr) -> (Bootstrap, Bootstrap) {
    let (own, host) = (certificate(), certificate());
    let end = |(certificate, key): &(String, String), peer: &(String, String)| Bootstrap {
        router: ROUTER,
        listen,
        certificate: certificate.clone(),
        key: key.clone(),
        peer: peer.0.clone(),
    };
    (end(&own, &host), end(&host, &own))
}

/// An agent in a namespace of its own, as its host reaches it.
struct World {
    at: SocketAddr,
    router: Scratch,
    host: Bootstrap,
    stop: CancellationToken,
    _serving: JoinSet<std::io::Result<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    async fn new() -> World {
        let router = Scratch::new("router").unwrap();
        let at: SocketAddr = "127.0.0.1:7272".parse().unwrap();
        let (own, host) = ends(at);
        let namespace = hostnet::Namespace::open(router.name()).unwrap();
        let machine = Machine::open(namespace).await.unwrap();
        // Before there is such an address.
        let listener = router.run_in(|| serve::listen(at)).unwrap().unwrap();
        let netlink = router.netlink().await.unwrap();
        let lo = netlink.existing("lo").await.unwrap().index;
        netlink.set_up(lo).await.unwrap();
        let stop = CancellationToken::new();
        let agent = Arc::new(Agent::new(ROUTER, machine));
        let mut serving = JoinSet::new();
        serving.spawn(agent.serve(listener, own.server().unwrap(), stop.clone()));
        World { at, router, host, stop, _serving: serving }
    }

    fn connect(&self) -> TcpStream {
        let stream = self.router.run_in(|| StdStream::connect(self.at).unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        TcpStream::from_std(stream).unwrap()
    }

    async fn apply(&self, desired: &Desired) -> Result<serve::Report, Error> {
        client::apply(self.connect(), self.host.client().unwrap(), desired).await
    }
}

fn generation(generation: u64) -> Desired {
    Desired { router: ROUTER, generation, ..Desired::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_host_is_told_what_was_applied_by_whom() {
    if !root_or_skip() {
        return;
    }
    let world = World::new().await;
    let before = client::status(world.connect(), world.host.client().unwrap()).await.unwrap();
    assert_eq!(before.status, None);
    let after = world.apply(&generation(3)).await.unwrap();
    assert_eq!((after.run, after.status.unwrap().generation), (before.run, 3));
    // The same once more is applied once more: it may not be in force any longer.
    assert!(world.apply(&generation(3)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_or_anothers_or_no_state_is_refused_and_changes_nothing() {
    if !root_or_skip() {
        return;
    }
    let world = World::new().await;
    world.apply(&generation(3)).await.unwrap();
    let refused = |answer: Result<_, Error>| match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(world.apply(&generation(2)).await).contains("generation 3"));
    let others = Desired { router: Uuid::from_u128(2), ..generation(4) };
    assert!(refused(world.apply(&others).await).contains("this is router"));
    let status = client::status(world.connect(), world.host.client().unwrap()).await.unwrap();
    assert_eq!(status.status.unwrap().generation, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_in_and_many_strangers_keep_no_host_out() {
    if !root_or_skip() {
        return;
    }
    let world = World::new().await;
    // Somebody with certificates of the same form.
    let (_, stranger) = ends(world.at);
    let stranger = Bootstrap { peer: world.host.peer.clone(), ..stranger };
    let answer = client::apply(world.connect(), stranger.client().unwrap(), &generation(9)).await;
    assert!(matches!(answer, Err(Error::Unreachable(_))), "{answer:?}");
    // A router that somebody else plays.
    let (_, other) = ends(world.at);
    let fooled = Bootstrap { peer: other.peer, ..world.host.clone() };
    let answer = client::apply(world.connect(), fooled.client().unwrap(), &generation(9)).await;
    assert!(matches!(answer, Err(Error::Unreachable(_))), "{answer:?}");
    // Silent ones, more than there are seats, and one that speaks HTTP.
    let silent: Vec<_> = (0..200).map(|_| world.connect()).collect();
    let mut plain = world.router.run_in(|| StdStream::connect(world.at).unwrap()).unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let report = world.apply(&generation(1)).await.unwrap();
    assert_eq!(report.status.unwrap().generation, 1);
    drop(silent);
}
