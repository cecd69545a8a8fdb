//! Accounts: passwords, and the messages that open and close sessions.

use std::{sync::Arc, time::Instant};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use model::{
    Claim, Code, Error, Id, Kind, Message, MessageDef, Meta, Record, Resource, Result, Timestamp,
    resource::account::{
        ADMIN, Account, AccountType, CheckApiPermission, CreateAccount, DeleteAccount, LogOut,
        RenewSession, UpdateAccount, ValidateSession,
    },
    resource::{faces, messages, quota::Quota},
    setting::{SESSION_TIMEOUT, SESSIONS_MAX},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use store::{Read, Store};
use uuid::Uuid;

use crate::{
    Caller, Gate, Reply, Txn,
    audit::{self, Event},
    claim, command, config, log_in,
    logins::unchecked,
    operation::{Operation, job, now},
    quota,
    sessions::Span,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        now(log_in::by_account),
        now(log_in::by_name),
        now(log_in::by_user),
        now(log_out),
        now(validate_session),
        now(renew),
        now(create),
        now(update),
        job(delete),
        now(check_permission),
    ]
}

/// Length of a SHA-512 in hex.
const DIGEST_LENGTH: usize = 128;

/// What ZStack's clients send instead of the password: its SHA-512 in lower-case hex.
#[must_use]
pub fn client_digest(password: &str) -> String {
    Sha512::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form in which a password's client digest is kept: a salted Argon2id PHC string.
///
/// # Errors
/// [`Code::Internal`] if the system gives no randomness.
pub fn hash(digest: &str) -> Result<String> {
    let hashed = Argon2::default().hash_password(digest.as_bytes());
    hashed.map(|hash| hash.to_string()).map_err(|cause| {
        Error::new(Code::Internal, "the password could not be hashed").cause(cause)
    })
}

pub(crate) fn fits(stored: &str, digest: &str) -> bool {
    PasswordHash::new(stored)
        .is_ok_and(|hash| Argon2::default().verify_password(digest.as_bytes(), &hash).is_ok())
}

/// Refuses what cannot be a password's client digest: a client that sends the password itself
/// would lock its user out, because the next one sends the digest.
///
/// # Errors
/// [`Code::InvalidArgument`] blaming `field`. What was sent is not repeated: it may be a password.
pub fn check_digest(field: &str, digest: &str) -> Result<()> {
    let is_hex = digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digest.len() == DIGEST_LENGTH && is_hex {
        return Ok(());
    }
    let hint = "send the password's SHA-512 in lower-case hex: printf %s PASSWORD | sha512sum";
    Err(Error::field(field, "is not 128 lower-case hex digits").hint(hint))
}

/// Makes the account `admin` if the store has none yet.
///
/// # Errors
/// The store's.
pub fn create_admin(store: &Store<Record>, password_hash: &str, now: Timestamp) -> Result<()> {
    let account = Account {
        uuid: Id::new(ADMIN),
        name: "admin".into(),
        account_type: AccountType::Admin,
        password_hash: password_hash.to_owned(),
        description: None,
    };
    let meta = Meta { owner: None, created: now, changed: now };
    let insert = move |tx: &mut store::Tx<Record>| {
        if tx.get(Kind::Account, ADMIN).is_some() {
            return Ok(());
        }
        tx.put(Record::new(account.clone(), meta)).map_err(crate::claim::taken)
    };
    store.transact(insert).map(|_| ())
}

/// The account with this name and password. Takes tens of milliseconds of CPU on purpose: call it
/// where blocking is allowed.
///
/// # Errors
/// [`Code::AuthenticationFailed`], the same for an unknown name and a wrong password.
pub fn authenticate(read: &impl Read<Record>, name: &str, digest: &str) -> Result<Account> {
    let account = named(read, name);
    // An unknown name costs as much as a known one: timing must not tell them apart.
    let stored = account.as_ref().map_or(NOBODY, |account| &account.password_hash);
    let fits = fits(stored, digest);
    account.filter(|_| fits).ok_or_else(|| {
        Error::new(Code::AuthenticationFailed, "wrong account name or password").hint(
            "the first start writes admin's password to DIR/admin-password; \
             clients send its SHA-512 in hex; `netloom reset-password` gives it a new one",
        )
    })
}

/// The account of this name.
pub(crate) fn named(read: &impl Read<Record>, name: &str) -> Option<Account> {
    let (kind, uuid) = read.holder(&Claim::AccountName(name.to_owned()))?;
    read.get(kind, uuid).as_deref().and_then(Account::of).cloned()
}

/// Changes an account: its owner may, and administrators. Slow hashing is done before the
/// transaction, and its other sessions end after it.
pub(crate) async fn update(
    gate: Arc<Gate>,
    caller: Caller,
    message: UpdateAccount,
) -> Result<Value> {
    let (id, snapshot) = (message.uuid, gate.store().snapshot());
    let account = snapshot.get(Account::KIND, id.uuid());
    let account = account.as_deref().and_then(Account::of);
    let Some(account) = account.filter(|account| caller.owns(Some(account.uuid))) else {
        return Err(Error::not_found(Account::DEF.name, id).on_field("uuid"));
    };
    if message.name.as_ref().is_some_and(|name| *name != account.name) && id.uuid() == ADMIN {
        let error = Error::field("name", "admin is always called so");
        return Err(error.hint("leave it out"));
    }
    check_old(&gate, &caller, account, message.old_password).await?;
    let hash = match message.password {
        Some(digest) => Some(hash_in_turn(&gate, digest).await?),
        None => None,
    };
    let (now, is_new, name) = (gate.now(), hash.is_some(), message.name);
    let session = caller.session();
    let change = move |tx: &mut store::Tx<Record>| {
        let before = tx.get(Account::KIND, id.uuid());
        let before = before.ok_or_else(|| Error::not_found(Account::DEF.name, id))?;
        let Some(mut account) = Account::of(&before).cloned() else { return Ok(None) };
        message.description.clone().apply(&mut account.description);
        account.name = name.clone().unwrap_or(account.name);
        account.password_hash = hash.clone().unwrap_or(account.password_hash);
        let after = Record::new(account, Meta { changed: now, ..before.meta });
        tx.put(after.clone()).map_err(|taken| {
            let holder = caller.is_admin().then_some(taken.id);
            claim::refusal(&taken.claim, taken.kind, holder)
        })?;
        note(tx, &UpdateAccount::DEF, (&caller, id), now)?;
        Ok(Some(after))
    };
    let after = gate.store().transact_async(change).await?.value;
    if is_new {
        gate.sessions.close_others(id, session);
    }
    Ok(after.map_or_else(|| json!({}), |record| gate.answer_with(&record)))
}

/// Hashes a password's client digest when it is its turn.
pub(crate) async fn hash_in_turn(gate: &Gate, digest: String) -> Result<String> {
    check_digest("password", &digest)?;
    let turn = gate.logins.turn().await?;
    let hashing = move || {
        let _turn = turn;
        hash(&digest)
    };
    tokio::task::spawn_blocking(hashing).await.map_err(unchecked)?
}

/// Makes an account, which owns itself and a quota for each sort of resource.
async fn create(gate: Arc<Gate>, caller: Caller, message: CreateAccount) -> Result<Value> {
    let account = Account {
        uuid: Id::new(message.resource_uuid.unwrap_or_else(Uuid::new_v4)),
        name: message.name,
        account_type: message.account_type.unwrap_or(AccountType::Normal),
        password_hash: hash_in_turn(&gate, message.password).await?,
        description: message.description,
    };
    let (now, id) = (gate.now(), account.uuid);
    let meta = Meta { owner: Some(id), created: now, changed: now };
    let snapshot = gate.store().snapshot();
    let quotas = Quota::counted().map(|(_, counted)| {
        let value = quota::default(&snapshot, counted);
        quota::first(Id::new(Uuid::new_v4()), id, counted.name, value)
    });
    let mut rows = vec![Record::new(account, meta)];
    rows.extend(quotas.map(|quota| Record::new(quota, meta)));
    let make = move |tx: &mut store::Tx<Record>| {
        if crate::sharing::shown().any(|kind| tx.get(kind, id.uuid()).is_some()) {
            let error = Error::new(Code::UuidTaken, format!("{id} is taken"));
            return Err(error
                .on_field("resourceUuid")
                .hint("choose another uuid, or leave it out"));
        }
        rows.iter().try_for_each(|row| tx.put(row.clone()).map_err(crate::claim::taken))?;
        note(tx, &CreateAccount::DEF, (&caller, id), now)
    };
    gate.store().transact_async(make).await?;
    let record = gate.store().snapshot().get(Account::KIND, id.uuid());
    Ok(record.map_or_else(|| json!({}), |record| gate.answer_with(&record)))
}

/// Notes in the audit what was done to an account.
fn note(
    tx: &mut store::Tx<Record>,
    def: &MessageDef,
    (caller, account): (&Caller, Id<Account>),
    now: Timestamp,
) -> Result<()> {
    let (fields, subject) = (&Map::new(), Some((Account::KIND, account.uuid())));
    let event = Event { def, caller, fields, subject, outcome: Ok(()) };
    audit::note(tx, &event, (now, Uuid::new_v4()))
}

/// Deletes an account with everything that it owns. Its sessions end, as there is no such account
/// any more.
fn delete(txn: &mut Txn<'_>, message: DeleteAccount) -> Result<Reply> {
    if message.uuid.uuid() == ADMIN {
        let error = Error::field("uuid", "is admin, which stays");
        return Err(error.hint("delete another account"));
    }
    if txn.caller().account() == Some(message.uuid) {
        let error = Error::field("uuid", "is the account that calls");
        return Err(error.hint("let another administrator delete it"));
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

/// Tells which messages a caller may send at all.
async fn check_permission(
    _gate: Arc<Gate>,
    caller: Caller,
    message: CheckApiPermission,
) -> Result<Value> {
    let mut told = Map::new();
    for name in message.api_names {
        let bare = name.rsplit('.').next().unwrap_or_default();
        let bare = bare.strip_prefix("API").unwrap_or(bare);
        let bare = bare.strip_suffix("Msg").unwrap_or(bare);
        let is_query =
            |(_, face): (Kind, &model::shown::Face)| bare.strip_prefix("Query") == Some(face.name);
        let allows = match messages().find(|def| def.name == bare) {
            Some(def) => command::may_send(&caller, def).is_ok(),
            None if faces().any(is_query) => true,
            None => {
                let error = Error::field("apiNames", format!("{name} is no message"));
                return Err(error.hint("`netloom messages` lists what there is"));
            }
        };
        told.insert(name, if allows { "Allow" } else { "Deny" }.into());
    }
    Ok(json!({"inventory": told}))
}

/// How long and how many sessions of an account may be.
pub(crate) fn span(gate: &Gate, account: Uuid) -> Span {
    let snapshot = gate.store().snapshot();
    let seconds = config::number_for(&snapshot, &SESSION_TIMEOUT, account);
    let most = config::number(&snapshot, &SESSIONS_MAX);
    Span {
        seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        most: usize::try_from(most).unwrap_or(usize::MAX),
    }
}

/// Prolongs the session by which it is called.
async fn renew(gate: Arc<Gate>, caller: Caller, message: RenewSession) -> Result<Value> {
    let named = model::id::parse_uuid(&message.session_uuid);
    let own = caller.session().filter(|own| named == Some(*own));
    let Some(own) = own else {
        let error = Error::field("sessionUuid", "is not the session of this call");
        return Err(error.hint("a session is renewed by a call that it makes"));
    };
    let account = caller.account().map_or(ADMIN, Id::uuid);
    let seconds = message.duration.unwrap_or_else(|| span(&gate, account).seconds);
    let session = gate.sessions.renew(own, seconds, (gate.now(), Instant::now()))?;
    Ok(json!({"inventory": session.show()}))
}

/// Whoever changes their own password says the present one; an administrator need not.
async fn check_old(
    gate: &Gate,
    caller: &Caller,
    account: &Account,
    old: Option<String>,
) -> Result<()> {
    let Some(old) = old else {
        if caller.is_admin() {
            return Ok(());
        }
        let error = Error::field("oldPassword", "is required");
        return Err(error.hint("send the SHA-512 of the present password"));
    };
    check_digest("oldPassword", &old)?;
    let (name, source, stored) =
        (account.name.clone(), caller.source(), account.password_hash.clone());
    gate.throttle.admit(&name, source, Instant::now())?;
    let turn = gate.logins.turn().await?;
    let check = move || {
        let _turn = turn;
        fits(&stored, &old)
    };
    if tokio::task::spawn_blocking(check).await.map_err(unchecked)? {
        return Ok(());
    }
    gate.throttle.failed(&name, source, Instant::now());
    let error = Error::field("oldPassword", "is not the present password");
    Err(error.hint("an operator can set a new one with `netloom reset-password`"))
}

/// Gives `admin` another password, of which this is the hash.
///
/// # Errors
/// The store's; [`Code::NotFound`] when the server has not been started yet.
pub fn reset_admin(store: &Store<Record>, password_hash: &str, now: Timestamp) -> Result<()> {
    let password_hash = password_hash.to_owned();
    let change = move |tx: &mut store::Tx<Record>| {
        let found = tx.get(Kind::Account, ADMIN);
        let Some((before, account)) = found.as_deref().and_then(|r| Some((r, Account::of(r)?)))
        else {
            let error = Error::not_found("Account", Id::<Account>::new(ADMIN));
            return Err(error.hint("the first start of the server makes it: start it once"));
        };
        let account = Account { password_hash: password_hash.clone(), ..account.clone() };
        let changed = Record::new(account, Meta { changed: now, ..before.meta });
        tx.put(changed).map_err(crate::claim::taken)
    };
    store.transact(change).map(|_| ())
}

/// Closes a session: whoever knows its uuid may.
pub(crate) async fn log_out(gate: Arc<Gate>, _caller: Caller, message: LogOut) -> Result<Value> {
    gate.sessions.close(&message.session_uuid);
    Ok(json!({}))
}

/// Tells whether a session still works.
pub(crate) async fn validate_session(
    gate: Arc<Gate>,
    _caller: Caller,
    message: ValidateSession,
) -> Result<Value> {
    let valid = gate.sessions.check(&message.session_uuid, Instant::now()).is_ok();
    Ok(json!({"valid": valid}))
}

/// The hash of a password that nobody knows.
pub(crate) const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5$\
                      QXJlIHlvdSBzdXJlIHRoYXQgaXQgaXMgbm9ib2R5PyE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_is_taken_for_one_and_what_was_sent_is_not_repeated() {
        assert!(check_digest("password", &client_digest("p")).is_ok());
        let upper = client_digest("p").to_uppercase();
        for odd in ["", "hunter2", &upper, &"g".repeat(128), &"0".repeat(129)] {
            let error = check_digest("password", odd).unwrap_err();
            assert!(error.hint.is_some() && error.field.as_deref() == Some("password"));
            assert!(odd.is_empty() || !error.to_string().contains(odd), "{error}");
        }
    }
}
