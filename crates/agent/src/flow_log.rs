//! The flow log: what ports that have it open and are denied, as lines of JSON in a file.
//!
//! The programs tell of it (`flow_log` of `packet`), so many times a second for each port. Here it gets
//! names: of the NIC, its instance, the rule and its group. What is the same within a second is one line
//! with a count; a NIC has 100 lines a second, and one more that says how many there would have been.
//! A file that cannot be written is told of and tried again; nothing waits for it.
//!
//! Some of what ports tell may be asked for again of the objects ([`sampler`]).

mod book;
mod file;
mod sampler;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dataplane::FlowEvents;
use model::Timestamp;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wire::holding::Holding;

use crate::{requests::readable, state::Desired, worker::Achieved};
use book::{Book, Clock};
use file::LogFile;
pub use sampler::Sampled;
use sampler::Sampler;

/// The file's name in the data directory. The one before it has `.1` behind.
pub const FILE: &str = "flows.jsonl";

/// Bytes of each of the two files.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Events that are taken before anything else is looked at.
const AT_ONCE: usize = 1_024;

/// How long what is the same is counted before it is written.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be written, and where it comes from.
pub(crate) type Sources = (
    watch::Receiver<Option<Desired>>,
    watch::Receiver<Option<Achieved>>,
    mpsc::Receiver<FlowEvents>,
);

/// Writes until told to stop.
pub(crate) async fn keep(mut log: Log, sources: Sources, stop: CancellationToken) {
    stop.run_until_cancelled(log.work(sources)).await;
    log.flush();
}

/// The log.
pub(crate) struct Log {
    book: Book,
    file: LogFile,
    /// What cannot be written, and why.
    trouble: watch::Sender<Option<String>>,
    /// Lines that were not written since the last that were.
    lost: u64,
    /// When to write.
    due: Option<Instant>,
    /// What is held, for the sampler.
    holding: Arc<Holding>,
    sampler: Sampler,
    sampled: watch::Sender<Sampled>,
}

impl Log {
    /// In this directory. One in so many verdicts is asked for again, with 0 none.
    pub(crate) fn new(
        data: &Path,
        every: u32,
        (trouble, sampled): (watch::Sender<Option<String>>, watch::Sender<Sampled>),
    ) -> Self {
        Self {
            book: Book::default(),
            file: LogFile::new(data.join(FILE), FILE_BYTES),
            trouble,
            lost: 0,
            due: None,
            holding: Arc::default(),
            sampler: Sampler::new(every),
            sampled,
        }
    }

    /// Never ends by itself.
    async fn work(&mut self, (mut desired, mut achieved, mut rings): Sources) {
        let mut ring = None;
        desired.mark_changed();
        loop {
            let due = self.due;
            // None loses anything when another is faster.
            tokio::select! {
                Some(newest) = rings.recv() => {
                    ring = readable(newest)
                        .inspect_err(|error| tracing::warn!(%error, "no flow log"))
                        .ok();
                }
                Ok(()) = desired.changed() => {
                    let wanted = desired.borrow_and_update().clone();
                    if let Some(Desired { holding, .. }) = wanted {
                        self.sampler.follow(&holding);
                        self.holding = Arc::clone(&holding);
                        self.book.follow(holding);
                        self.settle(&achieved);
                    }
                }
                Ok(()) = achieved.changed() => {
                    achieved.mark_unchanged();
                    self.settle(&achieved);
                }
                taken = take(&mut ring), if ring.is_some() => match taken {
                    Ok(events) => {
                        self.note(&events);
                        // What was decided for what is wanted since is nothing to compare with.
                        if desired.has_changed().is_ok_and(|has_changed| !has_changed) {
                            self.sample(&events);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the flow log cannot be heard");
                        ring = None;
                    }
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.flush(),
                // The agent ends.
                else => std::future::pending().await,
            }
        }
    }

    fn note(&mut self, events: &[packet::FlowEvent]) {
        events.iter().for_each(|event| self.book.note(event));
        if self.book.is_full() {
            self.flush();
        } else if self.book.has_any() {
            self.due.get_or_insert_with(|| Instant::now() + PAUSE);
        }
    }

    fn settle(&mut self, achieved: &watch::Receiver<Option<Achieved>>) {
        let is_settled = achieved.borrow().as_ref().is_some_and(|achieved| {
            achieved.outcome.is_clean() && achieved.digests == self.holding.digests()
        });
        self.sampler.settle(is_settled, FlowEvents::now_ns());
    }

    fn sample(&mut self, events: &[packet::FlowEvent]) {
        for event in events {
            if let Some(difference) = self.sampler.sample(&self.holding, event) {
                tracing::error!(difference, "the programs decide otherwise than the rules say");
            }
        }
        let found = self.sampler.found();
        self.sampled.send_if_modified(|told| std::mem::replace(told, found) != found);
    }

    /// Writes what there is.
    fn flush(&mut self) {
        self.due = None;
        let mut lines = self.book.lines(&clock());
        if lines.is_empty() {
            return;
        }
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.lost > 0 {
            lines.insert(0, book::lost(self.lost, &clock()));
        }
        let text: String = lines.into_iter().flat_map(|line| [line, "\n".to_owned()]).collect();
        // It takes milliseconds, and nothing else runs in this task.
        let written = tokio::task::block_in_place(|| self.file.write(text.as_bytes()));
        match written {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost = self.lost.saturating_add(count),
        }
        let trouble = written.err().map(|error| {
            format!(
                "the flow log {} cannot be written, lines are lost: {error}; make room there",
                self.file.path().display()
            )
        });
        self.trouble.send_if_modified(|told| {
            let is_news = *told != trouble;
            *told = trouble;
            is_news
        });
    }
}

/// Waits for events and takes some. Dropping it loses nothing.
async fn take(ring: &mut Option<AsyncFd<FlowEvents>>) -> io::Result<Vec<packet::FlowEvent>> {
    let Some(ring) = ring else { return std::future::pending().await };
    let mut ready = ring.readable_mut().await?;
    let events: Vec<_> = ready.get_inner_mut().by_ref().take(AT_ONCE).collect();
    if events.len() < AT_ONCE {
        ready.clear_ready();
    }
    Ok(events)
}

/// The clock of events and that of people.
fn clock() -> Clock {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Clock { now, now_ns: FlowEvents::now_ns() }
}
