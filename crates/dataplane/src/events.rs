//! Reading side: the frames that were dropped, one by one, while somebody asks; and those for the
//! agent.

use crate::error::Error;
use crate::pinned::Maps;
use packet::{DropEvent, DropReason, Entry, HANDED_BYTES, HandedOff, Plain};

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

/// A frame for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedFrame {
    /// Time, nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Interface of the hook.
    pub ifindex: u32,
    /// Number of the port that it comes from, which the guard has made sure of.
    pub port: u32,
    /// The VLAN of the port's tag, 0 for none.
    pub vlan: u32,
    /// All of it. A checksum that the sender has left to its device is not filled in.
    pub frame: Vec<u8>,
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

/// Takes what waits, but no more at a time than there is room for: programs may write faster.
pub(crate) fn handed_off(maps: &mut Maps) -> Vec<HandedFrame> {
    const MOST: usize = HANDED_BYTES as usize / size_of::<HandedOff>();
    let mut frames = Vec::new();
    while frames.len() < MOST
        && let Some(record) = maps.handed.0.next()
    {
        let Ok(bytes) = <<HandedOff as Plain>::Bytes>::try_from(&*record) else { continue };
        let handed = HandedOff::from_bytes(&bytes);
        let length = usize::try_from(handed.length).unwrap_or(0).min(handed.frame.len());
        frames.push(HandedFrame {
            time_ns: handed.time_ns,
            ifindex: handed.ifindex,
            port: handed.port,
            vlan: handed.vlan,
            frame: handed.frame[..length].to_vec(),
        });
    }
    frames
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
