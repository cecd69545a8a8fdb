//! The handle: snapshots, transactions and watches for any number of threads and tasks.

use std::{
    sync::{
        Arc,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
};

use model::{Code, Error, Result};
use tokio::sync::oneshot;

use crate::{
    Engine, Follower, Gone, Measures, Memory, Row, Snapshot, Tx, Watch,
    batch::{Submitted, Work},
    measures::Gauges,
    watch::Shared,
    writer::{Job, Writer, load},
};

/// How many transactions may wait for the writer thread. When there are more, new ones are refused
/// at once, so that callers do not wait without end.
pub const QUEUE_CAPACITY: usize = 4096;

/// A handle on a store; a clone is another one. When the last handle is dropped, the transactions
/// that still wait are finished and the writer thread ends.
#[derive(Clone)]
pub struct Store<R: Row> {
    inner: Arc<Inner<R>>,
}

/// What a transaction has led to; it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the closure has returned.
    pub value: T,
    /// The revision that it made; if it wrote nothing, the one that it saw.
    pub revision: u64,
}

struct Inner<R: Row> {
    shared: Arc<Shared<R>>,
    is_shared: bool,
    gauges: Arc<Gauges>,
    /// `None` only while it is dropped.
    jobs: Option<SyncSender<Job<R>>>,
    writer: Option<JoinHandle<()>>,
}

impl<R: Row> Store<R> {
    /// Loads the state and starts the writer thread.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`], when the engine cannot be read, holds rows that this version does
    /// not understand, or is damaged: two of its rows hold one claim.
    pub fn open(mut engine: Box<dyn Engine>) -> Result<Self> {
        let snapshot = Snapshot(Arc::new(load(engine.as_mut())?));
        let shared = Arc::new(Shared::new(snapshot.clone()));
        let gauges = Arc::new(Gauges::new(engine.backlog()));
        let is_shared = engine.follow_every().is_some();
        let (jobs, waiting) = mpsc::sync_channel(QUEUE_CAPACITY);
        let writer =
            Writer::new(engine, snapshot, (Arc::clone(&shared), Arc::clone(&gauges)), waiting);
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| unavailable("the writer thread cannot be started").cause(e))?;
        let inner = Inner { shared, is_shared, gauges, jobs: Some(jobs), writer: Some(writer) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// An empty store of its own in memory, for tests.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_memory() -> Result<Self> {
        Self::open(Box::new(Memory::new()))
    }

    /// The state as of the last durable transaction. Never waits for a writer.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<R> {
        self.inner.shared.snapshot()
    }

    /// Whether other servers may be on the same engine.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.inner.is_shared
    }

    /// What an operator may want to know. Waits for nobody.
    #[must_use]
    pub fn measures(&self) -> Measures {
        self.inner.gauges.read()
    }

    /// Every transaction from now on, beginning with a snapshot.
    #[must_use]
    pub fn watch(&self) -> Watch<R> {
        Watch::new(Arc::clone(&self.inner.shared))
    }

    /// Every transaction after revision `after`, also those that are over: whoever has seen that
    /// revision misses nothing and is told nothing twice.
    ///
    /// # Errors
    /// [`Gone`]: it is too long ago, before this start of the program, or has not been yet.
    pub fn follow_from(&self, after: u64) -> Result<Follower<R>, Gone> {
        self.inner.shared.follow(after)
    }

    /// Runs `work` and returns when it is durable, and this store's snapshots and watchers show it.
    /// Blocks the thread: async code uses [`transact_async`](Self::transact_async).
    ///
    /// `work` runs on the writer thread, so it must be quick. It cannot start another transaction
    /// (that is refused with [`Code::Internal`]). It may run several times (another server was
    /// faster); only its last run counts. An `Err` or a panic changes nothing.
    ///
    /// # Errors
    /// Those of `work`. [`Code::Internal`], when it has panicked. [`Code::OperationFailed`], when
    /// it writes more than 10,000 keys. [`Code::StoreUnavailable`], when the engine or the queue
    /// fails; only if the message says so may it have happened nevertheless.
    pub fn transact<T, F>(&self, work: F) -> Result<Committed<T>>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<R>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        self.submit(work, move |result| {
            // The caller is there: it waits below.
            let _ = answer.send(result);
        })?;
        answered.recv().unwrap_or_else(|_| Err(writer_gone()))
    }

    /// [`transact`](Self::transact) without blocking. Once called and polled, the transaction runs
    /// to its end even if the future is dropped.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn transact_async<T, F>(&self, work: F) -> Result<Committed<T>>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<R>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(work, move |result| {
            // An error says that the caller no longer wants to know.
            let _ = answer.send(result);
        })?;
        answered.await.unwrap_or_else(|_| Err(writer_gone()))
    }

    /// Catches up with other servers on the same engine now; gives the revision that is reached.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`], when the engine cannot be read.
    pub fn follow(&self) -> Result<u64> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.send(Job::Follow(answer))?;
        answered.recv().unwrap_or_else(|_| Err(writer_gone()))
    }

    fn submit<T, F, A>(&self, work: F, reply: A) -> Result<()>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<R>) -> Result<T> + Send + 'static,
        A: FnOnce(Result<Committed<T>>) + Send + 'static,
    {
        let work: Box<dyn Work<R>> = Box::new(Submitted { work, result: None, reply });
        self.send(Job::Transact(work))
    }

    fn send(&self, job: Job<R>) -> Result<()> {
        if self.inner.on_writer_thread() {
            return Err(Error::new(Code::Internal, "a transaction tried to start another one"));
        }
        let jobs = self.inner.jobs.as_ref().ok_or_else(writer_gone)?;
        self.inner.gauges.queued();
        jobs.try_send(job).map_err(|error| {
            self.inner.gauges.taken(1);
            match error {
                TrySendError::Full(_) => {
                    let busy = format!("{QUEUE_CAPACITY} changes wait for the store already");
                    unavailable(&busy).hint("try again in a few seconds")
                }
                TrySendError::Disconnected(_) => writer_gone(),
            }
        })
    }
}

impl<R: Row> Inner<R> {
    /// There one must not wait for the writer thread.
    fn on_writer_thread(&self) -> bool {
        let current = thread::current().id();
        self.writer.as_ref().is_some_and(|writer| writer.thread().id() == current)
    }
}

impl<R: Row> Drop for Inner<R> {
    fn drop(&mut self) {
        self.jobs = None;
        // The last handle may have been inside a closure.
        if self.on_writer_thread() {
            return;
        }
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's writer thread has panicked");
        }
    }
}

fn unavailable(message: &str) -> Error {
    Error::new(Code::StoreUnavailable, message)
}

fn writer_gone() -> Error {
    unavailable("the store's writer has ended; whether the change happened is unknown")
        .hint("restart the server")
}
