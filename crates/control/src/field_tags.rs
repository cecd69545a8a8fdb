//! System tags that say what a field says: `hostname::` of an instance, `staticIp::` of its NICs.
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

use crate::{Txn, addresses, nic_settings};

const HOSTNAME: &str = "hostname::";

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
            let inherent = !tag.starts_with(HOSTNAME);
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
    if let Some(other) = instance.hostname.filter(|other| Some(&other[..]) != hostname(tag)) {
        let text = format!("instance {} has the hostname {other}", instance.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("tag");
        return Err(error.hint("UpdateSystemTag and SetVmHostname change it"));
    }
    set(txn, resource, Some(tag))
}

/// Sets the field that a tag repeats, or empties it.
pub(crate) fn set(txn: &mut Txn<'_>, resource: AnyId, tag: Option<&str>) -> Result<()> {
    let name = tag.and_then(hostname).map(str::to_owned);
    let named = nic_settings::name(txn, Id::new(resource.uuid), name);
    named.map(drop).map_err(|error| match error.field.as_deref() {
        Some("hostname") => error.on_field("tag"),
        _ => error,
    })
}

fn hostname(tag: &str) -> Option<&str> {
    tag.strip_prefix(HOSTNAME)
}

/// Checks the value of a tag that repeats a field and may be put on at any time.
pub(crate) fn check(form: &TagForm, tag: &str) -> Result<()> {
    match hostname(tag).filter(|_| form.of_field) {
        Some(name) => nic_settings::check_hostname("tag", name),
        None => Ok(()),
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
