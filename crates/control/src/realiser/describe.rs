//! What a realiser is told of a place.

use hmac::{Hmac, KeyInit, Mac};
use model::{
    Kind, Record, Resource,
    resource::{
        cluster::Cluster,
        host::Host,
        l2_network::{L2Network, Segment},
        l2_realiser::L2Realisation,
        vtep::Vtep,
    },
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use store::{Read, Snapshot};

use super::wanted::Place;

/// The network and its place, without the hosts of a cluster; `None`: something of it is gone.
pub(super) fn about(snapshot: &Snapshot<Record>, place: &Place) -> Option<Map<String, Value>> {
    let row = place.row();
    let l2 = snapshot.get(Kind::L2Network, place.l2.uuid())?;
    let l2 = L2Network::of(&l2)?;
    let cluster = snapshot.get(Kind::Cluster, place.cluster.uuid())?;
    let cluster = Cluster::of(&cluster)?;
    let mut network = json!({
        "uuid": l2.uuid, "name": l2.name, "type": l2.segment.of_type().as_str(),
        "zoneUuid": l2.zone_uuid, "physicalInterface": l2.physical_interface,
    });
    match l2.segment {
        Segment::Vlan { vlan } => network["vlan"] = vlan.into(),
        Segment::Vxlan { vni, pool_uuid } | Segment::Gre { vni, pool_uuid } => {
            network["vni"] = vni.into();
            network["poolUuid"] = json!(pool_uuid);
        }
        Segment::NoVlan | Segment::VxlanPool | Segment::GrePool => {}
    }
    let mut about = json!({
        "realisation": row.uuid,
        "moment": row.moment.as_str(),
        "l2Network": network,
        "cluster": {"uuid": cluster.uuid, "name": cluster.name},
    });
    if let Some(host) = place.host {
        let found = snapshot.get(Kind::Host, host.uuid());
        let found = found.as_deref().and_then(Host::of)?;
        about["hosts"] = json!([of_host(snapshot, found, l2)]);
    }
    match about {
        Value::Object(about) => Some(about),
        _ => None,
    }
}

/// Everything that a realiser is told of a place, with the hosts of the cluster.
pub(super) fn whole(snapshot: &Snapshot<Record>, place: &Place) -> Option<Map<String, Value>> {
    let mut whole = about(snapshot, place)?;
    if place.host.is_none() {
        let l2 = snapshot.get(Kind::L2Network, place.l2.uuid())?;
        let l2 = L2Network::of(&l2)?;
        let ids = snapshot.referrers(Kind::Host, Host::CLUSTER.field, place.cluster.uuid());
        let hosts = ids.filter_map(|id| snapshot.get(Kind::Host, id));
        let hosts = hosts.filter_map(|row| Some(of_host(snapshot, Host::of(&row)?, l2)));
        whole.insert("hosts".to_owned(), hosts.collect());
    }
    Some(whole)
}

fn of_host(snapshot: &Snapshot<Record>, host: &Host, l2: &L2Network) -> Value {
    let vteps = snapshot.referrers(Kind::Vtep, Vtep::HOST.field, host.uuid.uuid());
    let vteps = vteps.filter_map(|id| snapshot.get(Kind::Vtep, id));
    let pool = l2.attached();
    let is_of_pool = |vtep: &Vtep| vtep.pool_uuid == pool;
    let vtep = vteps.filter_map(|row| Vtep::of(&row).cloned()).find(is_of_pool);
    json!({
        "uuid": host.uuid, "name": host.name, "managementIp": host.management_ip,
        "vtepIp": vtep.map(|vtep| vtep.vtep_ip),
    })
}

/// SHA-256 of it, hex: whether a realiser was told the same before.
pub(super) fn hash(whole: &Map<String, Value>) -> String {
    let json = Value::Object(whole.clone()).to_string();
    hex(&Sha256::digest(json))
}

/// The signature of a body.
pub(super) fn sign(secret: &str, body: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(body.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is sent: what is to be done there, as of which revision. A realiser ignores what is older
/// than what it was told of a realisation last.
pub(super) fn body(mut told: Map<String, Value>, action: &str, revision: u64) -> String {
    told.insert("action".to_owned(), action.into());
    told.insert("revision".to_owned(), revision.into());
    Value::Object(told).to_string()
}

/// What was told of a place that is gone.
pub(super) fn last_told(row: &L2Realisation) -> Map<String, Value> {
    let about = row.about.as_deref().and_then(|text| serde_json::from_str(text).ok());
    about.unwrap_or_default()
}
