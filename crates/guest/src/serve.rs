//! Brings all of it up, and keeps it up.
//!
//! The agent's own namespace has no name and no files: it is there as long as the agent, and nothing is
//! left of it however the agent ends.

use std::{
    future::poll_fn,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use hostnet::{Namespace, To, Tun};
use nix::sys::socket::{setsockopt, sockopt};
use seats::{Entrance, Seat, Seats};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Handed, Shared,
    address::{self, End, PREFIX_BITS},
    dns, http,
    relay::{self, Deliver, Relay},
};

/// In its own namespace nobody else has devices.
const DEVICE: &str = "guests";
/// The least that IPv6 asks of a link: every guest's network takes it.
const MTU_BYTES: u32 = 1280;
/// How much a guest may send before it has to wait for us: one segment of this MTU. What it leaves to its
/// device to segment is then never longer than what is handed to the agent.
const WINDOW_BYTES: u32 = MTU_BYTES - 60;
/// Of these the kernel offers about half as window. It holds to that where newer kernels forget what the route
/// says, with the first long segment (`tcp_measure_rcv_mss` of Linux 6.6).
const RECEIVE_BYTES: usize = 1152;
/// How long a guest may leave what it was sent unconfirmed.
const UNREAD: Duration = Duration::from_secs(30);
/// Connections, and those of one port.
const SEATS: usize = 1024;
const SEATS_PER_PORT: usize = 16;
/// How often what is gone is forgotten.
const TIDY: Duration = Duration::from_secs(10);
/// After how long it is tried again when something fails.
const AGAIN: Duration = Duration::from_secs(5);

/// Answers guests until told to stop; `deliver` gets each frame with the interface that it leaves by. What cannot be brought up is tried again.
pub async fn serve(
    shared: Arc<Shared>,
    mut frames: mpsc::Receiver<Handed>,
    deliver: impl Fn(u32, &[u8]) + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let deliver: Deliver = Arc::new(deliver);
    let work = async {
        loop {
            if let Err(error) = attempt(&shared, &mut frames, &deliver).await {
                tracing::warn!(%error, "guests get neither metadata nor names; trying again");
            }
            sleep(AGAIN).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn attempt(
    shared: &Arc<Shared>,
    frames: &mut mpsc::Receiver<Handed>,
    deliver: &Deliver,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (namespace, tun) = bring_up().await?;
    let metadata = entrance(&namespace, 80)?;
    let names = entrance(&namespace, 53)?;
    let relay = Relay::new(Arc::clone(shared), tun, Arc::clone(deliver));
    tokio::select! {
        ended = carry(relay, frames) => ended?,
        () = welcome(metadata, shared, http::attend) => {}
        () = welcome(names, shared, dns::attend) => {}
    }
    Ok(())
}

/// The namespace, with a TUN device that all guests are behind.
async fn bring_up() -> Result<(Namespace, Tun), hostnet::Error> {
    let namespace = Namespace::unnamed("the guests' namespace")?;
    namespace.sysctls(&[
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        // No addresses of its own: nobody needs to look for neighbours.
        ("net/ipv6/conf/default/addr_gen_mode", "1"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    ])?;
    let tun = namespace.tun(DEVICE)?;
    let netlink = namespace.netlink().await?;
    for name in ["lo", DEVICE] {
        let link = netlink.existing(name).await?;
        if name == DEVICE {
            netlink.set_mtu(link.index, MTU_BYTES).await?;
        }
        netlink.set_up(link.index).await?;
        if name == DEVICE {
            let to = To::Device(link.index, WINDOW_BYTES);
            netlink.route_add(End::Guest.network().into(), PREFIX_BITS, to).await?;
        }
    }
    netlink.route_add(End::Asked.network().into(), PREFIX_BITS, To::Here).await?;
    Ok((namespace, tun))
}

fn entrance(
    namespace: &Namespace,
    port: u16,
) -> Result<Entrance, Box<dyn std::error::Error + Send + Sync>> {
    let listener = namespace
        .run_in(|| TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))??;
    // Accepted sockets inherit it (tcp(7), TCP_USER_TIMEOUT).
    let unread_ms = u32::try_from(UNREAD.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&listener, sockopt::TcpUserTimeout, &unread_ms)?;
    // The kernel doubles it, and it is its least.
    setsockopt(&listener, sockopt::RcvBuf, &RECEIVE_BYTES)?;
    let seats = Arc::new(Seats::new(SEATS, SEATS_PER_PORT));
    Ok(Entrance::new(listener, seats)?.counting(address::source))
}

/// Serves all who connect.
async fn welcome<F: Future<Output = ()> + Send + 'static>(
    mut entrance: Entrance,
    shared: &Arc<Shared>,
    attend: impl Fn(Arc<Shared>, TcpStream, SocketAddr, Seat) -> F,
) {
    let mut guests = JoinSet::new();
    loop {
        let newcomer = poll_fn(|cx| entrance.poll_next(cx)).await;
        while guests.try_join_next().is_some() {}
        // All are at work; the guest sees a closed connection.
        let Ok(seat) = newcomer.seat else { continue };
        guests.spawn(attend(Arc::clone(shared), newcomer.stream, newcomer.peer, seat));
    }
}

/// Carries frames to and fro; ends with an error of the device, or for good when nobody hands frames
/// over any more.
async fn carry(mut relay: Relay, frames: &mut mpsc::Receiver<Handed>) -> std::io::Result<()> {
    let mut buffer = relay::buffer();
    let mut tick = interval(TIDY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Neither loses anything when the other is faster.
        tokio::select! {
            handed = frames.recv() => match handed {
                Some(handed) => relay.take(&handed),
                None => return std::future::pending().await,
            },
            length = relay.tun.receive(&mut buffer) => relay.outward(&buffer[..length?]),
            _ = tick.tick() => relay.tidy(),
        }
    }
}

#[cfg(test)]
mod tests;
