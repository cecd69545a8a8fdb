//! The gate: the one way in for every door. It knows who calls, checks what they want, runs it or
//! answers it.

use std::{net::IpAddr, sync::Arc, time::Instant};

use model::{
    Code, Error, Id, Kind, MessageDef, Record, Resource, Result, Timestamp,
    declare::{Access, Answer, Method},
    resource::account::{Account, AccountType},
};
use serde_json::{Map, Value, json};
use store::{Read, Store};

use crate::{
    By, Caller, Command, Jobs, Operations, Request,
    access_key::{self, Signed},
    audit::Strangers,
    explain::{Asks, Explaining},
    inventory::{self, Observed},
    jobs::NOTES,
    logins::Logins,
    operation,
    query::{self, Found, Query, Readers},
    sessions::Sessions,
    throttle::Throttle,
};

/// What agents need to enrol, besides their token.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Where agents reach the server: `address:port`.
    pub server: String,
    /// The certificate authority by which they know it, PEM.
    pub ca: String,
}

/// Everything that the doors need.
pub struct Gate {
    /// Runs commands.
    pub jobs: Jobs,
    /// Who is logged in.
    pub sessions: Sessions,
    /// What agents need to enrol.
    pub enrolment: Enrolment,
    /// Password checks that run and wait.
    pub(crate) logins: Logins,
    /// Who has guessed wrong passwords.
    pub(crate) throttle: Throttle,
    /// How many rows of the audit strangers have made.
    pub(crate) strangers: Strangers,
    pub(crate) readers: Readers,
    pub(crate) explaining: Explaining,
    operations: Operations,
}

impl Gate {
    /// A gate before `jobs`.
    #[must_use]
    pub fn new(jobs: Jobs, enrolment: Enrolment) -> Self {
        let (sessions, logins) = (Sessions::default(), Logins::default());
        let (throttle, operations) = (Throttle::default(), Operations::default());
        let strangers = Strangers::default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let readers = Readers::new(cores);
        let explaining = Explaining::default();
        Self {
            jobs,
            sessions,
            enrolment,
            logins,
            throttle,
            strangers,
            readers,
            explaining,
            operations,
        }
    }

    /// The same, with hosts that can be asked. Without, none is connected.
    #[must_use]
    pub fn asking(self, asks: Asks) -> Self {
        Self { explaining: Explaining::by(asks), ..self }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.jobs.now()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store<Record> {
        self.jobs.store()
    }

    /// What the API shows of a resource, as the answer to a message.
    pub(crate) fn answer_with(&self, record: &Record) -> Value {
        let (snapshot, board) = (self.store().snapshot(), self.jobs.board());
        json!({"inventory": inventory::show(record, &Observed::new(&snapshot, &board))})
    }

    /// Who has a session, calling from `source`.
    ///
    /// # Errors
    /// [`model::Code::InvalidSession`] when it is unknown or over, or its account is gone.
    pub fn caller(&self, session: &str, source: IpAddr) -> Result<Caller> {
        let session = self.sessions.check(session, Instant::now())?;
        if let Some(user) = session.user
            && self.store().snapshot().get(Kind::User, user.uuid()).is_none()
        {
            let text = "the user of this session does not exist any more";
            return Err(Error::new(Code::InvalidSession, text).hint("log in as another one"));
        }
        let by = By { session: session.uuid, user: session.user };
        self.caller_of(session.account, Some(by), source)
    }

    /// Who has signed `text`, a request, with this access key.
    ///
    /// # Errors
    /// [`model::Code::AuthenticationFailed`], the same for an unknown key and a wrong signature;
    /// [`model::Code::InvalidSession`] when the key's account is gone.
    pub fn caller_by_key(&self, signed: &Signed<'_>, source: IpAddr) -> Result<Caller> {
        let account = access_key::check(&self.store().snapshot(), signed)?;
        self.caller_of(account, None, source)
    }

    pub(crate) fn caller_of(
        &self,
        account: Id<Account>,
        session: Option<By>,
        source: IpAddr,
    ) -> Result<Caller> {
        let account = self.store().snapshot().get(Account::KIND, account.uuid());
        let account = account.as_deref().and_then(Account::of).ok_or_else(|| {
            let text = "the account of this session does not exist any more";
            Error::new(model::Code::InvalidSession, text).hint("log in with another one")
        })?;
        let is_admin = account.account_type == AccountType::Admin;
        Ok(Caller::Account { id: account.uuid, is_admin, session, source })
    }

    /// Notes in the audit that a message was refused before it could run, or when it was answered at
    /// once. What only reads is not noted, and nor is what strangers send: of them, logins are.
    pub async fn note_refusal(&self, caller: &Caller, def: &'static MessageDef, error: &Error) {
        let is_read = def.method == Method::Get || def.access == Access::Open;
        let is_ours = matches!(error.code, Code::StoreUnavailable | Code::Overloaded);
        if is_read || is_ours || (error.code == Code::Duplicate && error.field.is_none()) {
            return;
        }
        let noted = Some((def, Map::new()));
        // Without a webhook it does not fail.
        let _ = self.jobs.note_refusal(*caller, noted, error, None).await;
    }

    /// Checks what a caller wants.
    ///
    /// # Errors
    /// As [`Operations::command`].
    pub fn command(&self, caller: Caller, requests: Vec<Request>) -> Result<Command> {
        self.operations.command(caller, requests)
    }

    /// Answers a query, on a thread of its own when it is its turn. `write` makes the door's answer
    /// there too: a page may be some megabytes.
    ///
    /// # Errors
    /// The query's; [`model::Code::Overloaded`] when too many wait already.
    pub async fn query<T>(
        self: &Arc<Self>,
        query: Query,
        write: impl FnOnce(Found) -> T + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
    {
        let gate = Arc::clone(self);
        let work = move || {
            let (snapshot, board) = (gate.store().snapshot(), gate.jobs.board());
            query::run(&query, &Observed::new(&snapshot, &board).at(gate.now())).map(write)
        };
        self.readers.run(work).await
    }

    /// Answers a command that needs no job, and tells beside it what was passed over.
    ///
    /// # Errors
    /// The message's own; [`model::Code::Internal`] for one that is a job;
    /// [`model::Code::Overloaded`] when too many only look already.
    pub async fn answer(self: &Arc<Self>, command: Command) -> Result<Value> {
        let [call] = command.calls() else {
            return Err(Error::new(model::Code::Internal, "no message is answered at once"));
        };
        debug_assert_eq!(call.operation.def.answer, Answer::Now);
        let notes = command.notes().to_vec();
        let mut answer = self.answered(command).await?;
        if let (Value::Object(answer), false) = (&mut answer, notes.is_empty()) {
            answer.insert(NOTES.to_owned(), notes.into());
        }
        Ok(answer)
    }

    async fn answered(self: &Arc<Self>, command: Command) -> Result<Value> {
        let [call] = command.calls() else { return Ok(Value::Null) };
        if call.operation.is_look() {
            let gate = Arc::clone(self);
            let work = move || {
                let (snapshot, board) = (gate.store().snapshot(), gate.jobs.board());
                let observed = Observed::new(&snapshot, &board).at(gate.now());
                operation::look_at(&command, &observed, gate.now())
            };
            return self.readers.run(work).await;
        }
        let params = call.params.clone();
        call.operation.answer(Arc::clone(self), *command.caller(), params).await
    }
}
