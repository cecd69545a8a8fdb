//! Where frames of the attacker would be heard: at its neighbours, at another tenant's, on the underlay, and
//! by the hosts themselves.

use std::{
    net::UdpSocket,
    os::fd::{AsRawFd, OwnedFd},
};

use hostnet::{Namespace, Tap};
use lab::wait;
use netloom_tests::LIMIT;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::site::{EVIL, HOSTS, NEIGHBOURS, OTHERS, SINK, Site, mac};

/// In what the attacker sends (`MARKER` in `world.py`), and in what only says that it is done (`FENCE` in
/// `wire.py`).
const MARKER: &[u8] = b"ATTACK!!";
const FENCE: &[u8] = b"AFENCE..";
/// The source MAC of a frame; and of one in VXLAN: Ethernet, IPv4, UDP, VXLAN, a MAC.
const SOURCE: usize = 6;
const INNER_SOURCE: usize = 14 + 20 + 8 + 8 + 6;

/// Frames that were heard since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// At the neighbours, in their order.
    pub(crate) arrived: [u64; 2],
    /// At another tenant's.
    pub(crate) others: u64,
    /// On their way out of the attacker's host.
    pub(crate) underlay: u64,
    /// By the IP stacks of the hosts and of the server.
    pub(crate) hosts: u64,
    /// By the attacker.
    pub(crate) answers: u64,
}

/// All of them.
pub(crate) struct Ears {
    evil: [u8; 6],
    neighbours: Vec<Tap>,
    others: Vec<Tap>,
    underlay: Tap,
    own: Tap,
    hosts: Vec<OwnedFd>,
    buffer: Vec<u8>,
}

impl Ears {
    pub(crate) fn open(site: &Site) -> Self {
        let tap = |name: &&str| site.lab.namespace(name).tap("eth0").unwrap();
        let stacks = HOSTS.iter().chain(&["fabric"]);
        let namespaces = stacks.map(|name| site.lab.namespace(name));
        let digits = mac(&site.lab.namespace(EVIL), "eth0");
        let octets: Vec<u8> =
            digits.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
        Self {
            evil: octets.try_into().unwrap(),
            neighbours: NEIGHBOURS.iter().map(tap).collect(),
            others: OTHERS.iter().map(tap).collect(),
            underlay: tap(&"h1"),
            own: tap(&EVIL),
            hosts: namespaces.flat_map(|namespace| stack(&namespace)).collect(),
            buffer: vec![0; 1 << 16],
        }
    }

    /// Hears what somebody else says who may: where nothing must be heard, something could be.
    pub(crate) fn prove(&mut self, site: &Site) {
        let ways = [
            ("other-near", "other-far", "10.0.0.12"),
            ("wired-near", "wired-far", "10.8.0.12"),
            ("h1", "h2", "172.31.255.12"),
        ];
        let socket = |name: &str, at: (&str, u16)| {
            site.lab.namespace(name).run_in(|| UdpSocket::bind(at)).unwrap().unwrap()
        };
        // Else kernels would say that nobody listens.
        let _listening = ways.map(|(_, to, address)| socket(to, (address, SINK)));
        for (from, _, address) in ways {
            socket(from, ("0.0.0.0", 0)).send_to(MARKER, (address, SINK)).unwrap();
        }
        let mut heard = Heard::default();
        let is_heard = || {
            self.look(&mut heard);
            // An instance's device hears what it sends and what it receives.
            heard.others == 4 && heard.hosts == 1
        };
        assert!(wait::holds(LIMIT, is_heard), "{heard:?}");
    }

    /// Adds what was heard since the last look.
    pub(crate) fn look(&mut self, heard: &mut Heard) {
        let evil = self.evil;
        let is_from = |bytes: &[u8], at: usize| bytes.get(at..at + 6) == Some(&evil[..]);
        let is_marked = |bytes: &[u8]| contains(bytes, MARKER);
        for (at, tap) in self.neighbours.iter_mut().enumerate() {
            heard.arrived[at] += count(tap, |bytes, is_outgoing| {
                !is_outgoing && (is_from(bytes, SOURCE) || is_marked(bytes))
            });
        }
        for tap in &mut self.others {
            heard.others += count(tap, |bytes, _| contains(bytes, &evil) || is_marked(bytes));
        }
        heard.underlay += count(&mut self.underlay, |bytes, is_outgoing| {
            is_outgoing && (is_from(bytes, INNER_SOURCE) || is_marked(bytes))
        });
        heard.answers += count(&mut self.own, |_, is_outgoing| !is_outgoing);
        for socket in &self.hosts {
            let (socket, buffer) = (socket.as_raw_fd(), &mut self.buffer);
            while let Ok(length) = recv(socket, buffer, MsgFlags::empty()) {
                heard.hosts += u64::from(contains(&buffer[..length], MARKER));
            }
        }
    }
}

/// The frames of a device that matter.
fn count(tap: &mut Tap, mut matters: impl FnMut(&[u8], bool) -> bool) -> u64 {
    let mut found = 0;
    while let Some(frame) = tap.take().unwrap() {
        let is_fence = contains(&frame.bytes, FENCE);
        found += u64::from(!is_fence && matters(&frame.bytes, frame.is_outgoing));
    }
    assert_eq!(tap.missed(), 0, "frames that nobody has looked at");
    found
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Raw sockets that get whatever the IP stack takes for its own.
fn stack(namespace: &Namespace) -> Vec<OwnedFd> {
    let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
    let protocols = [
        (v4, SockProtocol::Icmp),
        (v4, SockProtocol::Tcp),
        (v4, SockProtocol::Udp),
        (v6, SockProtocol::IcmpV6),
        (v6, SockProtocol::Tcp),
        (v6, SockProtocol::Udp),
    ];
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let open = |(family, protocol)| socket(family, SockType::Raw, flags, protocol).unwrap();
    namespace.run_in(|| protocols.map(open).into()).unwrap()
}

/// Sockets at the neighbours that take what comes and never answer, so that no kernel says that nobody
/// listens.
pub(crate) fn sinks(site: &Site) -> Vec<UdpSocket> {
    let bind = |name: &&str| {
        let namespace = site.lab.namespace(name);
        // IPv4 too.
        namespace.run_in(|| UdpSocket::bind(("::", SINK))).unwrap().unwrap()
    };
    NEIGHBOURS.iter().map(bind).collect()
}
