//! What a host should hold, what its data plane holds, and what it counted: for an operator, on
//! the host, with or without an agent that runs. Changes nothing.

mod policies;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    net::IpAddr,
    path::Path,
};

use dataplane::{Counters, Tables, View};
use hostnet::Netlink;
use model::Mac;
use packet::{ConntrackSize, DropReason, Learned};
use serde::Serialize;
use tokio::runtime;
use uuid::Uuid;
use wire::{
    fact::{self, Fact},
    object::{Object, Port, Table},
};

use crate::{
    Error,
    flow_log::Sampled,
    render,
    state::{self, Desired},
    tell::{self, Loss, Word},
    underlay::{self, Underlay, Ways},
};
use policies::Policies;

pub use policies::{GroupLine, PolicyLine, why};

/// What is on a host.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// What the server wanted last; absent when nothing was saved or the file is damaged.
    pub saved: Option<Saved>,
    /// Why what was saved cannot be understood.
    pub damage: Option<String>,
    /// What the host's agent says; absent when none runs.
    pub agent: Option<Word>,
    /// Why an agent that runs does not answer.
    pub agent_silent: Option<String>,
    /// Whether all that is wanted is in effect, as far as can be known: the maps are as desired,
    /// and an agent runs and finds nothing wrong with devices and programs.
    pub in_effect: bool,
    /// The digest of the facts that the eBPF maps hold.
    pub kernel: String,
    /// Whether these are the facts that were wanted, and the maps have all of the policies; it says nothing of devices and programs. An agent that is at work on a change makes
    /// this false for a moment.
    pub as_desired: bool,
    /// Facts that the maps should hold and do not.
    pub missing: Vec<String>,
    /// Facts that the maps hold and should not.
    pub unexpected: Vec<String>,
    /// The underlay of each own VTEP, if the inspection runs in the host's network namespace.
    pub underlay: Vec<Underlay>,
    /// Ports that the host has room for.
    pub ports_max: u32,
    /// The ports of the maps.
    pub ports: Vec<PortLine>,
    /// Machines that nobody has told us of, as their foreign VTEPs have sent frames of theirs; some
    /// may be gone for long.
    pub strangers: Vec<StrangerLine>,
    /// Dropped frames, by reason; those that never occurred are left out.
    pub drops: Vec<DropLine>,
    /// Drop events for which the ring buffer had no room.
    pub events_lost: u64,
}

/// The last desired state on disk.
#[derive(Clone, Debug, Serialize)]
pub struct Saved {
    /// The store's revision, as it was when these objects were written.
    pub revision: u64,
    /// How many objects of each table, and their digest.
    pub objects: BTreeMap<&'static str, ObjectsLine>,
    /// The digest of the facts that they give.
    pub kernel: String,
}

/// The objects of a table.
#[derive(Clone, Debug, Serialize)]
pub struct ObjectsLine {
    /// How many.
    pub count: usize,
    /// Their digest, which the server compares.
    pub digest: String,
}

/// A port.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortLine {
    /// Its number in the data plane.
    pub number: u32,
    /// The index of the interface on the host's side.
    pub ifindex: u32,
    /// The number of its network.
    pub network: u32,
    /// The only MAC that it may send from.
    pub mac: String,
    /// The addresses that it may send from.
    pub addresses: Vec<IpAddr>,
    /// The NIC, if it is a wanted one.
    pub nic: Option<Uuid>,
    /// The name of the instance that has the NIC.
    pub instance: Option<String>,
    /// The device, made by something else, that the NIC is plugged into, if it has no instance.
    pub device: Option<String>,
    /// Connections that it has.
    pub connections: u64,
    /// Connections that it is sure to get: as many that it opens, and as many that others open.
    pub connections_sure: u32,
    /// Packets that it sent and that were let through.
    pub from_port_packets: u64,
    /// Their bytes.
    pub from_port_bytes: u64,
    /// Packets delivered to it.
    pub to_port_packets: u64,
    /// Their bytes.
    pub to_port_bytes: u64,
    /// Packets from or to it that were dropped.
    pub dropped_packets: u64,
    /// Who may talk to it, and to whom it may; absent: whoever is in its network.
    pub policy: Option<PolicyLine>,
}

/// Where a machine is that nobody has told us of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StrangerLine {
    /// The number of its network.
    pub network: u32,
    /// Its MAC.
    pub mac: String,
    /// The foreign VTEP behind which it is.
    pub vtep: IpAddr,
}

/// Frames dropped for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct DropLine {
    /// The reason's name in metrics.
    pub reason: &'static str,
    /// How many, since the maps were made.
    pub packets: u64,
    /// What it means.
    pub meaning: &'static str,
}

/// Looks at the host whose agent has these directories.
///
/// # Errors
/// [`Error::DataPlane`] when no data plane is pinned at `bpffs`, [`Error::File`] when the saved
/// state cannot be read.
pub fn inspect(data: &Path, bpffs: &Path) -> Result<Inspection, Error> {
    let view = View::open(bpffs)?;
    let (saved, damage) = match state::read(data)? {
        Ok(saved) => (saved, None),
        Err(reason) => (None, Some(reason)),
    };
    let seen = Seen::of(&view)?;
    let inspection = report(saved.as_ref(), &seen);
    let underlay = saved.as_ref().map(|saved| underlay(saved, &seen.tables)).transpose()?;
    let underlay = underlay.unwrap_or_default();
    let (agent, agent_silent) = match tell::ask(data) {
        Ok(word) => (word, None),
        Err(reason) => (None, Some(reason)),
    };
    let in_effect = inspection.as_desired && agent.as_ref().is_some_and(Word::is_clean);
    Ok(Inspection { damage, underlay, agent, agent_silent, in_effect, ..inspection })
}

/// What a data plane shows.
struct Seen {
    tables: Tables,
    counters: Counters,
    room: ConntrackSize,
    salt: u64,
    learned: Vec<Learned>,
    /// Connections by port number.
    connections: BTreeMap<u32, u64>,
}

impl Seen {
    fn of(view: &View) -> Result<Seen, Error> {
        let mut connections = BTreeMap::new();
        for connection in view.connections()? {
            *connections.entry(connection.port).or_default() += 1;
        }
        let (tables, counters) = (view.tables()?, view.counters()?);
        let (room, learned) = (view.room()?, view.learned()?);
        let salt = view.salt()?;
        Ok(Seen { tables, counters, room, salt, learned, connections })
    }
}

fn report(desired: Option<&Desired>, seen: &Seen) -> Inspection {
    let Seen { tables, counters, room, .. } = seen;
    let wanted = desired.map(|d| fact::facts(d.holding.objects())).unwrap_or_default();
    let held = render::facts(tables);
    let limits = (room.ports, seen.salt);
    let policies = desired.map(|d| policies::compare(&d.holding, tables, limits));
    let Policies { lines, missing, unexpected } = policies.unwrap_or_default();
    let differing = |a: &BTreeSet<Fact>, b: &BTreeSet<Fact>, also: &[String]| {
        a.difference(b).map(render::words).chain(also.iter().cloned()).collect()
    };
    let has_policies = missing.is_empty() && unexpected.is_empty();
    Inspection {
        saved: desired.map(saved),
        damage: None,
        agent: None,
        agent_silent: None,
        in_effect: false,
        kernel: fact::digest(&held).to_string(),
        as_desired: desired.is_some() && wanted == held && has_policies,
        missing: differing(&wanted, &held, &missing),
        unexpected: differing(&held, &wanted, &unexpected),
        underlay: Vec::new(),
        ports_max: room.ports,
        ports: ports(desired, seen, &lines),
        strangers: strangers(&seen.learned),
        drops: drops(counters),
        events_lost: counters.events_lost,
    }
}

/// What is seen of the underlay from here: other network namespaces have other devices.
fn underlay(desired: &Desired, tables: &Tables) -> Result<Vec<Underlay>, Error> {
    let longest = underlay::longest(&desired.holding);
    let tunnels = underlay::tunnels(longest.keys(), tables);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Runtime)?;
    let ways =
        runtime.block_on(async { underlay::ways(&Netlink::current().await?, &tunnels).await });
    let ways = ways.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot see how large the underlay is");
        Ways::new()
    });
    Ok(underlay::compare(&longest, &ways))
}

fn saved(desired: &Desired) -> Saved {
    let digests = desired.holding.digests();
    let line = |table: &Table| {
        let of_table = desired.holding.objects().keys().filter(|key| key.table == *table);
        let digest = digests.table(*table).to_string();
        (table.name(), ObjectsLine { count: of_table.count(), digest })
    };
    let objects = Table::ALL.iter().map(line).collect();
    let kernel = desired.holding.kernel_digest().to_string();
    Saved { revision: desired.revision, objects, kernel }
}

fn ports(
    desired: Option<&Desired>,
    seen: &Seen,
    policies: &BTreeMap<u32, PolicyLine>,
) -> Vec<PortLine> {
    let Seen { tables, counters, room, .. } = seen;
    let objects = || {
        let held = desired.into_iter().flat_map(|desired| desired.holding.objects().values());
        held.map(|object| &**object)
    };
    let wanted: BTreeMap<u32, &Port> = objects()
        .filter_map(|object| match object {
            Object::Port(port) => Some((port.number, port)),
            _ => None,
        })
        .collect();
    let instances: BTreeMap<Uuid, &str> = objects()
        .filter_map(|object| match object {
            Object::Instance(instance) => Some((instance.uuid, instance.name.as_str())),
            _ => None,
        })
        .collect();
    let line = |ifindex, port: &packet::Port| {
        let (number, known) = (port.number, wanted.get(&port.number));
        let traffic = counters.traffic.get(&number).copied().unwrap_or_default();
        let addresses = tables.addrs.keys().filter(|key| key.port == number);
        PortLine {
            number,
            ifindex,
            network: port.net,
            mac: Mac(port.mac.0).to_string(),
            addresses: addresses.map(|key| key.addr.into()).collect(),
            nic: known.map(|port| port.uuid),
            instance: known
                .and_then(|port| instances.get(&port.instance?))
                .map(|name| (*name).to_owned()),
            device: known.and_then(|port| port.device.clone()),
            connections: seen.connections.get(&number).copied().unwrap_or_default(),
            connections_sure: room.per_port(),
            from_port_packets: traffic.from_port_packets,
            from_port_bytes: traffic.from_port_bytes,
            to_port_packets: traffic.to_port_packets,
            to_port_bytes: traffic.to_port_bytes,
            dropped_packets: traffic.dropped_packets,
            policy: policies.get(&number).cloned(),
        }
    };
    tables.ports.iter().map(|(key, port)| line(key.ifindex, port)).collect()
}

fn strangers(learned: &[Learned]) -> Vec<StrangerLine> {
    let line = |learned: &Learned| StrangerLine {
        network: learned.net,
        mac: model::Mac(learned.mac.0).to_string(),
        vtep: learned.vtep.into(),
    };
    let mut lines: Vec<_> = learned.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

fn drops(counters: &Counters) -> Vec<DropLine> {
    let all = DropReason::ALL.iter();
    let found = all.filter_map(|info| Some((info, *counters.drops.get(info.name)?)));
    found
        .map(|(info, packets)| DropLine { reason: info.name, packets, meaning: info.doc.trim() })
        .collect()
}

impl Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.saved, &self.damage) {
            (Some(saved), _) => writeln!(f, "wanted   {saved}")?,
            (None, Some(reason)) => {
                writeln!(f, "wanted   unknown: the saved state is damaged: {reason}")?
            }
            (None, None) => writeln!(f, "wanted   unknown: nothing was saved yet")?,
        }
        let verdict = match (self.as_desired, self.in_effect) {
            (true, true) => "as wanted",
            (true, false) => "the maps are as wanted",
            (false, _) => "not as wanted",
        };
        writeln!(f, "in force {verdict}, digest {}", short(&self.kernel))?;
        self.agent_says(f)?;
        self.missing.iter().try_for_each(|fact| writeln!(f, "  missing: {fact}"))?;
        self.unexpected.iter().try_for_each(|fact| writeln!(f, "  unexpected: {fact}"))?;
        for line in &self.underlay {
            let verdict = line.trouble.as_deref().unwrap_or("large enough");
            let (own, device) = (line.vtep, &line.device);
            writeln!(f, "underlay {own}, {device}, {} bytes: {verdict}", line.mtu_bytes)?;
        }
        writeln!(
            f,
            "\n{} of {} ports; connections: now, and what a port is sure of, in and out",
            self.ports.len(),
            self.ports_max
        )?;
        writeln!(
            f,
            "{:>6} {:>7} {:<16} {:<17} {:>13} {:>11} {:>11} {:>8}  addresses",
            "port",
            "ifindex",
            "instance/device",
            "mac",
            "connections",
            "sent",
            "received",
            "dropped"
        )?;
        self.ports.iter().try_for_each(|port| writeln!(f, "{port}"))?;
        let policies =
            self.ports.iter().filter_map(|port| Some((port.number, port.policy.as_ref()?)));
        for (number, policy) in policies {
            writeln!(f, "port {number}: {policy}")?;
        }
        for StrangerLine { network, mac, vtep } in &self.strangers {
            writeln!(f, "network {network}: {mac} is behind foreign VTEP {vtep}")?;
        }
        writeln!(f, "\n{:>12}  reason of drops", "packets")?;
        self.drops.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "{:>12}  drop events lost: the ring buffer was full", self.events_lost)?;
        let losses = self.agent.iter().flat_map(|word| &word.losses);
        losses.into_iter().try_for_each(|loss| write!(f, "\n{loss}"))?;
        let refused = self.agent.iter().flat_map(|word| &word.refused);
        refused.into_iter().try_for_each(|(why, count)| write!(f, "\n{count:>12}  {why}"))?;
        let leases = self.agent.iter().flat_map(|word| &word.leases);
        leases.into_iter().try_for_each(|lease| write!(f, "\n{lease}"))?;
        let ignored = self.agent.iter().flat_map(|word| &word.ignored);
        ignored.into_iter().try_for_each(|(why, count)| write!(f, "\n{count:>12}  {why}"))
    }
}

impl Inspection {
    fn agent_says(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (&self.agent, &self.agent_silent) {
            (Some(word), _) => word,
            (None, Some(reason)) => return writeln!(f, "agent    does not answer: {reason}"),
            (None, None) => {
                return writeln!(f, "agent    does not run: nobody watches devices and programs");
            }
        };
        match word.revision {
            Some(_) if word.is_clean() => writeln!(f, "agent    all is in effect")?,
            Some(_) => writeln!(f, "agent    not all is in effect")?,
            None => writeln!(f, "agent    does not know yet what is wanted")?,
        }
        let Sampled { compared, differed } = word.sampled;
        if compared > 0 {
            writeln!(
                f,
                "sampled  {compared} verdicts, of which {differed} are not as the rules say"
            )?;
        }
        word.trouble.iter().try_for_each(|trouble| writeln!(f, "  this host: {trouble}"))?;
        let name = |uuid: &Uuid| {
            let port = self.ports.iter().find(|port| port.nic == Some(*uuid));
            let instance = port.and_then(|port| port.instance.as_deref());
            instance.map(|name| format!(" (NIC of {name})")).unwrap_or_default()
        };
        word.not_in_effect
            .iter()
            .try_for_each(|(uuid, why)| writeln!(f, "  {}{}: {why}", uuid.simple(), name(uuid)))
    }
}

impl Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}, digest {}:", self.revision, short(&self.kernel))?;
        let mut separator = " ";
        for (table, line) in &self.objects {
            write!(f, "{separator}{} {table}", line.count)?;
            separator = ", ";
        }
        Ok(())
    }
}

impl Display for PortLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = format!("{}/2x{}", self.connections, self.connections_sure);
        write!(
            f,
            "{:>6} {:>7} {:<16} {:<17} {connections:>13} {:>11} {:>11} {:>8} ",
            self.number,
            self.ifindex,
            self.instance.as_deref().or(self.device.as_deref()).unwrap_or("-"),
            self.mac,
            self.from_port_packets,
            self.to_port_packets,
            self.dropped_packets,
        )?;
        self.addresses.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

impl Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>12}  dropped by the kernel on {} (in: {} dropped, {} errors; out: {} dropped, {} \
             errors, {} of them without carrier or route)",
            self.rx_dropped + self.rx_errors + self.tx_dropped + self.tx_errors,
            self.device,
            self.rx_dropped,
            self.rx_errors,
            self.tx_dropped,
            self.tx_errors,
            self.tx_carrier_errors
        )
    }
}

impl Display for DropLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12}  {}: {}", self.packets, self.reason, self.meaning)
    }
}

/// Enough of a digest to compare by eye.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
#[path = "inspect/tests.rs"]
mod tests;
