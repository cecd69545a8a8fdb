//! What holds for addresses, NICs, ranges and VNIs.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use model::{
    AnyId, Claim, Id, Kind, Record, Resource,
    resource::{
        dhcp_server::DhcpServer,
        ip_range::{IpRange, IpRangeType},
        l2_network::L2Network,
        l2_vxlan::VniRange,
        l3_network::L3Network,
        remote_vtep::RemoteVtep,
        used_ip::{AddressState, UsedIp},
        vip::Vip,
        vm_instance::{Phase, VmInstance},
        vm_nic::VmNic,
        vtep::Vtep,
    },
};
use store::{Key, Read, Snapshot};
use uuid::Uuid;

use super::{Report, Rule, rows::the};

fn rows<R: Resource>(snapshot: &Snapshot<Record>) -> impl Iterator<Item = R> {
    let of = |row: Arc<Record>| R::of(&row).cloned();
    snapshot.list(R::KIND).filter_map(of)
}

fn find<R: Resource>(snapshot: &Snapshot<Record>, id: Id<R>) -> Option<R> {
    snapshot.get(R::KIND, id.uuid()).as_deref().and_then(R::of).cloned()
}

/// Addresses lie where they come from, and belong to what uses them.
pub(super) fn used(snapshot: &Snapshot<Record>, report: &mut Report) {
    for used in rows::<UsedIp>(snapshot) {
        let own = (Kind::UsedIp, used.uuid.uuid());
        let mut tell = |text: String| report.add(Rule::Address, own, format!("{} {text}", used.ip));
        // That a range or a network is missing, another rule tells.
        if let Some(range) = find(snapshot, used.ip_range_uuid) {
            if !is_in(&range, &used) {
                tell(format!("is not in range {}", range.uuid));
            }
            if range.l3_network_uuid != used.l3_network_uuid {
                tell(format!("is of L3 network {}, its range of another", used.l3_network_uuid));
            }
        }
        if let Some(l3) = find::<L3Network>(snapshot, used.l3_network_uuid)
            && l3.l2_network_uuid != used.l2_network_uuid
        {
            tell(format!("is of L2 network {}, its L3 network of another", used.l2_network_uuid));
        }
        if let Some(text) = user_of(snapshot, &used) {
            tell(text);
        }
    }
}

fn is_in(range: &IpRange, used: &UsedIp) -> bool {
    (range.start_ip..=range.end_ip).contains(&used.ip)
        && range.network_cidr.contains(&used.ip)
        // A pool has no gateway: its first address stands there.
        && (range.ip_range_type == IpRangeType::AddressPool || used.gateway != used.ip)
}

/// What is wrong between an address and what has it.
fn user_of(snapshot: &Snapshot<Record>, used: &UsedIp) -> Option<String> {
    let user = used.used_by;
    let named = the((user.kind, user.uuid));
    let Some(record) = snapshot.get(user.kind, user.uuid) else {
        return Some(format!("is allocated, and {named} that should have it does not exist"));
    };
    let l3 = used.l3_network_uuid;
    let is_known = match (used.state(), VmNic::of(&record), DhcpServer::of(&record)) {
        (AddressState::ReleasePending, ..) => {
            record.claims().contains(&Claim::Ip(used.l2_network_uuid, used.ip))
        }
        (_, Some(nic), _) => nic.l3_network_uuid == l3 || nic.more_l3_network_uuids.contains(&l3),
        (AddressState::InUse, ..) if user.kind == Kind::Vip => Vip::of(&record)
            .is_some_and(|vip| vip.used_ip_uuid == used.uuid && vip.l3_network_uuid == l3),
        (_, _, Some(server)) => {
            server.l3_network_uuid == l3 && (server.ip_version == 4) == used.ip.is_ipv4()
        }
        _ => true,
    };
    (!is_known).then(|| format!("is allocated for {named}, which knows nothing of it"))
}

/// NICs have the addresses that say so, unless their instance is destroyed, and are where it is.
pub(super) fn nics(snapshot: &Snapshot<Record>, report: &mut Report) {
    for nic in rows::<VmNic>(snapshot) {
        let own = (Kind::VmNic, nic.uuid.uuid());
        let mut tell = |text: String| report.add(Rule::Nic, own, text);
        let instance = nic.vm_instance_uuid.and_then(|id| find::<VmInstance>(snapshot, id));
        let is_destroyed = instance.as_ref().is_some_and(|it| it.phase == Phase::Destroyed);
        let has = of_user(snapshot, AnyId::of(nic.uuid));
        match nic.used_ip_uuid {
            None if !is_destroyed => tell("has no address".to_owned()),
            Some(used) if is_destroyed => {
                tell(format!("has address {used}, and its instance is destroyed"));
            }
            Some(used) if !has.contains(&used.uuid()) => {
                tell(format!("has address {used}, which is not allocated for it"));
            }
            None if !has.is_empty() => {
                tell(format!("does not have {}, which is allocated for it", has[0].simple()));
            }
            _ => {}
        }
        let host = instance.and_then(|instance| instance.host_uuid);
        if nic.host_uuid != host && nic.plugged().is_none() {
            tell(format!("is on host {}, its instance on {}", shown(nic.host_uuid), shown(host)));
        }
    }
    for server in rows::<DhcpServer>(snapshot) {
        let addresses = of_user(snapshot, AnyId::of(server.uuid)).len();
        if addresses != 1 {
            let text = format!("has {addresses} addresses instead of one");
            report.add(Rule::Address, (Kind::DhcpServer, server.uuid.uuid()), text);
        }
    }
}

fn of_user(snapshot: &Snapshot<Record>, user: AnyId) -> Vec<Uuid> {
    snapshot.find(Kind::UsedIp, UsedIp::USED_BY, &Key::Uuid(user.uuid)).collect()
}

fn shown<R: Resource>(id: Option<Id<R>>) -> String {
    id.map_or("none".to_owned(), |id| id.to_string())
}

/// The ranges of an L2 network do not overlap.
pub(super) fn ranges(snapshot: &Snapshot<Record>, report: &mut Report) {
    let mut by_network: BTreeMap<Id<L2Network>, Vec<IpRange>> = BTreeMap::new();
    for range in rows::<IpRange>(snapshot) {
        if let Some(l3) = find::<L3Network>(snapshot, range.l3_network_uuid) {
            by_network.entry(l3.l2_network_uuid).or_default().push(range);
        }
    }
    for mut ranges in by_network.into_values() {
        ranges.sort_by_key(|range| range.start_ip);
        let mut last: Option<&IpRange> = None;
        for range in &ranges {
            if let Some(before) = last.filter(|before| before.end_ip >= range.start_ip) {
                let own = (Kind::IpRange, range.uuid.uuid());
                report.add(Rule::Range, own, format!("overlaps range {}", before.uuid));
            }
            if last.is_none_or(|before| before.end_ip < range.end_ip) {
                last = Some(range);
            }
        }
    }
}

/// A VNI lies in a range of its network's pool.
pub(super) fn vnis(snapshot: &Snapshot<Record>, report: &mut Report) {
    let mut by_pool: BTreeMap<Id<L2Network>, Vec<VniRange>> = BTreeMap::new();
    for range in rows::<VniRange>(snapshot) {
        by_pool.entry(range.l2_network_uuid).or_default().push(range);
    }
    for network in rows::<L2Network>(snapshot) {
        let own = (Kind::L2Network, network.uuid.uuid());
        let (pool, number) = (network.segment.pool(), network.segment.number());
        let (Some(pool), Some(vni)) = (pool, number) else { continue };
        let mut ranges = by_pool.get(&pool).into_iter().flatten();
        if !ranges.any(|range| (range.start_vni..=range.end_vni).contains(&vni)) {
            report.add(Rule::Range, own, format!("VNI {vni} is in no range of pool {pool}"));
        }
        let pool = find(snapshot, pool);
        let is_of = |pool: &L2Network| {
            pool.segment.is_pool()
                && pool.segment.is_gre() == network.segment.is_gre()
                && pool.zone_uuid == network.zone_uuid
        };
        if !pool.is_some_and(|pool| is_of(&pool)) {
            report.add(
                Rule::Range,
                own,
                "its pool is none, of another type, or of another zone".to_owned(),
            );
        }
    }
}

/// A tunnel end is in no two pools of a zone that have VNIs in common.
pub(super) fn tunnel_ends(snapshot: &Snapshot<Record>, report: &mut Report) {
    let mut by_pool: BTreeMap<Id<L2Network>, Vec<VniRange>> = BTreeMap::new();
    for range in rows::<VniRange>(snapshot) {
        by_pool.entry(range.l2_network_uuid).or_default().push(range);
    }
    let vteps = rows::<Vtep>(snapshot).map(|it| (it.vtep_ip, it.pool_uuid, it.uuid.uuid()));
    let foreign = rows::<RemoteVtep>(snapshot).map(|it| (it.vtep_ip, it.pool_uuid, it.uuid.uuid()));
    let ends = vteps.map(|end| (Kind::Vtep, end)).chain(foreign.map(|end| (Kind::RemoteVtep, end)));
    let mut at: BTreeMap<IpAddr, BTreeMap<Id<L2Network>, (Kind, Uuid)>> = BTreeMap::new();
    for (kind, (ip, pool, uuid)) in ends {
        at.entry(ip).or_default().insert(pool, (kind, uuid));
    }
    // Pools share many addresses or none: each two are compared once.
    let mut overlapping: BTreeMap<[Id<L2Network>; 2], bool> = BTreeMap::new();
    let mut overlap = |one: Id<L2Network>, other: Id<L2Network>| {
        let zone = |pool| find(snapshot, pool).map(|pool: L2Network| pool.zone_uuid);
        let ranges = |pool| by_pool.get(&pool).into_iter().flatten();
        let overlaps = || {
            let meets =
                |a: &VniRange, b: &VniRange| a.start_vni <= b.end_vni && b.start_vni <= a.end_vni;
            zone(one) == zone(other) && ranges(one).any(|a| ranges(other).any(|b| meets(a, b)))
        };
        *overlapping.entry([one, other]).or_insert_with(overlaps)
    };
    for (ip, pools) in at {
        for (pool, row) in &pools {
            if let Some((other, _)) = pools.range(..pool).find(|(other, _)| overlap(**other, *pool))
            {
                let text =
                    format!("{ip} is in pool {other}, too, whose VNIs overlap those of {pool}");
                report.add(Rule::Range, *row, text);
            }
        }
    }
}
