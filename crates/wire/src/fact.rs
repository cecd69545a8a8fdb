//! What the data plane of a host must hold, without anything that only the host knows, such as an
//! interface index. The server computes these facts from objects. The agent computes them from what
//! it reads back from the kernel's maps. The two digests must be equal.

use std::{collections::BTreeSet, net::IpAddr};

use imbl::OrdMap;
use uuid::Uuid;

use crate::{
    digest::{Form, MemberHash, SetDigest},
    object::{Attachment, Moving, Network, Object, ObjectKey, Peer, Port, Prefix, Table, Tunnel},
    shared::Shared,
};

/// One thing that the data plane knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// A port of this host.
    Port {
        /// Its number.
        number: u32,
        /// The number of its network.
        net: u32,
        /// The only MAC that it may send from.
        mac: [u8; 6],
    },
    /// An address that a port may send from.
    Address {
        /// The port's number.
        port: u32,
        /// The address.
        ip: IpAddr,
    },
    /// Where a station of a network is.
    Fdb {
        /// The network's number.
        net: u32,
        /// The station.
        mac: [u8; 6],
        /// Where it is.
        at: Station,
    },
    /// Where a station is once a move has come to its end.
    Move {
        /// The network's number.
        net: u32,
        /// The station.
        mac: [u8; 6],
        /// The move's number.
        number: u32,
        /// Where it is then.
        at: Station,
    },
    /// Who has an address of a network.
    Neighbour {
        /// The network's number.
        net: u32,
        /// The address.
        ip: IpAddr,
        /// Who has it.
        mac: [u8; 6],
    },
    /// Who routes for a prefix in a network.
    Behind {
        /// The network's number.
        net: u32,
        /// The prefix: its lowest address.
        ip: IpAddr,
        /// The prefix: how many bits of it count.
        bits: u8,
        /// Who routes.
        mac: [u8; 6],
    },
    /// A VTEP that may send frames of a network.
    Vtep {
        /// The VXLAN network identifier in its frames.
        vni: u32,
        /// Its address.
        ip: IpAddr,
        /// The number of the network that they belong to.
        net: u32,
    },
    /// A foreign VTEP that may send frames of a network.
    ForeignVtep {
        /// The VXLAN network identifier in its frames.
        vni: u32,
        /// Its address.
        ip: IpAddr,
        /// The number of the network that they belong to.
        net: u32,
    },
    /// A network with foreign VTEPs.
    Strangers {
        /// The network's number.
        net: u32,
    },
    /// A physical network that the host is in. One that is closed goes without saying.
    Physical {
        /// The network's number.
        net: u32,
        /// The VLAN on the host's interface, 0 for untagged.
        vlan: u16,
    },
    /// A network of any other kind, or one that is not there while a port is in it. No object gives
    /// this.
    OddNetwork {
        /// The network's number.
        net: u32,
    },
}

/// Where a station of a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Station {
    /// On this host.
    Local {
        /// The port's number.
        port: u32,
    },
    /// On another host.
    Remote {
        /// The VXLAN network identifier to send with.
        vni: u32,
        /// The other host's VTEP.
        vtep: IpAddr,
    },
}

/// The facts that a port gives. None of them names an interface.
#[must_use]
pub fn port_facts(port: &Port, network: &Network) -> Vec<Fact> {
    let (number, net, mac) = (port.number, network.number, port.mac);
    let mut facts = vec![Fact::Port { number, net, mac }];
    let here = Station::Local { port: number };
    let there = |moving: &Moving| {
        let vni = network.tunnel()?.id();
        let vtep = Fact::Vtep { vni, ip: moving.vtep, net };
        Some((moving.number, Station::Remote { vni, vtep: moving.vtep }, vtep))
    };
    let (goes, comes) = (port.goes.as_ref().and_then(there), port.comes.as_ref().and_then(there));
    let at = comes.map_or(here, |(_, there, _)| there);
    facts.push(Fact::Fdb { net, mac, at });
    if let Some((number, there, vtep)) = goes.or(comes) {
        let at = if goes.is_some() { there } else { here };
        facts.extend([Fact::Move { net, mac, number, at }, vtep]);
    }
    for ip in port.ips(network) {
        facts.push(Fact::Address { port: number, ip });
        facts.push(Fact::Neighbour { net, ip, mac });
    }
    facts.extend(behind(&port.prefixes, net, mac));
    facts
}

/// The facts that a network itself gives.
#[must_use]
pub fn network_facts(network: &Network) -> Vec<Fact> {
    let net = network.number;
    match &network.attachment {
        Attachment::Uplink(uplink) => {
            vec![Fact::Physical { net, vlan: uplink.vlan.unwrap_or(0) }]
        }
        Attachment::Tunnel(tunnel @ Tunnel { foreign, .. }) => {
            let (strangers, vni) =
                ((!foreign.is_empty()).then_some(Fact::Strangers { net }), tunnel.id());
            let vteps = foreign.iter().map(|ip| Fact::ForeignVtep { vni, ip: *ip, net });
            vteps.chain(strangers).collect()
        }
    }
}

/// The facts that a peer gives: none in a network without tunnels. Peers behind one VTEP give its
/// fact more than once.
#[must_use]
pub fn peer_facts(peer: &Peer, network: &Network) -> Vec<Fact> {
    let Some(tunnel) = network.tunnel() else { return Vec::new() };
    let (net, vni, mac) = (network.number, tunnel.id(), peer.mac);
    let mut facts = vec![
        Fact::Fdb { net, mac, at: Station::Remote { vni, vtep: peer.vtep } },
        Fact::Vtep { vni, ip: peer.vtep, net },
    ];
    if let Some(Moving { number, vtep }) = peer.goes {
        let at = Station::Remote { vni, vtep };
        facts.extend([Fact::Move { net, mac, number, at }, Fact::Vtep { vni, ip: vtep, net }]);
    }
    facts.extend(peer.addresses.iter().map(|ip| Fact::Neighbour { net, ip: *ip, mac }));
    facts.extend(behind(&peer.prefixes, net, mac));
    facts
}

fn behind(prefixes: &[Prefix], net: u32, mac: [u8; 6]) -> impl Iterator<Item = Fact> + '_ {
    prefixes.iter().map(move |&Prefix { ip, bits }| Fact::Behind { net, ip, bits, mac })
}

/// All facts that objects give.
#[must_use]
pub fn facts(objects: &OrdMap<ObjectKey, Shared>) -> BTreeSet<Fact> {
    let network = |uuid| objects.get(&ObjectKey { table: Table::Network, uuid });
    let of = |object: &Shared| match (&**object, network_of(object)) {
        (Object::Network(network), _) => Some(network_facts(network)),
        (_, Some(uuid)) => match &**network(uuid)? {
            Object::Network(network) => Some(member_facts(object, network)),
            _ => None,
        },
        _ => None,
    };
    objects.values().filter_map(of).flatten().collect()
}

/// The digest of a set of facts.
#[must_use]
pub fn digest(facts: &BTreeSet<Fact>) -> SetDigest {
    let mut digest = SetDigest::default();
    facts.iter().for_each(|fact| digest.add(hash(fact)));
    digest
}

/// What the facts of a network's members are counted by; a change costs what the member gives.
///
/// Only the facts about VTEPs may come from several members, and only those are counted: claims
/// make ports, MACs, addresses and prefixes unique in their network. Objects that break this rule give a
/// digest that no host can reach, so the mistake shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkFacts {
    /// How many members are behind each VTEP.
    vteps: OrdMap<IpAddr, u32>,
}

impl NetworkFacts {
    pub(crate) fn add(&mut self, digest: &mut SetDigest, member: &Shared, network: &Network) {
        member.with_facts(network, |facts| {
            digest.add_all(facts.own);
            for (vtep, hash) in &facts.vteps {
                let count = self.vteps.entry(*vtep).or_default();
                *count += 1;
                if *count == 1 {
                    digest.add(*hash);
                }
            }
        });
    }

    pub(crate) fn take(&mut self, digest: &mut SetDigest, member: &Shared, network: &Network) {
        member.with_facts(network, |facts| {
            digest.take_all(facts.own);
            for (vtep, hash) in &facts.vteps {
                let Some(count) = self.vteps.get_mut(vtep) else { continue };
                *count -= 1;
                if *count == 0 {
                    self.vteps.remove(vtep);
                    digest.take(*hash);
                }
            }
        });
    }
}

/// The network that an object belongs to.
pub(crate) fn network_of(object: &Object) -> Option<Uuid> {
    match object {
        Object::Peer(peer) => Some(peer.network),
        Object::Port(port) => Some(port.network),
        _ => None,
    }
}

pub(crate) fn member_facts(object: &Object, network: &Network) -> Vec<Fact> {
    match object {
        Object::Peer(peer) => peer_facts(peer, network),
        Object::Port(port) => port_facts(port, network),
        _ => Vec::new(),
    }
}

/// Hashes a fact.
#[must_use]
pub fn hash(fact: &Fact) -> MemberHash {
    let mut form = Form::default();
    match fact {
        Fact::Port { number, net, mac } => form.tag(1).number(*number).number(*net).bytes(mac),
        Fact::Address { port, ip } => form.tag(2).number(*port).ip(*ip),
        Fact::Fdb { net, mac, at: Station::Local { port } } => {
            form.tag(3).number(*net).bytes(mac).number(*port)
        }
        Fact::Fdb { net, mac, at: Station::Remote { vni, vtep } } => {
            form.tag(4).number(*net).bytes(mac).number(*vni).ip(*vtep)
        }
        Fact::Neighbour { net, ip, mac } => form.tag(5).number(*net).ip(*ip).bytes(mac),
        Fact::Vtep { vni, ip, net } => form.tag(6).number(*vni).ip(*ip).number(*net),
        Fact::OddNetwork { net } => form.tag(7).number(*net),
        Fact::Behind { net, ip, bits, mac } => {
            form.tag(8).number(*net).ip(*ip).number((*bits).into()).bytes(mac)
        }
        Fact::ForeignVtep { vni, ip, net } => form.tag(10).number(*vni).ip(*ip).number(*net),
        Fact::Strangers { net } => form.tag(11).number(*net),
        Fact::Physical { net, vlan } => form.tag(9).number(*net).number((*vlan).into()),
        Fact::Move { net, mac, number, at: Station::Local { port } } => {
            form.tag(12).number(*net).bytes(mac).number(*number).number(*port)
        }
        Fact::Move { net, mac, number, at: Station::Remote { vni, vtep } } => {
            form.tag(13).number(*net).bytes(mac).number(*number).number(*vni).ip(*vtep)
        }
    };
    form.finish()
}
