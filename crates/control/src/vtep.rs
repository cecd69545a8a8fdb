//! VTEPs: where hosts' tunnels of a pool end.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use model::{
    Claim, Code, Error, Id, Kind, Record, Resource, Result,
    mtu::Family,
    resource::{
        host::Host,
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        remote_vtep::RemoteVtep,
        vtep::{CreateVxlanVtep, VXLAN_PORT, Vtep, VtepType},
    },
    setting::VXLAN_UDP_PORT,
};
use store::Read;
use uuid::Uuid;

use crate::{
    Reply, Txn, config, host_addresses, l2_attachment, l2_vxlan,
    operation::{Operation, job},
    reserved,
    rivals::Rivals,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateVxlanVtep) -> Result<Reply> {
    let host = txn.get(message.host_uuid)?;
    l2_vxlan::pool(txn, "poolUuid", message.pool_uuid)?;
    let attached = l2_attachment::ref_id(message.pool_uuid, host.cluster_uuid);
    if txn.find(attached).is_none() {
        let text = format!("pool {} is not in the host's cluster", message.pool_uuid);
        let cluster = host.cluster_uuid;
        return Err(Error::field("poolUuid", text)
            .hint(format!("AttachL2NetworkToCluster brings it into cluster {cluster}")));
    }
    let address = message.vtep_ip.unwrap_or(host.management_ip);
    if of_host(txn, host.uuid, message.pool_uuid).is_some() {
        let text = format!("host {} has a VTEP in pool {} already", host.uuid, message.pool_uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("hostUuid");
        return Err(error.hint("QueryVtep shows it; detach the pool from the cluster to change it"));
    }
    let rivals = Rivals::of(txn, message.pool_uuid)?;
    let id = txn.new_id();
    insert(txn, id, &host, (&rivals, address)).map(Reply::shows)
}

/// Gives a host its VTEP in a pool that its cluster has, if it has none: an address of its own
/// inside the CIDR. A host outside of it stays without, and says so when an instance wants to run
/// there.
pub(crate) fn create_from_cidr(
    txn: &mut Txn<'_>,
    host: &Host,
    (cidr, rivals): (IpNet, &Rivals),
) -> Result<()> {
    if of_host(txn, host.uuid, rivals.pool).is_some() {
        return Ok(());
    }
    if let Some(address) = own_address(txn, host, cidr) {
        let id = Id::new(txn.random_uuid());
        insert(txn, id, host, (rivals, address))?;
    }
    Ok(())
}

/// Has a host's VTEPs follow its addresses: one that it has no more gives way to one that it has
/// in the CIDR, if there is such a one, and a pool without a VTEP gets one.
pub(crate) fn follow(txn: &mut Txn<'_>, host: &Host) -> Result<()> {
    for attached in txn.children(L2NetworkClusterRef::CLUSTER, host.cluster_uuid) {
        let Some(cidr) = attached.vtep_cidr else { continue };
        let rivals = Rivals::of(txn, attached.l2_network_uuid)?;
        let Some(vtep) = of_host(txn, host.uuid, rivals.pool) else {
            create_from_cidr(txn, host, (cidr, &rivals))?;
            continue;
        };
        let has_it = addresses(txn, host).is_none_or(|own| own.contains(&vtep.vtep_ip));
        if let Some(address) = own_address(txn, host, cidr).filter(|_| !has_it) {
            check(txn, &rivals, address)?;
            txn.update(Vtep { vtep_ip: address, ..vtep })?;
        }
    }
    Ok(())
}

/// Why a host has no VTEP in a pool with this CIDR for its cluster, as far as the host has said
/// what addresses it has.
pub(crate) fn why_none(
    txn: &Txn<'_>,
    host: &Host,
    pool: Id<L2Network>,
    cidr: IpNet,
) -> Option<String> {
    addresses(txn, host)?;
    of_host(txn, host.uuid, pool).is_none().then(|| {
        format!("has no address in {cidr}: give it one, or attach with a CIDR that it has one in")
    })
}

/// Why a host has no tunnels of a pool, and the fix.
pub(crate) fn why_no_tunnel(txn: &Txn<'_>, host: &Host, pool: Id<L2Network>) -> Option<String> {
    of_host(txn, host.uuid, pool).is_none().then(|| {
        format!(
            "has no VTEP in pool {pool}: give it an address in the pool's CIDR for its cluster and \
             ReconnectHost, or CreateVxlanVtep with one of its addresses (its management address is \
             {})",
            host.management_ip
        )
    })
}

/// The address at which a host's tunnels end by this CIDR: its management address if that is
/// inside, else the lowest of its own that is. What it has not said counts as the former alone.
fn own_address(txn: &Txn<'_>, host: &Host, cidr: IpNet) -> Option<IpAddr> {
    let management = Some(host.management_ip).filter(|ip| cidr.contains(ip));
    let Some(own) = addresses(txn, host) else { return management };
    let inside = own.into_iter().filter(|ip| cidr.contains(ip));
    let inside: BTreeSet<IpAddr> = inside.collect();
    management.filter(|ip| inside.contains(ip)).or_else(|| inside.first().copied())
}

/// The addresses that a host has said it has.
fn addresses(txn: &Txn<'_>, host: &Host) -> Option<BTreeSet<IpAddr>> {
    let devices = txn.status(host.uuid).devices.as_ref()?;
    Some(devices.iter().flat_map(|device| device.addresses.iter().copied()).collect())
}

/// The host's VTEP in a pool.
pub(crate) fn of_host(txn: &Txn<'_>, host: Id<Host>, pool: Id<L2Network>) -> Option<Vtep> {
    txn.children(Vtep::HOST, host).into_iter().find(|v| v.pool_uuid == pool)
}

/// The UDP port of a pool's tunnel ends; 0 if they have none.
pub(crate) fn port(txn: &Txn<'_>, pool: Id<L2Network>) -> Result<u16> {
    match txn.get(pool)?.segment.is_gre() {
        true => Ok(0),
        false => Ok(vxlan_port(txn)),
    }
}

fn vxlan_port(txn: &Txn<'_>) -> u16 {
    u16::try_from(config::number(&*txn.tx, &VXLAN_UDP_PORT)).unwrap_or(VXLAN_PORT)
}

/// Gives all tunnel ends of VXLAN the port that the setting says: hosts are told it with their networks.
pub(crate) fn change_port(txn: &mut Txn<'_>) -> Result<()> {
    let port = vxlan_port(txn);
    let is_other = |now: u16| now != 0 && now != port;
    let vteps: Vec<Vtep> =
        txn.tx.list(Kind::Vtep).filter_map(|it| Vtep::of(&it).cloned()).collect();
    for vtep in vteps.into_iter().filter(|vtep| is_other(vtep.port)) {
        txn.update(Vtep { port, ..vtep })?;
    }
    let remote = txn.tx.list(Kind::RemoteVtep).filter_map(|it| RemoteVtep::of(&it).cloned());
    for remote in remote.collect::<Vec<_>>().into_iter().filter(|remote| is_other(remote.port)) {
        txn.update(RemoteVtep { port, ..remote })?;
    }
    Ok(())
}

/// The VTEP of a pool that has this address.
pub(crate) fn holder(txn: &Txn<'_>, pool: Id<L2Network>, ip: IpAddr) -> Option<Uuid> {
    let claim = Claim::VtepIp(pool, ip);
    txn.first_held(&claim, &claim).map(|(_, (_, holder))| holder)
}

/// Checks that a tunnel end, or the network of some, is of the family of the pool's others: between
/// two families there is no tunnel.
///
/// # Errors
/// The rule that it breaks, and what to do.
pub(crate) fn one_family(
    txn: &Txn<'_>,
    pool: Id<L2Network>,
    address: IpAddr,
) -> std::result::Result<(), (String, String)> {
    let this = Family::of(address);
    if this == Family::Ipv6 && txn.find(pool).is_some_and(|pool| pool.segment.is_gre()) {
        let rule = format!("{address} is {this}, and the tunnels of GRE pool {pool} are IPv4");
        return Err((rule, "give an IPv4 address, or take a VXLAN pool".to_owned()));
    }
    let Some(other) = some(&*txn.tx, pool).filter(|other| Family::of(*other) != this) else {
        return Ok(());
    };
    let that = Family::of(other);
    let rule = format!("{address} is {this}, the tunnels of pool {pool} are {that} ({other})");
    Err((rule, format!("give an {that} address: all tunnels of a pool are of one family")))
}

/// The family of a pool's tunnels, once there are some or may be.
pub(crate) fn family(read: &impl Read<Record>, pool: Id<L2Network>) -> Option<Family> {
    some(read, pool).map(Family::of)
}

/// An address of a pool's tunnels; all are of one family.
fn some(read: &impl Read<Record>, pool: Id<L2Network>) -> Option<IpAddr> {
    let (attached, at) = (L2NetworkClusterRef::KIND, L2NetworkClusterRef::L2_NETWORK.field);
    let mut attached = read.referrers(attached, at, pool.uuid());
    let cidr = attached.find_map(|id| {
        L2NetworkClusterRef::of(read.get(L2NetworkClusterRef::KIND, id).as_deref()?)?.vtep_cidr
    });
    cidr.map(|cidr| cidr.addr()).or_else(|| {
        let vtep = read.referrers(Vtep::KIND, Vtep::POOL.field, pool.uuid()).next()?;
        Some(Vtep::of(read.get(Vtep::KIND, vtep).as_deref()?)?.vtep_ip)
    })
}

/// Refuses an address that cannot be that of a host's VTEP in the pool.
fn check(txn: &Txn<'_>, rivals: &Rivals, address: IpAddr) -> Result<()> {
    let pool = rivals.pool;
    reserved::check_host("vtepIp", address)?;
    one_family(txn, pool, address)
        .map_err(|(rule, hint)| Error::field("vtepIp", rule).hint(hint))?;
    let remote = txn.children(RemoteVtep::POOL, pool);
    if remote.iter().any(|remote| remote.vtep_ip == address) {
        let error = Error::field("vtepIp", format!("{address} is a remote VTEP of pool {pool}"));
        return Err(error.hint("DeleteVxlanPoolRemoteVtep takes it out of the pool"));
    }
    rivals.check(txn, ("vtepIp", address))
}

fn insert(
    txn: &mut Txn<'_>,
    id: Id<Vtep>,
    host: &Host,
    (rivals, address): (&Rivals, IpAddr),
) -> Result<Id<Vtep>> {
    check(txn, rivals, address)?;
    if address != host.management_ip {
        host_addresses::check_address(txn, host, ("vtepIp", address))?;
    }
    let vtep = Vtep {
        uuid: id,
        host_uuid: host.uuid,
        vtep_ip: address,
        port: port(txn, rivals.pool)?,
        vtep_type: VtepType::KvmHost,
        pool_uuid: rivals.pool,
    };
    txn.insert(vtep)
}
