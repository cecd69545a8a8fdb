//! VTEPs: where hosts' tunnels of a pool end.

use std::net::IpAddr;

use model::{
    Claim, Code, Error, Id, Record, Resource, Result,
    mtu::Family,
    resource::{
        host::Host,
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        remote_vtep::RemoteVtep,
        vtep::{CreateVxlanVtep, VXLAN_PORT, Vtep, VtepType},
    },
};
use store::Read;
use uuid::Uuid;

use crate::{
    Reply, Txn, l2_attachment, l2_vxlan,
    operation::{Operation, job},
    reserved,
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
    let id = txn.new_id();
    insert(txn, id, &host, (message.pool_uuid, address)).map(Reply::shows)
}

/// The host's VTEP in a pool that its cluster has: its management address, if inside the CIDR.
/// A host outside of it stays without, and says so when an instance wants to run there.
pub(crate) fn create_from_cidr(
    txn: &mut Txn<'_>,
    host: &Host,
    attached: &L2NetworkClusterRef,
) -> Result<()> {
    let known = of_host(txn, host.uuid, attached.l2_network_uuid).is_some();
    let fits = attached.vtep_cidr.is_some_and(|cidr| cidr.contains(&host.management_ip));
    if !known && fits {
        let id = Id::new(txn.random_uuid());
        insert(txn, id, host, (attached.l2_network_uuid, host.management_ip))?;
    }
    Ok(())
}

/// The host's VTEP in a pool.
pub(crate) fn of_host(txn: &Txn<'_>, host: Id<Host>, pool: Id<L2Network>) -> Option<Vtep> {
    txn.children(Vtep::HOST, host).into_iter().find(|v| v.pool_uuid == pool)
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

fn insert(
    txn: &mut Txn<'_>,
    id: Id<Vtep>,
    host: &Host,
    (pool, address): (Id<L2Network>, IpAddr),
) -> Result<Id<Vtep>> {
    reserved::check_host("vtepIp", address)?;
    one_family(txn, pool, address)
        .map_err(|(rule, hint)| Error::field("vtepIp", rule).hint(hint))?;
    let remote = txn.children(RemoteVtep::POOL, pool);
    if remote.iter().any(|remote| remote.vtep_ip == address) {
        let error = Error::field("vtepIp", format!("{address} is a remote VTEP of pool {pool}"));
        return Err(error.hint("DeleteVxlanPoolRemoteVtep takes it out of the pool"));
    }
    let vtep = Vtep {
        uuid: id,
        host_uuid: host.uuid,
        vtep_ip: address,
        port: VXLAN_PORT,
        vtep_type: VtepType::KvmHost,
        pool_uuid: pool,
    };
    txn.insert(vtep)
}
