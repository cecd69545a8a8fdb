//! Addresses that DHCP has of its own: one of IPv4 on each network that can spare one, the same on every
//! host. Without one it is known by the gateway's. That of IPv6 is known by no address, and takes none
//! by itself.

use std::net::IpAddr;

use model::{
    AnyId, Code, Error, Id, Kind, Resource, Result,
    resource::{
        dhcp_server::{ChangeL3NetworkDhcpIpAddress, DhcpServer, GetL3NetworkDhcpIpAddress},
        l3_network::L3Network,
        network_service::NetworkServiceType,
        used_ip::UsedIp,
    },
};
use serde_json::{Map, Value, json};
use store::Read;
use uuid::Uuid;

use crate::{
    Look, Reply, Txn, addresses, network_service,
    operation::{Operation, job, look},
};

/// A network with fewer IPv4 addresses keeps all of them for its instances.
const SPARING: u128 = 4;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(change), look(show)]
}

pub(crate) fn change(txn: &mut Txn<'_>, message: ChangeL3NetworkDhcpIpAddress) -> Result<Reply> {
    let l3 = txn.get(message.l3_network_uuid)?;
    if !network_service::has(txn, l3.uuid, NetworkServiceType::Dhcp) {
        let text = format!("L3 network {} has no DHCP", l3.uuid);
        let hint = "AttachNetworkServiceToL3Network adds it";
        return Err(Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid").hint(hint));
    }
    let wanted = [
        ("dhcpServerIp", 4, message.dhcp_server_ip),
        ("dhcpv6ServerIp", 6, message.dhcpv6_server_ip),
    ];
    if wanted.iter().all(|(_, _, ip)| ip.is_none()) {
        let error = Error::field("dhcpServerIp", "or dhcpv6ServerIp is required");
        return Err(error.hint("give the address that DHCP is to have"));
    }
    for (field, version, ip) in wanted {
        let Some(ip) = ip else { continue };
        if ip.is_ipv4() != (version == 4) {
            let error = Error::field(field, format!("{ip} is not of IPv{version}"));
            return Err(error.hint("dhcpServerIp is of IPv4, dhcpv6ServerIp of IPv6"));
        }
        set(txn, &l3, version, ip).map_err(|error| match error.field.as_deref() {
            Some("ip") => error.on_field(field),
            _ => error,
        })?;
    }
    Ok(Reply::shows(l3.uuid))
}

/// Gives DHCP an address, if the network has DHCP, DHCP has none, and one is free.
pub(crate) fn settle(txn: &mut Txn<'_>, l3: Id<L3Network>) -> Result<()> {
    let uuid = id(l3, 4);
    if !network_service::has(txn, l3, NetworkServiceType::Dhcp) || txn.find(uuid).is_some() {
        return Ok(());
    }
    let l3 = txn.get(l3)?;
    txn.insert(DhcpServer { uuid, l3_network_uuid: l3.uuid, ip_version: 4 })?;
    match addresses::give_spare(txn, &l3, AnyId::of(uuid), SPARING)? {
        Some(_) => Ok(()),
        None => txn.delete(uuid),
    }
}

/// The former address rests until no host speaks for it.
fn set(txn: &mut Txn<'_>, l3: &L3Network, version: u8, ip: IpAddr) -> Result<()> {
    let server =
        DhcpServer { uuid: id(l3.uuid, version), l3_network_uuid: l3.uuid, ip_version: version };
    let user = AnyId::of(server.uuid);
    let before = txn.tx.referrers(Kind::UsedIp, UsedIp::USED_BY, user.uuid).next();
    let before: Option<UsedIp> = before.and_then(|used| txn.find(Id::new(used)));
    match before {
        Some(used) if used.ip == ip => return Ok(()),
        Some(used) => txn.delete(used.uuid)?,
        None => {}
    }
    if txn.find(server.uuid).is_none() {
        txn.insert(server)?;
    }
    addresses::give_one(txn, l3, user, ip).map(|_| ())
}

/// Takes the addresses away.
pub(crate) fn delete(txn: &mut Txn<'_>, l3: Id<L3Network>) -> Result<()> {
    [4, 6].into_iter().try_for_each(|version| txn.delete(id(l3, version)))
}

fn show(look: &Look<'_>, message: GetL3NetworkDhcpIpAddress) -> Result<Value> {
    let l3 = look.get(message.l3_network_uuid)?;
    let mut shown = Map::new();
    for (name, version) in [("ip", 4), ("ip6", 6)] {
        let server = id(l3.uuid, version).uuid();
        let used = look.snapshot().referrers(Kind::UsedIp, UsedIp::USED_BY, server).next();
        let used = used.and_then(|used| look.snapshot().get(UsedIp::KIND, used));
        if let Some(used) = used.as_deref().and_then(UsedIp::of) {
            shown.insert(name.into(), json!(used.ip));
        }
    }
    Ok(Value::Object(shown))
}

/// Once for each network and family.
fn id(l3: Id<L3Network>, version: u8) -> Id<DhcpServer> {
    Id::new(Uuid::new_v5(&l3.uuid(), format!("dhcp {version}").as_bytes()))
}
