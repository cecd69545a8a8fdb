//! Clusters.

use model::{
    Code, Error, Result,
    resource::{
        cluster::{
            ChangeClusterState, Cluster, ClusterType, CreateCluster, DeleteCluster, UpdateCluster,
        },
        host::Host,
        zone::{EnableEvent, EnableState},
    },
};

use crate::{
    Reply, Txn, host,
    operation::{Operation, job},
};

/// Most hosts whose state one message changes, so that a transaction stays small.
const HOSTS_MAX: usize = 3000;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(change_state), job(delete)]
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

/// As in ZStack, the hosts go along, and can then be changed one by one.
pub(crate) fn change_state(txn: &mut Txn<'_>, message: ChangeClusterState) -> Result<Reply> {
    let cluster = txn.get(message.uuid)?;
    change_all(txn, vec![cluster], message.state_event)?;
    Ok(Reply::shows(message.uuid))
}

/// Changes clusters with their hosts; what is as wanted already is not touched.
pub(crate) fn change_all(
    txn: &mut Txn<'_>,
    clusters: Vec<Cluster>,
    event: EnableEvent,
) -> Result<()> {
    let mut hosts = Vec::new();
    for mut cluster in clusters {
        hosts.extend(txn.children(Host::CLUSTER, cluster.uuid));
        hosts.retain(|host| host.state.with_cluster(event) != host.state);
        if hosts.len() > HOSTS_MAX {
            let text = format!("this would change over {HOSTS_MAX} hosts at once");
            let hint = "ChangeClusterState and ChangeHostState do it in smaller steps";
            return Err(Error::new(Code::OperationFailed, text).hint(hint));
        }
        let next = cluster.state.next(event);
        if next != cluster.state {
            cluster.state = next;
            txn.update(cluster)?;
        }
    }
    for mut host in hosts {
        host.state = host.state.with_cluster(event);
        txn.update(host)?;
    }
    Ok(())
}

/// Deletes a cluster and its hosts, on which no instance may be any more.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteCluster) -> Result<Reply> {
    for host in txn.child_ids(Host::CLUSTER, message.uuid) {
        host::check_empty(txn, host)?;
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
