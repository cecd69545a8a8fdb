//! Operations: each message with its handler, and what all of them have in common.

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc};

use model::{
    Code, Error, Id, Kind, Message, MessageDef, Record, Result, Timestamp,
    declare::Method,
    resource::{host::Host, vm_instance::VmInstance},
};
use serde_json::{Map, Value};
use store::{Read, Tx};
use uuid::Uuid;

use crate::{
    Gate, Look, Reply, Txn,
    audit::{self, Event},
    command::{Call, Caller, Command, Surroundings},
    field_tags,
    inventory::Observed,
    memberships, tag, validate,
};

type InJob = Box<dyn Fn(&mut Txn<'_>, Map<String, Value>) -> Result<Reply> + Send + Sync>;
type Answered = Pin<Box<dyn Future<Output = Result<Value>> + Send>>;
type Looks = Box<dyn Fn(&Look<'_>, Map<String, Value>) -> Result<Value> + Send + Sync>;
type AtOnce = Box<dyn Fn(Arc<Gate>, Caller, Map<String, Value>) -> Answered + Send + Sync>;

/// A message and what it does.
pub struct Operation {
    /// Its declaration.
    pub def: &'static MessageDef,
    handler: Handler,
}

enum Handler {
    /// Changes resources, in a transaction of its own or with others.
    Job(InJob),
    /// Answers at once from a snapshot, and changes nothing.
    Look(Looks),
    /// Answers at once; it may be slow, and starts its own transactions.
    Now(AtOnce),
}

/// Runs the messages of a command in one transaction; gives the last thing that one of them shows.
///
/// # Errors
/// The first handler's that refuses, or [`model::Code::NotFound`] for a reference that leads
/// nowhere.
pub fn run(command: &Command, tx: &mut Tx<Record>, surroundings: &Surroundings) -> Result<Done> {
    let mut done = Done::default();
    still_exists(command.caller(), tx)?;
    for (at, call) in command.calls().iter().enumerate() {
        let mut txn = Txn::new(tx, (surroundings, command.caller()), call, at);
        let reply = call.operation.run(&mut txn, call)?;
        if reply.subject.is_some() {
            done.reply = reply;
        }
        let random = txn.random_uuid();
        txn.end(&mut done);
        let event =
            Event { outcome: Ok(()), subject: reply.subject, ..call.event(command.caller()) };
        audit::note(tx, &event, (surroundings.now, random))?;
    }
    Ok(done)
}

/// Whether the caller's account is still there: nobody would own what it makes.
fn still_exists(caller: &Caller, tx: &Tx<Record>) -> Result<()> {
    match caller.account() {
        Some(id) if tx.get(Kind::Account, id.uuid()).is_none() => {
            let text = "the account of this session does not exist any more";
            Err(Error::new(Code::InvalidSession, text).hint("log in with another one"))
        }
        _ => Ok(()),
    }
}

/// Answers a command of one message that only looks.
///
/// # Errors
/// The handler's, or [`model::Code::NotFound`] for a reference that leads nowhere;
/// [`model::Code::Internal`] for a command that does more than look.
pub fn look_at(command: &Command, observed: &Observed<'_>, now: Timestamp) -> Result<Value> {
    let [call] = command.calls() else {
        return Err(Error::new(Code::Internal, "one message at a time looks"));
    };
    call.operation.look(&Look::new(observed, command.caller(), now), call.params.clone())
}

/// What the messages of a command did.
#[derive(Debug, Default)]
pub struct Done {
    /// What the answer shows.
    pub reply: Reply,
    /// Hosts on which something that lives there has changed.
    pub hosts: BTreeSet<Id<Host>>,
    /// The uuids by which these hosts know it.
    pub objects: BTreeSet<Uuid>,
    /// Hosts whose evacuation it waits for.
    pub evacuated: BTreeSet<Id<Host>>,
    /// Instances whose move it waits for.
    pub moved: BTreeSet<Id<VmInstance>>,
}

impl Operation {
    fn run(&self, txn: &mut Txn<'_>, call: &Call) -> Result<Reply> {
        let Handler::Job(handler) = &self.handler else {
            let text = format!("{} is no job", self.def.name);
            return Err(Error::new(Code::Internal, text));
        };
        let right = |kind, uuid| match txn.visible(kind, uuid) {
            None => Right::None,
            Some(record) if txn.caller().may_change(&record) => Right::Change,
            Some(_) => Right::Use,
        };
        match self.check_references(&call.params, right) {
            Ok(()) => {}
            // ZStack: deleting what is gone succeeds.
            Err(error) if self.def.method == Method::Delete && error.code == Code::NotFound => {
                return Ok(Reply::nothing());
            }
            Err(error) => return Err(error),
        }
        let reply = handler(txn, call.params.clone())?;
        if let Some(tag) = txn.unused_tag(self.def.creates) {
            return Err(self.odd_tag(tag));
        }
        if let (Some(_), Some(made)) = (self.def.creates, reply.subject) {
            tag::keep(txn, made, &call.system_tags, &call.user_tags)?;
        }
        field_tags::follow(txn)?;
        memberships::follow(txn)?;
        Ok(reply)
    }

    /// What is somebody else's is not there: an error must not tell. What is shared may be used, and
    /// not be changed.
    fn check_references(
        &self,
        params: &Map<String, Value>,
        right: impl Fn(Kind, Uuid) -> Right,
    ) -> Result<()> {
        let target = self.def.target().map(|field| field.name);
        for field in self.def.fields {
            let (Some(kind), Some(value)) = (field.refs, params.get(field.name)) else { continue };
            let needed = if target == Some(field.name) { Right::Change } else { Right::Use };
            for uuid in uuids(value) {
                let error = match right(kind, uuid) {
                    right if right >= needed => continue,
                    Right::None => Error::not_found(kind.def().name, uuid.simple()),
                    Right::Use | Right::Change => shared_only(kind, uuid),
                };
                return Err(error.on_field(field.name));
            }
        }
        Ok(())
    }

    /// Answers a message that only looks.
    ///
    /// # Errors
    /// The handler's, or [`model::Code::NotFound`] for a reference that leads nowhere.
    fn look(&self, look: &Look<'_>, params: Map<String, Value>) -> Result<Value> {
        let Handler::Look(handler) = &self.handler else {
            let text = format!("{} does more than look", self.def.name);
            return Err(Error::new(Code::Internal, text));
        };
        let right = |kind, uuid| look.visible(kind, uuid).map_or(Right::None, |_| Right::Change);
        self.check_references(&params, right)?;
        handler(look, params)
    }

    /// Whether it only looks.
    pub(crate) const fn is_look(&self) -> bool {
        matches!(self.handler, Handler::Look(_))
    }

    /// Answers a message that is answered at once and does more than look.
    ///
    /// # Errors
    /// The handler's; [`model::Code::Internal`] for any other message.
    pub(crate) async fn answer(
        &self,
        gate: Arc<Gate>,
        caller: Caller,
        params: Map<String, Value>,
    ) -> Result<Value> {
        match &self.handler {
            Handler::Now(handler) => handler(gate, caller, params).await,
            Handler::Job(_) | Handler::Look(_) => {
                let text = format!("{} is not answered by itself", self.def.name);
                Err(Error::new(Code::Internal, text))
            }
        }
    }

    /// Refused as an unknown field is: a tag that is ignored would build something else than what
    /// was asked for.
    fn odd_tag(&self, tag: &str) -> Error {
        if let Some(kind) = self.def.creates.filter(|kind| !kind.def().tags.is_empty()) {
            return tag::unknown("systemTags", kind, tag);
        }
        let text = format!("nothing in {} takes the tag \"{tag}\"", self.def.name);
        let hint =
            format!("the tags that a message takes are in its description: {}", self.def.doc);
        Error::field("systemTags", text).hint(hint)
    }
}

/// What a caller may do with a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    /// Not even know of it.
    None,
    /// See it, and use it for resources of its own.
    Use,
    /// Everything.
    Change,
}

/// The refusal to change what another account has shared.
pub(crate) fn shared_only(kind: Kind, uuid: Uuid) -> Error {
    let text = format!("{} {} is another account's, and shared", kind.def().name, uuid.simple());
    let hint = "it may be used; its owner and administrators change it";
    Error::new(Code::AccessDenied, text).hint(hint)
}

/// The uuids in a reference field: one, or a list of them.
fn uuids(value: &Value) -> Vec<Uuid> {
    let one = |value: &Value| value.as_str().and_then(model::id::parse_uuid);
    match value {
        Value::Array(items) => items.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

fn read<M: Message>(params: Map<String, Value>) -> Result<M> {
    serde_json::from_value(Value::Object(params)).map_err(|cause| {
        let error = Error::new(Code::InvalidArgument, format!("{}: {cause}", M::DEF.name));
        error.hint(validate::usage(&M::DEF))
    })
}

/// A message that is a job.
pub(crate) fn job<M: Message>(handler: fn(&mut Txn<'_>, M) -> Result<Reply>) -> Operation {
    let run = move |txn: &mut Txn<'_>, params| handler(txn, read(params)?);
    Operation { def: &M::DEF, handler: Handler::Job(Box::new(run)) }
}

/// A message that is answered at once and only looks.
pub(crate) fn look<M: Message>(handler: fn(&Look<'_>, M) -> Result<Value>) -> Operation {
    let run = move |look: &Look<'_>, params| handler(look, read(params)?);
    Operation { def: &M::DEF, handler: Handler::Look(Box::new(run)) }
}

/// A message that is answered at once.
pub(crate) fn now<M, F>(handler: fn(Arc<Gate>, Caller, M) -> F) -> Operation
where
    M: Message + Send,
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let run = move |gate, caller, params| -> Answered {
        match read(params) {
            Ok(message) => Box::pin(handler(gate, caller, message)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    };
    Operation { def: &M::DEF, handler: Handler::Now(Box::new(run)) }
}

/// Whether a message only looks, by its name.
#[must_use]
pub fn is_look(message: &str) -> bool {
    all().iter().any(|operation| operation.def.name == message && operation.is_look())
}

/// Every operation.
#[must_use]
pub fn all() -> Vec<Operation> {
    crate::MODULES.iter().flat_map(|operations| operations()).collect()
}

#[cfg(test)]
mod tests {
    use model::{declare::Answer, resource::messages};

    use super::Handler;

    #[test]
    fn every_declared_message_has_a_handler_that_answers_as_it_says() {
        let mut declared: Vec<_> = messages().map(|m| (m.name, m.answer == Answer::Job)).collect();
        let handled = super::all();
        let mut handled: Vec<_> =
            handled.iter().map(|o| (o.def.name, matches!(o.handler, Handler::Job(_)))).collect();
        declared.sort_unstable();
        handled.sort_unstable();
        assert_eq!(declared, handled);
    }
}
