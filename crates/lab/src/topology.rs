//! Topology files: what hosts there are, what is made for them, who reaches whom.
//!
//! Reading one is pure: a resource's uuid follows from the lab's name, its kind and its own name.
//! `examples/two-tenants.yaml` documents the form.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    path::Path,
};

use cli::Resource;
use model::Kind;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, names, reference, underlay};

/// The message that makes a host of the topology known to the server.
pub(crate) const ADD_HOST: &str = "AddKVMHost";

/// A topology file, checked, with what the lab knows filled in.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) hosts: Vec<String>,
    /// What there shall be, as `netloom apply` takes it.
    pub(crate) resources: cli::Topology,
    /// Ordered pairs of VMs, who shall reach whom; at one port, or at all.
    pub(crate) reach: BTreeSet<(String, String, Option<u16>)>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    hosts: Vec<String>,
    resources: Vec<Resource>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    reach: Vec<Reach>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be [from, to] or [from, to, port]")]
enum Reach {
    AtEach(String, String),
    At(String, String, NonZero<u16>),
}

impl From<Reach> for (String, String, Option<u16>) {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::AtEach(from, to) => (from, to, None),
            Reach::At(from, to, port) => (from, to, Some(port.get())),
        }
    }
}

impl Topology {
    /// Understands `text`, the content of the file at `path`, for the lab of this name.
    ///
    /// # Errors
    /// [`Error::Topology`], naming the resource and the rule that it breaks.
    pub(crate) fn parse(lab: &str, path: &Path, text: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Topology { path: path.to_owned(), problem };
        let Written { hosts, resources, expect } =
            serde_yaml_ng::from_str(text).map_err(|error| wrong(error.to_string()))?;
        check_hosts(&hosts)?;
        let resources = resources_of(lab, &hosts, resources).map_err(wrong)?;
        let topology =
            Self { hosts, resources, reach: expect.reach.into_iter().map(Into::into).collect() };
        topology.check().map_err(wrong)?;
        Ok(topology)
    }

    /// The names of the VMs, in the order of the file.
    pub(crate) fn vms(&self) -> Vec<&str> {
        self.made(Kind::VmInstance)
    }

    /// Whether one VM shall reach another one at a port.
    pub(crate) fn reaches(&self, from: &str, to: &str, port: u16) -> bool {
        [None, Some(port)]
            .into_iter()
            .any(|port| self.reach.contains(&(from.to_owned(), to.to_owned(), port)))
    }

    /// The ports that pairs are named with.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.reach.iter().filter_map(|(_, _, port)| *port).collect()
    }

    fn made(&self, wanted: Kind) -> Vec<&str> {
        let made = self.resources.entries().filter_map(cli::Entry::makes);
        made.filter(|(kind, _)| *kind == wanted).map(|(_, name)| name).collect()
    }

    fn check(&self) -> Result<(), String> {
        let added: BTreeSet<&str> = self.made(Kind::Host).into_iter().collect();
        if let Some(host) = self.hosts.iter().find(|host| !added.contains(host.as_str())) {
            return Err(format!("host {host} is never added: resources need a host of this name"));
        }
        if let Some(host) = added.iter().find(|host| !self.hosts.iter().any(|h| h == *host)) {
            return Err(format!("host {host}: hosts does not list {host}"));
        }
        let vms = self.vms();
        for (from, to, _) in &self.reach {
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

/// The resources as the engine of `netloom apply` takes them: references to the underlay filled in,
/// each with the uuid by which the lab knows it.
fn resources_of(
    lab: &str,
    hosts: &[String],
    written: Vec<Resource>,
) -> Result<cli::Topology, String> {
    let known = predefined(hosts);
    let mut filled = Vec::new();
    for (number, entry) in (1..).zip(written) {
        let entry = entry.into_iter().map(|(key, fields)| Ok((key, fill(fields, &known)?)));
        let entry = entry.collect::<Result<Resource, String>>();
        filled.push(entry.map_err(|problem| format!("resource {number}: {problem}"))?);
    }
    // The lab's name says whose they are: what a later file leaves out goes.
    let mut resources = cli::Topology::of(Some(format!("lab-{lab}")), filled)?;
    let mut seen = BTreeSet::new();
    for entry in resources.entries_mut() {
        let Some((kind, name)) = entry.makes() else { continue };
        let problem = match name {
            "" => "has no name",
            _ if !seen.insert((kind, name.to_owned())) => "its name is used above",
            _ => {
                entry.identify(names::uuid(lab, kind, name));
                continue;
            }
        };
        return Err(format!("{} {name}: {problem}", entry.place()));
    }
    Ok(resources)
}

fn fill(
    fields: Map<String, Value>,
    known: &BTreeMap<String, String>,
) -> Result<Map<String, Value>, String> {
    let filled = fields.into_iter().map(|(key, value)| Ok((key, reference::fill(value, known)?)));
    filled.collect()
}

/// What can be referred to: the underlay that the lab makes.
fn predefined(hosts: &[String]) -> BTreeMap<String, String> {
    let host_ips = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| (format!("host.{host}.ip"), underlay::host_ip(index).to_string()));
    let cidr = ("underlay.cidr".to_owned(), underlay::CIDR.to_owned());
    host_ips.chain([cidr]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_TENANTS: &str = include_str!("../../../examples/two-tenants.yaml");
    const WEB_AND_DATABASE: &str = include_str!("../../../examples/web-and-database.yaml");
    const BENCH: &str = include_str!("../../../bench/topology.yaml");

    fn parse(text: &str) -> Result<Topology, String> {
        Topology::parse("demo", Path::new("t.yaml"), text).map_err(|error| error.to_string())
    }

    /// A file with one host and these further resources.
    fn with(more: &str) -> Result<Topology, String> {
        let start = "hosts: [h1]\nexpect: {reach: []}\nresources:\n\
             - zone: {name: lab}\n\
             - cluster: {name: c1, zone: lab, hypervisorType: KVM}\n\
             - host: {name: h1, cluster: c1, managementIp: $host.h1.ip}\n";
        parse(&format!("{start}{more}"))
    }

    #[test]
    fn a_host_has_its_address_on_the_underlay_and_a_uuid_that_follows_from_its_name() {
        let topology = with("").unwrap();
        let host = format!("{:?}", topology.resources.entries().nth(2).unwrap());
        assert!(host.contains("172.31.255.11"), "{host}");
        let uuid = names::uuid("demo", Kind::Host, "h1").simple().to_string();
        assert!(host.contains(&uuid), "{host}");
    }

    #[test]
    fn the_example_has_four_vms_of_two_tenants_that_reach_only_their_own() {
        let topology = parse(TWO_TENANTS).unwrap();
        assert_eq!(topology.vms(), ["red-1", "blue-1", "red-2", "blue-2"]);
        let tenant = |vm: &str| vm.split('-').next().map(str::to_owned);
        assert_eq!(topology.reach.len(), 4);
        assert!(topology.reach.iter().all(|(from, to, _)| tenant(from) == tenant(to)));
    }

    #[test]
    fn the_database_is_reached_by_the_web_server_at_its_port_alone() {
        let topology = parse(WEB_AND_DATABASE).unwrap();
        assert_eq!(topology.ports(), [80, 5432].into());
        let to_database = |from: &str, port| topology.reaches(from, "db-1", port);
        assert!(to_database("web-1", 5432));
        assert!(!to_database("web-1", 80) && !to_database("client-1", 5432));
        assert!(topology.reaches("web-1", "client-1", 80), "at each port");
        let wrong = parse(&WEB_AND_DATABASE.replace("db-1, 5432]", "db-1, 0]")).unwrap_err();
        assert!(wrong.contains("[from, to, port]"), "{wrong}");
    }

    #[test]
    fn the_benchmark_has_three_vms_that_reach_each_other() {
        let topology = parse(BENCH).unwrap();
        assert_eq!((topology.vms().len(), topology.reach.len()), (3, 6));
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let cases = [
            ("- CreateZone: {name: lab}\n", "resource 4, CreateZone lab: its name is used above"),
            ("- zone: {name: z, x: $nothing}\n", "$nothing: nothing"),
            ("- CreateZome: {name: z}\n", "no \"CreateZome\" to make"),
            ("- DeleteZone: {uuid: lab}\n", "no \"DeleteZone\" to make"),
            ("- zone: {}\n", "resource 4, zone : has no name"),
            ("- {zone: {name: a}, cluster: {name: b}}\n", "a single key"),
            ("- host: {name: h2}\n", "hosts does not list h2"),
            ("exepct: 1\n", "unknown field `exepct`"),
        ];
        for (more, part) in cases {
            let problem = with(more).unwrap_err();
            assert!(problem.contains(part), "{more}: {problem}");
        }
        let unknown = "hosts: []\nresources: []\nexpect: {reach: [[a, b]]}\n";
        assert!(parse(unknown).unwrap_err().contains("there is no VM a"));
        with("- cluster: {name: lab, zone: lab, hypervisorType: KVM}\n").unwrap();
    }
}
