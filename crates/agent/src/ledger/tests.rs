//! What the ledger says, and that it does not depend on how it came about.

use std::net::{IpAddr, Ipv4Addr};

use compute::FarEnd;
use packet::{Addr, Fdb, FdbKey, FdbTarget, MAX_NEIGH, MAX_VTEPS, Net, PortKey, Serving};
use proptest::prelude::*;
use wire::{
    fact::{Fact, Station},
    object::{Peer, Prefix},
};

use super::*;
use crate::{
    render::facts,
    sample::{self, uuid},
    uplink::Uplink,
};

#[path = "tests/kernel.rs"]
mod kernel;
#[path = "tests/packets.rs"]
mod packets;
#[path = "tests/policies.rs"]
mod policies;

fn interfaces(of: &[(u128, u32)]) -> Ties {
    let ports = of.iter().map(|(port, ifindex)| (uuid(*port), sample::plug(*ifindex)));
    Ties { ports: ports.collect(), ..Ties::default() }
}

#[test]
fn what_is_rendered_gives_the_facts_that_the_server_expects() {
    let desired = sample::two_networks();
    let tables =
        Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
    let expected = fact::facts(desired.objects());
    assert_eq!(facts(&tables), expected);
    assert_eq!(fact::digest(&facts(&tables)), desired.kernel_digest());
}

#[test]
fn what_moves_gives_the_facts_that_the_server_expects() {
    let external = || sample::external(61, "vnet0", 61);
    let peer = || sample::peer(sample::PEER_A, sample::NETWORK_A, 91);
    let [there, third] = [2, 3].map(|last| sample::a_move(7, last));
    let ports = [(sample::PORT_A, 7), (sample::PORT_B, 9), (61, 11)];
    let key = PortKey::untagged(11);
    for (object, moves, at) in [
        (sample::moving(external(), third.clone(), None), 1, FdbTarget::Local(key)),
        (sample::moving(external(), None, there), 1, remote([192, 0, 2, 2])),
        (external(), 0, FdbTarget::Local(key)),
        (sample::moving(peer(), third, None), 1, remote([192, 0, 2, 2])),
    ] {
        let mut desired = sample::two_networks();
        desired.upsert(object.clone());
        let tables = Ledger::of(&desired, &interfaces(&ports)).tables;
        assert_eq!(facts(&tables), fact::facts(desired.objects()), "{object:?}");
        assert_eq!(fact::digest(&facts(&tables)), desired.kernel_digest());
        let moving: Vec<_> = tables.fdb.iter().filter(|(_, fdb)| fdb.is_moving()).collect();
        assert_eq!((moving.len(), tables.moves.len()), (moves, moves), "{object:?}");
        for (station, fdb) in moving {
            assert!(tables.moves.contains_key(station));
            assert_eq!(fdb.still().target(), Some(at), "where it is until its first frame");
        }
    }
}

fn remote(vtep: [u8; 4]) -> FdbTarget {
    let local = Addr::v4([192, 0, 2, 1]);
    FdbTarget::Remote { vni: 101, vtep: Addr::v4(vtep), local }
}

#[test]
fn what_comes_to_a_device_that_is_not_there_yet_is_a_peer_till_then() {
    let mut desired = sample::two_networks();
    let port = sample::external(61, "vnet0", 61);
    desired.upsert(sample::moving(port, None, sample::a_move(7, 2)));
    let mut ledger = Ledger::of(&desired, &interfaces(&[]));
    let station = FdbKey::new(1, packet::Mac([2, 0, 0, 0, 0, 61]));
    assert_eq!(ledger.tables.fdb[&station].target(), Some(remote([192, 0, 2, 2])));
    assert!(!ledger.tables.fdb[&station].is_moving() && ledger.tables.moves.is_empty());
    let edits = ledger.follow(&desired, &interfaces(&[(61, 11)]));
    assert!(edits.fdb[&station].unwrap().is_moving() && edits.ports.len() == 1);
    assert_eq!(ledger, Ledger::of(&desired, &interfaces(&[(61, 11)])));
    desired.upsert(sample::external(61, "vnet0", 61));
    let edits = ledger.follow(&desired, &interfaces(&[(61, 11)]));
    assert_eq!(edits.moves.values().collect::<Vec<_>>(), [&None], "it has moved");
    let local = Some(Fdb::local(PortKey::untagged(11)));
    assert_eq!(edits.fdb, [(station, local)].into(), "in the place of the other entry");
}

#[test]
fn facts_do_not_depend_on_interfaces() {
    let desired = sample::two_networks();
    let one = Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
    let other =
        Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 90), (sample::PORT_B, 70)])).tables;
    assert_ne!(one, other);
    assert_eq!(facts(&one), facts(&other));
}

#[test]
fn frames_are_put_at_the_far_end_only_where_that_is_in_another_namespace() {
    let desired = sample::two_networks();
    let plug = |far_end| Ties {
        ports: BTreeMap::from([(uuid(sample::PORT_A), Plug { ifindex: 7, far_end })]),
        ..Ties::default()
    };
    let mut ledger = Ledger::default();
    for (far_end, flags) in [(FarEnd::Elsewhere, packet::Port::PEER), (FarEnd::Here, 0)] {
        let edits = ledger.follow(&desired, &plug(far_end));
        let port = edits.ports[&PortKey::untagged(7)].unwrap();
        assert_eq!(port.flags, flags, "{far_end:?}");
    }
}

#[test]
fn nothing_leads_to_a_port_without_an_interface() {
    let desired = sample::two_networks();
    let tables = Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7)])).tables;
    let port = |f: &Fact| matches!(f, Fact::Fdb { at: Station::Local { .. }, .. });
    assert_eq!(facts(&tables).iter().filter(|f| port(f)).count(), 1);
    assert_eq!(tables.ports.len(), 1);
    assert_ne!(fact::digest(&facts(&tables)), desired.kernel_digest());
}

#[test]
fn an_entry_that_leads_nowhere_is_a_disagreement() {
    let desired = sample::two_networks();
    let mut tables =
        Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
    let mut other = tables.clone();
    other.fdb.values_mut().for_each(|fdb| {
        if matches!(fdb.target(), Some(FdbTarget::Local(_))) {
            *fdb = Fdb::local(PortKey::untagged(1));
        }
    });
    assert_ne!(facts(&other), facts(&tables));
    tables.neigh.clear();
    assert_ne!(fact::digest(&facts(&tables)), desired.kernel_digest());
}

#[test]
fn networks_are_closed_and_anything_else_is_a_disagreement() {
    let desired = sample::two_networks();
    let tables =
        Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
    assert_eq!(tables.nets, [(1, Net::closed()), (2, Net::closed())].into());
    let odd = |change: fn(&mut Tables)| {
        let mut other = tables.clone();
        change(&mut other);
        facts(&other).difference(&facts(&tables)).copied().collect::<Vec<_>>()
    };
    let expected = [Fact::OddNetwork { net: 1 }];
    assert_eq!(odd(|tables| _ = tables.nets.remove(&1)), expected);
    assert_eq!(odd(|tables| _ = tables.nets.insert(1, Net::open())), expected);
    assert_eq!(odd(|tables| _ = tables.nets.insert(1, Net::default())), expected);
}

#[test]
fn members_of_an_unknown_network_give_nothing() {
    let mut desired = sample::two_networks();
    let networks: Vec<_> = desired.objects().keys().copied().take(2).collect();
    networks.iter().for_each(|network| desired.remove(network));
    assert_eq!(
        Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7)])),
        Ledger { desired: desired.clone(), ..Ledger::of(&desired, &Ties::default()) }
    );
}

#[test]
fn frames_for_a_peer_leave_from_the_vtep_that_its_host_knows() {
    let tables = Ledger::of(&sample::two_networks(), &interfaces(&[])).tables;
    let local = Addr::v4([192, 0, 2, 1]);
    assert_eq!(tables.fdb.len(), 2);
    for fdb in tables.fdb.values() {
        assert!(
            matches!(fdb.target(), Some(FdbTarget::Remote { local: from, .. }) if from == local)
        );
    }
}

#[test]
fn what_does_not_fit_is_left_out_alone_and_local_ports_come_first() {
    let mut desired = sample::two_networks();
    for number in 0..MAX_NEIGH {
        let addresses = vec![std::net::IpAddr::from((0x0b00_0000 + number).to_be_bytes())];
        let [_, b, c, d] = number.to_be_bytes();
        desired.upsert(Object::Peer(Peer {
            uuid: uuid(1_000_000 + u128::from(number)),
            network: uuid(sample::NETWORK_A),
            mac: [2, 0, 1, b, c, d],
            addresses,
            vtep: std::net::IpAddr::from([192, 0, 2, 2]),
            prefixes: Vec::new(),
            goes: None,
            known_as: None,
        }));
    }
    let rendered = Ledger::of(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]));
    assert_eq!(rendered.tables.ports.len(), 2);
    assert_eq!(rendered.tables.neigh.len(), MAX_NEIGH as usize);
    // Two ports have two addresses each, and the peers of the sample came before.
    assert_eq!(rendered.unfit.len(), 4 + 2);
    assert!(rendered.unfit.values().all(|reason| reason.contains("neigh")));
}

#[test]
fn a_port_too_many_is_told_and_takes_no_older_ones_place() {
    let desired = sample::two_networks();
    let at = BTreeMap::from([(uuid(sample::PORT_A), 7), (uuid(sample::PORT_B), 9)]);
    let both = interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]);
    let one = Room { ports_max: 1, ..Room::default() };
    for (older, newer) in [(sample::PORT_A, sample::PORT_B), (sample::PORT_B, sample::PORT_A)] {
        let mut ledger = Ledger::new(one.clone());
        ledger.follow(&desired, &interfaces(&[(older, at[&uuid(older)])]));
        assert!(ledger.unfit().is_empty(), "{:?}", ledger.unfit());
        let before = ledger.tables().clone();
        let present = before.ports.values().map(|port| port.number).collect();
        assert!(ledger.follow(&desired, &both).is_empty(), "no room, nothing changes");
        // So it is for an agent that starts when both are there.
        let mut started = Ledger::new(Room { present, ..one.clone() });
        started.follow(&desired, &both);
        assert_eq!(started, ledger);
        assert_eq!(ledger.tables(), &before);
        let reason = &ledger.unfit()[&uuid(newer)];
        assert!(reason.contains("1 entries for ports") && reason.contains("--connection"));
        // The place of a port that goes is for the one that waits.
        let edits = ledger.follow(&desired, &interfaces(&[(newer, at[&uuid(newer)])]));
        assert_eq!(edits.ports.len(), 2);
        assert!(ledger.unfit().is_empty());
    }
}

/// A step of a history: which object, a variant of it or its removal, and the interface of a port.
type Step = (u8, Option<u8>, u32);

/// Networks 0 to 2, peers of few MACs, addresses and VTEPs, so that they share some and dispute
/// others, and ports.
fn object(which: u8, variant: u8) -> Object {
    let network = u128::from(variant % 3);
    match which {
        0..2 => sample::network(u32::from(which), 100 + u32::from(variant)),
        2 => sample::uplink(2),
        3..13 => Object::Peer(Peer {
            uuid: uuid(u128::from(which)),
            network: uuid(network),
            mac: [2, 0, 0, 0, 1, which % 4],
            addresses: vec![IpAddr::from([10, 0, 0, variant % 5])],
            vtep: IpAddr::from([192, 0, 2, variant % 2]),
            prefixes: vec![Prefix { ip: IpAddr::from([192, 168, variant % 4, 0]), bits: 24 }],
            goes: None,
            known_as: None,
        }),
        18 => Object::Subnet(sample::subnet(NET_SERVED, network, variant)),
        _ => sample::served(sample::port(u128::from(which), 7, network, which), NET_SERVED),
    }
}

/// The L3 network of the ports of histories.
const NET_SERVED: u128 = 70;

proptest! {
    #[test]
    fn following_changes_gives_what_making_it_anew_gives(
        steps in proptest::collection::vec(
            proptest::collection::vec((0..19_u8, any::<Option<u8>>(), 0..5_u32), 1..5), 1..30),
    ) {
        let (mut holding, mut ties) = (Holding::default(), Ties::default());
        let (mut ledger, mut maps) = (Ledger::default(), Tables::default());
        for step in steps {
            let step: Vec<Step> = step;
            for (which, variant, ifindex) in step {
                match variant {
                    Some(variant) => holding.upsert(object(which, variant)),
                    None => holding.remove(&object(which, 0).key()),
                }
                match ifindex {
                    0 => _ = ties.ports.remove(&uuid(which.into())),
                    1 if which == 0 => _ = ties.uplinks.remove("eth1"),
                    index if which == 0 => {
                        let uplink = Uplink { ifindex: 900 + index, mac: [2; 6], is_up: true, mtu_bytes: 1500 };
                        ties.uplinks.insert("eth1".to_owned(), uplink);
                    }
                    index => {
                        let far_end = if index % 2 == 0 { FarEnd::Here } else { FarEnd::Elsewhere };
                        let ifindex = u32::from(which) * 8 + index / 3;
                        let plug = Plug { ifindex, far_end };
                        ties.ports.insert(uuid(which.into()), plug);
                    }
                };
            }
            maps.apply(&ledger.follow(&holding, &ties));
            prop_assert_eq!(&maps, ledger.tables());
            prop_assert_eq!(ledger.digest(), fact::digest(&facts(&maps)));
            let mut anew = Ledger::default();
            anew.anew(&holding, &ties);
            prop_assert_eq!(&ledger, &anew);
            let single = |claims: &Claims<packet::Vtep>| claims.values().sum::<usize>() < 2;
            prop_assert!(!ledger.shared.vteps.values().any(single));
        }
    }
}

#[test]
fn a_port_is_served_at_the_addresses_of_its_l3_networks_for_as_long_as_they_have_them() {
    let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
    let mut desired = sample::two_networks();
    desired.upsert(sample::served(port, NET_SERVED));
    let ties = interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]);
    let mut ledger = Ledger::of(&desired, &ties);
    let served = |ledger: &Ledger, text: &str| {
        let addr = text.parse::<IpAddr>().unwrap().into();
        let key = packet::AddrKey { port: 5, addr };
        ledger.tables().serving.get(&key).map_or(0, |serving| serving.what)
    };
    assert_eq!(served(&ledger, "::"), Serving::DHCP | Serving::IPV6);
    let at = Serving::METADATA | Serving::ADDRESS;
    assert_eq!((served(&ledger, "169.254.169.254"), served(&ledger, "fe80::a9fe:a9fe")), (at, at));
    assert_eq!(served(&ledger, "10.0.0.53"), 0, "the L3 network is not there yet");
    // The sample's gateway is nobody's: what is for metadata may be sent to it.
    assert_eq!(served(&ledger, "10.0.0.1"), Serving::ADDRESS);

    desired.upsert(Object::Subnet(sample::subnet(NET_SERVED, sample::NETWORK_A, 0)));
    let edits = ledger.follow(&desired, &ties);
    assert_eq!(edits.len(), 2, "the addresses of DNS and of DHCP: {edits:?}");
    assert_eq!(served(&ledger, "10.0.0.53"), Serving::DNS | Serving::ADDRESS);
    assert_eq!(served(&ledger, "10.0.0.2"), Serving::RELAY | Serving::ADDRESS);
    desired.remove(&Object::Subnet(sample::subnet(NET_SERVED, sample::NETWORK_A, 0)).key());
    ledger.follow(&desired, &ties);
    assert_eq!(served(&ledger, "10.0.0.53"), 0);
    assert_eq!(facts(ledger.tables()), fact::facts(desired.objects()));
}

#[test]
fn room_that_becomes_free_is_used_and_the_rest_stays() {
    let mut desired = sample::two_networks();
    // The peers of the sample have one VTEP between them.
    let peer = |number: u32| {
        let [a, b, c, d] = (0x0b00_0000 + number).to_be_bytes();
        Object::Peer(Peer {
            uuid: uuid(1_000_000 + u128::from(number)),
            network: uuid(sample::NETWORK_A),
            mac: [2, 0, a, b, c, d],
            addresses: Vec::new(),
            vtep: IpAddr::from([a, b, c, d]),
            prefixes: Vec::new(),
            goes: None,
            known_as: None,
        })
    };
    (0..MAX_VTEPS - 2).for_each(|number| desired.upsert(peer(number)));
    let mut ledger = Ledger::of(&desired, &interfaces(&[]));
    assert!(ledger.unfit().is_empty());
    desired.upsert(peer(MAX_VTEPS));
    assert!(ledger.follow(&desired, &interfaces(&[])).is_empty(), "no room, nothing changes");
    assert_eq!(ledger.unfit().len(), 1);
    desired.remove(&peer(5).key());
    let edits = ledger.follow(&desired, &interfaces(&[]));
    assert_eq!(edits.vteps.len(), 2, "one goes, the one that waited comes");
    assert!(ledger.unfit().is_empty());
}

#[test]
fn a_physical_network_has_its_interface_and_each_port_there_its_link_local_address() {
    let objects = [
        sample::uplink(1),
        sample::instance(sample::INSTANCE),
        sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5),
    ];
    let desired: Holding = objects.into_iter().collect();
    let mut ties = interfaces(&[(sample::PORT_A, 7)]);
    let mut ledger = Ledger::of(&desired, &ties);
    assert_eq!(ledger.tables().nets[&1], Net::open(), "ports here still reach each other");
    assert!(ledger.tables().wires.is_empty());
    assert_ne!(ledger.digest(), desired.kernel_digest());

    let uplink = Uplink { ifindex: 3, mac: [2, 0, 0, 0, 9, 9], is_up: true, mtu_bytes: 1500 };
    ties.uplinks.insert("eth1".to_owned(), uplink);
    let edits = ledger.follow(&desired, &ties);
    let key = PortKey::tagged(3, 7);
    assert_eq!(edits.wires[&key], Some(packet::Wire { net: 1 }));
    let net = Net::open().behind(key, packet::Mac(uplink.mac));
    assert_eq!(edits.nets[&1], Some(net));
    let link_local = Addr::link_local(packet::Mac([2, 0, 0, 0, 0, 5]));
    assert!(ledger.tables().addrs.contains_key(&packet::AddrKey { port: 5, addr: link_local }));
    assert_eq!(ledger.digest(), desired.kernel_digest());
    assert_eq!(facts(ledger.tables()), fact::facts(desired.objects()));
}
