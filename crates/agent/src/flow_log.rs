//! The flow log: what ports that have it open and are denied, as lines of JSON in a file.
//!
//! The programs tell of it (`flow_log` of `packet`), so many times a second for each port. Here it gets
//! names: of the NIC, its instance, the rule and its group. What is the same within a second is one line
//! with a count; a NIC has 100 lines a second, and one more that says how many there would have been.
//! A file that cannot be written is told of and tried again; nothing waits for it.

mod book;
mod file;

use std::{
    io,
    path::{Path, PathBuf},
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

use crate::{requests::readable, state::Desired};
use book::{Book, Clock};
use file::LogFile;

/// The file's name in the data directory. The one before it has `.1` behind.
pub const FILE: &str = "flows.jsonl";

/// Bytes of each of the two files.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Events that are taken before anything else is looked at.
const AT_ONCE: usize = 1_024;

/// How long what is the same is counted before it is written.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes until told to stop. What cannot be written, and why, is said to `trouble`.
pub(crate) async fn keep(
    data: PathBuf,
    desired: watch::Receiver<Option<Desired>>,
    rings: mpsc::Receiver<FlowEvents>,
    trouble: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut log = Log::new(&data, trouble);
    stop.run_until_cancelled(log.work(desired, rings)).await;
    log.flush();
}

struct Log {
    book: Book,
    file: LogFile,
    trouble: watch::Sender<Option<String>>,
    /// Lines that were not written since the last that were.
    lost: u64,
    /// When to write.
    due: Option<Instant>,
}

impl Log {
    fn new(data: &Path, trouble: watch::Sender<Option<String>>) -> Self {
        let file = LogFile::new(data.join(FILE), FILE_BYTES);
        Self { book: Book::default(), file, trouble, lost: 0, due: None }
    }

    /// Never ends by itself.
    async fn work(
        &mut self,
        mut desired: watch::Receiver<Option<Desired>>,
        mut rings: mpsc::Receiver<FlowEvents>,
    ) {
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
                        self.book.follow(holding);
                    }
                }
                taken = take(&mut ring), if ring.is_some() => match taken {
                    Ok(events) => {
                        events.iter().for_each(|event| self.book.note(event));
                        if self.book.is_full() {
                            self.flush();
                        } else if self.book.has_any() {
                            self.due.get_or_insert_with(|| Instant::now() + PAUSE);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the flow log cannot be heard");
                        ring = None;
                    }
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.flush(),
            }
        }
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
