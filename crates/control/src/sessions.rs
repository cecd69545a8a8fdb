//! Sessions: who may call. In memory only: after a restart, clients log in again.
//!
//! They end by a clock that only goes forward, which the caller passes in: when somebody sets the
//! machine's time, no session ends early and none lasts longer. What is shown of them is the time
//! of day.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::{
    Code, Error, Id, Result, Timestamp,
    resource::{account::Account, user::User},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long a session lasts, and how many an account has. A further one ends the one that was not
/// used for the longest time. So those who log in for each call and never out end each other's, not
/// one that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How long, in seconds.
    pub seconds: u32,
    /// Sessions of one account at most.
    pub most: usize,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The bearer's secret.
    pub uuid: Uuid,
    /// Whose it is.
    pub account: Id<Account>,
    /// The user that acts for the account; `None`: whoever has the account's own password.
    pub user: Option<Id<User>>,
    /// When it was opened, for people.
    pub created: Timestamp,
    /// When it ends, for people.
    pub expires: Timestamp,
    /// When it was last used.
    used: Instant,
    /// When it ends.
    ends: Instant,
}

impl Session {
    /// As the API shows it.
    pub(crate) fn show(&self) -> Value {
        json!({
            "uuid": self.uuid.simple().to_string(),
            "accountUuid": self.account,
            "userUuid": self.user.map_or(self.account.uuid(), Id::uuid).simple().to_string(),
            "userType": if self.user.is_some() { "User" } else { "Account" },
            "createDate": self.created.to_string(),
            "expiredDate": self.expires.to_string(),
        })
    }
}

/// The open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<Uuid, Session>>,
}

impl Sessions {
    /// Opens an account's session at `at`, which people know as `now`.
    pub fn open(&self, account: Id<Account>, span: Span, time: (Timestamp, Instant)) -> Session {
        self.open_for((account, None), span, time)
    }

    /// The same for a user of the account.
    pub fn open_for(
        &self,
        (account, user): (Id<Account>, Option<Id<User>>),
        span: Span,
        (now, at): (Timestamp, Instant),
    ) -> Session {
        let expires = now.plus_seconds(span.seconds.into());
        let ends = at + Duration::from_secs(span.seconds.into());
        let uuid = Uuid::new_v4();
        let session = Session { uuid, account, user, created: now, expires, used: at, ends };
        let mut open = self.lock();
        open.retain(|_, session| session.ends > at);
        let own = || open.values().filter(|session| session.account == account);
        let idle = own().min_by_key(|session| session.used).map(|session| session.uuid);
        if let (true, Some(idle)) = (own().count() >= span.most, idle) {
            open.remove(&idle);
        }
        open.insert(session.uuid, session.clone());
        session
    }

    /// How many are open at `at`.
    pub(crate) fn count(&self, at: Instant) -> usize {
        self.lock().values().filter(|session| session.ends > at).count()
    }

    /// Whether the session with this uuid is open at `at`; asking is no use of it.
    pub(crate) fn is_open(&self, uuid: Uuid, at: Instant) -> bool {
        self.lock().get(&uuid).is_some_and(|session| session.ends > at)
    }

    /// The session with this uuid, which is used at `at`.
    ///
    /// # Errors
    /// [`Code::InvalidSession`] when it is unknown or over.
    pub fn check(&self, uuid: &str, at: Instant) -> Result<Session> {
        let mut open = self.lock();
        let found = model::id::parse_uuid(uuid).and_then(|uuid| open.get_mut(&uuid));
        let Some(session) = found.filter(|session| session.ends > at) else {
            return Err(unknown());
        };
        session.used = at;
        Ok(session.clone())
    }

    /// Lets an open session last `seconds` from now on.
    ///
    /// # Errors
    /// [`Code::InvalidSession`] when it is unknown or over.
    pub fn renew(
        &self,
        uuid: Uuid,
        seconds: u32,
        (now, at): (Timestamp, Instant),
    ) -> Result<Session> {
        let mut open = self.lock();
        let found = open.get_mut(&uuid).filter(|session| session.ends > at);
        let session = found.ok_or_else(unknown)?;
        session.expires = now.plus_seconds(seconds.into());
        session.ends = at + Duration::from_secs(seconds.into());
        Ok(session.clone())
    }

    /// Closes the sessions of `account`, all but those of users and the one with the uuid `kept`:
    /// whoever has learned the old password is out once there is a new one.
    pub fn close_others(&self, account: Id<Account>, kept: Option<Uuid>) {
        let is_own = |session: &Session| session.account == account && session.user.is_none();
        self.lock().retain(|uuid, session| !is_own(session) || Some(*uuid) == kept);
    }

    /// Closes the sessions of a user.
    pub fn close_user(&self, user: Id<User>) {
        self.lock().retain(|_, session| session.user != Some(user));
    }

    /// Closes a session, if it is open.
    pub fn close(&self, uuid: &str) {
        if let Some(uuid) = model::id::parse_uuid(uuid) {
            self.lock().remove(&uuid);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Session>> {
        // A panic elsewhere cannot leave the map half changed: each change is one call.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown() -> Error {
    let error = Error::new(Code::InvalidSession, "the session is unknown or expired");
    error.hint("log in again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { seconds: 7200, most: 500 };

    fn text(session: &Session) -> String {
        session.uuid.simple().to_string()
    }

    #[test]
    fn a_session_ends_by_time_by_logout_and_by_too_many_others() {
        let (sessions, account) = (Sessions::default(), Id::new(Uuid::from_u128(1)));
        let start = Instant::now();
        let after = |millis: u64| start + Duration::from_millis(millis);
        let first = sessions.open(account, SPAN, (Timestamp(0), start));
        let end = u64::from(SPAN.seconds) * 1000;
        assert!(sessions.check(&text(&first), after(end - 1)).is_ok());
        assert!(sessions.check(&text(&first), after(end)).is_err());
        let second = sessions.open(account, SPAN, (Timestamp(1), after(1)));
        for at in 2..=600 {
            sessions.open(account, SPAN, (Timestamp(0), after(at)));
            assert!(sessions.check(&text(&first), after(at)).is_ok(), "in use");
        }
        assert!(sessions.check(&text(&second), after(601)).is_err(), "an idle one made room");
        let last = sessions.open(account, SPAN, (Timestamp(0), after(602)));
        sessions.close(&text(&last));
        assert!(sessions.check(&text(&last), after(603)).is_err());
    }

    #[test]
    fn setting_the_machines_time_neither_ends_nor_prolongs_a_session() {
        let (sessions, account) = (Sessions::default(), Id::new(Uuid::from_u128(1)));
        let start = Instant::now();
        let after = |seconds: u32| start + Duration::from_secs(seconds.into());
        let first = sessions.open(account, SPAN, (Timestamp(1_000_000_000_000), start));
        // A year ahead, then far back.
        sessions.open(account, SPAN, (Timestamp(1_031_536_000_000), after(1)));
        sessions.open(account, SPAN, (Timestamp(0), after(2)));
        assert!(sessions.check(&text(&first), after(SPAN.seconds - 1)).is_ok());
        assert!(sessions.check(&text(&first), after(SPAN.seconds)).is_err());
        assert_eq!(first.expires, Timestamp(1_000_007_200_000), "shown by the clock of the day");
    }

    #[test]
    fn the_other_sessions_of_one_account_can_be_closed() {
        let (sessions, at) = (Sessions::default(), Instant::now());
        let [own, foreign] = [1, 2].map(|n| Id::new(Uuid::from_u128(n)));
        let [kept, other, theirs] = [own, own, foreign]
            .map(|account| text(&sessions.open(account, SPAN, (Timestamp(0), at))));
        sessions.close_others(own, model::id::parse_uuid(&kept));
        let is_open = |session: &String| sessions.check(session, at).is_ok();
        assert_eq!([&kept, &other, &theirs].map(is_open), [true, false, true]);
    }
}
