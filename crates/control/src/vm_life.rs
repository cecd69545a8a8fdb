//! The life of instances: when they are on a host, and their end.
//!
//! An instance holds its place on its host as a claim, which rests when it leaves: so it is known
//! whether some host may still have it. It starts elsewhere only once none may.

use model::{
    AnyId, Claim, Code, Error, Id, Result,
    resource::{
        cluster::Cluster,
        host::Host,
        release::Release,
        used_ip::UsedIp,
        vm_instance::{InstanceDriver, Phase, VmInstance},
        vm_life::{
            DestroyVmInstance, ExpungeVmInstance, PauseVmInstance, RebootVmInstance,
            RecoverVmInstance, ResumeVmInstance, StartVmInstance, StopVmInstance,
        },
        vm_nic::VmNic,
        vm_state::{InstanceEvent, InstanceState},
        zone::DeleteMode,
    },
    setting::DeletionPolicy,
    status::HostStatus,
};

use crate::{
    Reply, Txn, addresses, config,
    operation::{Operation, job},
    placement::{self, Demand},
    realiser, vip_guests,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(start),
        job(stop),
        job(reboot),
        job(destroy),
        job(recover),
        job(expunge),
        job(pause),
        job(resume),
    ]
}

pub(crate) fn start(txn: &mut Txn<'_>, message: StartVmInstance) -> Result<Reply> {
    let mut instance = txn.get(message.uuid)?;
    check(txn, &instance, InstanceEvent::Start)?;
    let mut nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    let host = choose(txn, &instance, &nics, (message.cluster_uuid, message.host_uuid))?;
    take_place(txn, &instance, &host)?;
    let l2s = nics.iter().map(|nic| txn.get(nic.l2_network_uuid)).collect::<Result<Vec<_>>>()?;
    realiser::first_nics(txn, &host, &l2s)?;
    instance.host_uuid = Some(host.uuid);
    instance.last_host_uuid = Some(host.uuid);
    instance.cluster_uuid = Some(host.cluster_uuid);
    instance.hypervisor_type = host.hypervisor_type;
    instance.phase = Phase::Live;
    instance.pending_host_uuid = None;
    // A host that is told of the end and of this start at once makes it anew all the same.
    instance.generation += 1;
    txn.update(instance)?;
    nics.iter_mut().for_each(|nic| {
        (nic.host_uuid, nic.pending_host_uuid) = (Some(host.uuid), None);
    });
    nics.into_iter().try_for_each(|nic| txn.update(nic))?;
    Ok(Reply::shows(message.uuid))
}

/// The host for an instance with these NICs, inside the cluster and on the host that are named.
fn choose(
    txn: &Txn<'_>,
    instance: &VmInstance,
    nics: &[VmNic],
    (cluster, host): (Option<Id<Cluster>>, Option<Id<Host>>),
) -> Result<Host> {
    let l2s = nics.iter().map(|nic| txn.get(nic.l2_network_uuid)).collect::<Result<_>>()?;
    let (zone, last) = (instance.zone_uuid, instance.last_host_uuid);
    let driver = instance.driver;
    placement::choose(txn, &Demand { zone, cluster, host, last, not: None, l2s, driver })
}

/// Whether some host would take an instance now.
///
/// # Errors
/// [`Code::NoHost`] with what stands in the way of each.
pub(crate) fn would_fit(txn: &Txn<'_>, instance: &VmInstance) -> Result<()> {
    let nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    choose(txn, instance, &nics, (None, None)).map(drop)
}

/// Makes sure that no other host has the instance.
fn take_place(txn: &mut Txn<'_>, instance: &VmInstance, host: &Host) -> Result<()> {
    // Whoever deletes the host looks at what is on it.
    txn.fence(host.uuid);
    let Some(release) = kept_place(txn, instance) else { return Ok(()) };
    let last = instance.last_host_uuid;
    if last == Some(host.uuid) && matches!(release.claims[..], [Claim::Running(..)]) {
        txn.take_back(&release);
        return Ok(());
    }
    let name = last.and_then(|last| txn.find(last)).map_or("its last host".into(), |host| {
        let connected = if txn.status(host.uuid).connected { "" } else { ", which is away," };
        format!("host {} ({}){connected}", host.name, host.uuid)
    });
    let text = format!("instance {}: {name} has not confirmed that it let go", instance.uuid);
    let hint = "wait until it has, or start the instance there; if that host is dead for good, \
                power it off and DeleteHost with deleteMode=Enforcing";
    Err(Error::new(Code::InUse, text).on_field("hostUuid").hint(hint))
}

/// The release that keeps the instance's place on the host that had it last.
fn kept_place(txn: &Txn<'_>, instance: &VmInstance) -> Option<Release> {
    txn.release_of(&Claim::Running(instance.last_host_uuid?, instance.uuid))
}

pub(crate) fn stop(txn: &mut Txn<'_>, message: StopVmInstance) -> Result<Reply> {
    let instance = txn.get(message.uuid)?;
    check(txn, &instance, InstanceEvent::Stop)?;
    take_off(txn, instance)?;
    Ok(Reply::shows(message.uuid))
}

/// Takes an instance off its host, if it is on one.
fn take_off(txn: &mut Txn<'_>, mut instance: VmInstance) -> Result<VmInstance> {
    if instance.host_uuid.take().is_none() {
        return Ok(instance);
    }
    instance.is_paused = false;
    instance.pending_host_uuid = None;
    txn.update(instance.clone())?;
    for mut nic in txn.children(VmNic::VM_INSTANCE, instance.uuid) {
        (nic.host_uuid, nic.pending_host_uuid) = (None, None);
        txn.update(nic)?;
    }
    Ok(instance)
}

pub(crate) fn reboot(txn: &mut Txn<'_>, message: RebootVmInstance) -> Result<Reply> {
    let mut instance = txn.get(message.uuid)?;
    check(txn, &instance, InstanceEvent::Reboot)?;
    instance.generation += 1;
    txn.update(instance)?;
    Ok(Reply::shows(message.uuid))
}

/// The addresses are given back now, as in ZStack: who destroys an instance wants to use them, and
/// a network whose instances come and go would run out of them within a day. MACs stay with the
/// NICs, which stay with the instance.
pub(crate) fn destroy(txn: &mut Txn<'_>, message: DestroyVmInstance) -> Result<Reply> {
    if message.delete_mode == Some(DeleteMode::Enforcing) {
        txn.waits_for_no_lost_host();
    }
    let instance = txn.get(message.uuid)?;
    check(txn, &instance, InstanceEvent::Destroy)?;
    if instance.phase == Phase::Destroyed {
        return Ok(Reply::nothing());
    }
    let mut instance = take_off(txn, instance)?;
    let nics = txn.child_ids(VmNic::VM_INSTANCE, instance.uuid);
    let used = nics.iter().flat_map(|nic| txn.used_by(AnyId::of(*nic))).collect();
    txn.delete_all::<UsedIp>(used)?;
    nics.into_iter().try_for_each(|nic| vip_guests::leave(txn, nic))?;
    instance.phase = Phase::Destroyed;
    instance.destroyed = Some(txn.now());
    txn.update(instance)?;
    if config::deletion_policy(&*txn.tx, message.uuid.uuid()) == DeletionPolicy::Direct {
        txn.delete(message.uuid)?;
    }
    Ok(Reply::nothing())
}

pub(crate) fn recover(txn: &mut Txn<'_>, message: RecoverVmInstance) -> Result<Reply> {
    let mut instance = txn.get(message.uuid)?;
    check(txn, &instance, InstanceEvent::Recover)?;
    txn.keep_quota(<VmInstance as model::Resource>::KIND)?;
    txn.act_for(instance.uuid);
    for mut nic in txn.children(VmNic::VM_INSTANCE, instance.uuid) {
        let l3s = [&[nic.l3_network_uuid][..], &nic.more_l3_network_uuids].concat();
        let mut given = Vec::new();
        for l3 in l3s {
            let l3 = txn.get(l3)?;
            let chosen = addresses::inside(txn, &l3, &nic.static_ips);
            let of_l3 = addresses::give(txn, &l3, AnyId::of(nic.uuid), &chosen, nic.mac);
            given.extend(of_l3.map_err(|error| error.on_field("uuid"))?);
        }
        nic.used_ip_uuid = given.first().copied();
        txn.update(nic)?;
    }
    instance.phase = Phase::Live;
    instance.destroyed = None;
    txn.update(instance)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn expunge(txn: &mut Txn<'_>, message: ExpungeVmInstance) -> Result<Reply> {
    let instance = txn.get(message.uuid)?;
    check(txn, &instance, InstanceEvent::Expunge)?;
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

pub(crate) fn pause(txn: &mut Txn<'_>, message: PauseVmInstance) -> Result<Reply> {
    let instance = txn.get(message.uuid)?;
    check_can_stand_still(&instance)?;
    check(txn, &instance, InstanceEvent::Pause)?;
    txn.update(VmInstance { is_paused: true, ..instance })?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn resume(txn: &mut Txn<'_>, message: ResumeVmInstance) -> Result<Reply> {
    let instance = txn.get(message.uuid)?;
    check_can_stand_still(&instance)?;
    check(txn, &instance, InstanceEvent::Resume)?;
    txn.update(VmInstance { is_paused: false, ..instance })?;
    Ok(Reply::shows(message.uuid))
}

fn check_can_stand_still(instance: &VmInstance) -> Result<()> {
    if instance.driver == InstanceDriver::Qemu {
        return Ok(());
    }
    let driver = instance.driver.as_str();
    let text = format!("instance {}: driver {driver} cannot freeze instances", instance.uuid);
    let hint = "a namespace has no processes of its own; StopVmInstance cuts it off";
    Err(Error::new(Code::OperationFailed, text).hint(hint))
}

/// Refuses what the instance's state does not allow, and what would change it while it moves.
pub(crate) fn check(txn: &Txn<'_>, instance: &VmInstance, event: InstanceEvent) -> Result<()> {
    let state = state(txn, instance);
    use InstanceEvent::{Pause, Plug, Reboot, Resume};
    if let (Some(to), Reboot | Pause | Resume | Plug) = (instance.moves_to(), event) {
        let text = format!("instance {} is being moved to host {to}", instance.uuid);
        let hint = "wait until its job is over; StopVmInstance ends it and the move";
        return Err(Error::new(Code::InUse, text).on_field("uuid").hint(hint));
    }
    if state.next(event).is_some() {
        return Ok(());
    }
    let allowed: Vec<_> = InstanceState::that_take(event).map(|state| state.as_str()).collect();
    let text = format!("instance {} is {}", instance.uuid, state.as_str());
    let hint = format!("this needs one that is {}", allowed.join(" or "));
    Err(Error::new(Code::OperationFailed, text).on_field("uuid").hint(hint))
}

/// The state of an instance as callers see it.
pub(crate) fn state(txn: &Txn<'_>, instance: &VmInstance) -> InstanceState {
    let nowhere = HostStatus::default();
    let status = instance.host_uuid.map_or(&nowhere, |host| txn.status(host));
    instance.state(status, kept_place(txn, instance).is_some())
}
