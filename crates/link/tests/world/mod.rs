//! A server with its store, and hosts with real agents on kernels in memory, over real mTLS.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

pub(crate) mod records;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use agent::memory::Memory;
use model::{
    Id, Meta, Record, Resource, Timestamp,
    resource::host::{Host, HostCredential},
    status::{Board, HostStatus},
};
use netloom_link::{Config, Limits, Pki, Questions, serve};
use sha2::{Digest, Sha256};
use store::{Read, Store};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait for a condition.
const WAIT: Duration = Duration::from_secs(20);

/// The real time: TLS checks certificates against it.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp(since.as_millis().try_into().unwrap())
}

/// A server and everything around it.
pub(crate) struct World {
    pub(crate) store: Store<Record>,
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) board: watch::Receiver<Board>,
    pub(crate) lineage: Uuid,
    /// The server's clock.
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) accept_older: bool,
    pub(crate) limits: Limits,
    /// By what hosts are asked.
    pub(crate) questions: Questions,
    sender: watch::Sender<Board>,
    server: JoinSet<Result<(), netloom_link::Error>>,
    stop: CancellationToken,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::made(limits, now)
    }

    /// With a server whose clock is this.
    pub(crate) fn at(clock: fn() -> Timestamp) -> Self {
        Self::made(Limits::default(), clock)
    }

    fn made(limits: Limits, clock: fn() -> Timestamp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, board) = watch::channel(Board::default());
        let mut world = Self {
            store: Store::in_memory().unwrap(),
            directory: tempfile::tempdir().unwrap(),
            address,
            board,
            lineage: Uuid::from_u128(1),
            clock,
            accept_older: false,
            limits,
            questions: Questions::default(),
            sender,
            server: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        world.serve(listener);
        world
    }

    fn serve(&mut self, listener: TcpListener) {
        let pki = self.pki();
        self.stop = CancellationToken::new();
        let config = Config {
            listener,
            pki,
            clock: self.clock,
            lineage: self.lineage,
            earlier: BTreeMap::new(),
            accept_older: self.accept_older,
            limits: self.limits,
            questions: self.questions.clone(),
        };
        let serving = serve(config, self.store.clone(), self.sender.clone(), self.stop.clone());
        self.server.spawn(serving);
    }

    fn pki(&self) -> Pki {
        Pki::open(&self.directory.path().join("pki"), (self.clock)()).unwrap()
    }

    /// The certificate authority, PEM.
    pub(crate) fn ca(&self) -> String {
        self.pki().certificate().to_owned()
    }

    pub(crate) async fn stop_server(&mut self) {
        self.stop.cancel();
        timeout(WAIT, self.server.join_next()).await.unwrap().unwrap().unwrap().unwrap();
        self.sender.send_replace(Board::default());
    }

    pub(crate) fn start_server(&mut self) {
        self.serve(TcpListener::bind(self.address).unwrap());
    }

    /// Writes records; gives the revision.
    pub(crate) fn put(&self, records: impl IntoIterator<Item = Record>) -> u64 {
        let records: Vec<_> = records.into_iter().collect();
        let put = move |tx: &mut store::Tx<Record>| {
            records.iter().for_each(|record| tx.put(record.clone()).unwrap());
            Ok(())
        };
        self.store.transact(put).unwrap().revision
    }

    /// Deletes records; gives the revision.
    pub(crate) fn delete(&self, records: impl IntoIterator<Item = Record>) -> u64 {
        let records: Vec<_> = records.into_iter().collect();
        let delete = move |tx: &mut store::Tx<Record>| {
            records.iter().for_each(|record| tx.delete(record.kind(), record.uuid()));
            Ok(())
        };
        self.store.transact(delete).unwrap().revision
    }

    /// Opens an enrolment as `CreateHostEnrolment` does; gives the bundle's file.
    pub(crate) fn enrolment(&self, host: u32, token: &str, expires: Timestamp) -> PathBuf {
        let uuid = records::host_id(host).uuid();
        let known = self.store.snapshot().get(model::Kind::HostCredential, uuid);
        let known = known.as_deref().and_then(HostCredential::of);
        let certificate_sha256 = known.and_then(|known| known.certificate_sha256.clone());
        // Without it the certificate would be renewed at once.
        let certificate_issued = known.and_then(|known| known.certificate_issued);
        let digest = Sha256::digest(token.as_bytes());
        let token_sha256 = Some(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        let uuid = Id::new(uuid);
        let credential = HostCredential {
            uuid,
            host_uuid: records::host_id(host),
            certificate_sha256,
            certificate_issued,
            renewed_sha256: None,
            token_sha256,
            token_key_sha256: None,
            token_expires: expires,
        };
        self.put([Record::new(credential, Meta::default())]);
        self.bundle(host, token)
    }

    /// A bundle's file, whatever the server thinks of it.
    pub(crate) fn bundle(&self, host: u32, token: &str) -> PathBuf {
        let path = self.directory.path().join(format!("bundle-{host}-{token}"));
        let bundle = serde_json::json!({
            "server": self.address.to_string(),
            "host": records::host_id(host).to_string(),
            "token": token,
            "ca": self.ca(),
        });
        std::fs::write(&path, bundle.to_string()).unwrap();
        path
    }

    /// Adds a host with an open enrolment, and starts its agent.
    pub(crate) fn host(&self, number: u32) -> HostUnderTest {
        self.put([records::host(number), records::vtep(number)]);
        let enrol = self.enrolment(number, "token", (self.clock)().plus_seconds(60));
        let data = self.directory.path().join(format!("agent-{number}"));
        HostUnderTest::start(number, data, enrol)
    }

    /// What the board says of a host once this holds.
    pub(crate) async fn status(
        &mut self,
        host: u32,
        what: &str,
        holds: impl Fn(&HostStatus) -> bool,
    ) -> HostStatus {
        let id: Id<Host> = records::host_id(host);
        let reached = timeout(WAIT, self.board.wait_for(|board| holds(board.status(id)))).await;
        let Ok(reached) = reached.map(|board| board.unwrap().status(id).clone()) else {
            panic!("host {host} never {what}: {:?}", self.board.borrow().status(id));
        };
        reached
    }

    /// Waits until this holds of what a host says for people, which wakes nobody.
    pub(crate) async fn counted(
        &mut self,
        host: u32,
        holds: impl Fn(&HostStatus) -> bool,
    ) -> HostStatus {
        let id = records::host_id(host);
        let looking = async {
            loop {
                let status = self.board.borrow().status(id).clone();
                if holds(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WAIT, looking).await.expect("it is told")
    }

    /// Waits until a host has acknowledged a revision and agrees with the server.
    pub(crate) async fn settled(&mut self, host: u32, revision: u64) -> HostStatus {
        let id = records::host_id(host);
        let settled = |board: &Board| board.status(id).connected && board.is_synced(id, revision);
        let reached = timeout(WAIT, self.board.wait_for(settled)).await;
        let Ok(reached) = reached.map(|board| board.unwrap().status(id).clone()) else {
            panic!("host {host} never settled at {revision}: {:?}", self.board.borrow());
        };
        reached
    }
}

/// A host with its agent.
pub(crate) struct HostUnderTest {
    pub(crate) number: u32,
    pub(crate) kernel: Memory,
    pub(crate) data: PathBuf,
    pub(crate) enrol: PathBuf,
    agent: JoinSet<Result<(), agent::Error>>,
    handle: AbortHandle,
    stop: CancellationToken,
}

impl HostUnderTest {
    pub(crate) fn start(number: u32, data: PathBuf, enrol: PathBuf) -> Self {
        let mut agent = JoinSet::new();
        let handle = agent.spawn(async { Ok(()) });
        let (kernel, stop) = (Memory::default(), CancellationToken::new());
        let mut host = Self { number, kernel, data, enrol, agent, handle, stop };
        host.restart();
        host
    }

    /// Starts the agent again, on the same kernel and data.
    pub(crate) fn restart(&mut self) {
        self.stop = CancellationToken::new();
        self.agent = JoinSet::new();
        let config = agent::Config {
            data: self.data.clone(),
            bpffs: PathBuf::new(),
            prefix: String::new(),
            enrol: Some(self.enrol.clone()),
            conntrack: agent::conntrack_size(1, Some(1)),
            direct_underlay: true,
            accel: agent::Accel::Tcg,
            handover: None,
            spares: 0,
            sample: 0,
        };
        let running = agent::run_on(self.kernel.clone(), config, self.stop.clone());
        self.handle = self.agent.spawn(running);
    }

    /// Ends the agent as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }

    /// Ends the agent as SIGKILL does, as far as one process can.
    pub(crate) async fn kill(&mut self) {
        self.handle.abort();
        let _ = timeout(WAIT, self.agent.join_next()).await.unwrap();
    }

    /// How the agent ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), agent::Error> {
        timeout(WAIT, self.agent.join_next()).await.unwrap().unwrap().unwrap()
    }

    pub(crate) fn writes(&self) -> usize {
        self.kernel.state().writes
    }

    /// Waits until the kernel is like this.
    pub(crate) async fn kernel_is(
        &self,
        what: &str,
        holds: impl Fn(&agent::memory::MemoryState) -> bool,
    ) {
        let reached = async {
            while !holds(&self.kernel.state()) {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(WAIT, reached).await.is_ok(), "the kernel never was: {what}");
    }

    pub(crate) fn assert_never_open(&self) {
        assert_eq!(self.kernel.state().violations, Vec::<String>::new());
    }
}
