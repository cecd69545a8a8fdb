//! Clusters.

use model::{
    Kind, Result,
    resource::{
        cluster::{Cluster, CreateCluster, DeleteCluster},
        l2_vxlan_pool::L2NetworkClusterRef,
        zone::EnableState,
    },
};

use crate::{Reply, Txn};

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateCluster) -> Result<Reply> {
    let cluster = Cluster {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        state: EnableState::Enabled,
        hypervisor_type: message.hypervisor_type,
        create_date: txn.now(),
        last_op_date: txn.now(),
        zone_uuid: message.zone_uuid,
        cluster_type: "zstack".into(),
    };
    txn.insert(cluster).map(Reply::shows)
}

/// A cluster without hosts takes its attachments with it.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteCluster) -> Result<Reply> {
    txn.must_be_unused(message.uuid, &[Kind::L2NetworkClusterRef])?;
    for attached in txn.children::<L2NetworkClusterRef>("clusterUuid", message.uuid.uuid()) {
        txn.remove(attached.uuid);
    }
    txn.remove(message.uuid);
    Ok(Reply::nothing())
}
