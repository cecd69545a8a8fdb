//! VMs behind veths, and the network that they are in.

use super::{Namespace, ifindex, ip};
use netloom_dataplane::Tables;
use netloom_dataplane::packet::{
    Addr, AddrKey, Fdb, FdbKey, FdbTarget, Mac, Neigh, NeighKey, Port, PortKey,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, socket};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A VM behind a veth: the host side is `port<n>`, the inside is `eth0` with 10.0.0.<n>.
pub(crate) struct Vm {
    pub(crate) number: u32,
    pub(crate) inside: Namespace,
}

impl Vm {
    pub(crate) fn new(number: u32) -> Vm {
        let inside = Namespace::new();
        let mac = mac(number);
        let [a, b, c, d, e, f] = mac.0;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        let tid = inside.tid;
        ip(&format!("link add port{number} type veth peer name eth0 address {mac} netns {tid}"));
        ip(&format!("link set port{number} up"));
        inside.ip("link set eth0 up");
        inside.ip(&format!("addr add 10.0.0.{number}/24 dev eth0"));
        Vm { number, inside }
    }

    pub(crate) fn ifindex(&self) -> u32 {
        ifindex(&format!("port{}", self.number))
    }
}

pub(crate) fn mac(number: u32) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(number).unwrap()])
}

pub(crate) fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number).unwrap())
}

/// Adds a local VM to network 1.
pub(crate) fn add_local(tables: &mut Tables, number: u32, ifindex: u32, flags: u16) {
    let key = PortKey::untagged(ifindex);
    let port = Port { number, net: 1, generation: 1, zone: 0, mac: mac(number), flags };
    tables.ports.insert(key, port);
    tables.addrs.insert(AddrKey { port: number, addr: Addr::v4(v4(number).octets()) }, 1);
    add_station(tables, number, Fdb::local(key));
}

pub(crate) fn add_station(tables: &mut Tables, number: u32, place: Fdb) {
    tables.fdb.insert(FdbKey::new(1, mac(number)), place);
    let key = NeighKey { net: 1, addr: Addr::v4(v4(number).octets()) };
    let neigh = match place.target() {
        Some(FdbTarget::Remote { vtep, .. }) => Neigh::behind(vtep, mac(number)),
        _ => Neigh::local(mac(number)),
    };
    tables.neigh.insert(key, neigh);
}

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
        let option = nix::sys::socket::sockopt::ReceiveTimeout;
        nix::sys::socket::setsockopt(&socket, option, &timeout).unwrap();
        let target = SockaddrIn::from(SocketAddrV4::new(to, 0));
        let request = [8, 0, 0, 0, 0, 0, 0, 1, b'n', b'l'];
        let flags = nix::sys::socket::MsgFlags::empty();
        nix::sys::socket::sendto(socket.as_raw_fd(), &request, &target, flags).unwrap();
        let mut reply = [0; 64];
        match nix::sys::socket::recv(socket.as_raw_fd(), &mut reply, flags) {
            Ok(length) => length == request.len() && reply[0] == 0,
            Err(_) => false,
        }
    })
}

/// The underlay addresses and the one VXLAN device, as the agent makes it.
pub(crate) fn tunnel(addresses: &[&str]) {
    for address in addresses {
        ip(&format!("addr add {address}/24 dev under0"));
    }
    ip("link set under0 up");
    ip("link add vx0 mtu 1500 type vxlan dstport 4789 external gbp nolearning");
    ip("link set vx0 up");
}
