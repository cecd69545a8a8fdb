//! How many passwords are checked at a time: each check takes memory and a core, and strangers may
//! ask for them.

use std::sync::Arc;

use model::{Code, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Password checks at a time. Each takes 19 MiB and a core.
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
    pub(crate) async fn turn(&self) -> Result<[OwnedSemaphorePermit; 2]> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Error::new(Code::Overloaded, "too many logins at once")
                .hint("try again in a few seconds; a session lasts for many calls")
        })?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(unchecked)?;
        Ok([place, turn])
    }
}

/// The login failed for no fault of the caller's.
pub(crate) fn unchecked(cause: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, "the login could not be checked").cause(cause)
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
