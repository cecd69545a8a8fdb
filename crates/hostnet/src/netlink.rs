//! One rtnetlink socket and the task that serves it.
//!
//! A socket belongs for good to the namespace of the thread that opened it. So only the opening
//! happens on a thread inside the namespace; the socket is then served by the caller's runtime.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
};
use tokio::{runtime, task, task::JoinSet, time::timeout};

use crate::{Error, Namespace};

/// The kernel's big lock may be held for seconds while hundreds of namespaces are taken down.
const ANSWER_SECONDS_MAX: u64 = 30;
/// A guest decides how many links, addresses and routes its namespace has, and the host's memory must
/// not follow.
const LIST_MAX: usize = 100_000;
/// How often a list is read anew when it changed while it was read.
const DUMP_TRIES_MAX: usize = 8;

/// A netlink socket in one namespace. Clones share it; the last one to go closes it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    namespace: Namespace,
    /// Serves the socket; aborted when dropped.
    _task: Arc<JoinSet<()>>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn current() -> Result<Self, Error> {
        Self::open(&Namespace::current()?).await
    }

    pub(crate) async fn open(namespace: &Namespace) -> Result<Self, Error> {
        let failed = |error| Error::kernel(namespace.name(), "open a netlink socket", error);
        let inside = namespace.clone();
        let runtime = runtime::Handle::current();
        let opened = task::spawn_blocking(move || {
            inside.run_in(|| {
                // The socket registers with the runtime of the thread on which it is opened.
                let _guard = runtime.enter();
                rtnetlink::new_connection()
            })
        });
        let opened = opened.await.map_err(|error| failed(error.into()))?;
        let (mut connection, handle, _) = opened?.map_err(failed)?;
        // Without these an answer looks the same as a socket that closed.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { handle, namespace: namespace.clone(), _task: Arc::new(task) })
    }

    /// The namespace in which the socket lives.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Asks for a change and waits for the kernel's word that it is made.
    pub(crate) async fn change(
        &self,
        action: impl Into<String>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.exchange(action, message, NLM_F_ACK | flags).await.map(drop)
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        action: impl Into<String>,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        Ok(self.exchange(action, message, 0).await?.messages.pop())
    }

    /// Asks for a whole list. It is one consistent list, or after [`DUMP_TRIES_MAX`] tries, in a
    /// namespace that never rests, a list in which what came or went meanwhile may lack.
    pub(crate) async fn dump(
        &self,
        action: impl Into<String>,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let action = action.into();
        let mut answer = Answer::default();
        for _ in 0..DUMP_TRIES_MAX {
            answer = self.exchange(action.clone(), message.clone(), NLM_F_DUMP).await?;
            if !answer.was_interrupted {
                break;
            }
        }
        Ok(answer.messages)
    }

    async fn exchange(
        &self,
        action: impl Into<String>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answer, Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let seconds = ANSWER_SECONDS_MAX;
        match timeout(Duration::from_secs(seconds), self.collect(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Refusal::Errno(errno))) => {
                Err(Error::kernel(self.namespace.name(), action.into(), errno))
            }
            Ok(Err(Refusal::TooMany)) => Err(Error::TooMany {
                namespace: self.namespace.name().to_owned(),
                action: action.into(),
                limit: LIST_MAX,
            }),
            Ok(Err(Refusal::Closed)) => Err(Error::Closed {
                namespace: self.namespace.name().to_owned(),
                action: action.into(),
            }),
            Err(_) => Err(Error::Timeout {
                namespace: self.namespace.name().to_owned(),
                action: action.into(),
                seconds,
            }),
        }
    }

    async fn collect(
        &self,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<Answer, Refusal> {
        let is_list = request.header.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut handle = self.handle.clone();
        let mut replies = handle.request(request).map_err(|_| Refusal::Closed)?;
        let mut answer = Answer::default();
        let mut is_answered = false;
        while let Some(reply) = replies.next().await {
            answer.was_interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            let errno = match reply.payload {
                NetlinkPayload::InnerMessage(_) if answer.messages.len() == LIST_MAX => {
                    return Err(Refusal::TooMany);
                }
                NetlinkPayload::InnerMessage(message) => {
                    answer.messages.push(message);
                    is_answered |= !is_list;
                    continue;
                }
                NetlinkPayload::Error(error) => error.raw_code(),
                NetlinkPayload::Done(done) => done.code,
                NetlinkPayload::Overrun(_) => -(Errno::ENOBUFS as i32),
                _ => continue,
            };
            if errno != 0 {
                return Err(Refusal::Errno(Errno::from_raw(errno.saturating_abs())));
            }
            is_answered = true;
        }
        if is_answered { Ok(answer) } else { Err(Refusal::Closed) }
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// Something changed while the kernel wrote the list; it may be incomplete.
    was_interrupted: bool,
}

enum Refusal {
    Errno(Errno),
    TooMany,
    Closed,
}
