//! Placement: which host runs an instance.

use model::{
    Code, Error, Id, Result,
    resource::{
        cluster::Cluster,
        host::{Host, HostMode},
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        l3_network::L3Network,
        vm_instance::{CreateVmInstance, VmInstance},
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

/// Chooses the host: inside what the message asks for, connected, able to carry every network, and
/// then the one with the fewest instances.
///
/// # Errors
/// [`Code::NoHost`] with what stands in the way of each.
pub(crate) fn choose(txn: &Txn<'_>, message: &CreateVmInstance, l3s: &[L3Network]) -> Result<Host> {
    let mut l2s = Vec::new();
    for l3 in l3s {
        if l3.zone_uuid != l3s[0].zone_uuid {
            let error = Error::field("l3NetworkUuids", "are in different zones");
            return Err(error.hint("choose networks of one zone"));
        }
        l2s.push(txn.get(l3.l2_network_uuid)?);
    }
    let mut hosts = hosts(txn, message, &l2s);
    let known = hosts.len();
    let sample = sample(txn, &mut hosts);
    best(txn, message, &hosts[..sample], &l2s)
        .or_else(|| best(txn, message, &hosts[sample..], &l2s))
        .ok_or_else(|| refusal(txn, message, &hosts[..known.min(CANDIDATES)], &l2s))
}

/// The hosts that the message allows, in clusters that have the first network.
fn hosts(txn: &Txn<'_>, message: &CreateVmInstance, l2s: &[L2Network]) -> Vec<Id<Host>> {
    if let Some(host) = message.host_uuid {
        return vec![host];
    }
    let clusters: Vec<Id<Cluster>> = match (message.cluster_uuid, l2s.first()) {
        (Some(cluster), _) => vec![cluster],
        (None, Some(l2)) => {
            let attached = txn.children(L2NetworkClusterRef::L2_NETWORK, l2.attached());
            attached.into_iter().map(|r| r.cluster_uuid).collect()
        }
        (None, None) => Vec::new(),
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
fn best(
    txn: &Txn<'_>,
    message: &CreateVmInstance,
    hosts: &[Id<Host>],
    l2s: &[L2Network],
) -> Option<Host> {
    let fit = hosts.iter().filter_map(|id| txn.find(*id));
    let fit = fit.filter(|host| why_not(txn, message, host, l2s).is_none());
    fit.min_by_key(|host| txn.count(VmInstance::HOST, host.uuid))
}

/// What keeps a host from running an instance on these networks, and the fix.
fn why_not(
    txn: &Txn<'_>,
    message: &CreateVmInstance,
    host: &Host,
    l2s: &[L2Network],
) -> Option<String> {
    if let Some(where_else) = outside(message, host) {
        return Some(where_else);
    }
    match host.state {
        HostMode::Enabled => {}
        HostMode::Disabled => return Some("is disabled".into()),
        HostMode::Maintenance => return Some("is in maintenance".into()),
    }
    if !txn.status(host.uuid).connected {
        return Some("is not connected: start its agent".into());
    }
    l2s.iter().find_map(|l2| l2_network::why_not(txn, host, l2))
}

fn refusal(
    txn: &Txn<'_>,
    message: &CreateVmInstance,
    hosts: &[Id<Host>],
    l2s: &[L2Network],
) -> Error {
    let why = |id: &Id<Host>| {
        let host = txn.find(*id)?;
        let why = why_not(txn, message, &host, l2s)?;
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

/// Where a host is that the message does not allow.
fn outside(message: &CreateVmInstance, host: &Host) -> Option<String> {
    if message.cluster_uuid.is_some_and(|cluster| cluster != host.cluster_uuid) {
        return Some(format!("is in cluster {}", host.cluster_uuid));
    }
    if message.zone_uuid.is_some_and(|zone| zone != host.zone_uuid) {
        return Some(format!("is in zone {}", host.zone_uuid));
    }
    None
}
