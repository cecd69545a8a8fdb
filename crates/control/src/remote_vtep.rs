//! Tunnel ends that are no host's.

use std::net::IpAddr;

use model::{
    Code, Error, Id, Result,
    resource::{
        cluster::Cluster,
        l2_network::L2Network,
        remote_vtep::{
            CreateVxlanPoolRemoteVtep, DeleteVxlanPoolRemoteVtep, RemoteVtep, RemoteVtepType,
        },
    },
};
use uuid::Uuid;

use crate::{
    Reply, Txn, l2_attachment, l2_vxlan,
    operation::{Operation, job},
    reserved,
    rivals::Rivals,
    vtep,
};

/// Most of one pool: each of them is told to hosts, and looked at for each new VTEP.
const OF_POOL_MAX: u64 = 256;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(delete)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateVxlanPoolRemoteVtep) -> Result<Reply> {
    const FIELD: &str = "remoteVtepIp";
    let (pool, cluster, ip) =
        (message.l2_network_uuid, message.cluster_uuid, message.remote_vtep_ip);
    l2_vxlan::pool(txn, "l2NetworkUuid", pool)?;
    if txn.find(l2_attachment::ref_id(pool, cluster)).is_none() {
        let text = format!("pool {pool} is not in cluster {cluster}");
        let hint = "AttachL2NetworkToCluster brings it there";
        return Err(Error::new(Code::OperationFailed, text).on_field("clusterUuid").hint(hint));
    }
    reserved::check_host(FIELD, ip)?;
    vtep::one_family(txn, pool, ip).map_err(|(rule, hint)| Error::field(FIELD, rule).hint(hint))?;
    if let Some(host) = vtep::holder(txn, pool, ip) {
        let text = format!("{ip} is the VTEP {} of this pool, which is a host's", host.simple());
        return Err(Error::field(FIELD, text).hint("hosts reach each other without it"));
    }
    Rivals::of(txn, pool)?.check(txn, (FIELD, ip))?;
    let id = id(pool, cluster, ip);
    if txn.find(id).is_some() {
        let text = format!("{ip} is there already");
        let hint = "QueryRemoteVtep shows what is there";
        return Err(Error::new(Code::OperationFailed, text).on_field(FIELD).hint(hint));
    }
    if txn.count(RemoteVtep::POOL, pool) >= OF_POOL_MAX {
        let text = format!("pool {pool} has {OF_POOL_MAX} of them, which is the limit");
        return Err(Error::new(Code::OperationFailed, text).on_field(FIELD).hint("delete some"));
    }
    txn.insert(RemoteVtep {
        uuid: id,
        cluster_uuid: cluster,
        vtep_ip: ip,
        port: vtep::port(txn, pool)?,
        vtep_type: RemoteVtepType::Remote,
        pool_uuid: pool,
    })?;
    Ok(Reply::shows(pool))
}

/// What is gone is gone, as with every deletion.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteVxlanPoolRemoteVtep) -> Result<Reply> {
    let pool = message.l2_network_uuid;
    txn.delete(id(pool, message.cluster_uuid, message.remote_vtep_ip))?;
    Ok(Reply::shows(pool))
}

/// Once for each pool, cluster and address.
fn id(pool: Id<L2Network>, cluster: Id<Cluster>, ip: IpAddr) -> Id<RemoteVtep> {
    Id::new(Uuid::new_v5(&pool.uuid(), format!("{cluster} {ip}").as_bytes()))
}
