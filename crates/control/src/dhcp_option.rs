//! What operators have DHCP tell instances, beside what netloom computes.

use std::collections::BTreeMap;

use model::{
    AnyId, Error, Id, Kind, Result, dhcp,
    resource::dhcp_option::{DhcpOption, SetL3NetworkDhcpOptions, SetVmNicDhcpOptions},
};
use serde_json::Value;
use store::Read;
use uuid::Uuid;

use crate::{
    Reply, Txn,
    operation::{Operation, job},
};

/// Most options of one network or NIC.
const OPTIONS_MAX: usize = 32;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(set_of_network), job(set_of_nic)]
}

fn set_of_network(txn: &mut Txn<'_>, message: SetL3NetworkDhcpOptions) -> Result<Reply> {
    let l3 = txn.get(message.l3_network_uuid)?;
    txn.act_for(l3.uuid);
    set(txn, AnyId::of(l3.uuid), &message.options)?;
    Ok(Reply::shows(l3.uuid))
}

fn set_of_nic(txn: &mut Txn<'_>, message: SetVmNicDhcpOptions) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    txn.act_for(nic.uuid);
    set(txn, AnyId::of(nic.uuid), &message.options)?;
    Ok(Reply::shows(nic.uuid))
}

/// Puts these in the place of those that were there. One that stays keeps its row.
fn set(txn: &mut Txn<'_>, resource: AnyId, wanted: &[Value]) -> Result<()> {
    if wanted.len() > OPTIONS_MAX {
        let rule = format!("has {} options, over {OPTIONS_MAX}", wanted.len());
        return Err(Error::field("options", rule).hint("leave some out"));
    }
    let mut options = BTreeMap::new();
    for (at, entry) in wanted.iter().enumerate() {
        let option = read(resource, entry).map_err(|rule| wrong(at, &rule))?;
        let (code, version) = (option.code, option.ip_version);
        if options.insert(option.uuid, option).is_some() {
            return Err(wrong(at, &format!("option {code} of IPv{version} is there twice")));
        }
    }
    let before: Vec<Uuid> =
        txn.tx.referrers(Kind::DhcpOption, "resourceUuid", resource.uuid).collect();
    for id in before.into_iter().map(Id::<DhcpOption>::new) {
        match (options.remove(&id), txn.find(id)) {
            (Some(same), Some(before)) if same == before => {}
            (Some(changed), _) => txn.update(changed)?,
            (None, _) => txn.delete(id)?,
        }
    }
    options.into_values().try_for_each(|option| txn.insert(option).map(drop))
}

fn wrong(at: usize, rule: &str) -> Error {
    let hint = r#"the form is {"name": "tftp-server", "value": "10.0.0.5", "ipVersion": 4}, where the name may be a code"#;
    Error::field("options", format!("entry {at}: {rule}")).hint(hint)
}

/// An entry of a message, or the rule that it breaks.
fn read(resource: AnyId, entry: &Value) -> std::result::Result<DhcpOption, String> {
    let fields = entry.as_object().ok_or("it is no map")?;
    if let Some(odd) = fields.keys().find(|key| !["name", "value", "ipVersion"].contains(&&key[..]))
    {
        return Err(format!("\"{}\" is no field of it", odd.chars().take(64).collect::<String>()));
    }
    let name = match fields.get("name") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(code)) => code.to_string(),
        _ => return Err("name is a word or a code".to_owned()),
    };
    let value = fields.get("value").and_then(Value::as_str).ok_or("value is a text")?;
    let ip_version = match fields.get("ipVersion").map_or(Some(4), Value::as_u64) {
        Some(4) => 4,
        Some(6) => 6,
        _ => return Err("ipVersion is 4 or 6".to_owned()),
    };
    let code = dhcp::code(&name, ip_version)?;
    dhcp::encode(code, ip_version, value)?;
    let key = [&[ip_version][..], &code.to_be_bytes()].concat();
    let uuid = Id::new(Uuid::new_v5(&resource.uuid, &key));
    Ok(DhcpOption { uuid, resource, code, ip_version, value: value.to_owned() })
}
