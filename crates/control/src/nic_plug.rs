//! NICs plugged into instances and out of them, and moved between networks.

use std::net::IpAddr;

use model::{
    AnyId, Code, Error, Id, Record, Resource, Result,
    record::OWNER,
    resource::{
        cluster::Cluster,
        ip_range::IpRange,
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        l3_network::{L3Category, L3Network},
        nic_plug::{
            AttachL3NetworkToVm, AttachL3NetworkToVmNic, AttachVmNicToVm, ChangeVmNicNetwork,
            DetachL3NetworkFromVm, GetCandidateL3NetworksForChangeVmNicNetwork,
            GetVmAttachableL3Network,
        },
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
        vm_state::InstanceEvent,
        zone::{EnableState, Zone},
    },
    shown::LIST_MAX,
};
use serde_json::{Value, json};
use store::{Key, Read};

use crate::{
    Look, Reply, Txn, addresses, l2_network, l3_network, memberships, nic_device,
    operation::{Operation, job, look},
    port_forwarding, realiser, vip_guests, vm_instance, vm_life,
    vm_nic::{self, Plug, Wanted},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(attach),
        job(detach),
        job(attach_nic),
        job(change_network),
        job(attach_to_nic),
        look(attachable),
        look(candidates),
    ]
}

/// Most NICs of an instance, as in `CreateVmInstance`.
const NICS_MAX: usize = 16;

/// What NICs of instances that are namespaces are.
pub(crate) const DRIVER: &str = "veth";

pub(crate) fn attach(txn: &mut Txn<'_>, message: AttachL3NetworkToVm) -> Result<Reply> {
    check_driver(message.driver_type.as_deref())?;
    let (instance, l3) = (ready(txn, message.vm_instance_uuid)?, txn.get(message.l3_network_uuid)?);
    let nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    check_network(txn, &instance, &nics, &l3)?;
    let device_id = free_device(&instance, &nics)?;
    let mut addresses = vm_instance::static_ips(txn, &l3)?;
    addresses.extend(message.static_ip.filter(|ip| !addresses.contains(ip)));
    if addresses.len() == 2 && addresses[0].is_ipv4() == addresses[1].is_ipv4() {
        let rule = format!("{} and {} are of one family", addresses[0], addresses[1]);
        return Err(Error::field("staticIp", rule).hint("name one address of each family"));
    }
    let plug = Plug { instance: instance.uuid, host: instance.host_uuid, device_id };
    let mac = message.custom_mac.map_or_else(|| vm_instance::custom_mac(txn, &l3), |m| Ok(Some(m)));
    let wanted = Wanted { addresses, mac: mac?, plug: Some(plug) };
    txn.act_for(instance.uuid);
    let nic = vm_nic::insert(txn, Id::new(txn.random_uuid()), &l3, wanted).map_err(told)?;
    let hostname = instance.hostname.clone();
    if hostname.is_some() {
        let nic = txn.get(nic)?;
        txn.update(VmNic { hostname, ..nic })?;
    }
    keep_default(txn, instance)
}

pub(crate) fn detach(txn: &mut Txn<'_>, message: DetachL3NetworkFromVm) -> Result<Reply> {
    let (nic, instance) = plugged(txn, message.vm_nic_uuid)?;
    txn.delete(nic.uuid)?;
    keep_default(txn, instance)
}

pub(crate) fn attach_nic(txn: &mut Txn<'_>, message: AttachVmNicToVm) -> Result<Reply> {
    let (nic, instance) = (txn.get(message.vm_nic_uuid)?, ready(txn, message.vm_instance_uuid)?);
    if let Some((where_to, hint)) = vm_nic::plugged_into(&nic) {
        let text = format!("NIC {} is plugged into {where_to}", nic.uuid);
        return Err(Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint));
    }
    nic_device::let_go(txn, &nic, None)?;
    let nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    check_network(txn, &instance, &nics, &txn.get(nic.l3_network_uuid)?)?;
    port_forwarding::check_joins(txn, &nic, &nics)?;
    txn.fence(instance.uuid);
    txn.update(VmNic {
        vm_instance_uuid: Some(instance.uuid),
        host_uuid: instance.host_uuid,
        device_id: free_device(&instance, &nics)?,
        hostname: instance.hostname.clone(),
        plugged_device: None,
        ..nic
    })?;
    keep_default(txn, instance)
}

/// The NIC is another one for the data plane: what was decided for its connections in the old
/// network says nothing about the new one.
pub(crate) fn change_network(txn: &mut Txn<'_>, message: ChangeVmNicNetwork) -> Result<Reply> {
    let (nic, mut instance) = plugged(txn, message.vm_nic_uuid)?;
    let l3 = txn.get(message.dest_l3_network_uuid)?;
    let nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    check_network(txn, &instance, &nics, &l3).map_err(|error| match error.field.as_deref() {
        Some("l3NetworkUuid") => error.on_field("destL3NetworkUuid"),
        _ => error,
    })?;
    memberships::check_network(txn, &nic, &l3)?;
    vip_guests::check_unused(txn, nic.uuid)?;
    let was_default = is_default(&instance, &nic);
    let used = txn.used_by(AnyId::of(nic.uuid));
    txn.delete_all::<UsedIp>(used)?;
    let static_ips: Vec<IpAddr> = message.static_ip.into_iter().collect();
    txn.act_for(instance.uuid);
    let given =
        addresses::give(txn, &l3, AnyId::of(nic.uuid), &static_ips, nic.mac).map_err(told)?;
    let number = txn.number("nic")?;
    let mtu = l3_network::mtu_bytes(&*txn.tx, &l3);
    txn.update(VmNic {
        l3_network_uuid: l3.uuid,
        l2_network_uuid: l3.l2_network_uuid,
        used_ip_uuid: given.first().copied(),
        number,
        mtu,
        static_ips,
        more_l3_network_uuids: Vec::new(),
        // They were for the old network.
        allowed_prefixes: Vec::new(),
        ..nic
    })?;
    if was_default {
        instance.default_l3_network_uuid = Some(l3.uuid);
    }
    keep_default(txn, instance)
}

pub(crate) fn attach_to_nic(txn: &mut Txn<'_>, message: AttachL3NetworkToVmNic) -> Result<Reply> {
    let (nic, l3) = (txn.get(message.vm_nic_uuid)?, txn.get(message.l3_network_uuid)?);
    if let Some(instance) = nic.vm_instance_uuid {
        ready(txn, instance)?;
    }
    let refuse = |text: String, hint: &str| {
        let error = Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid");
        Err(error.hint(hint))
    };
    if l3.l2_network_uuid != nic.l2_network_uuid {
        let text = format!("NIC {} is on L2 network {}", nic.uuid, nic.l2_network_uuid);
        return refuse(text, "choose an L3 network on it; a NIC is on one L2 network");
    }
    let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid);
    if let Some(why) = unusable(&l3, ranges.len()) {
        return refuse(why, "QueryL3Network shows state, ipRanges and category");
    }
    let used: Vec<UsedIp> =
        txn.used_by(AnyId::of(nic.uuid)).into_iter().filter_map(|id| txn.find(id)).collect();
    let twice = ranges.iter().find(|range| used.iter().any(|u| u.ip_version == range.ip_version));
    if let Some(range) = twice {
        let text = format!("NIC {} has an IPv{} address already", nic.uuid, range.ip_version);
        return refuse(text, "a NIC has one address of each family");
    }
    let static_ips: Vec<IpAddr> = message.static_ip.into_iter().collect();
    txn.act_for(nic.uuid);
    let given =
        addresses::give(txn, &l3, AnyId::of(nic.uuid), &static_ips, nic.mac).map_err(told)?;
    let id = nic.uuid;
    txn.update(VmNic {
        used_ip_uuid: nic.used_ip_uuid.or(given.first().copied()),
        static_ips: [nic.static_ips.clone(), static_ips].concat(),
        more_l3_network_uuids: [nic.more_l3_network_uuids.clone(), vec![l3.uuid]].concat(),
        ..nic
    })?;
    Ok(Reply::shows(id))
}

/// The instance, if NICs can come and go.
pub(crate) fn ready(txn: &Txn<'_>, id: Id<VmInstance>) -> Result<VmInstance> {
    let instance = txn.get(id)?;
    vm_life::check(txn, &instance, InstanceEvent::Plug)?;
    Ok(instance)
}

/// A NIC that is plugged in, and where.
fn plugged(txn: &Txn<'_>, id: Id<VmNic>) -> Result<(VmNic, VmInstance)> {
    let nic = txn.get(id)?;
    let Some(instance) = nic.vm_instance_uuid else {
        let (text, hint) = match vm_nic::plugged_into(&nic) {
            Some((where_to, hint)) => {
                (format!("NIC {} is plugged into {where_to}", nic.uuid), hint)
            }
            None => (
                format!("NIC {} is plugged in nowhere", nic.uuid),
                "AttachVmNicToVm plugs it in, DeleteVmNic deletes it",
            ),
        };
        return Err(Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint));
    };
    Ok((nic, ready(txn, instance)?))
}

pub(crate) fn check_driver(driver: Option<&str>) -> Result<()> {
    match driver {
        None | Some(DRIVER) => Ok(()),
        Some(other) => {
            let rule = format!("\"{other}\" is none: an instance that is a namespace has {DRIVER}");
            Err(Error::field("driverType", rule).hint("leave it out"))
        }
    }
}

/// ZStack's rules for a network that an instance gets (`VmInstanceApiInterceptor`).
fn check_network(
    txn: &Txn<'_>,
    instance: &VmInstance,
    nics: &[VmNic],
    l3: &L3Network,
) -> Result<()> {
    let refuse = |text: String, hint: String| {
        let error = Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid");
        Err(error.hint(hint))
    };
    if let Some(nic) = nics.iter().find(|nic| nic.is_on(l3.uuid)) {
        let text = format!("instance {} is on L3 network {} already", instance.uuid, l3.uuid);
        return refuse(text, format!("by NIC {}", nic.uuid));
    }
    if let Some(why) = unusable(l3, txn.child_ids(IpRange::L3_NETWORK, l3.uuid).len()) {
        return refuse(why, "QueryL3Network shows state, ipRanges and category".into());
    }
    if l3.zone_uuid != instance.zone_uuid {
        let text = format!("L3 network {} is in zone {}", l3.uuid, l3.zone_uuid);
        return refuse(text, format!("the instance is in zone {}", instance.zone_uuid));
    }
    let l2 = txn.get(l3.l2_network_uuid)?;
    let is_there = |cluster: Id<Cluster>| {
        let attached = txn.children(L2NetworkClusterRef::L2_NETWORK, l2.attached());
        attached.iter().any(|there| there.cluster_uuid == cluster)
    };
    let why = match (instance.host_uuid, instance.cluster_uuid) {
        (Some(host), _) => {
            let host = txn.get(host)?;
            l2_network::why_not(txn, &host, &l2).map(|why| format!("host {} {why}", host.name))
        }
        (None, Some(cluster)) if !is_there(cluster) => {
            Some(format!("the instance's cluster {cluster} does not have it"))
        }
        (None, None) if txn.count(L2NetworkClusterRef::L2_NETWORK, l2.attached()) == 0 => {
            Some("no cluster has it".to_owned())
        }
        (None, _) => None,
    };
    match why {
        None => match instance.host_uuid {
            Some(host) => realiser::first_nic(txn, host, l2.uuid),
            None => Ok(()),
        },
        Some(why) => {
            let text = format!("L2 network {} of L3 network {}: {why}", l2.uuid, l3.uuid);
            refuse(text, "AttachL2NetworkToCluster brings it there".into())
        }
    }
}

/// Why no instance of a user gets a NIC on a network.
fn unusable(l3: &L3Network, ranges: usize) -> Option<String> {
    let id = l3.uuid;
    if l3.state == EnableState::Disabled {
        return Some(format!("L3 network {id} is disabled"));
    }
    if l3.system || l3.category == L3Category::System {
        return Some(format!("L3 network {id} is the platform's own"));
    }
    (ranges == 0).then(|| format!("L3 network {id} has no IP range: AddIpRange adds one"))
}

/// The lowest place for a NIC that is free.
fn free_device(instance: &VmInstance, nics: &[VmNic]) -> Result<u32> {
    if nics.len() >= NICS_MAX {
        let text = format!("instance {} has {NICS_MAX} NICs, which is the most", instance.uuid);
        return Err(Error::new(Code::OperationFailed, text).hint("detach one first"));
    }
    let is_free = |at: &u32| nics.iter().all(|nic| nic.device_id != *at);
    Ok((0..).find(is_free).unwrap_or_default())
}

/// Makes sure that the default route is by one of the instance's networks, if it has any.
fn keep_default(txn: &mut Txn<'_>, mut instance: VmInstance) -> Result<Reply> {
    let mut nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    nics.sort_by_key(|nic| nic.device_id);
    if !nics.iter().any(|nic| is_default(&instance, nic)) {
        instance.default_l3_network_uuid = nics.first().map(|nic| nic.l3_network_uuid);
    }
    let id = instance.uuid;
    txn.update(instance)?;
    Ok(Reply::shows(id))
}

/// Whether an instance's default route is by a NIC.
fn is_default(instance: &VmInstance, nic: &VmNic) -> bool {
    instance.default_l3_network_uuid.is_some_and(|default| nic.is_on(default))
}

/// A refusal, with the fields that these messages have.
fn told(error: Error) -> Error {
    match (error.code, error.field.as_deref()) {
        // The wanted address is somebody's: ZStack takes that for a wrong state.
        (Code::IpExhausted, Some("ip")) => {
            Error { code: Code::OperationFailed, ..error }.on_field("staticIp")
        }
        (_, Some("ip")) => error.on_field("staticIp"),
        (_, Some("mac")) => error.on_field("customMac"),
        _ => error,
    }
}

fn attachable(look: &Look<'_>, message: GetVmAttachableL3Network) -> Result<Value> {
    Ok(networks_of(look, &look.get(message.vm_instance_uuid)?))
}

fn candidates(
    look: &Look<'_>,
    message: GetCandidateL3NetworksForChangeVmNicNetwork,
) -> Result<Value> {
    let nic = look.get(message.vm_nic_uuid)?;
    match nic.vm_instance_uuid {
        Some(instance) => Ok(networks_of(look, &look.get(instance)?)),
        None => Ok(json!({"inventories": []})),
    }
}

/// The networks that an instance can get, as far as the caller sees them.
fn networks_of(look: &Look<'_>, instance: &VmInstance) -> Value {
    let nics = look.child_ids(VmNic::VM_INSTANCE, instance.uuid);
    let taken: Vec<Id<L3Network>> = nics
        .filter_map(|id| look.snapshot().get(VmNic::KIND, id.uuid()))
        .filter_map(|row| VmNic::of(&row).map(|nic| nic.l3_network_uuid))
        .collect();
    networks(look, instance.zone_uuid, instance.cluster_uuid, &taken)
}

/// The networks of a zone that instances can get, in a cluster or in any, but for those that are
/// taken; as far as the caller sees them.
pub(crate) fn networks(
    look: &Look<'_>,
    zone: Id<Zone>,
    cluster: Option<Id<Cluster>>,
    taken: &[Id<L3Network>],
) -> Value {
    let snapshot = look.snapshot();
    let clusters = |l2: &L2Network| {
        look.child_ids(L2NetworkClusterRef::L2_NETWORK, l2.attached())
            .filter_map(|id| snapshot.get(L2NetworkClusterRef::KIND, id.uuid()))
            .filter_map(|row| L2NetworkClusterRef::of(&row).map(|there| there.cluster_uuid))
            .any(|there| cluster.is_none_or(|wanted| wanted == there))
    };
    let fits = |row: &Record| {
        let Some(l3) = L3Network::of(row) else { return false };
        let ranges = look.count(IpRange::L3_NETWORK, l3.uuid);
        let l2 = snapshot.get(L2Network::KIND, l3.l2_network_uuid.uuid());
        l3.zone_uuid == zone
            && !taken.contains(&l3.uuid)
            && unusable(l3, usize::from(ranges > 0)).is_none()
            && l2.as_deref().and_then(L2Network::of).is_some_and(&clusters)
    };
    // Of an account that sees its own only, its own are looked at.
    let (field, key) = match (look.caller().is_admin(), look.caller().account()) {
        (false, Some(account)) => (OWNER, account.uuid()),
        _ => ("zoneUuid", zone.uuid()),
    };
    let key = Key::Uuid(key);
    let ids = snapshot.find(L3Network::KIND, field, &key);
    let rows = ids.filter_map(|id| look.visible(L3Network::KIND, id));
    let shown = rows.filter(|row| fits(row)).map(|row| look.show(&row));
    json!({"inventories": shown.take(LIST_MAX).collect::<Vec<_>>()})
}
