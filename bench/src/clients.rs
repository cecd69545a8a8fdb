//! DHCP clients, hundreds of them in one thread: each behind a device of its own, all on one packet
//! socket. So the load costs little and is the same for all contenders.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode},
};
use hostnet::Namespace;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto,
        setsockopt, socket, sockopt,
    },
};

use crate::{
    Failure,
    frame::{Station, datagram},
    stats,
};

/// RFC 2131, 4.1.
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// After so long without an answer a client asks again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Room for the answers of all clients at once.
const BUFFER_BYTES: usize = 8 << 20;

/// Clients that wait to be asked to get an address.
pub(crate) struct Clients {
    socket: OwnedFd,
    clients: Vec<Client>,
    /// Clients by the index of their device.
    by_device: HashMap<usize, usize>,
    exchanges: u32,
}

struct Client {
    mac: [u8; 6],
    device: LinkAddr,
}

/// An exchange that is under way: DISCOVER, OFFER, REQUEST, ACK.
struct Exchange {
    xid: u32,
    begun: Instant,
    sent: Instant,
    /// What was sent last.
    frame: Vec<u8>,
}

impl Clients {
    /// Clients with these MACs, behind devices of a namespace, one each.
    ///
    /// # Errors
    /// There is no such device.
    pub(crate) fn open(
        namespace: &Namespace,
        wanted: &[(String, [u8; 6])],
    ) -> Result<Self, Failure> {
        let opened = namespace.run_in(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthIp)?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
            let links = getifaddrs()?
                .filter_map(|found| Some((found.interface_name, *found.address?.as_link_addr()?)));
            Ok::<_, Errno>((socket, links.collect::<HashMap<_, _>>()))
        })?;
        let (socket, links) = opened?;
        let (mut clients, mut by_device) = (Vec::new(), HashMap::new());
        for (device, mac) in wanted {
            let device = *links.get(device).ok_or_else(|| format!("there is no {device}"))?;
            by_device.insert(device.ifindex(), clients.len());
            clients.push(Client { mac: *mac, device });
        }
        Ok(Self { socket, clients, by_device, exchanges: 0 })
    }

    /// Has so many clients, the first ones, get an address once each, so many of them at once;
    /// exchanges per second, and how long each took, ms.
    ///
    /// # Errors
    /// One gets none, or another one's than the last time.
    pub(crate) fn sample(
        &mut self,
        count: usize,
        at_once: usize,
    ) -> Result<(f64, Vec<f64>), Failure> {
        let mut waiting: VecDeque<usize> = (0..count.min(self.clients.len())).collect();
        let (mut running, mut took) = (HashMap::new(), Vec::new());
        let start = Instant::now();
        while !(waiting.is_empty() && running.is_empty()) {
            while running.len() < at_once
                && let Some(client) = waiting.pop_front()
            {
                running.insert(client, self.begin(client)?);
            }
            self.wait()?;
            while let Some((client, answer)) = self.next_answer()? {
                let Some(exchange) = running.get_mut(&client) else { continue };
                if self.go_on(client, exchange, &answer)? {
                    took.push(stats::ms(exchange.begun.elapsed()));
                    running.remove(&client);
                }
            }
            self.ask_again(&mut running)?;
        }
        Ok((stats::count(took.len()) / start.elapsed().as_secs_f64(), took))
    }

    fn begin(&mut self, client: usize) -> Result<Exchange, Failure> {
        self.exchanges = self.exchanges.wrapping_add(1);
        let (xid, now) = (self.exchanges, Instant::now());
        let frame = self.clients[client].frame(xid, MessageType::Discover, &[])?;
        self.send(client, &frame)?;
        Ok(Exchange { xid, begun: now, sent: now, frame })
    }

    /// Whether the exchange is over.
    fn go_on(
        &self,
        client: usize,
        exchange: &mut Exchange,
        answer: &Message,
    ) -> Result<bool, Failure> {
        if answer.xid() != exchange.xid {
            return Ok(false);
        }
        match answer.opts().msg_type() {
            Some(MessageType::Offer) => {
                let Some(server @ DhcpOption::ServerIdentifier(_)) =
                    answer.opts().get(OptionCode::ServerIdentifier)
                else {
                    return Err("an offer without a server".into());
                };
                let wanted = [server.clone(), DhcpOption::RequestedIpAddress(answer.yiaddr())];
                exchange.frame =
                    self.clients[client].frame(exchange.xid, MessageType::Request, &wanted)?;
                exchange.sent = Instant::now();
                self.send(client, &exchange.frame)?;
                Ok(false)
            }
            Some(MessageType::Ack) => Ok(true),
            other => Err(format!("client {client} was told {other:?}").into()),
        }
    }

    fn ask_again(&self, running: &mut HashMap<usize, Exchange>) -> Result<(), Failure> {
        for (client, exchange) in running {
            if exchange.begun.elapsed() > PATIENCE {
                return Err(format!("client {client} gets no answer").into());
            }
            if exchange.sent.elapsed() > AGAIN {
                exchange.sent = Instant::now();
                self.send(*client, &exchange.frame)?;
            }
        }
        Ok(())
    }

    fn send(&self, client: usize, frame: &[u8]) -> Result<(), Failure> {
        let (fd, none) = (self.socket.as_raw_fd(), MsgFlags::empty());
        match sendto(fd, frame, &self.clients[client].device, none) {
            // It is as lost as on a wire, and is sent again.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until something has come, or it is time to look who has waited too long.
    fn wait(&self) -> Result<(), Failure> {
        let mut heard = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut heard, PollTimeout::from(100_u8))?;
        Ok(())
    }

    /// The next answer to a client, if one waits.
    fn next_answer(&self) -> Result<Option<(usize, Message)>, Failure> {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok(heard) => heard,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let client = from.and_then(|from| self.by_device.get(&from.ifindex()).copied());
            let answer = payload(&buffer[..length]);
            let answer = answer.and_then(|bytes| Message::decode(&mut Decoder::new(bytes)).ok());
            if let (Some(client), Some(answer)) = (client, answer)
                && answer.chaddr() == self.clients[client].mac
            {
                return Ok(Some((client, answer)));
            }
        }
    }
}

impl Client {
    fn frame(
        &self,
        xid: u32,
        kind: MessageType,
        options: &[DhcpOption],
    ) -> Result<Vec<u8>, Failure> {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(xid, nobody, nobody, nobody, nobody, &self.mac);
        message.set_opcode(Opcode::BootRequest).set_flags(Flags::default().set_broadcast());
        let told = [OptionCode::SubnetMask, OptionCode::Router, OptionCode::DomainNameServer];
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ParameterRequestList(told.to_vec()));
        options.iter().for_each(|option| drop(message.opts_mut().insert(option.clone())));
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes))?;
        let from = Station { mac: dataplane::packet::Mac(self.mac), ip: [0; 4], port: CLIENT };
        let all = dataplane::packet::Mac::BROADCAST;
        Ok(datagram(from, Station { mac: all, ip: [255; 4], port: SERVER }, &bytes))
    }
}

/// What a server tells a client, of a frame.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    const ETHERNET_BYTES: usize = 14;
    let ip = frame.get(ETHERNET_BYTES..)?;
    let udp = ip.get(usize::from(ip.first()? & 0xf) * 4..)?;
    let ports = [SERVER.to_be_bytes(), CLIENT.to_be_bytes()].concat();
    udp.starts_with(&ports).then(|| udp.get(8..))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_datagram_is_understood_and_nothing_else() {
        let at = |port, last| Station {
            mac: dataplane::packet::Mac([2; 6]),
            ip: [10, 0, 0, last],
            port,
        };
        let answer = datagram(at(SERVER, 1), at(CLIENT, 2), b"told");
        assert_eq!(payload(&answer).map(|bytes| &bytes[..4]), Some(&b"told"[..]));
        assert_eq!(payload(&datagram(at(CLIENT, 2), at(SERVER, 1), b"asked")), None);
        (0..answer.len()).for_each(|length| {
            assert!(payload(&answer[..length]).is_none_or(|rest| rest.len() < length))
        });
    }
}
