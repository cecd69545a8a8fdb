//! VXLAN pools, their VNI ranges, and the clusters they are in.

use ipnet::IpNet;
use model::{
    Code, Error, Id, Kind, Result,
    resource::{
        cluster::Cluster,
        host::Host,
        l2_vxlan_network::L2VxlanNetwork,
        l2_vxlan_pool::{
            AttachL2NetworkToCluster, CreateL2VxlanNetworkPool, CreateVniRange, DeleteVniRange,
            DetachL2NetworkFromCluster, L2NetworkClusterRef, L2VxlanNetworkPool, VniRange,
        },
        vm_nic::VmNic,
        vtep::Vtep,
    },
};
use uuid::Uuid;

use crate::{Reply, Txn, vtep};

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateL2VxlanNetworkPool) -> Result<Reply> {
    not_isolated(message.isolated)?;
    let pool = L2VxlanNetworkPool {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        zone_uuid: message.zone_uuid,
        physical_interface: message.physical_interface,
        network_type: "VxlanNetworkPool".into(),
        create_date: txn.now(),
        last_op_date: txn.now(),
    };
    txn.insert(pool).map(Reply::shows)
}

/// Ports of one network reach each other: nothing keeps them apart yet, so nobody may rely on it.
pub(crate) fn not_isolated(isolated: Option<bool>) -> Result<()> {
    match isolated {
        Some(true) => {
            let error = Error::field("isolated", "ports cannot be kept apart yet");
            Err(error.hint("give false, or leave it out"))
        }
        Some(false) | None => Ok(()),
    }
}

/// A pool without networks takes its ranges, attachments and VTEPs with it.
pub(crate) fn delete(txn: &mut Txn<'_>, pool: Id<L2VxlanNetworkPool>) -> Result<Reply> {
    let owned = [Kind::VniRange, Kind::L2NetworkClusterRef, Kind::Vtep];
    txn.must_be_unused(pool, &owned)?;
    for range in txn.children::<VniRange>("l2NetworkUuid", pool.uuid()) {
        txn.remove(range.uuid);
    }
    for attached in txn.children::<L2NetworkClusterRef>("l2NetworkUuid", pool.uuid()) {
        txn.remove(attached.uuid);
    }
    for vtep in txn.children::<Vtep>("poolUuid", pool.uuid()) {
        txn.remove(vtep.uuid);
    }
    txn.remove(pool);
    Ok(Reply::nothing())
}

/// VNIs are unique in a zone, not only in a pool: ranges of all its pools must not overlap. Two
/// networks with one VNI between the same two VTEPs could not be told apart.
pub(crate) fn create_vni_range(txn: &mut Txn<'_>, message: CreateVniRange) -> Result<Reply> {
    let (start, end) = (message.start_vni, message.end_vni);
    if start > end {
        let error = Error::field("endVni", format!("{end} is below startVni {start}"));
        return Err(error.hint("give the range from its lowest to its highest VNI"));
    }
    let pool = txn.get(message.l2_network_uuid)?;
    txn.fence(pool.zone_uuid);
    for other in txn.children::<L2VxlanNetworkPool>("zoneUuid", pool.zone_uuid.uuid()) {
        let ranges = txn.children::<VniRange>("l2NetworkUuid", other.uuid.uuid());
        if let Some(range) = ranges.iter().find(|r| r.start_vni <= end && start <= r.end_vni) {
            let (low, high) = (range.start_vni, range.end_vni);
            let text = format!("{start}-{end} overlaps {low}-{high} of pool {}", other.uuid);
            return Err(Error::field("startVni", text).hint("VNIs are unique in a zone"));
        }
    }
    let range = VniRange {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        start_vni: start,
        end_vni: end,
        l2_network_uuid: message.l2_network_uuid,
        create_date: txn.now(),
        last_op_date: txn.now(),
    };
    txn.insert(range).map(Reply::shows)
}

pub(crate) fn delete_vni_range(txn: &mut Txn<'_>, message: DeleteVniRange) -> Result<Reply> {
    let range = txn.get(message.uuid)?;
    let networks = txn.children::<L2VxlanNetwork>("poolUuid", range.l2_network_uuid.uuid());
    let inside = |n: &&L2VxlanNetwork| (range.start_vni..=range.end_vni).contains(&n.vni);
    if let Some(network) = networks.iter().find(inside) {
        let text = format!("network {} uses VNI {} of this range", network.uuid, network.vni);
        return Err(Error::new(Code::InUse, text).hint("delete its networks first"));
    }
    txn.remove(message.uuid);
    Ok(Reply::nothing())
}

pub(crate) fn attach(txn: &mut Txn<'_>, message: AttachL2NetworkToCluster) -> Result<Reply> {
    let (pool, cluster) = (txn.get(message.l2_network_uuid)?, txn.get(message.cluster_uuid)?);
    if pool.zone_uuid != cluster.zone_uuid {
        let text =
            format!("pool {} and cluster {} are in different zones", pool.uuid, cluster.uuid);
        return Err(Error::field("clusterUuid", text).hint("choose a cluster of the pool's zone"));
    }
    let id = ref_id(pool.uuid, cluster.uuid);
    if txn.find(id).is_some() {
        let text = format!("pool {} is attached to cluster {} already", pool.uuid, cluster.uuid);
        return Err(Error::new(Code::OperationFailed, text));
    }
    let vtep_cidr = vtep_cidr(txn, pool.uuid, cluster.uuid)?;
    vtep::one_family(txn, pool.uuid, vtep_cidr.addr())
        .map_err(|(rule, hint)| Error::field("systemTags", rule).hint(hint))?;
    let attached = L2NetworkClusterRef {
        uuid: id,
        cluster_uuid: cluster.uuid,
        l2_network_uuid: pool.uuid,
        vtep_cidr,
    };
    txn.insert(attached.clone())?;
    for host in txn.children::<Host>("clusterUuid", cluster.uuid.uuid()) {
        vtep::create_from_cidr(txn, &host, &attached)?;
    }
    Ok(Reply::shows(pool.uuid))
}

pub(crate) fn detach(txn: &mut Txn<'_>, message: DetachL2NetworkFromCluster) -> Result<Reply> {
    let id = ref_id(message.l2_network_uuid, message.cluster_uuid);
    if txn.find(id).is_none() {
        let text = format!(
            "pool {} is not attached to cluster {}",
            message.l2_network_uuid, message.cluster_uuid
        );
        return Err(Error::new(Code::OperationFailed, text));
    }
    let hosts = txn.children::<Host>("clusterUuid", message.cluster_uuid.uuid());
    for host in &hosts {
        for nic in txn.children::<VmNic>("hostUuid", host.uuid.uuid()) {
            if txn.get(nic.l2_network_uuid)?.pool_uuid == message.l2_network_uuid {
                let text = format!("NIC {} on host {} uses the pool", nic.uuid, host.uuid);
                let hint = "destroy the cluster's instances on the pool's networks first";
                return Err(Error::new(Code::InUse, text).hint(hint));
            }
        }
    }
    for host in &hosts {
        if let Some(vtep) = vtep::of_host(txn, host.uuid, message.l2_network_uuid) {
            txn.remove(vtep.uuid);
        }
    }
    txn.remove(id);
    Ok(Reply::shows(message.l2_network_uuid))
}

/// An attachment exists once per pool and cluster: its id says so.
fn ref_id(pool: Id<L2VxlanNetworkPool>, cluster: Id<Cluster>) -> Id<L2NetworkClusterRef> {
    Id::new(Uuid::new_v5(&pool.uuid(), cluster.uuid().as_bytes()))
}

/// Reads ZStack's tag `l2NetworkUuid::<pool>::clusterUuid::<cluster>::cidr::{..}`; the braces are
/// part of it.
fn vtep_cidr(txn: &Txn<'_>, pool: Id<L2VxlanNetworkPool>, cluster: Id<Cluster>) -> Result<IpNet> {
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
    let parsed = inner.and_then(|inner| inner.parse().ok());
    parsed.ok_or_else(|| wrong(&format!("\"{cidr}\" is not a network in braces")))
}
