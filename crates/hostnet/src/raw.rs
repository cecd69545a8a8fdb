//! Whole IP packets, past the sockets of whoever owns their ports, but not past the firewall: what is
//! sent goes through the kernel's routing and netfilter, and what is heard has come through both.
//!
//! Source: raw(7), ipv6(7); `raw_local_deliver` in Linux' `net/ipv4/raw.c` hands a copy of each
//! datagram to raw sockets before its own socket gets it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

/// Bytes of datagrams that may wait for the listener.
const BUFFER_BYTES: usize = 1 << 20;

/// `IPPROTO_RAW`: the packet has its IP header already.
const WHOLE: i32 = 255;
const UDP: i32 = 17;

/// Sends whole packets of one family.
#[derive(Debug)]
pub struct PacketSender(Socket);

impl PacketSender {
    /// In the network namespace of the caller's thread. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(is_ipv4: bool) -> io::Result<Self> {
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(WHOLE)))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a packet to where its header says, whole: one that does not fit is refused.
    ///
    /// # Errors
    /// The kernel's, such as that there is no route or that it is longer than the device's MTU.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        self.0.send_to(packet, &SocketAddr::new(to, 0).into()).map(drop)
    }
}

/// Hears UDP datagrams of one family that begin in a certain way.
#[derive(Debug)]
pub struct DatagramListener {
    /// The kernel tells a raw socket's senders as it does those of a UDP socket.
    socket: UdpSocket,
    is_ipv4: bool,
}

/// A datagram that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who has sent it.
    pub from: IpAddr,
    /// Where its UDP header begins in the buffer, and where it ends.
    pub start: usize,
    /// The same.
    pub end: usize,
}

impl DatagramListener {
    /// Of those to this port whose payload begins with this word. The others cost the kernel a filter
    /// of a few instructions. In the network namespace of the caller's thread, inside of a runtime. Needs
    /// `CAP_NET_RAW`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(is_ipv4: bool, port: u16, word: u32) -> io::Result<Self> {
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(UDP)))?;
        // Until the filter is there, anything may come: none of it is read.
        socket.attach_filter(&filter(is_ipv4, port, word))?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(OwnedFd::from(socket).into())?;
        Ok(Self { socket, is_ipv4 })
    }

    /// Waits until one may be there. Dropping it loses nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Takes the next one, if one is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if none is.
    pub fn hear(&self, buffer: &mut [u8]) -> io::Result<Heard> {
        let (end, from) = self.socket.try_recv_from(buffer)?;
        // An IPv6 raw socket gives no IP header.
        let start = match (self.is_ipv4, buffer.first()) {
            (true, Some(first)) => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        Ok(Heard { from: from.ip(), start: start.min(end), end })
    }
}

/// The destination port, then the first word behind the UDP header. Opcodes are classic BPF's
/// (`linux/filter.h`); at the start is the IP header of IPv4, and the UDP header of IPv6.
fn filter(is_ipv4: bool, port: u16, word: u32) -> Vec<SockFilter> {
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const LOAD_IMMEDIATE_X: u16 = 0x01;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const LOAD_WORD_AT_X: u16 = 0x40;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let start = match is_ipv4 {
        true => SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        false => SockFilter::new(LOAD_IMMEDIATE_X, 0, 0, 0),
    };
    vec![
        start,
        SockFilter::new(LOAD_HALF_AT_X, 0, 0, 2),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, port.into()),
        SockFilter::new(LOAD_WORD_AT_X, 0, 0, 8),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, word),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
