//! A reference model: what core messages do, written anew from what the API promises, with nothing
//! of the product but ids and error codes. `agreement` compares the two.
//!
//! It covers zones, clusters, hosts with a connection, VXLAN pools, VNI ranges, VXLAN networks and
//! attachments; L3 networks of IPv4 with ranges, their states; instances with their whole life, NICs
//! and addresses, chosen ones too; owners, quotas, sight of accounts; what rests until hosts have let
//! go. It says which of these succeeds or with which code, and what is there afterwards.
//!
//! It does not cover the fields of messages that no such rule looks at, system tags but `staticIp`,
//! shares, IPv6, address pools, routers, prefixes, DHCP, MACs, physical networks, maintenance, other
//! deletion policies, and several L3 networks on one NIC. Which of several hosts that fit gets an
//! instance, and the ids of NICs, it takes from the product; that the host fits, it checks; and that no
//! other has fewer instances, as far as the deciding server can know.

use std::collections::{BTreeMap, BTreeSet};

use model::Code::{self, *};
use uuid::Uuid;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Admin,
    Tenant,
}

/// A message, or something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    CreateZone {
        id: Uuid,
    },
    DeleteZone {
        id: Uuid,
    },
    CreateCluster {
        id: Uuid,
        zone: Uuid,
    },
    DeleteCluster {
        id: Uuid,
    },
    /// Its management address is 172.30.x.y: where x is 0, it has a VTEP in each pool.
    AddHost {
        id: Uuid,
        cluster: Uuid,
        ip: [u8; 2],
    },
    DeleteHost {
        id: Uuid,
        is_dead: bool,
    },
    CreatePool {
        id: Uuid,
        zone: Uuid,
    },
    CreateVnis {
        id: Uuid,
        pool: Uuid,
        vnis: (u32, u32),
    },
    DeleteVnis {
        id: Uuid,
    },
    CreateL2 {
        id: Uuid,
        pool: Uuid,
        vni: Option<u32>,
    },
    DeleteL2 {
        id: Uuid,
    },
    Attach {
        l2: Uuid,
        cluster: Uuid,
    },
    Detach {
        l2: Uuid,
        cluster: Uuid,
    },
    CreateL3 {
        id: Uuid,
        l2: Uuid,
    },
    DeleteL3 {
        id: Uuid,
    },
    SetL3State {
        id: Uuid,
        enabled: bool,
    },
    /// In 10.0.0.0/24 with the gateway 10.0.0.1.
    AddRange {
        id: Uuid,
        l3: Uuid,
        ips: (u8, u8),
    },
    DeleteRange {
        id: Uuid,
    },
    CreateVm {
        id: Uuid,
        l3s: Vec<(Uuid, Option<u8>)>,
        host: Option<Uuid>,
        start: Start,
    },
    StartVm {
        id: Uuid,
        host: Option<Uuid>,
    },
    StopVm {
        id: Uuid,
    },
    RebootVm {
        id: Uuid,
    },
    DestroyVm {
        id: Uuid,
    },
    RecoverVm {
        id: Uuid,
    },
    ExpungeVm {
        id: Uuid,
    },
    CreateNic {
        id: Uuid,
        l3: Uuid,
        ip: Option<u8>,
    },
    DeleteNic {
        id: Uuid,
    },
    PlugNic {
        vm: Uuid,
        nic: Uuid,
    },
    AttachL3 {
        vm: Uuid,
        l3: Uuid,
        ip: Option<u8>,
    },
    UnplugNic {
        nic: Uuid,
    },
    SetIp {
        vm: Uuid,
        l3: Uuid,
        ip: u8,
    },
    SetQuota {
        name: &'static str,
        value: u64,
    },
    Give {
        to: Who,
        id: Uuid,
    },
    /// Every host lets go of what was deleted.
    LetGo,
    /// A host connects, or is lost.
    Connect {
        host: Uuid,
        up: bool,
    },
}

/// How an instance begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Instant,
    JustCreate,
    Stopped,
}

#[derive(Clone, Debug)]
struct L2 {
    zone: Uuid,
    /// Of a network; a pool has none.
    of: Option<(Uuid, u32)>,
}

#[derive(Clone, Debug)]
struct Vm {
    zone: Uuid,
    cluster: Option<Uuid>,
    host: Option<Uuid>,
    last: Option<Uuid>,
    has_run: bool,
    destroyed: bool,
}

#[derive(Clone, Debug)]
struct Nic {
    vm: Option<Uuid>,
    l3: Uuid,
    device: u32,
    ip: Option<u8>,
    wanted: Option<u8>,
}

/// What at most one may have, and what rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    /// In a zone, of a pool.
    Vni(Uuid, Uuid, u32),
    /// Where a host's tunnels of a pool ended.
    End([u8; 2], Uuid),
    Ip(Uuid, u8),
    Place(Uuid, Uuid),
}

/// What is there, as callers see it: of each resource its owner and what it is like; of each address
/// on an L2 network who has it, nobody while it rests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) rows: BTreeMap<Uuid, (Option<Who>, String)>,
    pub(crate) addresses: BTreeMap<(Uuid, u8), Option<Uuid>>,
    pub(crate) quotas: BTreeMap<String, u64>,
    /// The hosts of instances.
    pub(crate) hosts: BTreeMap<Uuid, Uuid>,
    /// NICs by instance and place.
    pub(crate) nics: BTreeMap<(Uuid, u32), Uuid>,
}

/// The model's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    owners: BTreeMap<Uuid, Who>,
    zones: BTreeSet<Uuid>,
    clusters: BTreeMap<Uuid, Uuid>,
    hosts: BTreeMap<Uuid, (Uuid, [u8; 2])>,
    connected: BTreeSet<Uuid>,
    l2s: BTreeMap<Uuid, L2>,
    vnis: BTreeMap<Uuid, (Uuid, (u32, u32))>,
    attached: BTreeSet<(Uuid, Uuid)>,
    /// Each with its L2 network, and whether it is enabled.
    l3s: BTreeMap<Uuid, (Uuid, bool)>,
    ranges: BTreeMap<Uuid, (Uuid, (u8, u8))>,
    vms: BTreeMap<Uuid, Vm>,
    nics: BTreeMap<Uuid, Nic>,
    quotas: BTreeMap<&'static str, u64>,
    rests: BTreeSet<Hold>,
    /// Whoever decides may not know all: it takes a host for the least loaded one that is not.
    pub(crate) is_late: bool,
    /// Addresses that rest and are shown, with their ranges.
    shown: BTreeMap<(Uuid, u8), Uuid>,
}

type Outcome = Result<(), Code>;

fn refuse_if(is_wrong: bool, code: Code) -> Outcome {
    if is_wrong { Err(code) } else { Ok(()) }
}

const NICS_MAX: usize = 16;

impl World {
    /// What the call does. What the model leaves open is taken from `seen`, which is what the
    /// product made of it. After a refusal the state is to be thrown away.
    pub(crate) fn apply(&mut self, who: Who, call: &Call, seen: &View) -> Outcome {
        self.may(who, call)?;
        if !self.finds_all(who, call)? {
            return Ok(());
        }
        match *call {
            Call::LetGo => {
                self.rests.clear();
                self.shown.clear();
                Ok(())
            }
            Call::Connect { host, up } => {
                if up {
                    self.connected.insert(host)
                } else {
                    self.connected.remove(&host)
                };
                Ok(())
            }
            Call::SetQuota { name, value } => {
                self.quotas.insert(name, value);
                Ok(())
            }
            Call::Give { to, id } => self.give(to, id),
            _ => self.places(who, call).unwrap_or_else(|| {
                self.networks(who, call).unwrap_or_else(|| self.instances(who, call, seen))
            }),
        }
    }

    pub(crate) fn owner(&self, id: Uuid) -> Option<Who> {
        self.owners.get(&id).copied()
    }

    pub(crate) fn zones(&self) -> impl Iterator<Item = Uuid> {
        self.zones.iter().copied()
    }

    pub(crate) fn clusters(&self) -> impl Iterator<Item = Uuid> {
        self.clusters.keys().copied()
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = Uuid> {
        self.hosts.keys().copied()
    }

    pub(crate) fn l2s(&self) -> impl Iterator<Item = Uuid> {
        self.l2s.keys().copied()
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = Uuid> {
        self.l2s.iter().filter(|(_, l2)| l2.of.is_none()).map(|(id, _)| *id)
    }

    pub(crate) fn vni_ranges(&self) -> impl Iterator<Item = Uuid> {
        self.vnis.keys().copied()
    }

    pub(crate) fn l3s(&self) -> impl Iterator<Item = Uuid> {
        self.l3s.keys().copied()
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = Uuid> {
        self.ranges.keys().copied()
    }

    pub(crate) fn vms(&self) -> impl Iterator<Item = Uuid> {
        self.vms.keys().copied()
    }

    pub(crate) fn nics(&self) -> impl Iterator<Item = Uuid> {
        self.nics.keys().copied()
    }

    /// What belongs to the administrators.
    fn may(&self, who: Who, call: &Call) -> Outcome {
        use Call::*;
        let is_free = matches!(
            call,
            CreateL2 { .. }
                | DeleteL2 { .. }
                | CreateL3 { .. }
                | DeleteL3 { .. }
                | SetL3State { .. }
                | AddRange { .. }
                | DeleteRange { .. }
                | CreateVm { .. }
                | StartVm { .. }
                | StopVm { .. }
                | RebootVm { .. }
                | DestroyVm { .. }
                | RecoverVm { .. }
                | ExpungeVm { .. }
                | CreateNic { .. }
                | DeleteNic { .. }
                | PlugNic { .. }
                | AttachL3 { .. }
                | UnplugNic { .. }
                | SetIp { .. }
        );
        refuse_if(who == Who::Tenant && !is_free, AccessDenied)
    }

    /// Whether everything that a message names is there and the caller's to see. To delete what is
    /// not there succeeds, and does nothing.
    fn finds_all(&self, who: Who, call: &Call) -> Result<bool, Code> {
        use Call::*;
        let (zones, clusters) = (|id| self.zones.contains(id), |id| self.clusters.contains_key(id));
        let (hosts, l2s) = (|id| self.hosts.contains_key(id), |id| self.l2s.contains_key(id));
        let (l3s, vms) = (|id| self.l3s.contains_key(id), |id| self.vms.contains_key(id));
        let nics = |id| self.nics.contains_key(id);
        let sees = |id: &Uuid| who == Who::Admin || self.owners.get(id) == Some(&who);
        let all = |found: &[(&Uuid, bool)]| found.iter().all(|(id, is)| *is && sees(id));
        let (found, is_delete) = match call {
            CreateZone { .. } | SetQuota { .. } | LetGo | Connect { .. } => (true, false),
            DeleteZone { id } => (all(&[(id, zones(id))]), true),
            CreateCluster { zone, .. } | CreatePool { zone, .. } => {
                (all(&[(zone, zones(zone))]), false)
            }
            DeleteCluster { id } => (all(&[(id, clusters(id))]), true),
            AddHost { cluster, .. } => (all(&[(cluster, clusters(cluster))]), false),
            DeleteHost { id, .. } => (all(&[(id, hosts(id))]), true),
            CreateVnis { pool, .. } | CreateL2 { pool, .. } => (all(&[(pool, l2s(pool))]), false),
            DeleteVnis { id } => (all(&[(id, self.vnis.contains_key(id))]), true),
            DeleteL2 { id } => (all(&[(id, l2s(id))]), true),
            Attach { l2, cluster } => (all(&[(l2, l2s(l2)), (cluster, clusters(cluster))]), false),
            Detach { l2, cluster } => (all(&[(l2, l2s(l2)), (cluster, clusters(cluster))]), true),
            CreateL3 { l2, .. } => (all(&[(l2, l2s(l2))]), false),
            DeleteL3 { id } => (all(&[(id, l3s(id))]), true),
            SetL3State { id, .. } => (all(&[(id, l3s(id))]), false),
            AddRange { l3, .. } | CreateNic { l3, .. } => (all(&[(l3, l3s(l3))]), false),
            DeleteRange { id } => (all(&[(id, self.ranges.contains_key(id))]), true),
            CreateVm { l3s: given, host, .. } => {
                let has_host = host.iter().all(|host| all(&[(host, hosts(host))]));
                (has_host && given.iter().all(|(l3, _)| all(&[(l3, l3s(l3))])), false)
            }
            StartVm { id, host } => {
                let has_host = host.iter().all(|host| all(&[(host, hosts(host))]));
                (has_host && all(&[(id, vms(id))]), false)
            }
            StopVm { id } | RebootVm { id } | RecoverVm { id } | ExpungeVm { id } => {
                (all(&[(id, vms(id))]), false)
            }
            DestroyVm { id } => (all(&[(id, vms(id))]), true),
            DeleteNic { id } | UnplugNic { nic: id } => (all(&[(id, nics(id))]), true),
            PlugNic { vm, nic } => (all(&[(vm, vms(vm)), (nic, nics(nic))]), false),
            AttachL3 { vm, l3, .. } | SetIp { vm, l3, .. } => {
                (all(&[(vm, vms(vm)), (l3, l3s(l3))]), false)
            }
            Give { id, .. } => (self.owners.contains_key(id), false),
        };
        match (found, is_delete) {
            (false, false) => Err(NotFound),
            (found, _) => Ok(found),
        }
    }

    /// What is new gets an owner, if its id is free and the quota allows it.
    fn own(&mut self, who: Who, id: Uuid, quota: Option<&'static str>) -> Outcome {
        refuse_if(self.owners.contains_key(&id), UuidTaken)?;
        self.within(who, quota)?;
        self.owners.insert(id, who);
        Ok(())
    }

    fn within(&self, who: Who, quota: Option<&'static str>) -> Outcome {
        let Some(name) = quota.filter(|_| who == Who::Tenant) else { return Ok(()) };
        let is_counted = |id: &&Uuid| match name {
            "vxlan.num" => self.l2s.contains_key(*id),
            "l3.num" => self.l3s.contains_key(*id),
            _ => self.vms.get(*id).is_some_and(|vm| !vm.destroyed),
        };
        let own = self.owners.iter().filter(|(_, owner)| **owner == who).map(|(id, _)| id);
        let most =
            self.quotas.get(name).copied().unwrap_or(if name == "vxlan.num" { 8 } else { 20 });
        refuse_if(own.filter(is_counted).count() as u64 >= most, QuotaExceeded)
    }

    fn give(&mut self, to: Who, id: Uuid) -> Outcome {
        let plugged = self.nics.get(&id).is_some_and(|nic| nic.vm.is_some());
        let is_part = self.ranges.contains_key(&id) || self.vnis.contains_key(&id) || plugged;
        let is_own = self.l2s.contains_key(&id) || self.l3s.contains_key(&id);
        let is_own = is_own || self.vms.contains_key(&id) || self.nics.contains_key(&id);
        refuse_if(is_part || !is_own, InvalidArgument)?;
        if self.owners.get(&id) != Some(&to) {
            let quota = match () {
                () if self.l2s.contains_key(&id) => Some("vxlan.num"),
                () if self.l3s.contains_key(&id) => Some("l3.num"),
                () if self.vms.contains_key(&id) => Some("vm.num"),
                () => None,
            };
            self.within(to, quota)?;
        }
        let nics = self.nics.iter().filter(|(_, nic)| nic.vm == Some(id)).map(|(nic, _)| *nic);
        let ranges = self.ranges.iter().filter(|(_, (l3, _))| *l3 == id).map(|(range, _)| *range);
        let vnis = self.vnis.iter().filter(|(_, (pool, _))| *pool == id).map(|(vnis, _)| *vnis);
        let all: Vec<Uuid> = nics.chain(ranges).chain(vnis).chain([id]).collect();
        self.owners.extend(all.into_iter().map(|id| (id, to)));
        Ok(())
    }

    /// Zones, clusters, hosts.
    fn places(&mut self, who: Who, call: &Call) -> Option<Outcome> {
        Some(match *call {
            Call::CreateZone { id } => self.own(who, id, None).map(|()| {
                self.zones.insert(id);
            }),
            Call::DeleteZone { id } => {
                self.delete(id);
                Ok(())
            }
            Call::CreateCluster { id, zone } => self.own(who, id, None).map(|()| {
                self.clusters.insert(id, zone);
            }),
            Call::DeleteCluster { id } => {
                let mut hosts = self.hosts.iter().filter(|(_, (cluster, _))| *cluster == id);
                if hosts.any(|(host, _)| self.holds_any(*host)) {
                    return Some(Err(InUse));
                }
                self.delete(id);
                Ok(())
            }
            Call::AddHost { id, cluster, ip } => self.own(who, id, None).and_then(|()| {
                let is_taken = self.hosts.values().any(|(_, other)| *other == ip);
                refuse_if(is_taken, InvalidArgument)?;
                self.hosts.insert(id, (cluster, ip));
                let mut pools = self.pools_in(cluster);
                // In the order of the attachments' ids.
                pools.sort_unstable_by_key(|pool| Uuid::new_v5(pool, cluster.as_bytes()));
                (0..pools.len()).try_for_each(|at| self.may_end(ip, pools[at], &pools[..at]))
            }),
            Call::DeleteHost { id, is_dead } => {
                let is_used =
                    if is_dead { self.connected.contains(&id) } else { self.holds_any(id) };
                if is_used {
                    return Some(Err(InUse));
                }
                self.delete(id);
                Ok(())
            }
            _ => return None,
        })
    }

    /// Whether an instance is on a host, or may be.
    fn holds_any(&self, host: Uuid) -> bool {
        let rests = |hold: &Hold| matches!(hold, Hold::Place(there, _) if *there == host);
        self.vms.values().any(|vm| vm.host == Some(host)) || self.rests.iter().any(rests)
    }
}

mod instances;
mod networks;
mod view;
