//! `netloom status`: the server at a glance, and who waits for whom.

use std::collections::BTreeMap;

use client::Client;
use model::Kind;
use serde_json::{Value, json};

use crate::{
    Connection, Error,
    noun::noun_of,
    output::{Format, Manner},
    table,
};

/// Most resources that are named each time.
const NAMED_MAX: usize = 10;

pub(crate) fn run(connection: &Connection, manner: &Manner) -> Result<(), Error> {
    let status = connection.with(gather)?;
    match manner.output {
        Some(Format::Json | Format::Yaml) => manner.show_answer(&status),
        _ => crate::print(&text(&status)),
    }
}

/// What there is, and what is not as it should be.
fn gather(client: &Client) -> Result<Value, Error> {
    let fields = "uuid,name,status,synced,state,notInEffect,refused,clock";
    let hosts = all(client, Kind::Host, &[("fields", fields)])?;
    let names: BTreeMap<&str, &str> = hosts
        .iter()
        .filter_map(|host| Some((host["uuid"].as_str()?, host["name"].as_str()?)))
        .collect();
    let not_synced =
        hosts.iter().filter(|host| host["synced"] != true || host["status"] != "Connected");
    let trouble: Vec<String> = not_synced.map(of_host).collect();
    let count = |conditions: &[&str]| count(client, Kind::VmInstance, conditions);
    let fields = "uuid,name,state,hostUuid,notInEffect";
    let late =
        [("q", "state!=Running"), ("q", "state!=Stopped"), ("limit", "10"), ("fields", fields)];
    let late = page(client, Kind::VmInstance, &late)?;
    let late: Vec<String> = late.iter().map(|vm| of_vm(vm, &names)).collect();
    let connected = hosts.iter().filter(|host| host["status"] == "Connected").count();
    let in_force = hosts.iter().filter(|host| host["synced"] == true).count();
    Ok(json!({
        "hosts": {"all": hosts.len(), "connected": connected, "inForce": in_force},
        "vms": {
            "all": count(&[])?,
            "running": count(&["state=Running"])?,
            "stopped": count(&["state=Stopped"])?,
        },
        "waiting": {"hosts": trouble, "vms": late},
    }))
}

fn of_host(host: &Value) -> String {
    let name = host["name"].as_str().unwrap_or_default();
    let says = ["refused", "notInEffect", "clock"].into_iter().find_map(|key| host[key].as_str());
    let what = match (host["status"].as_str(), host["synced"].as_bool()) {
        (Some("Connected"), _) => "is connected, and has not confirmed all that it was told",
        (Some("Connecting"), _) => "has not connected since the server started, or never",
        _ => "is not connected",
    };
    match says {
        Some(why) => format!("host {name} {what}: {why}"),
        None => format!("host {name} {what}"),
    }
}

fn of_vm(vm: &Value, hosts: &BTreeMap<&str, &str>) -> String {
    let text = |key: &str| vm[key].as_str();
    let name = text("name").unwrap_or_default();
    let host = text("hostUuid").map(|uuid| hosts.get(uuid).copied().unwrap_or(uuid));
    let state = text("state").unwrap_or_default();
    let why = text("notInEffect").map(|why| format!(": {why}")).unwrap_or_default();
    match host {
        Some(host) => format!("vm {name} is {state}, waits for host {host}{why}"),
        None => format!("vm {name} is {state}{why}"),
    }
}

/// For people.
fn text(status: &Value) -> String {
    let (hosts, vms) = (&status["hosts"], &status["vms"]);
    let mut lines = vec![
        format!(
            "hosts  {}: {} connected, {} have all in force",
            hosts["all"], hosts["connected"], hosts["inForce"]
        ),
        format!("VMs    {}: {} running, {} stopped", vms["all"], vms["running"], vms["stopped"]),
    ];
    let waiting = ["hosts", "vms"].map(|key| status["waiting"][key].as_array());
    for found in waiting.into_iter().flatten() {
        let shown = found.iter().take(NAMED_MAX).filter_map(Value::as_str).map(table::harmless);
        lines.extend(shown);
        if found.len() > NAMED_MAX {
            lines.push(format!("and {} more", found.len() - NAMED_MAX));
        }
    }
    lines.join("\n")
}

fn count(client: &Client, kind: Kind, conditions: &[&str]) -> Result<Value, Error> {
    let mut pairs: Vec<(&str, &str)> = conditions.iter().map(|text| ("q", *text)).collect();
    pairs.push(("count", "true"));
    let mut answer = client.query_pairs(kind.def().path(), &owned(&pairs))?;
    Ok(answer["total"].take())
}

fn page(client: &Client, kind: Kind, pairs: &[(&str, &str)]) -> Result<Vec<Value>, Error> {
    let mut answer = client.query_pairs(kind.def().path(), &owned(pairs))?;
    match answer["inventories"].take() {
        Value::Array(rows) => Ok(rows),
        _ => Ok(Vec::new()),
    }
}

fn all(client: &Client, kind: Kind, pairs: &[(&str, &str)]) -> Result<Vec<Value>, Error> {
    debug_assert!(noun_of(kind).is_some(), "it can be queried");
    Ok(client.query_all(kind.def().path(), &owned(pairs))?)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_who_waits_for_whom() {
        let host = json!({"name": "h2", "status": "Disconnected", "synced": false});
        let vm = json!({"name": "red-3", "state": "Starting", "hostUuid": "u2"});
        let status = json!({
            "hosts": {"all": 2, "connected": 1, "inForce": 1},
            "vms": {"all": 5, "running": 4, "stopped": 0},
            "waiting": {"hosts": [of_host(&host)], "vms": [of_vm(&vm, &[("u2", "h2")].into())]},
        });
        let expected = "\
hosts  2: 1 connected, 1 have all in force
VMs    5: 4 running, 0 stopped
host h2 is not connected
vm red-3 is Starting, waits for host h2";
        assert_eq!(text(&status), expected);
    }
}
