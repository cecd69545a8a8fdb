//! What the server asks the host while somebody waits for the answer. It is answered beside all else,
//! one question after the other, and changes nothing: neither a pass nor a packet waits for it.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use dataplane::Lookup;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    object::{Object, ObjectKey, Table},
    question::{Answer, Answered, Asked, DropsOf, Question, Unanswered},
};

use crate::{
    drops, explain,
    kernel::HostKernel,
    state::Desired,
    trace::{self, Sight},
    worker::Achieved,
};

/// Questions that wait, beside the one that is worked on.
const WAITING_MAX: usize = 4;

/// Questions in a second: a trace takes some milliseconds where a host has a hundred thousand peers.
const PER_SECOND: u32 = 32;

/// Answers on their way to the stream.
pub(crate) const ANSWERS_MAX: usize = 16;

/// A question, and where its answer goes: to the stream that it came by.
pub(crate) struct Ask {
    asked: Asked,
    reply: mpsc::Sender<Answered>,
}

/// Where questions come in.
pub(crate) struct Inbox {
    asks: mpsc::Sender<Ask>,
    /// Since when is counted, and how many there were.
    second: (Instant, u32),
}

impl Inbox {
    /// It, and where they are answered.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, answered) = mpsc::channel(WAITING_MAX);
        (Self { asks, second: (Instant::now(), 0) }, answered)
    }

    /// Takes a question, or refuses it at once. Never waits: an answer for which there is no room is
    /// none, and whoever asked has waited long enough by then.
    pub(crate) fn take(&mut self, asked: Asked, reply: &mpsc::Sender<Answered>) {
        let number = asked.number;
        let refused = match self.may(Instant::now()) {
            true => {
                let ask = Ask { asked, reply: reply.clone() };
                self.asks.try_send(ask).is_err()
            }
            false => true,
        };
        if refused {
            let why = "the host is busy with other questions: ask again in a moment".to_owned();
            let answer = Answer::Unanswered(Unanswered { why });
            let _ = reply.try_send(Answered { number, answer });
        }
    }

    fn may(&mut self, now: Instant) -> bool {
        let (since, count) = &mut self.second;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= PER_SECOND
    }
}

/// What is known of the host.
type Known = (watch::Receiver<Option<Desired>>, watch::Receiver<Option<Achieved>>);

/// Answers until told to stop.
pub(crate) async fn keep<K: HostKernel>(
    mut kernel: K,
    known: Known,
    history: drops::Shared,
    mut asks: mpsc::Receiver<Ask>,
    stop: CancellationToken,
) {
    let answering = async {
        while let Some(Ask { asked, reply }) = asks.recv().await {
            // Who asked by a stream that is gone hears nothing any more.
            if reply.is_closed() {
                continue;
            }
            let answer = answer(&mut kernel, &known, &history, asked.question).await;
            let answer = answer.unwrap_or_else(|why| Answer::Unanswered(Unanswered { why }));
            let _ = reply.try_send(Answered { number: asked.number, answer });
        }
    };
    stop.run_until_cancelled(answering).await;
}

async fn answer<K: HostKernel>(
    kernel: &mut K,
    (desired, achieved): &Known,
    history: &drops::Shared,
    question: Question,
) -> Result<Answer, String> {
    let live = kernel.lookup().await.map_err(|refusal| refusal.to_string())?;
    let desired = desired.borrow().clone();
    let desired = desired.ok_or("the host does not know yet what it is to hold")?;
    let achieved = achieved.borrow().clone();
    let history = history.clone();
    // It makes system calls and reads all peers.
    let work = tokio::task::spawn_blocking(move || {
        let live = &*live;
        let sight = Sight { desired: &desired, achieved: achieved.as_ref(), live };
        match question {
            Question::FromPort(asked) => trace::from_port(sight, &asked).map(Answer::Trace),
            Question::Arrival(asked) => trace::arrival(sight, &asked).map(Answer::Trace),
            Question::DropsOf(asked) => drops_of(&desired, live, &history, &asked),
        }
    });
    work.await.map_err(|error| error.to_string())?
}

fn drops_of(
    desired: &Desired,
    live: &dyn Lookup,
    history: &drops::Shared,
    asked: &DropsOf,
) -> Result<Answer, String> {
    let key = ObjectKey { table: Table::Port, uuid: asked.port };
    let Some(Object::Port(port)) = desired.holding.get(&key) else {
        return Err(format!("NIC {} is not on this host", asked.port.simple()));
    };
    let unread = |error: dataplane::Error| error.to_string();
    let seat = explain::seat(&desired.holding, live, port).map_err(unread)?;
    let counted = match seat {
        Some((_, entry)) => live.dropped_at(entry.place()).map_err(unread)?,
        None => 0,
    };
    let history = history.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Answer::Drops(history.tell(&desired.holding, port, asked.most, counted)))
}
