//! Explanations of a NIC's traffic: what would become of a packet ([`trace`]), what was dropped
//! ([`drops`]), and which rules count ([`rules`]).
//!
//! The first two ask hosts, which look into the maps of their data planes; what is known of hosts
//! otherwise only tells whether their answers can be relied on. What an account may not know is left
//! out in one place, [`names`].

mod drops;
mod names;
mod probe;
mod rules;
mod shown;
mod trace;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{
    Code, Error, Id, Result,
    resource::{account::Account, host::Host},
    status::NoAnswer,
};
use wire::question::{Answer, Question};

use crate::{
    Caller, Gate,
    operation::{Operation, look, now},
};
use names::Names;

/// An answer that is waited for.
pub type Asking = Pin<Box<dyn Future<Output = Result<Answer, NoAnswer>> + Send>>;

/// What asks a host.
pub type Asks = Arc<dyn Fn(Id<Host>, Question) -> Asking + Send + Sync>;

/// Explanations of one account that are on their way at a time: each asks a few hosts, one after the
/// other.
pub const OF_ACCOUNT_MAX: usize = 4;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![now(trace::trace), now(drops::drops), look(rules::rules)]
}

/// Who asks hosts, and how many explanations each account waits for.
#[derive(Default)]
pub(crate) struct Explaining {
    asks: Option<Asks>,
    waiting: Mutex<BTreeMap<Id<Account>, usize>>,
}

impl Explaining {
    /// By these.
    pub(crate) fn by(asks: Asks) -> Self {
        Self { asks: Some(asks), waiting: Mutex::default() }
    }

    /// A place among those of the caller's account.
    fn turn(&self, caller: &Caller) -> Result<Turn<'_>> {
        let account = caller.account().unwrap_or(Id::new(uuid::Uuid::nil()));
        let mut waiting = self.waiting();
        let count = waiting.entry(account).or_default();
        if *count >= OF_ACCOUNT_MAX {
            let text = format!("the account waits for {OF_ACCOUNT_MAX} explanations already");
            return Err(Error::new(Code::Overloaded, text).hint("wait for one of them"));
        }
        *count += 1;
        drop(waiting);
        Ok(Turn { of: self, account })
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Id<Account>, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the explanations of an account, until it is dropped.
struct Turn<'a> {
    of: &'a Explaining,
    account: Id<Account>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting();
        let left = waiting.get(&self.account).copied().unwrap_or_default().saturating_sub(1);
        match left {
            0 => drop(waiting.remove(&self.account)),
            left => drop(waiting.insert(self.account, left)),
        }
    }
}

async fn ask(gate: &Gate, host: Id<Host>, question: Question) -> Result<Answer, NoAnswer> {
    match &gate.explaining.asks {
        Some(asks) => asks(host, question).await,
        None => Err(NoAnswer::NotConnected),
    }
}

/// The error of a caller whose NIC's host cannot be asked.
fn unanswered(names: &Names<'_>, host: Id<Host>, why: &NoAnswer) -> Error {
    let (what, hint) = why.words();
    let code = match why {
        NoAnswer::Busy => Code::Overloaded,
        NoAnswer::Silent => Code::Timeout,
        NoAnswer::NotConnected | NoAnswer::TooOld(_) | NoAnswer::Ended => Code::OperationFailed,
    };
    let is_for_operators = matches!(why, NoAnswer::NotConnected | NoAnswer::TooOld(_));
    let hint = match is_for_operators && !names.is_admin() {
        true => "ask an administrator; traffic goes on meanwhile",
        false => hint,
    };
    Error::new(code, format!("{} {what}", names.host_of_nic(host))).hint(hint)
}

/// The error of a caller whose NIC's host has no answer to this.
fn refused(names: &Names<'_>, host: Id<Host>, why: &str) -> Error {
    let text = format!("{} cannot answer: {}", names.host_of_nic(host), names.text(why));
    Error::new(Code::OperationFailed, text)
        .hint("try again; QueryVmNic tells in notInEffect what a NIC lacks")
}

/// The error about an answer to another question.
fn odd() -> Error {
    Error::new(Code::Internal, "the host has answered another question than it was asked")
}
