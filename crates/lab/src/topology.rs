//! Topology files: what hosts there are, which messages make the networks, who reaches whom.
//!
//! Reading one is pure: a resource's uuid follows from the lab's name and its own, so references
//! are known before any server runs. `examples/two-tenants.yaml` documents the form.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use model::{Kind, MessageDef};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, names, reference, underlay};

/// The message that makes a host of the topology known to the server.
pub(crate) const ADD_HOST: &str = "AddKVMHost";
/// The one message that a topology may hold without creating a resource.
pub(crate) const ATTACH: &str = "AttachL2NetworkToCluster";
/// Gives a resource another name for references than its `name`.
const ALIAS: &str = "as";
const TAGS: &str = "systemTags";

/// A topology file, checked, with all references filled in.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) hosts: Vec<String>,
    pub(crate) steps: Vec<Step>,
    /// Ordered pairs of VMs, who shall reach whom.
    pub(crate) reach: BTreeSet<(String, String)>,
}

/// A message to send.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) message: &'static MessageDef,
    /// What references call it; empty if it creates nothing.
    pub(crate) name: String,
    pub(crate) params: Map<String, Value>,
    pub(crate) system_tags: Vec<String>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    hosts: Vec<String>,
    resources: Vec<BTreeMap<String, Map<String, Value>>>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    reach: Vec<(String, String)>,
}

impl Topology {
    /// Understands `text`, the content of the file at `path`, for the lab of this name.
    ///
    /// # Errors
    /// [`Error::Topology`], naming the message and the rule that it breaks.
    pub(crate) fn parse(lab: &str, path: &Path, text: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Topology { path: path.to_owned(), problem };
        let written: Written =
            serde_yaml_ng::from_str(text).map_err(|error| wrong(error.to_string()))?;
        check_hosts(&written.hosts)?;
        let mut known = predefined(&written.hosts);
        let mut steps = Vec::new();
        for (number, entry) in (1..).zip(written.resources) {
            let step = read(lab, entry, &mut known);
            steps.push(step.map_err(|problem| wrong(format!("resource {number}: {problem}")))?);
        }
        let reach = written.expect.reach.into_iter().collect();
        let topology = Self { hosts: written.hosts, steps, reach };
        topology.check().map_err(wrong)?;
        Ok(topology)
    }

    /// The names of the VMs, in the order of the file.
    pub(crate) fn vms(&self) -> Vec<&str> {
        self.created(Kind::VmInstance)
    }

    fn created(&self, kind: Kind) -> Vec<&str> {
        let of_kind = self.steps.iter().filter(|step| step.message.creates == Some(kind));
        of_kind.map(|step| step.name.as_str()).collect()
    }

    fn check(&self) -> Result<(), String> {
        let added: BTreeSet<&str> = self.created(Kind::Host).into_iter().collect();
        if let Some(host) = self.hosts.iter().find(|host| !added.contains(host.as_str())) {
            return Err(format!("host {host} is never added: resources need an {ADD_HOST} for it"));
        }
        if let Some(host) = added.iter().find(|host| !self.hosts.iter().any(|h| h == *host)) {
            return Err(format!("{ADD_HOST} {host}: hosts does not list {host}"));
        }
        let vms = self.vms();
        for (from, to) in &self.reach {
            let unknown = [from, to].into_iter().find(|name| !vms.contains(&name.as_str()));
            if let Some(name) = unknown {
                return Err(format!(
                    "expect.reach: there is no VM {name}; VMs: {}",
                    vms.join(", ")
                ));
            }
            if from == to {
                return Err(format!("expect.reach: [{from}, {to}] is no pair of different VMs"));
            }
        }
        Ok(())
    }
}

fn check_hosts(hosts: &[String]) -> Result<(), Error> {
    for (index, host) in hosts.iter().enumerate() {
        names::check_host(host)?;
        let rule = match hosts[..index].contains(host) {
            true => "is listed twice among the hosts",
            false if index >= underlay::HOSTS_MAX => "is one host too many: 128 fit",
            false => continue,
        };
        return Err(Error::Name { what: "host name", name: host.clone(), rule });
    }
    Ok(())
}

/// What can be referred to without being created: the underlay that the lab makes.
fn predefined(hosts: &[String]) -> BTreeMap<String, String> {
    let host_ips = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| (format!("host.{host}.ip"), underlay::host_ip(index).to_string()));
    let cidr = ("underlay.cidr".to_owned(), underlay::CIDR.to_owned());
    host_ips.chain([cidr]).collect()
}

/// Reads one message, and makes its resource known to those that follow.
fn read(
    lab: &str,
    entry: BTreeMap<String, Map<String, Value>>,
    known: &mut BTreeMap<String, String>,
) -> Result<Step, String> {
    let mut entries = entry.into_iter();
    let (Some((message, mut params)), None) = (entries.next(), entries.next()) else {
        return Err("must be one message: a single key with its fields below".to_owned());
    };
    let message = client::message(&message).map_err(|error| error.to_string())?;
    if message.creates.is_none() && message.name != ATTACH {
        let rule = "creates nothing; a topology says what exists";
        return Err(format!("{} {rule}", message.name));
    }
    let alias = match params.remove(ALIAS) {
        None => params.get("name").and_then(Value::as_str).map(str::to_owned),
        Some(Value::String(alias)) => Some(alias),
        Some(other) => return Err(format!("{}: as: {other} is no text", message.name)),
    };
    let name = match (alias, message.creates) {
        (Some(name), Some(_)) => name,
        (None, Some(_)) => return Err(format!("{}: give it a name with `as`", message.name)),
        (_, None) => String::new(),
    };
    let place = |problem: String| format!("{} {name}: {problem}", message.name);
    let tags = params.remove(TAGS).unwrap_or_else(|| Value::Array(Vec::new()));
    let tags = reference::fill(tags, known).map_err(place)?;
    let params = reference::fill(Value::Object(params), known).map_err(place)?;
    let (Value::Object(params), Ok(system_tags)) = (params, serde_json::from_value(tags)) else {
        return Err(place(format!("{TAGS} must be a list of texts")));
    };
    if message.creates.is_some() {
        let uuid = names::uuid(lab, &name).simple().to_string();
        if known.insert(name.clone(), uuid).is_some() {
            let rule = "the name is used above; give one of both another with `as`";
            return Err(place(rule.to_owned()));
        }
    }
    Ok(Step { message, name, params, system_tags })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_TENANTS: &str = include_str!("../../../examples/two-tenants.yaml");

    fn parse(text: &str) -> Result<Topology, String> {
        Topology::parse("demo", Path::new("t.yaml"), text).map_err(|error| error.to_string())
    }

    /// A file with one host and these further messages.
    fn with(more: &str) -> Result<Topology, String> {
        let start = "hosts: [h1]\nexpect: {reach: []}\nresources:\n\
             - CreateZone: {name: lab}\n\
             - CreateCluster: {name: c1, zoneUuid: $lab, hypervisorType: KVM}\n\
             - AddKVMHost: {name: h1, clusterUuid: $c1, managementIp: $host.h1.ip}\n";
        parse(&format!("{start}{more}"))
    }

    #[test]
    fn references_become_uuids_and_underlay_addresses() {
        let topology = with("").unwrap();
        let cluster = &topology.steps[1].params["zoneUuid"];
        assert_eq!(cluster, &names::uuid("demo", "lab").simple().to_string());
        assert_eq!(topology.steps[2].params["managementIp"], "172.31.255.11");
    }

    #[test]
    fn the_example_has_four_vms_of_two_tenants_that_reach_only_their_own() {
        let topology = parse(TWO_TENANTS).unwrap();
        assert_eq!(topology.vms(), ["red-1", "blue-1", "red-2", "blue-2"]);
        let tenant = |vm: &str| vm.split('-').next().map(str::to_owned);
        assert_eq!(topology.reach.len(), 4);
        assert!(topology.reach.iter().all(|(from, to)| tenant(from) == tenant(to)));
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let cases = [
            ("- CreateZone: {name: lab}\n", "resource 4: CreateZone lab: the name is used above"),
            ("- CreateZone: {name: z, x: $nothing}\n", "$nothing: nothing above"),
            ("- CreateZome: {name: z}\n", "no message CreateZome"),
            ("- DeleteZone: {uuid: $lab}\n", "creates nothing"),
            ("- CreateZone: {}\n", "give it a name with `as`"),
            ("- CreateZone: {name: z, systemTags: one}\n", "must be a list of texts"),
            ("- {CreateZone: {name: a}, CreateCluster: {name: b}}\n", "a single key"),
            ("- AddKVMHost: {name: h2}\n", "hosts does not list h2"),
            ("exepct: 1\n", "unknown field `exepct`"),
        ];
        for (more, part) in cases {
            let problem = with(more).unwrap_err();
            assert!(problem.contains(part), "{more}: {problem}");
        }
        let unknown = "hosts: []\nresources: []\nexpect: {reach: [[a, b]]}\n";
        assert!(parse(unknown).unwrap_err().contains("there is no VM a"));
    }

    #[test]
    fn two_resources_may_have_one_name_when_one_of_them_has_an_alias() {
        let topology = with("- CreateZone: {name: lab, as: other}\n").unwrap();
        assert_eq!(topology.steps[3].name, "other");
        assert_eq!(topology.steps[3].params.get("as"), None);
    }
}
