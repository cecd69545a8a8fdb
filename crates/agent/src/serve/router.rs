//! Router advertisements (RFC 4861, 4862, 8106): at once to whoever asks, to ports whose guests are to be
//! told something else, and again before it expires.
//!
//! Who is the router? Guests take the source of an advertisement for it, which has to be a link-local
//! address. If the gateway is one, the advertisement comes from there. If it is the address of a NIC that
//! the network knows, it comes from the link-local address of that NIC's MAC (RFC 4291, appendix A), which
//! routers have. Otherwise nobody knows its link-local address, in a physical network maybe: netloom says
//! prefixes and names as itself, and is nobody's router; the real one advertises itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use packet::SERVICE_MAC;
use tokio::time::Instant;
use wire::{
    leases::LeaseKind,
    object::link_local,
    told::{AddressMode, AddressRange, Service},
};

use super::{
    Ignored, Seen,
    frame::icmpv6,
    guests::{Guest, Guests},
    names::on_the_wire,
};
use crate::render::LINK_LOCAL;

/// Messages (RFC 4861, 4.1 and 4.2).
pub(super) const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Options (RFC 4861, 4.6; RFC 8106, 5).
const SOURCE_MAC: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// All nodes of a link, and the MAC of that group.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// How long a router is one (RFC 4861, 6.2.1: three times the longest interval), in seconds.
const ROUTER_SECONDS: u16 = 1_800;
/// How long the names' servers hold: as long (RFC 8106, 5.1).
const NAMES_SECONDS: u32 = 1_800;
/// How long a prefix holds and is preferred, in seconds: the defaults of RFC 4861, 6.2.1.
const VALID_SECONDS: u32 = 2_592_000;
const PREFERRED_SECONDS: u32 = 604_800;

/// Between two advertisements to a port that nobody has asked for: `MaxRtrAdvInterval`.
const EVERY: Duration = Duration::from_secs(600);
/// `MIN_DELAY_BETWEEN_RAS`, for each port: asked more often, the answer is delayed for ever.
const LEAST: Duration = Duration::from_secs(3);
/// Solicitations that are answered within that: three are sent by a client that hears nothing
/// (RFC 4861, 6.3.7), also when its own link has just come up.
const BURST: u32 = 3;

/// Over how many seconds the first advertisements of a host's ports are spread.
const SPREAD_SECONDS: u32 = 16;

/// A solicitation has to be plausible (RFC 4861, 6.1.1).
pub(super) fn check(source: IpAddr, message: &[u8]) -> Result<(), Ignored> {
    const HEADER_BYTES: usize = 8;
    let mut options = message.get(HEADER_BYTES..).ok_or(Ignored::Malformed)?;
    while let [kind, length, ..] = options {
        let bytes = usize::from(*length) * 8;
        if bytes == 0 || bytes > options.len() {
            return Err(Ignored::Malformed);
        }
        if *kind == SOURCE_MAC && source.is_unspecified() {
            return Err(Ignored::Malformed);
        }
        options = &options[bytes..];
    }
    if options.is_empty() { Ok(()) } else { Err(Ignored::Malformed) }
}

/// What there is to tell of one that was answered.
pub(super) fn seen(source: IpAddr) -> Seen {
    let address = Some(source).filter(|ip| !ip.is_unspecified());
    let (kind, hostname, client_id) = (LeaseKind::Advertised, None, Vec::new());
    Seen { kind, is_v6: true, address, hostname, client_id }
}

/// Whom an advertisement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Whoever has asked, from this address.
    Asker(IpAddr),
    /// The guest, whatever its address is.
    All,
}
pub(super) use For::{All, Asker};

/// What a guest is advertised; `None` if its networks have no IPv6.
pub(super) fn advertisement(guest: &Guest<'_>, whom: For) -> Option<Vec<u8>> {
    let told = Told::of(guest)?;
    let to = match whom {
        Asker(IpAddr::V6(ip)) if !ip.is_unspecified() => (ip, guest.port.mac),
        // The MAC is the guest's own all the same: nobody else is on the link.
        _ => (ALL_NODES, ALL_NODES_MAC),
    };
    let [high, low] = told.router_seconds.to_be_bytes();
    // Hop limit 64 (RFC 1700), then the flags.
    let field = [64, told.flags, high, low];
    icmpv6((told.source, SERVICE_MAC.0), to, (ADVERTISEMENT, field), &told.rest(guest))
}

/// What an advertisement says, before it is written.
struct Told<'a> {
    source: Ipv6Addr,
    source_mac: [u8; 6],
    router_seconds: u16,
    flags: u8,
    ranges: Vec<&'a AddressRange>,
    servers: Vec<Ipv6Addr>,
    search: Vec<u8>,
}

impl<'a> Told<'a> {
    fn of(guest: &Guest<'a>) -> Option<Told<'a>> {
        /// Managed address configuration, and other configuration (RFC 4861, 4.2).
        const MANAGED: u8 = 0x80;
        const OTHER: u8 = 0x40;
        let homes: Vec<_> = guest.homes_v6().collect();
        let mut ranges: Vec<&AddressRange> = homes.iter().filter_map(|h| h.range()).collect();
        ranges.dedup();
        if ranges.is_empty() {
            return None;
        }
        let has = |mode| ranges.iter().any(|range| range.mode == Some(mode));
        let flags = match (has(AddressMode::Stateful), has(AddressMode::Stateless)) {
            // All else comes with the address (RFC 4861, 4.2).
            (true, _) => MANAGED | OTHER,
            (false, true) => OTHER,
            (false, false) => 0,
        };
        let mut told = Told {
            source: LINK_LOCAL,
            source_mac: SERVICE_MAC.0,
            router_seconds: 0,
            flags,
            ranges,
            servers: Vec::new(),
            search: Vec::new(),
        };
        if guest.told.is_default {
            let gateways = homes.iter().filter_map(|home| {
                let gateway = home.address.gateway.or_else(|| home.range()?.gateway);
                if let IpAddr::V6(gateway) = gateway? { Some(gateway) } else { None }
            });
            told.find_router(guest, gateways);
            for home in &homes {
                let servers = home.subnet.dns.iter().filter_map(|ip| match ip {
                    IpAddr::V6(ip) => Some(*ip),
                    IpAddr::V4(_) => None,
                });
                let before = told.servers.clone();
                told.servers.extend(servers.filter(|ip| !before.contains(ip)));
            }
            let domains: BTreeSet<&str> =
                homes.iter().filter_map(|home| home.subnet.domain.as_deref()).collect();
            told.search = domains.into_iter().filter_map(on_the_wire).flatten().collect();
        }
        Some(told)
    }

    fn find_router(&mut self, guest: &Guest<'_>, gateways: impl Iterator<Item = Ipv6Addr>) {
        for gateway in gateways {
            let mac = guest.mac_of(gateway);
            let source = match mac {
                _ if gateway.is_unicast_link_local() => gateway,
                Some(mac) => link_local(mac),
                None => continue,
            };
            // Without its MAC the guest asks for it.
            (self.source, self.router_seconds) = (source, ROUTER_SECONDS);
            self.source_mac = mac.unwrap_or_default();
            return;
        }
    }

    /// What follows the first eight bytes of the message.
    fn rest(&self, guest: &Guest<'_>) -> Vec<u8> {
        // Reachable time and retransmission timer: unspecified.
        let mut rest = vec![0; 8];
        if self.source_mac != [0; 6] {
            rest.extend([SOURCE_MAC, 1]);
            rest.extend(self.source_mac);
        }
        rest.extend([MTU, 1, 0, 0]);
        rest.extend(guest.port.mtu_bytes.to_be_bytes());
        for range in &self.ranges {
            rest.extend(prefix(range));
        }
        if !self.servers.is_empty() {
            // Two units of eight bytes for each.
            let most = self.servers.len().min(16);
            rest.extend([RDNSS, u8::try_from(1 + 2 * most).unwrap_or(u8::MAX), 0, 0]);
            rest.extend(NAMES_SECONDS.to_be_bytes());
            rest.extend(self.servers[..most].iter().flat_map(Ipv6Addr::octets));
        }
        let units = 1 + self.search.len().div_ceil(8);
        if let Ok(length) = u8::try_from(units)
            && !self.search.is_empty()
        {
            rest.extend([DNSSL, length, 0, 0]);
            rest.extend(NAMES_SECONDS.to_be_bytes());
            rest.extend(&self.search);
            rest.resize(rest.len() + (units - 1) * 8 - self.search.len(), 0);
        }
        rest
    }
}

/// Prefix information: on the link, and for addresses that guests make if the range's mode says so.
fn prefix(range: &AddressRange) -> Vec<u8> {
    const ON_LINK: u8 = 0x80;
    const AUTONOMOUS: u8 = 0x40;
    let IpAddr::V6(ip) = range.prefix.ip else { return Vec::new() };
    let makes = matches!(range.mode, Some(AddressMode::Slaac | AddressMode::Stateless));
    let flags = if makes { ON_LINK | AUTONOMOUS } else { ON_LINK };
    let mut option = vec![PREFIX, 4, range.prefix.bits, flags];
    option.extend(VALID_SECONDS.to_be_bytes());
    option.extend(PREFERRED_SECONDS.to_be_bytes());
    option.extend([0; 4]);
    option.extend(ip.octets());
    option
}

/// When which port is advertised to next: each that netloom tells of IPv6, whether or not it has asked. A
/// guest that has moved here, or whose agent was another one, does not ask again.
#[derive(Debug, Default)]
pub(super) struct Advertisers {
    ports: BTreeMap<u32, Advertiser>,
    due: BTreeSet<(Instant, u32)>,
}

#[derive(Debug)]
struct Advertiser {
    /// When its window of answers began, and how many it had in it.
    window: Instant,
    answers: u32,
    /// When it is due next.
    due: Instant,
    /// What it was told last.
    told: Option<Vec<u8>>,
}

impl Advertisers {
    /// Whether a solicitation is answered, and if so, notes it.
    pub(super) fn solicited(&mut self, guest: &Guest<'_>, now: Instant) -> bool {
        let port = guest.port.number;
        let advertiser = self.ports.entry(port).or_insert_with(|| Advertiser {
            window: now,
            answers: 0,
            due: now,
            told: None,
        });
        if now >= advertiser.window + LEAST {
            (advertiser.window, advertiser.answers) = (now, 0);
        }
        if advertiser.answers >= BURST {
            return false;
        }
        advertiser.answers += 1;
        advertiser.told = advertisement(guest, All);
        self.schedule(port, now + EVERY);
        true
    }

    /// These ports may be told something else from now on. One that is new, or hears another thing, is
    /// told soon.
    pub(super) fn changed(&mut self, guests: &Guests, ports: &BTreeSet<u32>, now: Instant) {
        let gone: Vec<u32> =
            self.ports.keys().copied().filter(|p| guests.get(*p).is_none()).collect();
        for port in gone {
            if let Some(of) = self.ports.remove(&port) {
                self.due.remove(&(of.due, port));
            }
        }
        for port in ports {
            let Some(guest) = guests.get(*port).filter(|guest| guest.has(Service::Ipv6)) else {
                continue;
            };
            let told = advertisement(&guest, All);
            match self.ports.get_mut(port) {
                Some(of) if of.told != told => {
                    let soon = now.max(of.window + LEAST);
                    of.told = told;
                    self.schedule(*port, soon);
                }
                Some(_) => {}
                None => {
                    // Not to all of a host at once.
                    let soon = now + LEAST + Duration::from_secs(u64::from(port % SPREAD_SECONDS));
                    let of = Advertiser { window: now, answers: 0, due: soon, told };
                    self.ports.insert(*port, of);
                    self.schedule(*port, soon);
                }
            }
        }
    }

    fn schedule(&mut self, port: u32, due: Instant) {
        if let Some(of) = self.ports.get_mut(&port) {
            self.due.remove(&(of.due, port));
            of.due = due;
            self.due.insert((due, port));
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The ports that are due now. Each is due again later.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        let due: Vec<u32> =
            self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, port)| *port).collect();
        due.iter().for_each(|port| self.schedule(*port, now + EVERY));
        due
    }

    /// It was sent.
    pub(super) fn sent(&mut self, port: u32, now: Instant) {
        if let Some(of) = self.ports.get_mut(&port) {
            (of.window, of.answers) = (now, 1);
        }
    }
}

#[cfg(test)]
#[path = "router/tests.rs"]
mod tests;
