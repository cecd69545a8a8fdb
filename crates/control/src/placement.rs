//! Placement: which host runs an instance.

use model::{
    Code, Error, Id, Result,
    resource::{
        cluster::Cluster,
        host::{Host, HostMode},
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        vm_instance::{InstanceDriver, VmInstance},
        zone::Zone,
    },
};

use crate::{Txn, l2_network};

/// Hosts that are looked at for one instance. Of more hosts, as many are chosen at random, so that
/// the work does not grow with the cloud; the least loaded one of 64 is nearly the least loaded of
/// all (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). Only when
/// none of them fits, all are looked at.
const CANDIDATES: usize = 64;

/// Unfit hosts that a refusal names.
const REASONS_MAX: usize = 8;

/// What an instance needs of its host.
pub(crate) struct Demand {
    /// Where the instance is.
    pub(crate) zone: Id<Zone>,
    /// The cluster that the caller names.
    pub(crate) cluster: Option<Id<Cluster>>,
    /// The host that the caller names.
    pub(crate) host: Option<Id<Host>>,
    /// The host that had it last: it gets it again, if it fits.
    pub(crate) last: Option<Id<Host>>,
    /// Where it is, and moves away from.
    pub(crate) not: Option<Id<Host>>,
    /// The networks of its NICs.
    pub(crate) l2s: Vec<L2Network>,
    /// What runs it.
    pub(crate) driver: InstanceDriver,
}

/// Chooses the host: inside what the caller asks for, connected, able to run it and to carry every
/// network, and then the one that had the instance last, or that with the fewest instances.
///
/// # Errors
/// [`Code::NoHost`] with what stands in the way of each.
pub(crate) fn choose(txn: &Txn<'_>, demand: &Demand) -> Result<Host> {
    if demand.host.is_none()
        && let Some(last) = best(txn, demand, demand.last.as_slice())
    {
        return Ok(last);
    }
    let mut hosts = hosts(txn, demand);
    let known = hosts.len();
    let sample = sample(txn, &mut hosts);
    best(txn, demand, &hosts[..sample])
        .or_else(|| best(txn, demand, &hosts[sample..]))
        .ok_or_else(|| refusal(txn, demand, &hosts[..known.min(CANDIDATES)]))
}

/// The hosts that the caller allows, in clusters that have the first network.
fn hosts(txn: &Txn<'_>, demand: &Demand) -> Vec<Id<Host>> {
    if let Some(host) = demand.host {
        return vec![host];
    }
    let clusters: Vec<Id<Cluster>> = match (demand.cluster, demand.l2s.first()) {
        (Some(cluster), _) => vec![cluster],
        (None, Some(l2)) => {
            let attached = txn.children(L2NetworkClusterRef::L2_NETWORK, l2.attached());
            attached.into_iter().map(|r| r.cluster_uuid).collect()
        }
        (None, None) => txn.child_ids(Cluster::ZONE, demand.zone),
    };
    clusters.into_iter().flat_map(|cluster| txn.child_ids(Host::CLUSTER, cluster)).collect()
}

/// Moves some hosts, chosen at random, to the front; says how many.
fn sample(txn: &Txn<'_>, hosts: &mut [Id<Host>]) -> usize {
    if hosts.len() <= CANDIDATES {
        return hosts.len();
    }
    for at in 0..CANDIDATES {
        let random = usize::try_from(txn.random_uuid().as_u128() >> 96).unwrap_or(0);
        let other = at + random % (hosts.len() - at);
        hosts.swap(at, other);
    }
    CANDIDATES
}

/// The fit host with the fewest instances.
fn best(txn: &Txn<'_>, demand: &Demand, hosts: &[Id<Host>]) -> Option<Host> {
    let fit = hosts.iter().filter_map(|id| txn.find(*id));
    let fit = fit.filter(|host| why_not(txn, demand, host).is_none());
    fit.min_by_key(|host| txn.count(VmInstance::HOST, host.uuid))
}

/// What keeps a host from running an instance on these networks, and the fix.
fn why_not(txn: &Txn<'_>, demand: &Demand, host: &Host) -> Option<String> {
    if let Some(where_else) = outside(demand, host) {
        return Some(where_else);
    }
    if demand.not == Some(host.uuid) {
        return Some("is where it runs".into());
    }
    match host.state {
        HostMode::Enabled => {}
        HostMode::Disabled => return Some("is disabled".into()),
        HostMode::PreMaintenance => return Some("is being emptied for maintenance".into()),
        HostMode::Maintenance => return Some("is in maintenance".into()),
    }
    if !txn.status(host.uuid).connected {
        return Some("is not connected: start its agent".into());
    }
    let driver = demand.driver.as_str();
    if let Some(why) = txn.status(host.uuid).lacking.get(driver) {
        return Some(format!("cannot run instances of driver {driver}: {why}"));
    }
    demand.l2s.iter().find_map(|l2| l2_network::why_not(txn, host, l2))
}

fn refusal(txn: &Txn<'_>, demand: &Demand, hosts: &[Id<Host>]) -> Error {
    let why = |id: &Id<Host>| {
        let host = txn.find(*id)?;
        let why = why_not(txn, demand, &host)?;
        Some(format!("{}: {why}", host.name))
    };
    let reasons: Vec<String> = hosts.iter().filter_map(why).take(REASONS_MAX).collect();
    let refused = Error::new(Code::NoHost, "no host can run the instance");
    if !txn.caller().is_admin() {
        // Hosts and their names are the administrators'.
        return refused.hint("ask an administrator: QueryHost shows what keeps hosts from it");
    }
    let hint = match reasons.is_empty() {
        true => "no cluster that the message allows has the networks and a host: \
                 AttachL2NetworkToCluster, AddKVMHost"
            .to_owned(),
        false => reasons.join("; "),
    };
    refused.hint(hint)
}

/// Where a host is that the caller does not allow.
fn outside(demand: &Demand, host: &Host) -> Option<String> {
    if demand.cluster.is_some_and(|cluster| cluster != host.cluster_uuid) {
        return Some(format!("is in cluster {}", host.cluster_uuid));
    }
    (demand.zone != host.zone_uuid).then(|| format!("is in zone {}", host.zone_uuid))
}
