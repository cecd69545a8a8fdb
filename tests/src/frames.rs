//! Raw frames, as a VM with root inside can send them.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use hostnet::Namespace;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        socket,
    },
};

/// A packet socket on `eth0` of a VM.
pub struct Wire {
    socket: OwnedFd,
    device: LinkAddr,
    /// The device's own address.
    pub mac: [u8; 6],
}

impl Wire {
    /// Opens it inside the VM.
    pub fn open(vm: &Namespace) -> Self {
        vm.run_in(|| {
            let addresses = getifaddrs().unwrap().filter(|found| found.interface_name == "eth0");
            let mut links = addresses.filter_map(|found| found.address?.as_link_addr().copied());
            let device = links.next().expect("the VM has an eth0");
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let all = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
            bind(socket.as_raw_fd(), &device).unwrap();
            Self { socket, device, mac: device.addr().unwrap() }
        })
        .unwrap()
    }

    /// Sends a whole Ethernet frame.
    pub fn send(&self, frame: &[u8]) {
        let flags = MsgFlags::empty();
        sendto(self.socket.as_raw_fd(), frame, &self.device, flags).unwrap();
    }

    /// The next frame that has come in or gone out, if one waits.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// Whether a frame with `marker` anywhere in it comes in within `limit`.
    pub fn hears(&self, marker: &[u8], limit: Duration) -> bool {
        let mut buffer = vec![0; 2048];
        lab::wait::holds(limit, || {
            loop {
                match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) if contains(&buffer[..length], marker) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        })
    }
}

fn contains(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|window| window == marker)
}

/// An Ethernet frame.
pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// A UDP datagram in IPv4, without a UDP checksum (RFC 768 allows that).
pub fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let header = [port.to_be_bytes(), port.to_be_bytes(), length, [0, 0]].concat();
    ipv4((from, to), 17, &[&header, payload].concat())
}

/// An ICMP echo request (8) or reply (0) in IPv4 (RFC 792).
pub fn echo((from, to): (Ipv4Addr, Ipv4Addr), kind: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message.extend(payload);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    ipv4((from, to), 1, &message)
}

fn ipv4((from, to): (Ipv4Addr, Ipv4Addr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(pair).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()).to_be_bytes()
}

/// An ARP packet (RFC 826) that says `ip` is at `mac`; `operation` 1 asks, 2 answers.
pub fn arp(operation: u16, mac: [u8; 6], ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let start = [0, 1, 8, 0, 6, 4];
    [&start[..], &operation.to_be_bytes(), &mac, &ip.octets(), &[0; 6], &target.octets()].concat()
}

/// A VXLAN header (RFC 7348) in front of a frame.
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}

/// An IPv4 packet of GRE with this start of its header and this key (RFC 2890), around a frame.
pub fn gre((from, to): (Ipv4Addr, Ipv4Addr), start: u16, key: u32, frame: &[u8]) -> Vec<u8> {
    let gre = [&start.to_be_bytes()[..], &[0x65, 0x58], &key.to_be_bytes(), frame].concat();
    let mut packet = udp(from, to, 0, &gre[8..]);
    packet[9] = 47;
    packet.splice(20.., gre);
    // The header's checksum of another protocol: UDP is 17.
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]]));
    let sum = match sum.checked_sub(47 - 17) {
        Some(sum) => sum,
        None => sum + 0xffff - (47 - 17),
    };
    packet[10..12].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    packet
}

/// A UDP socket inside a VM that takes what comes.
pub fn listener(vm: &Namespace, ip: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = vm.run_in(|| UdpSocket::bind((ip, port))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Whether a datagram has come in.
pub fn has_got(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}
