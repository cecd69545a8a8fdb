//! The reference: everything, from the state alone, as plainly as the rules in the crate's
//! documentation say it. Costs hosts times NICs of each network; for tests and for `doctor`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        host::Host, instance_offering::InstanceOffering, l2_network::L2Network,
        l3_network::L3Network, remote_vtep::RemoteVtep, vm_instance::VmInstance, vm_nic::VmNic,
        vtep::Vtep, zone::Zone,
    },
};
use store::Read;
use wire::{
    object::{Object, ObjectKey},
    shared::Shared,
};

use crate::{
    HostObjects, MissingVtep, about,
    guard::Guarded,
    lan::Lan,
    objects::{self, Ends, Net, Nic, Site},
    one,
    plain::Plain,
};

/// What every host must hold; a host that must hold nothing is absent.
pub fn compile_all(read: &impl Read<Record>) -> BTreeMap<Id<Host>, HostObjects> {
    let mut hosts: BTreeMap<Id<Host>, BTreeMap<ObjectKey, Shared>> = BTreeMap::new();
    let mut hold = |host: Id<Host>, object: Object| {
        hosts.entry(host).or_default().insert(object.key(), object.into());
    };
    let vteps = ends(read);
    let lans = lans(read);
    let placed = placed(read, &lans);
    // Where its tunnels end, if it needs some; `None`: its host cannot carry the network.
    let home = |nic: &Nic, net: &Net| match net.pool() {
        None => Some(None),
        Some(pool) => vteps.get(&(nic.host, pool)).map(Some),
    };
    let (mut bound, mut plain) = (Vec::new(), Plain::new(read));
    for (nic, net) in &placed {
        let Some(ends) = home(nic, net) else { continue };
        if let Some(network) = net.network(ends) {
            hold(nic.host, network);
        }
        let goal = goal(&vteps, nic, net);
        let to = goal.map(|(_, ends)| ends.local);
        let guards = plain.guards(nic.uuid);
        let guarded =
            Guarded { nic, net, ends: [ends, goal.map(|(_, ends)| ends)], guards: &guards };
        hold(nic.host, guarded.port(nic.port(to)));
        let homes: Vec<_> = [nic.host].into_iter().chain(goal.map(|(host, _)| host)).collect();
        for lan in nic.lans().filter_map(|l3| lans.get(&l3)) {
            homes.iter().for_each(|host| hold(*host, Object::clone(&lan.subnet)));
        }
        plain.meet(&guarded, &homes);
        bound.push((Arc::clone(nic), homes));
        if let Some((host, goal)) = goal {
            let waiting = nic.waiting(ends.map(|ends| ends.local));
            let waiting = waiting.map(|port| guarded.port(port));
            net.network(Some(goal)).into_iter().chain(waiting).for_each(|o| hold(host, o));
        }
        let Some(ends) = ends else { continue };
        let here = [Some(nic.host), goal.map(|(host, _)| host)];
        for (other, _) in placed.iter().filter(|(other, _)| other.network == nic.network) {
            let Some(_) = home(other, net) else { continue };
            let hosts = [Some(other.host), self::goal(&vteps, other, net).map(|(host, _)| host)];
            for host in hosts.into_iter().flatten().filter(|host| !here.contains(&Some(*host))) {
                hold(host, nic.peer(ends.local, to));
            }
        }
    }
    plain.objects().into_iter().for_each(|(host, object)| hold(host, object));
    abouts(read, &bound).into_iter().for_each(|(host, object)| hold(host, object));
    for record in read.list(Kind::VmInstance) {
        let Some(instance) = VmInstance::of(&record) else { continue };
        objects::instances(instance).for_each(|(host, object)| hold(host, object));
    }
    hosts.into_iter().map(|(host, objects)| (host, objects.into_values().collect())).collect()
}

/// The host that a NIC moves to, with the ends of its tunnels.
fn goal<'a>(ends: &'a BTreeMap<Site, Ends>, nic: &Nic, net: &Net) -> Option<(Id<Host>, &'a Ends)> {
    let host = nic.pending.as_ref()?.host;
    Some((host, ends.get(&(host, net.pool()?))?))
}

/// Every host that lacks a VTEP it needs.
pub fn missing_vteps(read: &impl Read<Record>) -> BTreeSet<MissingVtep> {
    let vteps = ends(read);
    let sites = |(nic, net): (Arc<Nic>, Net)| {
        let hosts = [Some(nic.host), nic.pending.as_ref().map(|pending| pending.host)];
        let pool = net.pool();
        hosts.into_iter().flatten().filter_map(move |host| Some((host, pool?)))
    };
    let needed = placed(read, &lans(read)).into_iter().flat_map(sites);
    let missing = needed.filter(|site| !vteps.contains_key(site));
    missing.map(|(host, pool)| MissingVtep { host, pool }).collect()
}

/// Every NIC that is bound, with its addresses and its network.
fn placed(read: &impl Read<Record>, lans: &BTreeMap<Id<L3Network>, Lan>) -> Vec<(Arc<Nic>, Net)> {
    let network = |nic: &Nic| {
        let record = read.get(Kind::L2Network, nic.network.uuid())?;
        L2Network::of(&record).and_then(Net::of)
    };
    let brief = |l3| lans.get(&l3).map(Lan::brief);
    let nics = read.list(Kind::VmNic);
    let nics = nics.filter_map(|record| one::nic(read, VmNic::of(&record)?, brief));
    nics.filter_map(|nic| network(&nic).map(|net| (nic, net))).collect()
}

/// The L3 networks of whose guests hosts take care.
fn lans(read: &impl Read<Record>) -> BTreeMap<Id<L3Network>, Lan> {
    let globals = one::globals(read);
    let l3s = read.list(Kind::L3Network).map(|row| Id::new(row.uuid()));
    l3s.filter_map(|l3| Some((l3, one::lan(read, l3, &globals)?))).collect()
}

fn note<K: Ord, V: Ord>(all: &mut BTreeMap<K, BTreeSet<V>>, one: Option<(K, V)>) {
    if let Some((key, value)) = one {
        all.entry(key).or_default().insert(value);
    }
}

/// What the instances of these NICs, each with its hosts, may read about themselves.
fn abouts(read: &impl Read<Record>, nics: &[(Arc<Nic>, Vec<Id<Host>>)]) -> Vec<(Id<Host>, Object)> {
    let mut facts: BTreeMap<Id<VmInstance>, BTreeSet<about::Fact>> = BTreeMap::new();
    let kinds = [Kind::VmInstance, Kind::UserTag, Kind::GuestData, Kind::ResourceConfig];
    for record in kinds.into_iter().flat_map(|kind| read.list(kind)) {
        note(&mut facts, about::fact(&record));
        let Some(instance) = VmInstance::of(&record) else { continue };
        let (zone, id) = about::zone(instance);
        let zone = read.get(Kind::Zone, zone.uuid());
        let zone = zone.as_deref().and_then(Zone::of).map(|zone| zone.name.clone());
        note(&mut facts, zone.map(|name| (id, about::Fact::Zone(name))));
        let offering = about::offering(instance);
        let offering = offering.and_then(|(it, _)| read.get(Kind::InstanceOffering, it.uuid()));
        let offering = offering.as_deref().and_then(InstanceOffering::of);
        let offering = offering.map(|offering| offering.name.clone());
        note(&mut facts, offering.map(|name| (id, about::Fact::Offering(name))));
    }
    let mut readers = BTreeSet::new();
    for (nic, hosts) in nics {
        let name = nic.full_name().zip(nic.instance);
        let name = name.map(|((is_other, name), id)| (id, about::Fact::Name(is_other, name)));
        note(&mut facts, name);
        readers.extend(hosts.iter().filter_map(|host| Some((nic.reader()?, *host))));
    }
    let globals = one::globals(read);
    let about = |(instance, host)| {
        let facts: Vec<_> = facts.get(&instance)?.iter().cloned().collect();
        about::about(host, &facts, &globals)
    };
    readers.into_iter().filter_map(about).collect()
}

/// Where the tunnels of each host end in each pool: its VTEP with the lowest uuid, and those of the
/// pool in its cluster that are no host's.
fn ends(read: &impl Read<Record>) -> BTreeMap<Site, Ends> {
    let mut ends = BTreeMap::new();
    for record in read.list(Kind::Vtep) {
        let Some(vtep) = Vtep::of(&record) else { continue };
        let (site, (_, (local, port))) = objects::vtep(vtep);
        ends.entry(site).or_insert(Ends { local, port, foreign: Vec::new() });
    }
    for record in read.list(Kind::RemoteVtep) {
        let Some(remote) = RemoteVtep::of(&record) else { continue };
        let (cluster, (pool, ip)) = objects::remote_vtep(remote);
        let hosts = read.list(Kind::Host);
        let hosts = hosts.filter_map(|host| Host::of(&host).cloned());
        for host in hosts.filter(|host| host.cluster_uuid == cluster) {
            if let Some(ends) = ends.get_mut(&(host.uuid, pool)) {
                ends.foreign.push(ip);
            }
        }
    }
    ends.values_mut().for_each(|ends| ends.foreign.sort_unstable());
    ends
}
