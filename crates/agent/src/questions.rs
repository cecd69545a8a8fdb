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
const PER_SECOND: u32 = 16;

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
pub(crate) type Known = (watch::Receiver<Option<Desired>>, watch::Receiver<Option<Achieved>>);

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;
    use wire::question::{End, FromPort};

    use super::*;
    use crate::{converge::Converger, memory::Memory, sample, state::StateFile, worker};

    fn asked(number: u64, question: Question) -> Asked {
        Asked { number, question }
    }

    fn drops_of(port: u128) -> Question {
        Question::DropsOf(DropsOf { port: Uuid::from_u128(port), most: 9 })
    }

    fn why(answered: &Answered) -> &str {
        match &answered.answer {
            Answer::Unanswered(Unanswered { why }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn more_questions_than_can_wait_are_refused_at_once() {
        let (mut inbox, mut asks) = Inbox::new();
        let (reply, mut answers) = mpsc::channel(ANSWERS_MAX);
        for number in 0..6 {
            inbox.take(asked(number, drops_of(1)), &reply);
        }
        for number in [4, 5] {
            let refused = answers.recv().await.unwrap();
            assert_eq!(refused.number, number);
            assert!(why(&refused).contains("busy"));
        }
        for number in 0..4 {
            assert_eq!(asks.recv().await.unwrap().asked.number, number);
        }
        // Of what nobody reads nothing is kept.
        for number in 0..100 {
            inbox.take(asked(number, drops_of(1)), &reply);
        }
    }

    #[test]
    fn a_second_has_so_many_questions() {
        let (mut inbox, _asks) = Inbox::new();
        let now = inbox.second.0;
        let may = |inbox: &mut Inbox, at| (0..50).filter(|_| inbox.may(at)).count();
        assert_eq!(may(&mut inbox, now), 16);
        assert_eq!(may(&mut inbox, now + Duration::from_millis(999)), 0);
        assert_eq!(may(&mut inbox, now + Duration::from_millis(1_000)), 16);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_question_is_answered_about_what_the_host_holds_now() {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = StateFile::open(directory.path()).unwrap();
        let memory = Memory::default();
        let (wanted, desired) = watch::channel(None);
        let (achieved, mut results) = watch::channel(None);
        let stop = CancellationToken::new();
        let mut parts = tokio::task::JoinSet::new();
        let moves = watch::channel(crate::handover::Told::default()).1;
        let converger = Converger::new(memory.clone());
        let troubles = watch::channel(None).1;
        let news = worker::News { wanted: desired.clone(), moves, troubles };
        parts.spawn(worker::work(converger, file, news, achieved, stop.clone()));
        let (mut inbox, asks) = Inbox::new();
        let known = (desired, results.clone());
        parts.spawn(keep(memory, known, drops::Shared::default(), asks, stop.clone()));
        let (reply, mut answers) = mpsc::channel(ANSWERS_MAX);
        let from = |port: u128| {
            Question::FromPort(FromPort {
                port: Uuid::from_u128(port),
                source: None,
                remote: [10, 0, 0, 91].into(),
                protocol: 17,
                source_port: 0,
                port_or_type: 53,
            })
        };
        inbox.take(asked(1, from(sample::PORT_A)), &reply);
        assert!(why(&answers.recv().await.unwrap()).contains("does not know yet"));

        let holding = Arc::new(sample::two_networks());
        wanted.send_replace(Some(Desired { revision: 7, lineage: None, holding }));
        let is_done = |achieved: &Option<Achieved>| {
            achieved.as_ref().is_some_and(|done| done.outcome.is_clean())
        };
        results.wait_for(is_done).await.unwrap();
        inbox.take(asked(2, from(sample::PORT_A)), &reply);
        let Answered { number: 2, answer: Answer::Trace(trace) } = answers.recv().await.unwrap()
        else {
            panic!("no trace")
        };
        assert_eq!((trace.revision, &trace.inconclusive), (7, &None));
        assert!(matches!(trace.end, End::Sent(_)), "{trace:?}");
        inbox.take(asked(3, drops_of(sample::PORT_A)), &reply);
        assert!(matches!(answers.recv().await.unwrap().answer, Answer::Drops(_)));
        for question in [from(99), drops_of(99)] {
            inbox.take(asked(4, question), &reply);
            assert!(why(&answers.recv().await.unwrap()).contains("not on this host"));
        }
        stop.cancel();
        parts.join_all().await;
    }
}
