//! What NICs are like: their addresses, MACs and states; and the names of instances on networks.

use std::net::IpAddr;

use model::{
    AnyId, Code, Error, Id, Result,
    resource::{
        l3_network::L3Network,
        nic_settings::{
            ChangeVmNicState, DeleteVmHostname, DeleteVmStaticIp, GetVmHostname, SetVmHostname,
            SetVmStaticIp, UpdateVmNicDriver, UpdateVmNicMac,
        },
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
        zone::{EnableEvent, EnableState},
    },
};
use serde_json::{Value, json};

use crate::{
    Look, Reply, Txn, addresses, nic_plug,
    operation::{Operation, job, look},
    vip_guests, vm_nic,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(change_state),
        job(update_driver),
        job(update_mac),
        job(set_static_ip),
        job(delete_static_ip),
        job(set_hostname),
        job(delete_hostname),
        look(hostname),
    ]
}

pub(crate) fn change_state(txn: &mut Txn<'_>, message: ChangeVmNicState) -> Result<Reply> {
    let mut nic = txn.get(message.vm_nic_uuid)?;
    nic.state = match (message.state, nic.plugged()) {
        (EnableEvent::Enable, _) => EnableState::Enabled,
        (EnableEvent::Disable, None) => EnableState::Disabled,
        // Its programs would be taken off a device that goes on to send.
        (EnableEvent::Disable, Some((host, device))) => {
            let text = format!("NIC {} is plugged into device {device} of host {host}", nic.uuid);
            let hint = "UnplugVmNic takes it out; the device's owner can put the device down";
            return Err(Error::new(Code::OperationFailed, text).on_field("state").hint(hint));
        }
    };
    txn.update(nic)?;
    Ok(Reply::shows(message.vm_nic_uuid))
}

pub(crate) fn update_driver(txn: &mut Txn<'_>, message: UpdateVmNicDriver) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    if nic.vm_instance_uuid != Some(message.vm_instance_uuid) {
        let rule = format!("NIC {} is not of instance {}", nic.uuid, message.vm_instance_uuid);
        return Err(Error::field("vmNicUuid", rule).hint("name one of its NICs"));
    }
    nic_plug::check_driver(Some(&message.driver_type))?;
    Ok(Reply::shows(nic.uuid))
}

pub(crate) fn update_mac(txn: &mut Txn<'_>, message: UpdateVmNicMac) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    if let Some(instance) = nic.vm_instance_uuid {
        nic_plug::ready(txn, instance)?;
    }
    let mac = vm_nic::custom_mac(message.mac, txn.number("nic")?)?;
    // Where instances make their own addresses, this one makes another from now on.
    for (before, ip) in addresses::made_of_mac(txn, AnyId::of(nic.uuid), mac) {
        let l3 = txn.get(before.l3_network_uuid)?;
        replace_address(txn, nic.uuid, &l3, (Some(&before), ip))?;
    }
    let nic = txn.get(nic.uuid)?;
    txn.update(VmNic { mac, ..nic })?;
    Ok(Reply::shows(message.vm_nic_uuid))
}

pub(crate) fn set_static_ip(txn: &mut Txn<'_>, message: SetVmStaticIp) -> Result<Reply> {
    let instance = nic_plug::ready(txn, message.vm_instance_uuid)?;
    let l3 = txn.get(message.l3_network_uuid)?;
    let nic = nic_on(txn, instance.uuid, l3.uuid)?;
    if let Some(ip) = message.ip6.filter(IpAddr::is_ipv4) {
        return Err(Error::field("ip6", format!("{ip} is IPv4")).hint("ip takes both families"));
    }
    let wanted: Vec<IpAddr> = [message.ip, message.ip6].into_iter().flatten().collect();
    match wanted[..] {
        [] => {
            let error = Error::field("ip", "is missing, and so is ip6");
            return Err(error.hint("name an address in a range of the L3 network"));
        }
        [one, other] if one.is_ipv4() == other.is_ipv4() => {
            let rule = format!("{one} and {other} are of one family");
            return Err(Error::field("ip6", rule).hint("name one address of each family"));
        }
        _ => {}
    }
    txn.act_for(instance.uuid);
    for ip in wanted {
        set_address(txn, nic.uuid, &l3, ip)?;
    }
    check_subnet(txn, nic.uuid, &message)?;
    Ok(Reply::shows(instance.uuid))
}

/// A mask or gateway is the range's, and not the NIC's own: what the caller says of it must be so.
fn check_subnet(txn: &Txn<'_>, nic: Id<VmNic>, message: &SetVmStaticIp) -> Result<()> {
    let used: Vec<UsedIp> =
        txn.used_by(AnyId::of(nic)).into_iter().filter_map(|used| txn.find(used)).collect();
    let of = |version: u8| used.iter().find(|used| used.ip_version == version);
    let (four, six) = (of(4), of(6));
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string());
    let prefix = six.map(|used| used.prefix_len.to_string());
    for (field, said, is) in [
        ("netmask", text(message.netmask), text(four.and_then(|used| used.netmask))),
        ("gateway", text(message.gateway), text(four.map(|used| used.gateway))),
        ("ipv6Gateway", text(message.ipv6_gateway), text(six.map(|used| used.gateway))),
        ("ipv6Prefix", message.ipv6_prefix.clone(), prefix),
    ] {
        if said.is_none() || said == is {
            continue;
        }
        let rule = match is {
            Some(is) => format!("that of the address's range is {is}"),
            None => "the NIC has no address of this family".to_owned(),
        };
        let error = Error::field(field, rule);
        return Err(error.hint("leave it out: it is a property of the IP range"));
    }
    Ok(())
}

/// Gives a NIC this address in the place of the one of the same family.
fn set_address(txn: &mut Txn<'_>, id: Id<VmNic>, l3: &L3Network, ip: IpAddr) -> Result<()> {
    addresses::check_own(txn, l3, txn.get(id)?.mac, ip)?;
    let used = txn.used_by(AnyId::of(id)).into_iter().filter_map(|used| txn.find(used));
    let before = used.into_iter().find(|used: &UsedIp| used.ip.is_ipv4() == ip.is_ipv4());
    if before.as_ref().is_some_and(|used| used.l3_network_uuid != l3.uuid) {
        vip_guests::check_unused(txn, id)?;
    }
    replace_address(txn, id, l3, (before.as_ref(), ip))?;
    let mut nic = txn.get(id)?;
    nic.static_ips.retain(|other| other.is_ipv4() != ip.is_ipv4());
    nic.static_ips.push(ip);
    txn.update(nic)
}

/// Gives a NIC one address in the place of another, or of none.
fn replace_address(
    txn: &mut Txn<'_>,
    id: Id<VmNic>,
    l3: &L3Network,
    (before, ip): (Option<&UsedIp>, IpAddr),
) -> Result<()> {
    let is_first = txn.get(id)?.used_ip_uuid == before.map(|used| used.uuid);
    let mut given = before.filter(|used| used.ip == ip).map(|used| used.uuid);
    if given.is_none() {
        if let Some(before) = before {
            txn.delete(before.uuid)?;
        }
        let taken = |error: Error| match error.code {
            Code::IpExhausted => Error { code: Code::OperationFailed, ..error },
            _ => error,
        };
        given = Some(addresses::give_one(txn, l3, AnyId::of(id), ip).map_err(taken)?);
    }
    let mut nic = txn.get(id)?;
    if is_first {
        nic.used_ip_uuid = given;
    }
    // What was wanted for it stays wanted, in its new form.
    let was = before.map(|used| used.ip);
    nic.static_ips
        .iter_mut()
        .filter(|wanted| Some(**wanted) == was)
        .for_each(|wanted| *wanted = ip);
    txn.update(nic)
}

pub(crate) fn delete_static_ip(txn: &mut Txn<'_>, message: DeleteVmStaticIp) -> Result<Reply> {
    let mut nic = nic_on(txn, message.vm_instance_uuid, message.l3_network_uuid)?;
    let stays = |ip: &IpAddr| message.static_ip.is_some_and(|gone| gone != *ip);
    nic.static_ips.retain(stays);
    txn.update(nic)?;
    Ok(Reply::nothing())
}

/// The NIC of an instance on a network.
fn nic_on(txn: &Txn<'_>, instance: Id<VmInstance>, l3: Id<L3Network>) -> Result<VmNic> {
    let nics = txn.children(VmNic::VM_INSTANCE, instance);
    let found = nics.into_iter().find(|nic| nic.is_on(l3));
    found.ok_or_else(|| {
        let rule = format!("instance {instance} has no NIC on L3 network {l3}");
        Error::field("l3NetworkUuid", rule).hint("name the L3 network of one of its NICs")
    })
}

pub(crate) fn set_hostname(txn: &mut Txn<'_>, message: SetVmHostname) -> Result<Reply> {
    check_hostname("hostname", &message.hostname)?;
    name(txn, message.uuid, Some(message.hostname))
}

pub(crate) fn delete_hostname(txn: &mut Txn<'_>, message: DeleteVmHostname) -> Result<Reply> {
    name(txn, message.uuid, None)
}

/// Names an instance: its NICs claim the name on their networks.
pub(crate) fn name(
    txn: &mut Txn<'_>,
    id: Id<VmInstance>,
    hostname: Option<String>,
) -> Result<Reply> {
    let instance = txn.get(id)?;
    for nic in txn.children(VmNic::VM_INSTANCE, id) {
        txn.update(VmNic { hostname: hostname.clone(), ..nic })?;
    }
    txn.update(VmInstance { hostname, ..instance })?;
    Ok(Reply::shows(id))
}

/// Longest label of a name (RFC 1035, 2.3.4), in bytes.
const LABEL_MAX: usize = 63;

/// Longest name in text (RFC 1035, 2.3.4: 255 bytes on the wire), in bytes.
const HOSTNAME_MAX: usize = 253;

/// Checks that this is a name (RFC 1123, 2.1).
pub(crate) fn check_hostname(field: &str, hostname: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(is_plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if hostname.len() <= HOSTNAME_MAX && hostname.split('.').all(is_label) {
        return Ok(());
    }
    let error = Error::field(field, format!("\"{hostname}\" is no hostname"));
    Err(error.hint("letters, digits and hyphens, in labels of 1 to 63 with dots between them"))
}

fn hostname(look: &Look<'_>, message: GetVmHostname) -> Result<Value> {
    let instance = look.get(message.uuid)?;
    Ok(instance.hostname.map_or_else(|| json!({}), |hostname| json!({"hostname": hostname})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_of_plain_labels() {
        for fine in ["a", "web-1", "a.b.example.org", "1", &"x".repeat(63)] {
            check_hostname("hostname", fine).unwrap();
        }
        let long = [&"x".repeat(64)[..], &["abcdefg"; 32].join(".")];
        for odd in ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "ä", "a b"].into_iter().chain(long)
        {
            check_hostname("hostname", odd).unwrap_err();
        }
    }
}
