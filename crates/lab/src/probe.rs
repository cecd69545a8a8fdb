//! Probes between VMs: real UDP packets over sockets inside the VMs' namespaces.
//!
//! Every VM answers with its name on the same port, so an answer proves who gave it, also where
//! VMs share addresses. The sockets are opened inside, and used from here: nothing runs in a VM.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
};

use hostnet::Namespace;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt::Ipv6V6Only,
};
use uuid::Uuid;

use crate::Error;

/// Where VMs answer during a check, beside the ports that the topology names.
pub(crate) const PORT: u16 = 7489;
/// Stands for the port of what asks.
const ASKS: u16 = 0;
/// Packets taken from one socket at a time.
const BATCH: usize = 256;

/// A VM with open sockets.
pub(crate) struct Vm {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// By port: of IPv4, of IPv6. That of 0 has a port of the kernel's choice, and asks: from the port that
    /// is asked, an answer to one could not be told from a question of the other.
    sockets: BTreeMap<u16, [UdpSocket; 2]>,
}

/// A VM towards an address of another one, by their places in the list of VMs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) address: IpAddr,
    /// The UDP port there.
    pub(crate) port: u16,
    pub(crate) expected: bool,
}

/// What became of the probes of a case: VMs by their places in the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Who got one.
    pub(crate) arrived: BTreeSet<usize>,
    /// Whose answer came back.
    pub(crate) answered: BTreeSet<usize>,
}

/// All probes of a check.
pub(crate) struct Probes {
    vms: Vec<Vm>,
    cases: Vec<Case>,
    pub(crate) seen: Vec<Seen>,
    /// The case that each nonce was sent for.
    sent: HashMap<u64, usize>,
    answered: BTreeSet<u64>,
}

impl Vm {
    /// Opens the sockets of a VM.
    pub(crate) fn open(
        name: &str,
        addresses: Vec<IpAddr>,
        namespace: &Namespace,
        ports: &BTreeSet<u16>,
    ) -> Result<Self, Error> {
        let failed = |error| Error::io(format_args!("open a socket in VM {name}"), error);
        let open = |port: u16| Ok((port, [open_v4(port)?, open_v6(port)?]));
        let ports = || ports.iter().copied().chain([ASKS]);
        let sockets: io::Result<_> = namespace.run_in(|| ports().map(open).collect())?;
        Ok(Self { name: name.to_owned(), addresses, sockets: sockets.map_err(failed)? })
    }

    fn send(&self, from: u16, to: SocketAddr, text: &str) {
        let Some([v4, v6]) = self.sockets.get(&from) else { return };
        let socket = if to.is_ipv4() { v4 } else { v6 };
        // No route, no neighbour: then the probe does not arrive, which is what is measured.
        socket.send_to(text.as_bytes(), to).ok();
    }
}

impl Probes {
    /// Nothing is sent yet.
    pub(crate) fn new(vms: Vec<Vm>, cases: Vec<Case>) -> Self {
        let seen = vec![Seen::default(); cases.len()];
        Self { vms, cases, seen, sent: HashMap::new(), answered: BTreeSet::new() }
    }

    /// Sends a probe for each case that `wanted` picks by its place, and returns their nonces.
    pub(crate) fn send(&mut self, wanted: impl Fn(&Self, usize) -> bool) -> Vec<u64> {
        let picked: Vec<usize> = (0..self.cases.len()).filter(|at| wanted(self, *at)).collect();
        let mut nonces = Vec::with_capacity(picked.len());
        for at in picked {
            let case = self.cases[at];
            let (nonce, _) = Uuid::new_v4().as_u64_pair();
            self.sent.insert(nonce, at);
            let to = SocketAddr::new(case.address, case.port);
            self.vms[case.from].send(ASKS, to, &format!("probe {nonce:x}"));
            nonces.push(nonce);
        }
        nonces
    }

    /// Whether the answer to each of these probes has come back.
    pub(crate) fn are_answered(&self, nonces: &[u64]) -> bool {
        nonces.iter().all(|nonce| self.answered.contains(nonce))
    }

    /// Whether a case's probes arrived where they should, and the answer came back.
    pub(crate) fn is_reached(&self, at: usize) -> bool {
        let (to, seen) = (self.cases[at].to, &self.seen[at]);
        seen.arrived.contains(&to) && seen.answered.contains(&to)
    }

    /// Takes what has come in at every VM, and answers probes.
    pub(crate) fn receive(&mut self) -> Result<(), Error> {
        for at in 0..self.vms.len() {
            let mut packets = Vec::new();
            let vm = &self.vms[at];
            for (port, sockets) in &vm.sockets {
                for socket in sockets {
                    let taken = take(socket, (*port, &mut packets));
                    taken.map_err(|error| {
                        Error::io(format_args!("receive in VM {}", vm.name), error)
                    })?;
                }
            }
            for (port, text, source) in packets {
                self.understand((at, port), &text, source);
            }
        }
        Ok(())
    }

    /// Packets that are none of ours, or of another check, say nothing.
    fn understand(&mut self, (at, port): (usize, u16), text: &str, source: SocketAddr) {
        let mut words = text.split(' ');
        let kind = words.next().unwrap_or_default();
        let nonce = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
        let Some((nonce, case)) = nonce.and_then(|n| Some((n, *self.sent.get(&n)?))) else {
            return;
        };
        match (kind, words.next()) {
            ("probe", None) => {
                self.seen[case].arrived.insert(at);
                let vm = &self.vms[at];
                vm.send(port, source, &format!("answer {nonce:x} {}", vm.name));
            }
            ("answer", Some(name)) if self.cases[case].from == at => {
                let who = self.vms.iter().position(|vm| vm.name == name);
                self.seen[case].answered.extend(who);
                self.answered.insert(nonce);
            }
            _ => {}
        }
    }
}

fn open_v4(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Apart from the IPv4 socket, which has the same port.
fn open_v6(port: u16) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&socket, Ipv6V6Only, &true)?;
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    Ok(UdpSocket::from(socket))
}

fn take(
    socket: &UdpSocket,
    (port, packets): (u16, &mut Vec<(u16, String, SocketAddr)>),
) -> io::Result<()> {
    let mut buffer = [0; 256];
    for _ in 0..BATCH {
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                packets.push((port, text, source));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // What an ICMP error of an earlier packet left behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{names, scratch::Root, state::Place, underlay, wait};

    /// Two hosts of a bare underlay stand in for VMs.
    #[test]
    fn a_probe_arrives_over_real_links_and_the_answer_names_who_gave_it() {
        if !hostnet::scratch::root_or_skip() {
            return;
        }
        let root = Root::new().unwrap();
        let lab = format!("p{}", &Uuid::new_v4().simple().to_string()[..11]);
        // By its files a later run knows whose the namespaces are, should this one be killed.
        Place::new(&lab, &root.labs()).unwrap().create().unwrap();
        let hosts = ["a".to_owned(), "b".to_owned()];
        for _ in 0..2 {
            underlay::ensure(&lab, &hosts).unwrap();
        }
        let open = |host: &String| {
            let namespace = Namespace::open(&names::namespace(&lab, host)).unwrap();
            Vm::open(host, Vec::new(), &namespace, &[PORT].into()).unwrap()
        };
        let vms: Vec<Vm> = hosts.iter().map(open).collect();
        let case = |address: &str| {
            let address = address.parse().unwrap();
            Case { from: 0, to: 1, address, port: PORT, expected: true }
        };
        let cases = vec![case("172.31.255.12"), case("172.31.255.99"), case("172.31.255.11")];
        let mut probes = Probes::new(vms, cases);
        let nonces = probes.send(|_, _| true);
        let all_are_answered = wait::holds(Duration::from_millis(300), || {
            probes.receive().unwrap();
            probes.are_answered(&nonces)
        });
        assert!(!all_are_answered, "nobody has .99");
        assert!(probes.is_reached(0));
        assert_eq!(probes.seen[1].arrived, [].into());
        assert_eq!(probes.seen[2].answered, [0].into(), "its own address");
        crate::down(&lab, &root.labs()).unwrap();
        assert_eq!(Namespace::list(&names::prefix(&lab)).unwrap(), Vec::<String>::new());
    }
}
