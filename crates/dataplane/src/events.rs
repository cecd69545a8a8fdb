//! Reading side: the frames that were dropped, one by one, while somebody asks.
//!
//! There is one ring buffer, and what one reader takes no other gets. An agent that runs reads it in
//! turns, a few milliseconds each ([`DropTurns`]); whoever watches ([`DropWatch`]) has it for as long as
//! that takes, and the agent hears nothing then. Two locks on directories of pins say who reads: the
//! first keeps a second watcher away, the second is held while the buffer is read.

use crate::bpffs;
use crate::counters::monotonic_ns;
use crate::error::Error;
use crate::lookup::Lookup;
use crate::pinned::Maps;
use crate::view::View;
use packet::{DropEvent, DropReason, EVENTS_BYTES, Entry, Plain, PortKey};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A dropped frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedFrame {
    /// Time, nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// At which hook.
    pub entry: Option<Entry>,
    /// Interface of the hook.
    pub ifindex: u32,
    /// Number of the port concerned, 0 if none was found.
    pub port: u32,
    /// Why; `None` for a number that this version does not know.
    pub reason: Option<DropReason>,
    /// Number of the rule that decided, if a policy's did; else 0.
    pub rule: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Its first bytes.
    pub header: Vec<u8>,
}

/// Hears of each frame that a data plane drops, beside its agent or without one, from now on until
/// it is dropped. One at a time for each data plane: what one takes, another does not get. An agent that
/// listens yields.
pub struct DropWatch {
    view: View,
    /// Events that had been lost before.
    lost_before: u64,
    _only_one: File,
    _reads: File,
}

impl DropWatch {
    /// Of the data plane that is pinned below this mount point.
    ///
    /// # Errors
    /// [`Error::Watched`] when somebody else hears already, otherwise as [`View::open`].
    pub fn open(bpffs: &Path) -> Result<DropWatch, Error> {
        let view = View::open(bpffs)?;
        // Not that of the mount point, which the agent has.
        let only_one = bpffs::lock(&bpffs::Paths::new(bpffs, "").maps()).map_err(|error| {
            let path = bpffs.to_owned();
            if let Error::Held { .. } = error { Error::Watched { path } } else { error }
        })?;
        // An agent holds it for no longer than it takes to read the buffer.
        let reads = bpffs::wait_for(&bpffs::Paths::new(bpffs, "").links())?;
        let lost_before = view.counters()?.events_lost;
        let mut watch = DropWatch { view, lost_before, _only_one: only_one, _reads: reads };
        // What somebody before has left there.
        while !watch.read()?.is_empty() {}
        Ok(watch)
    }

    /// Takes what waits, oldest first, no more than the buffer holds.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn read(&mut self) -> Result<Vec<DroppedFrame>, Error> {
        let maps = &mut self.view.maps;
        // Each time: an agent that starts takes the word back.
        maps.events_wanted.set(0, &1)?;
        Ok(waiting(maps))
    }

    /// Events for which there was no room since it was opened.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn lost(&self) -> Result<u64, Error> {
        Ok(self.view.counters()?.events_lost.saturating_sub(self.lost_before))
    }

    /// The number of the port on this interface, if there is one.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn port(&self, ifindex: u32) -> Result<Option<u32>, Error> {
        let ports = self.view.maps.ports.read()?;
        Ok(ports.iter().find(|(key, _)| key.ifindex == ifindex).map(|(_, port)| port.number))
    }

    /// Now, on the clock of events.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        monotonic_ns()
    }
}

impl Drop for DropWatch {
    fn drop(&mut self) {
        Events { is_wanted: true }.end(&mut self.view.maps);
    }
}

/// Between two turns. The buffer has room for some thousands of events.
const PAUSE: Duration = Duration::from_millis(250);

/// How long is listened where more is dropped than anybody needs to hear of, and how long not.
const GLIMPSE: Duration = Duration::from_millis(10);
const REST: Duration = Duration::from_millis(990);

/// Events of a turn above which there are too many: half of a buffer.
const MANY: usize = MOST / 2;

/// Most events that are taken at a time.
const MOST: usize = EVENTS_BYTES as usize / size_of::<DropEvent>();

/// Hears of dropped frames in turns, as far as nobody watches. Where thousands are dropped each second
/// it listens for a hundredth of the time: telling of a drop costs the programs more than the drop, and
/// where the buffer is full all CPUs queue for its lock.
pub struct DropTurns {
    view: View,
    /// What is locked while the buffer is read.
    lock: PathBuf,
    rests: bool,
}

/// What was heard in a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The frames, oldest first.
    pub frames: Vec<TurnFrame>,
    /// All drops that had been counted before they were taken.
    pub counted: u64,
    /// Now, on the clock of the frames.
    pub now_ns: u64,
    /// When the next turn is due.
    pub pause: Duration,
}

/// A dropped frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnFrame {
    /// It.
    pub frame: DroppedFrame,
    /// It came from the port that it concerns; else it was on its way there.
    pub is_from_port: bool,
}

impl DropTurns {
    /// Of the data plane that is pinned below this mount point.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn open(bpffs: &Path) -> Result<DropTurns, Error> {
        let lock = bpffs::Paths::new(bpffs, "").links();
        Ok(DropTurns { view: View::open(bpffs)?, lock, rests: false })
    }

    /// Takes what waits, unless somebody watches.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Bpffs`].
    pub fn take(&mut self) -> Result<Turn, Error> {
        let counted = self.view.dropped_in_all()?;
        let now_ns = monotonic_ns();
        let turn = Turn { frames: Vec::new(), counted, now_ns, pause: PAUSE };
        let _reads = match bpffs::lock(&self.lock) {
            Ok(lock) => lock,
            Err(Error::Held { .. }) => return Ok(turn),
            Err(error) => return Err(error),
        };
        let maps = &mut self.view.maps;
        if std::mem::take(&mut self.rests) {
            maps.events_wanted.set(0, &1)?;
            return Ok(Turn { pause: GLIMPSE, ..turn });
        }
        let frames = waiting(maps);
        self.rests = frames.len() >= MANY;
        // Each time: who watched has taken the word back, as has an agent that starts.
        maps.events_wanted.set(0, &u32::from(!self.rests))?;
        let pause = if self.rests { REST } else { PAUSE };
        Ok(Turn { frames: self.told(frames)?, pause, ..turn })
    }

    /// Finds out which of them come from the port that they concern.
    fn told(&self, frames: Vec<DroppedFrame>) -> Result<Vec<TurnFrame>, Error> {
        let mut ports = BTreeMap::new();
        let mut told = Vec::with_capacity(frames.len());
        for frame in frames {
            let at = match ports.get(&frame.ifindex) {
                Some(at) => *at,
                None => {
                    let port = Lookup::ports(&self.view, &PortKey::untagged(frame.ifindex))?;
                    let at = port.map(|port| port.number);
                    ports.insert(frame.ifindex, at);
                    at
                }
            };
            let is_from_port =
                frame.entry == Some(Entry::FromPort) && at.is_some_and(|port| port == frame.port);
            told.push(TurnFrame { frame, is_from_port });
        }
        Ok(told)
    }
}

impl std::fmt::Debug for DropTurns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DropTurns").field("rests", &self.rests).finish_non_exhaustive()
    }
}

impl Drop for DropTurns {
    fn drop(&mut self) {
        // Whoever watches wants to go on hearing.
        if let Ok(_reads) = bpffs::lock(&self.lock) {
            Events { is_wanted: true }.end(&mut self.view.maps);
        }
    }
}

/// Takes the events that wait, but no more at a time than there is room for.
fn waiting(maps: &mut Maps) -> Vec<DroppedFrame> {
    let mut frames = Vec::new();
    while frames.len() < MOST
        && let Some(record) = maps.events.0.next()
    {
        let Ok(bytes) = <<DropEvent as Plain>::Bytes>::try_from(&*record) else { continue };
        frames.push(dropped_frame(&DropEvent::from_bytes(&bytes)));
    }
    frames
}

/// Whether the programs have been told that the ring buffer is read.
pub(crate) struct Events {
    is_wanted: bool,
}

impl Events {
    /// A reader that was killed may have left its word; it is taken back.
    pub(crate) fn open(maps: &mut Maps) -> Result<Events, Error> {
        maps.events_wanted.set(0, &0)?;
        Ok(Events { is_wanted: false })
    }

    /// Takes what waits, and asks for more.
    pub(crate) fn read(&mut self, maps: &mut Maps) -> Result<Vec<DroppedFrame>, Error> {
        if !self.is_wanted {
            maps.events_wanted.set(0, &1)?;
            self.is_wanted = true;
        }
        Ok(waiting(maps))
    }

    /// Asks for no more. Left standing, the word costs time and nothing else, until the next data
    /// plane opens.
    pub(crate) fn end(&self, maps: &mut Maps) {
        if self.is_wanted
            && let Err(error) = maps.events_wanted.set(0, &0)
        {
            tracing::debug!(%error, "drop events stay on");
        }
    }
}

fn dropped_frame(event: &DropEvent) -> DroppedFrame {
    let length = usize::try_from(event.header_length).unwrap_or(0).min(event.header.len());
    DroppedFrame {
        time_ns: event.time_ns,
        entry: match event.entry {
            1 => Some(Entry::FromPort),
            2 => Some(Entry::FromTunnel),
            3 => Some(Entry::ToPort),
            4 => Some(Entry::FromUplink),
            5 => Some(Entry::ToUplink),
            6 => Some(Entry::ToTunnel),
            _ => None,
        },
        ifindex: event.ifindex,
        port: event.port,
        reason: DropReason::from_number(event.reason),
        rule: event.rule,
        length: event.length,
        header: event.header[..length].to_vec(),
    }
}
