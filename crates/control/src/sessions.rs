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
/// the oldest.
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
        let session = Session { uuid: Uuid::new_v4(), account, created: now, expires };
        let mut open = self.lock();
        open.retain(|_, session| session.expires > now);
        let mut own: Vec<_> = open.values().filter(|s| s.account == account).cloned().collect();
        if own.len() >= SESSIONS_PER_ACCOUNT {
            own.sort_by_key(|session| session.created);
            open.remove(&own[0].uuid);
        }
        open.insert(session.uuid, session.clone());
        session
    }

    /// The session with this uuid.
    ///
    /// # Errors
    /// [`Code::InvalidSession`] when it is unknown or over.
    pub fn check(&self, uuid: &str, now: Timestamp) -> Result<Session> {
        let uuid = model::id::parse_uuid(uuid);
        let found = uuid.and_then(|uuid| self.lock().get(&uuid).cloned());
        found.filter(|session| session.expires > now).ok_or_else(|| {
            let error = Error::new(Code::InvalidSession, "the session is unknown or expired");
            error.hint("log in again")
        })
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
        for at in 1..=500 {
            sessions.open(account, Timestamp(at));
        }
        assert!(sessions.check(&text(&first), Timestamp(501)).is_err(), "the oldest made room");
        let last = sessions.open(account, Timestamp(502));
        sessions.close(&text(&last));
        assert!(sessions.check(&text(&last), Timestamp(503)).is_err());
    }
}
