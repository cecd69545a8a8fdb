//! What the maps must hold, from the desired objects and the interfaces of the ports; and back,
//! what facts the maps hold. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::Tables;
use packet::{
    Addr, AddrKey, DEFAULT_CONNTRACK_BUDGET, Fdb, FdbKey, FdbTarget, Mac, Neigh, NeighKey, PortKey,
    Vtep, VtepKey,
};
use uuid::Uuid;
use wire::{
    fact::{Fact, Station},
    holding::Holding,
    object::{Network, Object, Peer, Port},
};

/// The policy generation of every port while there is no policy.
const GENERATION: u32 = 0;

/// What the maps must hold when these ports are attached to these interfaces. A port that is not
/// among them is left out, with all that leads to it: nothing may be sent where no program guards.
pub fn render(desired: &Holding, interfaces: &BTreeMap<Uuid, u32>) -> Tables {
    let mut tables = Tables::default();
    for object in desired.objects().values() {
        match object {
            Object::Peer(peer) => {
                if let Some(network) = desired.network(peer.network) {
                    add_peer(&mut tables, peer, network);
                }
            }
            Object::Port(port) => {
                if let (Some(network), Some(ifindex)) =
                    (desired.network(port.network), interfaces.get(&port.uuid))
                {
                    add_port(&mut tables, port, network, PortKey::untagged(*ifindex));
                }
            }
            Object::Network(_) | Object::Instance(_) => {}
        }
    }
    tables
}

fn add_peer(tables: &mut Tables, peer: &Peer, network: &Network) {
    let (net, vni, vtep) = (network.number, network.vni, Addr::from(peer.vtep));
    let mac = Mac(peer.mac);
    tables.vteps.insert(VtepKey { vni, addr: vtep }, Vtep { net });
    tables.fdb.insert(FdbKey::new(net, mac), Fdb::remote(vni, vtep));
    for ip in &peer.addresses {
        tables.neigh.insert(NeighKey { net, addr: (*ip).into() }, Neigh::new(mac));
    }
}

fn add_port(tables: &mut Tables, port: &Port, network: &Network, key: PortKey) {
    let (number, net, mac) = (port.number, network.number, Mac(port.mac));
    let value = packet::Port {
        number,
        net,
        generation: GENERATION,
        conntrack_budget: DEFAULT_CONNTRACK_BUDGET,
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
}

/// The facts that maps hold, without interfaces. What makes no sense to this version becomes a
/// fact that no object gives, so that it shows as a disagreement.
pub fn facts(tables: &Tables) -> BTreeSet<Fact> {
    let station = |fdb: &Fdb| match fdb.target() {
        Some(FdbTarget::Local(key)) => {
            Station::Local { port: tables.ports.get(&key).map_or(0, |port| port.number) }
        }
        Some(FdbTarget::Remote { vni, vtep }) => Station::Remote { vni, vtep: vtep.into() },
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
        let tables = render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]));
        let expected = fact::facts(desired.objects().values());
        assert_eq!(facts(&tables), expected);
        assert_eq!(fact::digest(&facts(&tables)), desired.kernel_digest());
    }

    #[test]
    fn facts_do_not_depend_on_interfaces() {
        let desired = sample::two_networks();
        let one = render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]));
        let other = render(&desired, &interfaces(&[(sample::PORT_A, 90), (sample::PORT_B, 70)]));
        assert_ne!(one, other);
        assert_eq!(facts(&one), facts(&other));
    }

    #[test]
    fn nothing_leads_to_a_port_without_an_interface() {
        let desired = sample::two_networks();
        let tables = render(&desired, &interfaces(&[(sample::PORT_A, 7)]));
        let port = |f: &Fact| matches!(f, Fact::Fdb { at: Station::Local { .. }, .. });
        assert_eq!(facts(&tables).iter().filter(|f| port(f)).count(), 1);
        assert_eq!(tables.ports.len(), 1);
        assert_ne!(fact::digest(&facts(&tables)), desired.kernel_digest());
    }

    #[test]
    fn an_entry_that_leads_nowhere_is_a_disagreement() {
        let desired = sample::two_networks();
        let mut tables = render(&desired, &interfaces(&[(sample::PORT_A, 7), (sample::PORT_B, 9)]));
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
        assert_eq!(render(&desired, &interfaces(&[(sample::PORT_A, 7)])), Tables::default());
    }
}
