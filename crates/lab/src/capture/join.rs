//! Which drop is about which frame. Pure.
//!
//! Both are told by the kernel within microseconds of each other, over two ways that are read one
//! after the other. So either may be known first, and each waits for the other for a moment.

use std::{collections::VecDeque, time::Duration};

use dataplane::{DroppedFrame, packet::Entry};
use hostnet::TappedFrame;

/// How long a frame waits for a drop that is about it, and a drop for its frame.
const PATIENCE: Duration = Duration::from_millis(200);

/// How far the times of both may be apart: events have the coarse clock of the kernel's ticks.
const APART_MAX: Duration = Duration::from_secs(1);

/// Frames and drops that wait at most; more of them do not wait for each other.
const WAITING_MAX: usize = 8192;

/// A frame that was heard.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Where, among the devices that are listened to.
    pub(crate) ear: usize,
    /// The interface of the drops that may be about it.
    pub(crate) joins: Option<u32>,
    /// What was heard.
    pub(crate) frame: TappedFrame,
}

/// What is written down.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Since 1970.
    pub(crate) time: Duration,
    /// Where it was heard; `None`: nowhere, the data plane has told of it.
    pub(crate) ear: Option<usize>,
    /// Whether it left by the device where it was heard.
    pub(crate) is_outgoing: bool,
    /// Its bytes, as far as they are known.
    pub(crate) bytes: Vec<u8>,
    /// How long it was.
    pub(crate) length: usize,
    /// The drop that it met.
    pub(crate) drop: Option<DroppedFrame>,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    frames: VecDeque<Frame>,
    drops: VecDeque<(Duration, DroppedFrame)>,
    ready: Vec<Record>,
}

impl Joiner {
    /// A frame was heard.
    pub(crate) fn heard(&mut self, frame: Frame) {
        let at = self.drops.iter().position(|(time, drop)| is_about(drop, *time, &frame));
        match at.and_then(|at| self.drops.remove(at)) {
            Some((_, drop)) => self.ready.push(whole(frame, Some(drop))),
            None if frame.joins.is_none() => self.ready.push(whole(frame, None)),
            None => self.frames.push_back(frame),
        }
        if self.frames.len() > WAITING_MAX {
            self.ready.extend(self.frames.pop_front().map(|frame| whole(frame, None)));
        }
    }

    /// A frame was dropped. `clock` is added to its time.
    pub(crate) fn dropped(&mut self, drop: DroppedFrame, clock: Duration) {
        let time = Duration::from_nanos(drop.time_ns) + clock;
        let at = self.frames.iter().position(|frame| is_about(&drop, time, frame));
        match at.and_then(|at| self.frames.remove(at)) {
            Some(frame) => self.ready.push(whole(frame, Some(drop))),
            None => self.drops.push_back((time, drop)),
        }
        if self.drops.len() > WAITING_MAX {
            self.ready.extend(self.drops.pop_front().map(|(time, drop)| alone(time, drop)));
        }
    }

    /// What need not wait any longer at `now`, by time.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Record> {
        let is_old = |time: Duration| now.saturating_sub(time) >= PATIENCE;
        while self.frames.front().is_some_and(|frame| is_old(frame.frame.time)) {
            self.ready.extend(self.frames.pop_front().map(|frame| whole(frame, None)));
        }
        while self.drops.front().is_some_and(|(time, _)| is_old(*time)) {
            self.ready.extend(self.drops.pop_front().map(|(time, drop)| alone(time, drop)));
        }
        // What has met waits as long as what has not, so that all comes in the order of time.
        let (mut old, young): (Vec<Record>, Vec<Record>) =
            std::mem::take(&mut self.ready).into_iter().partition(|record| is_old(record.time));
        self.ready = young;
        old.sort_by_key(|record| record.time);
        old
    }

    /// All that waits, by time.
    pub(crate) fn all(&mut self) -> Vec<Record> {
        self.due(Duration::MAX)
    }
}

/// Whether a drop that happened then is about a frame: on the same interface, as long, and with the
/// same first bytes.
fn is_about(drop: &DroppedFrame, time: Duration, frame: &Frame) -> bool {
    let comes_in = matches!(drop.entry, Some(Entry::FromPort | Entry::FromUplink));
    let heard = &frame.frame;
    let of_drop = usize::try_from(drop.length).unwrap_or(usize::MAX);
    comes_in
        && frame.joins == Some(drop.ifindex)
        && heard.length == of_drop
        && heard.bytes.starts_with(&drop.header)
        && heard.time.abs_diff(time) <= APART_MAX
}

fn whole(frame: Frame, drop: Option<DroppedFrame>) -> Record {
    let Frame { ear, frame: TappedFrame { time, is_outgoing, bytes, length }, .. } = frame;
    Record { time, ear: Some(ear), is_outgoing, bytes, length, drop }
}

fn alone(time: Duration, drop: DroppedFrame) -> Record {
    let length = usize::try_from(drop.length).unwrap_or(drop.header.len());
    let (bytes, ear, is_outgoing) = (drop.header.clone(), None, false);
    Record {
        time,
        ear,
        is_outgoing,
        bytes,
        length: length.max(drop.header.len()),
        drop: Some(drop),
    }
}

#[cfg(test)]
mod tests {
    use dataplane::packet::DropReason;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn frame(at: Duration, ear: usize, bytes: &[u8]) -> Frame {
        let (is_outgoing, bytes, length) = (false, bytes.to_vec(), bytes.len());
        let frame = TappedFrame { time: at, is_outgoing, bytes, length };
        Frame { ear, joins: (ear == 0).then_some(7), frame }
    }

    fn drop(at: Duration, ifindex: u32, bytes: &[u8]) -> DroppedFrame {
        DroppedFrame {
            rule: 0,
            time_ns: u64::try_from(at.as_nanos()).unwrap(),
            entry: Some(Entry::FromPort),
            ifindex,
            port: 1,
            reason: Some(DropReason::SpoofedMac),
            length: u32::try_from(bytes.len()).unwrap(),
            header: bytes[..bytes.len().min(4)].to_vec(),
        }
    }

    /// Of each record: where it was heard, how many bytes it has, whether it was dropped.
    fn brief(records: &[Record]) -> Vec<(Option<usize>, usize, bool)> {
        records.iter().map(|one| (one.ear, one.bytes.len(), one.drop.is_some())).collect()
    }

    #[test]
    fn a_drop_and_its_frame_meet_whichever_is_known_first() {
        for drop_first in [false, true] {
            let mut joiner = Joiner::default();
            let (bytes, other) = (&b"spoofed"[..], &b"honest!"[..]);
            if drop_first {
                joiner.dropped(drop(SECOND, 7, bytes), Duration::ZERO);
            }
            joiner.heard(frame(SECOND, 0, other));
            joiner.heard(frame(SECOND + Duration::from_millis(3), 0, bytes));
            if !drop_first {
                joiner.dropped(drop(SECOND, 7, bytes), Duration::ZERO);
            }
            assert!(joiner.due(SECOND + Duration::from_millis(10)).is_empty(), "too early");
            let records = joiner.due(2 * SECOND);
            assert_eq!(brief(&records), [(Some(0), 7, false), (Some(0), 7, true)], "{drop_first}");
        }
    }

    #[test]
    fn a_drop_that_no_frame_was_heard_of_stands_alone_with_its_first_bytes() {
        let strangers = [
            drop(SECOND, 8, b"spoofed"),
            drop(3 * SECOND, 7, b"spoofed"),
            drop(SECOND, 7, b"spoofed and longer"),
            DroppedFrame { entry: Some(Entry::ToPort), ..drop(SECOND, 7, b"spoofed") },
        ];
        for stranger in strangers {
            let (mut joiner, length) = (Joiner::default(), stranger.length);
            joiner.heard(frame(SECOND, 0, b"spoofed"));
            joiner.dropped(stranger, Duration::ZERO);
            let records = joiner.all();
            assert_eq!(brief(&records), [(Some(0), 7, false), (None, 4, true)]);
            assert_eq!(records[1].length, usize::try_from(length).unwrap());
        }
    }

    #[test]
    fn of_two_frames_alike_one_drop_takes_the_first() {
        let mut joiner = Joiner::default();
        joiner.heard(frame(SECOND, 0, b"same"));
        joiner.heard(frame(SECOND + Duration::from_millis(1), 0, b"same"));
        joiner.dropped(drop(SECOND, 7, b"same"), Duration::ZERO);
        assert_eq!(brief(&joiner.all()), [(Some(0), 4, true), (Some(0), 4, false)]);
    }

    #[test]
    fn what_is_received_waits_for_no_drop_and_comes_in_its_turn() {
        let mut joiner = Joiner::default();
        joiner.heard(frame(SECOND, 0, b"asked"));
        joiner.heard(frame(SECOND - Duration::from_millis(1), 1, b"got"));
        assert_eq!(brief(&joiner.all()), [(Some(1), 3, false), (Some(0), 5, false)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut joiner = Joiner::default();
        for _ in 0..=WAITING_MAX {
            joiner.heard(frame(SECOND, 0, b"flood"));
            joiner.dropped(drop(SECOND, 9, b"other"), Duration::ZERO);
        }
        assert_eq!((joiner.frames.len(), joiner.drops.len()), (WAITING_MAX, WAITING_MAX));
        assert_eq!(joiner.all().len(), 2 * (WAITING_MAX + 1), "and none is lost");
    }
}
