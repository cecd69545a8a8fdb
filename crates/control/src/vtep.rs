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

use crate::{Reply, Txn};

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

fn insert(
    txn: &mut Txn<'_>,
    id: Id<Vtep>,
    host: &Host,
    (pool, address): (Id<L2VxlanNetworkPool>, IpAddr),
) -> Result<Id<Vtep>> {
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        let error = Error::field("vtepIp", format!("{address} cannot end a tunnel"));
        return Err(error.hint("give a unicast address that the host has on the underlay"));
    }
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
