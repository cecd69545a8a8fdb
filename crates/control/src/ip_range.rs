//! IP ranges. Who gets an address of them is decided in [`crate::addresses`].

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use model::{
    AnyId, Error, Id, Record, Result,
    resource::{
        ip_range::{
            AddIpRange, AddIpRangeByNetworkCidr, AddIpv6Range, AddIpv6RangeByNetworkCidr,
            AddressMode, DeleteIpRange, IpRange, IpRangeType, UpdateIpRange,
        },
        l3_network::{L3Category, L3Network},
    },
};
use store::Read;

use crate::{
    Reply, Txn, dhcp_server, host_addresses, neighbours,
    operation::{Operation, job},
    reserved,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add), job(add_by_cidr), job(add_ipv6), job(add_ipv6_by_cidr), job(update), job(delete)]
}

/// A range as any of the messages describes it.
#[derive(Clone)]
struct Wanted {
    l3: Id<L3Network>,
    name: String,
    description: Option<String>,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
    cidr: IpNet,
    address_mode: Option<AddressMode>,
    of_type: IpRangeType,
}

pub(crate) fn add(txn: &mut Txn<'_>, message: AddIpRange) -> Result<Reply> {
    let (start, netmask) = (v4("startIp", message.start_ip)?, v4("netmask", message.netmask)?);
    v4("endIp", message.end_ip)?;
    let cidr = Ipv4Net::with_netmask(start, netmask).ok().filter(|cidr| {
        // A mask of 31 or 32 bits leaves no address for a gateway beside the range.
        (1..=30).contains(&cidr.prefix_len())
    });
    let Some(cidr) = cidr else {
        let error = Error::field("netmask", format!("{netmask} is no mask of 1 to 30 bits"));
        return Err(error.hint("give a mask such as 255.255.255.0"));
    };
    let lowest = IpAddr::V4(u32::from(cidr.network()).saturating_add(1).into());
    let of_type = message.ip_range_type.unwrap_or(IpRangeType::Normal);
    let gateway = match of_type {
        IpRangeType::Normal => message.gateway.unwrap_or(lowest),
        IpRangeType::AddressPool => message.start_ip,
    };
    v4("gateway", gateway)?;
    let wanted = Wanted {
        l3: message.l3_network_uuid,
        name: message.name,
        description: message.description,
        start: message.start_ip,
        end: message.end_ip,
        gateway,
        cidr: IpNet::V4(cidr.trunc()),
        address_mode: None,
        of_type,
    };
    let id = txn.new_id();
    insert(txn, id, wanted).map(Reply::shows)
}

/// All addresses of a network but the gateway: one range, or one on each side of it.
pub(crate) fn add_by_cidr(txn: &mut Txn<'_>, message: AddIpRangeByNetworkCidr) -> Result<Reply> {
    let cidr = match message.network_cidr {
        IpNet::V4(cidr) if (1..=30).contains(&cidr.prefix_len()) => cidr.trunc(),
        IpNet::V4(cidr) => {
            let error = Error::field("networkCidr", format!("{cidr} has no usable addresses"));
            return Err(error.hint("give a network of 1 to 30 bits"));
        }
        IpNet::V6(cidr) => {
            let error = Error::field("networkCidr", format!("{cidr} is IPv6"));
            return Err(error.hint("AddIpv6RangeByNetworkCidr takes IPv6"));
        }
    };
    let low = u32::from(cidr.network()).saturating_add(1);
    let high = u32::from(cidr.broadcast()).saturating_sub(1);
    let of_type = message.ip_range_type.unwrap_or(IpRangeType::Normal);
    let gateway = match (of_type, message.gateway) {
        (IpRangeType::Normal, Some(gateway)) => u32::from(v4("gateway", gateway)?),
        (IpRangeType::Normal, None) | (IpRangeType::AddressPool, _) => low,
    };
    if !(low..=high).contains(&gateway) {
        let rule = format!("{} is no address of {cidr}", Ipv4Addr::from(gateway));
        return Err(Error::field("gateway", rule).hint("name one of its hosts"));
    }
    let ip = |number: u32| IpAddr::V4(number.into());
    let wanted = Wanted {
        l3: message.l3_network_uuid,
        name: message.name,
        description: message.description,
        start: ip(low),
        end: ip(high),
        gateway: ip(gateway),
        cidr: IpNet::V4(cidr),
        address_mode: None,
        of_type,
    };
    let parts = match of_type {
        IpRangeType::AddressPool => vec![(low, high)],
        IpRangeType::Normal => beside(low, high, gateway),
    };
    let mut reply = None;
    for (start, end) in parts {
        let part = Wanted { start: ip(start), end: ip(end), ..wanted.clone() };
        let id = match &reply {
            None => txn.new_id(),
            Some(_) => Id::new(txn.random_uuid()),
        };
        let id = insert(txn, id, part)?;
        reply = Some(reply.map_or(Reply::shows(id), |first: Reply| first.and(id)));
    }
    Ok(reply.unwrap_or_default())
}

/// What is below the gateway and what is above it, as far as there is something.
fn beside(low: u32, high: u32, gateway: u32) -> Vec<(u32, u32)> {
    let below = (low < gateway).then(|| (low, gateway.saturating_sub(1)));
    let above = (gateway < high).then(|| (gateway.saturating_add(1), high));
    below.into_iter().chain(above).collect()
}

/// As ZStack does, the first address is the gateway.
pub(crate) fn add_ipv6_by_cidr(
    txn: &mut Txn<'_>,
    message: AddIpv6RangeByNetworkCidr,
) -> Result<Reply> {
    let cidr = match message.network_cidr {
        IpNet::V6(cidr) if (8..=126).contains(&cidr.prefix_len()) => cidr.trunc(),
        IpNet::V6(cidr) => {
            let error = Error::field("networkCidr", format!("{cidr} has not 8 to 126 bits"));
            return Err(error.hint("give a network such as fd00::/64"));
        }
        IpNet::V4(cidr) => {
            let error = Error::field("networkCidr", format!("{cidr} is IPv4"));
            return Err(error.hint("AddIpRangeByNetworkCidr takes IPv4"));
        }
    };
    let host = |number: u128| IpAddr::V6((u128::from(cidr.network()) | number).into());
    let wanted = Wanted {
        l3: message.l3_network_uuid,
        name: message.name,
        description: message.description,
        start: host(2),
        end: IpAddr::V6(cidr.broadcast()),
        gateway: host(1),
        cidr: IpNet::V6(cidr),
        address_mode: Some(message.address_mode),
        of_type: message.ip_range_type.unwrap_or(IpRangeType::Normal),
    };
    let id = txn.new_id();
    insert(txn, id, wanted).map(Reply::shows)
}

pub(crate) fn add_ipv6(txn: &mut Txn<'_>, message: AddIpv6Range) -> Result<Reply> {
    let addresses =
        [("startIp", message.start_ip), ("endIp", message.end_ip), ("gateway", message.gateway)];
    for (field, ip) in addresses {
        if ip.is_ipv4() {
            return Err(Error::field(field, format!("{ip} is IPv4")).hint("AddIpRange takes IPv4"));
        }
    }
    let cidr = IpNet::new(message.start_ip, message.prefix_len)
        .map_err(|_| Error::field("prefixLen", "does not fit"))?;
    let wanted = Wanted {
        l3: message.l3_network_uuid,
        name: message.name,
        description: message.description,
        start: message.start_ip,
        end: message.end_ip,
        gateway: message.gateway,
        cidr: cidr.trunc(),
        address_mode: Some(message.address_mode),
        of_type: message.ip_range_type.unwrap_or(IpRangeType::Normal),
    };
    let id = txn.new_id();
    insert(txn, id, wanted).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateIpRange) -> Result<Reply> {
    let mut range = txn.get(message.uuid)?;
    range.name = message.name.unwrap_or(range.name);
    message.description.apply(&mut range.description);
    txn.update(range)?;
    Ok(Reply::shows(message.uuid))
}

/// The last range of a family takes the router's address with it, which lies in its subnet.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteIpRange) -> Result<Reply> {
    let range = txn.get(message.uuid)?;
    if range.ip_range_type == IpRangeType::Normal && range.start_ip.is_ipv4() {
        let others = txn.children(IpRange::L3_NETWORK, range.l3_network_uuid).into_iter();
        let mut others = others.filter(|r| r.uuid != range.uuid && r.start_ip.is_ipv4());
        let (mut is_last, mut pool) = (true, None);
        for other in &mut others {
            match other.ip_range_type {
                IpRangeType::Normal => is_last = false,
                IpRangeType::AddressPool => pool = Some(other.uuid),
            }
        }
        // What is decided here rests on the ranges of the network.
        txn.fence(range.l3_network_uuid);
        match (is_last, pool) {
            (true, Some(pool)) => {
                let rule = format!("is the last normal range beside address pool {pool}");
                return Err(Error::field("uuid", rule).hint("delete the address pools first"));
            }
            (true, None) => forget_router(txn, range.l3_network_uuid)?,
            (false, _) => {}
        }
    }
    txn.delete(message.uuid)?;
    // DHCP may have had its address there.
    dhcp_server::settle(txn, range.l3_network_uuid)?;
    Ok(Reply::nothing())
}

fn forget_router(txn: &mut Txn<'_>, l3: Id<L3Network>) -> Result<()> {
    let mut l3 = txn.get(l3)?;
    match l3.router_interface_ip.take() {
        Some(_) => txn.update(l3),
        None => Ok(()),
    }
}

fn v4(field: &str, ip: IpAddr) -> Result<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => {
            Err(Error::field(field, format!("{ip} is IPv6")).hint("AddIpv6Range takes IPv6"))
        }
    }
}

fn insert(txn: &mut Txn<'_>, id: Id<IpRange>, wanted: Wanted) -> Result<Id<IpRange>> {
    let l3 = txn.get(wanted.l3)?;
    check_bounds(&wanted)?;
    check_type(&l3, &wanted)?;
    check_mode(&wanted)?;
    check_mtu(&l3, &wanted)?;
    // The rules below rest on the ranges of all L3 networks of the L2 network.
    txn.fence(l3.l2_network_uuid);
    check_neighbours(txn, &l3, &wanted)?;
    let ends = (wanted.start, wanted.end);
    host_addresses::check_range(txn, l3.l2_network_uuid, ends, "startIp")?;
    txn.insert(range(&l3, id, wanted))?;
    dhcp_server::settle(txn, l3.uuid)?;
    Ok(id)
}

fn range(l3: &L3Network, id: Id<IpRange>, wanted: Wanted) -> IpRange {
    IpRange {
        uuid: id,
        l3_network_uuid: l3.uuid,
        l2_network_uuid: l3.l2_network_uuid,
        name: wanted.name,
        description: wanted.description,
        start_ip: wanted.start,
        end_ip: wanted.end,
        netmask: netmask(wanted.cidr),
        gateway: wanted.gateway,
        network_cidr: wanted.cidr,
        ip_version: if wanted.cidr.addr().is_ipv4() { 4 } else { 6 },
        prefix_len: wanted.cidr.prefix_len(),
        address_mode: wanted.address_mode,
        ip_range_type: wanted.of_type,
    }
}

fn netmask(cidr: IpNet) -> Option<IpAddr> {
    matches!(cidr, IpNet::V4(_)).then(|| cidr.netmask())
}

/// Pools are for VIPs: of public networks, and of IPv4.
fn check_type(l3: &L3Network, wanted: &Wanted) -> Result<()> {
    if wanted.of_type == IpRangeType::Normal {
        return Ok(());
    }
    let fail = |rule: String, hint: &str| Err(Error::field("ipRangeType", rule).hint(hint));
    if wanted.cidr.addr().is_ipv6() {
        return fail("an address pool is of IPv4".into(), "give Normal, or leave it out");
    }
    if l3.category != L3Category::Public {
        let rule = format!("L3 network {} is not Public, and has no address pools", l3.uuid);
        return fail(rule, "UpdateL3Network changes the category");
    }
    Ok(())
}

/// An instance that makes its own address takes 64 bits of its MAC (RFC 4862).
fn check_mode(wanted: &Wanted) -> Result<()> {
    match wanted.address_mode {
        Some(mode @ (AddressMode::Slaac | AddressMode::Stateless))
            if wanted.cidr.prefix_len() != 64 =>
        {
            let (mode, bits) = (mode.as_str(), wanted.cidr.prefix_len());
            let rule = format!("{mode} needs a network of 64 bits, this one has {bits}");
            Err(Error::field("addressMode", rule).hint("give 64 bits, or Stateful-DHCP"))
        }
        _ => Ok(()),
    }
}

/// The least that every link carries IPv6 with (RFC 8200 §5), in bytes.
pub(crate) const IPV6_MTU_MIN: u32 = 1280;

fn check_mtu(l3: &L3Network, wanted: &Wanted) -> Result<()> {
    match l3.mtu {
        Some(mtu) if mtu < IPV6_MTU_MIN && wanted.cidr.addr().is_ipv6() => {
            let rule = format!("the network's MTU is {mtu}, and IPv6 needs {IPV6_MTU_MIN}");
            Err(Error::field("l3NetworkUuid", rule).hint("SetL3NetworkMtu changes it"))
        }
        _ => Ok(()),
    }
}

/// ZStack's rules for one range (`L3NetworkApiInterceptor`).
fn check_bounds(wanted: &Wanted) -> Result<()> {
    let Wanted { start, end, gateway, cidr, .. } = wanted;
    let fail = |field: &str, rule: String, hint: &str| {
        Err(Error::field(field, rule).hint(format!("the subnet is {cidr}: {hint}")))
    };
    // The end stands for the whole range: special addresses may be in its middle.
    let spans = [("startIp", start, start), ("endIp", start, end), ("gateway", gateway, gateway)];
    for (field, low, high) in spans {
        if let Some(net) = reserved::block(*low, *high) {
            let rule = format!("addresses of {net} cannot be given to an instance");
            return fail(field, rule, "choose unicast addresses");
        }
    }
    for (field, ip) in [("startIp", start), ("endIp", end), ("gateway", gateway)] {
        if !cidr.contains(ip) {
            let hint = "start, end, gateway and mask must agree";
            return fail(field, format!("{ip} is outside the subnet {cidr}"), hint);
        }
        if *ip == cidr.network() || (ip.is_ipv4() && *ip == cidr.broadcast()) {
            let rule = format!("{ip} is the subnet's network or broadcast address");
            return fail(field, rule, "leave out its first and, in IPv4, its last address");
        }
    }
    if start > end {
        return fail(
            "endIp",
            format!("{end} is below startIp {start}"),
            "give the lower one first",
        );
    }
    if wanted.of_type == IpRangeType::Normal && (start..=end).contains(&gateway) {
        let hint = "leave the gateway out of the range";
        return fail("gateway", format!("{gateway} is inside the range"), hint);
    }
    Ok(())
}

/// A rule between ranges that is broken, and the range or L3 network that stands in the way.
struct Clash {
    error: Error,
    with: AnyId,
}

/// Told without the other one, where that is not the caller's: on a shared L2 network it may be another
/// account's.
fn check_neighbours(txn: &Txn<'_>, l3: &L3Network, wanted: &Wanted) -> Result<()> {
    let Some(Clash { error, with }) = clash(&*txn.tx, l3, wanted) else { return Ok(()) };
    Err(match txn.visible(with.kind, with.uuid) {
        Some(_) => error,
        None => Error::field(
            error.field.as_deref().unwrap_or("startIp"),
            "some of these addresses are another account's on the L2 network",
        )
        .hint("choose other addresses"),
    })
}

/// ZStack's rules between ranges: one subnet and gateway per L3 and family, no overlap on the L2;
/// and no range gives out another one's gateway there.
fn clash(read: &impl Read<Record>, l3: &L3Network, wanted: &Wanted) -> Option<Clash> {
    let (l2, inside) = (l3.l2_network_uuid, (wanted.start, wanted.end));
    let version = if wanted.start.is_ipv4() { 4 } else { 6 };
    if let Some(range) = neighbours::subnet_of(read, l3.uuid, version)
        && let Err(error) = check_alike(&range, wanted)
    {
        return Some(Clash { error, with: AnyId::of(range.uuid) });
    }
    let hint = "all L3 networks on one L2 network share its addresses: choose others";
    let clash = |field: &str, rule: String, with: AnyId| {
        Some(Clash { error: Error::field(field, rule).hint(hint), with })
    };
    if let Some(range) = neighbours::range_in(read, l2, inside) {
        let rule = format!("overlaps {}", told(&range));
        return clash("startIp", rule, AnyId::of(range.uuid));
    }
    if let Some(range) = neighbours::gateway_in(read, l2, inside) {
        let (gateway, id) = (range.gateway, range.uuid);
        let rule = format!("the range has {gateway}, the gateway of range {id}, in it");
        return clash("startIp", rule, AnyId::of(id));
    }
    if let Some(range) = neighbours::range_in(read, l2, (wanted.gateway, wanted.gateway)) {
        let rule = format!("{} is in {}", wanted.gateway, told(&range));
        return clash("gateway", rule, AnyId::of(range.uuid));
    }
    for (field, addresses) in [("startIp", inside), ("gateway", (wanted.gateway, wanted.gateway))] {
        if let Some((net, (kind, uuid))) = neighbours::routed_in(read, l2, addresses, None) {
            let rule = format!("{net} has some of these addresses, and a NIC routes for it");
            let hint = "choose other addresses, or SetVmNicAllowedPrefixes";
            let error = Error::field(field, rule).hint(hint);
            return Some(Clash { error, with: AnyId { kind, uuid } });
        }
    }
    let (router, other) = neighbours::router_in(read, l2, inside)?;
    let rule = format!("the range has {router} in it, the router of {other}");
    let hint = "choose other addresses, or SetL3NetworkRouterInterfaceIp";
    let error = Error::field("startIp", rule).hint(hint);
    Some(Clash { error, with: AnyId::of(other) })
}

/// A range as errors name it.
fn told(range: &IpRange) -> String {
    format!("range {} ({} to {})", range.uuid, range.start_ip, range.end_ip)
}

/// Two ranges of one family on one L3 network: what is for NICs has one subnet, gateway and mode.
fn check_alike(range: &IpRange, wanted: &Wanted) -> Result<()> {
    let pool = IpRangeType::AddressPool;
    if range.ip_range_type == pool || wanted.of_type == pool {
        return Ok(());
    }
    if range.network_cidr != wanted.cidr || range.gateway != wanted.gateway {
        let text = format!("is not {} of range {}", range.gateway, range.uuid);
        return Err(Error::field("gateway", text).hint(format!(
            "all ranges of an L3 network share one subnet and gateway: {} and {}",
            range.network_cidr, range.gateway
        )));
    }
    if range.address_mode != wanted.address_mode {
        let mode = range.address_mode.map_or("none", AddressMode::as_str);
        let text = format!("is not {mode}, that of range {}", range.uuid);
        let hint = "all ranges of an L3 network have one mode";
        return Err(Error::field("addressMode", text).hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
