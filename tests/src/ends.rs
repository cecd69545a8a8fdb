//! Who has an IP stack in a network under test: a VM, a guest behind a tap, a machine on the wire.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    time::Duration,
};

use hostnet::Namespace;
use nix::net::if_::if_nametoindex;

use crate::{LIMIT, guest::ip, machine::devices, traffic::noise};

/// Where those listen who are to hear what is for all.
const TO_ALL: u16 = 9_999;
/// Bytes of the headers of an echo request, by family.
const ECHO_HEADERS: [usize; 2] = [20 + 8, 40 + 8];

/// One of them.
pub struct End {
    /// What a failure calls it.
    pub name: &'static str,
    /// Where its stack is.
    pub namespace: Namespace,
    /// Its device in the network.
    pub device: &'static str,
    /// Its address there.
    pub v4: Ipv4Addr,
    /// The same.
    pub v6: Ipv6Addr,
}

impl End {
    /// Its addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The most that an echo request may carry to `other`, in bytes: both devices have an MTU.
    pub fn largest_ping(&self, other: &Self, ip: IpAddr) -> usize {
        self.mtu().min(other.mtu()) - ECHO_HEADERS[usize::from(ip.is_ipv6())]
    }

    fn mtu(&self) -> usize {
        let mut links = devices(&self.namespace).into_iter();
        let link = links.find(|link| link.name == self.device).unwrap();
        usize::try_from(link.mtu_bytes).unwrap()
    }

    /// Sends a datagram of so many bytes to another one, which sends it back; both as they were.
    pub fn echo(&self, other: &Self, ip: IpAddr, bytes: usize) -> Result<(), String> {
        let theirs = other.socket(SocketAddr::new(ip, 0));
        let ours = self.socket(SocketAddr::new(self.address_like(ip), 0));
        let sent = noise(bytes);
        ours.send_to(&sent, theirs.local_addr().unwrap()).map_err(|e| e.to_string())?;
        let mut got = vec![0; bytes + 1];
        let (length, from) = theirs.recv_from(&mut got).map_err(|e| format!("there: {e}"))?;
        if got[..length] != sent {
            return Err(format!("{length} other bytes arrive of {bytes}"));
        }
        theirs.send_to(&got[..length], from).map_err(|e| e.to_string())?;
        let (length, _) = ours.recv_from(&mut got).map_err(|e| format!("back: {e}"))?;
        if got[..length] != sent {
            return Err(format!("{length} other bytes come back of {bytes}"));
        }
        Ok(())
    }

    /// Sends a datagram to a broadcast address or a group; the names of those who do not hear it.
    pub fn not_heard_by(&self, others: &[&Self], to_all: IpAddr) -> Vec<&'static str> {
        let ears: Vec<_> = others.iter().map(|other| (other.name, other.ear(to_all))).collect();
        let mouth = self.socket(SocketAddr::new(self.address_like(to_all), 0));
        let text = format!("{} to {to_all}", self.name);
        let target = match to_all {
            IpAddr::V4(group) => {
                mouth.set_broadcast(true).unwrap();
                if group.is_multicast() {
                    // It has no route of its own here.
                    ip(&self.namespace, &format!("route replace {group}/32 dev {}", self.device));
                }
                SocketAddr::new(to_all, TO_ALL)
            }
            IpAddr::V6(group) => SocketAddrV6::new(group, TO_ALL, 0, self.index()).into(),
        };
        mouth.send_to(text.as_bytes(), target).unwrap();
        let hears = |ear: &UdpSocket| {
            let mut buffer = [0; 64];
            ear.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length] == *text.as_bytes())
        };
        ears.into_iter().filter(|(_, ear)| !hears(ear)).map(|(name, _)| name).collect()
    }

    /// A socket that hears what is for all.
    fn ear(&self, to_all: IpAddr) -> UdpSocket {
        let any: IpAddr = match to_all {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let ear = self.socket(SocketAddr::new(any, TO_ALL));
        let index = self.index();
        let join = || match to_all {
            IpAddr::V4(group) if group.is_multicast() => ear.join_multicast_v4(&group, &self.v4),
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(group) => ear.join_multicast_v6(&group, index),
        };
        self.namespace.run_in(join).unwrap().unwrap();
        ear
    }

    fn socket(&self, at: SocketAddr) -> UdpSocket {
        let socket = self.namespace.run_in(|| UdpSocket::bind(at)).unwrap();
        let socket = socket.unwrap_or_else(|error| panic!("{}: {at}: {error}", self.name));
        socket.set_read_timeout(Some(LIMIT.min(Duration::from_secs(5)))).unwrap();
        socket
    }

    fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    fn index(&self) -> u32 {
        self.namespace.run_in(|| if_nametoindex(self.device)).unwrap().unwrap()
    }
}
