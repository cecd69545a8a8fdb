//! VM NICs: made, bound to a host, released.

use std::net::IpAddr;

use model::{
    AnyId, Code, Error, Id, Mac, Result,
    resource::{
        host::Host,
        l3_network::L3Network,
        vm_instance::VmInstance,
        vm_nic::{CreateVmNic, DeleteVmNic, VmNic},
        zone::EnableState,
    },
};

use crate::{
    Reply, Txn, addresses, l3_network, memberships,
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(delete)]
}

/// What a new NIC shall be like.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) plug: Option<Plug>,
}

/// Where a new NIC is plugged in.
#[derive(Clone, Copy)]
pub(crate) struct Plug {
    pub(crate) instance: Id<VmInstance>,
    /// None while the instance is on no host.
    pub(crate) host: Option<Id<Host>>,
    pub(crate) device_id: u32,
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateVmNic) -> Result<Reply> {
    let l3 = txn.get(message.l3_network_uuid)?;
    let id = txn.new_id();
    let wanted = Wanted { addresses: message.ip.into_iter().collect(), ..Wanted::default() };
    insert(txn, id, &l3, wanted).map(Reply::shows)
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteVmNic) -> Result<Reply> {
    let nic = txn.get(message.uuid)?;
    if let Some((where_to, hint)) = plugged_into(&nic) {
        let text = format!("NIC {} is plugged into {where_to}", nic.uuid);
        return Err(Error::new(Code::InUse, text).hint(hint));
    }
    txn.delete(nic.uuid)?;
    Ok(Reply::nothing())
}

/// Where a NIC is plugged in, and what takes it out.
pub(crate) fn plugged_into(nic: &VmNic) -> Option<(String, &'static str)> {
    if let Some(instance) = nic.vm_instance_uuid {
        let hint = "DetachL3NetworkFromVm takes it out, and deletes it";
        return Some((format!("instance {instance}"), hint));
    }
    let (host, device) = nic.plugged().or_else(|| nic.pending())?;
    Some((format!("device {device} of host {host}"), "UnplugVmNic takes it out"))
}

/// Makes a NIC with a MAC and addresses of its own.
pub(crate) fn insert(
    txn: &mut Txn<'_>,
    id: Id<VmNic>,
    l3: &L3Network,
    wanted: Wanted,
) -> Result<Id<VmNic>> {
    if l3.state == EnableState::Disabled {
        let text = format!("L3 network {} is disabled", l3.uuid);
        return Err(Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid"));
    }
    let number = txn.number("nic")?;
    let mac = match wanted.mac {
        Some(mac) => custom_mac(mac, number)?,
        None => mac_of(number),
    };
    let mtu = l3_network::mtu_bytes(&*txn.tx, l3);
    let addresses = addresses::give(txn, l3, AnyId::of(id), &wanted.addresses, mac)?;
    let id = txn.insert(VmNic {
        uuid: id,
        vm_instance_uuid: wanted.plug.map(|plug| plug.instance),
        l3_network_uuid: l3.uuid,
        l2_network_uuid: l3.l2_network_uuid,
        host_uuid: wanted.plug.and_then(|plug| plug.host),
        plugged_device: None,
        plugged_host_uuid: None,
        pending_host_uuid: None,
        move_ips: Vec::new(),
        pending_device: None,
        move_number: 0,
        left_host_uuid: None,
        number,
        mac,
        used_ip_uuid: addresses.first().copied(),
        static_ips: wanted.addresses,
        more_l3_network_uuids: Vec::new(),
        hostname: None,
        mtu,
        device_id: wanted.plug.map_or(0, |plug| plug.device_id),
        state: EnableState::Enabled,
        allowed_prefixes: Vec::new(),
    })?;
    memberships::born(txn, id, l3)?;
    Ok(id)
}

/// Netloom's own MACs: locally administered (second bit of the first byte), with ZStack's first
/// byte.
const MAC_START: [u8; 2] = [0xfa, 0x4c];

/// A MAC of netloom's own: the NIC's number, which never repeats.
fn mac_of(number: u32) -> Mac {
    let ([a, b], [c, d, e, f]) = (MAC_START, number.to_be_bytes());
    Mac([a, b, c, d, e, f])
}

/// Checks a MAC that the caller chose while `number` was drawn: it is a machine's, and none that a
/// later NIC will draw.
pub(crate) fn custom_mac(mac: Mac, number: u32) -> Result<Mac> {
    if !mac.is_machines() {
        let error = Error::field("mac", format!("{mac} is no machine's address"));
        let services = Mac::SERVICES;
        return Err(error.hint(format!(
            "the lowest bit of the first byte must be 0 (unicast), and {services} is that of the hosts"
        )));
    }
    let Mac([a, b, rest @ ..]) = mac;
    if [a, b] == MAC_START && u32::from_be_bytes(rest) > number {
        let error = Error::field("mac", format!("{mac} is reserved for a later NIC"));
        return Err(error.hint("fa:4c is the start of netloom's own MACs: choose another one"));
    }
    Ok(mac)
}
