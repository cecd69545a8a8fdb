//! Packets that VMs send each other.

use super::Namespace;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How long anything may take that happens.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// Sends an echo request inside the namespace; whether the reply came in time.
pub(crate) fn ping(from: &Namespace, to: Ipv4Addr, limit: Duration) -> bool {
    from.run(move || {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        let family = AddressFamily::Inet;
        let socket =
            socket(family, SockType::Datagram, SockFlag::empty(), SockProtocol::Icmp).unwrap();
        let timeout = nix::sys::time::TimeVal::new(
            i64::try_from(limit.as_secs()).unwrap(),
            i64::from(limit.subsec_micros()),
        );
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).unwrap();
        let target = SockaddrIn::from(SocketAddrV4::new(to, 0));
        let request = [8, 0, 0, 0, 0, 0, 0, 1, b'n', b'l'];
        let flags = MsgFlags::empty();
        sendto(socket.as_raw_fd(), &request, &target, flags).unwrap();
        let mut reply = [0; 64];
        match recv(socket.as_raw_fd(), &mut reply, flags) {
            Ok(length) => length == request.len() && reply[0] == 0,
            Err(_) => false,
        }
    })
}

/// Moves a megabyte over TCP, which is mostly GSO frames without checksums if the devices allow.
pub(crate) fn transfer(from: &Namespace, to: &Namespace, address: IpAddr) {
    let listener = to.run(move || TcpListener::bind((address, 7_000)).unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(b"done").unwrap();
        bytes.len()
    });
    let answer = from.run(move || {
        let mut stream = TcpStream::connect_timeout(&(address, 7_000).into(), LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(&vec![7; 1 << 20]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(answer, "done");
    assert_eq!(server.join().unwrap(), 1 << 20);
}

/// Runs `ping` inside; what it said, and whether all was answered.
pub(crate) fn ping_command(from: &Namespace, arguments: &str) -> (bool, String) {
    let arguments = arguments.to_owned();
    from.run(move || {
        let output =
            std::process::Command::new("ping").args(arguments.split_whitespace()).output().unwrap();
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.success(), said.concat())
    })
}
