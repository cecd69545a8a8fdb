//! Questions about the addresses of L3 networks. The work grows with what is held, reserved and asked
//! for, never with the size of a range.

use std::{collections::BTreeMap, net::IpAddr};

use model::{
    Claim, Code, Error, Id, Kind, Resource, Result,
    resource::{
        ip_looks::{
            AddressOrder, AddressUser, CheckIpAvailability, GetFreeIp, GetIpAddressCapacity,
            GetL3NetworkIpStatistic, OrderDirection,
        },
        ip_range::{IpRange, IpRangeType},
        l2_network::L2Network,
        l3_network::L3Network,
        reserved_ip_range::ReservedIpRange,
        used_ip::UsedIp,
        vip::Vip,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
};
use serde_json::{Map, Value, json};
use store::Read;

use crate::{
    Look,
    addresses::{self, Space},
    operation::{Operation, look},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![look(free), look(availability), look(capacity), look(statistic)]
}

/// Free addresses of one answer, if the message does not say how many.
const FREE_DEFAULT: u32 = 100;

/// Addresses of a page of statistics, if the message does not say how many.
const PAGE_DEFAULT: u32 = 20;

fn free(look: &Look<'_>, message: GetFreeIp) -> Result<Value> {
    let range = message.ip_range_uuid.map(|id| look.get(id)).transpose()?;
    let l3 = match (message.l3_network_uuid, &range) {
        (Some(l3), Some(range)) if range.l3_network_uuid != l3 => {
            let text = format!("{} is a range of L3 network {}", range.uuid, range.l3_network_uuid);
            return Err(Error::field("ipRangeUuid", text).hint("leave l3NetworkUuid out"));
        }
        (Some(l3), _) => look.get(l3)?,
        (None, Some(range)) => look.get(range.l3_network_uuid)?,
        (None, None) => {
            let error = Error::field("l3NetworkUuid", "or ipRangeUuid is required");
            return Err(error.hint("name the network or the range"));
        }
    };
    let own = range.as_ref().map_or(l3.ip_version, |range| range.ip_version);
    let version = message.ip_version.unwrap_or(own);
    if let Some(start) = message.start.filter(|start| start.is_ipv4() != (version == 4)) {
        let text = format!("{start} is not of IPv{version}");
        return Err(Error::field("start", text).hint("give ipVersion with it"));
    }
    let of_type = match &range {
        Some(range) => range.ip_range_type,
        None => message.ip_range_type.unwrap_or(IpRangeType::Normal),
    };
    let ranges = match range {
        Some(range) => vec![range],
        None => children(look, IpRange::L3_NETWORK, l3.uuid),
    };
    let ranges = ranges.into_iter().filter(|range| range.ip_range_type == of_type);
    let reserved = children(look, ReservedIpRange::L3_NETWORK, l3.uuid);
    let space = Space::new(l3.l2_network_uuid, version, ranges, reserved);
    let limit = message.limit.unwrap_or(FREE_DEFAULT);
    Ok(json!({"inventories": some_free(look, &space, message.start, limit)}))
}

fn some_free(look: &Look<'_>, space: &Space, start: Option<IpAddr>, limit: u32) -> Vec<Value> {
    let mut found = Vec::new();
    let lowest = space.ranges().first().map(|range| range.start_ip);
    let mut from = start.or(lowest);
    for _ in 0..limit {
        let Some(ip) =
            from.and_then(|from| space.first_free(|claim| look.snapshot().first_free(claim), from))
        else {
            break;
        };
        let Some(range) = space.range_with(ip) else { break };
        let mut shown = json!({"ipRangeUuid": range.uuid, "ip": ip, "gateway": range.gateway});
        if let Some(netmask) = range.netmask {
            shown["netmask"] = json!(netmask);
        }
        found.push(shown);
        from = addresses::next(space.l2(), ip);
    }
    found
}

fn availability(look: &Look<'_>, message: CheckIpAvailability) -> Result<Value> {
    if message.arp_check == Some(true) {
        let error = Error::field("arpCheck", "hosts do not ask the network for addresses yet");
        return Err(error.hint("give false, or leave it out"));
    }
    let l3 = look.get(message.l3_network_uuid)?;
    let reason = why_not(look, &l3, message.ip, message.ip_range_check.unwrap_or(true));
    Ok(match reason {
        None => json!({"available": true}),
        Some(reason) => json!({"available": false, "reason": reason}),
    })
}

/// What speaks against giving out an address: ZStack's words, and two of our own.
fn why_not(
    look: &Look<'_>,
    l3: &L3Network,
    ip: IpAddr,
    must_be_in_range: bool,
) -> Option<&'static str> {
    let ranges: Vec<IpRange> = children(look, IpRange::L3_NETWORK, l3.uuid);
    let normal = |range: &&IpRange| range.ip_range_type == IpRangeType::Normal;
    if ranges.iter().filter(normal).any(|range| range.gateway == ip) {
        return Some("GATEWAY");
    }
    let reserved = children(look, ReservedIpRange::L3_NETWORK, l3.uuid);
    let version = if ip.is_ipv4() { 4 } else { 6 };
    let space = Space::new(l3.l2_network_uuid, version, ranges, reserved);
    if must_be_in_range && space.range_with(ip).is_none() {
        return Some("NO_IN_RANGE");
    }
    match look.snapshot().holder(&Claim::Ip(l3.l2_network_uuid, ip)) {
        Some((Kind::Release, _)) => Some("RELEASE_PENDING"),
        Some(_) => Some("USED"),
        None => space.reserved_with(ip).map(|_| "RESERVED"),
    }
}

/// How many addresses there are, and what has become of them.
#[derive(Default)]
struct Capacity {
    total: u128,
    used: u128,
    /// Neither used nor to be given out.
    withheld: u128,
}

fn capacity(look: &Look<'_>, message: GetIpAddressCapacity) -> Result<Value> {
    let ranges = ranges_of(look, &message)?;
    let mut whole = Capacity::default();
    let mut reserved: BTreeMap<Id<L3Network>, Vec<ReservedIpRange>> = BTreeMap::new();
    for range in ranges.into_values() {
        let of_l3 = reserved
            .entry(range.l3_network_uuid)
            .or_insert_with(|| children(look, ReservedIpRange::L3_NETWORK, range.l3_network_uuid));
        let Ok(l3) = look.get(range.l3_network_uuid) else { continue };
        let blocked = of_l3.iter().cloned();
        let space = Space::new(l3.l2_network_uuid, range.ip_version, [], blocked);
        add(look, &mut whole, (&space, &range));
    }
    let Capacity { total, used, withheld } = whole;
    let available = total.saturating_sub(used).saturating_sub(withheld);
    Ok(json!({
        "totalCapacity": number(total),
        "availableCapacity": number(available),
        "usedIpAddressNumber": number(used),
    }))
}

/// ZStack's numbers are of 64 bits; a network of IPv6 has more addresses than they can say.
fn number(count: u128) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add(look: &Look<'_>, whole: &mut Capacity, (space, range): (&Space, &IpRange)) {
    let of_range = addresses::size(range.start_ip, range.end_ip);
    whole.total = whole.total.saturating_add(of_range);
    let used = look.count(UsedIp::IP_RANGE, range.uuid);
    whole.used = whole.used.saturating_add(used.into());
    for (low, high) in space.reserved_of(range) {
        let held = held(look, space.l2(), (low, high));
        let kept = addresses::size(low, high).saturating_sub(held);
        whole.withheld = whole.withheld.saturating_add(kept);
    }
}

/// How many addresses from `low` to `high` somebody holds.
fn held(look: &Look<'_>, l2: Id<L2Network>, (low, high): (IpAddr, IpAddr)) -> u128 {
    let (mut count, mut from) = (0, Some(low));
    let last = Claim::Ip(l2, high);
    while let Some(at) = from.filter(|at| *at <= high) {
        match look.snapshot().first_held(&Claim::Ip(l2, at), &last) {
            Some((Claim::Ip(_, ip), _)) => {
                count += 1;
                from = addresses::next(l2, ip);
            }
            _ => break,
        }
    }
    count
}

/// The ranges that a message is about, each once.
fn ranges_of(
    look: &Look<'_>,
    message: &GetIpAddressCapacity,
) -> Result<BTreeMap<Id<IpRange>, IpRange>> {
    let GetIpAddressCapacity { zone_uuids, l3_network_uuids, ip_range_uuids, all } = message;
    let named =
        !zone_uuids.is_empty() || !l3_network_uuids.is_empty() || !ip_range_uuids.is_empty();
    if !named && *all != Some(true) {
        let error = Error::field("all", "or a list of zones, L3 networks or ranges is required");
        return Err(error.hint("give zoneUuids, l3NetworkUuids or ipRangeUuids, or all=true"));
    }
    if !named {
        let ids = look.snapshot().ids(IpRange::KIND);
        let ranges = ids.filter_map(|id| look.get(Id::new(id)).ok());
        return Ok(ranges.map(|range: IpRange| (range.uuid, range)).collect());
    }
    let mut l3s = l3_network_uuids.clone();
    for zone in zone_uuids {
        l3s.extend(look.child_ids(L3Network::ZONE, *zone));
    }
    let mut ranges: Vec<IpRange> =
        l3s.into_iter().flat_map(|l3| children(look, IpRange::L3_NETWORK, l3)).collect();
    ranges.extend(ip_range_uuids.iter().filter_map(|id| look.get(*id).ok()));
    Ok(ranges.into_iter().map(|range| (range.uuid, range)).collect())
}

/// Most addresses that a statistic looks at; a query looks at no more.
const LOOKS_MAX: usize = 2_000_000;

fn statistic(look: &Look<'_>, message: GetL3NetworkIpStatistic) -> Result<Value> {
    let l3 = look.get(message.l3_network_uuid)?;
    if look.count(UsedIp::L3_NETWORK, l3.uuid) > LOOKS_MAX as u64 {
        let text = format!("over {LOOKS_MAX} addresses of L3 network {} are taken", l3.uuid);
        let hint = "QueryIpAddress with a condition lists some of them";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    let wanted = |used: &UsedIp| {
        let of_user = match message.resource_type.unwrap_or(AddressUser::All) {
            AddressUser::All => true,
            AddressUser::Vm => used.used_by.kind == Kind::VmNic,
            AddressUser::Vip => used.used_by.kind == Kind::Vip,
        };
        of_user && message.ip.is_none_or(|ip| ip == used.ip)
    };
    let mut found = Vec::new();
    for id in look.child_ids(UsedIp::L3_NETWORK, l3.uuid) {
        let Some(record) = look.snapshot().get(UsedIp::KIND, id.uuid()) else { continue };
        let Some(used) = UsedIp::of(&record).filter(|used| wanted(used)) else { continue };
        found.push((record.meta.created, used.ip, id));
    }
    match message.sort_by.unwrap_or(AddressOrder::Ip) {
        AddressOrder::Ip => found.sort_unstable_by_key(|(_, ip, _)| *ip),
        AddressOrder::Time => found.sort_unstable(),
    }
    if message.sort_direction == Some(OrderDirection::Descending) {
        found.reverse();
    }
    let total = found.len();
    let start = usize::try_from(message.start.unwrap_or(0)).unwrap_or(usize::MAX);
    let limit = usize::try_from(message.limit.unwrap_or(PAGE_DEFAULT)).unwrap_or(usize::MAX);
    let page = found.into_iter().skip(start).take(limit);
    let page: Vec<Value> = page.filter_map(|(_, _, id)| user(look, id)).collect();
    let mut answer = json!({"ipStatistics": page});
    if message.reply_with_count == Some(true) {
        answer["total"] = json!(total);
    }
    Ok(answer)
}

/// An address with who has it, as far as the caller may know.
fn user(look: &Look<'_>, id: Id<UsedIp>) -> Option<Value> {
    let record = look.snapshot().get(UsedIp::KIND, id.uuid())?;
    let used = UsedIp::of(&record)?;
    let mut shown = Map::new();
    shown.insert("ip".into(), json!(used.ip));
    shown.insert("state".into(), json!(used.state()));
    shown.insert("createDate".into(), json!(record.meta.created.to_string()));
    let nic = used.used_by.id::<VmNic>();
    let kinds: &[&str] = match used.used_by.kind {
        Kind::VmNic => &["VM"],
        Kind::DhcpServer => &["DHCP"],
        Kind::Vip => &["VIP"],
        _ => &[],
    };
    shown.insert("resourceTypes".into(), json!(kinds));
    if let Some(nic) = nic.and_then(|nic| look.get(nic).ok()) {
        shown.insert("vmNicUuid".into(), json!(nic.uuid));
        let instance = nic.vm_instance_uuid.and_then(|instance| look.get(instance).ok());
        if let Some(VmInstance { uuid, name, .. }) = instance {
            shown.insert("vmInstanceUuid".into(), json!(uuid));
            shown.insert("vmInstanceName".into(), json!(name));
        }
    }
    if let Some(vip) = used.used_by.id::<Vip>().and_then(|vip| look.get(vip).ok()) {
        shown.insert("vipUuid".into(), json!(vip.uuid));
        shown.insert("vipName".into(), json!(vip.name));
    }
    Some(Value::Object(shown))
}

/// What hangs on something that the caller may see.
fn children<C: Resource, P: Resource>(
    look: &Look<'_>,
    relation: model::Relation<C, P>,
    parent: Id<P>,
) -> Vec<C> {
    let records = look.child_ids(relation, parent);
    let records = records.filter_map(|id| look.snapshot().get(C::KIND, id.uuid()));
    records.filter_map(|record| C::of(&record).cloned()).collect()
}
