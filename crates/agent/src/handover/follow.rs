//! The connections of a port that moves by itself: a copy of all of them, then again and again what has
//! changed, and the last ones when the port has moved. The move waits for none of it.

use std::{collections::BTreeMap, time::Duration};

use dataplane::{HandedConnection, PortArea};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use wire::object::{Handover, Port};

use super::{
    Shared,
    frame::{CONNECTIONS_MAX, Frame, Hello, STALL, VERSION, What},
    leave::{Line, Refusal},
};

/// How often it is looked whether the port has moved.
const LOOK: Duration = Duration::from_millis(20);
/// How often the connections are looked at, and how much more time passes than that takes.
const ROUND: Duration = Duration::from_millis(200);
const ROUND_SHARE: u32 = 20;
/// How long the other host may take for its consent.
const CONSENT: Duration = Duration::from_secs(10);
/// Between two tries to reach it: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];
/// By how many seconds more a connection must live than is known there, to be told again.
const OLDER: u32 = 15;

/// A connection without what changes, and what changes.
type Key = HandedConnection;
type Known = BTreeMap<Key, (u8, u32)>;

/// Hands the connections of a port over until it has moved, or does not move any more.
pub(super) async fn port(
    shared: &Shared,
    port: &Port,
    handover: &Handover,
    over: &CancellationToken,
) {
    let mut pause = PAUSES[0];
    loop {
        let begin = Instant::now();
        let mut copy = Copy { shared, port, area: None, known: Known::new() };
        let ended = match copy.open(handover, over).await {
            Ok(None) => return,
            Ok(Some(line)) => copy.follow(line, over).await,
            Err(refusal) => Err(refusal),
        };
        let Err(Refusal { why, .. }) = ended else {
            note(shared, handover.number, None);
            return;
        };
        let text = format!(
            "the connections of NIC {} do not go along to host {}: {why}; it moves all the same, TCP is \
             taken up again, and anything else begins anew",
            port.uuid.simple(),
            handover.host.simple()
        );
        tracing::info!(text, "trying again");
        note(shared, handover.number, Some(text));
        if begin.elapsed() > PAUSES[1] {
            pause = PAUSES[0];
        }
        if over.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSES[1]);
    }
}

fn note(shared: &Shared, number: u32, text: Option<String>) {
    shared.told.send_if_modified(|told| {
        let before = match text.clone() {
            Some(text) => told.left_behind.insert(number, text),
            None => told.left_behind.remove(&number),
        };
        before != text
    });
}

struct Copy<'a> {
    shared: &'a Shared,
    port: &'a Port,
    area: Option<PortArea>,
    /// What the other host has been told.
    known: Known,
}

impl Copy<'_> {
    /// Connects; `None` if it is not to.
    async fn open(
        &self,
        handover: &Handover,
        over: &CancellationToken,
    ) -> Result<Option<Line>, Refusal> {
        let (uuid, number) = (self.port.uuid, handover.number);
        let (what, processor, slots) = (What::Port, String::new(), BTreeMap::new());
        let hello = Hello { version: VERSION, what, uuid, number, processor, slots };
        let opening = Line::open(self.shared, handover, hello, CONSENT);
        over.run_until_cancelled(opening).await.transpose()
    }

    /// Round after round, until the port has moved.
    async fn follow(&mut self, mut line: Line, over: &CancellationToken) -> Result<(), Refusal> {
        loop {
            let begin = Instant::now();
            self.round(&mut line).await?;
            let next = begin + ROUND.max(begin.elapsed() * ROUND_SHARE);
            loop {
                if over.is_cancelled() || self.has_moved().await {
                    // What has come since the last one.
                    self.round(&mut line).await?;
                    note(self.shared, self.number(), None);
                    over.cancelled().await;
                    return Ok(());
                }
                if Instant::now() >= next {
                    break;
                }
                over.run_until_cancelled(sleep(LOOK)).await;
            }
        }
    }

    fn number(&self) -> u32 {
        self.port.goes.as_ref().map_or(0, |goes| goes.number)
    }

    async fn has_moved(&self) -> bool {
        let number = self.number();
        self.shared.table(move |view| view.has_arrived(number)).await.unwrap_or(false)
    }

    /// Tells what is new.
    async fn round(&mut self, line: &mut Line) -> Result<(), Refusal> {
        let later = |why| Refusal { why, may_be_later: true };
        let (number, area) = (self.port.number, self.area);
        let read = self.shared.table(move |view| {
            // Where it was is known after it has left, too.
            let area = match area {
                Some(area) => Some(area),
                None => view.port_area(number)?,
            };
            let found = area.map(|area| view.hand_over(area)).transpose()?;
            Ok((area, found.unwrap_or_default()))
        });
        let (area, found) = read.await.map_err(later)?;
        self.area = area;
        for some in self.news(found).chunks(CONNECTIONS_MAX) {
            let frame = Frame::Connections(self.port.uuid, some.to_vec());
            let answer = line.ask(frame, STALL).await?;
            if answer.taken == 0 {
                // Its port may not be there yet.
                self.known.clear();
            }
        }
        note(self.shared, self.number(), None);
        Ok(())
    }

    /// What the other host does not know yet, which it knows then.
    fn news(&mut self, found: Vec<HandedConnection>) -> Vec<HandedConnection> {
        let mut now = Known::new();
        let mut news = Vec::new();
        for connection in found {
            let key = Key { state: 0, seconds_left: 0, ..connection };
            let (state, left) = (connection.state, connection.seconds_left);
            let known = self.known.get(&key).copied();
            let is_known = known
                .is_some_and(|(before, told)| before == state && told.saturating_add(OLDER) > left);
            let told = known.filter(|_| is_known).map_or(left, |(_, told)| told.min(left));
            now.insert(key, (state, told));
            if !is_known {
                news.push(connection);
            }
        }
        self.known = now;
        news
    }
}
