//! Addresses that somebody has.

use model::{
    Code, Error, Result,
    resource::used_ip::{AddressState, DeleteIpAddress},
};

use crate::{
    Reply, Txn,
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(delete)]
}

/// An address is always somebody's, and goes with who has it. ZStack has some that nobody has any
/// more; to delete those that are gone succeeds here, too.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteIpAddress) -> Result<Reply> {
    let Some(id) = message.used_ip_uuids.first() else { return Ok(Reply::nothing()) };
    let used = txn.get(*id)?;
    if used.l3_network_uuid != message.l3_network_uuid {
        let text = format!("{} is not an address of {}", used.ip, message.l3_network_uuid);
        let hint = format!("it is one of {}", used.l3_network_uuid);
        return Err(Error::field("usedIpUuids", text).hint(hint));
    }
    if used.state() == AddressState::ReleasePending {
        let text = format!("hosts have not let {} go yet", used.ip);
        let hint = "it goes by itself; QueryHost status!=Connected shows who is missing";
        return Err(Error::new(Code::InUse, text).on_field("usedIpUuids").hint(hint));
    }
    let (user, uuid) = (used.used_by.kind.def().name, used.used_by.uuid.simple());
    let text = format!("{} is used by {user} {uuid}", used.ip);
    let hint = "the address goes with it";
    Err(Error::new(Code::InUse, text).on_field("usedIpUuids").hint(hint))
}
