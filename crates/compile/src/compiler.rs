//! The incremental compiler: the rules of the crate's documentation as a chain of operators.
//!
//! ```text
//! L3 networks, settings ──gather─► lans ──────────────(with where Ports are)─join─► Subnet
//!                                 │
//! addresses ──map──join───────────┘
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
//! What guards a port joins it last ([`security`](crate::security)), with its routing domain
//! ([`domains`]): a change of either is no news for the peers.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        cluster::Cluster, config::GlobalConfig, host::Host, instance_offering::InstanceOffering,
        l2_network::L2Network, l3_network::L3Network, remote_vtep::RemoteVtep,
        vm_instance::VmInstance, vm_nic::VmNic, vtep::Vtep, zone::Zone,
    },
};
use store::{Change, Read, Snapshot};
use wire::shared::Shared;

use crate::{
    HostDelta, HostObjects, MissingVtep, about,
    changes::{records, rows, rows_unsettled},
    domains::{self, Domains},
    guard::Guarded,
    lan::{self, Brief, Fact, L3, Lan},
    objects::{self, Ends, Local, Net, Nic, Of, RouteKey, Site},
    operators::{Delta, Gather, Group, Join, count, each, map, settle},
    output::by_host,
    security::{Guards, Security},
    settings,
    work::Work,
};

/// Rows that are taken in at once while a snapshot is loaded.
const LOAD_ROWS: usize = 4096;

type NetworkId = Id<L2Network>;
/// A NIC whose host can carry its network, with the ends of the tunnels there if it needs some.
type Homed = (Arc<Nic>, Net, Option<Arc<Ends>>);

/// A network on a host, with the ends of the tunnels there if it needs some.
type Presence = (Id<Host>, Net, Option<Arc<Ends>>);
/// The same, with the ends of the tunnels where it moves to, if it moves and there are some.
pub(crate) type Bound = (Homed, Option<Arc<Ends>>);

/// What settings are for all.
type Settings = Vec<settings::Value>;
/// An L3 network with what other rows say of it.
type Known = Arc<(L3, Vec<Fact>)>;
/// A host where an instance is, with what rows say of that.
type Reader = Arc<(Id<Host>, Vec<about::Fact>)>;

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
    l3s: Gather<Id<L3Network>, L3, Fact>,
    globals: Gather<(), (), settings::Value>,
    /// What has every setting, until it is taken in.
    all: Delta<((), ())>,
    lans: Join<(), Known, Settings>,
    guests: Join<Id<L3Network>, Id<VmNic>, Brief>,
    nics: Gather<Id<VmNic>, Nic, Of>,
    routed: Gather<RouteKey, Arc<Nic>, Id<L3Network>>,
    placed: Join<NetworkId, Arc<Nic>, Net>,
    homed: Join<Site, (Arc<Nic>, Net), Arc<Ends>>,
    goals: Join<Site, Id<VmNic>, Arc<Ends>>,
    moving: Gather<Id<VmNic>, Homed, Arc<Ends>>,
    present: Group<Presence, ()>,
    peers: Join<NetworkId, Member, Id<Host>>,
    told: Group<(Id<L3Network>, Id<Host>), ()>,
    subnets: Join<Id<L3Network>, Id<Host>, Lan>,
    readers: Group<(Id<VmInstance>, Id<Host>), ()>,
    zones: Join<Id<Zone>, Id<VmInstance>, String>,
    offerings: Join<Id<InstanceOffering>, Id<VmInstance>, String>,
    read: Gather<Id<VmInstance>, Id<Host>, about::Fact>,
    abouts: Join<(), Reader, Settings>,
    needed: Group<Site, ()>,
    served: Group<Site, ()>,
    missing: BTreeSet<MissingVtep>,
    domains: Domains,
    security: Security,
    objects: u64,
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
            l3s: Gather::new(),
            globals: Gather::new(),
            all: vec![(((), ()), 1)],
            lans: Join::new(),
            guests: Join::new(),
            nics: Gather::new(),
            routed: Gather::new(),
            placed: Join::new(),
            homed: Join::new(),
            goals: Join::new(),
            moving: Gather::new(),
            present: Group::new(),
            peers: Join::new(),
            told: Group::new(),
            subnets: Join::new(),
            readers: Group::new(),
            zones: Join::new(),
            offerings: Join::new(),
            read: Gather::new(),
            abouts: Join::new(),
            needed: Group::new(),
            served: Group::new(),
            missing: BTreeSet::new(),
            domains: Domains::new(),
            security: Security::new(),
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
            Kind::GlobalConfig,
            Kind::ResourceConfig,
            Kind::NetworkServiceL3NetworkRef,
            Kind::IpRange,
            Kind::L3NetworkHostRoute,
            Kind::L3Network,
            Kind::DhcpOption,
            Kind::Zone,
            Kind::InstanceOffering,
            Kind::UserTag,
            Kind::GuestData,
            Kind::UsedIp,
            Kind::AddressGroup,
            Kind::SecurityGroup,
            Kind::SecurityGroupRule,
            Kind::VmNicSecurityGroupRef,
            Kind::VmNicSecurityPolicy,
            Kind::VmInstance,
            Kind::VmNic,
        ];
        let new = |row: Arc<Record>| Change {
            kind: row.kind(),
            id: row.uuid(),
            before: None,
            after: Some(row),
        };
        // Of the NICs few join networks; these are known before the first host is told anything.
        let joins = |row: &Arc<Record>| VmNic::of(row).is_none_or(domains::routes);
        let kinds_of_domains = [Kind::L2Network, Kind::L3Network, Kind::IpRange, Kind::VmNic];
        let rows = kinds_of_domains.into_iter().flat_map(|kind| snapshot.list(kind));
        let mut domains = self.domains.step(&rows.filter(joins).map(new).collect::<Vec<_>>());
        let mut changes = kinds.into_iter().flat_map(|kind| snapshot.list(kind)).map(new);
        let mut hosts: BTreeMap<Id<Host>, HostObjects> = BTreeMap::new();
        loop {
            let step: Vec<_> = changes.by_ref().take(LOAD_ROWS).collect();
            if step.is_empty() {
                break;
            }
            for (host, delta) in self.take_in(&step, std::mem::take(&mut domains)) {
                debug_assert!(delta.removes.is_empty(), "rows that come add objects");
                hosts.entry(host).or_default().extend(delta.upserts);
            }
        }
        hosts.values_mut().for_each(in_order);
        hosts
    }

    /// Takes in what one or more transactions have changed, in order; gives what that changes per
    /// host. Hosts for which nothing changes are absent.
    pub fn apply(&mut self, changes: &[Change<Record>]) -> BTreeMap<Id<Host>, HostDelta> {
        let domains = self.domains.step(changes);
        self.take_in(changes, domains)
    }

    fn take_in(
        &mut self,
        changes: &[Change<Record>],
        domains: Delta<(NetworkId, u32)>,
    ) -> BTreeMap<Id<Host>, HostDelta> {
        let settings = rows(changes, |row: &GlobalConfig| Some(((), settings::global(row)?)));
        let globals = self.globals.step(std::mem::take(&mut self.all), settings);
        let globals = map(&globals, |((), all)| Some(((), all.clone())));
        let lans = self.lans(changes, globals.clone());
        let nics = self.nics(changes, &lans);
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
        let (guarded, mut out) = self.security.step(changes, &bound, domains);
        out.extend(ports(&guarded));
        out.extend(self.compile(&bound));
        out.extend(self.subnets(&bound, lans));
        out.extend(self.abouts(changes, &bound, globals));
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
            told: self.l3s.work + self.globals.work + self.lans.work + self.guests.work,
            subnets: self.told.work + self.subnets.work,
            abouts: self.readers.work
                + self.zones.work
                + self.offerings.work
                + self.read.work
                + self.abouts.work,
            nics: self.nics.work + self.routed.work,
            placed: self.placed.work,
            homed: self.homed.work + self.goals.work + self.moving.work,
            present: self.present.work,
            peers: self.peers.work,
            missing: self.needed.work + self.served.work,
            domains: self.domains.work(),
            guards: self.security.work(),
            members: self.security.members_work(),
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

    /// The L3 networks of whose guests hosts take care.
    fn lans(
        &mut self,
        changes: &[Change<Record>],
        globals: Delta<((), Settings)>,
    ) -> Delta<(Id<L3Network>, Lan)> {
        let l3s = rows(changes, |l3: &L3Network| Some((l3.uuid, L3::of(l3))));
        let known = self.l3s.step(l3s, records(changes, lan::fact));
        let known = map(&known, |known| Some(((), Arc::new(known.clone()))));
        let lans = self.lans.step(known, globals);
        map(&lans, |((), known, globals)| {
            let lan = Lan::of(&known.0, &known.1, globals)?;
            Some((lan.uuid(), lan))
        })
    }

    /// NICs with their addresses, and with what they are told of the networks of these.
    fn nics(
        &mut self,
        changes: &[Change<Record>],
        lans: &Delta<(Id<L3Network>, Lan)>,
    ) -> Delta<(RouteKey, Arc<Nic>)> {
        let addresses = rows(changes, objects::address);
        let guests = map(&addresses, |(nic, address)| Some((address.l3, *nic)));
        let briefs = settle(map(lans, |(l3, lan)| Some((*l3, lan.brief()))));
        let guests = self.guests.step(guests, briefs);
        let mut of = map(&addresses, |(nic, address)| Some((*nic, Of::Address(*address))));
        of.extend(map(&guests, |(_, nic, brief)| Some((*nic, Of::Lan(brief.clone())))));
        of.extend(rows(changes, objects::option));
        let nics = rows(changes, |nic: &VmNic| Nic::of(nic).map(|nic| (nic.uuid, nic)));
        let nics = self.nics.step(nics, of);
        map(&nics, |(nic, of)| Some((nic.route_key(), Arc::new(nic.with(of)))))
    }

    /// The L3 networks of whose guests each host takes care.
    fn subnets(
        &mut self,
        bound: &Delta<Bound>,
        lans: Delta<(Id<L3Network>, Lan)>,
    ) -> Delta<(Id<Host>, Shared)> {
        let told = each(bound, |bound| {
            let pairs = hosts_of(bound).flat_map(|host| {
                let (nic, ..) = &bound.0;
                nic.lans().map(move |l3| ((l3, host), ()))
            });
            pairs.collect::<Vec<_>>()
        });
        let told = self.told.step(told);
        let told = map(&told, |(pair, ())| Some(*pair));
        let subnets = self.subnets.step(told, lans);
        map(&subnets, |(_, host, lan)| Some((*host, lan.subnet.clone())))
    }

    /// The instances that may read something about themselves, where they are.
    fn abouts(
        &mut self,
        changes: &[Change<Record>],
        bound: &Delta<Bound>,
        globals: Delta<((), Settings)>,
    ) -> Delta<(Id<Host>, Shared)> {
        let readers = each(bound, |bound| {
            let reader = bound.0.0.reader();
            let pairs = hosts_of(bound).filter_map(|host| Some(((reader?, host), ())));
            pairs.collect::<Vec<_>>()
        });
        let readers = map(&self.readers.step(readers), |(pair, ())| Some(*pair));
        let mut facts = records(changes, about::fact);
        facts.extend(settle(map(bound, |((nic, ..), _)| {
            let (is_other, name) = nic.full_name()?;
            Some((nic.instance?, about::Fact::Name(is_other, name)))
        })));
        let zones = rows(changes, |zone: &Zone| Some((zone.uuid, zone.name.clone())));
        let zones = self.zones.step(rows(changes, |it| Some(about::zone(it))), zones);
        facts.extend(map(&zones, |(_, it, name)| Some((*it, about::Fact::Zone(name.clone())))));
        let names = rows(changes, |it: &InstanceOffering| Some((it.uuid, it.name.clone())));
        let named = self.offerings.step(rows(changes, about::offering), names);
        facts.extend(map(&named, |(_, it, name)| Some((*it, about::Fact::Offering(name.clone())))));
        let read = self.read.step(readers, facts);
        let read = map(&read, |read| Some(((), Arc::new(read.clone()))));
        let abouts = self.abouts.step(read, globals);
        map(&abouts, |((), read, globals)| {
            let (host, object) = about::about(read.0, &read.1, globals)?;
            Some((host, object.into()))
        })
    }

    /// Networks and peers.
    fn compile(&mut self, bound: &Delta<Bound>) -> Delta<(Id<Host>, Shared)> {
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
        [networks, peers].concat()
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

/// What is guarded, with what guards it.
impl<'a> From<&'a Guards> for Guarded<'a> {
    fn from((bound, guards): &'a Guards) -> Self {
        let ((nic, net, ends), goal) = &**bound;
        Self { nic, net, ends: [ends.as_deref(), goal.as_deref()], guards }
    }
}

/// Ports where they are, and where they wait.
fn ports(guarded: &Delta<Guards>) -> Delta<(Id<Host>, Shared)> {
    let here = map(guarded, |guards| {
        let ((nic, ..), goal) = &*guards.0;
        Some((nic.host, Guarded::from(guards).port(nic.port(local(goal))).into()))
    });
    let there = map(guarded, |guards| {
        let ((nic, _, ends), goal) = &*guards.0;
        let pending = goal.as_ref().and(nic.pending.as_ref())?;
        Some((pending.host, Guarded::from(guards).port(nic.waiting(local(ends))?).into()))
    });
    [here, there].concat()
}

fn local(ends: &Option<Arc<Ends>>) -> Option<IpAddr> {
    ends.as_ref().map(|ends| ends.local)
}

/// Sorted, each with its last content alone.
fn in_order(objects: &mut HostObjects) {
    objects.sort_by_key(|object| object.key());
    // Of several, the last one is kept in the place of the first.
    objects.dedup_by(|later, kept| {
        let same = later.key() == kept.key();
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}

/// The host of a NIC, and that which it moves to, if that has a port for it.
pub(crate) fn hosts_of(((nic, ..), goal): &Bound) -> impl Iterator<Item = Id<Host>> + '_ {
    let there = goal.as_ref().and(nic.pending.as_ref()).map(|pending| pending.host);
    [Some(nic.host), there].into_iter().flatten()
}
