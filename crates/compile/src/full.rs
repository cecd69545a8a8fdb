//! The reference: everything, from the state alone, as plainly as the rules in the crate's
//! documentation say it. Costs hosts times NICs of each network; for tests and for `doctor`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        host::Host, l2_network::L2Network, remote_vtep::RemoteVtep, used_ip::UsedIp,
        vm_instance::VmInstance, vm_nic::VmNic, vtep::Vtep,
    },
};
use store::Read;
use wire::{
    object::{Object, ObjectKey},
    shared::Shared,
};

use crate::{
    HostObjects, MissingVtep,
    objects::{self, Address, Ends, Net, Nic, Site},
};

/// What every host must hold; a host that must hold nothing is absent.
pub fn compile_all(read: &impl Read<Record>) -> BTreeMap<Id<Host>, HostObjects> {
    let mut hosts: BTreeMap<Id<Host>, BTreeMap<ObjectKey, Shared>> = BTreeMap::new();
    let mut hold = |host: Id<Host>, object: Object| {
        hosts.entry(host).or_default().insert(object.key(), object.into());
    };
    let vteps = ends(read);
    let placed = placed(read);
    // Where its tunnels end, if it needs some; `None`: its host cannot carry the network.
    let home = |nic: &Nic, net: &Net| match net.pool() {
        None => Some(None),
        Some(pool) => vteps.get(&(nic.host, pool)).map(Some),
    };
    for (nic, net) in &placed {
        let Some(ends) = home(nic, net) else { continue };
        if let Some(network) = net.network(ends) {
            hold(nic.host, network);
        }
        let goal = goal(&vteps, nic, net);
        let to = goal.map(|(_, ends)| ends.local);
        hold(nic.host, nic.port(to));
        if let Some((host, goal)) = goal {
            let waiting = nic.waiting(ends.map(|ends| ends.local));
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
    let needed = placed(read).into_iter().flat_map(sites);
    let missing = needed.filter(|site| !vteps.contains_key(site));
    missing.map(|(host, pool)| MissingVtep { host, pool }).collect()
}

/// Every NIC that is bound, with its addresses and its network.
fn placed(read: &impl Read<Record>) -> Vec<(Arc<Nic>, Net)> {
    let mut addresses: BTreeMap<Id<VmNic>, Vec<Address>> = BTreeMap::new();
    for record in read.list(Kind::UsedIp) {
        if let Some((nic, address)) = UsedIp::of(&record).and_then(objects::address) {
            addresses.entry(nic).or_default().push(address);
        }
    }
    addresses.values_mut().for_each(|of| of.sort_unstable());
    let network = |nic: &Nic| {
        let record = read.get(Kind::L2Network, nic.network.uuid())?;
        L2Network::of(&record).and_then(Net::of)
    };
    let nics = read.list(Kind::VmNic);
    let nics = nics.filter_map(|record| VmNic::of(&record).and_then(Nic::of));
    let nics = nics.map(|nic| {
        let instance = nic.instance.and_then(|it| read.get(Kind::VmInstance, it.uuid()));
        let default = instance.as_deref().and_then(VmInstance::of).and_then(objects::default_l3);
        let nic = nic.with(addresses.get(&nic.uuid).cloned().unwrap_or_default());
        Arc::new(nic).routed(default.map(|(_, l3)| l3))
    });
    nics.filter_map(|nic| network(&nic).map(|net| (nic, net))).collect()
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
