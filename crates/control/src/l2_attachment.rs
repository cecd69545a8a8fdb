//! Which clusters have which L2 networks.

use std::collections::BTreeSet;

use ipnet::IpNet;
use model::{
    Code, Error, Id, Result,
    resource::{
        cluster::Cluster,
        host::Host,
        l2_attachment::{
            AttachL2NetworkToCluster, DetachL2NetworkFromCluster, L2NetworkClusterRef,
        },
        l2_network::{L2Network, Segment},
        remote_vtep::RemoteVtep,
        vm_nic::VmNic,
    },
};
use uuid::Uuid;

use crate::{
    Reply, Txn, host_addresses,
    operation::{Operation, job},
    realiser::{self, Attaching},
    rivals::{self, Rivals},
    vtep,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(attach), job(detach)]
}

pub(crate) fn attach(txn: &mut Txn<'_>, message: AttachL2NetworkToCluster) -> Result<Reply> {
    let (l2, cluster) = (txn.get(message.l2_network_uuid)?, txn.get(message.cluster_uuid)?);
    if l2.zone_uuid != cluster.zone_uuid {
        let text =
            format!("L2 network {} and cluster {} are in different zones", l2.uuid, cluster.uuid);
        let hint = "choose a cluster of the network's zone";
        return Err(Error::field("clusterUuid", text).hint(hint));
    }
    if let Some(pool) = l2.segment.pool() {
        let text = format!("network {} is where its pool is", l2.uuid);
        return Err(Error::field("l2NetworkUuid", text).hint(format!("attach pool {pool}")));
    }
    let id = ref_id(l2.uuid, cluster.uuid);
    if txn.find(id).is_some() {
        let text = format!("{} is attached to cluster {} already", l2.uuid, cluster.uuid);
        let hint = "QueryL2Network shows attachedClusterUuids";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    let vtep_cidr = match l2.segment.is_pool() {
        true => Some(vtep_cidr(txn, l2.uuid, cluster.uuid)?),
        false => None,
    };
    let attached = wished(&l2, cluster.uuid, vtep_cidr);
    txn.insert(attached.clone())?;
    host_addresses::check_network(txn, &l2, cluster.uuid)?;
    let hosts = txn.children(Host::CLUSTER, cluster.uuid);
    if let Some(cidr) = vtep_cidr {
        let rivals = Rivals::of(txn, l2.uuid)?;
        for host in &hosts {
            vtep::create_from_cidr(txn, host, (cidr, &rivals))
                .map_err(|error| error.on_field("systemTags"))?;
        }
    }
    // Hosts that are away, or come later, say what they lack when they connect.
    let is_connected = |host: &Host| txn.status(host.uuid).connected;
    let hosts: Vec<Host> = hosts.into_iter().filter(is_connected).collect();
    realiser::attach(txn, &Attaching { l2: &l2, presence: &attached, hosts: &hosts })?;
    Ok(Reply::shows(l2.uuid))
}

pub(crate) fn detach(txn: &mut Txn<'_>, message: DetachL2NetworkFromCluster) -> Result<Reply> {
    let (l2, cluster) = (message.l2_network_uuid, message.cluster_uuid);
    let id = ref_id(l2, cluster);
    if txn.find(id).is_none() {
        let text = format!("{l2} is not attached to cluster {cluster}");
        let hint = "QueryL2Network shows attachedClusterUuids";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    let hosts = txn.children(Host::CLUSTER, cluster);
    if let Some(nic) = user(txn, l2, &hosts) {
        let host = nic.host_uuid.map(|host| format!(" on host {host}")).unwrap_or_default();
        let text = format!("NIC {}{host} uses {l2}", nic.uuid);
        let hint = match nic.plugged() {
            Some(_) => "UnplugVmNic first, for all NICs on its networks in the cluster",
            None => "destroy the cluster's instances on its networks first",
        };
        return Err(Error::new(Code::InUse, text).hint(hint));
    }
    let vteps = hosts.iter().filter_map(|host| vtep::of_host(txn, host.uuid, l2));
    let vteps: Vec<_> = vteps.collect();
    rivals::leave(txn, l2, &vteps)?;
    for vtep in vteps {
        txn.delete(vtep.uuid)?;
    }
    for remote in txn.children(RemoteVtep::POOL, l2) {
        if remote.cluster_uuid == cluster {
            txn.delete(remote.uuid)?;
        }
    }
    txn.delete(id)?;
    Ok(Reply::shows(l2))
}

/// A NIC on one of these hosts that uses what is attached: a network or, of a pool, one of its
/// networks. Looks at the NICs of the hosts or at those of the networks, whichever are fewer: a
/// pool that nobody uses any more is detached from a full cluster without a look at any.
fn user(txn: &Txn<'_>, attached: Id<L2Network>, hosts: &[Host]) -> Option<VmNic> {
    let hosts: BTreeSet<Id<Host>> = hosts.iter().map(|host| host.uuid).collect();
    let mut networks: BTreeSet<Id<L2Network>> =
        txn.child_ids(L2Network::POOL, attached).into_iter().collect();
    networks.insert(attached);
    let here =
        |host: &Id<Host>| txn.count(VmNic::HOST, *host) + txn.count(VmNic::PENDING_HOST, *host);
    let on_hosts: u64 = hosts.iter().map(here).sum();
    let in_networks: u64 = networks.iter().map(|l2| txn.count(VmNic::L2_NETWORK, *l2)).sum();
    let is_user = |nic: &VmNic| {
        let mut homes = [nic.host_uuid, nic.pending_host_uuid].into_iter().flatten();
        homes.any(|host| hosts.contains(&host)) && networks.contains(&nic.l2_network_uuid)
    };
    let find = |nics: Vec<Id<VmNic>>| nics.into_iter().filter_map(|id| txn.find(id)).find(is_user);
    match in_networks < on_hosts {
        true => networks.iter().find_map(|l2| find(txn.child_ids(VmNic::L2_NETWORK, *l2))),
        false => hosts.iter().find_map(|host| {
            let pending = txn.child_ids(VmNic::PENDING_HOST, *host);
            find([txn.child_ids(VmNic::HOST, *host), pending].concat())
        }),
    }
}

/// A network's presence in a cluster, which may or may not be there.
pub(crate) fn wished(
    l2: &L2Network,
    cluster: Id<Cluster>,
    vtep_cidr: Option<IpNet>,
) -> L2NetworkClusterRef {
    let physical_interface = match l2.segment {
        Segment::NoVlan | Segment::Vlan { .. } => l2.physical_interface.clone(),
        Segment::Vxlan { .. } | Segment::VxlanPool => None,
        Segment::Gre { .. } | Segment::GrePool => None,
    };
    L2NetworkClusterRef {
        uuid: ref_id(l2.uuid, cluster),
        cluster_uuid: cluster,
        l2_network_uuid: l2.uuid,
        vtep_cidr,
        physical_interface,
        vlan: l2.segment.vlan(),
    }
}

/// An attachment exists once per L2 network and cluster: its id says so.
pub(crate) fn ref_id(l2: Id<L2Network>, cluster: Id<Cluster>) -> Id<L2NetworkClusterRef> {
    Id::new(Uuid::new_v5(&l2.uuid(), cluster.uuid().as_bytes()))
}

/// Reads ZStack's tag `l2NetworkUuid::<pool>::clusterUuid::<cluster>::cidr::{..}`; the braces are
/// part of it.
fn vtep_cidr(txn: &Txn<'_>, pool: Id<L2Network>, cluster: Id<Cluster>) -> Result<IpNet> {
    let start = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::");
    let form = format!("{start}{{192.168.100.0/24}}");
    let wrong = |what: &str| {
        let error = Error::field("systemTags", what.to_owned());
        error.hint(format!("pass exactly one system tag of the form {form}"))
    };
    let [cidr] = txn.tags(&start)[..] else {
        return Err(wrong("needs exactly one tag with the cluster's VTEP network"));
    };
    let inner = cidr.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let parsed: Option<IpNet> = inner.and_then(|inner| inner.parse().ok());
    let parsed = parsed.ok_or_else(|| wrong(&format!("\"{cidr}\" is not a network in braces")))?;
    vtep::one_family(txn, pool, parsed.addr())
        .map_err(|(rule, hint)| Error::field("systemTags", rule).hint(hint))?;
    Ok(parsed)
}
