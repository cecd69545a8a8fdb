//! Which address a NIC gets. Free ones are found between what is held: nothing here walks a range.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use model::{
    AnyId, Claim, Code, Error, Id, Mac, Result,
    resource::{
        ip_cursor::IpCursor,
        ip_range::{AddressMode, IpRange, IpRangeType},
        l2_network::L2Network,
        l3_network::{IpAllocatorStrategy, L3Network},
        reserved_ip_range::ReservedIpRange,
        used_ip::UsedIp,
    },
};
use uuid::Uuid;

use crate::Txn;

/// Ranges of one address family on one L2 network, and what is kept out of them.
pub(crate) struct Space {
    l2: Id<L2Network>,
    /// In their order.
    ranges: Vec<IpRange>,
    /// First and last of each; in their order, and apart.
    reserved: Vec<(IpAddr, IpAddr)>,
}

impl Space {
    /// Those of `ranges` and `reserved` that are of this version of IP.
    pub(crate) fn new(
        l2: Id<L2Network>,
        version: u8,
        ranges: impl IntoIterator<Item = IpRange>,
        reserved: impl IntoIterator<Item = ReservedIpRange>,
    ) -> Self {
        let mut ranges: Vec<_> =
            ranges.into_iter().filter(|range| range.ip_version == version).collect();
        ranges.sort_by_key(|range| range.start_ip);
        let reserved = reserved.into_iter().filter(|range| range.ip_version == version);
        let mut reserved: Vec<_> = reserved.map(|range| (range.start_ip, range.end_ip)).collect();
        reserved.sort_unstable();
        Self { l2, ranges, reserved }
    }

    /// The L2 network.
    pub(crate) const fn l2(&self) -> Id<L2Network> {
        self.l2
    }

    /// Its ranges, in their order.
    pub(crate) fn ranges(&self) -> &[IpRange] {
        &self.ranges
    }

    /// The range that has an address.
    pub(crate) fn range_with(&self, ip: IpAddr) -> Option<&IpRange> {
        let at = self.ranges.partition_point(|range| range.start_ip <= ip).checked_sub(1)?;
        self.ranges.get(at).filter(|range| ip <= range.end_ip)
    }

    /// First and last of the addresses around this one that are reserved.
    pub(crate) fn reserved_with(&self, ip: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let at = self.reserved.partition_point(|(start, _)| *start <= ip).checked_sub(1)?;
        self.reserved.get(at).copied().filter(|(_, end)| ip <= *end)
    }

    /// The parts of a range that are reserved.
    pub(crate) fn reserved_of<'a>(
        &'a self,
        range: &'a IpRange,
    ) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
        let inside = |(low, high): &(IpAddr, IpAddr)| {
            let (low, high) = ((*low).max(range.start_ip), (*high).min(range.end_ip));
            (low <= high).then_some((low, high))
        };
        self.reserved.iter().filter_map(inside)
    }

    /// The first address from `from` on that can be given out: in a range, not reserved, and held by
    /// nobody, as `first_free` tells. The work grows with the number of ranges and reserved ranges.
    pub(crate) fn first_free(
        &self,
        first_free: impl Fn(&Claim) -> Option<Claim>,
        from: IpAddr,
    ) -> Option<IpAddr> {
        let after = |range: &&IpRange| from <= range.end_ip;
        self.ranges.iter().filter(after).find_map(|range| {
            let mut at = from.max(range.start_ip);
            loop {
                let Claim::Ip(_, ip) = first_free(&Claim::Ip(self.l2, at))? else { return None };
                if ip > range.end_ip {
                    return None;
                }
                match self.reserved_with(ip) {
                    None => return Some(ip),
                    Some((_, last)) => at = next(self.l2, last)?,
                }
            }
        })
    }

    fn lowest(&self) -> Option<IpAddr> {
        self.ranges.first().map(|range| range.start_ip)
    }
}

/// The address that follows.
pub(crate) fn next(l2: Id<L2Network>, ip: IpAddr) -> Option<IpAddr> {
    match Claim::Ip(l2, ip).next() {
        Some(Claim::Ip(_, next)) => Some(next),
        _ => None,
    }
}

/// How many addresses there are from `low` to `high`; `u128::MAX` for as many and one more.
pub(crate) fn size(low: IpAddr, high: IpAddr) -> u128 {
    number(high).saturating_sub(number(low)).saturating_add(1)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The addresses of an L3 network that NICs may have, of one version of IP.
fn space(txn: &Txn<'_>, l3: &L3Network, version: u8) -> Space {
    let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid).into_iter();
    let ranges = ranges.filter(|range| range.ip_range_type == IpRangeType::Normal);
    let reserved = txn.children(ReservedIpRange::L3_NETWORK, l3.uuid);
    Space::new(l3.l2_network_uuid, version, ranges, reserved)
}

/// Gives `user`, whose MAC is `mac`, one address of each family that the L3 network has: the wanted
/// ones, else free ones. Returns the one of the network's own family first.
pub(crate) fn give(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    user: AnyId,
    wanted: &[IpAddr],
    mac: Mac,
) -> Result<Vec<Id<UsedIp>>> {
    let spaces = [l3.ip_version, 10 - l3.ip_version].map(|version| space(txn, l3, version));
    for ip in wanted {
        if spaces.iter().all(|space| space.range_with(*ip).is_none()) {
            let rule = format!("{ip} is in no range of L3 network {}", l3.uuid);
            let hint = "QueryIpRange shows the ranges; AddIpRange adds one";
            return Err(Error::field("ip", rule).hint(hint));
        }
    }
    let mut given = Vec::new();
    for space in spaces {
        let Some(first) = space.ranges.first() else { continue };
        let choice = wanted.iter().find(|ip| ip.is_ipv4() == first.start_ip.is_ipv4()).copied();
        let choice = own_address(first, mac, choice)?.or(choice);
        let ip = match choice {
            Some(ip) => required(&space, l3, ip)?,
            None => free(txn, l3, &space)?,
        };
        let Some(range) = space.range_with(ip) else { continue };
        given.push(take(txn, range, l3.l2_network_uuid, (ip, user))?);
    }
    if given.is_empty() {
        return Err(no_range(l3));
    }
    Ok(given)
}

/// Gives `user` this address of an L3 network.
pub(crate) fn give_one(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    user: AnyId,
    ip: IpAddr,
) -> Result<Id<UsedIp>> {
    let space = space(txn, l3, if ip.is_ipv4() { 4 } else { 6 });
    let Some(range) = space.range_with(ip) else {
        let rule = format!("{ip} is in no range of L3 network {}", l3.uuid);
        let hint = "QueryIpRange shows the ranges; AddIpRange adds one";
        return Err(Error::field("ip", rule).hint(hint));
    };
    let ip = required(&space, l3, ip)?;
    take(txn, range, l3.l2_network_uuid, (ip, user))
}

/// Which address a VIP is to have: this one, else a free one, by a strategy of its own if there is one.
pub(crate) struct VipAddress {
    pub(crate) ip_version: u8,
    /// The range to take it from.
    pub(crate) range: Option<IpRange>,
    pub(crate) required: Option<IpAddr>,
    pub(crate) strategy: Option<IpAllocatorStrategy>,
}

/// Gives a VIP an address of an L3 network. Where no range is named, a free one is taken from its address
/// pools first, which NICs get nothing of.
pub(crate) fn give_vip(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    user: AnyId,
    wanted: VipAddress,
) -> Result<Id<UsedIp>> {
    let reserved = txn.children(ReservedIpRange::L3_NETWORK, l3.uuid);
    let ranges = match wanted.range {
        Some(range) => vec![range],
        None => txn.children(IpRange::L3_NETWORK, l3.uuid),
    };
    let of_type = |of_type| {
        let ranges = ranges.iter().filter(|range| range.ip_range_type == of_type).cloned();
        Space::new(l3.l2_network_uuid, wanted.ip_version, ranges, reserved.clone())
    };
    let spaces = [IpRangeType::AddressPool, IpRangeType::Normal].map(of_type);
    let strategy = wanted.strategy.unwrap_or(l3.ip_allocator_strategy);
    let by_strategy = L3Network { ip_allocator_strategy: strategy, ..l3.clone() };
    let (range, ip) = match wanted.required {
        Some(ip) => required_of(&spaces, l3, ip)?,
        None => free_of(txn, &by_strategy, &spaces)?,
    };
    take(txn, &range, l3.l2_network_uuid, (ip, user))
}

/// Checks an address as [`required`] does, wherever it lies.
fn required_of(spaces: &[Space], l3: &L3Network, ip: IpAddr) -> Result<(IpRange, IpAddr)> {
    let around = spaces.iter().find_map(|space| Some((space, space.range_with(ip)?)));
    let Some((space, range)) = around else {
        let text = format!("{ip} is in no such range of L3 network {}", l3.uuid);
        let hint = "QueryIpRange shows the ranges; AddIpRange adds one";
        return Err(Error::new(Code::IpExhausted, text).on_field("ip").hint(hint));
    };
    Ok((range.clone(), required(space, l3, ip)?))
}

/// A free address of the first of some spaces that has one.
fn free_of(txn: &mut Txn<'_>, l3: &L3Network, spaces: &[Space]) -> Result<(IpRange, IpAddr)> {
    let mut why = no_range(l3);
    for space in spaces.iter().filter(|space| !space.ranges.is_empty()) {
        match free(txn, l3, space) {
            Ok(ip) => {
                if let Some(range) = space.range_with(ip) {
                    return Ok((range.clone(), ip));
                }
            }
            Err(error) if error.code == Code::IpExhausted => why = error,
            Err(error) => return Err(error),
        }
    }
    Err(why)
}

fn no_range(l3: &L3Network) -> Error {
    let error = Error::new(Code::IpExhausted, format!("L3 network {} has no range", l3.uuid));
    error.on_field("l3NetworkUuid").hint("add one with AddIpRange")
}

/// Gives `user` a free IPv4 address of an L3 network that has at least so many. `None`: it has fewer, or
/// none is free.
pub(crate) fn give_spare(
    txn: &mut Txn<'_>,
    l3: &L3Network,
    user: AnyId,
    least: u128,
) -> Result<Option<Id<UsedIp>>> {
    let space = space(txn, l3, 4);
    let sizes = space.ranges.iter().map(|range| size(range.start_ip, range.end_ip));
    if sizes.fold(0, u128::saturating_add) < least {
        return Ok(None);
    }
    let ip = match free(txn, l3, &space) {
        Err(error) if error.code == Code::IpExhausted => return Ok(None),
        found => found?,
    };
    let Some(range) = space.range_with(ip) else { return Ok(None) };
    take(txn, range, l3.l2_network_uuid, (ip, user)).map(Some)
}

/// The addresses of a NIC that its instance makes of another MAC, and what it makes of this one.
pub(crate) fn made_of_mac(txn: &Txn<'_>, user: AnyId, mac: Mac) -> Vec<(UsedIp, IpAddr)> {
    let used = txn.used_by(user).into_iter().filter_map(|used| txn.find(used));
    let made = used.filter_map(|used: UsedIp| {
        let range: IpRange = txn.find(used.ip_range_uuid)?;
        // Nothing is wanted, so nothing is refused.
        let own = own_address(&range, mac, None).ok().flatten()?;
        (own != used.ip).then_some((used, own))
    });
    made.collect()
}

/// Refuses an address that the instance with this MAC would not use.
pub(crate) fn check_own(txn: &Txn<'_>, l3: &L3Network, mac: Mac, ip: IpAddr) -> Result<()> {
    let space = space(txn, l3, if ip.is_ipv4() { 4 } else { 6 });
    space.ranges.first().map_or(Ok(()), |range| own_address(range, mac, Some(ip)).map(drop))
}

/// Those of some addresses that NICs of a network may have.
pub(crate) fn inside(txn: &Txn<'_>, l3: &L3Network, ips: &[IpAddr]) -> Vec<IpAddr> {
    let spaces = [4, 6].map(|version| space(txn, l3, version));
    let has = |ip: &IpAddr| spaces.iter().any(|space| space.range_with(*ip).is_some());
    ips.iter().copied().filter(has).collect()
}

/// The address that an instance makes for itself where nobody gives it one (RFC 4862), which must be
/// the wanted one if there is one: it would be kept from using it otherwise.
fn own_address(range: &IpRange, mac: Mac, wanted: Option<IpAddr>) -> Result<Option<IpAddr>> {
    let own = match range.address_mode {
        Some(AddressMode::Slaac | AddressMode::Stateless) => made_of(range.network_cidr, mac),
        Some(AddressMode::Stateful) | None => return Ok(None),
    };
    match wanted {
        Some(wanted) if wanted != own => {
            let rule = format!("{wanted} is not what an instance with the MAC {mac} makes itself");
            let hint = format!("its address is {own}: the network's instances make their own");
            Err(Error::field("ip", rule).hint(hint))
        }
        Some(_) | None => Ok(Some(own)),
    }
}

/// The address of a MAC in a network of 64 bits (RFC 4291, appendix A).
fn made_of(net: IpNet, mac: Mac) -> IpAddr {
    let Mac([a, b, c, d, e, f]) = mac;
    let own = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    IpAddr::V6(Ipv6Addr::from(number(net.network()) | u128::from(own)))
}

/// Checks an address that has to be this one. That nobody holds it shows when it is taken.
fn required(space: &Space, l3: &L3Network, ip: IpAddr) -> Result<IpAddr> {
    if space.range_with(ip).is_none() {
        let text = format!("{ip} is in no range of L3 network {}", l3.uuid);
        let hint = "its instances make their addresses of their MACs: add a range with all of them";
        return Err(Error::new(Code::IpExhausted, text).on_field("ip").hint(hint));
    }
    if let Some((low, high)) = space.reserved_with(ip) {
        let text = format!("{ip} is reserved ({low} to {high})");
        let hint = "choose another address, or DeleteReservedIpRange";
        return Err(Error::new(Code::IpExhausted, text).on_field("ip").hint(hint));
    }
    Ok(ip)
}

/// A free address, by the network's strategy.
fn free(txn: &mut Txn<'_>, l3: &L3Network, space: &Space) -> Result<IpAddr> {
    let lowest = space.lowest();
    let start = match l3.ip_allocator_strategy {
        IpAllocatorStrategy::First => lowest,
        IpAllocatorStrategy::Random => random(space, txn.random_uuid().as_u128()),
        IpAllocatorStrategy::AscDelayRecycle => {
            let last = txn.find(cursor_id(l3, space)).map(|cursor: IpCursor| cursor.last);
            last.map_or(lowest, |last| next(l3.l2_network_uuid, last))
        }
    };
    // What is after the start, then what is before it.
    let from = |start: IpAddr| space.first_free(|claim| txn.first_free(claim), start);
    let found = start.and_then(from).or_else(|| lowest.and_then(from));
    let Some(ip) = found else {
        let version = space.ranges.first().map_or(4, |range| range.ip_version);
        let text = format!("L3 network {} has no free IPv{version} address", l3.uuid);
        let hint = "add addresses with AddIpRange, or delete unused NICs";
        return Err(Error::new(Code::IpExhausted, text).on_field("l3NetworkUuid").hint(hint));
    };
    if l3.ip_allocator_strategy == IpAllocatorStrategy::AscDelayRecycle {
        move_cursor(txn, l3, space, ip)?;
    }
    Ok(ip)
}

/// Where the addresses of this family have been given out up to.
fn cursor_id(l3: &L3Network, space: &Space) -> Id<IpCursor> {
    let version = space.ranges.first().map_or(4, |range| range.ip_version);
    Id::new(Uuid::new_v5(&l3.uuid.uuid(), &[version]))
}

fn move_cursor(txn: &mut Txn<'_>, l3: &L3Network, space: &Space, last: IpAddr) -> Result<()> {
    let cursor = IpCursor { uuid: cursor_id(l3, space), l3_network_uuid: l3.uuid, last };
    match txn.find(cursor.uuid) {
        Some(_) => txn.update(cursor),
        None => txn.insert(cursor).map(|_| ()),
    }
}

/// An address of one of the ranges, each with the same chance. If `random` is evenly distributed, so
/// is the address over the range.
fn random(space: &Space, random: u128) -> Option<IpAddr> {
    let at = usize::try_from(random >> 96).unwrap_or(0) % space.ranges.len().max(1);
    let range = space.ranges.get(at)?;
    let (start, offset) = (number(range.start_ip), random % size(range.start_ip, range.end_ip));
    Some(match range.start_ip {
        IpAddr::V4(start) => {
            let offset = u32::try_from(offset).unwrap_or(0);
            IpAddr::V4(u32::from(start).saturating_add(offset).into())
        }
        IpAddr::V6(_) => IpAddr::V6(start.saturating_add(offset).into()),
    })
}

/// An address of a range becomes its user's.
pub(crate) fn take(
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const L2: Id<L2Network> = Id::new(Uuid::from_u128(3));

    fn range(start: IpAddr, end: IpAddr) -> IpRange {
        let version = if start.is_ipv4() { 4 } else { 6 };
        IpRange {
            uuid: Id::new(Uuid::from_u128(1)),
            l3_network_uuid: Id::new(Uuid::from_u128(2)),
            l2_network_uuid: L2,
            name: "r".into(),
            description: None,
            start_ip: start,
            end_ip: end,
            netmask: None,
            gateway: start,
            network_cidr: IpNet::new(start, 8).unwrap(),
            ip_version: version,
            prefix_len: 8,
            address_mode: None,
            ip_range_type: IpRangeType::Normal,
        }
    }

    fn reserved(start: IpAddr, end: IpAddr) -> ReservedIpRange {
        ReservedIpRange {
            uuid: Id::new(Uuid::from_u128(4)),
            l3_network_uuid: Id::new(Uuid::from_u128(2)),
            start_ip: start,
            end_ip: end,
            ip_version: if start.is_ipv4() { 4 } else { 6 },
        }
    }

    fn v6(number: u128) -> IpAddr {
        IpAddr::V6(number.into())
    }

    /// What a store that holds `held` answers.
    fn first_free(held: &BTreeSet<u128>, claim: &Claim) -> Option<Claim> {
        let Claim::Ip(l2, ip) = claim else { return None };
        let mut at = number(*ip);
        while held.contains(&at) {
            at += 1;
        }
        Some(Claim::Ip(*l2, v6(at)))
    }

    proptest! {
        #[test]
        fn a_pick_is_inside_the_range(start: u128, size: u128, number: u128, v4: (u32, u32)) {
            let (low, high) = (v6(start), v6(start.saturating_add(size)));
            let space = Space::new(L2, 6, [range(low, high)], []);
            let picked = random(&space, number).unwrap();
            prop_assert!(low <= picked && picked <= high);
            let (low, high) = (v4.0.min(v4.1), v4.0.max(v4.1));
            let (low, high) = (IpAddr::V4(low.into()), IpAddr::V4(high.into()));
            let space = Space::new(L2, 4, [range(low, high)], []);
            let picked = random(&space, number).unwrap();
            prop_assert!(low <= picked && picked <= high);
        }

        /// Compared with looking at each address.
        #[test]
        fn the_first_free_address_is_the_first_that_nothing_speaks_against(
            cuts in proptest::collection::btree_set(0_u128..64, 2..12),
            blocked in proptest::collection::btree_set(0_u128..64, 0..12),
            held in proptest::collection::btree_set(0_u128..64, 0..40),
            from in 0_u128..70,
        ) {
            let pairs = |numbers: &BTreeSet<u128>| -> Vec<(u128, u128)> {
                let numbers: Vec<_> = numbers.iter().copied().collect();
                numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
            };
            let (ranges, blocked) = (pairs(&cuts), pairs(&blocked));
            let space = Space::new(
                L2,
                6,
                ranges.iter().rev().map(|(low, high)| range(v6(*low), v6(*high))),
                blocked.iter().map(|(low, high)| reserved(v6(*low), v6(*high))),
            );
            let among = |list: &[(u128, u128)], at: u128| {
                list.iter().any(|(low, high)| (*low..=*high).contains(&at))
            };
            let free = |at: &u128| {
                among(&ranges, *at) && !among(&blocked, *at) && !held.contains(at)
            };
            let expected = (from..70).find(free).map(v6);
            let found = space.first_free(|claim| first_free(&held, claim), v6(from));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_instance_makes_its_own_address_of_its_mac() {
        let net: IpNet = "2001:db8::/64".parse().unwrap();
        let own = made_of(net, "fa:4c:00:00:00:01".parse().unwrap());
        assert_eq!(own.to_string(), "2001:db8::f84c:ff:fe00:1");
    }
}
