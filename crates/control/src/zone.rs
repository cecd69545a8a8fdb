//! Zones.

use model::{
    Result,
    resource::{
        cluster::Cluster,
        zone::{ChangeZoneState, CreateZone, DeleteZone, EnableState, UpdateZone, Zone, ZoneType},
    },
};

use crate::{
    Reply, Txn, cluster,
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(change_state), job(delete)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateZone) -> Result<Reply> {
    let zone = Zone {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        state: EnableState::Enabled,
        zone_type: ZoneType::Zstack,
        is_default: message.is_default.unwrap_or(false),
    };
    txn.insert(zone).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateZone) -> Result<Reply> {
    let mut zone = txn.get(message.uuid)?;
    zone.name = message.name.unwrap_or(zone.name);
    message.description.apply(&mut zone.description);
    zone.is_default = message.is_default.unwrap_or(zone.is_default);
    txn.update(zone)?;
    Ok(Reply::shows(message.uuid))
}

/// As in ZStack, the clusters and their hosts go along, and can then be changed one by one.
pub(crate) fn change_state(txn: &mut Txn<'_>, message: ChangeZoneState) -> Result<Reply> {
    let mut zone = txn.get(message.uuid)?;
    zone.state = zone.state.next(message.state_event);
    txn.update(zone)?;
    let clusters = txn.children(Cluster::ZONE, message.uuid);
    cluster::change_all(txn, clusters, message.state_event)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteZone) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
