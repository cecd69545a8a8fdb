//! VTEPs: where hosts' tunnels of a pool end.

use std::net::IpAddr;

use model::{
    Code, Error, Id, Result,
    resource::{
        host::Host,
        l2_vxlan_pool::{L2NetworkClusterRef, L2VxlanNetworkPool},
        vtep::{CreateVxlanVtep, VXLAN_PORT, Vtep},
    },
};

use crate::{Reply, Txn, special};

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateVxlanVtep) -> Result<Reply> {
    let host = txn.get(message.host_uuid)?;
    let pools = txn.children::<L2NetworkClusterRef>("clusterUuid", host.cluster_uuid.uuid());
    if pools.iter().all(|attached| attached.l2_network_uuid != message.pool_uuid) {
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
    if !known && attached.vtep_cidr.contains(&host.management_ip) {
        let id = Id::new(txn.random_uuid());
        insert(txn, id, host, (attached.l2_network_uuid, host.management_ip))?;
    }
    Ok(())
}

/// The host's VTEP in a pool.
pub(crate) fn of_host(txn: &Txn<'_>, host: Id<Host>, pool: Id<L2VxlanNetworkPool>) -> Option<Vtep> {
    txn.children::<Vtep>("hostUuid", host.uuid()).into_iter().find(|v| v.pool_uuid == pool)
}

/// Checks that a tunnel end, or the network of some, is of the family of the pool's others: between
/// two families there is no tunnel.
///
/// # Errors
/// The rule that it breaks, and what to do.
pub(crate) fn one_family(
    txn: &Txn<'_>,
    pool: Id<L2VxlanNetworkPool>,
    address: IpAddr,
) -> std::result::Result<(), (String, String)> {
    let attached = txn.children::<L2NetworkClusterRef>("l2NetworkUuid", pool.uuid());
    let vteps = txn.children::<Vtep>("poolUuid", pool.uuid());
    let mut others =
        attached.iter().map(|r| r.vtep_cidr.addr()).chain(vteps.iter().map(|vtep| vtep.vtep_ip));
    let Some(other) = others.find(|other| other.is_ipv4() != address.is_ipv4()) else {
        return Ok(());
    };
    let family = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let (this, that) = (family(address), family(other));
    let rule = format!("{address} is {this}, the tunnels of pool {pool} are {that} ({other})");
    Err((rule, format!("give an {that} address: all tunnels of a pool are of one family")))
}

fn insert(
    txn: &mut Txn<'_>,
    id: Id<Vtep>,
    host: &Host,
    (pool, address): (Id<L2VxlanNetworkPool>, IpAddr),
) -> Result<Id<Vtep>> {
    special::check_host("vtepIp", address)?;
    one_family(txn, pool, address)
        .map_err(|(rule, hint)| Error::field("vtepIp", rule).hint(hint))?;
    let others = txn.children::<Vtep>("poolUuid", pool.uuid());
    if let Some(other) = others.iter().find(|vtep| vtep.vtep_ip == address) {
        let text = format!("{address} is the VTEP of host {} in this pool", other.host_uuid);
        return Err(Error::field("vtepIp", text).hint("each host needs an address of its own"));
    }
    let vtep = Vtep {
        uuid: id,
        host_uuid: host.uuid,
        vtep_ip: address,
        port: VXLAN_PORT,
        vtep_type: "KVM_HOST_VXLAN".into(),
        create_date: txn.now(),
        last_op_date: txn.now(),
        pool_uuid: pool,
    };
    txn.insert(vtep)
}
