//! Address groups: lists of addresses that rules of security groups name.

use model::{
    Code, Error, Result,
    resource::address_group::{
        ADDRESSES_MAX, AddAddressesToAddressGroup, AddressGroup, CreateAddressGroup,
        DeleteAddressGroup, RemoveAddressesFromAddressGroup, UpdateAddressGroup,
    },
    resource::security_group_rule::SecurityGroupRule,
    spans,
};

use crate::{
    Reply, Txn,
    operation::{Operation, job},
    security_group,
};

const FIELD: &str = "addresses";

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(delete), job(add), job(remove)]
}

fn create(txn: &mut Txn<'_>, message: CreateAddressGroup) -> Result<Reply> {
    let addresses = checked(&[], &message.addresses, Again::Refused)?;
    let (name, description) = (message.name, message.description);
    txn.insert(AddressGroup { uuid: txn.new_id(), name, description, addresses }).map(Reply::shows)
}

fn update(txn: &mut Txn<'_>, message: UpdateAddressGroup) -> Result<Reply> {
    let mut group = txn.get(message.uuid)?;
    group.name = message.name.unwrap_or(group.name);
    message.description.apply(&mut group.description);
    if let Some(addresses) = &message.addresses {
        group.addresses = checked(&[], addresses, Again::Refused)?;
    }
    changed(txn, group)
}

fn delete(txn: &mut Txn<'_>, message: DeleteAddressGroup) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

fn add(txn: &mut Txn<'_>, message: AddAddressesToAddressGroup) -> Result<Reply> {
    let mut group = txn.get(message.uuid)?;
    group.addresses = checked(&group.addresses, &message.addresses, Again::PassedOver)?;
    changed(txn, group)
}

fn remove(txn: &mut Txn<'_>, message: RemoveAddressesFromAddressGroup) -> Result<Reply> {
    let mut group = txn.get(message.uuid)?;
    let gone = checked(&[], &message.addresses, Again::PassedOver)?;
    group.addresses.retain(|address| !gone.contains(address));
    changed(txn, group)
}

/// Success waits for the members of the groups whose rules name it.
fn changed(txn: &mut Txn<'_>, group: AddressGroup) -> Result<Reply> {
    let id = group.uuid;
    txn.update(group)?;
    let rules = txn.children(SecurityGroupRule::REMOTE_ADDRESS_GROUP, id).into_iter();
    let groups: std::collections::BTreeSet<_> =
        rules.map(|rule| rule.security_group_uuid).collect();
    groups.into_iter().for_each(|group| security_group::waits_for_members(txn, group));
    Ok(Reply::shows(id))
}

/// What is done about an address that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Refused,
    PassedOver,
}

/// Addresses with more of them, in the form that they are kept in.
fn checked(before: &[String], more: &[String], again: Again) -> Result<Vec<String>> {
    let mut addresses = before.to_vec();
    for item in more {
        let span = spans::address_span(item.trim());
        let span = span.map_err(|rule| wrong(&rule))?;
        let address = spans::show_addresses(&[span]);
        match (addresses.contains(&address), again) {
            (false, _) => addresses.push(address),
            (true, Again::PassedOver) => {}
            (true, Again::Refused) => return Err(wrong(&format!("names {address} twice"))),
        }
    }
    if addresses.len() > ADDRESSES_MAX {
        let text = format!("an address group has {ADDRESSES_MAX} addresses at most");
        let error = Error::new(Code::OperationFailed, text).on_field(FIELD);
        return Err(error.hint("networks are one address each; make a second group"));
    }
    Ok(addresses)
}

fn wrong(rule: &str) -> Error {
    Error::field(FIELD, rule).hint("an item is 10.0.0.1, 10.0.0.0/8, 10.0.0.1-10.0.0.9, or of IPv6")
}
