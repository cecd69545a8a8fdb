//! System tags that say what a field says: `hostname::` and `sshkey::` of an instance, `staticIp::` of its
//! NICs. (`userdata::` says it, too, but only as an instance is made: it is too long for a tag.)
//!
//! The field is what is stored and what takes effect. After each message the tags of every instance
//! that it touched are made to say the same. So a query by tag finds what is so, whichever way it
//! came about: by a tag, by a message such as `SetVmHostname`, by a network that is deleted.

use std::net::IpAddr;

use model::{
    AnyId, Code, Error, Id, Kind, Resource, Result,
    resource::{
        tag::{SystemTag, TagForm},
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
};
use store::Read;
use uuid::Uuid;

use crate::{Txn, addresses, guest_data, nic_settings};

const HOSTNAME: &str = "hostname::";
const KEY: &str = "sshkey::";

/// Makes the tags of the instances that were touched say what the fields say. A tag whose value
/// changes keeps its uuid.
pub(crate) fn follow(txn: &mut Txn<'_>) -> Result<()> {
    for id in txn.take_instances() {
        let Some(instance) = txn.find(id) else { continue };
        let mut missing = said(txn, &instance);
        let mut rows = rows(txn, id);
        rows.retain(|row| {
            let said = missing.iter().position(|tag| *tag == row.tag);
            said.map(|at| missing.swap_remove(at)).is_none()
        });
        for row in rows {
            match missing.iter().position(|tag| slot(tag) == slot(&row.tag)) {
                Some(at) => txn.update(SystemTag { tag: missing.swap_remove(at), ..row })?,
                None => txn.delete(row.uuid)?,
            }
        }
        for tag in missing {
            let inherent = !tag.starts_with(HOSTNAME) && !tag.starts_with(KEY);
            let uuid = Id::new(txn.random_uuid());
            txn.insert(SystemTag { uuid, resource: AnyId::of(id), tag, inherent })?;
        }
    }
    Ok(())
}

/// What the fields of an instance and of its NICs say, as tags.
fn said(txn: &Txn<'_>, instance: &VmInstance) -> Vec<String> {
    let mut said: Vec<_> =
        instance.hostname.iter().map(|name| format!("{HOSTNAME}{name}")).collect();
    said.extend(guest_data::key_of(txn, instance.uuid).map(|key| format!("{KEY}{key}")));
    for nic in txn.children(VmNic::VM_INSTANCE, instance.uuid) {
        if nic.static_ips.is_empty() {
            continue;
        }
        for l3 in [&[nic.l3_network_uuid][..], &nic.more_l3_network_uuids].concat() {
            let ips = match nic.more_l3_network_uuids.is_empty() {
                true => nic.static_ips.clone(),
                false => txn
                    .find(l3)
                    .map_or_else(Vec::new, |l3| addresses::inside(txn, &l3, &nic.static_ips)),
            };
            said.extend(ips.into_iter().map(|ip| format!("staticIp::{l3}::{}", in_tag(ip))));
        }
    }
    said
}

/// An address as tags have it.
fn in_tag(ip: IpAddr) -> String {
    ip.to_string().replace(':', "--")
}

/// The tags of an instance that repeat a field.
fn rows(txn: &Txn<'_>, instance: Id<VmInstance>) -> Vec<SystemTag> {
    let found: Vec<Uuid> =
        txn.tx.referrers(Kind::SystemTag, "resourceUuid", instance.uuid()).collect();
    let tags = found.into_iter().filter_map(|id| txn.find::<SystemTag>(Id::new(id)));
    let forms = VmInstance::DEF.tags;
    tags.filter(|row| forms.iter().any(|form| form.of_field && form.fits(&row.tag))).collect()
}

/// What a tag is about, of which there is one: the hostname; an L3 network and a family.
fn slot(tag: &str) -> (&str, bool) {
    match tag.rsplit_once("::") {
        Some((start, ip)) if start.contains("::") => (start, ip.contains("--")),
        Some((start, _)) => (start, false),
        None => (tag, false),
    }
}

/// Sets the field that a tag repeats, before the tag is put on.
///
/// # Errors
/// Those of the field; [`Code::OperationFailed`] when it has another value.
pub(crate) fn put_on(txn: &mut Txn<'_>, resource: AnyId, tag: &str) -> Result<()> {
    let instance = txn.get(Id::<VmInstance>::new(resource.uuid))?;
    let said = said(txn, &instance);
    if let Some(other) = said.iter().find(|other| slot(other) == slot(tag) && *other != tag) {
        let text = format!("instance {} has the tag {other}", instance.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("tag");
        return Err(error.hint(match tag.starts_with(KEY) {
            true => "UpdateSystemTag and SetVmSshKey change it",
            false => "UpdateSystemTag and SetVmHostname change it",
        }));
    }
    set(txn, resource, tag)
}

/// Sets the field that a tag repeats.
pub(crate) fn set(txn: &mut Txn<'_>, resource: AnyId, tag: &str) -> Result<()> {
    match tag.strip_prefix(KEY) {
        Some(key) => give_key(txn, resource, Some(key.to_owned())),
        None => name(txn, resource, tag.strip_prefix(HOSTNAME).map(str::to_owned)),
    }
}

/// Empties the field that a tag repeats.
pub(crate) fn take_off(txn: &mut Txn<'_>, resource: AnyId, tag: &str) -> Result<()> {
    match tag.starts_with(KEY) {
        true => give_key(txn, resource, None),
        false => name(txn, resource, None),
    }
}

fn give_key(txn: &mut Txn<'_>, resource: AnyId, key: Option<String>) -> Result<()> {
    guest_data::give_key(txn, Id::new(resource.uuid), key).map(drop)
}

fn name(txn: &mut Txn<'_>, resource: AnyId, name: Option<String>) -> Result<()> {
    let named = nic_settings::name(txn, Id::new(resource.uuid), name);
    named.map(drop).map_err(|error| match error.field.as_deref() {
        Some("hostname") => error.on_field("tag"),
        _ => error,
    })
}

/// Checks the value of a tag that repeats a field and may be put on at any time.
pub(crate) fn check(form: &TagForm, tag: &str) -> Result<()> {
    match (tag.strip_prefix(HOSTNAME), tag.strip_prefix(KEY)) {
        (Some(name), _) if form.of_field => nic_settings::check_hostname("tag", name),
        (_, Some(key)) if form.of_field => guest_data::check_key("tag", key),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_hostname_and_one_address_of_a_network_and_family() {
        assert_eq!(slot("hostname::a--b"), slot("hostname::c"));
        assert_eq!(slot("staticIp::x::10.0.0.1"), slot("staticIp::x::10.0.0.2"));
        assert_ne!(slot("staticIp::x::10.0.0.1"), slot("staticIp::x::fd00----1"));
        assert_ne!(slot("staticIp::x::10.0.0.1"), slot("staticIp::y::10.0.0.1"));
        assert_eq!(in_tag("fd00::1".parse().unwrap()), "fd00----1");
    }
}
