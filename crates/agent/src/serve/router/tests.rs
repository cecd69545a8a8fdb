//! What guests are advertised, and when.

use std::sync::Arc;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use wire::object::{Object, Peer, Port, Subnet};

use super::*;
use crate::sample;

const SUBNET: u128 = 70;

fn desired(change: impl FnOnce(&mut Port, &mut Subnet)) -> wire::holding::Holding {
    sample::with_served(SUBNET, |port, subnet| {
        subnet.dns.push("fd00::53".parse().unwrap());
        change(port, subnet);
    })
}

fn guests(desired: wire::holding::Holding) -> Guests {
    let mut guests = Guests::default();
    guests.follow(&Arc::new(desired));
    guests
}

fn world(change: impl FnOnce(&mut Port, &mut Subnet)) -> Guests {
    guests(desired(change))
}

/// An advertisement that was read again: addresses, the fixed part, and the options.
struct Heard {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    fixed: Vec<u8>,
    options: Vec<Vec<u8>>,
}

fn hear(guests: &Guests, whom: For) -> Heard {
    let frame = advertisement(&guests.get(5).unwrap(), whom).unwrap();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(NetSlice::Ipv6(v6)), Some(TransportSlice::Icmpv6(icmp))) =
        (&sliced.net, &sliced.transport)
    else {
        panic!("ICMPv6")
    };
    let (source, destination) = (v6.header().source_addr(), v6.header().destination_addr());
    assert!(icmp.is_checksum_valid(source.octets(), destination.octets()));
    assert_eq!((v6.header().hop_limit(), icmp.type_u8()), (255, 134));
    let (fixed, mut rest) = icmp.slice().split_at(16);
    let mut options = Vec::new();
    while let [_, units, ..] = rest {
        let (option, after) = rest.split_at(usize::from(*units) * 8);
        options.push(option.to_vec());
        rest = after;
    }
    assert!(rest.is_empty());
    Heard { source, destination, fixed: fixed.to_vec(), options }
}

impl Heard {
    fn option(&self, kind: u8) -> Option<&[u8]> {
        self.options.iter().find(|option| option[0] == kind).map(Vec::as_slice)
    }

    fn flags(&self) -> u8 {
        self.fixed[5]
    }

    fn router_seconds(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }
}

#[test]
fn each_mode_of_a_range_has_its_flags() {
    use AddressMode::{Slaac, Stateful, Stateless};
    for (mode, flags, prefix) in [(Stateful, 0xc0, 0x80), (Slaac, 0, 0xc0), (Stateless, 0x40, 0xc0)]
    {
        let heard = hear(&world(|_, subnet| subnet.ranges[1].mode = Some(mode)), All);
        assert_eq!(heard.flags(), flags, "{mode:?}");
        let told = heard.option(PREFIX).unwrap();
        assert_eq!((told[2], told[3]), (64, prefix), "{mode:?}");
        assert_eq!(told[16..], "fd00::".parse::<Ipv6Addr>().unwrap().octets());
    }
}

#[test]
fn mtu_servers_and_domains_are_told() {
    let heard = hear(&world(|_, _| {}), All);
    assert_eq!(heard.option(MTU).unwrap(), [5, 1, 0, 0, 0, 0, 5, 170]);
    let servers = heard.option(RDNSS).unwrap();
    assert_eq!(
        (servers.len(), &servers[8..]),
        (24, &"fd00::53".parse::<Ipv6Addr>().unwrap().octets()[..])
    );
    assert_eq!(&heard.option(DNSSL).unwrap()[8..], b"\x07example\x03org\0\0\0\0");
    let other = hear(&world(|port, _| port.told.as_mut().unwrap().is_default = false), All);
    assert_eq!((other.option(RDNSS), other.option(DNSSL)), (None, None));
    assert!(other.option(PREFIX).is_some());
}

#[test]
fn the_router_is_the_one_that_has_the_gateway_or_nobody() {
    let gateway = |ip: &str| Some(ip.parse().unwrap());
    let unknown = hear(&world(|_, subnet| subnet.ranges[1].gateway = gateway("fd00::1")), All);
    assert_eq!((unknown.source, unknown.router_seconds()), (LINK_LOCAL, 0));
    assert_eq!(unknown.option(SOURCE_MAC).unwrap()[2..], SERVICE_MAC.0);

    let itself = hear(&world(|_, subnet| subnet.ranges[1].gateway = gateway("fe80::1")), All);
    assert_eq!(itself.source, "fe80::1".parse::<Ipv6Addr>().unwrap());
    assert_eq!((itself.router_seconds(), itself.option(SOURCE_MAC)), (ROUTER_SECONDS, None));

    let Object::Peer(peer) = sample::peer(99, sample::NETWORK_A, 1) else { unreachable!("a peer") };
    let mut with_peer = desired(|_, subnet| subnet.ranges[1].gateway = gateway("fd00::1"));
    let addresses = vec!["fd00::1".parse().unwrap()];
    with_peer.upsert(Object::Peer(Peer { addresses, ..peer }));
    let with_peer = guests(with_peer);
    let derived = hear(&with_peer, All);
    assert_eq!(derived.source, "fe80::ff:fe00:101".parse::<Ipv6Addr>().unwrap());
    assert_eq!(derived.option(SOURCE_MAC).unwrap()[2..], [2, 0, 0, 0, 1, 1]);
    assert_eq!(derived.router_seconds(), ROUTER_SECONDS);
}

#[test]
fn whoever_asks_is_answered_where_it_is_and_who_is_nowhere_with_all() {
    let guests = world(|_, _| {});
    let own: Ipv6Addr = "fe80::ff:fe00:5".parse().unwrap();
    assert_eq!(hear(&guests, Asker(own.into())).destination, own);
    assert_eq!(hear(&guests, Asker("::".parse().unwrap())).destination, ALL_NODES);
    let without = world(|_, subnet| subnet.ranges.truncate(1));
    assert_eq!(advertisement(&without.get(5).unwrap(), All), None);
}

#[test]
fn a_solicitation_has_to_be_plausible() {
    let (own, nowhere) = ("fe80::1".parse().unwrap(), "::".parse().unwrap());
    let plain = [133, 0, 0, 0, 0, 0, 0, 0];
    let with = |option: &[u8]| [&plain[..], option].concat();
    assert_eq!(check(own, &plain), Ok(()));
    assert_eq!(check(own, &with(&[1, 1, 2, 0, 0, 0, 0, 5])), Ok(()));
    let bad = Err(Ignored::Malformed);
    assert_eq!(check(nowhere, &with(&[1, 1, 2, 0, 0, 0, 0, 5])), bad);
    assert_eq!(check(own, &with(&[1, 0, 2, 0, 0, 0, 0, 5])), bad);
    assert_eq!(check(own, &with(&[14, 2, 2, 0, 0, 0, 0, 5])), bad);
    assert_eq!(check(own, &with(&[1])), bad);
    assert_eq!(check(own, &plain[..7]), bad);
}

#[test]
fn a_port_that_has_asked_is_told_again_in_time_and_soon_after_a_change() {
    let (mut advertisers, start) = (Advertisers::default(), Instant::now());
    let guests = world(|_, _| {});
    let guest = guests.get(5).unwrap();
    let answered: Vec<bool> = (0..5).map(|_| advertisers.solicited(&guest, start)).collect();
    assert_eq!(answered, [true, true, true, false, false]);
    assert!(advertisers.solicited(&guest, start + LEAST));
    assert_eq!(advertisers.due(), Some(start + LEAST + EVERY));

    let mut fresh = Advertisers::default();
    let ports = BTreeSet::from([5, 6]);
    fresh.changed(&guests, &ports, start);
    let first = start + LEAST + Duration::from_secs(5);
    assert_eq!(fresh.due(), Some(first), "also to who does not ask: it may have moved here");

    advertisers.changed(&guests, &ports, start + LEAST);
    assert_eq!(advertisers.due(), Some(start + LEAST + EVERY), "it says the same");
    let other = world(|_, subnet| subnet.domain = Some("example.net".to_owned()));
    advertisers.changed(&other, &ports, start + LEAST);
    assert_eq!(advertisers.due(), Some(start + 2 * LEAST));
    assert!(advertisers.take_due(start + LEAST).is_empty());
    assert_eq!(advertisers.take_due(start + 2 * LEAST), [5]);
    advertisers.sent(5, start + 2 * LEAST);
    assert_eq!(advertisers.due(), Some(start + 2 * LEAST + EVERY));
    advertisers.changed(&Guests::default(), &BTreeSet::new(), start);
    assert_eq!(advertisers.due(), None, "nobody is left");
}
