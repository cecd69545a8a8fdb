//! VXLAN networks.

use model::{
    Code, Error, Id, Kind, Result,
    resource::{
        l2_vxlan_network::{CreateL2VxlanNetwork, L2VxlanNetwork},
        l2_vxlan_pool::{L2VxlanNetworkPool, VniRange},
        zone::Zone,
    },
};

use crate::{Reply, Txn, allocate, l2_vxlan_pool, release};

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateL2VxlanNetwork) -> Result<Reply> {
    l2_vxlan_pool::not_isolated(message.isolated)?;
    let pool = txn.get(message.pool_uuid)?;
    if message.zone_uuid.is_some_and(|zone| zone != pool.zone_uuid) {
        let text = format!("pool {} is in zone {}", pool.uuid, pool.zone_uuid);
        return Err(Error::field("zoneUuid", text).hint("leave it out, or name the pool's zone"));
    }
    let id = txn.new_id();
    let network = L2VxlanNetwork {
        uuid: id,
        name: message.name,
        description: message.description,
        zone_uuid: pool.zone_uuid,
        network_type: "VxlanNetwork".into(),
        vni: claim_vni(txn, &pool, id, message.vni)?,
        pool_uuid: pool.uuid,
        number: txn.number("network")?,
        create_date: txn.now(),
        last_op_date: txn.now(),
    };
    txn.insert(network).map(Reply::shows)
}

/// Only without L3 networks. Its VNI rests until the hosts that had NICs on it have let go of
/// them: to a stale host, the next network with this VNI would be the old one.
pub(crate) fn delete(txn: &mut Txn<'_>, id: Id<L2VxlanNetwork>) -> Result<Reply> {
    let Some(network) = txn.find(id) else { return Ok(Reply::nothing()) };
    txn.must_be_unused(id, &[Kind::Release])?;
    release::when_let_go(txn, id, vec![vni_claim(network.zone_uuid, network.vni)])?;
    txn.remove(id);
    Ok(Reply::nothing())
}

/// Whether this network, which exists, is the one that holds the claim.
pub(crate) fn holds(network: &L2VxlanNetwork, claim: &str) -> bool {
    vni_claim(network.zone_uuid, network.vni) == claim
}

fn vni_claim(zone: Id<Zone>, vni: u32) -> String {
    format!("{}{vni:06x}", vni_prefix(zone))
}

fn vni_prefix(zone: Id<Zone>) -> String {
    format!("vni/{zone}/")
}

/// The wanted VNI, which must be inside a range of the pool and free, or the lowest free one.
fn claim_vni(
    txn: &mut Txn<'_>,
    pool: &L2VxlanNetworkPool,
    owner: Id<L2VxlanNetwork>,
    wanted: Option<u32>,
) -> Result<u32> {
    let ranges = txn.children::<VniRange>("l2NetworkUuid", pool.uuid.uuid());
    let vni = match wanted {
        Some(vni) if !ranges.iter().any(|r| (r.start_vni..=r.end_vni).contains(&vni)) => {
            let error = Error::field("vni", format!("{vni} is in no range of pool {}", pool.uuid));
            return Err(error.hint("QueryVniRange shows the ranges; CreateVniRange adds one"));
        }
        Some(vni) => vni,
        None => lowest_free(txn, pool, &ranges)?,
    };
    txn.claim(&vni_claim(pool.zone_uuid, vni), owner.uuid()).map_err(|other| {
        let network = other.simple();
        let text = match txn.record(Kind::L2VxlanNetwork, other) {
            Some(_) => format!("VNI {vni} belongs to network {network}"),
            None => format!("VNI {vni} is still being released by network {network}"),
        };
        let error = Error::new(Code::VniExhausted, text).on_field("vni");
        error.hint("choose another VNI, or leave it out")
    })?;
    Ok(vni)
}

fn lowest_free(txn: &Txn<'_>, pool: &L2VxlanNetworkPool, ranges: &[VniRange]) -> Result<u32> {
    let prefix = vni_prefix(pool.zone_uuid);
    let used = |key: String| u128::from_str_radix(key.strip_prefix(&prefix)?, 16).ok();
    let mut spans: Vec<_> =
        ranges.iter().map(|r| (u128::from(r.start_vni), u128::from(r.end_vni))).collect();
    spans.sort_unstable();
    let taken: Vec<u128> = txn.claims_with_prefix(&prefix).filter_map(used).collect();
    let free = spans.iter().find_map(|span| allocate::lowest_free(*span, &taken));
    free.and_then(|vni| u32::try_from(vni).ok()).ok_or_else(|| {
        let error = Error::new(Code::VniExhausted, format!("pool {} has no free VNI", pool.uuid));
        error.on_field("poolUuid").hint("add VNIs with CreateVniRange, or delete unused networks")
    })
}
