//! What the maps must hold, from the desired objects and the interfaces of the ports; and back,
//! what facts the maps hold. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::Tables;
use packet::{
    Addr, AddrKey, Fdb, FdbKey, FdbTarget, MAX_ADDRS, MAX_FDB, MAX_NEIGH, MAX_PORTS, MAX_VTEPS,
    Mac, Neigh, NeighKey, PortKey, Vtep, VtepKey, conntrack_budget,
};
use uuid::Uuid;
use wire::{
    fact::{Fact, Station},
    holding::Holding,
    object::{Network, Object, Peer, Port, Tunnel},
};

/// The policy generation of every port while there is no policy.
const GENERATION: u32 = 0;

/// What the maps must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Their content.
    pub tables: Tables,
    /// Objects for which a map has no room, with the reason. Nothing of them is in the tables.
    pub unfit: BTreeMap<Uuid, String>,
}

/// What the maps must hold when these ports are attached to these interfaces. A port that is not
/// among them is left out, with all that leads to it: nothing may be sent where no program guards.
/// The host's own ports come first where there is no room for all.
pub fn render(desired: &Holding, interfaces: &BTreeMap<Uuid, u32>) -> Rendered {
    let mut rendered = Rendered::default();
    let objects = || desired.objects().values().map(|object| &**object);
    let is_port = |object: &&Object| matches!(object, Object::Port(_));
    let budget = conntrack_budget(objects().filter(is_port).count().try_into().unwrap_or(u32::MAX));
    for object in objects().filter(is_port).chain(objects().filter(|object| !is_port(object))) {
        match object {
            Object::Peer(peer) => {
                let network = desired.network(peer.network);
                if let Some((network, tunnel)) = network.and_then(|net| Some((net, net.tunnel()?)))
                {
                    rendered.add(peer.uuid, peer_tables(peer, network, tunnel));
                }
            }
            Object::Port(port) => {
                if let (Some(network), Some(ifindex)) =
                    (desired.network(port.network), interfaces.get(&port.uuid))
                {
                    let key = PortKey::untagged(*ifindex);
                    rendered.add(port.uuid, port_tables(port, network, key, budget));
                }
            }
            Object::Network(_) | Object::Instance(_) => {}
        }
    }
    rendered
}

impl Rendered {
    /// Adds what an object gives, all or nothing. What is there already stays.
    fn add(&mut self, uuid: Uuid, more: Tables) {
        let tables = &mut self.tables;
        let addrs = tables.addrs.len() + more.addrs.difference(&tables.addrs).count();
        let wanted = [
            ("ports", together(&tables.ports, &more.ports), MAX_PORTS),
            ("addrs", addrs, MAX_ADDRS),
            ("fdb", together(&tables.fdb, &more.fdb), MAX_FDB),
            ("neigh", together(&tables.neigh, &more.neigh), MAX_NEIGH),
            ("vteps", together(&tables.vteps, &more.vteps), MAX_VTEPS),
        ];
        let full = wanted.into_iter().find(|(_, entries, limit)| entries > &(*limit as usize));
        if let Some((map, _, limit)) = full {
            self.unfit.insert(uuid, format!("the host's {limit} entries for {map} are in use"));
            return;
        }
        put(&mut tables.ports, more.ports);
        tables.addrs.extend(more.addrs);
        put(&mut tables.fdb, more.fdb);
        put(&mut tables.neigh, more.neigh);
        put(&mut tables.vteps, more.vteps);
    }
}

fn together<K: Ord, V>(have: &BTreeMap<K, V>, more: &BTreeMap<K, V>) -> usize {
    have.len() + more.keys().filter(|key| !have.contains_key(key)).count()
}

fn put<K: Ord, V>(into: &mut BTreeMap<K, V>, more: BTreeMap<K, V>) {
    more.into_iter().for_each(|(key, value)| _ = into.entry(key).or_insert(value));
}

fn peer_tables(peer: &Peer, network: &Network, tunnel: &Tunnel) -> Tables {
    let (net, vni, vtep) = (network.number, tunnel.vni, Addr::from(peer.vtep));
    let (mac, local) = (Mac(peer.mac), Addr::from(tunnel.local_vtep));
    let mut tables = Tables::default();
    tables.vteps.insert(VtepKey { vni, addr: vtep }, Vtep { net });
    tables.fdb.insert(FdbKey::new(net, mac), Fdb::remote(vni, vtep).sent_from(local));
    for ip in &peer.addresses {
        tables.neigh.insert(NeighKey { net, addr: (*ip).into() }, Neigh::new(mac));
    }
    tables
}

fn port_tables(port: &Port, network: &Network, key: PortKey, conntrack_budget: u32) -> Tables {
    let (number, net, mac) = (port.number, network.number, Mac(port.mac));
    let mut tables = Tables::default();
    let value = packet::Port {
        number,
        net,
        generation: GENERATION,
        conntrack_budget,
        mac,
        // The other end is in the instance's own network namespace.
        flags: packet::Port::PEER,
    };
    tables.ports.insert(key, value);
    tables.fdb.insert(FdbKey::new(net, mac), Fdb::local(key));
    for address in &port.addresses {
        let addr = address.ip.into();
        tables.addrs.insert(AddrKey { port: number, addr });
        tables.neigh.insert(NeighKey { net, addr }, Neigh::new(mac));
    }
    tables
}

/// The facts that maps hold, without interfaces. What makes no sense to this version becomes a
/// fact that no object gives, so that it shows as a disagreement.
pub fn facts(tables: &Tables) -> BTreeSet<Fact> {
    let station = |fdb: &Fdb| match fdb.target() {
        Some(FdbTarget::Local(key)) => {
            Station::Local { port: tables.ports.get(&key).map_or(0, |port| port.number) }
        }
        Some(FdbTarget::Remote { vni, vtep, .. }) => Station::Remote { vni, vtep: vtep.into() },
        None => Station::Local { port: 0 },
    };
    let ports = tables.ports.values();
    let ports = ports.map(|p| Fact::Port { number: p.number, net: p.net, mac: p.mac.0 });
    let addresses = tables.addrs.iter();
    let addresses = addresses.map(|key| Fact::Address { port: key.port, ip: key.addr.into() });
    let fdb = tables.fdb.iter();
    let fdb = fdb.map(|(key, v)| Fact::Fdb { net: key.net, mac: key.mac.0, at: station(v) });
    let neigh = tables.neigh.iter();
    let neigh =
        neigh.map(|(key, v)| Fact::Neighbour { net: key.net, ip: key.addr.into(), mac: v.mac.0 });
    let vteps = tables.vteps.iter();
    let vteps = vteps.map(|(key, v)| Fact::Vtep { vni: key.vni, ip: key.addr.into(), net: v.net });
    ports.chain(addresses).chain(fdb).chain(neigh).chain(vteps).collect()
}

#[cfg(test)]
mod tests {
    use wire::fact;

    use super::*;
    use crate::sample::{self, uuid};

    fn interfaces(of: &[(u128, u32)]) -> BTreeMap<Uuid, u32> {
        of.iter().map(|(port, ifindex)| (uuid(*port), *ifindex)).collect()
    }

    #[test]
    fn what_is_rendered_gives_the_facts_that_the_server_expects() {
        let desired = sample::two_networks();
        let tables =
            render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
        let expected = fact::facts(desired.objects());
        assert_eq!(facts(&tables), expected);
        assert_eq!(fact::digest(&facts(&tables)), desired.kernel_digest());
    }

    #[test]
    fn facts_do_not_depend_on_interfaces() {
        let desired = sample::two_networks();
        let one = render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
        let other =
            render(&desired, &interfaces(&[(sample::PORT_A, 90), (sample::PORT_B, 70)])).tables;
        assert_ne!(one, other);
        assert_eq!(facts(&one), facts(&other));
    }

    #[test]
    fn nothing_leads_to_a_port_without_an_interface() {
        let desired = sample::two_networks();
        let tables = render(&desired, &interfaces(&[(sample::PORT_A, 7)])).tables;
        let port = |f: &Fact| matches!(f, Fact::Fdb { at: Station::Local { .. }, .. });
        assert_eq!(facts(&tables).iter().filter(|f| port(f)).count(), 1);
        assert_eq!(tables.ports.len(), 1);
        assert_ne!(fact::digest(&facts(&tables)), desired.kernel_digest());
    }

    #[test]
    fn an_entry_that_leads_nowhere_is_a_disagreement() {
        let desired = sample::two_networks();
        let mut tables =
            render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)])).tables;
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
    fn members_of_an_unknown_network_give_nothing() {
        let mut desired = sample::two_networks();
        let networks: Vec<_> = desired.objects().keys().copied().take(2).collect();
        networks.iter().for_each(|network| desired.remove(network));
        assert_eq!(render(&desired, &interfaces(&[(sample::PORT_A, 7)])), Rendered::default());
    }

    #[test]
    fn frames_for_a_peer_leave_from_the_vtep_that_its_host_knows() {
        let tables = render(&sample::two_networks(), &interfaces(&[])).tables;
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
            }));
        }
        let rendered = render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]));
        assert_eq!(rendered.tables.ports.len(), 2);
        assert_eq!(rendered.tables.neigh.len(), MAX_NEIGH as usize);
        // Two ports have two addresses each, and the peers of the sample came before.
        assert_eq!(rendered.unfit.len(), 4 + 2);
        assert!(rendered.unfit.values().all(|reason| reason.contains("neigh")));
    }
}
