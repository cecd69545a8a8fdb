//! A connection, and what it may take before anybody knows whose it is.
//!
//! Whoever connects is a guest with a seat and a deadline, which the TLS handshake, an Enrol and a
//! stream's Hello share. A stream that is admitted makes the connection a host's: it
//! has neither seat nor deadline then, for there is one for each host. When the stream ends it is a
//! guest's again. The longest message that a connection may send follows: a guest has a few
//! kilobytes, a host as much as a report about what it holds can take.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use seats::{Entrance, Newcomer, Seat, Seats};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TlsConnectInfo};
use wire::MESSAGE_BYTES_MAX;

/// Longest message of a guest: an enrolment with its signing request, or a Hello.
pub(crate) const GUEST_BYTES_MAX: usize = 16 * 1024;

/// What a host's report may take whatever it holds: reasons, and objects of which the server does
/// not know.
const REPORT_BYTES: usize = 1024 * 1024;

/// What a host's report may take for each object that it holds: it can be up, and it can have
/// failed.
const REPORT_BYTES_PER_OBJECT: usize = 64;

/// What connections may take that are not, or not yet, a host's.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Such connections at a time. So many handshakes at a time are enough when all hosts come back
    /// at once.
    pub guests_max: usize,
    /// Those of one address, or one IPv6 /64. Loopback is exempt.
    pub guests_per_source_max: usize,
    /// How long one may be open: time for a handshake, and for an enrolment on a busy server.
    pub guest_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let guest_wait = Duration::from_secs(15);
        Self { guests_max: 1024, guests_per_source_max: 256, guest_wait }
    }
}

/// The listening socket, as a stream of connections with seats.
pub(crate) struct Guests {
    entrance: Entrance,
    seats: Arc<Seats>,
    wait: Duration,
}

/// What the server knows of a connection.
#[derive(Debug)]
pub(crate) struct Guest {
    seats: Arc<Seats>,
    source: IpAddr,
    wait: Duration,
    stage: watch::Sender<Stage>,
    message_bytes_max: AtomicUsize,
}

#[derive(Clone, Debug)]
enum Stage {
    /// A guest, until then.
    Guest(Arc<Seat>, Instant),
    /// A host with a stream.
    Host,
    /// No seat was free when its stream ended.
    Over,
}

/// A socket that ends when its guest loses the seat or is late.
pub(crate) struct Connection {
    stream: TcpStream,
    guest: Arc<Guest>,
    /// `None` once it has ended.
    end: Option<End>,
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a call knows of its connection.
pub(crate) type ConnectionInfo = TlsConnectInfo<Arc<Guest>>;

impl Guests {
    pub(crate) fn new(listener: std::net::TcpListener, limits: Limits) -> io::Result<Self> {
        let Limits { guests_max, guests_per_source_max, guest_wait: wait } = limits;
        let seats = Arc::new(Seats::new(guests_max, guests_per_source_max));
        Ok(Self { entrance: Entrance::new(listener, Arc::clone(&seats))?, seats, wait })
    }
}

impl Stream for Guests {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Newcomer { stream, peer, seat } = ready!(self.entrance.poll_next(cx));
            // Guests are never at work, so there is a seat unless there are to be none.
            let Ok(seat) = seat else { continue };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "the connection is gone already");
                continue;
            }
            let (seats, source, wait) = (Arc::clone(&self.seats), peer.ip(), self.wait);
            let (stage, ends) = watch::channel(Stage::of(seat, wait));
            let message_bytes_max = AtomicUsize::new(GUEST_BYTES_MAX);
            let guest = Arc::new(Guest { seats, source, wait, stage, message_bytes_max });
            let end: End = Box::pin(end(ends));
            return Poll::Ready(Some(Ok(Connection { stream, guest, end: Some(end) })));
        }
    }
}

impl Guest {
    /// Where it comes from.
    pub(crate) fn source(&self) -> IpAddr {
        self.source
    }

    /// The connection has a host's stream from now on.
    pub(crate) fn becomes_host(&self) {
        self.stage.send_replace(Stage::Host);
    }

    /// The host's stream has ended.
    pub(crate) fn becomes_guest(&self) {
        self.message_bytes_max.store(GUEST_BYTES_MAX, Ordering::Relaxed);
        let stage = self.seats.take(self.source);
        let stage = stage.map_or(Stage::Over, |seat| Stage::of(seat, self.wait));
        self.stage.send_replace(stage);
    }

    /// The host holds so many objects, or is about to: its reports may be as long as that takes.
    pub(crate) fn allow_reports_on(&self, objects: usize) {
        let bytes = REPORT_BYTES.saturating_add(objects.saturating_mul(REPORT_BYTES_PER_OBJECT));
        // A report may still speak of objects that are on their way out.
        self.message_bytes_max.fetch_max(bytes.min(MESSAGE_BYTES_MAX), Ordering::Relaxed);
    }

    /// The longest message that may come now, in bytes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max.load(Ordering::Relaxed)
    }
}

impl Stage {
    fn of(seat: Seat, wait: Duration) -> Self {
        Self::Guest(Arc::new(seat), Instant::now() + wait)
    }
}

/// Returns when a connection has to end.
async fn end(mut stage: watch::Receiver<Stage>) {
    loop {
        let now = stage.borrow_and_update().clone();
        let changed = match now {
            Stage::Over => return,
            Stage::Host => stage.changed().await,
            // The next stage counts, whatever else is due.
            Stage::Guest(seat, until) => tokio::select! {
                biased;
                changed = stage.changed() => changed,
                () = seat.lost() => return,
                () = sleep_until(until) => return,
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Connection {
    /// Fails once the connection has to end. Whoever reads or writes is woken then.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            self.end = None;
        }
        match self.end {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "no host has said who it is")),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Guest>;

    fn connect_info(&self) -> Arc<Guest> {
        Arc::clone(&self.guest)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }
}
