//! Which L2 networks and clusters can be brought together.

use std::sync::Arc;

use model::{
    Error, Kind, Record, Resource, Result,
    resource::{
        cluster::{Cluster, ClusterType},
        l2_attachment::{
            GetCandidateClustersForAttachingL2Network, GetCandidateL2NetworksForAttachingCluster,
        },
        l2_network::{L2Network, L2Type},
    },
    shown::LIST_MAX,
};
use serde_json::{Value, json};
use store::{Key, Read};

use crate::{
    Look, l2_attachment,
    operation::{Operation, look},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![look(networks), look(clusters)]
}

/// Networks from pools are where these are, so they are not even looked at.
const ATTACHED: [L2Type; 4] = [L2Type::NoVlan, L2Type::Vlan, L2Type::VxlanPool, L2Type::GrePool];

fn networks(look: &Look<'_>, message: GetCandidateL2NetworksForAttachingCluster) -> Result<Value> {
    let cluster = look.get(message.cluster_uuid)?;
    let keys = ATTACHED.map(|of| Key::Text(of.as_str().into()));
    let ids = keys.iter().flat_map(|key| look.snapshot().find(L2Network::KIND, "type", key));
    let records = ids
        .filter_map(|id| look.visible(L2Network::KIND, id))
        .filter(|record| L2Network::of(record).is_some_and(|l2| goes(look, l2, &cluster)));
    Ok(inventories(look, records))
}

fn clusters(look: &Look<'_>, message: GetCandidateClustersForAttachingL2Network) -> Result<Value> {
    let l2 = look.get(message.l2_network_uuid)?;
    if let Some(pool) = l2.segment.pool() {
        let text = format!("network {} is where its pool is", l2.uuid);
        return Err(Error::field("l2NetworkUuid", text).hint(format!("name pool {pool}")));
    }
    let known: Vec<_> = ClusterType::ALL.iter().map(|of| of.as_str()).collect();
    if let Some(other) = message.cluster_types.iter().find(|of| !known.contains(&of.as_str())) {
        let text = format!("\"{other}\" is no type of clusters");
        return Err(
            Error::field("clusterTypes", text).hint(format!("there are: {}", known.join(", ")))
        );
    }
    let ids = look.child_ids(Cluster::ZONE, l2.zone_uuid);
    let records = ids
        .filter_map(|id| look.visible(Cluster::KIND, id.uuid()))
        .filter(|record| Cluster::of(record).is_some_and(|cluster| goes(look, &l2, cluster)));
    Ok(inventories(look, records))
}

/// Whether a network can be attached to a cluster.
fn goes(look: &Look<'_>, l2: &L2Network, cluster: &Cluster) -> bool {
    let wished = l2_attachment::wished(l2, cluster.uuid, None);
    let is_there = look.snapshot().get(Kind::L2NetworkClusterRef, wished.uuid.uuid()).is_some();
    let is_free = |claim: &model::Claim| look.snapshot().holder(claim).is_none();
    l2.zone_uuid == cluster.zone_uuid && !is_there && wished.claims().iter().all(is_free)
}

/// As many as a list may have; it says so if there are more.
fn inventories(look: &Look<'_>, records: impl Iterator<Item = Arc<Record>>) -> Value {
    let mut found: Vec<Arc<Record>> = records.take(LIST_MAX + 1).collect();
    let is_cut = found.len() > LIST_MAX;
    found.truncate(LIST_MAX);
    let shown: Vec<Value> = found.iter().map(|record| Value::Object(look.show(record))).collect();
    match is_cut {
        true => json!({"inventories": shown, "truncated": true}),
        false => json!({"inventories": shown}),
    }
}
