//! Groups, policies, members and packets by lot: what they are, not what becomes of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use judge::Shows;
use packet::vectors::frame::{Ip, icmp, tcp, udp};
use wire::{
    object::{Member, Object, Peer, Port, PortAddress, SecurityGroup},
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
};

use super::world::Key;
use crate::sample::{self, uuid};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;
/// Types that open nothing: timestamps (RFC 792), questions about nodes (RFC 4620).
const OTHER: u8 = 13;
const OTHER_V6: u8 = 139;
const SYN: u8 = 2;
/// What ends a connection, and is nothing without one.
const RST: u8 = 4;
/// GRE, ESP, SCTP and IPIP.
const WITHOUT_PORTS: [u8; 4] = [47, 50, 132, 4];

/// Security groups, numbered from 1 on.
const GROUPS: u32 = 40;
/// Sets of groups that NICs are in: fewer than NICs, so that some share theirs.
const SETS: usize = 24;
/// NICs of a network, the first of which are on this host. Both networks have the same addresses.
pub(super) const NICS: u16 = 72;
pub(super) const LOCALS: u16 = 60;
/// Where rules and probes are likely to differ by one.
const PORTS: [u16; 12] = [0, 1, 21, 22, 80, 81, 443, 1_023, 1_024, 32_768, 65_534, 65_535];

/// Numbers by lot, the same in each run that starts with the same one: SplitMix64 (Steele and others,
/// "Fast splittable pseudorandom number generators", 2014).
pub(super) struct Lot(pub(super) u64);

impl Lot {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One below this.
    pub(super) fn below(&mut self, end: u16) -> u16 {
        u16::try_from(self.next() % u64::from(end)).unwrap()
    }

    /// Whether it is one of so many of a hundred.
    fn is(&mut self, percent: u16) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.below(u16::try_from(from.len()).unwrap()))]
    }

    fn many<T>(&mut self, most: u16, mut one: impl FnMut(&mut Lot) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    /// Groups in an order, each once.
    fn groups(&mut self) -> Vec<u32> {
        let mut groups = self.many(4, Self::group);
        let mut seen = std::collections::BTreeSet::new();
        groups.retain(|group| seen.insert(*group));
        groups
    }

    fn group(&mut self) -> u32 {
        1 + u32::from(self.below(u16::try_from(GROUPS).unwrap()))
    }

    fn port(&mut self) -> u16 {
        if self.is(80) { self.of(&PORTS) } else { self.below(u16::MAX) }
    }

    fn action(&mut self) -> Action {
        if self.is(60) { Action::Accept } else { Action::Drop }
    }
}

/// A NIC of one of two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nic {
    pub(super) network: u16,
    pub(super) place: u16,
}

impl Nic {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Nic> {
        [1, 2].into_iter().flat_map(|network| (0..NICS).map(move |place| Nic { network, place }))
    }

    pub(super) const fn is_local(self) -> bool {
        self.place < LOCALS
    }

    /// Number of the port, and of its interface.
    pub(super) fn number(self) -> u32 {
        u32::from(self.network * 1_000 + self.place)
    }

    pub(super) fn mac(self) -> [u8; 6] {
        let [high, low] = self.place.to_be_bytes();
        [2, 0, 0, u8::try_from(self.network).unwrap(), high, low]
    }

    pub(super) fn address(self, is_v6: bool) -> IpAddr {
        at(self.place, is_v6)
    }

    /// The routing domain of its addresses.
    pub(super) fn domain(self) -> u32 {
        sample::DOMAIN + u32::from(self.network)
    }

    pub(super) fn uuid(self) -> uuid::Uuid {
        uuid(u128::from(self.number()))
    }

    /// What its host holds of it: a port here, a peer elsewhere.
    fn object(self, policy: Option<Policy>) -> Object {
        let network = uuid(self.network.into());
        let addresses = [false, true].map(|is_v6| self.address(is_v6));
        if !self.is_local() {
            let Object::Peer(peer) = sample::peer(0, 0, 0) else { unreachable!("a peer") };
            let (uuid, mac, prefixes) = (self.uuid(), self.mac(), Vec::new());
            let addresses = addresses.to_vec();
            return Object::Peer(Peer { uuid, network, mac, addresses, prefixes, ..peer });
        }
        let Object::Port(port) = sample::port(0, sample::INSTANCE, 0, 0) else {
            unreachable!("a port")
        };
        let address = |ip: IpAddr| PortAddress {
            ip,
            prefix_bits: if ip.is_ipv4() { 24 } else { 64 },
            gateway: None,
            subnet: None,
            domain: self.domain(),
        };
        Object::Port(Port {
            uuid: self.uuid(),
            number: self.number(),
            network,
            mac: self.mac(),
            addresses: addresses.map(address).to_vec(),
            prefixes: Vec::new(),
            policy,
            ..port
        })
    }
}

fn at(place: u16, is_v6: bool) -> IpAddr {
    let [high, low] = place.to_be_bytes();
    match is_v6 {
        false => Ipv4Addr::new(10, 0, high, low).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, place).into(),
    }
}

/// Sets of groups that NICs are in.
pub(super) type Sets = Vec<Vec<u32>>;

pub(super) fn sets_by_lot(lot: &mut Lot) -> Sets {
    (0..SETS).map(|_| lot.groups()).collect()
}

fn set_by_lot<'a>(lot: &mut Lot, sets: &'a Sets) -> &'a [u32] {
    &sets[usize::from(lot.below(u16::try_from(SETS).unwrap()))]
}

/// Who is a member of what: others at each call.
pub(super) fn members(lot: &mut Lot, sets: &Sets) -> Vec<Object> {
    let member = |nic| {
        let set = set_by_lot(lot, sets);
        (!set.is_empty() && lot.is(85)).then(|| member_by_lot(lot, nic, set))
    };
    Nic::all().filter_map(member).collect()
}

/// What a host holds of NICs and groups: other groups and policies at each call.
pub(super) fn objects(lot: &mut Lot, sets: &Sets) -> Vec<Object> {
    let mut number = 0;
    let groups = (1..=GROUPS).map(|group| group_by_lot(lot, group, &mut number));
    let mut objects: Vec<Object> = groups.collect();
    for nic in Nic::all() {
        let policy = lot.is(92).then(|| policy_by_lot(lot, sets));
        objects.push(nic.object(policy));
    }
    objects
}

fn group_by_lot(lot: &mut Lot, group: u32, number: &mut u32) -> Object {
    let most = if lot.is(10) { 40 } else { 7 };
    let rules = lot.many(most, |lot| {
        *number += 1;
        rule_by_lot(lot, *number)
    });
    let is_stateless = lot.is(15);
    Object::SecurityGroup(SecurityGroup {
        uuid: uuid(group.into()),
        number: group,
        rules,
        is_stateless,
    })
}

fn policy_by_lot(lot: &mut Lot, sets: &Sets) -> Policy {
    // Members of the same groups have several orders of them.
    let groups = if lot.is(50) { set_by_lot(lot, sets).to_vec() } else { lot.groups() };
    let groups = groups.into_iter().map(|group| uuid(group.into())).collect();
    Policy { groups, ingress: lot.action(), egress: lot.action() }
}

/// Of one address or both; now and then of one that is in no domain, or in another one.
fn member_by_lot(lot: &mut Lot, nic: Nic, set: &[u32]) -> Object {
    let families: &[bool] = lot.of(&[&[false, true], &[false, true], &[false], &[true]]);
    let addresses = families.iter().map(|is_v6| MemberAddress {
        ip: nic.address(*is_v6),
        domain: if lot.is(92) { nic.domain() } else { lot.of(&[0, 99]) },
    });
    let (uuid, addresses) = (uuid(10_000 + u128::from(nic.number())), addresses.collect());
    Object::Member(Member { uuid, addresses, groups: set.to_vec() })
}

fn rule_by_lot(lot: &mut Lot, number: u32) -> Rule {
    let is_v6 = lot.is(50);
    let icmp = if is_v6 { ICMPV6 } else { ICMP };
    let protocol = match lot.below(100) {
        0..18 => None,
        18..52 => Some(TCP),
        52..78 => Some(UDP),
        78..90 => Some(icmp),
        // A rule may also name ICMP of the other family, which nothing is.
        90..92 => Some(if is_v6 { ICMP } else { ICMPV6 }),
        _ => Some(lot.of(&WITHOUT_PORTS)),
    };
    let ports = match protocol {
        Some(TCP | UDP) if lot.is(75) => lot.many(4, ports_by_lot),
        Some(ICMP | ICMPV6) if lot.is(70) => lot.many(3, |lot| kinds_by_lot(lot, is_v6)),
        _ => Vec::new(),
    };
    let (mut group, mut addresses) = (None, Vec::new());
    match lot.below(100) {
        0..35 => group = Some(lot.group()),
        35..65 => addresses = lot.many(4, |lot| addresses_by_lot(lot, is_v6)),
        65..68 => addresses = lot.many(100, |lot| addresses_by_lot(lot, is_v6)),
        _ => {}
    }
    let way = if lot.is(50) { Way::Ingress } else { Way::Egress };
    let (uuid, action) = (uuid(100_000 + u128::from(number)), lot.action());
    Rule { uuid, number, way, is_v6, action, protocol, ports, group, addresses }
}

fn ports_by_lot(lot: &mut Lot) -> PortSpan {
    let (one, other) = (lot.port(), lot.port());
    match lot.is(60) {
        true => PortSpan { first: one, last: one },
        false => PortSpan { first: one.min(other), last: one.max(other) },
    }
}

/// A type of ICMP with one code or with all.
fn kinds_by_lot(lot: &mut Lot, is_v6: bool) -> PortSpan {
    let of_family = if is_v6 { [ECHO_V6, OTHER_V6] } else { [ECHO, OTHER] };
    let kind = u16::from(of_family[usize::from(lot.is(30))]) << 8;
    let (first, last) = lot.of(&[(0, 0xff), (0, 0), (0, 1), (1, 1), (255, 255)]);
    PortSpan { first: kind | first, last: kind | last }
}

fn addresses_by_lot(lot: &mut Lot, is_v6: bool) -> AddressSpan {
    // Also beyond the last NIC's.
    let (one, other) = (lot.below(NICS + 8), lot.below(NICS + 8));
    let span = |first, last| AddressSpan { first, last };
    match lot.below(100) {
        0..40 => span(at(one, is_v6), at(one, is_v6)),
        40..75 => span(at(one.min(other), is_v6), at(one.max(other), is_v6)),
        75..90 => span(at(one & !15, is_v6), at(one | 15, is_v6)),
        90..95 if is_v6 => span(Ipv6Addr::UNSPECIFIED.into(), IpAddr::from([0xff; 16])),
        90..95 => span(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        _ if is_v6 => span(IpAddr::from([0x20; 16]), IpAddr::from([0x2f; 16])),
        _ => span(IpAddr::from([192, 168, 0, 0]), IpAddr::from([192, 168, 255, 255])),
    }
}

/// A packet that opens something, or is alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) sender: Nic,
    pub(super) receiver: Nic,
    pub(super) is_v6: bool,
    pub(super) protocol: u8,
    pub(super) shows: Shows,
    /// It may open a connection. If not, there is none that it belongs to.
    pub(super) opens: bool,
    /// Number of an echo request: which no other probe has.
    pub(super) number: u16,
}

impl Probe {
    /// From a NIC to another one of its network, at least one of which is on this host. No other
    /// has this number, so it is of another connection; what has no ports is so by its ends.
    pub(super) fn by_lot(lot: &mut Lot, number: u16) -> Probe {
        let network = 1 + lot.below(2);
        let nic = |place| Nic { network, place };
        let one = nic(lot.below(LOCALS));
        let other = nic((one.place + 1 + lot.below(NICS - 1)) % NICS);
        let (sender, receiver) = if lot.is(50) { (one, other) } else { (other, one) };
        let is_v6 = lot.is(50);
        let protocol = match lot.below(100) {
            0..45 => TCP,
            45..80 => UDP,
            80..95 if is_v6 => ICMPV6,
            80..95 => ICMP,
            _ => lot.of(&WITHOUT_PORTS),
        };
        let opens = !matches!(protocol, TCP | ICMP | ICMPV6) || lot.is(80);
        let shows = match protocol {
            TCP | UDP => Shows::Ports { source: number, destination: lot.port() },
            ICMP | ICMPV6 => {
                let kind = match (opens, is_v6) {
                    (true, false) => ECHO,
                    (true, true) => ECHO_V6,
                    (false, false) => OTHER,
                    (false, true) => OTHER_V6,
                };
                Shows::Icmp { kind, code: lot.of(&[0, 0, 1, 2, 255]) }
            }
            _ => Shows::Nothing,
        };
        Probe { sender, receiver, is_v6, protocol, shows, opens, number }
    }

    /// The ends, if nothing else distinguishes it from others.
    pub(super) fn only_ends(&self) -> Option<(Nic, Nic, bool, u8)> {
        let ends = (self.sender.min(self.receiver), self.sender.max(self.receiver));
        (self.shows == Shows::Nothing).then_some((ends.0, ends.1, self.is_v6, self.protocol))
    }

    /// Its connection, as a NIC sees it that opens it or that it is opened towards.
    pub(super) fn connection(&self, nic: Nic, way: Way) -> Key {
        let (source, destination) = match self.shows {
            Shows::Ports { source, destination } => (source, destination),
            Shows::Icmp { .. } => (self.number, 0),
            Shows::Nothing => (0, 0),
        };
        let [from, to] = [self.sender, self.receiver].map(|nic| nic.address(self.is_v6).into());
        let number = nic.number();
        match way {
            Way::Egress => (number, from, to, source, destination, self.protocol),
            Way::Ingress => (number, to, from, destination, source, self.protocol),
        }
    }

    /// Whether it is asked about as itself when the policy changes: the code of an echo request is not
    /// remembered, so its connection is asked about as one with code 0.
    pub(super) fn is_remembered_whole(&self) -> bool {
        !matches!(self.shows, Shows::Icmp { code: 1.., .. })
    }

    /// Whether an answer is like a packet that opens something.
    pub(super) fn may_be_answered(&self) -> bool {
        self.protocol == UDP
    }

    /// What answers it.
    pub(super) fn answer(&self) -> Probe {
        let shows = match self.shows {
            Shows::Ports { source, destination } => {
                Shows::Ports { source: destination, destination: source }
            }
            other => other,
        };
        Probe { sender: self.receiver, receiver: self.sender, shows, ..*self }
    }

    /// What it may answer, if it belongs to no connection: of all that is ICMP, an echo request.
    pub(super) fn answered(&self) -> Probe {
        let shows = match self.shows {
            Shows::Icmp { .. } => {
                Shows::Icmp { kind: if self.is_v6 { ECHO_V6 } else { ECHO }, code: 0 }
            }
            _ => self.answer().shows,
        };
        Probe { sender: self.receiver, receiver: self.sender, shows, ..*self }
    }

    /// Its bytes.
    pub(super) fn frame(&self) -> Vec<u8> {
        let payload = match self.shows {
            Shows::Ports { source, destination } if self.protocol == TCP => {
                tcp(source, destination, if self.opens { SYN } else { RST })
            }
            Shows::Ports { source, destination } => udp(source, destination),
            Shows::Icmp { kind, code } => {
                let [high, low] = self.number.to_be_bytes();
                icmp(kind, code, [high, low, 0, 1], b"payload")
            }
            Shows::Nothing => vec![0xab; 16],
        };
        let [source, destination] =
            [self.sender, self.receiver].map(|nic| nic.address(self.is_v6).to_string());
        let ip = Ip::new(&source, &destination, self.protocol, payload);
        ip.frame(packet::Mac(self.receiver.mac()), packet::Mac(self.sender.mac()))
    }
}
