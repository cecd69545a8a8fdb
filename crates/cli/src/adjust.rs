//! What a topology says of a resource beyond its fields: tags, and of an instance its hostname,
//! addresses, MACs and host. Each has messages of its own.

use std::net::IpAddr;

use client::Client;
use model::Kind;
use serde_json::{Map, Value, json};

use crate::{
    Error,
    arguments::Call,
    names,
    noun::{Noun, noun_of},
    plan::SET,
    topology::Entry,
};

/// A call, with what it changes for people.
pub(crate) type Adjustment = (String, Call);

/// What has to be sent so that a resource has the tags that an entry names, and an instance what these
/// stand for.
pub(crate) fn tags(
    client: &Client,
    entry: &Entry,
    wanted: &Call,
    row: &Value,
) -> Result<Vec<Adjustment>, Error> {
    let mut needed = Vec::new();
    if let Some(tags) = wanted.params.get("userTags").and_then(Value::as_array) {
        needed.extend(user_tags(client, entry, tags, row)?);
    }
    if wanted.tags.is_empty() {
        return Ok(needed);
    }
    let has = tags_of(client, Kind::SystemTag, row)?;
    for tag in &wanted.tags {
        if has.iter().any(|row| row["tag"] == tag.as_str()) {
            continue;
        }
        let parts: Vec<&str> = tag.split("::").collect();
        match (entry.noun.kind, &parts[..]) {
            (Kind::VmInstance, ["hostname", name]) => {
                let params = json!({"uuid": row["uuid"], "hostname": name});
                needed.push((format!("hostname={name}"), call("SetVmHostname", params)));
            }
            (Kind::VmInstance, ["staticIp", l3, ip]) => needed.extend(address(l3, ip, row)),
            (Kind::VmInstance, ["customMac", l3, mac]) => needed.extend(self::mac(l3, mac, row)),
            _ => needed.push((
                format!("tag {tag}"),
                call("CreateSystemTag", of_resource(entry, row, tag)),
            )),
        }
    }
    Ok(needed)
}

/// The tags for people that an entry names are those that the resource has, and no others; those by
/// which topologies know what they have made are not meant.
fn user_tags(
    client: &Client,
    entry: &Entry,
    wanted: &[Value],
    row: &Value,
) -> Result<Vec<Adjustment>, Error> {
    let has = tags_of(client, Kind::UserTag, row)?;
    let is_there = |tag: &&Value| has.iter().any(|one| one["tag"] == **tag);
    let text = |tag: &Value| tag.as_str().unwrap_or_default().to_owned();
    let come = wanted.iter().filter(|tag| !is_there(tag)).map(|tag| {
        let params = of_resource(entry, row, &text(tag));
        (format!("user tag {}", text(tag)), call("CreateUserTag", params))
    });
    let is_own = |one: &&Value| text(&one["tag"]).starts_with(SET);
    let go = has.iter().filter(|one| !wanted.contains(&one["tag"]) && !is_own(one)).map(|one| {
        let text = format!("no user tag {}", text(&one["tag"]));
        (text, call("DeleteTag", json!({"uuid": one["uuid"]})))
    });
    Ok(come.chain(go).collect())
}

fn tags_of(client: &Client, kind: Kind, row: &Value) -> Result<Vec<Value>, Error> {
    let of = format!("resourceUuid={}", row["uuid"].as_str().unwrap_or_default());
    Ok(client.query(kind.def().path(), &[of])?)
}

fn of_resource(entry: &Entry, row: &Value, tag: &str) -> Value {
    let of_type = entry.noun.kind.def().vo();
    json!({"resourceType": of_type, "resourceUuid": row["uuid"], "tag": tag})
}

/// The NIC of an instance on a network.
fn nic_on<'a>(l3: &str, row: &'a Value) -> Option<&'a Value> {
    let nics = row["vmNics"].as_array().into_iter().flatten();
    let is_on = |nic: &Value| {
        let mut used = nic["usedIps"].as_array().into_iter().flatten();
        nic["l3NetworkUuid"] == l3 || used.any(|used| used["l3NetworkUuid"] == l3)
    };
    nics.into_iter().find(|nic| is_on(nic))
}

fn address(l3: &str, ip: &str, row: &Value) -> Option<Adjustment> {
    let parsed = |text: &str| text.replace("--", ":").parse::<IpAddr>().ok();
    let used = nic_on(l3, row)?["usedIps"].as_array().into_iter().flatten();
    let mut has = used.filter_map(|used| parsed(used["ip"].as_str()?));
    let wanted = parsed(ip)?;
    if has.any(|ip| ip == wanted) {
        return None;
    }
    let params = json!({"vmInstanceUuid": row["uuid"], "l3NetworkUuid": l3, "ip": wanted});
    Some((format!("ip={wanted}"), call("SetVmStaticIp", params)))
}

fn mac(l3: &str, mac: &str, row: &Value) -> Option<Adjustment> {
    let nic = nic_on(l3, row)?;
    let has = nic["mac"].as_str().unwrap_or_default();
    let params = json!({"vmNicUuid": nic["uuid"], "mac": mac});
    let differs = !has.eq_ignore_ascii_case(mac);
    differs.then(|| (format!("mac={mac}"), call("UpdateVmNicMac", params)))
}

/// Where an instance runs. A host of its own is for instances that run: the others choose one when
/// they start.
pub(crate) const PLACES: [&str; 2] = ["hostUuid", "clusterUuid"];

/// What brings an instance where an entry says: it is stopped, and started there.
pub(crate) fn place(entry: &Entry, wanted: &Call, row: &Value) -> Vec<Adjustment> {
    let moves = |key: &&str| {
        let to = wanted.params.get(*key);
        to.is_some_and(|to| row.get(*key) != Some(to)) && !row["hostUuid"].is_null()
    };
    let places: Vec<&str> = PLACES.into_iter().filter(moves).collect();
    if entry.noun.kind != Kind::VmInstance || places.is_empty() {
        return Vec::new();
    }
    let mut there = Map::new();
    there.insert("uuid".into(), row["uuid"].clone());
    let named = PLACES.iter().filter_map(|key| Some((*key, wanted.params.get(*key)?)));
    there.extend(named.map(|(key, to)| (key.to_owned(), to.clone())));
    let text = |key: &str| format!("{key}: {} -> {}", row[key], wanted.params[key]);
    let told: Vec<String> = places.into_iter().map(text).collect();
    vec![
        (
            format!("stops, for {}", told.join(", ")),
            call("StopVmInstance", json!({"uuid": row["uuid"]})),
        ),
        (format!("starts, {}", told.join(", ")), call("StartVmInstance", there.into())),
    ]
}

/// Refuses an instance with the MAC of one that is destroyed: that one may be recovered, and keeps it.
pub(crate) fn check_macs(client: &Client, wanted: &Call) -> Result<(), Error> {
    let Some(instances) = noun_of(Kind::VmInstance) else { return Ok(()) };
    for tag in &wanted.tags {
        let ["customMac", l3, mac] = tag.split("::").collect::<Vec<_>>()[..] else { continue };
        let on = [format!("mac={}", mac.to_ascii_lowercase()), format!("l3NetworkUuid={l3}")];
        for nic in client.query(Kind::VmNic.def().path(), &on)? {
            if let Some(error) = holder(client, &instances, &nic)? {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn holder(client: &Client, instances: &Noun, nic: &Value) -> Result<Option<Error>, Error> {
    let Some(uuid) = nic["vmInstanceUuid"].as_str() else { return Ok(None) };
    let found = client.query(instances.face.path, &[format!("uuid={uuid}")])?;
    Ok(found.first().filter(|row| names::is_gone(row)).map(|row| {
        let (mac, name) = (&nic["mac"], &row["name"]);
        Error::Name(format!(
            "the MAC {mac} is that of {name}, which is destroyed and keeps it; netloom vm recover \
             {uuid} brings it back, netloom vm expunge {uuid} ends it"
        ))
    }))
}

fn call(message: &'static str, params: Value) -> Call {
    let params = match params {
        Value::Object(params) => params,
        _ => Map::new(),
    };
    Call { message, params, tags: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    #[test]
    fn an_instance_on_another_host_is_stopped_and_started_there() {
        let topology = Topology::parse("resources: [{vm: {name: a}}]").unwrap();
        let moved = |is: Value, wanted: Value| {
            let wanted = call("CreateVmInstance", wanted);
            let steps = place(&topology.entries[0], &wanted, &is).into_iter();
            steps.map(|(_, call)| (call.message, Value::Object(call.params))).collect::<Vec<_>>()
        };
        let runs = json!({"uuid": "a", "hostUuid": "h1", "clusterUuid": "c1"});
        let there = json!({"uuid": "a", "hostUuid": "h2", "clusterUuid": "c1"});
        let steps = moved(runs.clone(), json!({"hostUuid": "h2", "clusterUuid": "c1"}));
        assert_eq!(steps, [("StopVmInstance", json!({"uuid": "a"})), ("StartVmInstance", there)]);
        let steps = moved(runs.clone(), json!({"clusterUuid": "c2"}));
        assert_eq!(steps[1].1, json!({"uuid": "a", "clusterUuid": "c2"}));
        assert_eq!(moved(runs.clone(), json!({"hostUuid": "h1"})), []);
        assert_eq!(moved(runs, json!({})), []);
        let stopped = json!({"uuid": "a", "hostUuid": null, "lastHostUuid": "h1"});
        assert_eq!(moved(stopped, json!({"hostUuid": "h2"})), [], "it has no host");
    }

    #[test]
    fn an_address_that_a_nic_has_needs_nothing() {
        let used = json!([{"ip": "10.0.0.5", "l3NetworkUuid": "x"}, {"ip": "fd00::5", "l3NetworkUuid": "x"}]);
        let row = json!({"uuid": "a", "vmNics": [{"l3NetworkUuid": "x", "usedIps": used}]});
        assert_eq!(address("x", "10.0.0.5", &row), None);
        assert_eq!(address("x", "fd00--5", &row), None);
        assert_eq!(address("y", "10.0.0.5", &row), None, "it has no NIC there");
        let (_, call) = address("x", "10.0.0.6", &row).unwrap();
        assert_eq!(call.message, "SetVmStaticIp");
        assert_eq!(call.params["ip"], "10.0.0.6");
    }
}
