//! Logins: of accounts and of their users. Each is in the audit; of those that fail, which strangers
//! may cause, only so many.

use std::{net::IpAddr, sync::Arc, time::Instant};

use model::{
    Claim, Code, Error, Id, Kind, Message, MessageDef, Record, Resource, Result,
    resource::{
        account::{Account, LogIn, LogInByAccount, LogInByUser, LoginType},
        user::User,
    },
};
use serde_json::{Value, json};
use store::{Read, Snapshot, Tx};
use uuid::Uuid;

use crate::{
    Caller, Gate,
    account::{self, NOBODY, fits, named, span},
    audit::{self, Login},
    logins::unchecked,
};

/// Who wants to log in.
#[derive(Clone)]
struct Who {
    def: &'static MessageDef,
    /// The account, as far as it is known.
    account: Option<Id<Account>>,
    account_name: Option<String>,
    user_name: Option<String>,
    digest: String,
    source: IpAddr,
}

/// Who has logged in, and by which password.
struct Known {
    account: Id<Account>,
    user: Option<Id<User>>,
    password_hash: String,
}

/// Opens a session of an account.
pub(crate) async fn by_account(
    gate: Arc<Gate>,
    caller: Caller,
    message: LogInByAccount,
) -> Result<Value> {
    let who = Who {
        def: &LogInByAccount::DEF,
        account: None,
        account_name: Some(message.account_name),
        user_name: None,
        digest: message.password,
        source: caller.source(),
    };
    log_in(&gate, who).await
}

/// The same.
pub(crate) async fn by_name(gate: Arc<Gate>, caller: Caller, message: LogIn) -> Result<Value> {
    let LogIn { username: account_name, password, login_type: LoginType::Account } = message;
    by_account(gate, caller, LogInByAccount { account_name, password }).await
}

/// Opens a session of a user, who acts for its account.
pub(crate) async fn by_user(
    gate: Arc<Gate>,
    caller: Caller,
    message: LogInByUser,
) -> Result<Value> {
    if message.account_uuid.is_some() == message.account_name.is_some() {
        let error = Error::field("accountName", "or accountUuid is needed, not both");
        return Err(error.hint("name the account of the user"));
    }
    let who = Who {
        def: &LogInByUser::DEF,
        account: message.account_uuid,
        account_name: message.account_name,
        user_name: Some(message.user_name),
        digest: message.password,
        source: caller.source(),
    };
    log_in(&gate, who).await
}

async fn log_in(gate: &Gate, who: Who) -> Result<Value> {
    let name = who.throttled();
    gate.throttle.admit(&name, who.source, Instant::now())?;
    let turn = gate.logins.turn().await?;
    let (snapshot, tried) = (gate.store().snapshot(), who.clone());
    // The turn lasts as long as the check, even if the caller goes away.
    let check = move || {
        let _turn = turn;
        tried.authenticate(&snapshot)
    };
    let checked = tokio::task::spawn_blocking(check).await.map_err(unchecked)?;
    let at = Instant::now();
    match &checked {
        Ok(_) => gate.throttle.succeeded(&name, who.source, at),
        Err(_) => gate.throttle.failed(&name, who.source, at),
    }
    note(gate, &who, &checked, at).await;
    let known = checked?;
    let span = span(gate, known.account.uuid());
    let whose = (known.account, known.user);
    let session = gate.sessions.open_for(whose, span, (gate.now(), at));
    // In this order: had the password changed before the session was open, nobody would close it.
    if known.present_hash(&gate.store().snapshot()).as_ref() != Some(&known.password_hash) {
        gate.sessions.close(&session.uuid.simple().to_string());
        let error = Error::new(Code::AuthenticationFailed, "the password was changed just now");
        return Err(error.hint("log in with the new one"));
    }
    Ok(json!({"inventory": session.show()}))
}

impl Who {
    /// The name under which failures are counted. A slash keeps users apart from accounts.
    fn throttled(&self) -> String {
        let account = match (&self.account_name, self.account) {
            (Some(name), _) => name.clone(),
            (None, account) => account.map(|id| id.to_string()).unwrap_or_default(),
        };
        match &self.user_name {
            Some(user) => format!("{account}/{user}"),
            None => account,
        }
    }

    /// The account that is meant, whether the password is right or not.
    fn account(&self, read: &impl Read<Record>) -> Option<Id<Account>> {
        match (&self.account_name, self.account) {
            (Some(name), _) => named(read, name).map(|account| account.uuid),
            (None, account) => account.filter(|id| read.get(Kind::Account, id.uuid()).is_some()),
        }
    }

    fn authenticate(&self, snapshot: &Snapshot<Record>) -> Result<Known> {
        let Some(user_name) = &self.user_name else {
            let name = self.account_name.as_deref().unwrap_or_default();
            let account = account::authenticate(snapshot, name, &self.digest)?;
            let (account, password_hash) = (account.uuid, account.password_hash);
            return Ok(Known { account, user: None, password_hash });
        };
        let account = self.account(snapshot);
        let claim = account.map(|account| Claim::UserName(account, user_name.clone()));
        let holder = claim.and_then(|claim| snapshot.holder(&claim));
        let record = holder.and_then(|(kind, uuid)| snapshot.get(kind, uuid));
        let user = record.as_deref().and_then(User::of);
        // As much work for an unknown name as for a known one.
        let fits = fits(user.map_or(NOBODY, |user| &user.password_hash), &self.digest);
        let known = user.filter(|_| fits).map(|user| Known {
            account: user.account_uuid,
            user: Some(user.uuid),
            password_hash: user.password_hash.clone(),
        });
        known.ok_or_else(|| {
            let text = "wrong account, user name or password";
            let hint = "clients send the password's SHA-512 in hex; whoever has the account gives \
                        the user a new one with UpdateUser";
            Error::new(Code::AuthenticationFailed, text).hint(hint)
        })
    }
}

impl Known {
    /// The hash of the password that counts now; `None` for who is gone.
    fn present_hash(&self, read: &impl Read<Record>) -> Option<String> {
        let account = read.get(Kind::Account, self.account.uuid())?;
        match self.user {
            None => Account::of(&account).map(|account| account.password_hash.clone()),
            Some(user) => {
                let user = read.get(Kind::User, user.uuid())?;
                User::of(&user).map(|user| user.password_hash.clone())
            }
        }
    }
}

/// Notes a login in the audit. It is told even if the store does not take the note.
async fn note(gate: &Gate, who: &Who, checked: &Result<Known>, at: Instant) {
    let unnoted = match checked {
        Ok(_) => 0,
        Err(_) => match gate.strangers.admit(who.source, at) {
            Some(unnoted) => unnoted,
            None => return,
        },
    };
    let (def, source, now) = (who.def, who.source, gate.now());
    let account = match checked {
        Ok(known) => Some(known.account),
        Err(_) => who.account(&gate.store().snapshot()),
    };
    let user = checked.as_ref().ok().and_then(|known| known.user);
    let (name, outcome) = (who.throttled(), checked.as_ref().err().cloned());
    let write = move |tx: &mut Tx<Record>| {
        let (name, outcome) = (&name, outcome.as_ref());
        let login = Login { def, account, user, source, name, unnoted, outcome };
        audit::note_login(tx, &login, (now, Uuid::new_v4()))
    };
    if let Err(error) = gate.store().transact_async(write).await {
        tracing::warn!(%error, "a login is not in the audit");
    }
}
