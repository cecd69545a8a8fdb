//! The client's half of the load. Each kind runs for a given time, and measures at the far end
//! what arrived there.

use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
};
use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    serve::{BATCH, CLOSED, COUNT, ECHO, ONCE, PATIENCE, SINK},
    stats, syn,
};

/// With 42 bytes of headers and 4 of checksum a frame of 64 bytes.
const PAYLOAD_BYTES: usize = 18;

/// What a client does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// One TCP stream: Gbit/s of payload until the last byte was read at the far end.
    Stream,
    /// One byte to and fro over one TCP connection: p50 and p99 of the round trip, µs.
    RequestResponse,
    /// Connect, one byte to and fro, close, one after the other: connections per second.
    Connect,
    /// Frames of 64 bytes over UDP, as fast as one sender can: those received, 1,000 per second.
    SmallFrames,
    /// Datagrams to ports that nobody has opened, [`FLOWS_PER_SECOND`], each a flow of its own:
    /// those sent, 1,000 per second.
    Flood,
    /// SYNs to a port that is open, each of a connection of its own, whose answers nobody takes: those
    /// sent, 1,000 per second.
    SynFlood,
    /// Whether the server answers at [`CLOSED`]: 1, or 0 if nothing comes back.
    Probe,
}

/// New flows of a flood.
pub(crate) const FLOWS_PER_SECOND: u32 = 20_000;
/// How many of them at once, and sockets that they come from.
pub(crate) const BURST: u16 = 20;
/// How long a probe waits: shorter than it takes until a SYN is sent again.
const PROBE: Duration = Duration::from_millis(300);

impl Load {
    /// Runs it.
    ///
    /// # Errors
    /// The server does not answer, or a connection fails.
    pub(crate) fn run(self, to: Ipv4Addr, time: Duration) -> Result<Vec<f64>, Failure> {
        match self {
            Self::Stream => stream(to, time),
            Self::RequestResponse => request_response(to, time),
            Self::Connect => connect(to, time),
            Self::SmallFrames => small_frames(to, time),
            Self::Flood => flood(to, time),
            Self::SynFlood => syn::flood(to, ONCE, time),
            Self::Probe => probe(to),
        }
    }
}

fn stream(to: Ipv4Addr, time: Duration) -> Result<Vec<f64>, Failure> {
    let mut stream = open(to, SINK)?;
    let buffer = vec![0; 1 << 17];
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let bytes = read_number(&mut stream)?;
    Ok(vec![bytes * 8.0 / 1e9 / start.elapsed().as_secs_f64()])
}

fn request_response(to: Ipv4Addr, time: Duration) -> Result<Vec<f64>, Failure> {
    let mut stream = open(to, ECHO)?;
    let (mut byte, mut micros) = ([0], Vec::with_capacity(1 << 16));
    let start = Instant::now();
    while start.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        micros.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(vec![stats::quantile(&micros, 0.5), stats::quantile(&micros, 0.99)])
}

fn connect(to: Ipv4Addr, time: Duration) -> Result<Vec<f64>, Failure> {
    let (mut byte, mut connections) = ([0], 0_usize);
    let start = Instant::now();
    while start.elapsed() < time {
        let mut stream = open(to, ONCE)?;
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        // The server's close.
        if stream.read(&mut byte)? != 0 {
            return Err("the server sent more than it should".into());
        }
        connections += 1;
    }
    Ok(vec![stats::count(connections) / start.elapsed().as_secs_f64()])
}

fn small_frames(to: Ipv4Addr, time: Duration) -> Result<Vec<f64>, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, COUNT))?;
    let payload = [0; PAYLOAD_BYTES];
    let (slices, nowhere) = ([[IoSlice::new(&payload)]; BATCH], [None::<SockaddrIn>; BATCH]);
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let before = read_number(&mut open(to, COUNT)?)?;
    let start = Instant::now();
    while start.elapsed() < time {
        let (fd, none) = (socket.as_raw_fd(), MsgFlags::empty());
        match sendmmsg(fd, &mut headers, &slices, nowhere, [], none) {
            // What the sender cannot get rid of is not received either.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let after = read_number(&mut open(to, COUNT)?)?;
    Ok(vec![(after - before) / seconds / 1e3])
}

fn flood(to: Ipv4Addr, time: Duration) -> Result<Vec<f64>, Failure> {
    let sockets = (0..BURST).map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let pause = Duration::from_secs(1) * u32::from(BURST) / FLOWS_PER_SECOND;
    let (start, mut sent, mut port) = (Instant::now(), 0_u32, 0_u16);
    while start.elapsed() < time {
        port = port.checked_add(1).unwrap_or(1);
        if port == SINK {
            // The server's own ports follow.
            port += 10;
        }
        for socket in &sockets {
            // Refused ones are told to the socket that sent before.
            let _ = socket.send_to(&[0], (to, port));
        }
        sent += u32::from(BURST);
        thread::park_timeout((pause * (sent / u32::from(BURST))).saturating_sub(start.elapsed()));
    }
    Ok(vec![f64::from(sent) / start.elapsed().as_secs_f64() / 1e3])
}

fn probe(to: Ipv4Addr) -> Result<Vec<f64>, Failure> {
    match TcpStream::connect_timeout(&SocketAddr::from((to, CLOSED)), PROBE) {
        Ok(_) => Ok(vec![1.0]),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(vec![0.0]),
        // Whoever refuses has got it.
        Err(error) => Err(error.into()),
    }
}

fn open(to: Ipv4Addr, port: u16) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A count that the server sends, as a number to calculate with.
fn read_number(stream: &mut TcpStream) -> Result<f64, Failure> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(stats::count(usize::try_from(u64::from_be_bytes(bytes))?))
}
