//! Moves of instances that run to another host, with their memory.
//!
//! The row of an instance says where it is and where it moves to, and so do those of its NICs. Both
//! hosts prepare for it, and then do the work among themselves. What has become of it they report: the
//! new host that it runs there, or the old one that it goes on. [`mover`](crate::mover) has that
//! written down here. Until then it has its place on both.

use std::{collections::BTreeSet, net::IpAddr};

use model::{
    Claim, Code, Error, Id, Kind, Record, Resource, Result,
    resource::{
        host::Host,
        job::Job,
        vm_instance::{InstanceDriver, VmInstance},
        vm_life::MigrateVm,
        vm_nic::VmNic,
        vm_state::InstanceState,
    },
};
use store::{Read, Tx};

use crate::{
    Reply, Txn, claim, nic_binding,
    operation::{Operation, job},
    placement::{self, Demand},
    realiser, vm_life,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(migrate)]
}

pub(crate) fn migrate(txn: &mut Txn<'_>, message: MigrateVm) -> Result<Reply> {
    let instance = txn.get(message.vm_instance_uuid)?;
    let id = instance.uuid;
    if let Some(to) = instance.moves_to() {
        if message.host_uuid.is_none_or(|host| host == to) {
            txn.waits_for_move(&instance);
            return Ok(Reply::shows(id));
        }
        let text = format!("instance {id} is being moved to host {to}");
        let hint = "wait until that is over";
        return Err(Error::new(Code::InUse, text).on_field("vmInstanceUuid").hint(hint));
    }
    let nics = txn.children(VmNic::VM_INSTANCE, id);
    let (from, to) = ways(txn, &instance, &nics, message.host_uuid)?;
    // Whoever deletes the host looks at what is on it.
    txn.fence(to.uuid);
    let move_ips: Vec<IpAddr> = vec![from.management_ip, to.management_ip];
    for nic in nics {
        let move_number = txn.number("move")?;
        let (pending_host_uuid, move_ips) = (Some(to.uuid), move_ips.clone());
        txn.update(VmNic { pending_host_uuid, move_number, move_ips, ..nic })?;
    }
    let moves = VmInstance {
        pending_host_uuid: Some(to.uuid),
        move_number: txn.number("move")?,
        move_ips,
        move_jobs: Vec::new(),
        ..instance
    };
    txn.waits_for_move(&moves);
    txn.update(moves)?;
    Ok(Reply::shows(id))
}

/// Whether an instance can be moved while it runs, to some host.
///
/// # Errors
/// What stands in the way, and what to do about it.
pub(crate) fn would_move(txn: &Txn<'_>, instance: &VmInstance) -> Result<()> {
    let nics = txn.children(VmNic::VM_INSTANCE, instance.uuid);
    ways(txn, instance, &nics, None).map(drop)
}

/// From where to where an instance with these NICs can be moved.
fn ways(
    txn: &Txn<'_>,
    instance: &VmInstance,
    nics: &[VmNic],
    host: Option<Id<Host>>,
) -> Result<(Host, Host)> {
    let id = instance.uuid;
    let refused = |text: String, hint: &str| {
        let error = Error::new(Code::OperationFailed, text);
        Err(error.on_field("vmInstanceUuid").hint(hint))
    };
    let again = "StopVmInstance, then StartVmInstance with hostUuid, moves the instance with its \
                 addresses and MACs, and starts it anew";
    if instance.driver != InstanceDriver::Qemu {
        let driver = instance.driver.as_str();
        let text = format!("instance {id}: driver {driver} cannot move what runs in it");
        return refused(text, again);
    }
    let state = vm_life::state(txn, instance);
    let (InstanceState::Running, Some(from)) = (state, instance.host_uuid) else {
        let text = format!("instance {id} is {}", state.as_str());
        return refused(text, "this needs one that is Running");
    };
    for nic in nics {
        if let Some(why) = nic_binding::why_it_stays(txn, nic)? {
            return refused(format!("instance {id}: {why}"), again);
        }
    }
    if host == Some(from) {
        let text = format!("instance {id} is on host {from}");
        return Err(Error::new(Code::OperationFailed, text)
            .on_field("hostUuid")
            .hint("name another"));
    }
    let l2s = nics.iter().map(|nic| txn.get(nic.l2_network_uuid)).collect::<Result<_>>()?;
    let (zone, cluster) = (instance.zone_uuid, instance.cluster_uuid.filter(|_| host.is_none()));
    let driver = instance.driver;
    let demand = Demand { zone, cluster, host, last: None, not: Some(from), l2s, driver };
    let to = placement::choose(txn, &demand)?;
    realiser::first_nics(txn, &to, &demand.l2s)?;
    if txn.release_of(&Claim::Running(to.uuid, id)).is_some() {
        let text = format!("host {} has not confirmed that it let go of instance {id}", to.uuid);
        let hint = "wait until it has";
        return Err(Error::new(Code::InUse, text).on_field("hostUuid").hint(hint));
    }
    Ok((txn.get(from)?, to))
}

/// It runs where it was to move to.
pub(crate) fn arrive(txn: &mut Txn<'_>, instance: VmInstance) -> Result<()> {
    let Some(to) = instance.moves_to() else { return Ok(()) };
    let host = txn.get(to)?;
    for nic in txn.children(VmNic::VM_INSTANCE, instance.uuid) {
        txn.update(VmNic { host_uuid: Some(to), pending_host_uuid: None, ..nic })?;
    }
    txn.update(VmInstance {
        host_uuid: Some(to),
        last_host_uuid: Some(to),
        cluster_uuid: Some(host.cluster_uuid),
        hypervisor_type: host.hypervisor_type,
        pending_host_uuid: None,
        move_jobs: Vec::new(),
        ..instance
    })
}

/// It goes on where it is; those who wait for it are told why.
pub(crate) fn give_up(txn: &mut Txn<'_>, instance: VmInstance, why: &str) -> Result<()> {
    let Some(to) = instance.moves_to() else { return Ok(()) };
    let text = format!("instance {} was not moved to host {to}, and goes on: {why}", instance.uuid);
    fail(txn.tx, &instance.move_jobs, &text)?;
    for nic in txn.children(VmNic::VM_INSTANCE, instance.uuid) {
        txn.update(VmNic { pending_host_uuid: None, ..nic })?;
    }
    txn.update(VmInstance { pending_host_uuid: None, move_jobs: Vec::new(), ..instance })
}

/// A job is a success once these instances have moved.
pub(crate) fn is_awaited(
    tx: &mut Tx<Record>,
    instances: &BTreeSet<Id<VmInstance>>,
    job: Id<Job>,
) -> Result<()> {
    for id in instances {
        let Some(record) = tx.get(Kind::VmInstance, id.uuid()) else { continue };
        let Some(mut instance) = VmInstance::of(&record).cloned() else { continue };
        if instance.move_jobs.len() < JOBS_MAX {
            instance.move_jobs.push(job.uuid());
            tx.put(Record::new(instance, record.meta)).map_err(claim::taken)?;
        }
    }
    Ok(())
}

/// Jobs that wait for one move at most.
const JOBS_MAX: usize = 64;

/// What a job waits for that waits for a move.
pub(crate) fn waits(job: &Job, read: &impl Read<Record>) -> Option<String> {
    job.objects.iter().find_map(|object| {
        let record = read.get(Kind::VmInstance, *object)?;
        let instance = VmInstance::of(&record)?;
        let to = instance.moves_to()?;
        let is_it = instance.move_jobs.contains(&job.uuid.uuid());
        is_it.then(|| format!("instance {} is on its way to host {to}", instance.uuid))
    })
}

/// These jobs will never be in force.
pub(crate) fn fail(tx: &mut Tx<Record>, jobs: &[uuid::Uuid], text: &str) -> Result<()> {
    for uuid in jobs {
        let Some(record) = tx.get(Kind::Job, *uuid) else { continue };
        let Some(job) = Job::of(&record).filter(|job| !job.is_over()) else { continue };
        let failed = Job { failed: Some(text.to_owned()), ..job.clone() };
        tx.put(Record::new(failed, record.meta)).map_err(claim::taken)?;
    }
    Ok(())
}
