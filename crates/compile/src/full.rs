//! The reference: everything, from the state alone, as plainly as the rules in the crate's
//! documentation say it. Costs hosts times NICs of each network; for tests and for `doctor`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{Id, Kind, Record, Resource, resource::host::Host};
use store::Read;
use wire::object::Object;

use crate::{
    HostObjects, MissingVtep,
    objects::{self, Net, Nic, Site},
};

/// What every host must hold; a host that must hold nothing is absent.
pub fn compile_all(read: &impl Read<Record>) -> BTreeMap<Id<Host>, HostObjects> {
    let mut hosts: BTreeMap<Id<Host>, HostObjects> = BTreeMap::new();
    let mut hold = |host: Id<Host>, object: Object| {
        hosts.entry(host).or_default().insert(object.key(), object);
    };
    let vteps = vteps(read);
    let placed = placed(read);
    for (nic, net) in &placed {
        let Some(&vtep) = vteps.get(&(nic.host, net.pool)) else { continue };
        hold(nic.host, net.network(vtep));
        hold(nic.host, nic.port());
        for (other, _) in placed.iter().filter(|(other, _)| other.network == nic.network) {
            if other.host != nic.host && vteps.contains_key(&(other.host, net.pool)) {
                hold(other.host, nic.peer(vtep));
            }
        }
    }
    for record in read.list(Kind::VmInstance) {
        if let Record::VmInstance(instance) = &*record {
            hold(instance.host_uuid, objects::instance(instance));
        }
    }
    hosts
}

/// Every host that lacks a VTEP it needs.
pub fn missing_vteps(read: &impl Read<Record>) -> BTreeSet<MissingVtep> {
    let vteps = vteps(read);
    let needed = placed(read).into_iter().map(|(nic, net)| (nic.host, net.pool));
    let missing = needed.filter(|site| !vteps.contains_key(site));
    missing.map(|(host, pool)| MissingVtep { host, pool }).collect()
}

/// Every NIC that is bound, with its network.
fn placed(read: &impl Read<Record>) -> Vec<(Nic, Net)> {
    let network = |nic: &Nic| match &*read.get(Kind::L2VxlanNetwork, nic.network.uuid())? {
        Record::L2VxlanNetwork(network) => Some(Net::of(network)),
        _ => None,
    };
    let nics = read.list(Kind::VmNic);
    let nics = nics.filter_map(|record| Resource::from_record(&record).and_then(Nic::of));
    nics.filter_map(|nic| network(&nic).map(|net| (nic, net))).collect()
}

/// The VTEP of each host in each pool: the one with the lowest uuid.
fn vteps(read: &impl Read<Record>) -> BTreeMap<Site, IpAddr> {
    let mut vteps = BTreeMap::new();
    for record in read.list(Kind::Vtep) {
        if let Record::Vtep(vtep) = &*record {
            let (site, (_, ip)) = objects::vtep(vtep);
            vteps.entry(site).or_insert(ip);
        }
    }
    vteps
}
