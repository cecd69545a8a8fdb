//! Zones.

use model::{
    Result,
    resource::zone::{CreateZone, DeleteZone, EnableState, Zone},
};

use crate::{Reply, Txn};

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateZone) -> Result<Reply> {
    let zone = Zone {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        state: EnableState::Enabled,
        zone_type: "zstack".into(),
        is_default: message.is_default.unwrap_or(false),
        create_date: txn.now(),
        last_op_date: txn.now(),
    };
    txn.insert(zone).map(Reply::shows)
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteZone) -> Result<Reply> {
    txn.must_be_unused(message.uuid, &[])?;
    txn.remove(message.uuid);
    Ok(Reply::nothing())
}
