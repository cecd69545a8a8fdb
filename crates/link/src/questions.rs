//! Questions to hosts: each goes down its host's stream, its answer comes up there.
//!
//! Nothing is remembered of a question but who waits for its answer. A stream that ends takes its
//! questions with it: those who wait are told at once. What a host answers without being asked, or too
//! late, is counted and dropped.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{Id, resource::host::Host, status::NoAnswer};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use wire::{
    PROTOCOL_QUESTIONS,
    question::{Answer, Answered, Asked, Question},
};

use crate::feed::Ticket;

/// How long an answer may take: an agent looks into its maps, which is a matter of milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Questions that one host has at a time: an agent works on one, and as many as these may wait there.
const OF_HOST_MAX: usize = 4;

/// Questions to all hosts at a time.
const ALL_MAX: usize = 256;

/// What hosts are asked by. A clone asks the same hosts.
#[derive(Clone, Debug)]
pub struct Questions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hosts: Mutex<BTreeMap<Id<Host>, Open>>,
    /// A permit for each question on its way.
    places: Semaphore,
    unasked: AtomicU64,
}

/// A host's open stream.
#[derive(Debug)]
struct Open {
    /// The session's number.
    session: u64,
    /// Its agent is of this release, and cannot answer, if so.
    too_old: Option<String>,
    outbound: mpsc::Sender<Asked>,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    next: u64,
}

impl Default for Questions {
    fn default() -> Self {
        let (hosts, places) = (Mutex::default(), Semaphore::new(ALL_MAX));
        Self(Arc::new(Shared { hosts, places, unasked: AtomicU64::new(0) }))
    }
}

impl Questions {
    /// Asks a host, and waits for its answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(&self, host: Id<Host>, question: Question) -> Result<Answer, NoAnswer> {
        let _place = self.0.places.try_acquire().map_err(|_| NoAnswer::Busy)?;
        let (waiting, answer) = self.send(host, question)?;
        let answer = timeout(ANSWER_WAIT, answer).await;
        // Also if whoever waits gives up before that.
        drop(waiting);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(NoAnswer::Ended),
            Err(_) => Err(NoAnswer::Silent),
        }
    }

    /// How many answers came that nobody waited for.
    #[must_use]
    pub fn unasked(&self) -> u64 {
        self.0.unasked.load(Ordering::Relaxed)
    }

    fn send(
        &self,
        host: Id<Host>,
        question: Question,
    ) -> Result<(Waiting, oneshot::Receiver<Answer>), NoAnswer> {
        let mut hosts = self.hosts();
        let open = hosts.get_mut(&host).ok_or(NoAnswer::NotConnected)?;
        if let Some(release) = &open.too_old {
            return Err(NoAnswer::TooOld(release.clone()));
        }
        if open.waiting.len() >= OF_HOST_MAX {
            return Err(NoAnswer::Busy);
        }
        let (number, session) = (open.next, open.session);
        open.outbound.try_send(Asked { number, question }).map_err(|refused| match refused {
            // Nobody waits any more for those that fill it: the host reads nothing.
            mpsc::error::TrySendError::Full(_) => NoAnswer::Silent,
            mpsc::error::TrySendError::Closed(_) => NoAnswer::Ended,
        })?;
        open.next += 1;
        let (sender, receiver) = oneshot::channel();
        open.waiting.insert(number, sender);
        let of = Waiting { questions: self.clone(), host, session, number };
        Ok((of, receiver))
    }

    /// A stream has opened; gives what it has to send. It takes the place of an earlier one.
    pub(crate) fn open(&self, ticket: &Ticket) -> mpsc::Receiver<Asked> {
        let (outbound, asked) = mpsc::channel(OF_HOST_MAX);
        let too_old = (ticket.protocol < PROTOCOL_QUESTIONS).then(|| ticket.release.clone());
        let (session, waiting) = (ticket.number, BTreeMap::new());
        let mut hosts = self.hosts();
        if hosts.get(&ticket.host).is_none_or(|open| open.session < session) {
            hosts.insert(ticket.host, Open { session, too_old, outbound, waiting, next: 1 });
        }
        asked
    }

    /// A stream has ended: nobody waits for its answers any more.
    pub(crate) fn close(&self, ticket: &Ticket) {
        let mut hosts = self.hosts();
        if hosts.get(&ticket.host).is_some_and(|open| open.session == ticket.number) {
            hosts.remove(&ticket.host);
        }
    }

    /// An answer has come.
    pub(crate) fn take(&self, ticket: &Ticket, answered: Answered) {
        let mut hosts = self.hosts();
        let open = hosts.get_mut(&ticket.host).filter(|open| open.session == ticket.number);
        let waiting = open.and_then(|open| open.waiting.remove(&answered.number));
        drop(hosts);
        let is_taken = waiting.is_some_and(|waiting| waiting.send(answered.answer).is_ok());
        if !is_taken {
            self.0.unasked.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(host = %ticket.host, number = answered.number, "nobody waits for this answer");
        }
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<Id<Host>, Open>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a question among those of its host, until it is dropped.
struct Waiting {
    questions: Questions,
    host: Id<Host>,
    session: u64,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut hosts = self.questions.hosts();
        let open = hosts.get_mut(&self.host).filter(|open| open.session == self.session);
        if let Some(open) = open {
            open.waiting.remove(&self.number);
        }
    }
}
