//! Users of accounts: made, changed, deleted. How they log in: [`crate::log_in`].

use std::sync::Arc;

use model::{
    Code, Error, Id, Kind, Message, MessageDef, Meta, Record, Resource, Result, Timestamp,
    resource::{
        account::{ADMIN, Account},
        user::{CreateUser, DeleteUser, UpdateUser, User},
    },
};
use serde_json::{Map, Value, json};
use store::{Key, Read, Tx};
use uuid::Uuid;

use crate::{
    Caller, Gate, Reply, Txn,
    account::hash_in_turn,
    audit::{self, Event},
    claim,
    operation::{Operation, job, now},
};

/// Users of one account at most.
const USERS_MAX: u64 = 100;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![now(create), now(update), job(delete)]
}

/// Slow hashing is done before the transaction.
async fn create(gate: Arc<Gate>, caller: Caller, message: CreateUser) -> Result<Value> {
    let account = caller.account().unwrap_or(Id::new(ADMIN));
    let (id, now) = (Id::new(Uuid::new_v4()), gate.now());
    let user = User {
        uuid: id,
        account_uuid: account,
        name: message.name,
        description: message.description,
        password_hash: hash_in_turn(&gate, message.password).await?,
    };
    let row = Record::new(user, Meta { owner: Some(account), created: now, changed: now });
    let make = move |tx: &mut Tx<Record>| {
        if tx.get(Kind::Account, account.uuid()).is_none() {
            return Err(Error::not_found(Account::DEF.name, account));
        }
        tx.fence(&account.to_string());
        if tx.count(Kind::User, User::ACCOUNT.field, &Key::Uuid(account.uuid())) >= USERS_MAX {
            let text = format!("the account has {USERS_MAX} users, which is the most");
            return Err(Error::new(Code::OperationFailed, text).hint("delete one first"));
        }
        tx.put(row.clone()).map_err(claim::taken)?;
        note(tx, &CreateUser::DEF, (&caller, id), now)?;
        Ok(row.clone())
    };
    let row = gate.store().transact_async(make).await?.value;
    Ok(gate.answer_with(&row))
}

/// Whoever acts for the account may give a user another password; its sessions end then.
async fn update(gate: Arc<Gate>, caller: Caller, message: UpdateUser) -> Result<Value> {
    let id = message.uuid;
    let missing = || Error::not_found(User::DEF.name, id).on_field("uuid");
    let present = gate.store().snapshot().get(Kind::User, id.uuid());
    if !present.is_some_and(|record| caller.owns(record.meta.owner)) {
        return Err(missing());
    }
    let hash = match message.password {
        Some(digest) => Some(hash_in_turn(&gate, digest).await?),
        None => None,
    };
    let (now, is_new, name) = (gate.now(), hash.is_some(), message.name);
    let change = move |tx: &mut Tx<Record>| {
        let before = tx.get(Kind::User, id.uuid());
        let Some(before) = before.filter(|record| caller.owns(record.meta.owner)) else {
            return Err(Error::not_found(User::DEF.name, id).on_field("uuid"));
        };
        let Some(mut user) = User::of(&before).cloned() else { return Ok(None) };
        message.description.clone().apply(&mut user.description);
        user.name = name.clone().unwrap_or(user.name);
        user.password_hash = hash.clone().unwrap_or(user.password_hash);
        let after = Record::new(user, Meta { changed: now, ..before.meta });
        tx.put(after.clone()).map_err(claim::taken)?;
        note(tx, &UpdateUser::DEF, (&caller, id), now)?;
        Ok(Some(after))
    };
    let after = gate.store().transact_async(change).await?.value;
    if is_new {
        gate.sessions.close_user(id);
    }
    Ok(after.map_or_else(|| json!({}), |record| gate.answer_with(&record)))
}

fn note(
    tx: &mut Tx<Record>,
    def: &MessageDef,
    (caller, user): (&Caller, Id<User>),
    now: Timestamp,
) -> Result<()> {
    let (fields, subject) = (&Map::new(), Some((Kind::User, user.uuid())));
    let event = Event { def, caller, fields, subject, outcome: Ok(()) };
    audit::note(tx, &event, (now, Uuid::new_v4()))
}

fn delete(txn: &mut Txn<'_>, message: DeleteUser) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
