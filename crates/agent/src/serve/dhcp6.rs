//! DHCPv6 (RFC 8415): what a guest's client is told. Pure, and nothing is kept, as with [`dhcp`].
//!
//! Guests get the addresses of their NIC that are in ranges with stateful DHCPv6; who has none of these is
//! told all else. The server is the same on all hosts: its DUID is made of the L3 network's uuid.
//!
//! [`dhcp`]: super::dhcp

use std::net::{IpAddr, Ipv6Addr};

use dhcproto::{
    Decodable as _, Decoder, Encodable as _, Encoder,
    v6::{
        DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IATA, Message, MessageType, OptionCode,
        Status, StatusCode, UnknownOption, duid::Duid,
    },
};
use wire::{
    leases::LeaseKind,
    told::{AddressMode, DhcpOption as Extra},
};

use super::{
    Ignored, Seen,
    frame::{To, udp6},
    guests::{Guest, Home},
    names::on_the_wire,
};
use crate::render::LINK_LOCAL;

/// UDP port of servers (RFC 8415, 7.2).
pub(super) const SERVER: u16 = 547;

/// Options (RFC 3646; RFC 4704; RFC 5908; RFC 8415, 21.23) whose content is written here.
const DNS: u16 = 23;
const SEARCH: u16 = 24;
const REFRESH: u16 = 32;
const FQDN: u16 = 39;
const NTP: u16 = 56;

/// How long addresses hold where no server says so.
const LEASE_SECONDS: u32 = 86_400;

/// What is answered.
pub(super) struct Answered {
    pub(super) frame: Option<Vec<u8>>,
    pub(super) seen: Seen,
}

/// Answers a datagram, from this address and UDP port, to a DHCPv6 server.
pub(super) fn answer(
    guest: &Guest<'_>,
    (source, port): (IpAddr, u16),
    payload: &[u8],
) -> Result<Answered, Ignored> {
    let IpAddr::V6(source) = source else { return Err(Ignored::Malformed) };
    if source.is_unspecified() {
        return Err(Ignored::Malformed);
    }
    let asked = Message::decode(&mut Decoder::new(payload)).map_err(|_| Ignored::Malformed)?;
    let server = Server::of(guest)?;
    let (kind, reply) = server.reply(guest, &asked)?;
    let mut bytes = Vec::new();
    let written = reply.encode(&mut Encoder::new(&mut bytes));
    let to = To { mac: guest.port.mac, ip: source, port };
    let frame = written.ok().and_then(|()| udp6((LINK_LOCAL, SERVER), to, &bytes));
    let address = match kind {
        LeaseKind::Offered | LeaseKind::Leased => server.addresses.first().copied(),
        LeaseKind::Informed => None,
        _ => addresses(&asked).first().copied(),
    };
    let seen = Seen {
        kind,
        is_v6: true,
        address: address.map(IpAddr::V6),
        hostname: raw(&asked, FQDN).map(|data| labels(data.get(1..).unwrap_or_default())),
        client_id: client(&asked).unwrap_or_default().to_vec(),
    };
    Ok(Answered { frame, seen })
}

/// The server of a guest.
struct Server<'a> {
    homes: Vec<Home<'a, Ipv6Addr>>,
    /// What the guest is leased.
    addresses: Vec<Ipv6Addr>,
    duid: Duid,
    seconds: u32,
}

impl<'a> Server<'a> {
    fn of(guest: &Guest<'a>) -> Result<Server<'a>, Ignored> {
        let homes: Vec<_> = guest.homes_v6().collect();
        let first = homes.first().ok_or(Ignored::NoAddress)?;
        let leased = homes.iter().filter(|home| {
            home.range().is_some_and(|range| range.mode == Some(AddressMode::Stateful))
        });
        let addresses = leased.map(|home| home.ip).collect();
        let dhcp = first.subnet.dhcp.as_ref();
        let seconds = dhcp.map(|dhcp| dhcp.lease_seconds).filter(|seconds| *seconds > 0);
        let duid = Duid::uuid(first.subnet.uuid.as_bytes());
        Ok(Server { addresses, duid, seconds: seconds.unwrap_or(LEASE_SECONDS), homes })
    }

    /// The answer to a message (RFC 8415, 18.3).
    fn reply(&self, guest: &Guest<'_>, asked: &Message) -> Result<(LeaseKind, Message), Ignored> {
        use MessageType as Type;
        let kind = asked.msg_type();
        let named = match asked.opts().get(OptionCode::ServerId) {
            Some(DhcpOption::ServerId(duid)) => Some(duid.as_slice()),
            _ => None,
        };
        let is_ours = named == Some(self.duid.as_ref());
        match kind {
            Type::Solicit | Type::Confirm | Type::Rebind if named.is_some() => {
                return Err(Ignored::Malformed);
            }
            Type::Request | Type::Renew | Type::Release | Type::Decline if !is_ours => {
                return Err(Ignored::OtherServer);
            }
            Type::InformationRequest if named.is_some() && !is_ours => {
                return Err(Ignored::OtherServer);
            }
            _ => {}
        }
        if client(asked).is_none() && kind != Type::InformationRequest {
            return Err(Ignored::Malformed);
        }
        let is_rapid = asked.opts().get(OptionCode::RapidCommit).is_some();
        let as_type = match kind {
            Type::Solicit if !is_rapid => Type::Advertise,
            _ => Type::Reply,
        };
        let mut reply = self.begin(asked, as_type);
        let kind = match kind {
            Type::Solicit | Type::Request | Type::Renew | Type::Rebind => {
                if as_type == Type::Reply && kind == Type::Solicit {
                    reply.opts_mut().insert(DhcpOption::RapidCommit);
                }
                self.lease(asked, reply.opts_mut());
                match (as_type, self.addresses.is_empty()) {
                    (_, true) => LeaseKind::Informed,
                    (Type::Advertise, false) => LeaseKind::Offered,
                    (_, false) => LeaseKind::Leased,
                }
            }
            Type::Confirm => self.confirm(asked, reply.opts_mut())?,
            Type::Release | Type::Decline => {
                reply.opts_mut().insert(status(Status::Success));
                let released = kind == Type::Release;
                let seen = if released { LeaseKind::Released } else { LeaseKind::Declined };
                return Ok((seen, reply));
            }
            Type::InformationRequest if addresses(asked).is_empty() => LeaseKind::Informed,
            _ => return Err(Ignored::Malformed),
        };
        self.inform(guest, asked, reply.opts_mut());
        Ok((kind, reply))
    }

    fn begin(&self, asked: &Message, kind: MessageType) -> Message {
        let mut reply = Message::new_with_id(kind, asked.xid());
        reply.opts_mut().insert(DhcpOption::ServerId(self.duid.as_ref().to_vec()));
        if let Some(client) = client(asked) {
            reply.opts_mut().insert(DhcpOption::ClientId(client.to_vec()));
        }
        reply
    }

    /// The association that gets the addresses: the one that has some of them, or else the one with the
    /// lowest number. The codec keeps them in no order.
    fn chosen(&self, asked: &Message) -> Option<u32> {
        let associations = asked.opts().iter().filter_map(|option| match option {
            DhcpOption::IANA(association) => Some(association),
            _ => None,
        });
        let lacks = |of: &&IANA| !in_association(&of.opts).any(|ip| self.addresses.contains(&ip));
        associations.min_by_key(|of| (lacks(of), of.id)).map(|of| of.id)
    }

    /// The addresses, in one association. What a client has else is over.
    fn lease(&self, asked: &Message, told: &mut DhcpOptions) {
        let chosen = self.chosen(asked);
        for option in asked.opts().iter() {
            match option {
                DhcpOption::IANA(asked) => {
                    let is_chosen = chosen == Some(asked.id);
                    let left = if is_chosen { self.addresses.as_slice() } else { &[] };
                    let mut opts = DhcpOptions::new();
                    if left.is_empty() {
                        opts.insert(status(Status::NoAddrsAvail));
                    }
                    let over = in_association(&asked.opts).filter(|ip| !left.contains(ip));
                    for (addr, seconds) in
                        left.iter().map(|ip| (*ip, self.seconds)).chain(over.map(|ip| (ip, 0)))
                    {
                        opts.insert(DhcpOption::IAAddr(IAAddr {
                            addr,
                            preferred_life: seconds,
                            valid_life: seconds,
                            opts: DhcpOptions::new(),
                        }));
                    }
                    let part =
                        |tenths: u32| if left.is_empty() { 0 } else { self.seconds / 10 * tenths };
                    let (t1, t2) = (part(5), part(8));
                    told.insert(DhcpOption::IANA(IANA { id: asked.id, t1, t2, opts }));
                }
                DhcpOption::IATA(asked) => {
                    let opts = DhcpOptions::from_iter([status(Status::NoAddrsAvail)]);
                    told.insert(DhcpOption::IATA(IATA { id: asked.id, opts }));
                }
                DhcpOption::IAPD(asked) => {
                    let opts = DhcpOptions::from_iter([status(Status::NoPrefixAvail)]);
                    told.insert(DhcpOption::IAPD(IAPD { id: asked.id, t1: 0, t2: 0, opts }));
                }
                _ => {}
            }
        }
    }

    /// Whether its addresses are still its own. One that changed within its prefix is no longer good, either.
    fn confirm(&self, asked: &Message, told: &mut DhcpOptions) -> Result<LeaseKind, Ignored> {
        let asked = addresses(asked);
        if asked.is_empty() {
            return Err(Ignored::Malformed);
        }
        let is_own = asked.iter().all(|ip| self.addresses.contains(ip));
        told.insert(status(if is_own { Status::Success } else { Status::NotOnLink }));
        Ok(if is_own { LeaseKind::Leased } else { LeaseKind::Refused })
    }

    /// What else the client asks for.
    fn inform(&self, guest: &Guest<'_>, asked: &Message, told: &mut DhcpOptions) {
        let wanted: Vec<u16> = match asked.opts().get(OptionCode::ORO) {
            Some(DhcpOption::ORO(oro)) => oro.opts.iter().map(|code| (*code).into()).collect(),
            _ => Vec::new(),
        };
        let mut all: Vec<(u16, Vec<u8>)> = Vec::new();
        let subnets = || self.homes.iter().map(|home| home.subnet);
        if guest.told.is_default {
            let mut servers: Vec<Ipv6Addr> = Vec::new();
            for ip in subnets().flat_map(|subnet| &subnet.dns) {
                if let IpAddr::V6(ip) = ip
                    && !servers.contains(ip)
                {
                    servers.push(*ip);
                }
            }
            all.push((DNS, servers.iter().flat_map(Ipv6Addr::octets).collect()));
            let mut domains: Vec<&str> = Vec::new();
            for subnet in subnets() {
                let search = subnet.dhcp.as_ref().map(|dhcp| dhcp.search.as_slice());
                let search = search.unwrap_or_default().iter().map(String::as_str);
                domains.extend(subnet.domain.as_deref().into_iter().chain(search));
            }
            let mut seen = std::collections::BTreeSet::new();
            domains.retain(|domain| seen.insert(*domain));
            all.push((
                SEARCH,
                domains.iter().filter_map(|name| on_the_wire(name)).flatten().collect(),
            ));
            let domain = subnets().find_map(|subnet| subnet.domain.as_deref());
            all.extend(name(guest, domain).map(|data| (FQDN, data)));
        }
        let times =
            subnets().filter_map(|subnet| subnet.dhcp.as_ref()).flat_map(|of| &of.time_servers);
        all.push((NTP, times.filter_map(time_server).flatten().collect()));
        if asked.msg_type() == MessageType::InformationRequest {
            all.push((REFRESH, self.seconds.to_be_bytes().to_vec()));
        }
        let extras = subnets().filter_map(|subnet| subnet.dhcp.as_ref()).flat_map(|of| &of.options);
        for Extra { code, data, is_v6 } in extras.chain(&guest.told.options) {
            if *is_v6 && !is_own(*code) {
                all.retain(|(known, _)| known != code);
                all.push((*code, data.0.clone()));
            }
        }
        let has_name = raw(asked, FQDN).is_some();
        for (code, data) in all {
            let is_wanted = wanted.contains(&code) || code == REFRESH || code == FQDN && has_name;
            if is_wanted && !data.is_empty() && data.len() <= usize::from(u16::MAX) {
                told.insert(DhcpOption::Unknown(UnknownOption::new(code.into(), data)));
            }
        }
    }
}

/// The protocol's own options, which no extra one stands for (RFC 8415, 21).
fn is_own(code: u16) -> bool {
    matches!(code, 0..=6 | 8..=9 | 11..=14 | 18..=20 | 25..=26)
}

/// The client's name, as the server of names has it (RFC 4704, 4.1).
fn name(guest: &Guest<'_>, domain: Option<&str>) -> Option<Vec<u8>> {
    /// The server sees to the name.
    const BY_SERVER: u8 = 1;
    let hostname = guest.told.hostname.as_deref()?;
    let full = domain.map_or_else(|| hostname.to_owned(), |domain| format!("{hostname}.{domain}"));
    let mut data = vec![BY_SERVER];
    data.extend(on_the_wire(&full)?);
    Some(data)
}

/// A time server, as a suboption (RFC 5908, 4.1).
fn time_server(ip: &IpAddr) -> Option<Vec<u8>> {
    let IpAddr::V6(ip) = ip else { return None };
    let mut data = vec![0, 1, 0, 16];
    data.extend(ip.octets());
    Some(data)
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: String::new() })
}

fn client(message: &Message) -> Option<&[u8]> {
    match message.opts().get(OptionCode::ClientId) {
        Some(DhcpOption::ClientId(duid)) if !duid.is_empty() => Some(duid),
        _ => None,
    }
}

fn raw(message: &Message, code: u16) -> Option<&[u8]> {
    match message.opts().get(OptionCode::from(code)) {
        Some(DhcpOption::Unknown(option)) => Some(option.data()),
        _ => None,
    }
}

/// All addresses in a client's associations.
fn addresses(message: &Message) -> Vec<Ipv6Addr> {
    let associations = message.opts().iter().filter_map(|option| match option {
        DhcpOption::IANA(association) => Some(&association.opts),
        _ => None,
    });
    associations.flat_map(in_association).collect()
}

fn in_association(opts: &DhcpOptions) -> impl Iterator<Item = Ipv6Addr> {
    opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(address) => Some(address.addr),
        _ => None,
    })
}

/// The labels of a name, with dots between them.
fn labels(mut data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while let [length, rest @ ..] = data {
        let length = usize::from(*length);
        if length == 0 || length > rest.len() {
            break;
        }
        if !text.is_empty() {
            text.push(b'.');
        }
        text.extend(&rest[..length]);
        data = &rest[length..];
    }
    text
}

#[cfg(test)]
#[path = "dhcp6/tests.rs"]
mod tests;
