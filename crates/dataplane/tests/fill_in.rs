//! Checksums that are filled in after the decision, with real packets and real devices. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::Port;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, setsockopt, socket,
};
use nix::{libc, setsockopt_impl, sockopt_impl};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;
use support::ethtool::{OFFLOADS, switch_off};
use support::vm::{Hosts, mac, v4};
use support::{Namespace, may_run};

const LIMIT: Duration = Duration::from_secs(5);

sockopt_impl!(
    /// `PACKET_VNET_HDR`: each frame has a `struct virtio_net_hdr` before it.
    VnetHeader,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool
);

/// Sends a datagram to port 80 of VM `to`, and asks for the sum of what follows `start` to be
/// written at `start + offset`.
///
/// The source port is such that the sum is 22 if it covers the ports and nothing else.
fn send(from: &Namespace, to: u32, (start, offset): (u16, u16)) {
    from.run(move || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let all = SockProtocol::EthAll;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
        setsockopt(&socket, VnetHeader, &true).unwrap();
        let mut frame = vec![1, 0, 0, 0, 0, 0];
        frame.extend(start.to_ne_bytes());
        frame.extend(offset.to_ne_bytes());
        frame.extend(mac(to).0);
        frame.extend(mac(1).0);
        frame.extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17]);
        let words = |address: Ipv4Addr| {
            let [a, b, c, d] = address.octets();
            u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]))
        };
        let fold = |sum: u32| u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        let addresses = words(v4(1)) + words(v4(to));
        let header = fold(0x4500 + 32 + 1 + 0x4000 + 0x4011 + addresses);
        frame.extend((!header).to_be_bytes());
        frame.extend(v4(1).octets());
        frame.extend(v4(to).octets());
        let ports = [!22_u16 - 80, 80];
        frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        // What is to be summed with the rest (RFC 768), or no checksum.
        let pseudo = if offset == 6 { fold(addresses + 17 + 12) } else { 0 };
        frame.extend([0, 12]);
        frame.extend(pseudo.to_be_bytes());
        // It makes up for the length.
        frame.extend((!12_u16).to_be_bytes());
        frame.extend([0; 2]);
        let device = device();
        let sent = sendto(socket.as_raw_fd(), &frame, &device, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    });
}

/// `eth0` of the calling thread's namespace.
fn device() -> LinkAddr {
    let all = nix::ifaddrs::getifaddrs().unwrap();
    let mut links = all.filter(|found| found.interface_name == "eth0");
    links.find_map(|found| found.address?.as_link_addr().copied()).unwrap()
}

fn inbox(vm: &Namespace, number: u32, port: u16) -> UdpSocket {
    let socket = vm.run(move || UdpSocket::bind((v4(number), port)).unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let found = socket.recv(&mut [0; 64]).map_err(|error| error.kind());
    matches!(found, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Where the sum of a frame's ports and of what follows goes over the destination port.
const OVER_THE_PORT: (u16, u16) = (34, 2);

#[test]
fn a_checksum_over_the_port_brings_no_packet_to_another_port() {
    if !may_run("a_checksum_over_the_port_brings_no_packet_to_another_port") {
        return;
    }
    // Delivered through interfaces that leave nothing to the receiver, as a tap may be.
    let hosts = Hosts::up(0);
    switch_off("port3", &OFFLOADS);
    hosts.far.run(|| switch_off("port2", &OFFLOADS));
    switch_off("under0", &OFFLOADS);
    let sender = &hosts.vm(1).inside;
    for number in [2, 3] {
        let receiver = &hosts.vm(number).inside;
        let [asked, forged] = [80, 22].map(|port| inbox(receiver, number, port));
        // The same frame with the sum where it belongs arrives, so it is right.
        send(sender, number, (34, 6));
        assert!(asked.recv(&mut [0; 64]).is_ok(), "VM {number}");
        let before = hosts.drops("checksum_misplaced");
        send(sender, number, OVER_THE_PORT);
        assert!(is_silent(&forged), "VM {number}: sent to port 80, arrived at port 22");
        assert!(is_silent(&asked), "VM {number}");
        assert_eq!(hosts.drops("checksum_misplaced") - before, 1, "VM {number}");
    }
}

/// Field case F12.
#[test]
fn tcp_works_whatever_the_devices_leave_to_each_other() {
    if !may_run("tcp_works_whatever_the_devices_leave_to_each_other") {
        return;
    }
    let hosts = Hosts::up(Port::PEER);
    let [one, two] = [1, 2].map(|number| &hosts.vm(number).inside);
    support::traffic::transfer(one, two, v4(2).into());
    for vm in [one, two] {
        vm.run(|| switch_off("eth0", &OFFLOADS));
        support::traffic::transfer(one, two, v4(2).into());
        support::traffic::transfer(two, one, support::vm::v6(1).into());
    }
    switch_off("under0", &OFFLOADS);
    hosts.far.run(|| switch_off("under0", &OFFLOADS));
    support::traffic::transfer(one, two, v4(2).into());
    support::traffic::transfer(two, one, support::vm::v6(1).into());
}
