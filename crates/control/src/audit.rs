//! The audit: a row for each message that changed something, written in the same transaction as what
//! it did, for each that was refused, and for each login. Secrets are never in it. What strangers
//! can have written is bounded ([`Strangers`]).

mod strangers;

use std::net::IpAddr;

use model::{
    Error, Id, Kind, MessageDef, Meta, Record, Result, Timestamp,
    resource::{account::Account, audit::Audit, user::User},
    setting::{AUDIT_EXPIRY, AUDIT_MAX},
};
use serde_json::{Map, Value, json};
use store::{Read, Store, Tx};
use uuid::Uuid;

use crate::{Caller, config};

pub(crate) use strangers::Strangers;

/// Longest text of fields in a row, in bytes.
const FIELDS_MAX: usize = 1024;
/// Rows deleted in one transaction, so that it stays small.
const STEP: usize = 1000;

/// What a message was about and what came of it.
pub(crate) struct Event<'a> {
    pub(crate) def: &'a MessageDef,
    pub(crate) caller: &'a Caller,
    pub(crate) fields: &'a Map<String, Value>,
    pub(crate) subject: Option<(Kind, Uuid)>,
    pub(crate) outcome: Result<(), &'a Error>,
}

/// Writes a row, at `now`, with an id made of `random`.
pub(crate) fn note(
    tx: &mut Tx<Record>,
    event: &Event<'_>,
    (now, random): (Timestamp, Uuid),
) -> Result<()> {
    let Some(account) = event.caller.account() else { return Ok(()) };
    let subject = event.subject.or_else(|| target(event));
    let outcome = match event.outcome {
        Ok(()) => Audit::SUCCESS,
        Err(error) => error.code.as_str(),
    };
    let row = Audit {
        uuid: Audit::id_at(now, random),
        message: event.def.name.to_owned(),
        account_uuid: account.to_string(),
        user_uuid: event.caller.user().map(|user| user.to_string()),
        source: event.caller.source().to_string(),
        resource_type: subject.map(|(kind, _)| kind.def().vo()),
        resource_uuid: subject.map(|(_, uuid)| uuid.simple().to_string()),
        fields: shown(event.def, event.fields),
        outcome: outcome.to_owned(),
    };
    put(tx, row, now)
}

fn put(tx: &mut Tx<Record>, row: Audit, now: Timestamp) -> Result<()> {
    if config::number(&*tx, &AUDIT_MAX) == 0 {
        return Ok(());
    }
    let meta = Meta { owner: None, created: now, changed: now };
    tx.put(Record::new(row, meta)).map_err(crate::claim::taken)
}

/// Somebody who wanted to log in, and what came of it.
pub(crate) struct Login<'a> {
    pub(crate) def: &'a MessageDef,
    /// The account that they named, if there is one.
    pub(crate) account: Option<Id<Account>>,
    /// The user who has logged in, unless it was the account itself.
    pub(crate) user: Option<Id<User>>,
    pub(crate) source: IpAddr,
    /// The name that they gave.
    pub(crate) name: &'a str,
    /// How many logins that failed have no row, since the last one that has.
    pub(crate) unnoted: u64,
    pub(crate) outcome: Option<&'a Error>,
}

/// Writes a row for a login, at `now`, with an id made of `random`.
pub(crate) fn note_login(
    tx: &mut Tx<Record>,
    login: &Login<'_>,
    (now, random): (Timestamp, Uuid),
) -> Result<()> {
    let mut fields = json!({"name": login.name});
    if login.unnoted > 0 {
        fields["unnoted"] = login.unnoted.into();
    }
    let row = Audit {
        uuid: Audit::id_at(now, random),
        message: login.def.name.to_owned(),
        account_uuid: login.account.map(|id| id.to_string()).unwrap_or_default(),
        user_uuid: login.user.map(|user| user.to_string()),
        source: login.source.to_string(),
        resource_type: login.account.map(|_| Kind::Account.def().vo()),
        resource_uuid: login.account.map(|id| id.to_string()),
        fields: cut(fields.to_string()),
        outcome: login.outcome.map_or(Audit::SUCCESS, |error| error.code.as_str()).to_owned(),
    };
    put(tx, row, now)
}

/// What the message changes, by its declaration.
fn target(event: &Event<'_>) -> Option<(Kind, Uuid)> {
    let field = event.def.target()?;
    let uuid = event.fields.get(field.name)?.as_str()?;
    Some((field.refs?, model::id::parse_uuid(uuid)?))
}

/// The fields as text, without secrets.
fn shown(def: &MessageDef, fields: &Map<String, Value>) -> String {
    let is_secret = |name: &str| def.fields.iter().any(|f| f.name == name && f.secret);
    let shown = fields.iter().map(|(name, value)| {
        let value = if is_secret(name) { "(secret)".into() } else { value.clone() };
        (name.clone(), value)
    });
    cut(Value::Object(shown.collect()).to_string())
}

fn cut(mut text: String) -> String {
    if text.len() > FIELDS_MAX {
        text.truncate(text.floor_char_boundary(FIELDS_MAX));
        text.push('…');
    }
    text
}

/// Deletes the rows that are older than the setting says, and the oldest beyond the most that there
/// may be; says how many. Run it now and then.
///
/// # Errors
/// The store's.
pub async fn sweep(store: &Store<Record>, now: Timestamp) -> Result<usize> {
    let gone = over(store, now);
    for step in gone.chunks(STEP) {
        let step = step.to_vec();
        let delete = move |tx: &mut Tx<Record>| {
            step.iter().for_each(|uuid| tx.delete(Kind::Audit, *uuid));
            Ok(())
        };
        store.transact_async(delete).await?;
    }
    Ok(gone.len())
}

/// Those to delete. They are in the order of time: those that stay are not looked at.
fn over(store: &Store<Record>, now: Timestamp) -> Vec<Uuid> {
    let snapshot = store.snapshot();
    let oldest = now.plus_seconds(-config::number(&snapshot, &AUDIT_EXPIRY));
    let most = u64::try_from(config::number(&snapshot, &AUDIT_MAX)).unwrap_or(0);
    let surplus = snapshot.total(Kind::Audit).saturating_sub(most);
    let rows = (0..).zip(snapshot.list(Kind::Audit));
    let gone = rows.take_while(|(at, row)| *at < surplus || row.meta.created < oldest);
    gone.map(|(_, row)| row.uuid()).collect()
}
