//! A disk whose syncs take longer, and the server's store on it.
//!
//! The store of this process has an engine that pauses after each commit, so that no privilege and
//! no change of the product is needed. Both ends of the load share this process then; on two CPUs
//! they share these anyway.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use client::Client;
use control::{Enrolment, Gate, Jobs};
use model::{Record, Timestamp, status::Board};
use store::{Backlog, CommitError, Engine, Loaded, LogError, LogRecord, Sqlite, Store, StoredRow};
use tokio::{runtime::Runtime, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{Failure, scratch::Scratch, stats};

/// What each sync of the slow disk takes in addition.
const PAUSE: Duration = Duration::from_millis(1);
/// What a sync makes durable: a commit's pages, roughly.
const BYTES: usize = 8 << 10;
/// The file is written over again and again, as the store's log is.
const PLACES: u64 = 512;

/// Where things become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disk {
    /// The one that is there.
    AsItIs,
    /// The same; each sync takes a millisecond more.
    Slow,
}

/// What callers got.
pub(crate) struct Sample {
    /// How much of it, of all callers together.
    pub(crate) per_second: f64,
    /// How long each took, in ms.
    pub(crate) took: Vec<f64>,
}

impl Disk {
    /// What so many clients would get that share each sync and need nothing else.
    pub(crate) fn syncs(
        self,
        scratch: &Path,
        clients: usize,
        time: Duration,
    ) -> Result<Sample, Failure> {
        let directory = Scratch::new(scratch, "syncs")?;
        let file = File::create(directory.0.join("log"))?;
        let bytes = [0x5a_u8; BYTES];
        let mut places = (0..PLACES).map(|place| place * bytes.len() as u64).cycle();
        let mut write = || file.write_all_at(&bytes, places.next().unwrap_or_default());
        // Once over all of it: from then on no sync makes the file longer.
        (0..PLACES).try_for_each(|_| write())?;
        file.sync_all()?;
        let (start, mut took) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            let begin = Instant::now();
            write()?;
            file.sync_data()?;
            self.pause();
            took.push(stats::ms(begin.elapsed()));
        }
        let syncs = stats::count(took.len()) / start.elapsed().as_secs_f64();
        Ok(Sample { per_second: syncs * stats::count(clients), took })
    }

    fn pause(self) {
        let (begin, whole) = (Instant::now(), if self == Self::Slow { PAUSE } else { return });
        // It may come back early.
        while let Some(rest) = whole.checked_sub(begin.elapsed()).filter(|rest| !rest.is_zero()) {
            thread::park_timeout(rest);
        }
    }
}

/// SQLite on a slow disk.
struct SlowEngine(Sqlite);

impl Engine for SlowEngine {
    fn load(
        &mut self,
        take: &mut dyn FnMut(StoredRow) -> model::Result<()>,
    ) -> model::Result<Loaded> {
        self.0.load(take)
    }

    fn commit(&mut self, expected_head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
        self.0.commit(expected_head, records)?;
        Disk::Slow.pause();
        Ok(())
    }

    fn read_log(&mut self, after: u64, limit: usize) -> Result<Vec<LogRecord>, LogError> {
        self.0.read_log(after, limit)
    }

    fn compact(&mut self, revision: u64) -> model::Result<()> {
        self.0.compact(revision)
    }

    fn backlog(&self) -> Backlog {
        self.0.backlog()
    }
}

/// A server in this process; it ends when this is dropped.
pub(crate) struct SlowServer {
    listen: SocketAddr,
    stop: CancellationToken,
    parts: JoinSet<Result<(), String>>,
    runtime: Runtime,
    /// What hosts report: there are none.
    _board: watch::Sender<Board>,
    _directory: Scratch,
}

/// Its administrator's.
const PASSWORD: &str = "correct horse";

impl SlowServer {
    /// Starts it.
    pub(crate) fn start(scratch: &Path) -> Result<Self, Failure> {
        let directory = Scratch::new(scratch, "slow")?;
        let engine = SlowEngine(Sqlite::open(directory.0.join("netloom.db"))?);
        let store: Store<Record> = Store::open(Box::new(engine))?;
        let hash = control::account::hash(&control::account::client_digest(PASSWORD))?;
        control::account::create_admin(&store, &hash, now())?;
        control::platform::declare(&store, now())?;
        let (board, reports) = watch::channel(Board::default());
        let enrolment = Enrolment { server: String::new(), ca: String::new() };
        let gate = Arc::new(Gate::new(Jobs::new(store, reports, now), enrolment));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let listen = listener.local_addr()?;
        let limits = api::Limits::default();
        let door = api::Door { listener, identity: None, limits, metrics_from: Vec::new() };
        let (stop, runtime, mut parts) =
            (CancellationToken::new(), Runtime::new()?, JoinSet::new());
        let serving = api::serve(door, gate, stop.clone());
        let serving = async move { serving.await.map_err(|error| error.to_string()) };
        parts.spawn_on(serving, runtime.handle());
        Ok(Self { listen, stop, parts, runtime, _board: board, _directory: directory })
    }

    /// Where it answers REST.
    pub(crate) const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// A session there.
    pub(crate) fn log_in(&self) -> Result<Client, Failure> {
        let mut client = Client::new(&format!("http://{}", self.listen));
        client.log_in("admin", PASSWORD)?;
        Ok(client)
    }
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.runtime.block_on(self.parts.join_next());
        if let Some(Ok(Err(error))) = ended {
            eprintln!("the slow server: {error}");
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_sync_takes_at_least_a_millisecond_and_clients_share_it() {
        let scratch = tempfile::tempdir().unwrap();
        let sample = Disk::Slow.syncs(scratch.path(), 8, Duration::from_millis(20)).unwrap();
        assert!(sample.took.iter().all(|took| *took >= 1.0), "{:?}", sample.took);
        assert!(sample.per_second <= 8.0 * 1000.0, "{}", sample.per_second);
    }

    #[test]
    fn a_commit_of_the_slow_engine_takes_a_millisecond_more_and_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let engine = SlowEngine(Sqlite::open(scratch.path().join("db")).unwrap());
        let store: Store<Record> = Store::open(Box::new(engine)).unwrap();
        let begin = Instant::now();
        control::account::create_admin(&store, "none", now()).unwrap();
        assert!(begin.elapsed() >= PAUSE);
        assert_eq!(store.snapshot().revision(), 1);
    }
}
