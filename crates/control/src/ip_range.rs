//! IP ranges, and giving out their addresses.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use model::{
    AnyId, Claim, Code, Error, Id, Result,
    resource::{
        ip_range::{
            AddIpRange, AddIpv6Range, AddressMode, DeleteIpRange, IpRange, IpRangeType,
            UpdateIpRange,
        },
        l2_network::L2Network,
        l3_network::L3Network,
        used_ip::UsedIp,
    },
};

use crate::{
    Reply, Txn,
    operation::{Operation, job},
    reserved,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add), job(add_ipv6), job(update), job(delete)]
}

/// A range as either message describes it.
struct Wanted {
    l3: Id<L3Network>,
    name: String,
    description: Option<String>,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
    cidr: IpNet,
    address_mode: Option<AddressMode>,
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
    let gateway = message.gateway.unwrap_or(lowest);
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
    };
    insert(txn, wanted)
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
    };
    insert(txn, wanted)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateIpRange) -> Result<Reply> {
    let mut range = txn.get(message.uuid)?;
    range.name = message.name.unwrap_or(range.name);
    message.description.apply(&mut range.description);
    txn.update(range)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteIpRange) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

fn v4(field: &str, ip: IpAddr) -> Result<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => {
            Err(Error::field(field, format!("{ip} is IPv6")).hint("AddIpv6Range takes IPv6"))
        }
    }
}

fn insert(txn: &mut Txn<'_>, wanted: Wanted) -> Result<Reply> {
    let l3 = txn.get(wanted.l3)?;
    check_bounds(&wanted)?;
    // The rules below rest on the ranges of all L3 networks of the L2 network.
    txn.fence(l3.l2_network_uuid);
    check_neighbours(txn, &l3, &wanted)?;
    let range = IpRange {
        uuid: txn.new_id(),
        l3_network_uuid: l3.uuid,
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
        ip_range_type: IpRangeType::Normal,
    };
    txn.insert(range).map(Reply::shows)
}

fn netmask(cidr: IpNet) -> Option<IpAddr> {
    matches!(cidr, IpNet::V4(_)).then(|| cidr.netmask())
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
    if (start..=end).contains(&gateway) {
        let hint = "leave the gateway out of the range";
        return fail("gateway", format!("{gateway} is inside the range"), hint);
    }
    Ok(())
}

/// ZStack's rules between ranges: one subnet and gateway per L3 and family, no overlap on the L2;
/// and no range gives out another one's gateway there.
fn check_neighbours(txn: &Txn<'_>, l3: &L3Network, wanted: &Wanted) -> Result<()> {
    for other_l3 in txn.children(L3Network::L2_NETWORK, l3.l2_network_uuid) {
        for range in txn.children(IpRange::L3_NETWORK, other_l3.uuid) {
            if range.start_ip.is_ipv4() != wanted.start.is_ipv4() {
                continue;
            }
            let same = range.network_cidr == wanted.cidr && range.gateway == wanted.gateway;
            if other_l3.uuid == l3.uuid && !same {
                let text = format!("is not {} of range {}", range.gateway, range.uuid);
                return Err(Error::field("gateway", text).hint(format!(
                    "all ranges of an L3 network share one subnet and gateway: {} and {}",
                    range.network_cidr, range.gateway
                )));
            }
            check_apart(&range, wanted)?;
        }
    }
    Ok(())
}

/// Two ranges of one family on one L2 network.
fn check_apart(range: &IpRange, wanted: &Wanted) -> Result<()> {
    let (id, low, high) = (range.uuid, range.start_ip, range.end_ip);
    let fail = |field: &str, text: String| {
        Err(Error::field(field, text)
            .hint("all L3 networks on one L2 network share its addresses: choose others"))
    };
    if low <= wanted.end && wanted.start <= high {
        return fail("startIp", format!("overlaps range {id} ({low} to {high})"));
    }
    if (wanted.start..=wanted.end).contains(&range.gateway) {
        let text = format!("the range has {}, the gateway of range {id}, in it", range.gateway);
        return fail("startIp", text);
    }
    if (low..=high).contains(&wanted.gateway) {
        return fail("gateway", format!("{} is in range {id} ({low} to {high})", wanted.gateway));
    }
    Ok(())
}

/// Gives `user` one address of each family that the L3 network has: the wanted ones, else a free
/// one near a random point (ZStack's default strategy), so that a freed address is not reused at
/// once. Returns the one of the network's own family first.
pub(crate) fn give(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    user: AnyId,
    wanted: &[IpAddr],
) -> Result<Vec<Id<UsedIp>>> {
    let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid);
    for ip in wanted {
        if !ranges.iter().any(|r| (r.start_ip..=r.end_ip).contains(ip)) {
            return Err(in_no_range(l3, *ip));
        }
    }
    let mut given = Vec::new();
    for version in [l3.ip_version, 10 - l3.ip_version] {
        let family: Vec<&IpRange> = ranges.iter().filter(|r| r.ip_version == version).collect();
        if family.is_empty() {
            continue;
        }
        let choice = wanted.iter().find(|ip| ip.is_ipv4() == (version == 4)).copied();
        let ip = match choice {
            Some(ip) => ip,
            None => free_address(txn, l3, &family)?,
        };
        let inside = |range: &&&IpRange| (range.start_ip..=range.end_ip).contains(&ip);
        let Some(range) = family.iter().find(inside) else { continue };
        given.push(use_address(txn, range, l3.l2_network_uuid, (ip, user))?);
    }
    if given.is_empty() {
        let error = Error::new(Code::IpExhausted, format!("L3 network {} has no range", l3.uuid));
        return Err(error.on_field("l3NetworkUuid").hint("add one with AddIpRange"));
    }
    Ok(given)
}

/// Gives `user` this address.
pub(crate) fn give_one(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    user: AnyId,
    ip: IpAddr,
) -> Result<Id<UsedIp>> {
    let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid);
    let inside = |range: &&IpRange| (range.start_ip..=range.end_ip).contains(&ip);
    match ranges.iter().find(inside) {
        Some(range) => use_address(txn, range, l3.l2_network_uuid, (ip, user)),
        None => Err(in_no_range(l3, ip)),
    }
}

/// Those of some addresses that are in ranges of a network.
pub(crate) fn inside(txn: &Txn<'_>, l3: &L3Network, ips: &[IpAddr]) -> Vec<IpAddr> {
    let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid);
    let has = |ip: &IpAddr| ranges.iter().any(|r| (r.start_ip..=r.end_ip).contains(ip));
    ips.iter().copied().filter(has).collect()
}

fn in_no_range(l3: &L3Network, ip: IpAddr) -> Error {
    let error = Error::field("ip", format!("{ip} is in no range of L3 network {}", l3.uuid));
    error.hint("QueryIpRange shows the ranges; AddIpRange adds one")
}

fn use_address(
    txn: &mut Txn<'_>,
    range: &IpRange,
    l2: Id<L2Network>,
    (ip, user): (IpAddr, AnyId),
) -> Result<Id<UsedIp>> {
    txn.insert(UsedIp {
        uuid: Id::new(txn.random_uuid()),
        ip_range_uuid: range.uuid,
        l3_network_uuid: range.l3_network_uuid,
        l2_network_uuid: l2,
        ip_version: range.ip_version,
        ip,
        netmask: range.netmask,
        prefix_len: range.prefix_len,
        gateway: range.gateway,
        used_by: user,
    })
}

/// A free address: the first one from a random point on, else from the start of a range on.
fn free_address(txn: &Txn<'_>, l3: &L3Network, family: &[&IpRange]) -> Result<IpAddr> {
    let random = txn.random_uuid().as_u128();
    let first = usize::try_from(random >> 96).unwrap_or(0) % family.len();
    // The first range twice: after the random point, and before it.
    let order = (0..=family.len()).map(|at| family[(first + at) % family.len()]);
    let starts = std::iter::once(pick(family[first], random));
    let starts = starts.chain(order.clone().skip(1).map(|range| range.start_ip));
    for (range, start) in order.zip(starts) {
        match txn.first_free(&Claim::Ip(l3.l2_network_uuid, start)) {
            Some(Claim::Ip(_, ip)) if ip <= range.end_ip => return Ok(ip),
            _ => {}
        }
    }
    let version = family.first().map_or(4, |range| range.ip_version);
    let text = format!("L3 network {} has no free IPv{version} address", l3.uuid);
    let hint = "add addresses with AddIpRange, or delete unused NICs";
    Err(Error::new(Code::IpExhausted, text).on_field("l3NetworkUuid").hint(hint))
}

/// An address of a range. If `random` is evenly distributed, so is the address over the range.
fn pick(range: &IpRange, random: u128) -> IpAddr {
    match (range.start_ip, range.end_ip) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            let (start, end) = (u32::from(start), u32::from(end));
            let size = u128::from(end.saturating_sub(start)) + 1;
            let offset = u32::try_from(random % size).unwrap_or(0);
            IpAddr::V4(start.saturating_add(offset).into())
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            let (start, end) = (u128::from(start), u128::from(end));
            let offset = match end.saturating_sub(start).checked_add(1) {
                Some(size) => random % size,
                None => random,
            };
            IpAddr::V6(start.saturating_add(offset).into())
        }
        (start, _) => start,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn range(start: IpAddr, end: IpAddr) -> IpRange {
        IpRange {
            uuid: Id::new(Uuid::from_u128(1)),
            l3_network_uuid: Id::new(Uuid::from_u128(2)),
            name: "r".into(),
            description: None,
            start_ip: start,
            end_ip: end,
            netmask: None,
            gateway: start,
            network_cidr: IpNet::new(start, 8).unwrap(),
            ip_version: 4,
            prefix_len: 8,
            address_mode: None,
            ip_range_type: IpRangeType::Normal,
        }
    }

    proptest! {
        #[test]
        fn a_pick_is_inside_the_range(start: u128, size: u128, random: u128, v4: (u32, u32)) {
            let (low, high) = (IpAddr::V6(start.into()), start.saturating_add(size).into());
            let picked = pick(&range(low, IpAddr::V6(high)), random);
            prop_assert!(low <= picked && picked <= IpAddr::V6(high));
            let (low, high) = (v4.0.min(v4.1), v4.0.max(v4.1));
            let (low, high) = (IpAddr::V4(low.into()), IpAddr::V4(high.into()));
            let picked = pick(&range(low, high), random);
            prop_assert!(low <= picked && picked <= high);
        }
    }
}
