//! Hosts, and the tokens with which their agents enrol.

use model::{
    Error, Id, Kind, Result, Timestamp,
    resource::{
        host::{AddKVMHost, DeleteHost, Host, HostCredential},
        l2_vxlan_pool::L2NetworkClusterRef,
        vtep::Vtep,
        zone::EnableState,
    },
};

use crate::{Reply, Txn, special, vtep};

/// How long a one-time enrolment token works, in seconds: long enough to carry it to the host.
pub const TOKEN_SECONDS: i64 = 3600;

pub(crate) fn add(txn: &mut Txn<'_>, message: AddKVMHost) -> Result<Reply> {
    special::check_host("managementIp", message.management_ip)?;
    let cluster = txn.get(message.cluster_uuid)?;
    let host = Host {
        zone_uuid: cluster.zone_uuid,
        name: message.name,
        uuid: txn.new_id(),
        cluster_uuid: cluster.uuid,
        description: message.description,
        management_ip: message.management_ip,
        hypervisor_type: cluster.hypervisor_type,
        state: EnableState::Enabled,
        create_date: txn.now(),
        last_op_date: txn.now(),
    };
    let id = txn.insert(host.clone())?;
    txn.claim(&address_claim(&host), id.uuid()).map_err(|other| {
        let text = format!("{} belongs to host {}", host.management_ip, other.simple());
        Error::field("managementIp", text).hint("each host has a management address of its own")
    })?;
    for attached in txn.children::<L2NetworkClusterRef>("clusterUuid", cluster.uuid.uuid()) {
        // The message has no other field that the VTEP's address comes from.
        let made = vtep::create_from_cidr(txn, &host, &attached);
        made.map_err(|error| error.on_field("managementIp"))?;
    }
    Ok(Reply::shows(id))
}

/// Forgets a host without instances: its certificate stops working, and nothing waits for its
/// acknowledgement any more. So only delete a host that is off or clean.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteHost) -> Result<Reply> {
    txn.must_be_unused(message.uuid, &[Kind::Vtep])?;
    for vtep in txn.children::<Vtep>("hostUuid", message.uuid.uuid()) {
        txn.remove(vtep.uuid);
    }
    let host = txn.get(message.uuid)?;
    txn.release_claim(&address_claim(&host));
    txn.remove(Id::<HostCredential>::new(message.uuid.uuid()));
    txn.remove(message.uuid);
    Ok(Reply::nothing())
}

/// The claim that keeps a management address unique.
fn address_claim(host: &Host) -> String {
    format!("management-ip/{}", host.management_ip)
}

/// Opens the way for one enrolment; an older open token stops working.
///
/// # Errors
/// [`model::Code::NotFound`] when there is no such host.
pub fn open_enrolment(
    txn: &mut Txn<'_>,
    host: Id<Host>,
    token_sha256: String,
) -> Result<Timestamp> {
    txn.get(host)?;
    let id = Id::<HostCredential>::new(host.uuid());
    let expires = txn.now().plus_seconds(TOKEN_SECONDS);
    let mut credential = txn.find(id).unwrap_or(HostCredential {
        uuid: id,
        certificate_sha256: None,
        token_sha256: None,
        token_key_sha256: None,
        token_expires: expires,
    });
    credential.token_sha256 = Some(token_sha256);
    credential.token_key_sha256 = None;
    credential.token_expires = expires;
    txn.update(credential);
    Ok(expires)
}
