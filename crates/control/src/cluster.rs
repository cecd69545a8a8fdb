//! Clusters.

use model::{
    Result,
    resource::{
        cluster::{Cluster, ClusterType, CreateCluster, DeleteCluster, UpdateCluster},
        host::Host,
        zone::EnableState,
    },
};

use crate::{
    Reply, Txn, host,
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(delete)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateCluster) -> Result<Reply> {
    let cluster = Cluster {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        state: EnableState::Enabled,
        hypervisor_type: message.hypervisor_type,
        zone_uuid: message.zone_uuid,
        cluster_type: ClusterType::Zstack,
    };
    txn.insert(cluster).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateCluster) -> Result<Reply> {
    let mut cluster = txn.get(message.uuid)?;
    cluster.name = message.name.unwrap_or(cluster.name);
    message.description.apply(&mut cluster.description);
    txn.update(cluster)?;
    Ok(Reply::shows(message.uuid))
}

/// Deletes a cluster and its hosts, on which no instance may be any more.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteCluster) -> Result<Reply> {
    for host in txn.child_ids(Host::CLUSTER, message.uuid) {
        host::check_empty(txn, host)?;
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
