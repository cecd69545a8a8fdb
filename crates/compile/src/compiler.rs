//! The incremental compiler: the rules of the crate's documentation as a chain of operators.
//!
//! ```text
//! addresses ──map──┐
//! NICs ───filter─gather─┐
//! instances ──map─────gather─┐
//!                            ├─join─► placed ──┐               ┌────────────────────► Port
//! networks ──map─────────────┘     │           ├─join─► homed ─┼─group─► present ──┬─► Network
//!                                  │           │               └────────────────join─► Peer
//! VTEPs ────────group──────────────┼───────────┘
//!                                  └─group─► sites of placed, without those of homed ─► missing VTEPs
//! instances ────map───────────────────────────────────────────────────────────► Instance
//! ```
//! A network that needs no tunnel skips the join with VTEPs, and tells nobody of its NICs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        host::Host, l2_network::L2Network, l3_network::L3Network, vm_instance::VmInstance,
        vm_nic::VmNic, vtep::Vtep,
    },
};
use store::{Change, Read, Snapshot};
use wire::object::Object;

use crate::{
    HostDelta, HostObjects, MissingVtep,
    objects::{self, Address, Net, Nic, Site},
    operators::{Delta, Gather, Group, Join, map, settle},
    output::Output,
};

type NetworkId = Id<L2Network>;
/// A NIC whose host can carry its network, with the VTEP there if it needs one.
type Homed = (Arc<Nic>, Net, Option<IpAddr>);
/// A NIC that has a home, and a host of its network.
type Pair = (NetworkId, (Arc<Nic>, IpAddr), Id<Host>);

/// What every host must hold, kept up to date by change sets.
#[derive(Debug)]
pub struct Compiler {
    vteps: Group<Site, (Id<Vtep>, IpAddr)>,
    nics: Gather<Id<VmNic>, Nic, Address>,
    routed: Gather<Id<VmInstance>, Arc<Nic>, Id<L3Network>>,
    placed: Join<NetworkId, Arc<Nic>, Net>,
    homed: Join<Site, (Arc<Nic>, Net), IpAddr>,
    present: Group<(Id<Host>, Net, Option<IpAddr>), ()>,
    peers: Join<NetworkId, (Arc<Nic>, IpAddr), Id<Host>>,
    needed: Group<Site, ()>,
    served: Group<Site, ()>,
    missing: BTreeSet<MissingVtep>,
    output: Output,
    nothing: HostObjects,
}

/// How many entries each operator has read and made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Choosing a VTEP for each host and pool.
    pub vteps: u64,
    /// Bringing NICs, their addresses and their instances' default routes together.
    pub nics: u64,
    /// Bringing NICs and their networks together.
    pub placed: u64,
    /// Bringing these and their VTEPs together.
    pub homed: u64,
    /// Finding the networks on each host.
    pub present: u64,
    /// Bringing NICs and the other hosts of their networks together.
    pub peers: u64,
    /// Finding hosts without a VTEP.
    pub missing: u64,
    /// Objects that came or went.
    pub objects: u64,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new()
    }
}

impl Compiler {
    /// A compiler that knows of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            vteps: Group::new(),
            nics: Gather::new(),
            routed: Gather::new(),
            placed: Join::new(),
            homed: Join::new(),
            present: Group::new(),
            peers: Join::new(),
            needed: Group::new(),
            served: Group::new(),
            missing: BTreeSet::new(),
            output: Output::default(),
            nothing: HostObjects::new(),
        }
    }

    /// Starts anew from a snapshot; gives how that differs, per host, from what was known before.
    /// Hosts without a difference are absent.
    pub fn load(&mut self, snapshot: &Snapshot<Record>) -> BTreeMap<Id<Host>, HostDelta> {
        let before = std::mem::take(self);
        let kinds = [Kind::L2Network, Kind::Vtep, Kind::VmInstance, Kind::VmNic, Kind::UsedIp];
        let rows = kinds.into_iter().flat_map(|kind| snapshot.list(kind));
        let new = |row: Arc<Record>| Change {
            kind: row.kind(),
            id: row.uuid(),
            before: None,
            after: Some(row),
        };
        self.apply(&rows.map(new).collect::<Vec<_>>());
        before.output.difference(&self.output)
    }

    /// Takes in what one or more transactions have changed, in order; gives what that changes per
    /// host. Hosts for which nothing changes are absent.
    pub fn apply(&mut self, changes: &[Change<Record>]) -> BTreeMap<Id<Host>, HostDelta> {
        let nics = rows(changes, |nic: &VmNic| Nic::of(nic).map(|nic| (nic.uuid, nic)));
        let nics = self.nics.step(nics, rows(changes, objects::address));
        let nics = map(&nics, |(nic, addresses)| {
            Some((nic.instance, Arc::new(nic.with(addresses.clone()))))
        });
        let nics = self.routed.step(nics, rows(changes, objects::default_l3));
        let nics = map(&nics, |(nic, l3s)| Some((nic.network, nic.routed(l3s.first().copied()))));
        let networks = rows(changes, |l2: &L2Network| Net::of(l2).map(|net| (l2.uuid, net)));
        let vteps = self.vteps.step(rows(changes, |vtep: &Vtep| Some(objects::vtep(vtep))));
        let vteps = map(&vteps, |(site, (_, ip))| Some((*site, *ip)));

        let placed = self.placed.step(nics, networks);
        let plain = map(&placed, |(_, nic, net)| {
            net.pool().is_none().then(|| (Arc::clone(nic), net.clone(), None))
        });
        let placed = map(&placed, |(_, nic, net)| {
            Some(((nic.host, net.pool()?), (Arc::clone(nic), net.clone())))
        });
        let needed = map(&placed, |(site, _)| Some((*site, ())));
        let homed = self.homed.step(placed, vteps);
        let served = map(&homed, |(site, ..)| Some((*site, ())));
        self.note_missing(needed, served);

        let mut homed: Delta<Homed> =
            map(&homed, |(_, (nic, net), vtep)| Some((Arc::clone(nic), net.clone(), Some(*vtep))));
        homed.extend(plain);
        let mut out = self.compile(&homed);
        out.extend(rows_unsettled(changes, |row: &VmInstance| {
            Some((row.host_uuid?, Arc::new(objects::instance(row))))
        }));
        self.output.step(out)
    }

    /// What `host` must hold now.
    #[must_use]
    pub fn host(&self, host: &Id<Host>) -> &HostObjects {
        self.output.hosts.get(host).unwrap_or(&self.nothing)
    }

    /// Every host that must hold something, with what.
    pub fn hosts(&self) -> impl Iterator<Item = (&Id<Host>, &HostObjects)> {
        self.output.hosts.iter()
    }

    /// Every host that lacks a VTEP it needs.
    #[must_use]
    pub fn missing(&self) -> &BTreeSet<MissingVtep> {
        &self.missing
    }

    /// The work since the last [`load`](Self::load), that one included.
    #[must_use]
    pub fn work(&self) -> Work {
        Work {
            vteps: self.vteps.work,
            nics: self.nics.work + self.routed.work,
            placed: self.placed.work,
            homed: self.homed.work,
            present: self.present.work,
            peers: self.peers.work,
            missing: self.needed.work + self.served.work,
            objects: self.output.work,
        }
    }

    /// Networks, ports and peers.
    fn compile(&mut self, homed: &Delta<Homed>) -> Delta<(Id<Host>, Arc<Object>)> {
        let ports = map(homed, |(nic, ..)| Some((nic.host, Arc::new(nic.port()))));
        let at = map(homed, |(nic, net, vtep)| Some(((nic.host, net.clone(), *vtep), ())));
        let present = self.present.step(at);
        let networks =
            map(&present, |((host, net, vtep), ())| Some((*host, Arc::new(net.network(*vtep)?))));

        let members = map(homed, |(nic, net, vtep)| Some((net.uuid, (Arc::clone(nic), (*vtep)?))));
        // When only the VTEP of a host has changed, the host is taken out and put in again: the two
        // cancel out.
        let hosts = map(&present, |((host, net, vtep), ())| vtep.map(|_| (net.uuid, *host)));
        let hosts = settle(hosts);
        let peers = self.peers.step(settle(members), hosts);
        let peers = share_peers(&peers);
        [networks, ports, peers].concat()
    }

    fn note_missing(&mut self, needed: Delta<(Site, ())>, served: Delta<(Site, ())>) {
        let lost = self.served.step(served).into_iter().map(|(site, weight)| (site, -weight));
        let needed = self.needed.step(needed);
        for (((host, pool), ()), weight) in settle(needed.into_iter().chain(lost)) {
            let site = MissingVtep { host, pool };
            if weight > 0 {
                self.missing.insert(site);
            } else {
                self.missing.remove(&site);
            }
        }
    }
}

impl Work {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Work { vteps, nics, placed, homed, present, peers, missing, objects } = self;
        vteps + nics + placed + homed + present + peers + missing + objects
    }
}

/// What NICs are to the other hosts of their networks: one object for all of them.
fn share_peers(pairs: &Delta<Pair>) -> Delta<(Id<Host>, Arc<Object>)> {
    // Pairs are sorted, so those of one NIC stand together.
    let (mut of, mut peers) = (None, Vec::new());
    for ((_, (nic, vtep), host), weight) in pairs {
        if nic.host == *host {
            continue;
        }
        let object = match &of {
            Some((last, at, object)) if Arc::ptr_eq(last, nic) && *at == *vtep => object,
            _ => &of.insert((Arc::clone(nic), *vtep, Arc::new(nic.peer(*vtep)))).2,
        };
        peers.push(((*host, Arc::clone(object)), *weight));
    }
    peers
}

/// The change of one table, as far as `of` wants it: a change of a field that it leaves out is
/// none.
fn rows<R: Resource, T: Ord>(changes: &[Change<Record>], of: impl Fn(&R) -> Option<T>) -> Delta<T> {
    settle(rows_unsettled(changes, of))
}

fn rows_unsettled<R: Resource, T>(
    changes: &[Change<Record>],
    of: impl Fn(&R) -> Option<T>,
) -> Delta<T> {
    let of = |row: &Option<Arc<Record>>| R::of(row.as_deref()?).and_then(&of);
    let mine = changes.iter().filter(|change| change.kind == R::KIND);
    mine.flat_map(|change| [(of(&change.before), -1), (of(&change.after), 1)])
        .filter_map(|(entry, weight)| Some((entry?, weight)))
        .collect()
}
