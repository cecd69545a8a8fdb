//! Resources as the API shows them: declared fields, what is derived, and what hosts reported.

use std::collections::BTreeMap;

use model::{
    FieldType, Id, Kind, Record, Resource,
    resource::{
        host::Host, l2_vxlan_network::L2VxlanNetwork, l2_vxlan_pool::L2VxlanNetworkPool,
        l3_network::L3Network, vm_instance::VmInstance, vm_nic::VmNic,
    },
    status::Board,
    time::Timestamp,
};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

/// A resource as JSON, as ZStack shows it: no hidden fields, no empty ones, times as text.
#[must_use]
pub fn show(record: &Record, read: &Snapshot<Record>, board: &Board) -> Map<String, Value> {
    let mut shown = declared(record);
    match record {
        Record::Host(host) => show_host(&mut shown, host, read.revision(), board),
        Record::L2VxlanNetworkPool(pool) => show_pool(&mut shown, pool, read),
        Record::L2VxlanNetwork(network) => show_l2(&mut shown, network, read),
        Record::L3Network(l3) => show_l3(&mut shown, l3, read),
        Record::VmNic(nic) => show_nic(&mut shown, nic),
        Record::VmInstance(instance) => show_instance(&mut shown, instance, read, board),
        _ => {}
    }
    shown
}

/// The part of [`show`] that is in the record itself: cheap, where nothing else is asked for.
#[must_use]
pub fn declared(record: &Record) -> Map<String, Value> {
    let Ok(Value::Object(mut all)) = record.to_json() else { return Map::new() };
    let mut shown = Map::new();
    for field in record.kind().def().fields.iter().filter(|field| !field.hidden) {
        match (field.kind, all.remove(field.name)) {
            (_, None | Some(Value::Null)) => {}
            (FieldType::Time, Some(at)) => {
                let at = Timestamp(at.as_i64().unwrap_or_default());
                shown.insert(field.name.into(), at.to_string().into());
            }
            (_, Some(value)) => {
                shown.insert(field.name.into(), value);
            }
        }
    }
    shown
}

/// `synced`: the host has last said that it holds all that concerns it, and exactly that.
fn show_host(shown: &mut Map<String, Value>, host: &Host, revision: u64, board: &Board) {
    let status = match board.hosts.get(&host.uuid) {
        Some(status) if status.connected => "Connected",
        Some(_) => "Disconnected",
        None => "Connecting",
    };
    shown.insert("status".into(), status.into());
    let status = board.status(host.uuid);
    shown.insert("synced".into(), (status.agrees && status.acked_revision >= revision).into());
}

fn show_pool(shown: &mut Map<String, Value>, pool: &L2VxlanNetworkPool, read: &impl Read<Record>) {
    let uuid = pool.uuid.uuid();
    let list =
        |kind, field| -> Value { children(read, kind, field, uuid).iter().map(declared).collect() };
    shown.insert("attachedVtepRefs".into(), list(Kind::Vtep, "poolUuid"));
    shown.insert("attachedVxlanNetworkRefs".into(), list(Kind::L2VxlanNetwork, "poolUuid"));
    shown.insert("attachedVniRanges".into(), list(Kind::VniRange, "l2NetworkUuid"));
    let cidrs = clusters(read, pool.uuid);
    shown.insert("attachedClusterUuids".into(), cidrs.keys().cloned().collect());
    shown.insert("attachedCidrs".into(), json!(cidrs));
}

fn show_l2(shown: &mut Map<String, Value>, network: &L2VxlanNetwork, read: &impl Read<Record>) {
    let clusters = clusters(read, network.pool_uuid);
    shown.insert("attachedClusterUuids".into(), clusters.into_keys().collect());
    shown.insert("virtualNetworkId".into(), network.vni.into());
}

/// The clusters that a pool is attached to, each with its VTEP network.
fn clusters(read: &impl Read<Record>, pool: Id<L2VxlanNetworkPool>) -> BTreeMap<String, String> {
    let refs = children(read, Kind::L2NetworkClusterRef, "l2NetworkUuid", pool.uuid());
    let attached = refs.iter().filter_map(|record| match record {
        Record::L2NetworkClusterRef(r) => {
            Some((r.cluster_uuid.to_string(), r.vtep_cidr.to_string()))
        }
        _ => None,
    });
    attached.collect()
}

fn show_l3(shown: &mut Map<String, Value>, l3: &L3Network, read: &impl Read<Record>) {
    let ranges = children(read, Kind::IpRange, "l3NetworkUuid", l3.uuid.uuid());
    shown.insert("ipRanges".into(), ranges.iter().map(declared).collect());
    for empty in ["dns", "networkServices", "hostRoute"] {
        shown.insert(empty.into(), json!([]));
    }
}

fn show_nic(shown: &mut Map<String, Value>, nic: &VmNic) {
    if let Some(first) = nic.used_ips.first() {
        shown.insert("ip".into(), json!(first.ip));
        shown.insert("gateway".into(), json!(first.gateway));
        shown.insert("ipVersion".into(), first.ip_version.into());
        if let Some(netmask) = first.netmask {
            shown.insert("netmask".into(), json!(netmask));
        }
    }
    if let Some(Value::Array(used)) = shown.get_mut("usedIps") {
        for ip in used.iter_mut().filter_map(Value::as_object_mut) {
            ip.insert("vmNicUuid".into(), nic.uuid.to_string().into());
        }
    }
}

fn show_instance(
    shown: &mut Map<String, Value>,
    instance: &VmInstance,
    read: &Snapshot<Record>,
    board: &Board,
) {
    let status = board.status(instance.host_uuid);
    let state = match (status.connected, status.up.contains(&instance.uuid.uuid())) {
        (true, true) => "Running",
        (true, false) => "Starting",
        (false, _) => "Unknown",
    };
    shown.insert("state".into(), state.into());
    let nics = children(read, Kind::VmNic, "vmInstanceUuid", instance.uuid.uuid());
    let mut nics: Vec<_> = nics.iter().map(|nic| show(nic, read, board)).collect();
    nics.sort_by_key(|nic| nic.get("deviceId").and_then(Value::as_u64));
    shown.insert("vmNics".into(), json!(nics));
}

fn children(read: &impl Read<Record>, kind: Kind, field: &str, parent: Uuid) -> Vec<Record> {
    let ids: Vec<Uuid> = read.referrers(kind, field, parent).collect();
    ids.into_iter().filter_map(|id| read.get(kind, id)).map(|record| (*record).clone()).collect()
}

/// Fields that the inventory has beside the declared ones, with their types; conditions of queries
/// may name them too.
#[must_use]
pub fn derived_fields(kind: Kind) -> &'static [(&'static str, FieldType)] {
    const CLUSTERS: (&str, FieldType) = ("attachedClusterUuids", FieldType::List(&FieldType::Uuid));
    match kind {
        Host::KIND => &[("status", FieldType::Text), ("synced", FieldType::Bool)],
        L2VxlanNetworkPool::KIND => &[CLUSTERS],
        L2VxlanNetwork::KIND => &[CLUSTERS, ("virtualNetworkId", FieldType::Integer)],
        VmNic::KIND => &[
            ("ip", FieldType::Ip),
            ("netmask", FieldType::Ip),
            ("gateway", FieldType::Ip),
            ("ipVersion", FieldType::Integer),
        ],
        VmInstance::KIND => &[("state", FieldType::Text)],
        _ => &[],
    }
}

/// Structures that the inventory has besides: queries may choose them, not compare them.
#[must_use]
pub fn derived_structures(kind: Kind) -> &'static [&'static str] {
    match kind {
        L2VxlanNetworkPool::KIND => {
            &["attachedVtepRefs", "attachedVxlanNetworkRefs", "attachedVniRanges", "attachedCidrs"]
        }
        L3Network::KIND => &["ipRanges", "dns", "networkServices", "hostRoute"],
        VmInstance::KIND => &["vmNics"],
        _ => &[],
    }
}
