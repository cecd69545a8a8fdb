//! EIPs: made, attached to NICs and detached. Which NICs they may lead to is in [`crate::vip_guests`].

use model::{
    Claim, Code, Error, Id, Kind, Record, Resource, Result,
    resource::{
        eip::{
            AttachEip, ChangeEipState, CreateEip, DeleteEip, DetachEip, Eip,
            GetEipAttachableVmNics, GetVmNicAttachableEips, UpdateEip,
        },
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
        used_ip::UsedIp,
        vip::Vip,
        vm_nic::VmNic,
        zone::EnableState,
    },
    shown::LIST_MAX,
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    Look, Reply, Txn,
    operation::{Operation, job, look},
    port_forwarding,
    security_group_member::may_change,
    vip,
    vip_guests::{self, Way, refused},
};

const SERVICE: NetworkServiceType = NetworkServiceType::Eip;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(create),
        job(update),
        job(delete),
        job(change_state),
        job(attach),
        job(detach),
        look(nics),
        look(eips),
    ]
}

fn create(txn: &mut Txn<'_>, message: CreateEip) -> Result<Reply> {
    let way = Way::of(&*txn.tx, SERVICE, message.vip_uuid)?;
    check_vip(&way.vip)?;
    vip::check_use(txn, &way.vip, SERVICE, Code::OperationFailed)?;
    if message.vm_nic_uuid.is_none() && message.used_ip_uuid.is_some() {
        let error = Error::field("usedIpUuid", "is an address of a NIC, and vmNicUuid is missing");
        return Err(error.hint("name the NIC, too"));
    }
    let mut eip = Eip {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        vip_uuid: way.vip.uuid,
        vm_nic_uuid: None,
        guest_l3_network_uuid: None,
        ip_version: way.address.ip_version,
        state: EnableState::Enabled,
    };
    if let Some(nic) = message.vm_nic_uuid {
        lead(txn, &way, &mut eip, (nic, message.used_ip_uuid))?;
    }
    txn.insert(eip).map(Reply::shows)
}

/// A router's own address is nobody else's.
fn check_vip(vip: &Vip) -> Result<()> {
    if vip.system {
        let text = format!("VIP {} is a router's own", vip.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("vipUuid");
        return Err(error.hint("CreateVip makes another one"));
    }
    Ok(())
}

fn update(txn: &mut Txn<'_>, message: UpdateEip) -> Result<Reply> {
    let mut eip = txn.get(message.uuid)?;
    eip.name = message.name.unwrap_or(eip.name);
    message.description.apply(&mut eip.description);
    txn.update(eip)?;
    Ok(Reply::shows(message.uuid))
}

fn delete(txn: &mut Txn<'_>, message: DeleteEip) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

fn change_state(txn: &mut Txn<'_>, message: ChangeEipState) -> Result<Reply> {
    let eip = txn.get(message.uuid)?;
    let state = eip.state.next(message.state_event);
    txn.update(Eip { state, ..eip })?;
    Ok(Reply::shows(message.uuid))
}

fn attach(txn: &mut Txn<'_>, message: AttachEip) -> Result<Reply> {
    let mut eip = txn.get(message.eip_uuid)?;
    check_attachable(&eip)?;
    let way = Way::of(&*txn.tx, SERVICE, eip.vip_uuid)?;
    way.check_enabled("eipUuid")?;
    lead(txn, &way, &mut eip, (message.vm_nic_uuid, message.used_ip_uuid))?;
    txn.update(eip)?;
    Ok(Reply::shows(message.eip_uuid))
}

fn check_attachable(eip: &Eip) -> Result<()> {
    let refuse = |text: String, hint: &str| {
        Err(Error::new(Code::OperationFailed, text).on_field("eipUuid").hint(hint))
    };
    if let Some(nic) = eip.vm_nic_uuid {
        let text = format!("EIP {} is attached to NIC {nic}", eip.uuid);
        return refuse(text, "DetachEip takes it off");
    }
    match eip.state {
        EnableState::Enabled => Ok(()),
        EnableState::Disabled => {
            refuse(format!("EIP {} is disabled", eip.uuid), "ChangeEipState enables it")
        }
    }
}

/// Makes an EIP lead to a NIC, if it may; with the address that the NIC must have for it.
fn lead(
    txn: &mut Txn<'_>,
    way: &Way,
    eip: &mut Eip,
    (nic, used): (Id<VmNic>, Option<Id<UsedIp>>),
) -> Result<()> {
    let nic = txn.get(nic)?;
    may_change(txn, nic.uuid).map_err(|error| error.on_field("vmNicUuid"))?;
    if let Some(used) = used {
        check_own(txn, way, &nic, used)?;
    }
    let guest = way.guest(&*txn.tx, &nic)?;
    check_nic(&*txn.tx, &nic)?;
    vip_guests::fence(txn, &nic);
    eip.vm_nic_uuid = Some(nic.uuid);
    eip.guest_l3_network_uuid = Some(guest.l3_network_uuid);
    Ok(())
}

/// An address that is named must be the NIC's, and of the VIP's family.
fn check_own(txn: &Txn<'_>, way: &Way, nic: &VmNic, used: Id<UsedIp>) -> Result<()> {
    let used = txn.get(used)?;
    if used.used_by.id() != Some(nic.uuid) {
        let error = Error::field("usedIpUuid", format!("{} is not NIC {}'s", used.ip, nic.uuid));
        return Err(error.hint("QueryVmNic shows usedIps"));
    }
    let (of_vip, of_nic) = (way.address.ip_version, used.ip_version);
    if of_vip != of_nic {
        let text = format!("{} is of IPv{of_nic}, the VIP of IPv{of_vip}", used.ip);
        let error = Error::new(Code::OperationFailed, text).on_field("usedIpUuid");
        return Err(error.hint("name the NIC's address of the VIP's family"));
    }
    Ok(())
}

/// An EIP is for everybody, so no rule to its NIC is for some.
fn check_nic(read: &impl Read<Record>, nic: &VmNic) -> Result<()> {
    if port_forwarding::is_restricted(read, nic.uuid) {
        let text = format!("NIC {} has a port forwarding rule with allowedCidr", nic.uuid);
        return Err(refused(text, "an EIP would let everybody in: detach that rule first"));
    }
    Ok(())
}

fn detach(txn: &mut Txn<'_>, message: DetachEip) -> Result<Reply> {
    let eip = txn.get(message.uuid)?;
    if eip.vm_nic_uuid.is_none() {
        let text = format!("EIP {} is attached to no NIC", eip.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("uuid");
        return Err(error.hint("AttachEip attaches it"));
    }
    txn.update(Eip { vm_nic_uuid: None, guest_l3_network_uuid: None, ..eip })?;
    Ok(Reply::shows(message.uuid))
}

/// The NICs that an EIP of this VIP could be attached to: those with one of its family have one already.
fn fits(read: &impl Read<Record>, way: &Way, nic: &VmNic) -> bool {
    let claim = Claim::Eip(nic.uuid, way.address.ip_version);
    read.holder(&claim).is_none() && way.guest(read, nic).is_ok() && check_nic(read, nic).is_ok()
}

fn nics(look: &Look<'_>, message: GetEipAttachableVmNics) -> Result<Value> {
    let vip = match (message.eip_uuid, message.vip_uuid) {
        (Some(eip), _) => {
            let eip = look.get(eip)?;
            if eip.state == EnableState::Disabled {
                let text = format!("EIP {} is disabled", eip.uuid);
                let error = Error::new(Code::OperationFailed, text).on_field("eipUuid");
                return Err(error.hint("ChangeEipState enables it"));
            }
            eip.vip_uuid
        }
        (None, Some(vip)) => vip,
        (None, None) => {
            let error = Error::field("eipUuid", "or vipUuid is required");
            return Err(error.hint("name the EIP, or the VIP that it is to be of"));
        }
    };
    let (snapshot, way) = (look.snapshot(), Way::of(look.snapshot(), SERVICE, vip)?);
    let is_wanted = |nic: &VmNic| {
        let instance = nic.vm_instance_uuid.and_then(|id| look.get(id).ok());
        let has_name = |name: &String| instance.as_ref().is_some_and(|it| it.name == *name);
        let row = NetworkServiceL3NetworkRef::id_of(nic.l3_network_uuid, SERVICE);
        let row = snapshot.get(NetworkServiceL3NetworkRef::KIND, row.uuid());
        let row = row.as_deref().and_then(NetworkServiceL3NetworkRef::of);
        let provider = row.and_then(NetworkServiceL3NetworkRef::provider);
        (instance.is_some() || message.attached_to_vm == Some(false))
            && message.vm_uuid.is_none_or(|vm| nic.vm_instance_uuid == Some(vm))
            && message.vm_name.as_ref().is_none_or(has_name)
            && message.network_service_provider.is_none_or(|wanted| provider == Some(wanted))
            && fits(snapshot, &way, nic)
    };
    Ok(json!({"inventories": vip_guests::candidates(look, SERVICE, is_wanted)}))
}

fn eips(look: &Look<'_>, message: GetVmNicAttachableEips) -> Result<Value> {
    let (nic, snapshot) = (look.get(message.vm_nic_uuid)?, look.snapshot());
    if nic.vm_instance_uuid.is_none() {
        let text = format!("NIC {} is of no instance", nic.uuid);
        return Err(refused(text, "AttachVmNicToVm plugs it into one"));
    }
    let is_attachable = |record: &Record| {
        let Some(eip) = Eip::of(record) else { return false };
        let of_version = message.ip_version.is_none_or(|version| version == eip.ip_version);
        of_version
            && check_attachable(eip).is_ok()
            && look.caller().may_change(record)
            && Way::of(snapshot, SERVICE, eip.vip_uuid)
                .is_ok_and(|way| way.check_enabled("eipUuid").is_ok() && fits(snapshot, &way, &nic))
    };
    let eips =
        vip_guests::own(look, Kind::Eip).unwrap_or_else(|| snapshot.ids(Kind::Eip).collect());
    let seen = eips.into_iter().filter_map(|id| look.visible(Kind::Eip, id));
    let fitting = seen.filter(|record| is_attachable(record)).take(LIST_MAX);
    let shown: Vec<_> = fitting.map(|record| look.show(&record)).collect();
    Ok(json!({"inventories": shown}))
}
