//! Moves of NICs without an instance from one host to another.
//!
//! The pending binding is prepared in time, on all hosts of the network. Where the NIC is then follows
//! from its frames, on each host by itself: the server only writes down what has happened
//! ([`mover`](crate::mover)). A host that it has left keeps its claim until it has let go.

use model::{
    Code, Error, Result,
    resource::{
        host::Host,
        l2_network::L2Network,
        nic_binding::{ActivateVmNicBinding, BindVmNic, UnbindVmNic},
        remote_vtep::RemoteVtep,
        vm_nic::VmNic,
    },
};

use crate::{
    Reply, Txn, nic_device,
    operation::{Operation, job},
    vm_nic,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(bind), job(unbind), job(activate)]
}

pub(crate) fn bind(txn: &mut Txn<'_>, message: BindVmNic) -> Result<Reply> {
    nic_device::check_device(&message.device)?;
    let (nic, host) = (txn.get(message.vm_nic_uuid)?, txn.get(message.host_uuid)?);
    if nic.pending() == Some((host.uuid, &message.device)) {
        return Ok(Reply::shows(nic.uuid));
    }
    check(txn, &nic, &host)?;
    nic_device::check_host(txn, &nic, &host)?;
    nic_device::let_go(txn, &nic, Some(host.uuid))?;
    // Whoever deletes the host looks at what is on it.
    txn.fence(host.uuid);
    let (id, move_number) = (nic.uuid, txn.number("move")?);
    let from = nic.host_uuid.and_then(|from| txn.find(from));
    let ips = from.map(|from| vec![from.management_ip, host.management_ip]);
    txn.update(VmNic {
        move_ips: ips.unwrap_or_default(),
        pending_host_uuid: Some(host.uuid),
        pending_device: Some(message.device),
        move_number,
        ..nic
    })?;
    Ok(Reply::shows(id))
}

/// Refuses what is plugged in nowhere, and what cannot be moved.
fn check(txn: &Txn<'_>, nic: &VmNic, host: &Host) -> Result<()> {
    let refused = |text: String, field, hint: &str| {
        Err(Error::new(Code::OperationFailed, text).on_field(field).hint(hint))
    };
    let id = nic.uuid;
    if let Some((to, device)) = nic.pending() {
        let text = format!("NIC {id} is being moved to device {device} of host {to}");
        return refused(text, "vmNicUuid", "UnbindVmNic gives that up");
    }
    let Some((from, _)) = nic.plugged() else {
        let (text, hint) = match vm_nic::plugged_into(nic) {
            Some((where_to, _)) => {
                (format!("NIC {id} is plugged into {where_to}"), "its instance takes it along")
            }
            None => (format!("NIC {id} is plugged in nowhere"), "PlugVmNic plugs it into a device"),
        };
        return refused(text, "vmNicUuid", hint);
    };
    if from == host.uuid {
        let text = format!("NIC {id} is on host {from}");
        return refused(text, "hostUuid", "name another host, or UnplugVmNic and PlugVmNic here");
    }
    if let Some(why) = why_it_stays(txn, nic)? {
        let again = "UnplugVmNic here and PlugVmNic there keep its address, with a gap";
        return refused(why, "vmNicUuid", again);
    }
    Ok(())
}

/// Why a NIC cannot move to another host while it is in use, if so.
pub(crate) fn why_it_stays(txn: &Txn<'_>, nic: &VmNic) -> Result<Option<String>> {
    let id = nic.uuid;
    let l2: L2Network = txn.get(nic.l2_network_uuid)?;
    let Some(pool) = l2.segment.pool() else {
        return Ok(Some(format!(
            "NIC {id} is in a physical network, and moves only between VTEPs"
        )));
    };
    // What comes from there is for stations that do not move.
    if txn.any_child(RemoteVtep::POOL, pool).is_some() {
        let text = format!("NIC {id} is in a network with VTEPs of machines that are no hosts");
        return Ok(Some(text));
    }
    let routes = !nic.allowed_prefixes.is_empty();
    Ok(routes.then(|| format!("NIC {id} routes for prefixes, which do not move yet")))
}

pub(crate) fn unbind(txn: &mut Txn<'_>, message: UnbindVmNic) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    let id = nic.uuid;
    if let Some((host, _)) = nic.pending() {
        let left_host_uuid = Some(host);
        let stays = VmNic { pending_host_uuid: None, pending_device: None, ..nic };
        txn.update(VmNic { left_host_uuid, ..stays })?;
    }
    Ok(Reply::shows(id))
}

pub(crate) fn activate(txn: &mut Txn<'_>, message: ActivateVmNicBinding) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    let id = nic.uuid;
    let Some((host, device)) = nic.pending() else {
        if nic.plugged().is_some_and(|(host, _)| host == message.host_uuid) {
            return Ok(Reply::shows(id));
        }
        let text = format!("NIC {id} is not being moved");
        let hint = "BindVmNic prepares a move";
        return Err(Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint));
    };
    if host != message.host_uuid {
        let text = format!("NIC {id} is being moved to host {host}");
        let hint = "name that host, or UnbindVmNic and BindVmNic with another one";
        return Err(Error::new(Code::OperationFailed, text).on_field("hostUuid").hint(hint));
    }
    let device = Some(device.to_owned());
    txn.update(VmNic {
        host_uuid: Some(host),
        plugged_device: device,
        plugged_host_uuid: Some(host),
        pending_host_uuid: None,
        pending_device: None,
        left_host_uuid: nic.plugged_host_uuid,
        ..nic
    })?;
    Ok(Reply::shows(id))
}
