//! Access keys: made, checked, deleted.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use model::{
    Code, Error, Id, Kind, Message, Meta, Record, Resource, Result,
    resource::{
        access_key::{AccessKey, CreateAccessKey, DeleteAccessKey},
        account::{ADMIN, Account},
    },
};
use serde_json::{Map, Value, json};
use sha1::Sha1;
use store::{Key, Read, Tx};
use uuid::Uuid;

use crate::{
    Caller, Gate, Reply, Txn,
    audit::{self, Event},
    operation::{Operation, job, now},
    secret,
};

/// Keys of one account at most.
const KEYS_MAX: u64 = 10;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![now(create), job(delete)]
}

/// A request with its signature.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The id of the key that signs.
    pub key: &'a str,
    /// HMAC-SHA1 of the text (RFC 2104) with the key's secret, in base64.
    pub signature: &'a str,
    /// What is signed.
    pub text: &'a str,
}

/// The account whose key has signed.
pub(crate) fn check(read: &impl Read<Record>, signed: &Signed<'_>) -> Result<Id<Account>> {
    let record = model::id::parse_uuid(signed.key).and_then(|id| read.get(Kind::AccessKey, id));
    let key = record.as_deref().and_then(AccessKey::of);
    // With an unknown key as much is computed as with a known one.
    let secret = key.map_or("", |key| &key.secret);
    let given = STANDARD.decode(signed.signature).unwrap_or_default();
    let fits = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).is_ok_and(|mut mac| {
        mac.update(signed.text.as_bytes());
        mac.verify_slice(&given).is_ok()
    });
    key.filter(|_| fits).map(|key| key.account_uuid).ok_or_else(|| {
        let error = Error::new(Code::AuthenticationFailed, "unknown access key or wrong signature");
        error.hint(
            "the signature is base64(HMAC-SHA1(secret, METHOD \\n Date \\n /v1/path)), without the \
             query string",
        )
    })
}

async fn create(gate: Arc<Gate>, caller: Caller, message: CreateAccessKey) -> Result<Value> {
    let account = message.account_uuid.or(caller.account()).unwrap_or(Id::new(ADMIN));
    if !caller.owns(Some(account)) {
        return Err(Error::not_found(Account::DEF.name, account).on_field("accountUuid"));
    }
    let (id, secret, now) = (Id::new(Uuid::new_v4()), secret::random()?, gate.now());
    let key = AccessKey {
        uuid: id,
        account_uuid: account,
        description: message.description,
        secret: secret.clone(),
    };
    let meta = Meta { owner: Some(account), created: now, changed: now };
    let row = Record::new(key, meta);
    let make = move |tx: &mut Tx<Record>| {
        if tx.get(Kind::Account, account.uuid()).is_none() {
            return Err(Error::not_found(Account::DEF.name, account).on_field("accountUuid"));
        }
        tx.fence(&account.to_string());
        let field = AccessKey::ACCOUNT.field;
        if tx.count(Kind::AccessKey, field, &Key::Uuid(account.uuid())) >= KEYS_MAX {
            let text = format!("the account has {KEYS_MAX} access keys, which is the most");
            return Err(Error::new(Code::OperationFailed, text).hint("delete one first"));
        }
        tx.put(row.clone()).map_err(crate::claim::taken)?;
        let (def, fields) = (&CreateAccessKey::DEF, &Map::new());
        let subject = Some((Kind::AccessKey, id.uuid()));
        let event = Event { def, caller: &caller, fields, subject, outcome: Ok(()) };
        audit::note(tx, &event, (now, Uuid::new_v4()))?;
        Ok(row.clone())
    };
    let row = gate.store().transact_async(make).await?.value;
    let mut answer = gate.answer_with(&row);
    answer["inventory"]["AccessKeySecret"] = json!(secret);
    Ok(answer)
}

fn delete(txn: &mut Txn<'_>, message: DeleteAccessKey) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
