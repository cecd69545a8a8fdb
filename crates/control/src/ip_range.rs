//! IP ranges, and giving out their addresses.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use model::{
    Code, Error, Id, Kind, Result,
    resource::{
        ip_range::{AddIpRange, AddIpv6Range, AddressMode, DeleteIpRange, IpRange},
        l2_vxlan_network::L2VxlanNetwork,
        l3_network::L3Network,
        vm_nic::{UsedIp, VmNic},
    },
};
use uuid::Uuid;

use crate::{Reply, Txn, allocate, special};

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
    let lowest = IpAddr::V4(from_number(to_number(cidr.network().into()) + 1));
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

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteIpRange) -> Result<Reply> {
    let range = txn.get(message.uuid)?;
    let nics = txn.children::<VmNic>("l3NetworkUuid", range.l3_network_uuid.uuid());
    let uses = |nic: &&VmNic| nic.used_ips.iter().any(|ip| ip.ip_range_uuid == range.uuid);
    if let Some(nic) = nics.iter().find(uses) {
        let text = format!("NIC {} has an address of this range", nic.uuid);
        return Err(Error::new(Code::InUse, text).hint("delete the NICs or their instances first"));
    }
    txn.remove(message.uuid);
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
        ip_range_type: "Normal".into(),
        create_date: txn.now(),
        last_op_date: txn.now(),
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
        if let Some(net) = special::block(*low, *high) {
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
    for other_l3 in txn.children::<L3Network>("l2NetworkUuid", l3.l2_network_uuid.uuid()) {
        for range in txn.children::<IpRange>("l3NetworkUuid", other_l3.uuid.uuid()) {
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

/// An address as a number, in which IPv4 and IPv6 do not collide (RFC 4291 §2.5.5.2).
fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn from_number(number: u128) -> Ipv4Addr {
    let [.., a, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

fn ip_from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(from_number(number)),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

fn claim_prefix(l2: Id<L2VxlanNetwork>) -> String {
    format!("ip/{l2}/")
}

/// The claim that makes an address unique on its L2 network.
pub(crate) fn claim_key(l2: Id<L2VxlanNetwork>, ip: IpAddr) -> String {
    format!("{}{:032x}", claim_prefix(l2), to_number(ip))
}

/// Gives the NIC one address of each family that the L3 network has: the wanted ones, else a
/// random free one (ZStack's default strategy), so that a freed address rests.
pub(crate) fn give(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    owner: Id<VmNic>,
    wanted: &[IpAddr],
) -> Result<Vec<UsedIp>> {
    let ranges = txn.children::<IpRange>("l3NetworkUuid", l3.uuid.uuid());
    for ip in wanted {
        if !ranges.iter().any(|r| (r.start_ip..=r.end_ip).contains(ip)) {
            let error =
                Error::field("ip", format!("{ip} is in no range of L3 network {}", l3.uuid));
            return Err(error.hint("QueryIpRange shows the ranges; AddIpRange adds one"));
        }
    }
    let mut given = Vec::new();
    for version in [l3.ip_version, 10 - l3.ip_version] {
        let mut family: Vec<IpRange> =
            ranges.iter().filter(|r| r.ip_version == version).cloned().collect();
        family.sort_by_key(|range| to_number(range.start_ip));
        if family.is_empty() {
            continue;
        }
        let choice = wanted.iter().find(|ip| ip.is_ipv4() == (version == 4));
        let (range, ip) = match choice {
            Some(ip) => (range_of(&family, *ip), *ip),
            None => free_address(txn, l3, &family)?,
        };
        claim(txn, l3.l2_network_uuid, ip, owner.uuid())?;
        given.push(used_ip(range, ip));
    }
    if given.is_empty() {
        let error = Error::new(Code::IpExhausted, format!("L3 network {} has no range", l3.uuid));
        return Err(error.on_field("l3NetworkUuid").hint("add one with AddIpRange"));
    }
    Ok(given)
}

fn range_of(family: &[IpRange], ip: IpAddr) -> &IpRange {
    let inside = |range: &&IpRange| (range.start_ip..=range.end_ip).contains(&ip);
    family.iter().find(inside).unwrap_or(&family[0])
}

fn used_ip(range: &IpRange, ip: IpAddr) -> UsedIp {
    UsedIp {
        ip_range_uuid: range.uuid,
        l3_network_uuid: range.l3_network_uuid,
        ip_version: range.ip_version,
        ip,
        netmask: range.netmask,
        prefix_len: range.prefix_len,
        gateway: range.gateway,
    }
}

fn claim(txn: &mut Txn<'_>, l2: Id<L2VxlanNetwork>, ip: IpAddr, owner: Uuid) -> Result<()> {
    txn.claim(&claim_key(l2, ip), owner).map_err(|other| {
        let held = txn.record(Kind::VmNic, other).is_none();
        let (text, hint) = match held {
            true => (
                format!("{ip} is still being released by NIC {}", other.simple()),
                "hosts must acknowledge its removal first; QueryHost status!=Connected shows who is missing",
            ),
            false => (
                format!("{ip} belongs to NIC {}", other.simple()),
                "choose another address, or leave it out",
            ),
        };
        Error::new(Code::IpExhausted, text).on_field("ip").hint(hint)
    })
}

/// A free address: some random picks, then the lowest one that is free.
fn free_address<'r>(
    txn: &Txn<'_>,
    l3: &L3Network,
    family: &'r [IpRange],
) -> Result<(&'r IpRange, IpAddr)> {
    let span = |range: &IpRange| (to_number(range.start_ip), to_number(range.end_ip));
    for _ in 0..allocate::RANDOM_PICKS {
        let random = txn.random_uuid().as_u128();
        let index = usize::try_from(random >> 96).unwrap_or(0) % family.len();
        let range = &family[index];
        let ip = ip_from_number(allocate::pick(span(range), random), range.start_ip);
        if txn.claim_owner(&claim_key(l3.l2_network_uuid, ip)).is_none() {
            return Ok((range, ip));
        }
    }
    let prefix = claim_prefix(l3.l2_network_uuid);
    let number = |key: String| u128::from_str_radix(key.strip_prefix(&prefix)?, 16).ok();
    let taken: Vec<u128> = txn.claims_with_prefix(&prefix).filter_map(number).collect();
    for range in family {
        if let Some(free) = allocate::lowest_free(span(range), &taken) {
            return Ok((range, ip_from_number(free, range.start_ip)));
        }
    }
    let version = family.first().map_or(4, |range| range.ip_version);
    let text = format!("L3 network {} has no free IPv{version} address", l3.uuid);
    let hint = "add addresses with AddIpRange, or delete unused NICs";
    Err(Error::new(Code::IpExhausted, text).on_field("l3NetworkUuid").hint(hint))
}
