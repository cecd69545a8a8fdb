//! News of a namespace's links, their addresses and its IPsec policies, from whoever changes them.

use std::{io, pin::Pin};

use futures_util::{Stream, StreamExt, stream};
use rtnetlink::{
    MulticastGroup, new_multicast_connection, packet_core::NetlinkPayload,
    packet_route::RouteNetlinkMessage,
};
use tokio::{runtime, task, task::JoinSet};

use crate::{Error, Namespace, ipsec};

/// What is listened to.
const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// Tells which links have come, gone or changed, and that addresses or IPsec policies have.
pub struct LinkNews {
    messages: Pin<Box<dyn Stream<Item = Option<u32>> + Send>>,
    /// Serves the socket; aborted when dropped.
    _task: JoinSet<()>,
}

impl LinkNews {
    /// Of the namespace of the calling thread, from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn current() -> Result<Self, Error> {
        Self::of(&Namespace::current()?).await
    }

    /// Of a namespace, from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn of(namespace: &Namespace) -> Result<Self, Error> {
        let namespace = namespace.clone();
        let name = namespace.name().to_owned();
        let failed = |error: io::Error| Error::kernel(&name, "listen for links", error);
        let runtime = runtime::Handle::current();
        let opened = task::spawn_blocking(move || {
            namespace.run_in(|| {
                // The socket registers with the runtime of the thread on which it is opened.
                let _guard = runtime.enter();
                Ok((new_multicast_connection(&GROUPS)?, ipsec::listen()?))
            })
        });
        let opened = opened.await.map_err(|error| failed(error.into()))?;
        let ((connection, _, messages), policies) = opened?.map_err(failed)?;
        let links = messages.map(|(message, _)| index(&message.payload));
        let mut task = JoinSet::new();
        task.spawn(connection);
        let messages: Pin<Box<dyn Stream<Item = Option<u32>> + Send>> = match policies {
            None => Box::pin(links),
            Some((connection, messages)) => {
                task.spawn(connection);
                Box::pin(stream::select(links, messages.map(|_| None)))
            }
        };
        Ok(Self { messages, _task: task })
    }

    /// Waits for the next news: the index of a link, or `None` within when it may be any of them.
    /// `None` when no more will come. Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<Option<u32>> {
        self.messages.next().await
    }
}

/// The link that a message is about. What is not understood (an overrun above all: the kernel had
/// no room for a message) may be about any.
fn index(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<u32> {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
        ) => Some(link.header.index),
        _ => None,
    }
}

impl std::fmt::Debug for LinkNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkNews").finish_non_exhaustive()
    }
}
