//! News of a namespace's links and their addresses, from whoever changes them.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::{runtime, task, task::JoinSet};

use crate::{Error, Namespace};

/// What is listened to.
const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// Tells that links or addresses of links have come, gone or changed; not which ones.
pub struct LinkNews {
    messages: Pin<Box<dyn Stream<Item = ()> + Send>>,
    /// Serves the socket; aborted when dropped.
    _task: JoinSet<()>,
}

impl LinkNews {
    /// Of the namespace of the calling thread, from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn current() -> Result<Self, Error> {
        let namespace = Namespace::current()?;
        let name = namespace.name().to_owned();
        let failed = |error| Error::kernel(&name, "listen for links", error);
        let runtime = runtime::Handle::current();
        let opened = task::spawn_blocking(move || {
            namespace.run_in(|| {
                // The socket registers with the runtime of the thread on which it is opened.
                let _guard = runtime.enter();
                new_multicast_connection(&GROUPS)
            })
        });
        let opened = opened.await.map_err(|error| failed(error.into()))?;
        let (connection, _, messages) = opened?.map_err(failed)?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { messages: Box::pin(messages.map(drop)), _task: task })
    }

    /// Waits for the next news; whether there may be more. Dropping it loses nothing.
    pub async fn next(&mut self) -> bool {
        self.messages.next().await.is_some()
    }
}

impl std::fmt::Debug for LinkNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkNews").finish_non_exhaustive()
    }
}
