//! Pools of one zone that have VNIs in common.
//!
//! A host tells networks apart by the VNI and the address that a tunnel comes from. So pools may
//! have the same VNIs, as long as no tunnel end is of both: then such networks never meet. What is
//! looked at grows with the ranges of a zone, which an administrator makes one by one, and with the
//! pools that an address is in; not with hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use model::{
    Claim, Code, Error, Id, Kind, Plain, Result,
    resource::{
        host::Host, l2_network::L2Network, l2_vxlan::VniRange, remote_vtep::RemoteVtep, vtep::Vtep,
        zone::Zone,
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
    /// A VNI that another pool had, and that a host may still act on.
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
        let rests = own.iter().find_map(|range| resting(txn, (zone, pool), vnis(range)));
        Ok(Self { pool, pools, rests })
    }

    /// Refuses an address of a tunnel end that is in another pool, too, if the two have VNIs in
    /// common.
    pub(crate) fn check_address(
        &self,
        txn: &Txn<'_>,
        (field, address): (&str, IpAddr),
    ) -> Result<()> {
        if self.pools.is_empty() {
            return Ok(());
        }
        let pools = pools_at(txn, address);
        let Some((other, (low, high))) = self.pools.iter().find(|(pool, _)| pools.contains(pool))
        else {
            return Ok(());
        };
        let pool = self.pool;
        let text = format!(
            "{address} is a VTEP of pool {other}, too, whose VNIs {low}-{high} overlap those of \
             pool {pool}"
        );
        let hint = "take another address or CIDR for one of the pools, or give one of them other VNIs";
        Err(Error::field(field, text).hint(hint))
    }

    /// Refuses a host that may still have instances, or NICs, which it was told to let go: they may
    /// be on a network of another pool that it was in, with a VNI that this pool has, too.
    pub(crate) fn check_host(&self, txn: &Txn<'_>, host: Id<Host>) -> Result<()> {
        let is_alone = self.pools.is_empty() && self.rests.is_none();
        if is_alone || txn.tx.total(Kind::Release) == 0 {
            return Ok(());
        }
        let running = |uuid| Claim::Running(host, Id::new(uuid));
        let plugged = |uuid| Claim::Plugged(host, Id::new(uuid));
        let kept = kept(txn, running(Uuid::nil()), &running(Uuid::max()))
            .or_else(|| kept(txn, plugged(Uuid::nil()), &plugged(Uuid::max())));
        let Some(claim) = kept else { return Ok(()) };
        let text = format!(
            "host {host} has not confirmed yet that it let go of {claim}, and pool {} has VNIs \
             that another pool has or had",
            self.pool
        );
        let hint = "it confirms when its agent is connected; delete the host if it is dead";
        Err(Error::new(Code::InUse, text).on_field("hostUuid").hint(hint))
    }
}

fn vnis(range: &VniRange) -> Vnis {
    (range.start_vni, range.end_vni)
}

/// The first of some claims of a host on instances or NICs that it is yet to let go.
fn kept(txn: &Txn<'_>, mut from: Claim, to: &Claim) -> Option<Claim> {
    loop {
        let (claim, (kind, _)) = txn.first_held(&from, to)?;
        if kind == Kind::Release {
            return Some(claim);
        }
        from = match claim {
            Claim::Running(host, id) => Claim::Running(host, after(id)?),
            Claim::Plugged(host, id) => Claim::Plugged(host, after(id)?),
            _ => return None,
        };
    }
}

/// The id that follows.
fn after<R>(id: Id<R>) -> Option<Id<R>> {
    Some(Id::new(Uuid::from_u128(id.uuid().as_u128().checked_add(1)?)))
}

/// The first VNI of a range that another pool of the zone had, and that a host may still act on. Its
/// pool may be gone, and its hosts be in this one.
pub(crate) fn resting(
    txn: &Txn<'_>,
    (zone, pool): (Id<Zone>, Id<L2Network>),
    (low, high): Vnis,
) -> Option<Claim> {
    let before = txn.first_held(&Claim::Vni(zone, low), &Claim::Vni(zone, high));
    if let Some((claim, _)) = before {
        return Some(claim);
    }
    let end = Claim::RestingVni(zone, high, Id::new(Uuid::max()));
    let mut from = Claim::RestingVni(zone, low, Id::new(Uuid::nil()));
    loop {
        let (claim, _) = txn.first_held(&from, &end)?;
        from = match claim {
            Claim::RestingVni(_, vni, own) if own == pool => {
                Claim::RestingVni(zone, vni, after(own)?)
            }
            _ => return Some(claim),
        };
    }
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
        let hint = "choose other VNIs, or give one of the pools VTEPs at other addresses (another CIDR)";
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
        let held =
            self.txn.first_held(&Claim::VtepIp(pool, from), &Claim::VtepIp(pool, LAST));
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
