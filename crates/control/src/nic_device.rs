//! NICs without an instance: plugged into devices of hosts that something else makes.

use std::collections::BTreeSet;

use model::{
    Claim, Code, Error, Id, Result,
    resource::{
        host::{Host, HostMode},
        nic_plug::{PlugVmNic, UnplugVmNic},
        vm_nic::VmNic,
        zone::EnableState,
    },
};

use crate::{
    Reply, Txn, l2_network,
    operation::{Operation, job},
    realiser, vm_nic,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(plug), job(unplug)]
}

/// Longest name of a device, in bytes (the kernel's `IFNAMSIZ`, without the zero).
const DEVICE_MAX: usize = 15;

pub(crate) fn plug(txn: &mut Txn<'_>, message: PlugVmNic) -> Result<Reply> {
    check_device(&message.device)?;
    let (nic, host) = (txn.get(message.vm_nic_uuid)?, txn.get(message.host_uuid)?);
    if nic.plugged() == Some((host.uuid, &message.device)) {
        return Ok(Reply::shows(nic.uuid));
    }
    if let Some((where_to, hint)) = vm_nic::plugged_into(&nic) {
        let text = format!("NIC {} is plugged into {where_to}", nic.uuid);
        let hint = format!("{hint}; BindVmNic moves it to a device of another host");
        return Err(Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint));
    }
    if nic.state == EnableState::Disabled {
        let text = format!("NIC {} is disabled", nic.uuid);
        let hint = "ChangeVmNicState with state=enable first";
        return Err(Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint));
    }
    check_host(txn, &nic, &host)?;
    let_go(txn, &nic, Some(host.uuid))?;
    // Whoever deletes the host looks at what is on it.
    txn.fence(host.uuid);
    let id = nic.uuid;
    txn.update(VmNic {
        host_uuid: Some(host.uuid),
        plugged_device: Some(message.device),
        plugged_host_uuid: Some(host.uuid),
        ..nic
    })?;
    Ok(Reply::shows(id))
}

pub(crate) fn unplug(txn: &mut Txn<'_>, message: UnplugVmNic) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    if let Some(instance) = nic.vm_instance_uuid {
        let text = format!("NIC {} is plugged into instance {instance}", nic.uuid);
        let hint = "DetachL3NetworkFromVm takes it out, and deletes it";
        return Err(Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint));
    }
    let id = nic.uuid;
    if nic.plugged().is_some() || nic.pending().is_some() {
        let (pending_host_uuid, pending_device) = (None, None);
        let left_host_uuid = nic.pending_host_uuid.or(nic.left_host_uuid);
        let out = VmNic { host_uuid: None, plugged_device: None, left_host_uuid, ..nic };
        txn.update(VmNic { pending_host_uuid, pending_device, ..out })?;
    }
    Ok(Reply::shows(id))
}

/// As `dev_valid_name` of the kernel; `lo` leads nowhere.
pub(crate) fn check_device(name: &str) -> Result<()> {
    let rule = if name.is_empty() || name.len() > DEVICE_MAX {
        format!("\"{name}\" has {} bytes, not 1 to {DEVICE_MAX}", name.len())
    } else if matches!(name, "." | ".." | "lo") {
        format!("\"{name}\" is no device for a NIC")
    } else if name.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
    {
        format!("\"{name}\" has a slash, a colon or white space")
    } else {
        return Ok(());
    };
    let hint = "name a device of the host as `ip link` shows it, without what follows an @";
    Err(Error::field("device", rule).hint(hint))
}

/// The host must be able to carry the NIC's network, and be there.
pub(crate) fn check_host(txn: &Txn<'_>, nic: &VmNic, host: &Host) -> Result<()> {
    let l2 = txn.get(nic.l2_network_uuid)?;
    let why = match host.state {
        HostMode::Disabled => Some("is disabled: ChangeHostState with stateEvent=enable".into()),
        HostMode::PreMaintenance | HostMode::Maintenance => {
            Some("is in maintenance: ChangeHostState with stateEvent=enable".into())
        }
        HostMode::Enabled if !txn.status(host.uuid).connected => {
            Some("is not connected: start its agent".into())
        }
        HostMode::Enabled => l2_network::why_not(txn, host, &l2),
    };
    match why {
        None => realiser::first_nic(txn, host.uuid, l2.uuid),
        Some(why) => {
            let text = format!("host {} cannot have NIC {}", host.uuid, nic.uuid);
            let hint = format!("{}: {why}", host.name);
            Err(Error::new(Code::NoHost, text).on_field("hostUuid").hint(hint))
        }
    }
}

/// Makes sure that no other host than `next` still has a NIC that was plugged in there or moved away
/// from there.
pub(crate) fn let_go(txn: &mut Txn<'_>, nic: &VmNic, next: Option<Id<Host>>) -> Result<()> {
    let hosts: BTreeSet<_> = [nic.plugged_host_uuid, nic.left_host_uuid].into();
    hosts.into_iter().flatten().try_for_each(|host| let_go_of(txn, nic, (host, next)))
}

fn let_go_of(
    txn: &mut Txn<'_>,
    nic: &VmNic,
    (last, next): (Id<Host>, Option<Id<Host>>),
) -> Result<()> {
    let Some(release) = txn.release_of(&Claim::Plugged(last, nic.uuid)) else { return Ok(()) };
    if next == Some(last) && matches!(release.claims[..], [Claim::Plugged(..)]) {
        txn.take_back(&release);
        return Ok(());
    }
    let connected = if txn.status(last).connected { "" } else { ", which is away," };
    let name = txn.find(last).map_or_else(String::new, |host| format!("{} ", host.name));
    let text = format!(
        "NIC {}: host {name}({last}){connected} has not confirmed that it let go",
        nic.uuid
    );
    let hint = "wait until it has, or plug the NIC in there; if that host is dead for good, power \
                it off and DeleteHost with deleteMode=Enforcing";
    Err(Error::new(Code::InUse, text).on_field("vmNicUuid").hint(hint))
}
