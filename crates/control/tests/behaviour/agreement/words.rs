//! The model's words for what the product shows, and the product's for what the model is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    AnyId, Claim, Id, Kind, Record, Resource,
    resource::{
        account::{ADMIN, Account},
        cluster::Cluster,
        host::Host,
        ip_range::IpRange,
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        l2_vxlan::VniRange,
        l3_network::L3Network,
        quota::Quota,
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
        vtep::Vtep,
        zone::{EnableState, Zone},
    },
    status::HostStatus,
};
use netloom_control::Request;
use serde_json::{Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use super::TENANT;
use crate::{
    harness::Cloud,
    reference::{Call, Start, View, Who},
};

/// A message as callers send it; `None` for what is none.
#[expect(clippy::too_many_lines, reason = "a uniform table")]
pub(super) fn request(call: &Call) -> Option<Request> {
    let text = |id: &Uuid| id.simple().to_string();
    let ip = |last: &u8| format!("10.0.0.{last}");
    let uuid = |id: &Uuid| json!({"uuid": text(id)});
    let mut tags = Vec::new();
    let (made, message, params): (Option<Uuid>, &str, Value) = match call {
        Call::CreateZone { id } => (Some(*id), "CreateZone", json!({"name": "z"})),
        Call::DeleteZone { id } => (None, "DeleteZone", uuid(id)),
        Call::CreateCluster { id, zone } => (Some(*id), "CreateCluster", {
            json!({"name": "c", "zoneUuid": text(zone), "hypervisorType": "KVM"})
        }),
        Call::DeleteCluster { id } => (None, "DeleteCluster", uuid(id)),
        Call::AddHost { id, cluster, ip: [net, last] } => (Some(*id), "AddKVMHost", {
            let ip = format!("172.30.{net}.{last}");
            json!({"name": "h", "clusterUuid": text(cluster), "managementIp": ip})
        }),
        Call::DeleteHost { id, is_dead } => (None, "DeleteHost", {
            let mode = if *is_dead { "Enforcing" } else { "Permissive" };
            json!({"uuid": text(id), "deleteMode": mode})
        }),
        Call::CreatePool { id, zone } => (Some(*id), "CreateL2VxlanNetworkPool", {
            json!({"name": "p", "zoneUuid": text(zone)})
        }),
        Call::CreateVnis { id, pool, vnis: (low, high) } => (Some(*id), "CreateVniRange", {
            json!({"name": "r", "l2NetworkUuid": text(pool), "startVni": low, "endVni": high})
        }),
        Call::DeleteVnis { id } => (None, "DeleteVniRange", uuid(id)),
        Call::CreateL2 { id, pool, vni } => (Some(*id), "CreateL2VxlanNetwork", {
            json!({"name": "n", "poolUuid": text(pool), "vni": vni})
        }),
        Call::DeleteL2 { id } => (None, "DeleteL2Network", uuid(id)),
        Call::Attach { l2, cluster } => (None, "AttachL2NetworkToCluster", {
            let (l2, cluster) = (text(l2), text(cluster));
            let cidr = "{172.30.0.0/24}";
            tags.push(format!("l2NetworkUuid::{l2}::clusterUuid::{cluster}::cidr::{cidr}"));
            json!({"l2NetworkUuid": l2, "clusterUuid": cluster})
        }),
        Call::Detach { l2, cluster } => (None, "DetachL2NetworkFromCluster", {
            json!({"l2NetworkUuid": text(l2), "clusterUuid": text(cluster)})
        }),
        Call::CreateL3 { id, l2 } => (Some(*id), "CreateL3Network", {
            let first = "FirstAvailableIpAllocatorStrategy";
            json!({"name": "l", "l2NetworkUuid": text(l2), "ipAllocatorStrategy": first})
        }),
        Call::DeleteL3 { id } => (None, "DeleteL3Network", uuid(id)),
        Call::SetL3State { id, enabled } => (None, "ChangeL3NetworkState", {
            json!({"uuid": text(id), "stateEvent": if *enabled { "enable" } else { "disable" }})
        }),
        Call::AddRange { id, l3, ips: (low, high) } => {
            (Some(*id), "AddIpRange", crate::harness::range(&text(l3), &ip(low), &ip(high)))
        }
        Call::DeleteRange { id } => (None, "DeleteIpRange", uuid(id)),
        Call::CreateVm { id, l3s, host, start } => (Some(*id), "CreateVmInstance", {
            let wanted = |(l3, last): &(Uuid, Option<u8>)| {
                last.map(|last| format!("staticIp::{}::{}", text(l3), ip(&last)))
            };
            tags.extend(l3s.iter().filter_map(wanted));
            let l3s: Vec<_> = l3s.iter().map(|(l3, _)| text(l3)).collect();
            let strategy = match start {
                Start::Instant => "InstantStart",
                Start::JustCreate => "JustCreate",
                Start::Stopped => "CreateStopped",
            };
            json!({
                "name": "v", "l3NetworkUuids": l3s, "defaultL3NetworkUuid": l3s[0],
                "hostUuid": host.as_ref().map(text), "strategy": strategy,
            })
        }),
        Call::StartVm { id, host } => (None, "StartVmInstance", {
            json!({"uuid": text(id), "hostUuid": host.as_ref().map(text)})
        }),
        Call::StopVm { id } => (None, "StopVmInstance", uuid(id)),
        Call::RebootVm { id } => (None, "RebootVmInstance", uuid(id)),
        Call::DestroyVm { id } => (None, "DestroyVmInstance", uuid(id)),
        Call::RecoverVm { id } => (None, "RecoverVmInstance", uuid(id)),
        Call::ExpungeVm { id } => (None, "ExpungeVmInstance", uuid(id)),
        Call::CreateNic { id, l3, ip: wanted } => (Some(*id), "CreateVmNic", {
            json!({"l3NetworkUuid": text(l3), "ip": wanted.as_ref().map(ip)})
        }),
        Call::DeleteNic { id } => (None, "DeleteVmNic", uuid(id)),
        Call::PlugNic { vm, nic } => (None, "AttachVmNicToVm", {
            json!({"vmInstanceUuid": text(vm), "vmNicUuid": text(nic)})
        }),
        Call::AttachL3 { vm, l3, ip: wanted } => (None, "AttachL3NetworkToVm", {
            let wanted = wanted.as_ref().map(ip);
            json!({"vmInstanceUuid": text(vm), "l3NetworkUuid": text(l3), "staticIp": wanted})
        }),
        Call::UnplugNic { nic } => (None, "DetachL3NetworkFromVm", json!({"vmNicUuid": text(nic)})),
        Call::SetIp { vm, l3, ip: wanted } => (None, "SetVmStaticIp", {
            json!({"vmInstanceUuid": text(vm), "l3NetworkUuid": text(l3), "ip": ip(wanted)})
        }),
        Call::SetQuota { name, value } => {
            (None, "UpdateQuota", { json!({"identityUuid": TENANT, "name": name, "value": value}) })
        }
        Call::Give { to, id } => (None, "ChangeResourceOwner", {
            let account = if *to == Who::Admin { Id::new(ADMIN) } else { TENANT };
            json!({"accountUuid": account, "resourceUuid": text(id)})
        }),
        Call::LetGo | Call::Connect { .. } => return None,
    };
    let request = crate::harness::request(message, params);
    Some(Request { resource_uuid: made, system_tags: tags, ..request })
}

fn rows<R: Resource>(snapshot: &Snapshot<Record>) -> Vec<R> {
    snapshot.list(R::KIND).map(|row| R::of(&row).unwrap().clone()).collect()
}

/// What the product shows, in the model's words.
pub(super) fn seen(cloud: &Cloud, snapshot: &Snapshot<Record>) -> View {
    let mut view = View::default();
    let mut row = |kind: Kind, id: Uuid, text: String| {
        let owner = snapshot.get(kind, id).unwrap().meta.owner;
        let is = |account: Id<Account>| owner == Some(account);
        let owner = is(Id::new(ADMIN)).then_some(Who::Admin).or(is(TENANT).then_some(Who::Tenant));
        view.rows.insert(id, (owner, text));
    };
    let attached = rows::<L2NetworkClusterRef>(snapshot);
    let vteps = rows::<Vtep>(snapshot);
    let (mut hosts, mut nics) = (BTreeMap::new(), BTreeMap::new());
    for zone in rows::<Zone>(snapshot) {
        row(Kind::Zone, zone.uuid.uuid(), "zone".to_owned());
    }
    for cluster in rows::<Cluster>(snapshot) {
        let of = attached.iter().filter(|it| it.cluster_uuid == cluster.uuid);
        let of: BTreeSet<Uuid> = of.map(|it| it.l2_network_uuid.uuid()).collect();
        let text = format!("cluster in {} with {of:?}", cluster.zone_uuid.uuid());
        row(Kind::Cluster, cluster.uuid.uuid(), text);
    }
    for host in rows::<Host>(snapshot) {
        let of = vteps.iter().filter(|vtep| vtep.host_uuid == host.uuid);
        let of: BTreeSet<Uuid> = of.map(|vtep| vtep.pool_uuid.uuid()).collect();
        let text = format!("host in {} with {of:?}", host.cluster_uuid.uuid());
        row(Kind::Host, host.uuid.uuid(), text);
    }
    for l2 in rows::<L2Network>(snapshot) {
        let of = l2.segment.pool().map(Id::uuid).zip(l2.segment.number());
        row(Kind::L2Network, l2.uuid.uuid(), format!("l2 in {} {of:?}", l2.zone_uuid.uuid()));
    }
    for it in rows::<VniRange>(snapshot) {
        let vnis = (it.l2_network_uuid.uuid(), (it.start_vni, it.end_vni));
        row(Kind::VniRange, it.uuid.uuid(), format!("vnis {vnis:?}"));
    }
    for l3 in rows::<L3Network>(snapshot) {
        let text =
            format!("l3 {:?}", (l3.l2_network_uuid.uuid(), l3.state == EnableState::Enabled));
        row(Kind::L3Network, l3.uuid.uuid(), text);
    }
    for it in rows::<IpRange>(snapshot) {
        let range = (it.l3_network_uuid.uuid(), (last(it.start_ip), last(it.end_ip)));
        row(Kind::IpRange, it.uuid.uuid(), format!("range {range:?}"));
    }
    for vm in rows::<VmInstance>(snapshot) {
        let place = vm.last_host_uuid.map(|last| Claim::Running(last, vm.uuid));
        let is_kept = place.is_some_and(|place| snapshot.holder(&place).is_some());
        let nowhere = HostStatus::default();
        let status = vm.host_uuid.map_or(&nowhere, |host| cloud.board.status(host));
        let state = vm.state(status, is_kept).as_str();
        let (host, cluster) = (vm.host_uuid.map(Id::uuid), vm.cluster_uuid.map(Id::uuid));
        row(Kind::VmInstance, vm.uuid.uuid(), format!("vm {state} at {host:?} of {cluster:?}"));
        hosts.extend(host.map(|host| (vm.uuid.uuid(), host)));
    }
    for nic in rows::<VmNic>(snapshot) {
        let (vm, l3) = (nic.vm_instance_uuid.map(Id::uuid), nic.l3_network_uuid.uuid());
        let (host, wanted) = (nic.host_uuid.map(Id::uuid), nic.static_ips.first());
        let wanted = wanted.map(|ip| last(*ip));
        row(
            Kind::VmNic,
            nic.uuid.uuid(),
            format!("nic {:?} {:?} {host:?} {wanted:?}", (vm, l3), nic.device_id),
        );
        nics.extend(vm.map(|vm| ((vm, nic.device_id), nic.uuid.uuid())));
    }
    let quotas = rows::<Quota>(snapshot).into_iter();
    view.quotas = quotas.map(|it| (it.name, u64::try_from(it.value).unwrap())).collect();
    (view.hosts, view.nics) = (hosts, nics);
    view.addresses = addresses(snapshot);
    view
}

/// Who has which address of which L2 network; nobody while it rests.
fn addresses(snapshot: &Snapshot<Record>) -> BTreeMap<(Uuid, u8), Option<Uuid>> {
    let of = |used: UsedIp| {
        let AnyId { kind, uuid } = used.used_by;
        let user = (kind != Kind::Release).then_some(uuid);
        ((used.l2_network_uuid.uuid(), last(used.ip)), user)
    };
    rows(snapshot).into_iter().map(of).collect()
}

fn last(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}
