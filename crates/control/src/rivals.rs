//! Pools of one zone that have VNIs in common.
//!
//! A host tells networks apart by the VNI and the address that a tunnel comes from. So pools may
//! have the same VNIs, as long as no tunnel end is of both: then such networks never meet. What is
//! looked at grows with the ranges of a zone, which an administrator makes one by one, and with the
//! pools that an address is in; not with hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use model::{
    Claim, Code, Error, Id, Kind, Plain, Result,
    resource::{
        l2_network::L2Network, l2_vxlan::VniRange, remote_vtep::RemoteVtep, vtep::Vtep, zone::Zone,
    },
};
use store::{Key, Read};
use uuid::Uuid;

use crate::{Txn, vtep};

/// Most tunnel ends that are looked at to find out whether pools have one in common. Those of pools
/// with subnets of their own take two looks, however many they are.
const LOOKS_MAX: usize = 10_000;

/// The first and the last VNI of a range.
type Vnis = (u32, u32);

/// A pool, and what has VNIs of its ranges besides it.
pub(crate) struct Rivals {
    pub(crate) pool: Id<L2Network>,
    /// The pools, each with a range that overlaps.
    pools: BTreeMap<Id<L2Network>, Vnis>,
    /// A VNI that a pool had which is gone, and that a host may still act on.
    rests: Option<Claim>,
}

impl Rivals {
    /// Those of a pool. The rule rests on the ranges and tunnel ends of all pools of the zone: who
    /// adds one of either calls this, or two servers could decide at once.
    pub(crate) fn of(txn: &mut Txn<'_>, pool: Id<L2Network>) -> Result<Self> {
        let zone = txn.get(pool)?.zone_uuid;
        txn.fence(zone);
        let ranges = txn.children(VniRange::ZONE, zone);
        let (mut own, others): (Vec<_>, Vec<_>) =
            ranges.into_iter().partition(|range| range.l2_network_uuid == pool);
        own.sort_unstable_by_key(|range| range.start_vni);
        let overlaps = |range: &VniRange| {
            let at = own.partition_point(|own| own.end_vni < range.start_vni);
            own.get(at).is_some_and(|own| own.start_vni <= range.end_vni)
        };
        let rivals = others.iter().filter(|range| overlaps(range));
        let pools = rivals.map(|range| (range.l2_network_uuid, vnis(range))).collect();
        // What rests of a pool that is there is a VNI of its ranges: that one is among the rivals.
        let is_gone = |claim: &Claim| match claim {
            Claim::RestingVni(_, _, pool) => txn.find(*pool).is_none(),
            _ => true,
        };
        let rests =
            own.iter().find_map(|range| resting(txn, (zone, pool), vnis(range)).find(is_gone));
        Ok(Self { pool, pools, rests })
    }

    /// Refuses an address of a tunnel end that is in another pool, too, if the two have VNIs in
    /// common; likewise as long as hosts may still act on what another pool had there.
    pub(crate) fn check(&self, txn: &Txn<'_>, (field, address): (&str, IpAddr)) -> Result<()> {
        const WAIT: &str = "hosts must confirm its removal first; QueryHost status!=Connected shows \
                            who is missing";
        let pool = self.pool;
        if let Some(claim) = &self.rests {
            let text = format!("{claim} of pool {pool} is still being released by a deleted pool");
            return Err(Error::new(Code::InUse, text).on_field(field).hint(WAIT));
        }
        if self.pools.is_empty() {
            return Ok(());
        }
        let ends = pools_at(txn, address);
        if let Some((other, (low, high))) = self.pools.iter().find(|(it, _)| ends.contains(it)) {
            let text = format!(
                "{address} is a VTEP of pool {other}, too, whose VNIs {low}-{high} overlap those of \
                 pool {pool}"
            );
            let hint = "take another address or CIDR for one of the pools, or give one other VNIs";
            return Err(Error::field(field, text).hint(hint));
        }
        let Some(other) = self.pools.keys().find(|other| is_former(txn, address, **other)) else {
            return Ok(());
        };
        let text = format!(
            "{address} was a VTEP of pool {other}, which has VNIs of pool {pool}, and hosts may \
             still have networks of it"
        );
        Err(Error::new(Code::InUse, text).on_field(field).hint(WAIT))
    }
}

/// Whether an address was that of a tunnel end of a pool that hosts may still act on.
fn is_former(txn: &Txn<'_>, address: IpAddr, pool: Id<L2Network>) -> bool {
    let at = |vtep| Claim::FormerVtep(address, pool, Id::new(vtep));
    txn.first_held(&at(Uuid::nil()), &at(Uuid::max())).is_some()
}

/// The tunnel ends that a pool loses where it is detached rest until no host has one of its networks
/// any more that it had: such a host sends from this address, with VNIs that another pool may have.
pub(crate) fn leave(txn: &mut Txn<'_>, pool: Id<L2Network>, vteps: &[Vtep]) -> Result<()> {
    let networks = txn.child_ids(L2Network::POOL, pool);
    if networks.is_empty() {
        return Ok(());
    }
    txn.fence(txn.get(pool)?.zone_uuid);
    let claims = vteps.iter().map(|it| Claim::FormerVtep(it.vtep_ip, pool, it.uuid)).collect();
    txn.let_rest(networks.into_iter().map(Id::uuid).collect(), claims).map(|_| ())
}

fn vnis(range: &VniRange) -> Vnis {
    (range.start_vni, range.end_vni)
}

/// The id that follows.
fn after<R>(id: Id<R>) -> Option<Id<R>> {
    Some(Id::new(Uuid::from_u128(id.uuid().as_u128().checked_add(1)?)))
}

/// The VNIs of a range that other pools of the zone had, and that hosts may still act on. Such a pool
/// may be gone, and its hosts be in this one.
pub(crate) fn resting(
    txn: &Txn<'_>,
    (zone, pool): (Id<Zone>, Id<L2Network>),
    (low, high): Vnis,
) -> impl Iterator<Item = Claim> {
    let before = txn.first_held(&Claim::Vni(zone, low), &Claim::Vni(zone, high));
    let end = Claim::RestingVni(zone, high, Id::new(Uuid::max()));
    let first = Claim::RestingVni(zone, low, Id::new(Uuid::nil()));
    let next = move |from: &Claim| txn.first_held(from, &end).map(|(claim, _)| claim);
    let after = {
        let next = next.clone();
        move |claim: &Claim| match claim {
            Claim::RestingVni(_, vni, own) => next(&Claim::RestingVni(zone, *vni, after(*own)?)),
            _ => None,
        }
    };
    let all = iter::successors(next(&first), after);
    let others = all.filter(move |it| !matches!(it, Claim::RestingVni(_, _, own) if *own == pool));
    before.map(|(claim, _)| claim).into_iter().chain(others)
}

/// The pools that have a tunnel end at this address.
fn pools_at(txn: &Txn<'_>, address: IpAddr) -> BTreeSet<Id<L2Network>> {
    let at = |kind| -> Vec<Uuid> {
        let key = Key::of(&Plain::Ip(address));
        key.map(|key| txn.tx.find(kind, "vtepIp", &key).collect()).unwrap_or_default()
    };
    let vteps = at(Kind::Vtep).into_iter().filter_map(|id| txn.find(Id::<Vtep>::new(id)));
    let foreign = at(Kind::RemoteVtep).into_iter();
    let foreign = foreign.filter_map(|id| txn.find(Id::<RemoteVtep>::new(id)));
    vteps.map(|vtep| vtep.pool_uuid).chain(foreign.map(|remote| remote.pool_uuid)).collect()
}

/// Refuses a new range of a pool that overlaps one of another pool, if a tunnel end is of both.
pub(crate) fn check_range(
    txn: &Txn<'_>,
    pool: Id<L2Network>,
    rivals: &BTreeMap<Id<L2Network>, Vnis>,
    (start, end): Vnis,
) -> Result<()> {
    let mut looks = Looks { txn, left: LOOKS_MAX };
    let foreign = txn.children(RemoteVtep::POOL, pool);
    let foreign: BTreeSet<IpAddr> = foreign.iter().map(|remote| remote.vtep_ip).collect();
    for (other, (low, high)) in rivals {
        let meets = format!("{start}-{end} overlaps {low}-{high} of pool {other}");
        let hint =
            "choose other VNIs, or give one of the pools VTEPs at other addresses (another CIDR)";
        let rule = match looks.shared((pool, *other), &foreign) {
            Ok(None) => continue,
            Ok(Some(address)) => format!("{meets}, and {address} is a VTEP of both"),
            Err(Spent) => {
                format!("{meets}, and over {LOOKS_MAX} VTEPs of both lie between each other")
            }
        };
        return Err(Error::field("startVni", rule).hint(hint));
    }
    Ok(())
}

/// Looks at tunnel ends, as many as are allowed.
struct Looks<'a, 't> {
    txn: &'a Txn<'t>,
    left: usize,
}

/// No look is left.
struct Spent;

impl Looks<'_, '_> {
    /// A tunnel end of two pools; of the first one, `foreign` are those that are no hosts'.
    fn shared(
        &mut self,
        (pool, other): (Id<L2Network>, Id<L2Network>),
        foreign: &BTreeSet<IpAddr>,
    ) -> std::result::Result<Option<IpAddr>, Spent> {
        if let Some(shared) = self.shared_by_hosts(pool, other)? {
            return Ok(Some(shared));
        }
        for address in foreign {
            self.look()?;
            if vtep::holder(self.txn, other, *address).is_some() {
                return Ok(Some(*address));
            }
        }
        for remote in self.txn.children(RemoteVtep::POOL, other) {
            self.look()?;
            let address = remote.vtep_ip;
            if foreign.contains(&address) || vtep::holder(self.txn, pool, address).is_some() {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// The lowest address of a host's tunnels in both pools. Each look passes over all addresses of
    /// one pool below the next one of the other.
    fn shared_by_hosts(
        &mut self,
        mut pool: Id<L2Network>,
        mut other: Id<L2Network>,
    ) -> std::result::Result<Option<IpAddr>, Spent> {
        let Some(mut at) = self.next(pool, Ipv4Addr::UNSPECIFIED.into())? else { return Ok(None) };
        while let Some(next) = self.next(other, at)? {
            if next == at {
                return Ok(Some(at));
            }
            at = next;
            mem::swap(&mut pool, &mut other);
        }
        Ok(None)
    }

    /// The first address of a host's tunnels in a pool, from one on.
    fn next(
        &mut self,
        pool: Id<L2Network>,
        from: IpAddr,
    ) -> std::result::Result<Option<IpAddr>, Spent> {
        const LAST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
        self.look()?;
        let held = self.txn.first_held(&Claim::VtepIp(pool, from), &Claim::VtepIp(pool, LAST));
        Ok(held.and_then(|(claim, _)| match claim {
            Claim::VtepIp(_, ip) => Some(ip),
            _ => None,
        }))
    }

    fn look(&mut self) -> std::result::Result<(), Spent> {
        self.left = self.left.checked_sub(1).ok_or(Spent)?;
        Ok(())
    }
}
