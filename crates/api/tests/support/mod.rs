//! A running door with an admin, and raw sockets to it.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod receiver;

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use client::Client;
use control::{Enrolment, Gate, long_job, realiser, webhook};
use model::{Record, Timestamp, status::Board};
use netloom_api::{Door, Identity, Limits, serve};
use store::{Memory, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "correct horse";
/// Any wait of a test; far more than what is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    server: Option<std::thread::JoinHandle<()>>,
    /// What hosts report.
    pub(crate) board: watch::Sender<Board>,
    /// What the server keeps.
    pub(crate) store: Store<Record>,
    /// What the store keeps it in.
    pub(crate) engine: Memory,
}

impl Running {
    pub(crate) fn start(limits: Limits) -> Self {
        Self::start_with(limits, None)
    }

    pub(crate) fn start_with(limits: Limits, identity: Option<watch::Receiver<Identity>>) -> Self {
        let engine = Memory::new();
        let store: Store<Record> = Store::open(Box::new(engine.clone())).unwrap();
        let hash = control::account::hash(&control::account::client_digest(PASSWORD)).unwrap();
        control::account::create_admin(&store, &hash, Timestamp(0)).unwrap();
        control::platform::declare(&store, Timestamp(0)).unwrap();
        let (board, reports) = watch::channel(Board::default());
        let jobs = control::Jobs::new(store.clone(), reports, || Timestamp(1_510_698_057_000));
        let enrolment = Enrolment { server: "127.0.0.1:7481".into(), ca: "PEM".into() };
        let gate = Arc::new(Gate::new(jobs, enrolment));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door { listener, identity, limits, metrics_from: Vec::new() };
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let sender = netloom_api::Sender::default();
            let sends = Arc::new(move |post: &webhook::Post| sender.send(post));
            let webhooks = webhook::run(Arc::clone(&gate), ended.clone(), sends);
            let long_jobs = long_job::run(Arc::clone(&gate), ended.clone());
            let caller = netloom_api::RealiserCaller::default();
            let calls = Arc::new(move |call: &realiser::Call| caller.call(call));
            let realisers = realiser::run(Arc::clone(&gate), ended.clone(), calls);
            let all =
                async { tokio::join!(serve(door, gate, ended), webhooks, long_jobs, realisers).0 };
            runtime.block_on(all).unwrap();
        });
        Self { address, stop, server: Some(server), board, store, engine }
    }

    pub(crate) fn open(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn log_in(&self) -> Client {
        let mut client = Client::new(&format!("http://{}", self.address));
        client.log_in("admin", PASSWORD).unwrap();
        client
    }
}

/// The Python that `scripts/setup test` makes in the directory that cargo builds in, with the packages of
/// `scripts/python.txt`. Where `NETLOOM_NO_SKIP` is set, as by `make`, it must be there.
pub(crate) fn python() -> Option<PathBuf> {
    // target/debug/deps/<test>
    let test = std::env::current_exe().unwrap();
    let python = test.ancestors().nth(3)?.join("python/bin/python");
    let is_there = python.exists();
    if !is_there {
        assert!(std::env::var_os("NETLOOM_NO_SKIP").is_none(), "{} is missing", python.display());
        eprintln!("SKIPPED: there is no {}; scripts/setup test makes it", python.display());
    }
    is_there.then_some(python)
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.take().unwrap().join().unwrap();
    }
}
