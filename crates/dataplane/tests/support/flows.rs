//! Traffic that goes on while something is done, and what of it was lost.

use super::vm::{Vm, v4};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A hundred a second.
const PAUSE: Duration = Duration::from_millis(10);
/// What takes longer than this is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// A ping and a TCP connection from one VM to another, a hundred exchanges a second.
pub(crate) struct Flows {
    stop: Vec<Sender<()>>,
    ping: JoinHandle<Count>,
    tcp: JoinHandle<Count>,
    server: JoinHandle<()>,
}

/// Exchanges, and how many of them were not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

impl Flows {
    /// Starts both, and waits until each has had an answer.
    pub(crate) fn start(from: &Vm, to: &Vm) -> Flows {
        let target = v4(to.number);
        let listener = to.inside.run(move || TcpListener::bind((target, 7_100)).unwrap());
        let server = std::thread::spawn(move || serve(&listener));
        let stream = from.inside.run(move || {
            let stream = TcpStream::connect_timeout(&(target, 7_100).into(), PATIENCE).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        });
        let socket = from.inside.run(ping_socket);
        let (ready, has_begun) = channel();
        let (stop_ping, stopped) = channel();
        let begun = ready.clone();
        let ping = std::thread::spawn(move || {
            repeat(&stopped, &begun, |number| echo(&socket, SocketAddrV4::new(target, 0), number))
        });
        let (stop_tcp, stopped) = channel();
        let tcp = std::thread::spawn(move || {
            repeat(&stopped, &ready, |number| exchange(&stream, number).is_ok())
        });
        has_begun.recv().unwrap();
        has_begun.recv().unwrap();
        Flows { stop: vec![stop_ping, stop_tcp], ping, tcp, server }
    }

    /// Ends both; what became of the ping and of the TCP connection.
    pub(crate) fn stop(self) -> [Count; 2] {
        drop(self.stop);
        let counts = [self.ping.join().unwrap(), self.tcp.join().unwrap()];
        self.server.join().unwrap();
        counts
    }
}

/// Segments that TCP sent again in a VM: each is one that was lost.
pub(crate) fn sent_again(vm: &Vm) -> u64 {
    vm.inside.run(|| {
        let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut both = names.split(' ').zip(values.split(' '));
        both.find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
    })
}

fn repeat(stop: &Receiver<()>, begun: &Sender<()>, mut exchange: impl FnMut(u64) -> bool) -> Count {
    let mut count = Count::default();
    loop {
        count.lost += u64::from(!exchange(count.sent));
        count.sent += 1;
        if count.sent == 1 {
            let _ = begun.send(());
        }
        if stop.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return count;
        }
    }
}

fn serve(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = [0; 8];
    while stream.read_exact(&mut bytes).is_ok() {
        stream.write_all(&bytes).unwrap();
    }
}

fn exchange(mut stream: &TcpStream, number: u64) -> std::io::Result<()> {
    stream.write_all(&number.to_be_bytes())?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    assert_eq!(u64::from_be_bytes(bytes), number);
    Ok(())
}

fn ping_socket() -> OwnedFd {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let family = AddressFamily::Inet;
    let socket = socket(family, SockType::Datagram, SockFlag::empty(), SockProtocol::Icmp).unwrap();
    let timeout = nix::sys::time::TimeVal::new(i64::try_from(PATIENCE.as_secs()).unwrap(), 0);
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimeout, &timeout)
        .unwrap();
    socket
}

/// Whether an echo request is answered.
fn echo(socket: &OwnedFd, target: SocketAddrV4, number: u64) -> bool {
    let [.., high, low] = number.to_be_bytes();
    let request = [8, 0, 0, 0, 0, 0, high, low, b'n', b'l'];
    let target = SockaddrIn::from(target);
    sendto(socket.as_raw_fd(), &request, &target, MsgFlags::empty()).unwrap();
    let mut reply = [0; 64];
    // An answer that comes too late is not this one.
    while let Ok(length) = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()) {
        if length == request.len() && reply[0] == 0 && reply[6..8] == [high, low] {
            return true;
        }
    }
    false
}
