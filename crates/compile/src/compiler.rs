//! The incremental compiler: the rules of the crate's documentation as a chain of operators.
//!
//! ```text
//! addresses ──map──┐
//! NICs ───filter─gather─┐
//! instances ──map─────gather─┐
//!                            ├─join─► placed ──┐               ┌────────────────────► Port
//! networks ──map─────────────┘     │           ├─join─► homed ─┼─group─► present ──┬─► Network
//!                                  │           │               └────────────────join─► Peer
//! VTEPs ────────group──gather──────┼───────────┘
//! hosts, remote VTEPs ──join─┘     │
//!                                  └─group─► sites of placed, without those of homed ─► missing VTEPs
//! instances ────map───────────────────────────────────────────────────────────► Instance
//! ```
//! A NIC that moves also passes a join with the VTEP of the host it moves to, after `homed`.
//! A network that needs no tunnel skips the join with VTEPs, and tells nobody of its NICs.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        cluster::Cluster, host::Host, l2_network::L2Network, l3_network::L3Network,
        remote_vtep::RemoteVtep, vm_instance::VmInstance, vm_nic::VmNic, vtep::Vtep,
    },
};
use store::{Change, Read, Snapshot};
use wire::shared::Shared;

use crate::{
    HostDelta, HostObjects, MissingVtep,
    objects::{self, Address, Ends, Local, Net, Nic, RouteKey, Site},
    operators::{Delta, Gather, Group, Join, count, map, settle},
    output::by_host,
};

/// Rows that are taken in at once while a snapshot is loaded.
const LOAD_ROWS: usize = 4096;

type NetworkId = Id<L2Network>;
/// A NIC whose host can carry its network, with the ends of the tunnels there if it needs some.
type Homed = (Arc<Nic>, Net, Option<Arc<Ends>>);

/// A network on a host, with the ends of the tunnels there if it needs some.
type Presence = (Id<Host>, Net, Option<Arc<Ends>>);
/// The same, with the ends of the tunnels where it moves to, if it moves and there are some.
type Bound = (Homed, Option<Arc<Ends>>);

/// A NIC that has a home, as the other hosts of its network see it.
#[derive(Clone, Debug)]
struct Member {
    nic: Arc<Nic>,
    vtep: IpAddr,
    goal: Option<IpAddr>,
    /// Made of these: one object for all hosts, those that come later included.
    peer: Shared,
}

impl Member {
    fn new(nic: &Arc<Nic>, vtep: IpAddr, goal: Option<IpAddr>) -> Self {
        Self { nic: Arc::clone(nic), vtep, goal, peer: nic.peer(vtep, goal).into() }
    }

    /// Whether it is on a host, or about to be: that one has a port for it.
    fn lives_on(&self, host: Id<Host>) -> bool {
        let pending = self.nic.pending.as_ref().filter(|_| self.goal.is_some());
        self.nic.host == host || pending.is_some_and(|pending| pending.host == host)
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.nic, self.vtep, self.goal).cmp(&(&other.nic, other.vtep, other.goal))
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Member {}

/// What changes for every host by a change set.
#[derive(Debug)]
pub struct Compiler {
    vteps: Group<Site, (Id<Vtep>, Local)>,
    foreign: Join<Id<Cluster>, Id<Host>, (NetworkId, IpAddr)>,
    ends: Gather<Site, (Site, Local), IpAddr>,
    nics: Gather<Id<VmNic>, Nic, Address>,
    routed: Gather<RouteKey, Arc<Nic>, Id<L3Network>>,
    placed: Join<NetworkId, Arc<Nic>, Net>,
    homed: Join<Site, (Arc<Nic>, Net), Arc<Ends>>,
    goals: Join<Site, Id<VmNic>, Arc<Ends>>,
    moving: Gather<Id<VmNic>, Homed, Arc<Ends>>,
    present: Group<Presence, ()>,
    peers: Join<NetworkId, Member, Id<Host>>,
    needed: Group<Site, ()>,
    served: Group<Site, ()>,
    missing: BTreeSet<MissingVtep>,
    objects: u64,
}

/// How many entries each operator has read and made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Finding where the tunnels of each host and pool end.
    pub vteps: u64,
    /// Bringing NICs, their addresses and their instances' default routes together.
    pub nics: u64,
    /// Bringing NICs and their networks together.
    pub placed: u64,
    /// Bringing these and their VTEPs together, and those of the hosts they move to.
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
            foreign: Join::new(),
            ends: Gather::new(),
            nics: Gather::new(),
            routed: Gather::new(),
            placed: Join::new(),
            homed: Join::new(),
            goals: Join::new(),
            moving: Gather::new(),
            present: Group::new(),
            peers: Join::new(),
            needed: Group::new(),
            served: Group::new(),
            missing: BTreeSet::new(),
            objects: 0,
        }
    }

    /// Starts anew from a snapshot; gives everything that each host must hold. Hosts that must hold
    /// nothing are absent.
    pub fn load(&mut self, snapshot: &Snapshot<Record>) -> BTreeMap<Id<Host>, HostObjects> {
        *self = Self::new();
        // NICs come last and a few at a time: what one step makes of them is large, as each is
        // paired with all hosts of its network.
        let kinds = [
            Kind::L2Network,
            Kind::Host,
            Kind::RemoteVtep,
            Kind::Vtep,
            Kind::UsedIp,
            Kind::VmInstance,
            Kind::VmNic,
        ];
        let rows = kinds.into_iter().flat_map(|kind| snapshot.list(kind));
        let mut changes = rows.map(|row| Change {
            kind: row.kind(),
            id: row.uuid(),
            before: None,
            after: Some(row),
        });
        let mut hosts: BTreeMap<Id<Host>, HostObjects> = BTreeMap::new();
        loop {
            let step: Vec<_> = changes.by_ref().take(LOAD_ROWS).collect();
            if step.is_empty() {
                break;
            }
            for (host, delta) in self.apply(&step) {
                debug_assert!(delta.removes.is_empty(), "rows that come add objects");
                hosts.entry(host).or_default().extend(delta.upserts);
            }
        }
        hosts.values_mut().for_each(|objects| objects.sort_unstable_by_key(|object| object.key()));
        hosts
    }

    /// Takes in what one or more transactions have changed, in order; gives what that changes per
    /// host. Hosts for which nothing changes are absent.
    pub fn apply(&mut self, changes: &[Change<Record>]) -> BTreeMap<Id<Host>, HostDelta> {
        let nics = rows(changes, |nic: &VmNic| Nic::of(nic).map(|nic| (nic.uuid, nic)));
        let nics = self.nics.step(nics, rows(changes, objects::address));
        let nics = map(&nics, |(nic, addresses)| {
            Some((nic.route_key(), Arc::new(nic.with(addresses.clone()))))
        });
        let nics = self.routed.step(nics, rows(changes, objects::default_l3));
        let nics = map(&nics, |(nic, l3s)| Some((nic.network, nic.routed(l3s.first().copied()))));
        let networks = rows(changes, |l2: &L2Network| Net::of(l2).map(|net| (l2.uuid, net)));
        let ends = self.ends(changes);

        let placed = self.placed.step(nics, networks);
        let plain = map(&placed, |(_, nic, net)| {
            net.pool().is_none().then(|| (Arc::clone(nic), net.clone(), None))
        });
        let placed = map(&placed, |(_, nic, net)| {
            Some(((nic.host, net.pool()?), (Arc::clone(nic), net.clone())))
        });
        let pending = map(&placed, |((_, pool), (nic, _))| {
            Some(((nic.pending.as_ref()?.host, *pool), nic.uuid))
        });
        let mut needed = map(&placed, |(site, _)| Some((*site, ())));
        needed.extend(map(&pending, |(site, _)| Some((*site, ()))));
        let homed = self.homed.step(placed, ends.clone());
        let goals = self.goals.step(pending, ends);
        let mut served = map(&homed, |(site, ..)| Some((*site, ())));
        served.extend(map(&goals, |(site, ..)| Some((*site, ()))));
        self.note_missing(needed, served);

        let mut homed: Delta<Homed> = map(&homed, |(_, (nic, net), ends)| {
            Some((Arc::clone(nic), net.clone(), Some(ends.clone())))
        });
        homed.extend(plain);
        let moving =
            map(&homed, |homed| homed.0.pending.as_ref().map(|_| (homed.0.uuid, homed.clone())));
        let goals = map(&goals, |(_, nic, ends)| Some((*nic, Arc::clone(ends))));
        let moving = self.moving.step(moving, goals);
        let mut bound: Delta<Bound> =
            map(&homed, |homed| homed.0.pending.is_none().then(|| (homed.clone(), None)));
        bound.extend(map(&moving, |(homed, goals)| Some((homed.clone(), goals.first().cloned()))));
        let mut out = self.compile(&bound);
        for at in [0, 1] {
            out.extend(rows_unsettled(changes, |row: &VmInstance| {
                let (host, object) = objects::instances(row).nth(at)?;
                Some((host, object.into()))
            }));
        }
        self.objects += count(&out);
        by_host(out)
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
            vteps: self.vteps.work + self.foreign.work + self.ends.work,
            nics: self.nics.work + self.routed.work,
            placed: self.placed.work,
            homed: self.homed.work + self.goals.work + self.moving.work,
            present: self.present.work,
            peers: self.peers.work,
            missing: self.needed.work + self.served.work,
            objects: self.objects,
        }
    }

    /// Where the tunnels of hosts end.
    fn ends(&mut self, changes: &[Change<Record>]) -> Delta<(Site, Arc<Ends>)> {
        let vteps = self.vteps.step(rows(changes, |vtep: &Vtep| Some(objects::vtep(vtep))));
        let vteps = map(&vteps, |(site, (_, local))| Some((*site, (*site, *local))));
        let hosts = rows(changes, |host: &Host| Some((host.cluster_uuid, host.uuid)));
        let remote = rows(changes, |remote: &RemoteVtep| Some(objects::remote_vtep(remote)));
        let foreign = self.foreign.step(hosts, remote);
        let foreign = map(&foreign, |(_, host, (pool, ip))| Some(((*host, *pool), *ip)));
        let ends = self.ends.step(vteps, foreign);
        map(&ends, |((site, (local, port)), foreign)| {
            let (local, port, foreign) = (*local, *port, foreign.clone());
            Some((*site, Arc::new(Ends { local, port, foreign })))
        })
    }

    /// Networks, ports and peers.
    fn compile(&mut self, bound: &Delta<Bound>) -> Delta<(Id<Host>, Shared)> {
        let local = |ends: &Option<Arc<Ends>>| ends.as_ref().map(|ends| ends.local);
        let ports = map(bound, |((nic, ..), goal)| Some((nic.host, nic.port(local(goal)).into())));
        let waiting = map(bound, |((nic, _, ends), goal)| {
            goal.as_ref()?;
            Some((nic.pending.as_ref()?.host, nic.waiting(local(ends))?.into()))
        });
        let mut at =
            map(bound, |((nic, net, ends), _)| Some(((nic.host, net.clone(), ends.clone()), ())));
        at.extend(map(bound, |((nic, net, _), goal)| {
            goal.as_ref()?;
            Some(((nic.pending.as_ref()?.host, net.clone(), goal.clone()), ()))
        }));
        let present = self.present.step(at);
        let networks = map(&present, |((host, net, ends), ())| {
            Some((*host, net.network(ends.as_deref())?.into()))
        });

        let members = map(bound, |((nic, net, ends), goal)| {
            Some((net.uuid, Member::new(nic, local(ends)?, local(goal))))
        });
        // When only the VTEPs of a host have changed, the host is taken out and put in again: the two
        // cancel out.
        let hosts =
            map(&present, |((host, net, ends), ())| ends.as_ref().map(|_| (net.uuid, *host)));
        let hosts = settle(hosts);
        let peers = self.peers.step(settle(members), hosts);
        let peers = map(&peers, |(_, member, host)| {
            (!member.lives_on(*host)).then(|| (*host, member.peer.clone()))
        });
        [networks, ports, waiting, peers].concat()
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
