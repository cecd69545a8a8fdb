//! The incremental compiler: the rules of the crate's documentation as a chain of operators.
//!
//! ```text
//! NICs ──filter──┐
//!                ├─join─► placed ──┐               ┌────────────────────────► Port
//! networks ─map──┘        │        ├─join─► homed ─┼─group─► present ──┬─────► Network
//!                         │        │               └─────────────────join───► Peer
//! VTEPs ──────────group───┼────────┘
//!                         └─group─► needed, minus the same of homed ────────► missing VTEPs
//! instances ──────map───────────────────────────────────────────────────────► Instance
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        host::Host, l2_vxlan_network::L2VxlanNetwork, vm_instance::VmInstance, vm_nic::VmNic,
        vtep::Vtep,
    },
};
use store::{Change, Read, Snapshot};
use wire::object::Object;

use crate::{
    HostDelta, HostObjects, MissingVtep,
    objects::{self, Net, Nic, Site},
    operators::{Delta, Group, Join, map, settle},
    output::Output,
};

type NetworkId = Id<L2VxlanNetwork>;
/// A NIC whose tunnels end somewhere: at this address.
type Homed = (Arc<Nic>, Net, IpAddr);

/// What every host must hold, kept up to date by change sets.
#[derive(Debug)]
pub struct Compiler {
    vteps: Group<Site, (Id<Vtep>, IpAddr)>,
    placed: Join<NetworkId, Arc<Nic>, Net>,
    homed: Join<Site, (Arc<Nic>, Net), IpAddr>,
    present: Group<(Id<Host>, Net, IpAddr), ()>,
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
        let kinds = [Kind::L2VxlanNetwork, Kind::Vtep, Kind::VmInstance, Kind::VmNic];
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
        let nics =
            rows(changes, |nic: &VmNic| Nic::of(nic).map(|nic| (nic.network, Arc::new(nic))));
        let networks = rows(changes, |row: &L2VxlanNetwork| Some((row.uuid, Net::of(row))));
        let vteps = self.vteps.step(rows(changes, |vtep: &Vtep| Some(objects::vtep(vtep))));
        let vteps = map(&vteps, |(site, (_, ip))| Some((*site, *ip)));

        let placed = self.placed.step(nics, networks);
        let placed =
            map(&placed, |(_, nic, net)| Some(((nic.host, net.pool), (Arc::clone(nic), *net))));
        let needed = map(&placed, |(site, _)| Some((*site, ())));
        let homed = self.homed.step(placed, vteps);
        let served = map(&homed, |(site, ..)| Some((*site, ())));
        self.note_missing(needed, served);

        let homed: Delta<Homed> =
            map(&homed, |(_, (nic, net), vtep)| Some((Arc::clone(nic), *net, *vtep)));
        let mut out = self.compile(&homed);
        out.extend(rows_unsettled(changes, |row: &VmInstance| {
            Some((row.host_uuid, objects::instance(row)))
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
            placed: self.placed.work,
            homed: self.homed.work,
            present: self.present.work,
            peers: self.peers.work,
            missing: self.needed.work + self.served.work,
            objects: self.output.work,
        }
    }

    /// Networks, ports and peers.
    fn compile(&mut self, homed: &Delta<Homed>) -> Delta<(Id<Host>, Object)> {
        let ports = map(homed, |(nic, ..)| Some((nic.host, nic.port())));
        let at = map(homed, |(nic, net, vtep)| Some(((nic.host, *net, *vtep), ())));
        let present = self.present.step(at);
        let networks = map(&present, |((host, net, vtep), ())| Some((*host, net.network(*vtep))));

        let members = map(homed, |(nic, net, vtep)| Some((net.uuid, (Arc::clone(nic), *vtep))));
        // A host whose VTEP has changed goes and comes here; nothing is made of it.
        let hosts = settle(map(&present, |((host, net, _), ())| Some((net.uuid, *host))));
        let peers = self.peers.step(settle(members), hosts);
        let peers = map(&peers, |(_, (nic, vtep), host)| {
            (nic.host != *host).then(|| (*host, nic.peer(*vtep)))
        });
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
        let Work { vteps, placed, homed, present, peers, missing, objects } = self;
        vteps + placed + homed + present + peers + missing + objects
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
    let of = |row: &Option<Arc<Record>>| R::from_record(row.as_deref()?).and_then(&of);
    let mine = changes.iter().filter(|change| change.kind == R::KIND);
    mine.flat_map(|change| [(of(&change.before), -1), (of(&change.after), 1)])
        .filter_map(|(entry, weight)| Some((entry?, weight)))
        .collect()
}
