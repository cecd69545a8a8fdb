//! Many hosts on one machine: real agents, each with a data plane of its own, and two VMs each.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Failure,
    loom::Loom,
    machine::memory,
    plan::{Group, Metric, Step},
    scratch::Scratch,
};

/// What is measured of labs.
pub(crate) const HOSTS: Group = Group {
    id: "hosts",
    steps: &[Step {
        id: "up",
        contenders: &["10-hosts", "100-hosts"],
        metrics: &[
            Metric { id: "up", unit: "s", quantile: 0.5 },
            Metric { id: "up-per-host", unit: "s", quantile: 0.5 },
            Metric { id: "agent-memory", unit: "MiB", quantile: 0.5 },
            Metric { id: "map-memory", unit: "MiB", quantile: 0.5 },
        ],
    }],
};

/// Brings labs up and down.
pub(crate) struct Hosts {
    binary: PathBuf,
    scratch: Scratch,
}

impl Hosts {
    /// Nothing is brought up yet.
    pub(crate) fn new(binary: &Path, scratch: &Path) -> Result<Self, Failure> {
        Ok(Self { binary: binary.to_owned(), scratch: Scratch::new(scratch, "hosts")? })
    }

    /// Brings a lab up, and down again: seconds until all is in effect, the same per host, and of
    /// each host MiB of its agent's own and of its maps.
    pub(crate) fn sample(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let count: u32 = contender.split('-').next().unwrap_or_default().parse()?;
        let topology = self.scratch.0.join("topology.yaml");
        fs::write(&topology, topology_of(count)?)?;
        let (loom, seconds) = Loom::up_as(&self.binary, &topology, &[])?;
        let (agents, maps) = look(&loom, count)?;
        let per_host = seconds / f64::from(count);
        Ok(vec![vec![seconds], vec![per_host], agents, maps])
    }
}

/// MiB of each agent's own memory, and of the maps that it has open.
fn look(loom: &Loom, count: u32) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (mut agents, mut maps) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let pid = loom.pid(&host(number))?;
        agents.push(memory(pid.unsigned_abs(), "RssAnon")?);
        maps.push(map_memory(pid)?);
    }
    Ok((agents, maps))
}

/// MiB of the maps that a process has open, by what the kernel says of each (`memlock`).
fn map_memory(pid: i32) -> Result<f64, Failure> {
    let mut bytes = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        };
        // A program has no map id. A map may be open twice.
        if let (Some(id), Some(memlock)) = (field("map_id:"), field("memlock:")) {
            bytes.insert(id, memlock);
        }
    }
    let all: u64 = bytes.values().sum();
    match u32::try_from(all >> 10) {
        Ok(kib) => Ok(f64::from(kib) / 1024.0),
        Err(_) => Err(format!("maps of {all} bytes").into()),
    }
}

/// Hosts with two VMs of one network each.
fn topology_of(count: u32) -> Result<String, Failure> {
    let names: Vec<String> = (1..=count).map(host).collect();
    let mut text = format!("hosts: [{}]\nresources:\n", names.join(", "));
    text.push_str(BEFORE);
    for host in &names {
        let ip = format!("managementIp: $host.{host}.ip");
        writeln!(text, "  - host: {{name: {host}, cluster: cluster, {ip}}}")?;
    }
    text.push_str(NETWORK);
    for host in &names {
        for vm in ["a", "b"] {
            writeln!(text, "  - vm: {{name: {host}{vm}, l3: red-l3, host: {host}}}")?;
        }
    }
    text.push_str("expect: {reach: []}\n");
    Ok(text)
}

fn host(number: u32) -> String {
    format!("h{number}")
}

const BEFORE: &str = "  - zone: {name: bench}
  - cluster: {name: cluster, zone: bench, hypervisorType: KVM}
";
const NETWORK: &str = "  - pool: {name: pool, zone: bench}
  - vnis: {name: vnis, l2: pool, startVni: 100, endVni: 199}
  - l2 attach: {l2: pool, cluster: cluster, cidr: $underlay.cidr}
  - vxlan: {name: red, pool: pool}
  - l3: {name: red-l3, l2: red, category: Private}
  - range:
      name: red-ipv4
      l3: red-l3
      startIp: 10.0.0.2
      endIp: 10.0.255.254
      netmask: 255.255.0.0
      gateway: 10.0.0.1
";
