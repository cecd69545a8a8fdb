//! Addresses of hosts and ranges of physical networks: where both are on one wire, an instance must
//! not get the address of a host. That the host is in the network's subnet is fine, as where its only
//! interface carries the network: its address must only not be given out.

use std::net::IpAddr;

use model::{
    Claim, Code, Error, Id, Kind, Result,
    resource::{
        cluster::Cluster,
        host::Host,
        ip_range::IpRange,
        l2_attachment::L2NetworkClusterRef,
        l2_network::{L2Network, Segment},
        vtep::Vtep,
    },
};

use crate::{Txn, neighbours};

/// Hosts whose addresses in a range are looked at: of that many, some is on the wire, or none is.
const LOOKS_MAX: usize = 256;

/// Refuses a range of a network that has an address of a host on the network's wire.
///
/// # Errors
/// [`Code::InUse`] on `field`, with the host.
pub(crate) fn check_range(
    txn: &Txn<'_>,
    l2: Id<L2Network>,
    (low, high): (IpAddr, IpAddr),
    field: &str,
) -> Result<()> {
    let l2 = txn.get(l2)?;
    let presences = txn.children(L2NetworkClusterRef::L2_NETWORK, l2.uuid);
    let clusters: Vec<Id<Cluster>> = presences.iter().map(|it| it.cluster_uuid).collect();
    check_clusters(txn, &l2, &clusters, (low, high)).map_err(|error| error.on_field(field))
}

/// The same for all ranges of a network that comes into a cluster.
pub(crate) fn check_network(txn: &Txn<'_>, l2: &L2Network, cluster: Id<Cluster>) -> Result<()> {
    if !is_physical(l2) {
        return Ok(());
    }
    let l3s = txn.children(model::resource::l3_network::L3Network::L2_NETWORK, l2.uuid);
    for l3 in l3s {
        for range in txn.children(IpRange::L3_NETWORK, l3.uuid) {
            let checked = check_clusters(txn, l2, &[cluster], (range.start_ip, range.end_ip));
            checked.map_err(|error| error.on_field("clusterUuid"))?;
        }
    }
    Ok(())
}

/// Refuses an address of a host that is in a range of a network on its wire.
///
/// # Errors
/// [`Code::InUse`] on `field`, with the range.
pub(crate) fn check_address(txn: &Txn<'_>, host: &Host, (field, ip): (&str, IpAddr)) -> Result<()> {
    for presence in txn.children(L2NetworkClusterRef::CLUSTER, host.cluster_uuid) {
        // Only physical networks have one.
        if presence.physical_interface.is_none() {
            continue;
        }
        let Some(l2) = txn.find(presence.l2_network_uuid) else { continue };
        let range = neighbours::range_in(&*txn.tx, l2.uuid, (ip, ip));
        if let Some(range) = range.filter(|_| is_on_wire(txn, host, &l2, ip)) {
            let (start, end) = (range.start_ip, range.end_ip);
            let text = format!(
                "{ip} is in IP range {} ({start} to {end}) of L2 network {}, which is on the host's \
                 own wire: an instance may get it",
                range.uuid, l2.uuid
            );
            let hint = "give the host another address, or DeleteIpRange and AddIpRange without it";
            return Err(Error::new(Code::InUse, text).on_field(field).hint(hint));
        }
    }
    Ok(())
}

fn is_physical(l2: &L2Network) -> bool {
    matches!(l2.segment, Segment::NoVlan | Segment::Vlan { .. })
}

fn check_clusters(
    txn: &Txn<'_>,
    l2: &L2Network,
    clusters: &[Id<Cluster>],
    (low, high): (IpAddr, IpAddr),
) -> Result<()> {
    if !is_physical(l2) || clusters.is_empty() {
        return Ok(());
    }
    let is_it = |(host, ip): &(Host, IpAddr)| {
        clusters.contains(&host.cluster_uuid) && is_on_wire(txn, host, l2, *ip)
    };
    let Some((host, ip)) = hosts_in(txn, l2, (low, high)).into_iter().find(is_it) else {
        return Ok(());
    };
    let text = format!(
        "range {low} to {high} of L2 network {} has the address {ip} of host {} ({}), which is on \
         the network's wire: an instance may get it",
        l2.uuid, host.name, host.uuid
    );
    let hint = "give ranges beside it: the host may be in the subnet, but its address must not be \
                given out";
    Err(Error::new(Code::InUse, text).hint(hint))
}

/// Hosts of the network's zone with an address in a range: for management, or of a tunnel.
fn hosts_in(txn: &Txn<'_>, l2: &L2Network, (low, high): (IpAddr, IpAddr)) -> Vec<(Host, IpAddr)> {
    let mut found = Vec::new();
    let mut from = Some(low);
    while let Some(ip) = from.filter(|_| found.len() < LOOKS_MAX) {
        let held = txn.first_held(&Claim::ManagementIp(ip), &Claim::ManagementIp(high));
        let Some((Claim::ManagementIp(ip), (Kind::Host, host))) = held else { break };
        found.extend(txn.find(Id::<Host>::new(host)).map(|host| (host, ip)));
        from = next(ip).filter(|ip| *ip <= high);
    }
    for pool in txn.children(L2Network::ZONE, l2.zone_uuid) {
        if pool.segment != Segment::VxlanPool {
            continue;
        }
        let mut from = Some(low);
        while let Some(ip) = from.filter(|_| found.len() < 2 * LOOKS_MAX) {
            let ends = [ip, high].map(|ip| Claim::VtepIp(pool.uuid, ip));
            let held = txn.first_held(&ends[0], &ends[1]);
            let Some((Claim::VtepIp(_, ip), (Kind::Vtep, vtep))) = held else { break };
            let vtep = txn.find(Id::<Vtep>::new(vtep));
            let host = vtep.and_then(|vtep| txn.find(vtep.host_uuid));
            found.extend(host.map(|host| (host, ip)));
            from = next(ip).filter(|ip| *ip <= high);
        }
    }
    found
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|ip| IpAddr::V4(ip.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|ip| IpAddr::V6(ip.into())),
    }
}

/// Whether a host's address is on the wire of a physical network. Of an untagged one as long as the
/// host has not said that the address is on another interface; of a VLAN if it has said that it is on
/// the interface of that VLAN. Tenants' VLANs may have the addresses of the hosts' network.
fn is_on_wire(txn: &Txn<'_>, host: &Host, l2: &L2Network, ip: IpAddr) -> bool {
    let Some(interface) = &l2.physical_interface else { return false };
    let devices = txn.status(host.uuid).devices.as_ref();
    let device = devices.and_then(|all| all.iter().find(|one| one.addresses.contains(&ip)));
    match (l2.segment, device) {
        (Segment::NoVlan, None) => true,
        (Segment::NoVlan, Some(device)) => device.name == *interface,
        (Segment::Vlan { vlan }, Some(device)) => device.name == format!("{interface}.{vlan}"),
        (Segment::Vlan { .. }, None) => false,
        (Segment::Vxlan { .. } | Segment::VxlanPool, _) => false,
        (Segment::Gre { .. } | Segment::GrePool, _) => false,
    }
}
