//! Messages that are answered at once: sessions and enrolment.

use std::sync::Arc;

use control::{Call, Txn, account, host, secret};
use model::{Code, Error, Id, MessageDef, Record, Result, resource::host::Host};
use serde_json::{Value, json};
use store::Tx;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Door, request::Parsed};

/// Password checks at a time. Each takes 19 MiB and a core, and strangers may ask for them.
const CHECKS_MAX: usize = 4;
/// Logins that may wait for their check: for about a second.
const WAITING_MAX: usize = 64;

/// How many logins run and wait.
pub(crate) struct Logins {
    /// Those that run, and those that wait.
    places: Arc<Semaphore>,
    /// Those that run.
    turns: Arc<Semaphore>,
}

impl Default for Logins {
    fn default() -> Self {
        Self::bounded(CHECKS_MAX, WAITING_MAX)
    }
}

impl Logins {
    fn bounded(checks: usize, waiting: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { places: semaphore(checks + waiting), turns: semaphore(checks) }
    }

    /// Waits for a turn; it lasts until what is returned is dropped.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when too many wait already.
    async fn turn(&self) -> Result<[OwnedSemaphorePermit; 2]> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Error::new(Code::Overloaded, "too many logins at once")
                .hint("try again in a few seconds; a session lasts for many calls")
        })?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(unchecked)?;
        Ok([place, turn])
    }
}

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
        other => Err(Error::new(Code::Internal, format!("{other} has no answer"))),
    }
}

async fn log_in(door: &Door, name: String, digest: String) -> Result<Value> {
    let turn = door.logins.turn().await?;
    let snapshot = door.jobs.store().snapshot();
    // The turn lasts as long as the check, even if the caller goes away.
    let check = move || {
        let _turn = turn;
        account::authenticate(&snapshot, &name, &digest)
    };
    let checked = tokio::task::spawn_blocking(check).await.map_err(unchecked)?;
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

fn unchecked(cause: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, "the login could not be checked").cause(cause)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logins_beyond_the_queue_are_refused_at_once() {
        let logins = Logins::bounded(1, 1);
        let first = logins.turn().await.unwrap();
        let others = async {
            let refused = logins.turn().await.unwrap_err();
            assert_eq!(refused.code, Code::Overloaded);
            assert!(refused.hint.is_some());
            drop(first);
        };
        let (second, ()) = tokio::join!(logins.turn(), others);
        assert!(second.is_ok());
    }
}
