//! Sessions: who may call. In memory only: after a restart, clients log in again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::{Code, Error, Id, Result, Timestamp, resource::account::Account};
use uuid::Uuid;

/// How long a session lasts, in seconds (ZStack: `identity/session.timeout`).
pub const SESSION_SECONDS: i64 = 7200;
/// Sessions of one account at most (ZStack: `identity/session.maxConcurrent`); a further one ends
/// the one that was not used for the longest time. So those who log in for each call and never out
/// end each other's, not one that is in use.
pub const SESSIONS_PER_ACCOUNT: usize = 500;

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The bearer's secret.
    pub uuid: Uuid,
    /// Whose it is.
    pub account: Id<Account>,
    /// When it was opened.
    pub created: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// The open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<Uuid, Session>>,
}

impl Sessions {
    /// Opens a session.
    pub fn open(&self, account: Id<Account>, now: Timestamp) -> Session {
        let expires = now.plus_seconds(SESSION_SECONDS);
        let session = Session { uuid: Uuid::new_v4(), account, created: now, used: now, expires };
        let mut open = self.lock();
        open.retain(|_, session| session.expires > now);
        let own = || open.values().filter(|session| session.account == account);
        let idle = own().min_by_key(|session| session.used).map(|session| session.uuid);
        if let (true, Some(idle)) = (own().count() >= SESSIONS_PER_ACCOUNT, idle) {
            open.remove(&idle);
        }
        open.insert(session.uuid, session.clone());
        session
    }

    /// The session with this uuid, which is used now.
    ///
    /// # Errors
    /// [`Code::InvalidSession`] when it is unknown or over.
    pub fn check(&self, uuid: &str, now: Timestamp) -> Result<Session> {
        let mut open = self.lock();
        let found = model::id::parse_uuid(uuid).and_then(|uuid| open.get_mut(&uuid));
        let Some(session) = found.filter(|session| session.expires > now) else {
            let error = Error::new(Code::InvalidSession, "the session is unknown or expired");
            return Err(error.hint("log in again"));
        };
        session.used = now;
        Ok(session.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_time_by_logout_and_by_too_many_others() {
        let (sessions, account) = (Sessions::default(), Id::new(Uuid::from_u128(1)));
        let text = |session: &Session| session.uuid.simple().to_string();
        let first = sessions.open(account, Timestamp(0));
        let end = Timestamp(SESSION_SECONDS * 1000);
        assert!(sessions.check(&text(&first), Timestamp(end.0 - 1)).is_ok());
        assert!(sessions.check(&text(&first), end).is_err());
        let second = sessions.open(account, Timestamp(1));
        for at in 2..=600 {
            sessions.open(account, Timestamp(at));
            assert!(sessions.check(&text(&first), Timestamp(at)).is_ok(), "in use");
        }
        assert!(sessions.check(&text(&second), Timestamp(601)).is_err(), "an idle one made room");
        let last = sessions.open(account, Timestamp(502));
        sessions.close(&text(&last));
        assert!(sessions.check(&text(&last), Timestamp(503)).is_err());
    }
}
