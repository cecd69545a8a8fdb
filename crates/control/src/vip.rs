//! VIPs: addresses for services. Which NICs they may lead to is in [`crate::vip_guests`].

use std::net::IpAddr;

use model::{
    AnyId, Claim, Code, Error, Id, Kind, Record, Result,
    resource::{
        ip_range::IpRange,
        l3_network::L3Network,
        network_service::NetworkServiceType,
        vip::{
            ChangeVipState, CheckVipPortAvailability, CreateVip, DeleteVip, GetVipAvailablePort,
            GetVipUsedPorts, PortProtocol, UpdateVip, Vip, VipUse,
        },
        zone::EnableState,
    },
    shown::LIST_MAX,
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    Look, Reply, Txn,
    addresses::{self, VipAddress},
    claim,
    operation::{Operation, job, look},
    port_forwarding, vip_ports,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(create),
        job(update),
        job(delete),
        job(change_state),
        look(check_port),
        look(available_ports),
        look(used_ports),
    ]
}

fn create(txn: &mut Txn<'_>, message: CreateVip) -> Result<Reply> {
    let l3 = txn.get(message.l3_network_uuid)?;
    if l3.state == EnableState::Disabled {
        let text = format!("L3 network {} is disabled", l3.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid");
        return Err(error.hint("ChangeL3NetworkState enables it"));
    }
    let range = message.ip_range_uuid.map(|id| txn.get(id)).transpose()?;
    if let Some(range) = range.as_ref().filter(|range| range.l3_network_uuid != l3.uuid) {
        let rule = format!("{} is a range of L3 network {}", range.uuid, range.l3_network_uuid);
        return Err(Error::field("ipRangeUuid", rule).hint("QueryIpRange lists the network's"));
    }
    let ip_version = ip_version(txn, &l3, range.as_ref(), &message)?;
    if let Some(ip) = message.required_ip {
        check_free(txn, &l3, ip)?;
    }
    let id: Id<Vip> = txn.new_id();
    let wanted = VipAddress {
        ip_version,
        range,
        required: message.required_ip,
        strategy: message.allocator_strategy,
    };
    let used = addresses::give_vip(txn, &l3, AnyId::of(id), wanted);
    let used_ip_uuid = used.map_err(|error| match error.field.as_deref() {
        Some("ip") => error.on_field("requiredIp"),
        _ => error,
    })?;
    let vip = Vip {
        uuid: id,
        name: message.name,
        description: message.description,
        l3_network_uuid: l3.uuid,
        used_ip_uuid,
        state: EnableState::Enabled,
        system: false,
    };
    txn.insert(vip).map(Reply::shows)
}

/// The family that a message asks for, which must be one that it can get.
fn ip_version(
    txn: &Txn<'_>,
    l3: &L3Network,
    range: Option<&IpRange>,
    message: &CreateVip,
) -> Result<u8> {
    let of_ip = message.required_ip.map(|ip| if ip.is_ipv4() { 4 } else { 6 });
    let ranges = match range {
        Some(range) => vec![range.clone()],
        None => txn.children(IpRange::L3_NETWORK, l3.uuid),
    };
    let has = |version| ranges.iter().any(|range: &IpRange| range.ip_version == version);
    let refuse = |field: &str, rule: String| {
        Err(Error::field(field, rule).hint("QueryIpRange l3NetworkUuid=.. shows the families"))
    };
    match (message.ip_version, of_ip) {
        (Some(5), _) => refuse("ipVersion", "5 is neither 4 nor 6".to_owned()),
        (Some(wanted), Some(of_ip)) if wanted != of_ip => {
            refuse("requiredIp", format!("is of IPv{of_ip}, and ipVersion says {wanted}"))
        }
        (_, Some(version)) if !has(version) => {
            refuse("requiredIp", format!("L3 network {} has no IPv{version}", l3.uuid))
        }
        (Some(version), None) if !has(version) => {
            refuse("ipVersion", format!("L3 network {} has no IPv{version}", l3.uuid))
        }
        (Some(version), _) | (None, Some(version)) => Ok(version),
        (None, None) if has(4) || !has(6) => Ok(4),
        (None, None) => Ok(6),
    }
}

/// An address that somebody has is a wrong state to ZStack, not a lack of addresses.
fn check_free(txn: &Txn<'_>, l3: &L3Network, ip: IpAddr) -> Result<()> {
    let Some((kind, uuid)) = txn.tx.holder(&Claim::Ip(l3.l2_network_uuid, ip)) else {
        return Ok(());
    };
    let is_seen = txn.visible(kind, uuid).is_some();
    let claim = Claim::Ip(l3.l2_network_uuid, ip);
    let error = claim::refusal(&claim, kind, is_seen.then_some(uuid));
    Err(Error { code: Code::OperationFailed, ..error }.on_field("requiredIp"))
}

fn update(txn: &mut Txn<'_>, message: UpdateVip) -> Result<Reply> {
    let mut vip = txn.get(message.uuid)?;
    vip.name = message.name.unwrap_or(vip.name);
    message.description.apply(&mut vip.description);
    txn.update(vip)?;
    Ok(Reply::shows(message.uuid))
}

/// What uses it goes along, in steps: there may be more than one deletion takes.
fn delete(txn: &mut Txn<'_>, message: DeleteVip) -> Result<Reply> {
    let vip = txn.get(message.uuid)?;
    if vip.system {
        let error = Error::field("uuid", format!("VIP {} is a router's own", vip.uuid));
        return Err(error.hint("it goes with its router"));
    }
    port_forwarding::delete_of_vip(txn, vip.uuid)?;
    txn.delete(vip.uuid)?;
    Ok(Reply::nothing())
}

fn change_state(txn: &mut Txn<'_>, message: ChangeVipState) -> Result<Reply> {
    let vip = txn.get(message.uuid)?;
    let state = vip.state.next(message.state_event);
    txn.update(Vip { state, ..vip })?;
    Ok(Reply::shows(message.uuid))
}

/// Refuses a service that cannot use a VIP beside what uses it.
pub(crate) fn check_use(
    txn: &Txn<'_>,
    vip: &Vip,
    service: NetworkServiceType,
    code: Code,
) -> Result<()> {
    let refuse =
        |code, text: String, hint: &str| Err(Error::new(code, text).on_field("vipUuid").hint(hint));
    if vip.state == EnableState::Disabled {
        let text = format!("VIP {} is disabled", vip.uuid);
        return refuse(Code::OperationFailed, text, "ChangeVipState enables it");
    }
    let is_there = |it: &VipUse| is_used(&*txn.tx, vip.uuid, it.kind);
    let Some(new) = VipUse::of(service) else { return Ok(()) };
    let clashes = |it: &&VipUse| it.is_exclusive || new.is_exclusive;
    match VipUse::ALL.iter().filter(clashes).find(|it| is_there(it)) {
        None => Ok(()),
        Some(other) => {
            let (other, name) = (other.service.as_str(), service.as_str());
            let text = format!("VIP {} is used for {other}, and cannot be for {name}", vip.uuid);
            refuse(code, text, "CreateVip makes another one; QueryVip shows servicesRefs")
        }
    }
}

/// Whether something of a kind uses a VIP.
pub(crate) fn is_used(read: &impl Read<Record>, vip: Id<Vip>, kind: Kind) -> bool {
    read.referrers(kind, VipUse::FIELD, vip.uuid()).next().is_some()
}

fn check_port(look: &Look<'_>, message: CheckVipPortAvailability) -> Result<Value> {
    let vip = look.get(message.vip_uuid)?;
    let port = (message.port, message.port);
    let taken = vip_ports::taken(look.snapshot(), &vip, message.protocol_type, port);
    Ok(json!({"available": taken.is_none()}))
}

fn available_ports(look: &Look<'_>, message: GetVipAvailablePort) -> Result<Value> {
    let vip = look.get(message.vip_uuid)?;
    let (mut ports, mut from) = (Vec::new(), 1_u16);
    for (first, last) in all_taken(look, &vip, message.protocol_type) {
        ports.extend((from..first).take(LIST_MAX - ports.len()));
        match last.checked_add(1) {
            Some(next) => from = next,
            None => return Ok(json!({"availablePort": ports})),
        }
    }
    ports.extend((from..=u16::MAX).take(LIST_MAX - ports.len()));
    Ok(json!({"availablePort": ports}))
}

fn used_ports(look: &Look<'_>, message: GetVipUsedPorts) -> Result<Value> {
    let vip = look.get(message.uuid)?;
    let text = |(first, last): (u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in all_taken(look, &vip, message.protocol) {
        match joined.last_mut() {
            Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
            _ => joined.push((first, last)),
        }
    }
    let ports: Vec<_> = joined.into_iter().map(text).collect();
    let shown = json!({"uuid": vip.uuid, "protocol": message.protocol, "usedPorts": ports});
    Ok(json!({"inventories": [shown]}))
}

/// The ports of a VIP that are taken, in their order and apart.
fn all_taken(look: &Look<'_>, vip: &Vip, protocol: PortProtocol) -> Vec<(u16, u16)> {
    let (mut found, mut from) = (Vec::new(), Some(1));
    while let Some(low) = from {
        let taken = vip_ports::taken(look.snapshot(), vip, protocol, (low, u16::MAX));
        let Some((first, last)) = taken else { break };
        found.push((first, last));
        from = last.max(low).checked_add(1);
    }
    found
}
