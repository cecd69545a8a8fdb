//! Reading side: the frames that were dropped, one by one, while somebody asks.

use crate::error::Error;
use crate::pinned::Maps;
use packet::{DropEvent, DropReason, Entry, Plain};

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
    /// Bytes of the frame.
    pub length: u32,
    /// Its first bytes.
    pub header: Vec<u8>,
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
        let mut frames = Vec::new();
        while let Some(record) = maps.events.0.next() {
            let Ok(bytes) = <<DropEvent as Plain>::Bytes>::try_from(&*record) else { continue };
            frames.push(dropped_frame(&DropEvent::from_bytes(&bytes)));
        }
        Ok(frames)
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
            _ => None,
        },
        ifindex: event.ifindex,
        port: event.port,
        reason: DropReason::from_number(event.reason),
        length: event.length,
        header: event.header[..length].to_vec(),
    }
}
