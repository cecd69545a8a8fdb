//! VM instances: where they run, and the NICs they get.

use std::net::IpAddr;

use model::{
    Code, Error, Id, Kind, Mac, Result,
    resource::{
        host::Host,
        l2_vxlan_pool::L2VxlanNetworkPool,
        l3_network::L3Network,
        vm_instance::{CreateVmInstance, DestroyVmInstance, InstanceDriver, VmInstance},
        vm_nic::VmNic,
        zone::EnableState,
    },
};

use crate::{
    Reply, Txn,
    vm_nic::{self, Plug, Wanted},
    vtep,
};

/// Unfit hosts that a refusal names.
const REASONS_MAX: usize = 8;

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateVmInstance) -> Result<Reply> {
    let l3s = message.l3_network_uuids.iter().map(|id| txn.get(*id)).collect::<Result<Vec<_>>>()?;
    let default_l3 = default_l3(&message, &l3s)?;
    let host = place(txn, &message, &l3s)?;
    let id: Id<VmInstance> = txn.new_id();
    txn.insert(VmInstance {
        uuid: id,
        name: message.name,
        description: message.description,
        zone_uuid: host.zone_uuid,
        cluster_uuid: host.cluster_uuid,
        host_uuid: host.uuid,
        default_l3_network_uuid: default_l3,
        instance_type: "UserVm".into(),
        hypervisor_type: host.hypervisor_type,
        driver: InstanceDriver::Netns,
        create_date: txn.now(),
        last_op_date: txn.now(),
    })?;
    for (device_id, l3) in (0..).zip(&l3s) {
        let wanted = Wanted {
            addresses: static_ips(txn, l3)?,
            mac: custom_mac(txn, l3)?,
            plug: Some(Plug { instance: id, host: host.uuid, device_id }),
        };
        let nic = Id::new(txn.random_uuid());
        vm_nic::insert(txn, nic, l3, wanted).map_err(in_instance)?;
    }
    Ok(Reply::shows(id).once_acked_by(host.uuid))
}

/// The instance and its NICs go at once; addresses rest until the hosts have let go of them.
pub(crate) fn destroy(txn: &mut Txn<'_>, message: DestroyVmInstance) -> Result<Reply> {
    let instance = txn.get(message.uuid)?;
    let nics = txn.children::<VmNic>("vmInstanceUuid", instance.uuid.uuid());
    for nic in &nics {
        vm_nic::remove(txn, nic)?;
    }
    txn.remove(instance.uuid);
    Ok(Reply::nothing().once_acked_by(instance.host_uuid))
}

fn default_l3(message: &CreateVmInstance, l3s: &[L3Network]) -> Result<Id<L3Network>> {
    let given = &message.l3_network_uuids;
    if (1..given.len()).any(|i| given[..i].contains(&given[i])) {
        let error = Error::field("l3NetworkUuids", "names a network twice");
        return Err(error.hint("one NIC per L3 network and instance"));
    }
    match (message.default_l3_network_uuid, l3s) {
        (Some(id), _) if given.contains(&id) => Ok(id),
        (Some(id), _) => {
            let error = Error::field("defaultL3NetworkUuid", format!("{id} is not among the L3s"));
            Err(error.hint("name one of l3NetworkUuids"))
        }
        (None, [only]) => Ok(only.uuid),
        (None, _) => {
            let error = Error::field("defaultL3NetworkUuid", "is required with several L3s");
            Err(error.hint("name the one that carries the default route"))
        }
    }
}

/// Chooses the host: inside what the message asks for, with a tunnel end in every network's pool,
/// connected ones first, then the one with the fewest instances.
fn place(txn: &Txn<'_>, message: &CreateVmInstance, l3s: &[L3Network]) -> Result<Host> {
    let mut pools = Vec::new();
    for l3 in l3s {
        if l3.zone_uuid != l3s[0].zone_uuid {
            let error = Error::field("l3NetworkUuids", "are in different zones");
            return Err(error.hint("choose networks of one zone"));
        }
        pools.push(txn.get(l3.l2_network_uuid)?.pool_uuid);
    }
    let zone = l3s[0].zone_uuid;
    let hosts = txn.children::<Host>("zoneUuid", zone.uuid());
    let wanted = hosts.into_iter().filter(|host| {
        message.host_uuid.is_none_or(|id| id == host.uuid)
            && message.cluster_uuid.is_none_or(|id| id == host.cluster_uuid)
            && message.zone_uuid.is_none_or(|id| id == host.zone_uuid)
    });
    let (fit, unfit): (Vec<_>, Vec<_>) = wanted
        .map(|host| (why_not(txn, &host, &pools), host))
        .partition(|(obstacle, _)| obstacle.is_none());
    let load = |host: &Host| {
        let instances = txn.count(Kind::VmInstance, "hostUuid", host.uuid.uuid());
        (!txn.status(host.uuid).connected, instances)
    };
    fit.into_iter().map(|(_, host)| host).min_by_key(load).ok_or_else(|| {
        let reasons: Vec<String> = unfit
            .into_iter()
            .take(REASONS_MAX)
            .filter_map(|(why, host)| Some(format!("{}: {}", host.name, why?)))
            .collect();
        let hint = match reasons.is_empty() {
            true => format!("no host of zone {zone} matches hostUuid, clusterUuid and zoneUuid"),
            false => reasons.join("; "),
        };
        Error::new(Code::NoHost, "no host can run the instance").hint(hint)
    })
}

/// What keeps a host from running an instance on these pools' networks, and the fix.
fn why_not(txn: &Txn<'_>, host: &Host, pools: &[Id<L2VxlanNetworkPool>]) -> Option<String> {
    if host.state == EnableState::Disabled {
        return Some("is disabled".into());
    }
    let without = pools.iter().find(|pool| vtep::of_host(txn, host.uuid, **pool).is_none())?;
    Some(format!(
        "has no VTEP in pool {without}: AttachL2NetworkToCluster with a CIDR that contains \
         {}, or CreateVxlanVtep",
        host.management_ip
    ))
}

/// The addresses that `staticIp` tags ask for, one of each family at most; IPv6 is written with
/// `--` for `:`.
fn static_ips(txn: &Txn<'_>, l3: &L3Network) -> Result<Vec<IpAddr>> {
    let wrong = |text: String| {
        Error::field("systemTags", text)
            .hint("the form is staticIp::<l3 uuid>::<ip>, IPv6 with -- for :")
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for text in txn.tags(&format!("staticIp::{}::", l3.uuid)) {
        let ip: IpAddr = text
            .replace("--", ":")
            .parse()
            .map_err(|_| wrong(format!("\"{text}\" is not an address")))?;
        if let Some(other) = found.iter().find(|other| other.is_ipv4() == ip.is_ipv4()) {
            let text = format!("{other} and {ip} are both for L3 network {}", l3.uuid);
            return Err(wrong(text).hint("one address of each family and network"));
        }
        found.push(ip);
    }
    Ok(found)
}

fn custom_mac(txn: &Txn<'_>, l3: &L3Network) -> Result<Option<Mac>> {
    let wrong = |text: String| {
        Error::field("systemTags", text).hint("the form is customMac::<l3 uuid>::<mac>, once")
    };
    match txn.tags(&format!("customMac::{}::", l3.uuid))[..] {
        [] => Ok(None),
        [text] => {
            let mac = text.parse().map_err(|_| wrong(format!("\"{text}\" is not a MAC address")));
            mac.map(Some)
        }
        _ => Err(wrong(format!("give L3 network {} two MAC addresses", l3.uuid))),
    }
}

/// A refusal of a NIC, told with the fields that the instance's message has.
fn in_instance(error: Error) -> Error {
    match error.field.as_deref() {
        Some("ip") => error.on_field("systemTags"),
        Some("l3NetworkUuid") => error.on_field("l3NetworkUuids"),
        _ => error,
    }
}
