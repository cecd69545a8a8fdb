//! Accepts connections, and goes on when the system has none to give.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};

use crate::seats::{Full, Seat, Seats};

/// How long it rests when the system has no socket to give.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket with seats for those who come.
pub struct Entrance {
    listener: TcpListener,
    seats: Arc<Seats>,
    /// That nothing can be accepted was logged, and is not over yet.
    failing: bool,
    pause: Option<Pin<Box<Sleep>>>,
    who: fn(IpAddr) -> IpAddr,
}

/// Somebody who has connected.
pub struct Newcomer {
    /// The connection.
    pub stream: TcpStream,
    /// Where it comes from, IPv4 always as such.
    pub peer: SocketAddr,
    /// Its seat, if there is one.
    pub seat: Result<Seat, Full>,
}

impl Entrance {
    /// An entrance to `seats`.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub fn new(listener: std::net::TcpListener, seats: Arc<Seats>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, seats, failing: false, pause: None, who: |ip| ip })
    }

    /// Gives seats to another address than the one that is seen: who counts as one is known better
    /// than by [`source`](crate::source()).
    #[must_use]
    pub fn counting(mut self, who: fn(IpAddr) -> IpAddr) -> Self {
        self.who = who;
        self
    }

    /// The next newcomer. Nobody is lost when this is polled no more and later polled again.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Newcomer> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("connections are accepted again");
                    }
                    // A socket for both families shows IPv4, and so loopback, in IPv6 form.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let seat = self.seats.take((self.who)(peer.ip()));
                    return Poll::Ready(Newcomer { stream, peer, seat });
                }
                // That client is gone; the next one is not.
                Err(error)
                    if matches!(
                        error.kind(),
                        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
                    ) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, "no connection can be accepted; closing idle ones, \
                            trying again until it works");
                    }
                    self.seats.free_one();
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}
