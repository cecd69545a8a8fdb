//! Messages that are answered at once: sessions and enrolment.

use std::sync::Arc;

use control::{Call, Txn, account, host, secret};
use model::{Error, Id, MessageDef, Record, Result, resource::host::Host};
use serde_json::{Value, json};
use store::Tx;

use crate::{Door, request::Parsed};

/// Whether a message is for those who have no session yet.
pub(crate) fn is_open(def: &MessageDef) -> bool {
    matches!(def.name, "LogInByAccount" | "ValidateSession" | "LogOut")
}

/// Answers a message that needs no job.
///
/// # Errors
/// The message's own.
pub(crate) async fn answer(door: &Door, def: &MessageDef, parsed: &Parsed) -> Result<Value> {
    let text =
        |name: &str| parsed.params.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match def.name {
        "LogInByAccount" => log_in(door, text("accountName"), text("password")).await,
        "LogOut" => {
            door.sessions.close(&text("sessionUuid"));
            Ok(json!({}))
        }
        "ValidateSession" => {
            let valid = door.sessions.check(&text("sessionUuid"), door.jobs.now()).is_ok();
            Ok(json!({"valid": valid}))
        }
        "CreateHostEnrolment" => enrol(door, &text("uuid"), parsed).await,
        other => Err(Error::new(model::Code::Internal, format!("{other} has no answer"))),
    }
}

async fn log_in(door: &Door, name: String, digest: String) -> Result<Value> {
    let unchecked = |cause: &dyn std::fmt::Display| {
        Error::new(model::Code::Internal, "the login could not be checked").cause(cause)
    };
    let turn = Arc::clone(&door.logins).acquire_owned().await.map_err(|cause| unchecked(&cause))?;
    let snapshot = door.jobs.store().snapshot();
    // The turn lasts as long as the check, even if the caller goes away.
    let check = move || {
        let _turn = turn;
        account::authenticate(&snapshot, &name, &digest)
    };
    let checked = tokio::task::spawn_blocking(check).await.map_err(|cause| unchecked(&cause))?;
    let account = checked?;
    let session = door.sessions.open(account.uuid, door.jobs.now());
    Ok(json!({"inventory": {
        "uuid": session.uuid.simple().to_string(),
        "accountUuid": account.uuid,
        "userUuid": account.uuid,
        "userType": "Account",
        "createDate": session.created.to_string(),
        "expiredDate": session.expires.to_string(),
    }}))
}

/// Makes a token and shows it, once: only its hash is kept.
async fn enrol(door: &Door, uuid: &str, parsed: &Parsed) -> Result<Value> {
    let host: Id<Host> = uuid.parse().map_err(|rule| Error::field("uuid", rule))?;
    let token = secret::random()?;
    let hash = secret::hash(&token);
    let call = Call {
        params: parsed.params.clone(),
        system_tags: Vec::new(),
        resource_uuid: None,
        now: door.jobs.now(),
        seed: uuid::Uuid::new_v4(),
        board: door.jobs.board(),
    };
    let open = move |tx: &mut Tx<Record>| {
        host::open_enrolment(&mut Txn::new(tx, &call), host, hash.clone())
    };
    let expires = door.jobs.store().transact_async(open).await?.value;
    Ok(json!({"inventory": {
        "server": door.enrolment.server,
        "host": host,
        "token": token,
        "ca": door.enrolment.ca,
        "expiredDate": expires.to_string(),
    }}))
}
