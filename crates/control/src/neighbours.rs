//! The IP ranges, routers and addresses of an L2 network, found by their claims: each question is one look-up,
//! however many ranges there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::{
    Claim, Id, Kind, Record, Resource,
    resource::{ip_range::IpRange, l2_network::L2Network, l3_network::L3Network, vm_nic::VmNic},
};
use store::Read;
use uuid::Uuid;

/// The range with the address `ip`, else the first one above it, of the same family.
fn from(read: &impl Read<Record>, l2: Id<L2Network>, ip: IpAddr) -> Option<IpRange> {
    let last = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
    };
    let end = |ip| Claim::RangeEnd(l2, ip);
    // Ranges do not overlap. So the first end from `ip` on is that of the range with it, or the start
    // of the next one.
    let (_, (kind, uuid)) = read.first_held(&end(ip), &end(last))?;
    range(read, (kind, uuid))
}

/// The first range that has addresses from `low` to `high`.
pub(crate) fn range_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
) -> Option<IpRange> {
    from(read, l2, low).filter(|range| range.start_ip <= high)
}

/// The range for NICs whose gateway is the first one from `low` to `high`.
pub(crate) fn gateway_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
) -> Option<IpRange> {
    let of = |ip, range| Claim::Gateway(l2, ip, Id::new(range));
    let (_, holder) = read.first_held(&of(low, Uuid::nil()), &of(high, Uuid::max()))?;
    range(read, holder)
}

/// The first router of an L3 network from `low` to `high`, with that network.
pub(crate) fn router_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
) -> Option<(IpAddr, Id<L3Network>)> {
    match read.first_held(&Claim::Router(l2, low), &Claim::Router(l2, high))? {
        (Claim::Router(_, ip), (_, uuid)) => Some((ip, Id::new(uuid))),
        _ => None,
    }
}

/// The first address from `low` to `high` that somebody has, or that hosts have not let go yet.
pub(crate) fn address_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
) -> Option<IpAddr> {
    match read.first_held(&Claim::Ip(l2, low), &Claim::Ip(l2, high))? {
        (Claim::Ip(_, ip), _) => Some(ip),
        _ => None,
    }
}

/// An address that NICs other than `but` share, or have not let go yet, from `low` to `high`; and one of
/// those.
pub(crate) fn sharer_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
    but: Option<Id<VmNic>>,
) -> Option<(IpNet, (Kind, Uuid))> {
    let last = Claim::Sharer(l2, high, Id::new(Uuid::max()));
    let mut from = Claim::Sharer(l2, low, Id::new(Uuid::nil()));
    loop {
        let (claim, holder) = read.first_held(&from, &last)?;
        let Claim::Sharer(_, ip, nic) = claim else { return None };
        if but != Some(nic) {
            return Some((ip.into(), holder));
        }
        // The next of that address, or the first of the next one. A NIC has few of its own.
        let (next, _) = nic.uuid().as_u128().overflowing_add(1);
        from = Claim::Sharer(l2, ip, Id::new(Uuid::from_u128(next)));
    }
}

/// What either of both finds.
pub(crate) fn routed_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    inside: (IpAddr, IpAddr),
    but: Option<Id<VmNic>>,
) -> Option<(IpNet, (Kind, Uuid))> {
    prefix_in(read, l2, inside, but).or_else(|| sharer_in(read, l2, inside, but))
}

/// A prefix of several addresses that somebody else than the NIC `but` has, or has not let go yet, with addresses from
/// `low` to `high`; and who. That of all addresses is none: whatever else there is comes before it.
pub(crate) fn prefix_in(
    read: &impl Read<Record>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
    but: Option<Id<VmNic>>,
) -> Option<(IpNet, (Kind, Uuid))> {
    let of_other = |(_, uuid): &(Kind, Uuid)| but.is_none_or(|nic| nic.uuid() != *uuid);
    // Those that begin below, or there: of each length there is one.
    let around = (1..=IpNet::from(low).max_prefix_len()).find_map(|bits| {
        let net = IpNet::new(low, bits).ok()?.trunc();
        let holder = read.holder(&Claim::Prefix(l2, net.addr(), bits)).filter(of_other)?;
        Some((net, holder))
    });
    around.or_else(|| {
        // Those that begin further up. A NIC has so few that its own may be looked at.
        let (mut from, last) = ((low, 1), Claim::Prefix(l2, high, u8::MAX));
        loop {
            let (claim, holder) = read.first_held(&Claim::Prefix(l2, from.0, from.1), &last)?;
            let Claim::Prefix(_, ip, bits) = claim else { return None };
            if of_other(&holder) {
                return Some((IpNet::new(ip, bits).ok()?, holder));
            }
            from = (ip, bits + 1);
        }
    })
}

/// One of the ranges for NICs of an L3 network and a family: all of them have one subnet.
pub(crate) fn subnet_of(
    read: &impl Read<Record>,
    l3: Id<L3Network>,
    ip_version: u8,
) -> Option<IpRange> {
    let of = |range| Claim::Subnet(l3, ip_version, Id::new(range));
    let (_, holder) = read.first_held(&of(Uuid::nil()), &of(Uuid::max()))?;
    range(read, holder)
}

fn range(read: &impl Read<Record>, (kind, uuid): (Kind, Uuid)) -> Option<IpRange> {
    read.get(kind, uuid).as_deref().and_then(IpRange::of).cloned()
}
