//! Reading side: the frames that were dropped, one by one, while somebody asks.

use crate::bpffs;
use crate::counters::monotonic_ns;
use crate::error::Error;
use crate::pinned::Maps;
use crate::view::View;
use packet::{DropEvent, DropReason, EVENTS_BYTES, Entry, Plain};
use std::fs::File;
use std::path::Path;

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
/// it is dropped. One at a time for each data plane: what one takes, another does not get.
pub struct DropWatch {
    view: View,
    /// Events that had been lost before.
    lost_before: u64,
    _only_one: File,
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
        let lost_before = view.counters()?.events_lost;
        let mut watch = DropWatch { view, lost_before, _only_one: only_one };
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

/// Takes the events that wait, but no more at a time than there is room for.
fn waiting(maps: &mut Maps) -> Vec<DroppedFrame> {
    const MOST: usize = EVENTS_BYTES as usize / size_of::<DropEvent>();
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
