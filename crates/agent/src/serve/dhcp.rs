//! DHCP (RFC 2131, 2132, 3046, 3442, 6842): what a guest's client is told. Pure, and nothing is kept: a
//! lease is what the objects say at that moment, on whichever host the guest is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use dhcproto::{
    Encodable as _, Encoder,
    v4::{Flags, HType, Message, Opcode, OptionCode, borrowed, encode_long_opt_bytes},
};
use packet::Mac;
use wire::{
    leases::LeaseKind,
    told::{DhcpOption, Route},
};

use super::{
    Ignored, Seen,
    frame::{To, udp4},
    guests::{Guest, Home},
    names::on_the_wire,
};

/// UDP ports of clients and servers (RFC 2131, 4.1).
pub(super) const CLIENT: u16 = 68;
pub(super) const SERVER: u16 = 67;

/// Messages (RFC 2132, 9.6).
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

/// Options (RFC 2132; 119: RFC 3397; 121: RFC 3442; 249: the same, as Windows asks for it).
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const HOSTNAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const BROADCAST: u8 = 28;
const NTP: u8 = 42;
const REQUESTED: u8 = 50;
const LEASE: u8 = 51;
const TYPE: u8 = 53;
const SERVER_ID: u8 = 54;
const WANTED: u8 = 55;
const SIZE: u8 = 57;
const RENEWAL: u8 = 58;
const REBINDING: u8 = 59;
const CLIENT_ID: u8 = 61;
const TFTP_NAME: u8 = 66;
const BOOT_FILE: u8 = 67;
const RELAY: u8 = 82;
const SEARCH: u8 = 119;
const ROUTES: u8 = 121;
const ROUTES_OF_WINDOWS: u8 = 249;
const END: u8 = 255;

/// What is sent whether or not the client asks for it: its state, and without the MTU packets of a guest
/// in a tunnel get lost.
const ALWAYS: [u8; 7] = [MASK, MTU, LEASE, TYPE, SERVER_ID, RENEWAL, REBINDING];
/// What no extra option stands for: the protocol's own.
const OWN: [u8; 14] = [
    0, REQUESTED, LEASE, 52, TYPE, SERVER_ID, WANTED, 56, SIZE, RENEWAL, REBINDING, CLIENT_ID,
    RELAY, END,
];

/// Bytes of a message before its options.
const FIXED_BYTES: usize = 240;
/// Bytes of a packet that every client takes (RFC 2131, 2), and of its headers.
const LEAST_PACKET: usize = 576;
const HEADERS_BYTES: usize = 28;

/// Options by code.
type Options = BTreeMap<u8, Vec<u8>>;

/// A client's question.
struct Question<'a> {
    message: borrowed::Message<'a>,
    options: Options,
    kind: u8,
}

/// What is answered.
pub(super) struct Answered {
    pub(super) frame: Option<Vec<u8>>,
    pub(super) seen: Seen,
}

/// Answers a datagram to a DHCP server.
pub(super) fn answer(guest: &Guest<'_>, payload: &[u8]) -> Result<Answered, Ignored> {
    let question = Question::read(payload)?;
    if question.message.chaddr() != guest.port.mac {
        return Err(Ignored::Stranger);
    }
    let mut homes = guest.homes_v4().filter_map(|home| {
        let dhcp = home.subnet.dhcp.as_ref()?;
        match dhcp.server {
            Some(IpAddr::V4(server)) => Some(Lease { home, server, seconds: dhcp.lease_seconds }),
            _ => None,
        }
    });
    let first = homes.next().ok_or(Ignored::NoAddress)?;
    let leases: Vec<Lease<'_>> = std::iter::once(first).chain(homes).collect();
    let of = |ip: Ipv4Addr| leases.iter().find(|lease| lease.home.ip == ip).copied();
    let wanted = question.wanted();
    let (lease, reply, kind) = match question.kind {
        DISCOVER => (wanted.and_then(of).unwrap_or(first), Some(OFFER), LeaseKind::Offered),
        REQUEST => {
            let server = question.address(SERVER_ID);
            if server.is_some_and(|ip| leases.iter().all(|lease| lease.server != ip)) {
                return Err(Ignored::OtherServer);
            }
            match wanted.and_then(of) {
                Some(lease) => (lease, Some(ACK), LeaseKind::Leased),
                None => (first, Some(NAK), LeaseKind::Refused),
            }
        }
        INFORM => (wanted.and_then(of).unwrap_or(first), Some(ACK), LeaseKind::Informed),
        DECLINE => (first, None, LeaseKind::Declined),
        RELEASE => (first, None, LeaseKind::Released),
        _ => return Err(Ignored::Malformed),
    };
    let address = match kind {
        LeaseKind::Offered | LeaseKind::Leased => Some(lease.home.ip),
        _ => wanted,
    };
    let seen = question.seen(kind, address);
    let frame = reply.and_then(|kind| lease.reply(guest, &question, kind));
    Ok(Answered { frame, seen })
}

impl<'a> Question<'a> {
    fn read(payload: &'a [u8]) -> Result<Question<'a>, Ignored> {
        // The codec trusts the length of the hardware address.
        let [1, 1, 6, ..] = payload else { return Err(Ignored::Malformed) };
        let message = borrowed::Message::new(payload).map_err(|_| Ignored::Malformed)?;
        let mut options = Options::new();
        for option in message.opts() {
            options.entry(option.code().into()).or_insert_with(|| option.data().to_vec());
        }
        match options.get(&TYPE).map(Vec::as_slice) {
            Some([kind]) => Ok(Question { message, kind: *kind, options }),
            // BOOTP (RFC 951) has no leases.
            _ => Err(Ignored::Malformed),
        }
    }

    fn address(&self, option: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.options.get(&option)?.as_slice().try_into().ok()?;
        Some(octets.into())
    }

    /// The address that it asks for or has (RFC 2131, table 4).
    fn wanted(&self) -> Option<Ipv4Addr> {
        let has = Some(self.message.ciaddr()).filter(|ip| !ip.is_unspecified());
        match self.kind {
            RELEASE | INFORM => has,
            _ => self.address(REQUESTED).or(has),
        }
    }

    fn seen(&self, kind: LeaseKind, address: Option<Ipv4Addr>) -> Seen {
        Seen {
            kind,
            is_v6: false,
            address: address.map(IpAddr::V4),
            hostname: self.options.get(&HOSTNAME).cloned(),
            client_id: self.options.get(&CLIENT_ID).cloned().unwrap_or_default(),
        }
    }

    /// Bytes that the options of an answer may have.
    fn room(&self, mtu: u32) -> usize {
        let size: Option<[u8; 2]> =
            self.options.get(&SIZE).and_then(|size| size.as_slice().try_into().ok());
        let takes = size.map_or(LEAST_PACKET, |size| usize::from(u16::from_be_bytes(size)));
        let fits = takes.min(usize::try_from(mtu).unwrap_or(usize::MAX)).max(LEAST_PACKET);
        fits - HEADERS_BYTES - FIXED_BYTES
    }
}

/// An address of the guest, and who leases it.
#[derive(Clone, Copy)]
struct Lease<'a> {
    home: Home<'a, Ipv4Addr>,
    server: Ipv4Addr,
    seconds: u32,
}

impl Lease<'_> {
    /// An answer in its frame.
    fn reply(&self, guest: &Guest<'_>, question: &Question<'_>, kind: u8) -> Option<Vec<u8>> {
        let asked = &question.message;
        let mut message = Message::new_with_id(
            asked.xid(),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            asked.giaddr(),
            asked.chaddr(),
        );
        message.set_opcode(Opcode::BootReply).set_htype(HType::Eth).set_flags(asked.flags());
        let is_relayed = !asked.giaddr().is_unspecified();
        let mut own =
            Options::from([(TYPE, vec![kind]), (SERVER_ID, self.server.octets().to_vec())]);
        for echoed in [CLIENT_ID, RELAY] {
            own.extend(question.options.get(&echoed).map(|data| (echoed, data.clone())));
        }
        let mut told = Options::new();
        if kind == NAK {
            if is_relayed {
                // The relay is to broadcast it (RFC 2131, 4.3.2).
                message.set_flags(Flags::default().set_broadcast());
            }
        } else {
            let is_inform = question.kind == INFORM;
            if !is_inform {
                message.set_yiaddr(self.home.ip);
                own.extend(self.times());
            }
            message.set_ciaddr(if question.kind == DISCOVER {
                Ipv4Addr::UNSPECIFIED
            } else {
                asked.ciaddr()
            });
            told = self.told(guest);
            boot(&mut message, &told);
        }
        let room = question.room(guest.port.mtu_bytes);
        let options = choose(own, told, question.options.get(&WANTED), room);
        let payload = encode(&message, &options)?;
        udp4((self.server, SERVER), self.to(guest, question, kind), &payload)
    }

    /// Where an answer goes (RFC 2131, 4.1).
    fn to(&self, guest: &Guest<'_>, question: &Question<'_>, kind: u8) -> To<Ipv4Addr> {
        let (asked, mac) = (&question.message, guest.port.mac);
        if !asked.giaddr().is_unspecified() {
            return To { mac, ip: asked.giaddr(), port: SERVER };
        }
        if kind != NAK && !asked.ciaddr().is_unspecified() {
            return To { mac, ip: asked.ciaddr(), port: CLIENT };
        }
        if kind == NAK || asked.flags().broadcast() {
            return To { mac: Mac::BROADCAST.0, ip: Ipv4Addr::BROADCAST, port: CLIENT };
        }
        To { mac, ip: self.home.ip, port: CLIENT }
    }

    /// How long it holds; renewed after a half and asked of anybody after seven eighths of that
    /// (RFC 2131, 4.4.5).
    fn times(&self) -> [(u8, Vec<u8>); 3] {
        let part = |eighths: u64| {
            let seconds = u64::from(self.seconds) * eighths / 8;
            u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes().to_vec()
        };
        [(LEASE, part(8)), (RENEWAL, part(4)), (REBINDING, part(7))]
    }

    /// All that the guest could be told, by code.
    fn told(&self, guest: &Guest<'_>) -> Options {
        let Home { ip, address, subnet } = self.home;
        let mask = u32::MAX.checked_shl(32 - u32::from(address.prefix_bits)).unwrap_or(0);
        let mtu = u16::try_from(guest.port.mtu_bytes).unwrap_or(u16::MAX);
        let mut told = Options::from([
            (MASK, mask.to_be_bytes().to_vec()),
            (BROADCAST, (ip.to_bits() | !mask).to_be_bytes().to_vec()),
            (MTU, mtu.to_be_bytes().to_vec()),
        ]);
        let mut routes = subnet.routes.iter().filter_map(route).collect::<Vec<_>>();
        let dhcp = subnet.dhcp.as_ref();
        let times = dhcp.map(|dhcp| dhcp.time_servers.as_slice()).unwrap_or_default();
        add(&mut told, NTP, v4(times));
        if guest.told.is_default {
            let gateway = address.gateway.or_else(|| self.home.range()?.gateway);
            if let Some(IpAddr::V4(gateway)) = gateway {
                add(&mut told, ROUTER, gateway.octets().to_vec());
                routes.push((0, Ipv4Addr::UNSPECIFIED, gateway));
            }
            add(&mut told, DNS, v4(&subnet.dns));
            let hostname = guest.told.hostname.as_deref().unwrap_or_default();
            add(&mut told, HOSTNAME, hostname.as_bytes().to_vec());
            let domain = subnet.domain.as_deref();
            add(&mut told, DOMAIN, domain.unwrap_or_default().as_bytes().to_vec());
            let search = dhcp.map(|dhcp| dhcp.search.as_slice()).unwrap_or_default();
            let search = domain.into_iter().chain(search.iter().map(String::as_str));
            add(&mut told, SEARCH, search.filter_map(on_the_wire).flatten().collect());
        }
        let routes: Vec<u8> = routes.into_iter().flat_map(encode_route).collect();
        add(&mut told, ROUTES, routes.clone());
        add(&mut told, ROUTES_OF_WINDOWS, routes);
        let of_all = dhcp.map(|dhcp| dhcp.options.as_slice()).unwrap_or_default();
        for option in of_all.iter().chain(&guest.told.options) {
            extra(&mut told, option);
        }
        told
    }
}

/// An option that says nothing is none.
fn add(told: &mut Options, code: u8, data: Vec<u8>) {
    if !data.is_empty() {
        told.insert(code, data);
    }
}

fn extra(told: &mut Options, option: &DhcpOption) {
    if let Ok(code) = u8::try_from(option.code)
        && !option.is_v6
        && !OWN.contains(&code)
    {
        told.insert(code, option.data.0.clone());
    }
}

fn v4(ips: &[IpAddr]) -> Vec<u8> {
    let octets = ips.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    });
    octets.flatten().collect()
}

fn route(route: &Route) -> Option<(u8, Ipv4Addr, Ipv4Addr)> {
    match (route.prefix.ip, route.via) {
        (IpAddr::V4(to), IpAddr::V4(via)) => Some((route.prefix.bits, to, via)),
        _ => None,
    }
}

/// A route of option 121: as many octets of the destination as matter.
fn encode_route((bits, to, via): (u8, Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let matter = usize::from(bits.min(32)).div_ceil(8);
    let mut encoded = vec![bits.min(32)];
    encoded.extend(&to.octets()[..matter]);
    encoded.extend(via.octets());
    encoded
}

/// What a boot loader takes from the fixed part of the message and not from options.
fn boot(message: &mut Message, told: &Options) {
    const FILE_BYTES: usize = 128;
    let text = |code| told.get(&code).and_then(|data| std::str::from_utf8(data).ok());
    if let Some(Ok(server)) = text(TFTP_NAME).map(str::parse::<Ipv4Addr>) {
        message.set_siaddr(server);
    }
    if let Some(file) = told.get(&BOOT_FILE).filter(|file| file.len() < FILE_BYTES) {
        message.set_fname(file);
    }
}

/// The options of an answer that find room: the protocol's own, what is always told, then what the client
/// asks for in its order, then, of a client that asks for nothing in particular, all else.
fn choose(own: Options, told: Options, wanted: Option<&Vec<u8>>, room: usize) -> Options {
    let bytes = |data: &Vec<u8>| data.len() + 2 * data.len().div_ceil(255).max(1);
    // The end is an option, too.
    let mut left = room.saturating_sub(own.values().map(bytes).sum::<usize>() + 1);
    let mut chosen = own;
    let asked = wanted.cloned().unwrap_or_else(|| told.keys().copied().collect());
    for code in ALWAYS.into_iter().chain(asked) {
        let Some(data) = told.get(&code) else { continue };
        if chosen.contains_key(&code) || bytes(data) > left {
            continue;
        }
        left -= bytes(data);
        chosen.insert(code, data.clone());
    }
    chosen
}

/// The kind of the message comes first, where old clients look for it, and what the relay has added last
/// (RFC 3046, 2.1).
fn encode(message: &Message, options: &Options) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    message.encode(&mut encoder).ok()?;
    let is_between = |(code, _): &(&u8, &Vec<u8>)| **code != TYPE && **code != RELAY;
    let at = |code| options.get_key_value(&code);
    let all = at(TYPE).into_iter().chain(options.iter().filter(is_between)).chain(at(RELAY));
    for (code, data) in all {
        let code = OptionCode::from(*code);
        match data.is_empty() {
            true => encoder.write_slice(&[code.into(), 0]).ok()?,
            false => encode_long_opt_bytes(code, data, &mut encoder).ok()?,
        }
    }
    encoder.write_u8(END).ok()?;
    // What BOOTP relays expect (RFC 1542, 2.1).
    const LEAST_BYTES: usize = 300;
    if bytes.len() < LEAST_BYTES {
        bytes.resize(LEAST_BYTES, 0);
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "dhcp/tests.rs"]
mod tests;
