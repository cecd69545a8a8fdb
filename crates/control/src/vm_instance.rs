//! VM instances: how they are made, with which NICs, and their names. Where they run is decided in
//! [`crate::placement`], when in [`crate::vm_life`].

use std::net::IpAddr;

use model::{
    Code, Error, Id, Mac, Result,
    resource::{
        cluster::HypervisorType,
        host::Host,
        image::{MediaType, RootFormat},
        l3_network::L3Network,
        vm_instance::{
            CreateVmInstance, InstanceDriver, InstanceType, Phase, StartStrategy, UpdateVmInstance,
            VmInstance,
        },
        vm_nic::VmNic,
        zone::{EnableState, Zone},
    },
};

use crate::{
    Reply, Txn, guest_data,
    nic_params::{self, Asked},
    nic_settings,
    operation::{Operation, job},
    placement::{self, Demand},
    realiser,
    vm_nic::{self, Plug, Wanted},
};

/// Least memory of a machine, in bytes: with less, its firmware finds nothing to start.
const MACHINE_MEMORY_MIN: u64 = 16 << 20;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateVmInstance) -> Result<Reply> {
    let l3s = message.l3_network_uuids.iter().map(|id| txn.get(*id)).collect::<Result<Vec<_>>>()?;
    let default_l3 = default_l3(&message, &l3s)?;
    let zone = zone(&message, &l3s)?;
    let host = match message.strategy.unwrap_or(StartStrategy::Instant) {
        StartStrategy::Instant => Some(host(txn, &message, &l3s, zone)?),
        StartStrategy::JustCreate | StartStrategy::Stopped => None,
    };
    let phase = match message.strategy {
        Some(StartStrategy::JustCreate) => Phase::Created,
        None | Some(StartStrategy::Instant | StartStrategy::Stopped) => Phase::Live,
    };
    let cluster = message.cluster_uuid.map(|cluster| txn.get(cluster)).transpose()?;
    let host_uuid = host.as_ref().map(|host| host.uuid);
    let (hostname, size) = (hostname(txn)?, size(txn, &message)?);
    let driver = message.driver.unwrap_or(InstanceDriver::Netns);
    let root = match driver {
        InstanceDriver::Netns => None,
        InstanceDriver::Qemu => Some(root(txn, &message, &size)?),
    };
    let (image_path, image_format) = root.unzip();
    let asked = nic_params::of_networks(txn, &l3s, message.vm_nic_params.as_deref())?;
    let id: Id<VmInstance> = txn.new_id();
    txn.insert(VmInstance {
        uuid: id,
        name: message.name,
        description: message.description,
        zone_uuid: zone,
        cluster_uuid: host.as_ref().map(|host| host.cluster_uuid).or(message.cluster_uuid),
        host_uuid,
        last_host_uuid: host_uuid,
        pending_host_uuid: None,
        move_number: 0,
        move_ips: Vec::new(),
        move_jobs: Vec::new(),
        default_l3_network_uuid: Some(default_l3),
        instance_type: InstanceType::User,
        hypervisor_type: host
            .map(|host| host.hypervisor_type)
            .or(cluster.map(|cluster| cluster.hypervisor_type))
            .unwrap_or(HypervisorType::Kvm),
        instance_offering_uuid: message.instance_offering_uuid,
        image_uuid: message.image_uuid,
        cpu_num: size.cpu_num,
        memory_size: size.memory_size,
        reserved_memory_size: size.reserved_memory_size,
        driver,
        image_path,
        image_format,
        is_paused: false,
        hostname: hostname.clone(),
        phase,
        generation: 0,
        destroyed: None,
    })?;
    guest_data::of_tags(txn, id)?;
    for (device_id, (l3, asked)) in (0..).zip(l3s.iter().zip(asked)) {
        let plug = Plug { instance: id, host: host_uuid, device_id };
        nic(txn, l3, plug, (asked, hostname.as_ref()))?;
    }
    Ok(Reply::shows(id))
}

/// Makes one of its NICs.
fn nic(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    plug: Plug,
    (asked, hostname): (Asked, Option<&String>),
) -> Result<()> {
    let Asked { addresses, mac, state, field } = asked;
    let in_instance = |error: Error| match error.field.as_deref() {
        Some("ip" | "mac") => error.on_field(field),
        Some("hostname") => error.on_field("systemTags"),
        Some("l3NetworkUuid") => error.on_field("l3NetworkUuids"),
        _ => error,
    };
    let id = Id::new(txn.random_uuid());
    let wanted = Wanted { addresses, mac, plug: Some(plug) };
    vm_nic::insert(txn, id, l3, wanted).map_err(in_instance)?;
    if hostname.is_some() || state == EnableState::Disabled {
        let nic = txn.get(id)?;
        let changed = VmNic { hostname: hostname.cloned(), state, ..nic };
        txn.update(changed).map_err(in_instance)?;
    }
    Ok(())
}

/// How large an instance is to be.
struct Size {
    cpu_num: Option<u32>,
    memory_size: Option<u64>,
    reserved_memory_size: Option<u64>,
}

/// What the message says, else what the offering says.
fn size(txn: &Txn<'_>, message: &CreateVmInstance) -> Result<Size> {
    let disabled = |field: &str, what: String| {
        let error = Error::new(Code::OperationFailed, format!("{what} is disabled"));
        error.on_field(field).hint("choose another one, or enable it")
    };
    if let Some(id) = message.image_uuid {
        let image = txn.get(id)?;
        if image.state == EnableState::Disabled {
            return Err(disabled("imageUuid", format!("image {id}")));
        }
        if image.media_type == MediaType::Data {
            let error = Error::field("imageUuid", format!("{id} is for further disks"));
            return Err(error.hint("choose an image whose mediaType is RootVolumeTemplate or ISO"));
        }
    }
    let offering = message.instance_offering_uuid.map(|id| txn.get(id)).transpose()?;
    if let Some(it) = offering.as_ref().filter(|it| it.state == EnableState::Disabled) {
        return Err(disabled("instanceOfferingUuid", format!("offering {}", it.uuid)));
    }
    let of = offering.as_ref();
    let reserved = message.reserved_memory_size.or(of.map(|it| it.reserved_memory_size));
    let memory_size = message.memory_size.or(of.map(|it| it.memory_size));
    check_reserved(memory_size, reserved)?;
    let cpu_num = message.cpu_num.or(of.map(|it| it.cpu_num));
    Ok(Size { cpu_num, memory_size, reserved_memory_size: reserved })
}

/// What a machine starts from; it also needs memory.
fn root(txn: &Txn<'_>, message: &CreateVmInstance, size: &Size) -> Result<(String, RootFormat)> {
    let needs = |field: &str, rule: String| {
        let hint = "driver qemu needs an image with url=file:///<the way below the host's directory \
                    images>, format=qcow2, raw or kernel, and memory, also by an offering";
        Error::field(field, rule).hint(hint)
    };
    let image = message.image_uuid.ok_or_else(|| needs("imageUuid", "is missing".into()))?;
    let image = txn.get(image)?;
    if image.media_type != MediaType::Root {
        return Err(needs("imageUuid", format!("{} is no RootVolumeTemplate", image.uuid)));
    }
    let root = image.root();
    let root = root.map_err(|rule| needs("imageUuid", format!("{}: {rule}", image.uuid)))?;
    match size.memory_size {
        Some(bytes) if bytes >= MACHINE_MEMORY_MIN => Ok(root),
        Some(bytes) => {
            Err(needs("memorySize", format!("{bytes} is less than {MACHINE_MEMORY_MIN}")))
        }
        None => Err(needs("memorySize", "is missing".into())),
    }
}

fn check_reserved(memory_size: Option<u64>, reserved: Option<u64>) -> Result<()> {
    match (memory_size, reserved) {
        (Some(all), Some(part)) if part > all => {
            let error = Error::field("reservedMemorySize", format!("{part} is more than {all}"));
            Err(error.hint("it is a part of memorySize"))
        }
        _ => Ok(()),
    }
}

/// The zone of its networks, which must be one.
fn zone(message: &CreateVmInstance, l3s: &[L3Network]) -> Result<Id<Zone>> {
    let wrong = |field: &str, rule: String, hint: &str| Err(Error::field(field, rule).hint(hint));
    let Some(first) = l3s.first() else {
        return wrong("l3NetworkUuids", "names no network".into(), "name one or more");
    };
    if l3s.iter().any(|l3| l3.zone_uuid != first.zone_uuid) {
        let rule = "are in different zones".to_owned();
        return wrong("l3NetworkUuids", rule, "choose networks of one zone");
    }
    match message.zone_uuid {
        Some(zone) if zone != first.zone_uuid => {
            let rule = format!("the networks are in zone {}", first.zone_uuid);
            wrong("zoneUuid", rule, "choose networks of this zone")
        }
        _ => Ok(first.zone_uuid),
    }
}

fn host(
    txn: &Txn<'_>,
    message: &CreateVmInstance,
    l3s: &[L3Network],
    zone: Id<Zone>,
) -> Result<Host> {
    let l2s = l3s.iter().map(|l3| txn.get(l3.l2_network_uuid)).collect::<Result<_>>()?;
    let (cluster, host) = (message.cluster_uuid, message.host_uuid);
    let driver = message.driver.unwrap_or(InstanceDriver::Netns);
    let demand = Demand { zone, cluster, host, last: None, not: None, l2s, driver };
    let host = placement::choose(txn, &demand)?;
    realiser::first_nics(txn, &host, &demand.l2s)?;
    Ok(host)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateVmInstance) -> Result<Reply> {
    let mut instance = txn.get(message.uuid)?;
    if let Some(l3) = message.default_l3_network_uuid {
        let nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
        if nics.iter().all(|nic| nic.l3_network_uuid != l3) {
            let error = Error::field("defaultL3NetworkUuid", format!("no NIC is on {l3}"));
            return Err(error.hint("name the L3 network of one of its NICs"));
        }
        instance.default_l3_network_uuid = Some(l3);
    }
    instance.name = message.name.unwrap_or(instance.name);
    message.description.apply(&mut instance.description);
    instance.cpu_num = message.cpu_num.or(instance.cpu_num);
    instance.memory_size = message.memory_size.or(instance.memory_size);
    instance.reserved_memory_size = message.reserved_memory_size.or(instance.reserved_memory_size);
    check_reserved(instance.memory_size, instance.reserved_memory_size)?;
    txn.update(instance)?;
    Ok(Reply::shows(message.uuid))
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

/// The addresses that `staticIp` tags ask for, one of each family at most; IPv6 is written with
/// `--` for `:`.
pub(crate) fn static_ips(txn: &Txn<'_>, l3: &L3Network) -> Result<Vec<IpAddr>> {
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

fn hostname(txn: &Txn<'_>) -> Result<Option<String>> {
    match txn.tags("hostname::")[..] {
        [] => Ok(None),
        [name] => {
            nic_settings::check_hostname("systemTags", name)?;
            Ok(Some(name.to_owned()))
        }
        _ => {
            let error = Error::field("systemTags", "give the instance two hostnames");
            Err(error.hint("the form is hostname::<name>, once"))
        }
    }
}

pub(crate) fn custom_mac(txn: &Txn<'_>, l3: &L3Network) -> Result<Option<Mac>> {
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
