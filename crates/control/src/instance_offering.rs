//! Instance offerings.

use model::{
    Result,
    resource::{
        instance_offering::{
            AllocatorStrategy, ChangeInstanceOfferingState, CreateInstanceOffering,
            DeleteInstanceOffering, InstanceOffering, OfferingType, UpdateInstanceOffering,
        },
        zone::EnableState,
    },
};

use crate::{
    Reply, Txn,
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(delete), job(change_state)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateInstanceOffering) -> Result<Reply> {
    let offering = InstanceOffering {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        cpu_num: message.cpu_num,
        memory_size: message.memory_size,
        reserved_memory_size: message.reserved_memory_size.unwrap_or(0),
        offering_type: OfferingType::User,
        allocator_strategy: AllocatorStrategy::LeastVm,
        sort_key: message.sort_key.unwrap_or(0),
        state: EnableState::Enabled,
    };
    txn.insert(offering).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateInstanceOffering) -> Result<Reply> {
    let mut offering = txn.get(message.uuid)?;
    offering.name = message.name.unwrap_or(offering.name);
    message.description.apply(&mut offering.description);
    txn.update(offering)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteInstanceOffering) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

pub(crate) fn change_state(
    txn: &mut Txn<'_>,
    message: ChangeInstanceOfferingState,
) -> Result<Reply> {
    let mut offering = txn.get(message.uuid)?;
    offering.state = offering.state.next(message.state_event);
    txn.update(offering)?;
    Ok(Reply::shows(message.uuid))
}
