//! Reading side: the frames that were dropped, one by one, while somebody asks.

use crate::error::Error;
use crate::pinned::{Slots, failed};
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
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

/// The ring buffer, and the word by which the programs know that it is read.
pub(crate) struct Events {
    ring: RingBuf<MapData>,
    wanted: Slots<u32>,
    is_wanted: bool,
}

impl Events {
    /// Opens both. A reader that was killed may have left its word; it is taken back.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Events, Error> {
        let map = object.take_map("events").ok_or(Error::Incomplete("events"))?;
        let ring = RingBuf::try_from(map).map_err(failed("events", "open"))?;
        let mut wanted = Slots::take(object, "events_wanted")?;
        wanted.set(0, &0)?;
        Ok(Events { ring, wanted, is_wanted: false })
    }

    /// Takes what waits, and asks for more.
    pub(crate) fn read(&mut self) -> Result<Vec<DroppedFrame>, Error> {
        if !self.is_wanted {
            self.wanted.set(0, &1)?;
            self.is_wanted = true;
        }
        let mut frames = Vec::new();
        while let Some(record) = self.ring.next() {
            let Ok(bytes) = <<DropEvent as Plain>::Bytes>::try_from(&*record) else { continue };
            frames.push(dropped_frame(&DropEvent::from_bytes(&bytes)));
        }
        Ok(frames)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Left standing it costs time and nothing else, until the next data plane opens.
        if self.is_wanted
            && let Err(error) = self.wanted.set(0, &0)
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
