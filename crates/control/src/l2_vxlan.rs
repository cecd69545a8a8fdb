//! VXLAN networks, and the pools and VNIs that they are made from. Networks in GRE (`l2_gre`) are made from pools likewise.

use model::{
    Claim, Code, Error, Id, Kind, Result,
    resource::{
        l2_network::{L2Network, Segment},
        l2_vxlan::{
            CreateL2VxlanNetwork, CreateL2VxlanNetworkPool, CreateVniRange, DeleteVniRange,
            UpdateVniRange, VniRange,
        },
        zone::Zone,
    },
};

use crate::{
    Reply, Txn, claim,
    l2_network::{self, Asked},
    operation::{Operation, job},
    rivals,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(create_pool),
        job(create_vni_range),
        job(update_vni_range),
        job(delete_vni_range),
        job(create),
    ]
}

pub(crate) fn create_pool(txn: &mut Txn<'_>, message: CreateL2VxlanNetworkPool) -> Result<Reply> {
    let asked = Asked {
        name: message.name,
        description: message.description,
        zone: message.zone_uuid,
        physical_interface: message.physical_interface,
        isolated: message.isolated,
    };
    l2_network::make(txn, asked, Segment::VxlanPool)
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateL2VxlanNetwork) -> Result<Reply> {
    let pool = pool(txn, "poolUuid", message.pool_uuid)?;
    if pool.segment.is_gre() {
        let error = Error::field("poolUuid", format!("{} is a pool of GRE networks", pool.uuid));
        return Err(error.hint("CreateL2GreNetwork makes a network from it"));
    }
    if message.zone_uuid.is_some_and(|zone| zone != pool.zone_uuid) {
        let text = format!("pool {} is in zone {}", pool.uuid, pool.zone_uuid);
        return Err(Error::field("zoneUuid", text).hint("leave it out, or name the pool's zone"));
    }
    let asked = Asked {
        name: message.name,
        description: message.description,
        zone: pool.zone_uuid,
        physical_interface: None,
        isolated: message.isolated,
    };
    make_from(txn, &pool, asked, message.vni)
}

/// Makes a network from a pool, with this VNI or the lowest free one.
pub(crate) fn make_from(
    txn: &mut Txn<'_>,
    pool: &L2Network,
    asked: Asked,
    wanted: Option<u32>,
) -> Result<Reply> {
    let (vni, pool_uuid) = (vni(txn, pool, wanted)?, pool.uuid);
    let segment = match pool.segment.is_gre() {
        true => Segment::Gre { vni, pool_uuid },
        false => Segment::Vxlan { vni, pool_uuid },
    };
    let made = l2_network::make(txn, asked, segment)?;
    let rests = rivals::resting(txn, (pool.zone_uuid, pool.uuid), (vni, vni)).next();
    match rests {
        Some(claim) => Err(claim::refusal(&claim, Kind::Release, None)),
        None => Ok(made),
    }
}

/// The L2 network that a field of a message names, which must be a pool.
pub(crate) fn pool(txn: &Txn<'_>, field: &str, id: Id<L2Network>) -> Result<L2Network> {
    let l2 = txn.get(id)?;
    if l2.segment.is_pool() {
        return Ok(l2);
    }
    let text = format!("{id} is a {}, not a pool", l2.segment.of_type().as_str());
    let hint = "QueryL2VxlanNetworkPool and QueryL2GreNetworkPool list the pools";
    Err(Error::field(field, text).hint(hint))
}

/// The wanted VNI, which must be inside a range of the pool, or the lowest free one.
fn vni(txn: &Txn<'_>, pool: &L2Network, wanted: Option<u32>) -> Result<u32> {
    let mut ranges = txn.children(VniRange::L2_NETWORK, pool.uuid);
    match wanted {
        Some(vni) if !ranges.iter().any(|r| (r.start_vni..=r.end_vni).contains(&vni)) => {
            let error = Error::field("vni", format!("{vni} is in no range of pool {}", pool.uuid));
            return Err(error.hint("QueryVniRange shows the ranges; CreateVniRange adds one"));
        }
        Some(vni) => return Ok(vni),
        None => {}
    }
    ranges.sort_unstable_by_key(|range| range.start_vni);
    let free = ranges.iter().find_map(|range| free_vni(txn, pool.zone_uuid, range));
    free.ok_or_else(|| {
        let error = Error::new(Code::VniExhausted, format!("pool {} has no free VNI", pool.uuid));
        error.on_field("poolUuid").hint("add VNIs with CreateVniRange, or delete unused networks")
    })
}

/// The lowest free VNI of a range. What rests of another pool is passed over: hosts that were in that
/// pool may be in this one.
fn free_vni(txn: &Txn<'_>, zone: Id<Zone>, range: &VniRange) -> Option<u32> {
    let pool = range.l2_network_uuid;
    let mut from = range.start_vni;
    loop {
        let Claim::PoolVni(_, _, vni) = txn.first_free(&Claim::PoolVni(zone, pool, from))? else {
            return None;
        };
        if vni > range.end_vni {
            return None;
        }
        if rivals::resting(txn, (zone, pool), (vni, vni)).next().is_none() {
            return Some(vni);
        }
        from = vni.checked_add(1)?;
    }
}

/// A pool's ranges do not overlap each other, nor those of a pool that has a VTEP of this one.
pub(crate) fn create_vni_range(txn: &mut Txn<'_>, message: CreateVniRange) -> Result<Reply> {
    let (start, end) = (message.start_vni, message.end_vni);
    if start > end {
        let error = Error::field("endVni", format!("{end} is below startVni {start}"));
        return Err(error.hint("give the range from its lowest to its highest VNI"));
    }
    let pool = pool(txn, "l2NetworkUuid", message.l2_network_uuid)?;
    let range = VniRange {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        start_vni: start,
        end_vni: end,
        l2_network_uuid: message.l2_network_uuid,
        zone_uuid: pool.zone_uuid,
    };
    // The rule rests on the ranges of all pools of the zone.
    txn.fence(pool.zone_uuid);
    let mut others = txn.children(VniRange::ZONE, pool.zone_uuid);
    others.retain(|other| other.start_vni <= end && start <= other.end_vni);
    if let Some(own) = others.iter().find(|other| other.l2_network_uuid == pool.uuid) {
        let text = format!("{start}-{end} overlaps {}-{} of the pool", own.start_vni, own.end_vni);
        let hint = "QueryVniRange shows the ranges: choose VNIs between them";
        return Err(Error::field("startVni", text).hint(hint));
    }
    let others = others.iter().map(|it| (it.l2_network_uuid, (it.start_vni, it.end_vni)));
    rivals::check_range(txn, pool.uuid, &others.collect(), (start, end))?;
    txn.insert(range).map(Reply::shows)
}

pub(crate) fn update_vni_range(txn: &mut Txn<'_>, message: UpdateVniRange) -> Result<Reply> {
    let mut range = txn.get(message.uuid)?;
    range.name = message.name.unwrap_or(range.name);
    message.description.apply(&mut range.description);
    txn.update(range)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete_vni_range(txn: &mut Txn<'_>, message: DeleteVniRange) -> Result<Reply> {
    let range = txn.get(message.uuid)?;
    let (low, high) = (range.start_vni, range.end_vni);
    let at = |vni| Claim::PoolVni(range.zone_uuid, range.l2_network_uuid, vni);
    let (low, high) = (at(low), at(high));
    if let Some((claim, (_, network))) = txn.first_held(&low, &high) {
        let text = format!("{claim} of this range is in use by {}", network.simple());
        return Err(Error::new(Code::InUse, text).hint("delete its networks first"));
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
