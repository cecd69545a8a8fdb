//! L3 networks.

use model::{
    Error, Result,
    resource::{
        l2_network::Segment,
        l3_network::{
            CreateL3Network, DeleteL3Network, L3Category, L3Network, L3Type, UpdateL3Network,
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
    vec![job(create), job(update), job(delete)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateL3Network) -> Result<Reply> {
    let l2 = txn.get(message.l2_network_uuid)?;
    if l2.segment == Segment::VxlanPool {
        let error = Error::field("l2NetworkUuid", format!("{} is a pool", l2.uuid));
        return Err(error.hint("make a network from it with CreateL2VxlanNetwork"));
    }
    let ip_version = message.ip_version.unwrap_or(4);
    if ip_version == 5 {
        return Err(Error::field("ipVersion", "5 is no family").hint("give 4 or 6"));
    }
    let category = message.category.unwrap_or(L3Category::Private);
    let system = category == L3Category::System;
    if message.system.is_some_and(|wanted| wanted != system) {
        let error = Error::field("system", format!("does not agree with {}", category.as_str()));
        return Err(error.hint("true goes with category System, false with the others"));
    }
    if message.enable_ipam == Some(false) {
        let error = Error::field("enableIPAM", "an L3 network without addresses is not made yet");
        return Err(error.hint("give true, or leave it out"));
    }
    let network = L3Network {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        network_type: L3Type::Basic,
        zone_uuid: l2.zone_uuid,
        l2_network_uuid: l2.uuid,
        state: EnableState::Enabled,
        dns_domain: message.dns_domain,
        system,
        category,
        ip_version,
        enable_ipam: true,
    };
    txn.insert(network).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateL3Network) -> Result<Reply> {
    let mut l3 = txn.get(message.uuid)?;
    l3.name = message.name.unwrap_or(l3.name);
    message.description.apply(&mut l3.description);
    message.dns_domain.apply(&mut l3.dns_domain);
    txn.update(l3)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteL3Network) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
