//! The server's half of the load: it takes, echoes and counts what a client sends.
//!
//! Runs in a process of its own that ends with its parent, so its loops need no other bound.

use std::{
    io::{self, ErrorKind, IoSliceMut, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt, sockopt::RcvBufForce,
};

use crate::{
    Failure,
    node::{CLIENT_CPU, pin},
};

/// Takes a stream and answers with its length.
pub(crate) const SINK: u16 = 7000;
/// Sends back what it gets.
pub(crate) const ECHO: u16 = 7001;
/// Sends back one byte and closes.
pub(crate) const ONCE: u16 = 7002;
/// UDP: counts datagrams; TCP: tells how many there were.
pub(crate) const COUNT: u16 = 7003;
/// As [`ONCE`]; what is filtered is closed here, and open at the others.
pub(crate) const CLOSED: u16 = 7004;
/// How long anything that is a matter of microseconds may take before it counts as broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams per system call.
pub(crate) const BATCH: usize = 64;

/// So much that a pause of the reader loses nothing.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Opens all ports and serves them on threads.
///
/// # Errors
/// A port is taken, or there are no threads left.
pub(crate) fn start() -> Result<(), Failure> {
    let datagrams = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&datagrams);
    listen(SINK, |stream| {
        pin(CLIENT_CPU)?;
        sink(stream)
    })?;
    listen(ECHO, echo)?;
    listen(ONCE, once)?;
    listen(CLOSED, once)?;
    listen(COUNT, move |mut stream| {
        stream.write_all(&counted.load(Ordering::Relaxed).to_be_bytes())
    })?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, COUNT))?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    thread::Builder::new().spawn(move || count(&socket, &datagrams))?;
    Ok(())
}

fn listen(
    port: u16,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + 'static,
) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::Builder::new().spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away early fails on its own side.
            let _ = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| serve(stream));
        }
    })?;
    Ok(())
}

/// On the client's CPU. With two, both would send: the client's what is written, the server's what
/// an acknowledgement lets go; a veth keeps no order between CPUs, and TCP takes that for loss.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0_u64);
    loop {
        let bytes = match stream.read(&mut buffer) {
            Ok(0) => return stream.write_all(&total.to_be_bytes()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += u64::try_from(bytes).unwrap_or(0);
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Closes first, so that the server's end, not the client's port, stays in TIME_WAIT.
fn once(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)
}

fn count(socket: &UdpSocket, datagrams: &AtomicU64) {
    let mut buffers = [[0_u8; 128]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    loop {
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None);
        let Ok(received) = received else { continue };
        let received = u64::try_from(received.count()).unwrap_or(0);
        datagrams.fetch_add(received, Ordering::Relaxed);
    }
}
