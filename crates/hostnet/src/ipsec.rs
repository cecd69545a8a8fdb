//! Whether a namespace has IPsec policies: what says which packets to and from it are to be
//! encrypted, let through or dropped.

use std::{io, time::Duration};

use futures_util::{Stream, StreamExt};
use netlink_packet_xfrm::{
    XfrmMessage,
    constants::XFRMNLGRP_POLICY,
    policy::{GetSpdInfoMessage, SpdInfoAttrs},
};
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    proto,
    sys::{AsyncSocket, SocketAddr, protocols::NETLINK_XFRM},
};
use tokio::{runtime, task, task::JoinSet, time::timeout};

use crate::{Error, Namespace};

const ACTION: &str = "count IPsec policies";
/// The kernel has counted them already.
const ANSWER_SECONDS_MAX: u64 = 10;

impl Namespace {
    /// How many IPsec policies there are for packets that come in or go out, but for those of single
    /// sockets. A kernel without IPsec has none.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn ipsec_policies(&self) -> Result<u64, Error> {
        let inside = self.clone();
        let failed = |error: io::Error| Error::kernel(self.name(), ACTION, error);
        let runtime = runtime::Handle::current();
        let opened = task::spawn_blocking(move || {
            inside.run_in(|| {
                // The socket registers with the runtime of the thread on which it is opened.
                let _guard = runtime.enter();
                proto::new_connection::<XfrmMessage>(NETLINK_XFRM)
            })
        });
        let opened = opened.await.map_err(|error| failed(error.into()))?;
        let Some((connection, handle, _)) = known(opened?).map_err(failed)? else { return Ok(0) };
        // Serves the socket; aborted when dropped.
        let mut serving = JoinSet::new();
        serving.spawn(connection);
        let all = GetSpdInfoMessage { flags: u32::MAX };
        let mut request = NetlinkMessage::from(XfrmMessage::GetSpdInfo(all));
        request.header.flags = NLM_F_REQUEST;
        let closed = || Error::Closed { namespace: self.name().to_owned(), action: ACTION.into() };
        let mut replies = handle.request(request, SocketAddr::new(0, 0)).map_err(|_| closed())?;
        let seconds = ANSWER_SECONDS_MAX;
        let reply = timeout(Duration::from_secs(seconds), replies.next()).await;
        let reply = reply.map_err(|_| Error::Timeout {
            namespace: self.name().to_owned(),
            action: ACTION.into(),
            seconds,
        })?;
        match reply.ok_or_else(closed)?.payload {
            NetlinkPayload::InnerMessage(XfrmMessage::NewSpdInfo(told)) => Ok(count(&told.nlas)),
            NetlinkPayload::Error(error) => Err(failed(error.to_io())),
            _ => Err(closed()),
        }
    }
}

/// A kernel without IPsec has no such socket.
fn known<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What serves a socket that is told when policies come or go in the namespace of the calling
/// thread, and what it is told; nothing without IPsec.
pub(crate) fn listen()
-> io::Result<Option<(impl Future<Output = ()> + Send, impl Stream<Item = ()> + Send)>> {
    let opened = known(proto::new_connection::<XfrmMessage>(NETLINK_XFRM))?;
    let Some((mut connection, _, messages)) = opened else { return Ok(None) };
    let groups = 1 << (XFRMNLGRP_POLICY - 1);
    connection.socket_mut().socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(Some((connection, messages.map(|_| ()))))
}

fn count(told: &[SpdInfoAttrs]) -> u64 {
    let of = |attribute: &SpdInfoAttrs| match attribute {
        SpdInfoAttrs::SpdInfo(info) => u64::from(info.incnt) + u64::from(info.outcnt),
        _ => 0,
    };
    told.iter().map(of).sum()
}
