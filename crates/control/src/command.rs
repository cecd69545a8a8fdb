//! Commands: what a caller wants done, checked. Each door, such as REST, hands in [`Request`]s and
//! gets a [`Command`]; there is no other way to make one.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use model::{
    Code, Error, Id, Kind, MessageDef, Record, Result, Timestamp,
    declare::{Access, Answer},
    resource::{account::Account, user::User},
    status::Board,
};
use serde_json::{Map, Value};
use store::Read;
use uuid::Uuid;

use crate::{audit::Event, operation::Operation, query::Scope, sight, validate, validate::Unknown};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody known.
    Stranger {
        /// Where the call comes from.
        source: IpAddr,
    },
    /// An account with an open session.
    Account {
        /// Which one.
        id: Id<Account>,
        /// It may do everything.
        is_admin: bool,
        /// The session by which it calls, if there is one.
        session: Option<By>,
        /// Where the call comes from.
        source: IpAddr,
    },
}

/// By what an account calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// The session.
    pub session: Uuid,
    /// The user who has opened it, unless the account itself has.
    pub user: Option<Id<User>>,
}

impl Caller {
    /// The account that calls.
    #[must_use]
    pub const fn account(&self) -> Option<Id<Account>> {
        match self {
            Caller::Stranger { .. } => None,
            Caller::Account { id, .. } => Some(*id),
        }
    }

    /// Where the call comes from; of one inside of the server, this machine.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Caller::Stranger { source } | Caller::Account { source, .. } => *source,
        }
    }

    /// The session by which it calls.
    #[must_use]
    pub const fn session(&self) -> Option<Uuid> {
        match self {
            Caller::Stranger { .. } => None,
            Caller::Account { session: Some(by), .. } => Some(by.session),
            Caller::Account { session: None, .. } => None,
        }
    }

    /// The user of the account who calls, unless the account itself does.
    #[must_use]
    pub const fn user(&self) -> Option<Id<User>> {
        match self {
            Caller::Account { session: Some(by), .. } => by.user,
            Caller::Account { session: None, .. } | Caller::Stranger { .. } => None,
        }
    }

    /// Whether the caller may do everything.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        matches!(self, Caller::Account { is_admin: true, .. })
    }

    /// Whose resources the caller sees.
    #[must_use]
    pub const fn scope(&self) -> Option<Scope> {
        match self {
            Caller::Stranger { .. } => None,
            Caller::Account { is_admin: true, .. } => Some(Scope::Everything),
            Caller::Account { id, .. } => Some(Scope::SeenBy(*id)),
        }
    }

    /// Whether the caller may see a record: its own, and what is shared with it.
    pub(crate) fn sees(&self, read: &impl Read<Record>, record: &Record) -> bool {
        match self {
            Caller::Stranger { .. } => false,
            Caller::Account { id, is_admin, .. } => *is_admin || sight::sees(read, *id, record),
        }
    }

    /// Whether the caller may change a record.
    pub(crate) fn may_change(&self, record: &Record) -> bool {
        match self {
            Caller::Stranger { .. } => false,
            Caller::Account { id, is_admin, .. } => *is_admin || sight::owns(*id, record),
        }
    }

    /// Whether the caller may see and change what `owner` owns. What the platform owns is the
    /// admin's.
    #[must_use]
    pub fn owns(&self, owner: Option<Id<Account>>) -> bool {
        match self {
            Caller::Stranger { .. } => false,
            Caller::Account { id, is_admin, .. } => *is_admin || owner == Some(*id),
        }
    }
}

/// A message as a door understood it: nothing in it has been checked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The message's name.
    pub message: String,
    /// Its fields, in the API's names, path variables included.
    pub params: Map<String, Value>,
    /// ZStack's system tags, such as `staticIp::<l3>::<ip>`.
    pub system_tags: Vec<String>,
    /// Words for people, put on what is created.
    pub user_tags: Vec<String>,
    /// The id that the caller wants for what is created.
    pub resource_uuid: Option<Uuid>,
    /// What is done about what the message does not have.
    pub unknown: Unknown,
    /// What the door passed over, a sentence each.
    pub notes: Vec<String>,
}

/// Most sentences about what was passed over that one answer has.
pub const NOTES_MAX: usize = 20;

/// Checked messages of one caller, done in one transaction: all or none.
#[derive(Clone)]
pub struct Command {
    caller: Caller,
    calls: Vec<Call>,
    notes: Vec<String>,
}

/// A checked message.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) operation: Arc<Operation>,
    pub(crate) params: Map<String, Value>,
    pub(crate) system_tags: Vec<String>,
    pub(crate) user_tags: Vec<String>,
    pub(crate) resource_uuid: Option<Uuid>,
}

impl Call {
    /// What the audit tells of it, before anything has come of it.
    pub(crate) fn event<'a>(&'a self, caller: &'a Caller) -> Event<'a> {
        let (def, fields) = (self.operation.def, &self.params);
        Event { def, caller, fields, subject: None, outcome: Ok(()) }
    }
}

/// Everything that a handler may know besides the store. The same transaction on the same state
/// with the same surroundings gives the same result.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Now.
    pub now: Timestamp,
    /// The source of all randomness.
    pub seed: Uuid,
    /// What hosts have reported.
    pub board: Board,
}

/// What a handler did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The resource that the answer shows; none for ZStack's `{}`.
    pub subject: Option<(Kind, Uuid)>,
    /// Another one of its kind that the message made: the answer shows both in a list, too.
    pub also: Option<Uuid>,
}

impl Reply {
    /// Nothing to show: ZStack's `{}`.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { subject: None, also: None }
    }

    /// Shows a resource.
    #[must_use]
    pub fn shows<R: model::Resource>(id: Id<R>) -> Self {
        Self { subject: Some((R::KIND, id.uuid())), also: None }
    }

    /// Shows another resource of the same kind, too.
    #[must_use]
    pub fn and<R: model::Resource>(self, id: Id<R>) -> Self {
        Self { also: Some(id.uuid()), ..self }
    }
}

/// Every operation, by its message's name.
pub struct Operations(BTreeMap<&'static str, Arc<Operation>>);

impl Default for Operations {
    fn default() -> Self {
        let all = crate::operation::all().into_iter();
        Self(all.map(|operation| (operation.def.name, Arc::new(operation))).collect())
    }
}

impl Operations {
    /// Checks what a caller wants: that each message exists, that the caller may send it, and that
    /// its fields keep its rules.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with the field and its rule, [`Code::AccessDenied`],
    /// [`Code::InvalidSession`] for strangers.
    pub fn command(&self, caller: Caller, requests: Vec<Request>) -> Result<Command> {
        let mut notes = Vec::new();
        let calls = requests.into_iter().map(|request| self.call(&caller, request, &mut notes));
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let is_now = |call: &Call| call.operation.def.answer == Answer::Now;
        if calls.len() != 1 && calls.iter().any(is_now) {
            let text = "a message that is answered at once cannot be one of several";
            return Err(Error::new(Code::InvalidArgument, text).hint("send it by itself"));
        }
        if notes.len() > NOTES_MAX {
            let more = notes.len() - NOTES_MAX + 1;
            notes.truncate(NOTES_MAX - 1);
            notes.push(format!("and {more} more"));
        }
        Ok(Command { caller, calls, notes })
    }

    fn call(&self, caller: &Caller, mut request: Request, notes: &mut Vec<String>) -> Result<Call> {
        let Some(operation) = self.0.get(request.message.as_str()) else {
            let error = Error::field("message", format!("{} is no message", request.message));
            return Err(error.hint("`netloom messages` lists what there is"));
        };
        let def = operation.def;
        may_send(caller, def)?;
        if request.unknown == Unknown::Name {
            notes.append(&mut request.notes);
            notes.append(&mut validate::take_unknown(def, &mut request.params));
            if def.creates.is_none() && !request.user_tags.is_empty() {
                request.user_tags.clear();
                notes.push(format!("field userTags: {} makes nothing; it was ignored", def.name));
            }
        }
        let params = validate::check(def, request.params)?;
        if request.resource_uuid.is_some() && def.creates.is_none() {
            let error = Error::field("resourceUuid", format!("{} makes nothing", def.name));
            return Err(error.hint("leave it out"));
        }
        if !request.user_tags.is_empty() && def.creates.is_none() {
            let error = Error::field("userTags", format!("{} makes nothing", def.name));
            return Err(error.hint("leave them out, or send CreateUserTag"));
        }
        Ok(Call {
            operation: Arc::clone(operation),
            params,
            system_tags: request.system_tags,
            user_tags: request.user_tags,
            resource_uuid: request.resource_uuid,
        })
    }
}

/// Whether a caller may send a message at all; what it may be about is checked when it runs.
///
/// # Errors
/// [`Code::InvalidSession`] for strangers, [`Code::AccessDenied`] for accounts.
pub fn may_send(caller: &Caller, def: &MessageDef) -> Result<()> {
    match (def.access, caller) {
        (Access::Open, _) | (Access::Account, Caller::Account { .. }) => Ok(()),
        (Access::Admin, Caller::Account { is_admin: true, .. }) => Ok(()),
        (Access::Account | Access::Admin, Caller::Stranger { .. }) => {
            let text = format!("{} needs a session", def.name);
            Err(Error::new(Code::InvalidSession, text).hint("log in first"))
        }
        (Access::Admin, Caller::Account { is_admin: false, .. }) => {
            let text = format!("{} is for administrators", def.name);
            Err(Error::new(Code::AccessDenied, text).hint("ask one of them"))
        }
    }
}

impl Command {
    /// Who wants it done.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// What was passed over, a sentence each: the answer tells it.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The message's name; of several the first one's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.calls.first().map_or("", |call| call.operation.def.name)
    }
}
